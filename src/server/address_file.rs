//! The file `admin.address`, from which commands learn the address of the admin interface.
//!
//! Owns: the file, from the time the admin address is bound until just before the address becomes
//! free for another server. Servers that share a data directory share the file, which contains the
//! address of the server that started last. When that server has ended, another one replaces the
//! file within a second. Each server writes only its own address, so the file never contains the
//! address of a server that ended before.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::backend::{DataDir, FileMark};
use crate::net::Address;

use super::urls::admin_url;

/// The file of this server. Dropping it removes the file, unless another server has replaced it.
pub(super) struct AddressFile {
    data: DataDir,
    line: String,
    /// Identifies the file as written. `None` if writing failed.
    mark: Option<FileMark>,
}

/// A file with several owners: the admin listener, the thread that handles signals during startup,
/// and the thread that replaces the file.
#[derive(Clone, Default)]
pub(super) struct SharedAddressFile(Arc<Mutex<Option<AddressFile>>>);

impl SharedAddressFile {
    pub(super) fn new(file: Option<AddressFile>) -> Self {
        SharedAddressFile(Arc::new(Mutex::new(file)))
    }

    /// Removes the file, unless it has been removed already.
    pub(super) fn remove(&self) {
        drop(self.with(Option::take));
    }

    /// Starts a thread that rewrites the file whenever the server that wrote it has ended. The
    /// thread ends after [`SharedAddressFile::remove`].
    ///
    /// # Errors
    /// If the system cannot create the thread.
    pub(super) fn spawn_rewriter(&self) -> io::Result<()> {
        let file = self.clone();
        let rewrite =
            |file: &mut Option<AddressFile>| file.as_mut().map(AddressFile::replace_ended);
        let run = move || {
            while file.with(rewrite).is_some() {
                thread::sleep(PERIOD);
            }
        };
        let thread = thread::Builder::new().name("address".into());
        thread.spawn(run).map(drop)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Option<AddressFile>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AddressFile {
    /// Writes the file. Failure is not fatal: a full disk must not prevent startup.
    pub(super) fn write(data: &DataDir, admin: &Address) -> Self {
        let line = match admin {
            // Commands run in other directories, so the path must be absolute.
            Address::Unix(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                admin_url(&Address::Unix(path))
            }
            address => admin_url(address),
        };
        let written = data.write_admin_address(&line).inspect_err(|error| {
            log::warn!("{error}; until the next start, run `publish` with --admin {line}");
        });
        AddressFile {
            data: data.clone(),
            mark: written.ok(),
            line,
        }
    }

    /// Rewrites the file if it is missing, or if the server that wrote it has ended.
    fn replace_ended(&mut self) {
        if self.is_current() || self.data.has_live_admin_address() {
            return;
        }
        match self.data.write_admin_address(&self.line) {
            Ok(mark) => self.mark = Some(mark),
            Err(error) => log::debug!("{error}"),
        }
    }

    fn is_current(&self) -> bool {
        let path = self.data.admin_address_file();
        self.mark.as_ref().is_some_and(|mark| mark.is_at(&path))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // Another server may have replaced the file since.
        if !self.is_current() {
            return;
        }
        let path = self.data.admin_address_file();
        if let Err(error) = fs::remove_file(&path) {
            log::debug!("{}: {error}", path.display());
        }
    }
}

/// The interval between checks of the file.
const PERIOD: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn server(data: &DataDir, port: u16) -> AddressFile {
        AddressFile::write(data, &Address::Tcp(([127, 0, 0, 1], port).into()))
    }

    fn found(data: &DataDir) -> Option<String> {
        let text = fs::read_to_string(data.admin_address_file()).ok()?;
        Some(text.trim_end().to_owned())
    }

    #[test]
    fn live_server_replaces_address_of_ended_server() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let mut first = server(&data, 1);
        let mut second = server(&data, 2);
        let third = server(&data, 3);
        first.replace_ended();
        second.replace_ended();
        assert_eq!(found(&data), Some(third.line.clone()));
        drop(third);
        assert_eq!(found(&data), None, "no earlier address is put back");
        first.replace_ended();
        second.replace_ended();
        assert_eq!(found(&data), Some(first.line.clone()));
        // A killed server leaves its file behind, without the lock.
        let killed = data.admin_address_file();
        first.mark = None;
        assert!(killed.exists());
        second.replace_ended();
        assert_eq!(found(&data), Some(second.line.clone()));
        drop(first);
        assert_eq!(found(&data), Some(second.line.clone()));
        drop(second);
        assert_eq!(found(&data), None);
    }
}

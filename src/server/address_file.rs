//! The file `admin.address`, which tells commands where the admin interface is.
//!
//! Owns: the file, from when the admin address is bound until just before it is free for another
//! server. It then has another server's file in its place at once, or none.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{DataDir, DirLock, FileMark, Locking, Sharing};
use crate::net::Address;

use super::banner;

/// The file of this server. When it is dropped, the file is removed, or has the address of
/// another server again that has used the directory all the time.
pub(super) struct AddressFile {
    data: DataDir,
    mark: FileMark,
    line: String,
    /// What the file said before.
    previous: Option<String>,
}

/// A file that has two owners: the admin listener, and the thread that handles signals during the
/// start.
#[derive(Clone, Default)]
pub(super) struct SharedFile(Arc<Mutex<Option<AddressFile>>>);

impl SharedFile {
    pub fn new(file: Option<AddressFile>) -> Self {
        SharedFile(Arc::new(Mutex::new(file)))
    }

    /// Removes the file, if that has not been done.
    pub fn remove(&self) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(file.take());
    }
}

impl AddressFile {
    /// Writes the file. A server serves without it: a full disk must not prevent the start.
    pub fn write(data: &DataDir, admin: &Address) -> Option<Self> {
        let line = match admin {
            // Commands run in other directories.
            Address::Unix(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                banner::admin_url(&Address::Unix(path))
            }
            address => banner::admin_url(address),
        };
        let previous = fs::read_to_string(data.admin_address_file()).ok();
        match data.write_admin_address(&line) {
            Ok(mark) => Some(AddressFile {
                data: data.clone(),
                mark,
                line,
                previous,
            }),
            Err(error) => {
                log::warn!("{error}; until the next start `publish` needs: --admin {line}");
                None
            }
        }
    }

    /// Whether another server has written this address again at its end.
    fn was_restored(&self) -> bool {
        let found = fs::read_to_string(self.data.admin_address_file());
        found.is_ok_and(|found| found.trim_end() == self.line) && !self.has_neighbor()
    }

    /// Whether another server uses the directory. The lock of this one is gone by now.
    fn has_neighbor(&self) -> bool {
        let attempt = DirLock::attempt(self.data.path(), Sharing::Exclusive);
        matches!(attempt, Ok(Locking::Held(_)))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        let path = self.data.admin_address_file();
        // It is another's where another server has taken over before this one ends.
        if !self.mark.is_at(&path) && !self.was_restored() {
            return;
        }
        let ended = match &self.previous {
            Some(line) if self.has_neighbor() => self
                .data
                .write_admin_address(line.trim_end())
                .map(|_| ())
                .map_err(|error| error.to_string()),
            _ => fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display())),
        };
        if let Err(error) = ended {
            log::debug!("{error}");
        }
    }
}

//! The file that tells commands on this machine where the admin interface is.
//!
//! Owns: `admin.address` in the data directory, from when the admin address is bound until just
//! before it is free for another server. It then has another server's file in its place at once, or
//! none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};

use crate::cli::exit::Exit;
use crate::net::Address;

use super::banner;

/// The file of this server.
pub(super) struct AddressFile {
    /// `None` once it has been removed.
    written: Mutex<Option<Written>>,
}

struct Written {
    path: PathBuf,
    /// Device and inode. A file of another server at this path has another inode.
    identity: (u64, u64),
}

impl AddressFile {
    /// Writes the file, in place of one that is there.
    pub fn write(data: &Path, admin: &Address) -> Result<Self, Exit> {
        let path = data.join("admin.address");
        let line = format!("{}\n", banner::admin_url(admin));
        let identity = replace(&path, &line).map_err(|error| {
            let message = format!("cannot write {}: {error}", path.display());
            Exit::new(Exit::IO, message)
        })?;
        Ok(AddressFile {
            written: Mutex::new(Some(Written { path, identity })),
        })
    }

    /// Removes the file, unless another server's is in its place.
    pub fn remove(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Written { path, identity }) = written.take() else {
            return;
        };
        let found = fs::symlink_metadata(&path).map(|file| (file.dev(), file.ino()));
        let removed = match found {
            Ok(found) if found == identity => fs::remove_file(&path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            log::debug!("{}: {error}", path.display());
        }
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Writes a file beside the path and renames it, so that a reader never finds half a line. Returns
/// device and inode.
fn replace(path: &Path, line: &str) -> io::Result<(u64, u64)> {
    let beside = path.with_extension(format!("address.{}", process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(&beside)
        .and_then(|file| write_and_identify(file, line))
        .and_then(|identity| fs::rename(&beside, path).map(|()| identity));
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn write_and_identify(mut file: File, line: &str) -> io::Result<(u64, u64)> {
    file.write_all(line.as_bytes())?;
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_next_server_at_the_same_address_stays() {
        let data = tempfile::tempdir().unwrap();
        let address = Address::Tcp("127.0.0.1:5002".parse().unwrap());
        let path = data.path().join("admin.address");
        let first = AddressFile::write(data.path(), &address).unwrap();
        let next = AddressFile::write(data.path(), &address).unwrap();
        first.remove();
        drop(first);
        let line = fs::read_to_string(&path).unwrap();
        assert_eq!(line, "http://127.0.0.1:5002/\n");
        next.remove();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
        // Removed once: what is there afterwards is not this server's.
        fs::write(&path, "").unwrap();
        drop(next);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_in_the_error() {
        let address = Address::Tcp("127.0.0.1:5002".parse().unwrap());
        let failed = AddressFile::write(Path::new("/proc/none"), &address).err();
        let message = failed.unwrap().message;
        assert!(message.contains("/proc/none/admin.address"), "{message}");
    }
}

//! The data directory: the one place where the server keeps files.
//!
//! Owns: the directory, the names of the files in it, and the publish key. Must not know: what
//! is in the database.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::new_secret;
use crate::model::Secret;

/// A data directory that exists.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum DataDirError {
    /// There is something of that name, and it is no directory.
    NotADirectory(PathBuf),
    /// The file of the publish key has no usable key in it.
    BadKey(PathBuf),
    /// The system refused to read or write this path.
    Io(PathBuf, io::Error),
    /// The system has no randomness to make a key of.
    Random(getrandom::Error),
}

impl DataDir {
    /// Opens the directory, which is made (for its owner alone) if it is not there. One that is
    /// there keeps the permissions it has, for its owner may have had reasons.
    ///
    /// # Errors
    /// When it is no directory, or cannot be made.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        if path.exists() && !path.is_dir() {
            return Err(DataDirError::NotADirectory(path.to_owned()));
        }
        let is_new = !path.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| {
                if is_new {
                    sync_directory_of(path)
                } else {
                    Ok(())
                }
            })
            .map_err(|error| DataDirError::Io(path.to_owned(), error))?;
        Ok(DataDir {
            path: path.to_owned(),
        })
    }

    /// Where it is, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the embedded back end's database.
    pub fn database(&self) -> PathBuf {
        self.path.join("h-realtime.sqlite")
    }

    /// The file with the admin address, which exists while a server runs.
    pub fn admin_address_file(&self) -> PathBuf {
        self.path.join("admin.address")
    }

    /// The file of the publish key.
    pub fn publish_key_file(&self) -> PathBuf {
        self.path.join("publish.key")
    }

    /// The key that publishers must have, which is made at the first call.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds no key.
    pub fn publish_key(&self) -> Result<Secret, DataDirError> {
        let file = self.publish_key_file();
        match fs::read_to_string(&file) {
            Ok(text) => usable_key(&file, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_publish_key(&file),
            Err(error) => Err(DataDirError::Io(file, error)),
        }
    }

    /// The key is written under another name and then linked to its own, which fails if it is
    /// there by then: so nobody ever reads half a key, and of two that start at once both use
    /// the same one.
    fn make_publish_key(&self, file: &Path) -> Result<Secret, DataDirError> {
        let draft = new_secret("publish.key.").map_err(DataDirError::Random)?;
        let draft = self.path.join(draft);
        let key = new_secret("").map_err(DataDirError::Random)?;
        let made = write_private(&draft, &key).and_then(|()| fs::hard_link(&draft, file));
        // The draft has done its work, or is of no use; it may not even be there.
        let _ = fs::remove_file(&draft);
        match made {
            Ok(()) => match sync_directory_of(file) {
                Ok(()) => Ok(Secret(key)),
                Err(error) => Err(DataDirError::Io(file.to_owned(), error)),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let text = fs::read_to_string(file)
                    .map_err(|error| DataDirError::Io(file.to_owned(), error))?;
                usable_key(file, &text)
            }
            Err(error) => Err(DataDirError::Io(file.to_owned(), error)),
        }
    }
}

/// Makes durable that a file is in its directory under its name.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a new file that nobody but its owner can read, not even for a moment.
fn write_private(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{line}")?;
    file.sync_all()
}

/// The key in a file's text. An operator may have written it, so it may be of any form that fits
/// in an `Authorization` header; but an empty one would let everybody in.
fn usable_key(file: &Path, text: &str) -> Result<Secret, DataDirError> {
    let key = text.trim();
    if key.len() < MIN_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(DataDirError::BadKey(file.to_owned()));
    }
    Ok(Secret(key.to_owned()))
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADirectory(path) => write!(f, "{} is not a directory", path.display()),
            Self::BadKey(path) => write!(
                f,
                "{} holds no key of at least {MIN_KEY} visible characters; remove it and a new \
                 one is made",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Random(error) => write!(f, "no randomness for a new key: {error}"),
        }
    }
}

impl std::error::Error for DataDirError {}

/// The shortest publish key taken, in bytes; those made here have 43.
const MIN_KEY: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_and_the_key_are_their_owners_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let data = DataDir::open(&path).unwrap();
        let key = data.publish_key().unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&data.publish_key_file()), 0o600);
        assert_eq!(key.0.len(), 43);
        let again = DataDir::open(&path).unwrap().publish_key().unwrap();
        assert_eq!(again, key);
        // Nothing but the key is left behind.
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn of_two_that_make_a_key_at_once_both_use_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let first = data.publish_key().unwrap();
        let second = data.make_publish_key(&data.publish_key_file()).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(
            DataDir::open(&path),
            Err(DataDirError::NotADirectory(_))
        ));
    }

    #[test]
    fn a_key_file_without_a_usable_key_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        for text in ["", "\n", "short", "with a space in between it"] {
            fs::write(data.publish_key_file(), text).unwrap();
            let key = data.publish_key();
            assert!(matches!(key, Err(DataDirError::BadKey(_))), "{text:?}");
        }
        fs::write(data.publish_key_file(), "0123456789abcdef\r\n").unwrap();
        assert_eq!(data.publish_key().unwrap().0, "0123456789abcdef");
    }
}

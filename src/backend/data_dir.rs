//! The data directory: the only place where the server stores files.
//!
//! Owns: the directory, the names of the files in it, and the publish key. Must not know: the
//! contents of the database.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Gid, Uid, fchown};

use super::data_lock::{DirLock, LockAttempt, LockMode};
use super::{advice, new_secret, stale_drafts};
use crate::model::Secret;

/// An existing data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

/// The reason why a data directory cannot be used.
#[derive(Debug)]
pub enum DataDirError {
    /// The path exists, but is not a directory.
    NotADirectory(PathBuf),
    /// The directory does not exist.
    Missing(PathBuf),
    /// Another server uses the directory. Contains its process id, if known.
    InUse(PathBuf, Option<u32>),
    /// The publish key file contains no usable key.
    BadKey(PathBuf),
    /// An operation on this path failed.
    Io(PathBuf, io::Error),
    /// The system provides no randomness for a key.
    Random(getrandom::Error),
}

impl DataDir {
    /// Opens the directory, and creates it with mode 0700 if it does not exist. The permissions of
    /// an existing directory are left alone, since its owner may have chosen them on purpose.
    ///
    /// # Errors
    /// The path is not a directory, or the directory cannot be created.
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

    /// Opens a directory that must exist.
    ///
    /// # Errors
    /// The directory does not exist, or the path is not a directory.
    pub fn existing(path: &Path) -> Result<DataDir, DataDirError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(DataDir {
                path: path.to_owned(),
            }),
            Ok(_) => Err(DataDirError::NotADirectory(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(DataDirError::Missing(path.to_owned()))
            }
            Err(error) => Err(DataDirError::Io(path.to_owned(), error)),
        }
    }

    /// Tries to lock the directory for a server. Removes drafts left by killed processes if no
    /// other server uses the directory. Returns `None` if the file system does not support locks.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] if another server holds the lock, or an error if the directory
    /// cannot be read.
    pub fn lock(&self, sharing: LockMode) -> Result<Option<DirLock>, DataDirError> {
        let attempt = DirLock::attempt(&self.path, sharing);
        match attempt.map_err(|error| DataDirError::Io(self.path.clone(), error))? {
            LockAttempt::Locked(lock) => {
                if lock.is_sole_holder {
                    for path in stale_drafts::remove(&self.path, SystemTime::now()) {
                        log::info!(
                            "removed a draft of a killed process: path={}",
                            path.display()
                        );
                    }
                }
                Ok(Some(lock))
            }
            LockAttempt::Held(pid) => Err(DataDirError::InUse(self.path.clone(), pid)),
            LockAttempt::Unsupported(error) => {
                log::warn!(
                    "{}: cannot lock the data directory: {error}; continuing without a lock, so \
                     make sure that no other server uses it",
                    self.path.display()
                );
                Ok(None)
            }
        }
    }

    /// Returns one warning, with a remedy, for each file in the directory that every user on this
    /// host can read.
    pub fn warnings(&self) -> Vec<String> {
        const OTHERS_SEARCH: u32 = 0o001;
        const OTHERS_READ: u32 = 0o004;
        let has = |path: &Path, bit: u32| {
            fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bit != 0)
        };
        if !has(&self.path, OTHERS_SEARCH) {
            return Vec::new();
        }
        let files = [
            (self.publish_key_file(), "the publish key"),
            (self.database(), "the database"),
            (self.client_log(1), "the log of clients"),
            (self.history(), "the history"),
        ];
        let open = files.iter().filter(|(path, _)| has(path, OTHERS_READ));
        open.map(|(path, content)| {
            let path = path.display();
            format!("{path}: every user on this host can read {content}; run: chmod 600 {path}")
        })
        .collect()
    }

    /// Writes the admin address atomically. The file is locked as long as the mark exists: the lock
    /// tells whether the server that wrote it still runs.
    ///
    /// # Errors
    /// The file cannot be written. In that case no such file is left.
    pub fn write_admin_address(&self, line: &str) -> Result<FileMark, DataDirError> {
        let path = self.admin_address_file();
        let draft = new_secret("admin.address.").map_err(DataDirError::Random)?;
        let draft = self.path.join(draft);
        let written = write_private(&draft, line).and_then(|file| {
            // Without support for locks, the file is taken for that of a live server.
            let _ = file.try_lock();
            let mark = FileMark::of(file)?;
            fs::rename(&draft, &path)?;
            Ok(mark)
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            // Remove the address of a former server: a missing address is better than a wrong one.
            let _ = fs::remove_file(&path);
            DataDirError::Io(path, error)
        })
    }

    /// Returns whether the file with the admin address exists and the server that wrote it may
    /// still run.
    pub fn has_live_admin_address(&self) -> bool {
        match File::open(self.admin_address_file()) {
            Ok(file) => file.try_lock().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Returns the path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the embedded backend's database.
    pub fn database(&self) -> PathBuf {
        self.path.join("h-realtime.sqlite")
    }

    /// Returns the path of the embedded backend's history of events.
    pub fn history(&self) -> PathBuf {
        self.path.join("history.db")
    }

    /// Returns the path of the admin address file, which exists while a server runs.
    pub fn admin_address_file(&self) -> PathBuf {
        self.path.join("admin.address")
    }

    /// Returns the path of the log of clients of one of the servers that share the directory,
    /// counted from 1.
    pub fn client_log(&self, number: usize) -> PathBuf {
        self.path.join(match number {
            1 => "clients".to_owned(),
            number => format!("clients-{number}"),
        })
    }

    /// Returns the path of the publish key file.
    pub fn publish_key_file(&self) -> PathBuf {
        self.path.join("publish.key")
    }

    /// Returns the key that publishers must present. The first call creates it.
    ///
    /// # Errors
    /// The file cannot be read or created, or contains no usable key.
    pub fn publish_key(&self) -> Result<Secret, DataDirError> {
        let file = self.publish_key_file();
        match fs::read_to_string(&file) {
            Ok(text) => usable_key(&file, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_symlink() => {
                let text = "a symbolic link to a file that does not exist; create that file, or \
                            remove the link to have a new key created";
                Err(DataDirError::Io(file, io::Error::new(error.kind(), text)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_publish_key(&file),
            Err(error) => Err(DataDirError::Io(file, error)),
        }
    }

    /// Writes the key to a draft and then links it to its final name, which fails if that file
    /// exists by then. Readers thus never see a partial key, and two servers that start at once use
    /// the same one.
    fn make_publish_key(&self, file: &Path) -> Result<Secret, DataDirError> {
        let draft = new_secret("publish.key.").map_err(DataDirError::Random)?;
        let draft = self.path.join(draft);
        let key = new_secret("").map_err(DataDirError::Random)?;
        let made = write_private(&draft, &key).and_then(|_| fs::hard_link(&draft, file));
        // The draft is no longer needed. It may not exist.
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

/// Syncs the directory of a file, so that its entry there is durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Creates a file that only its owner can read from the moment of its creation. Bytes are appended
/// to it.
///
/// # Errors
/// The file exists, or cannot be created.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create_new(true).mode(0o600);
    let file = options.open(path)?;
    adopt(&file, path)?;
    Ok(file)
}

fn write_private(path: &Path, line: &str) -> io::Result<File> {
    let mut file = create_private(path)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    Ok(file)
}

/// Identifies a file, so that a replacement under the same name can be detected.
#[derive(Debug)]
pub struct FileMark {
    state: FileState,
    /// Holds the lock on the file.
    _file: File,
}

/// The device and inode of a file, and the time of its last modification.
type FileState = ((u64, u64), (i64, i64));

impl FileMark {
    fn of(file: File) -> io::Result<Self> {
        let state = file_state(&file.metadata()?);
        Ok(FileMark { state, _file: file })
    }

    /// Returns whether this file is at `path`.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|metadata| file_state(&metadata) == self.state)
    }
}

fn file_state(metadata: &fs::Metadata) -> FileState {
    (
        (metadata.dev(), metadata.ino()),
        (metadata.mtime(), metadata.mtime_nsec()),
    )
}

/// Transfers a new file to the owner of its directory if root has created it: commands run by root
/// must not leave files that the server's user cannot read.
pub(super) fn adopt(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let directory = fs::metadata(directory_of(path))?;
    if directory.uid() != 0 {
        let (user, group) = (directory.uid(), directory.gid());
        fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// Extracts the key from the text of a file. Operators may write their own keys, so any text is
/// accepted that fits into an `Authorization` header. An empty key would accept every publisher.
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
                "{} contains no key of at least {MIN_KEY} visible characters; remove the file \
                 to have a new key created",
                path.display()
            ),
            Self::Missing(path) => write!(
                f,
                "{}: the data directory does not exist; name the server's with --data, or create \
                 one with --create",
                path.display()
            ),
            Self::InUse(path, pid) => {
                let pid = pid.map_or_else(String::new, |pid| format!(" (process id {pid})"));
                write!(
                    f,
                    "{}: another server uses this data directory{pid}; stop it, or name another \
                     directory with --data; servers that share a port can share the directory, if \
                     all have reuse_port = true",
                    path.display()
                )
            }
            Self::Io(path, error) => f.write_str(&advice::about(path, error)),
            Self::Random(error) => write!(f, "cannot generate a key: {error}"),
        }
    }
}

impl std::error::Error for DataDirError {}

/// The minimum length of a publish key, in bytes. Generated keys have 43.
const MIN_KEY: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directory_and_key_are_private_to_the_owner() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let data = DataDir::open(&path).unwrap();
        let key = data.publish_key().unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&data.publish_key_file()), 0o600);
        assert_eq!(key.0.len(), 43);
        let again = DataDir::open(&path).unwrap().publish_key().unwrap();
        assert_eq!(again, key);
        // No draft is left behind.
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn concurrent_key_creation_yields_one_key() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let first = data.publish_key().unwrap();
        let second = data.make_publish_key(&data.publish_key_file()).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn file_is_refused_as_data_directory() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "").unwrap();
        for opened in [DataDir::open(&path), DataDir::existing(&path)] {
            assert!(matches!(opened, Err(DataDirError::NotADirectory(_))));
        }
    }

    #[test]
    fn existing_does_not_create_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("nowhere");
        let error = DataDir::existing(&path).unwrap_err();
        assert!(matches!(&error, DataDirError::Missing(at) if *at == path));
        assert!(error.to_string().contains("--create"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn second_server_is_refused_and_first_removes_drafts() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let draft = temp.path().join(new_secret("publish.key.").unwrap());
        fs::write(&draft, "half a k").unwrap();
        let lock = data.lock(LockMode::Exclusive).unwrap();
        assert!(lock.is_some() && !draft.exists());
        fs::write(&draft, "half a k").unwrap();
        let error = data.lock(LockMode::Shared).unwrap_err();
        assert!(matches!(&error, DataDirError::InUse(at, _) if at == temp.path()));
        assert!(error.to_string().contains("another server"), "{error}");
        assert!(draft.exists());
    }

    #[test]
    fn world_readable_files_are_reported_with_the_remedy() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        fs::write(data.publish_key_file(), "0123456789abcdef").unwrap();
        fs::write(data.database(), "").unwrap();
        let set = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&data.publish_key_file(), 0o644);
        set(&data.database(), 0o640);
        set(temp.path(), 0o700);
        assert_eq!(data.warnings(), [""; 0], "the directory is private");
        set(temp.path(), 0o755);
        let warnings = data.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let remedy = format!("chmod 600 {}", data.publish_key_file().display());
        assert!(warnings[0].ends_with(&remedy), "{warnings:?}");
    }

    #[test]
    fn admin_address_is_written_atomically() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let first = data.write_admin_address("http://127.0.0.1:2/").unwrap();
        assert!(first.is_at(&data.admin_address_file()));
        // The content is the same, but another server wrote the file.
        let second = data.write_admin_address("http://127.0.0.1:2/").unwrap();
        assert!(second.is_at(&data.admin_address_file()));
        assert!(!first.is_at(&data.admin_address_file()));
        let text = fs::read_to_string(data.admin_address_file()).unwrap();
        assert_eq!(text, "http://127.0.0.1:2/\n");
        assert_eq!(mode(&data.admin_address_file()), 0o600);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn key_file_without_usable_key_is_refused() {
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

//! The database file: opens it, checks it, and migrates it to this version's schema.
//!
//! The database uses a rollback journal rather than a write-ahead log. With WAL, every reader maps
//! the `-shm` file beside the database: truncating that file kills the server (SIGBUS), removing it
//! separates existing readers from writers, and a `-wal` file left beside another database corrupts
//! that one. With a rollback journal, the database is a single file, which is never mapped. In
//! return, a reader waits while a command commits, which takes a few disk writes and is rare.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::{Access, access};

use super::directory::Directory;
use super::file::{DatabaseFile, uses_wal};
use crate::backend::advice;
use crate::backend::data_dir::{adopt, sync_directory_of};

/// An open database of this version's schema.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    /// `None` for a database in memory.
    file: Option<DatabaseFile>,
}

/// The reason why the database is unusable, or a change to it failed.
#[derive(Debug)]
pub enum StoreError {
    /// The arguments are invalid; the text states why.
    Invalid(String),
    /// The object exists already.
    Exists(String),
    /// The object does not exist.
    Missing(String),
    /// A later version of this program has written the database.
    Newer {
        /// The version of the database's schema.
        found: usize,
    },
    /// Another process has held the lock for longer than the timeout.
    Locked,
    /// The file cannot be created, read, or written.
    File(PathBuf, io::Error),
    /// The file is not a database of this program, or is damaged; the text states which.
    Unusable(PathBuf, String),
    /// The path leads to another file now, or the file was overwritten. It must be reopened.
    Replaced(PathBuf),
    /// A later version of this program has written the history. The text states which.
    NewerHistory(PathBuf, String),
    /// SQLite returned an error.
    Sqlite(rusqlite::Error),
}

impl Store {
    /// Opens a database file and migrates its schema. A missing file is created with mode 0600.
    ///
    /// # Errors
    /// The file cannot be created or read, is not a database, or was written by a later version.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        // SQLite gives its companion files the same permissions. An existing file is opened by
        // SQLite only: closing a descriptor here would release all locks of this process on the
        // file.
        let mut options = OpenOptions::new();
        let is_new = match options.write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => adopt(&file, path)
                .and_then(|()| sync_directory_of(path))
                .map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
        .map_err(|error| StoreError::File(path.to_owned(), error))?;
        let opened = Store::connect(path, true);
        // On a full disk, the new file is empty, and would be taken for a damaged database.
        if opened.is_err() && is_new && fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            let _ = fs::remove_file(path);
        }
        opened
    }

    /// Opens a database that must exist. An empty file is rejected, since it may be a copy in
    /// progress.
    ///
    /// # Errors
    /// As for [`Store::open`], or the database does not exist.
    pub fn open_existing(path: &Path) -> Result<Store, StoreError> {
        Store::connect(path, false)
    }

    /// Creates a database in memory.
    pub(super) fn in_memory() -> Result<Store, StoreError> {
        let mut store = Store {
            db: Connection::open_in_memory()?,
            file: None,
        };
        store.prepare()?;
        Ok(store)
    }

    fn connect(path: &Path, may_be_empty: bool) -> Result<Store, StoreError> {
        let file = DatabaseFile::at(path);
        let file = file.map_err(|error| StoreError::File(path.to_owned(), error))?;
        let connect = || -> Result<Store, StoreError> {
            let flags = OpenFlags::default() - OpenFlags::SQLITE_OPEN_CREATE;
            let db = Connection::open_with_flags(path, flags)?;
            if !may_be_empty && schema_version(&db)? == 0 {
                let reason = "the file is empty, or not a database of h-realtime".to_owned();
                return Err(StoreError::Unusable(path.to_owned(), reason));
            }
            let file = Some(file);
            let mut store = Store { db, file };
            store.prepare()?;
            Ok(store)
        };
        connect().map_err(|error| error.in_file(path))
    }

    fn prepare(&mut self) -> Result<(), StoreError> {
        self.db.busy_handler(Some(wait_for_lock))?;
        // SQLite does not know the journal mode of the file before the first read.
        schema_version(&self.db)?;
        self.leave_wal()?;
        // A change is durable when the command returns. `EXTRA` also syncs the directory after the
        // journal has been deleted, which is the moment of the commit.
        self.db.pragma_update(None, "synchronous", "EXTRA")?;
        self.db.pragma_update(None, "foreign_keys", true)?;
        self.migrate()
    }

    /// Switches a database that an older version left in WAL mode to a rollback journal. While
    /// other connections are open, this has no effect and the mode stays.
    pub(super) fn leave_wal(&self) -> Result<(), StoreError> {
        if !uses_wal(&self.db)? {
            return Ok(());
        }
        let changed = self.db.pragma_update(None, "journal_mode", "DELETE");
        match changed.map_err(StoreError::from) {
            Err(StoreError::Locked) => Ok(()),
            result => result,
        }
    }

    /// Applies pending migrations. `user_version` counts those applied.
    fn migrate(&mut self) -> Result<(), StoreError> {
        if schema_version(&self.db)? == MIGRATIONS.len() {
            return Ok(());
        }
        // Check again with the write lock held, since two commands may have started at once.
        let change = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = schema_version(&change)?;
        let Some(missing) = MIGRATIONS.get(found..) else {
            return Err(StoreError::Newer { found });
        };
        for migration in missing {
            change.execute_batch(migration)?;
        }
        change.pragma_update(None, "user_version", MIGRATIONS.len().to_string())?;
        Ok(change.commit()?)
    }

    /// Begins a read transaction. Everything read from it is of one state, that of the first read.
    ///
    /// # Errors
    /// [`StoreError::Replaced`] if that is not the database at the file's path.
    pub(super) fn view(&self) -> Result<Transaction<'_>, StoreError> {
        let view = self.db.unchecked_transaction()?;
        if let Some(file) = &self.file {
            file.check(&view)?;
        }
        Ok(view)
    }

    /// Returns lookups, each of which reads the current state.
    pub(super) fn directory(&self) -> Directory<'_> {
        Directory::new(&self.db)
    }

    pub(super) fn db(&self) -> &Connection {
        &self.db
    }
}

/// Waits for a lock of another process for as long as a commit may take. SQLite's own busy handler
/// backs off up to 100 ms, so that a reader can miss the gaps between the commits of a script for
/// more than a second.
pub(super) fn wait_for_lock(attempts: i32) -> bool {
    let is_patient = attempts < MOST_ATTEMPTS;
    if is_patient {
        thread::sleep(PAUSE);
    }
    is_patient
}

fn schema_version(db: &Connection) -> Result<usize, rusqlite::Error> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

impl StoreError {
    /// Returns whether the file is damaged or not a database.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Unusable(..) => true,
            Self::Sqlite(cause) => is_damage(cause),
            _ => false,
        }
    }

    /// Returns the text of the error, with the name of the file.
    pub fn about(&self, path: &Path) -> String {
        match self {
            Self::Newer { .. } | Self::Locked | Self::Sqlite(_) => {
                format!("{}: {self}", path.display())
            }
            _ => self.to_string(),
        }
    }

    /// Returns whether the text of the error is about the database but does not name its file.
    pub fn lacks_file_name(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Locked | Self::Sqlite(_))
    }

    /// Returns the closest I/O error kind.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::File(_, error) => error.kind(),
            Self::Sqlite(cause) => match cause.sqlite_error_code() {
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                    io::ErrorKind::PermissionDenied
                }
                Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
                _ => io::ErrorKind::Other,
            },
            _ => io::ErrorKind::Other,
        }
    }

    /// Adds the name of the file to the error if it lacks one.
    pub(super) fn in_file(self, path: &Path) -> StoreError {
        match self {
            Self::Sqlite(cause) if is_damage(&cause) => {
                Self::Unusable(path.to_owned(), cause.to_string())
            }
            // SQLite does not report the cause. The file must not be opened to find out: closing
            // the descriptor would release all locks of this process on it.
            Self::Sqlite(cause) if cause.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
                match access(path, Access::READ_OK) {
                    Ok(()) => Self::Sqlite(cause),
                    Err(error) => Self::File(path.to_owned(), error.into()),
                }
            }
            error => error,
        }
    }
}

/// Returns advice for an operator on an error of SQLite.
fn remedy(error: &rusqlite::Error) -> Option<&'static str> {
    Some(match error.sqlite_error_code()? {
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
            "the user of this process must be able to write to the file and to its directory: run \
             this as root or as the user that owns them"
        }
        ErrorCode::CannotOpen => {
            "the user of this process must be able to read the file, and to write to its directory \
             for the journal: run this as root or as the user that owns them"
        }
        ErrorCode::DiskFull => advice::advice(io::ErrorKind::StorageFull)?,
        ErrorCode::SystemIoFailure => {
            "look for a full disk (df), a limit on the size of files (ulimit -f), and errors of the \
             disk (dmesg)"
        }
        _ => return None,
    })
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked,
            _ => StoreError::Sqlite(error),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) | Self::Exists(text) | Self::Missing(text) => f.write_str(text),
            Self::Newer { found } => write!(
                f,
                "the database has schema version {found}, and this program supports versions up \
                 to {}; use a newer version of the program",
                MIGRATIONS.len()
            ),
            Self::Locked => f.write_str(
                "the database is locked by another program; try again, or find that program with \
                 fuser",
            ),
            Self::File(path, error) if error.kind() == io::ErrorKind::NotFound => write!(
                f,
                "{}: {error}; name the server's data directory with --data, put the file back, or \
                 restore a backup with: h-realtime restore FILE; --create creates an empty database",
                path.display()
            ),
            Self::File(path, error) => f.write_str(&advice::about(path, error)),
            Self::Unusable(path, reason) => write!(
                f,
                "{}: {reason}; restore a backup with: h-realtime restore FILE",
                path.display()
            ),
            Self::NewerHistory(path, text) => write!(f, "{}: {text}", path.display()),
            Self::Replaced(path) => {
                write!(f, "{} was replaced; try again", path.display())
            }
            Self::Sqlite(error) => match remedy(error) {
                Some(remedy) => write!(f, "the database: {error}; {remedy}"),
                None => write!(f, "the database: {error}"),
            },
        }
    }
}

impl std::error::Error for StoreError {}

/// The migrations of the schema, in order. Released entries never change.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];
/// The delay before a lock is retried.
const PAUSE: Duration = Duration::from_millis(1);
/// The number of retries, which take 5 seconds in total.
const MOST_ATTEMPTS: i32 = 5000;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_database_file_is_private_to_the_owner() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        // SQLite's journal exists during a transaction.
        store
            .db
            .execute_batch("BEGIN; INSERT INTO user (userid, created) VALUES ('acct:a@b', 0)")
            .unwrap();
        let files: Vec<_> = fs::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        assert_eq!(files.len(), 2, "{files:?}");
        for file in files {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn reopened_database_keeps_its_contents() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let store = Store::open(&path).unwrap();
        store.add_user("acct:joe@example.org", None, 1_000).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.users(0).unwrap().len(), 1);
    }

    #[test]
    fn new_database_can_be_opened_concurrently() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        thread::scope(|scope| {
            for number in 0..8 {
                let userid = format!("acct:user{number}@example.org");
                let path = &path;
                scope.spawn(move || Store::open(path).unwrap().add_user(&userid, None, 0));
            }
        });
        assert_eq!(Store::open(&path).unwrap().users(0).unwrap().len(), 8);
    }

    #[test]
    fn newer_database_is_refused_and_unchanged() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let store = Store::open(&path).unwrap();
        store.db.pragma_update(None, "user_version", "7").unwrap();
        drop(store);
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 7 }), "{error:?}");
        let db = Connection::open(&path).unwrap();
        assert_eq!(schema_version(&db).unwrap(), 7);
    }

    #[test]
    fn file_that_is_not_a_database_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        fs::write(
            &path,
            "This is a text file, long enough to have a header.".repeat(9),
        )
        .unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(
            matches!(&error, StoreError::Unusable(at, _) if *at == path),
            "{error:?}"
        );
    }

    #[test]
    fn empty_file_is_initialized_only_by_commands() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let missing = Store::open_existing(&path).unwrap_err();
        assert!(matches!(missing, StoreError::File(..)), "{missing:?}");
        fs::write(&path, "").unwrap();
        let empty = Store::open_existing(&path).unwrap_err();
        assert!(matches!(empty, StoreError::Unusable(..)), "{empty:?}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        Store::open(&path).unwrap();
        Store::open_existing(&path).unwrap();
    }

    #[test]
    fn commits_are_synced_with_their_directory() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        let pragma = |name| {
            store
                .db
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        const EXTRA: i64 = 3;
        assert_eq!(pragma("synchronous").unwrap(), EXTRA);
    }

    #[test]
    fn database_is_one_file_and_never_mapped() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        let stores = [Store::open(&path).unwrap(), Store::open(&path).unwrap()];
        stores[0].add_user("acct:joe@example.org", None, 0).unwrap();
        assert_eq!(stores[1].users(0).unwrap().len(), 1);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains(&*path.to_string_lossy()));
    }

    #[test]
    fn wal_mode_is_left_once_no_other_connection_uses_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        drop(Store::open(&path).unwrap());
        let other = Connection::open(&path).unwrap();
        other.pragma_update(None, "journal_mode", "WAL").unwrap();
        schema_version(&other).unwrap();
        let store = Store::open(&path).unwrap();
        store.add_user("acct:joe@example.org", None, 0).unwrap();
        assert!(uses_wal(&store.db).unwrap());
        drop(other);
        store.leave_wal().unwrap();
        assert!(!uses_wal(&store.db).unwrap());
        assert_eq!(store.users(0).unwrap().len(), 1);
    }
}

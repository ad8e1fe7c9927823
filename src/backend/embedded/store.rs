//! The database file: opened, checked, and brought up to this version's schema.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::directory::Directory;

/// An open database of this version's schema.
#[derive(Debug)]
pub struct Store {
    db: Connection,
}

/// Why the database cannot be used, or a change to it was not made.
#[derive(Debug)]
pub enum StoreError {
    /// What was asked for makes no sense; the text says why.
    Invalid(String),
    /// It is there already.
    Exists(String),
    /// What is named is not there.
    Missing(String),
    /// The database was written by a later version of this program.
    Newer {
        /// The version of the database's schema.
        found: usize,
    },
    /// Somebody else has been writing for longer than is waited.
    Locked,
    /// The file cannot be made.
    File(PathBuf, io::Error),
    /// SQLite refused.
    Sqlite(rusqlite::Error),
}

impl Store {
    /// Opens a database file, making it (for its owner alone) if it is not there, and brings its
    /// schema up to date.
    ///
    /// # Errors
    /// When the file cannot be made or read, is no database, or is of a later version.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        // SQLite gives the files it keeps beside this one the same permissions. A file that is
        // there is left to SQLite: to close it here would end the locks that this process has.
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::File(path.to_owned(), error));
            }
            _ => {}
        }
        Store::prepare(Connection::open(path)?)
    }

    /// A database that is gone when it is dropped.
    #[cfg(test)]
    pub(super) fn in_memory() -> Store {
        Store::prepare(Connection::open_in_memory().unwrap()).unwrap()
    }

    fn prepare(db: Connection) -> Result<Store, StoreError> {
        db.busy_timeout(PATIENCE)?;
        use_wal(&db)?;
        // With WAL this can lose the last changes in a power failure, but never the database.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        let mut store = Store { db };
        store.migrate()?;
        Ok(store)
    }

    /// Applies the migrations that this database has not had. `user_version` counts those it had.
    fn migrate(&mut self) -> Result<(), StoreError> {
        if schema_version(&self.db)? == MIGRATIONS.len() {
            return Ok(());
        }
        // Looked at again with the write lock held: two commands may have started at once.
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

    /// The database as it is at the first thing read from this, however long it is looked at.
    pub(super) fn view(&self) -> Result<Transaction<'_>, rusqlite::Error> {
        self.db.unchecked_transaction()
    }

    /// Look-ups, each in the database as it is then.
    pub(super) fn directory(&self) -> Directory<'_> {
        Directory::new(&self.db)
    }

    pub(super) fn db(&self) -> &Connection {
        &self.db
    }
}

/// With a write-ahead log the server reads while commands write. SQLite does not wait for the lock
/// that the change to it takes, which another command may have that opened the new file just now.
fn use_wal(db: &Connection) -> Result<(), StoreError> {
    let mut left = PATIENCE;
    loop {
        match db
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(StoreError::from)
        {
            Err(StoreError::Locked) if !left.is_zero() => thread::sleep(PAUSE),
            result => return result,
        }
        left = left.saturating_sub(PAUSE);
    }
}

fn schema_version(db: &Connection) -> Result<usize, rusqlite::Error> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
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
                "the database is of version {found}, and this program knows none after {}; use \
                 the newer program",
                MIGRATIONS.len()
            ),
            Self::Locked => f.write_str("the database is locked by another program; try again"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Sqlite(error) => write!(f, "the database: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// How the schema came to be, in order. An entry that was released is never changed.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
/// How long somebody else may hold the write lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before a lock is tried for again, where SQLite does not do so itself.
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_file_of_the_database_is_its_owners_alone() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("db")).unwrap();
        store.add_user("acct:joe@example.org", None, 1_000).unwrap();
        let files: Vec<_> = fs::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        assert_eq!(files.len(), 3, "{files:?}");
        for file in files {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn a_database_opens_again_with_what_was_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let store = Store::open(&path).unwrap();
        store.add_user("acct:joe@example.org", None, 1_000).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.users(0).unwrap().len(), 1);
    }

    #[test]
    fn a_new_database_can_be_opened_by_many_at_once() {
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
    fn a_newer_database_is_refused_and_left_as_it_is() {
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
    fn a_file_that_is_no_database_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        fs::write(
            &path,
            "This is a text file, long enough to have a header.".repeat(9),
        )
        .unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Sqlite(_))));
    }
}

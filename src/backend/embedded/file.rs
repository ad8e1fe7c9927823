//! The file behind a database connection. Detects whether the connection still reads the file at
//! its path, and whether a program other than SQLite has written to it.
//!
//! SQLite keeps reading the file that it opened even if the path leads to another one later. It
//! trusts its page cache as long as the counters in the file header are unchanged. A copy of an
//! older state that overwrites the file may have the same counters by coincidence.

use std::cell::Cell;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::store::StoreError;

/// The file that a connection has opened.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    opened: Identity,
    last: Cell<Option<State>>,
}

/// Attributes that are constant for the lifetime of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// A file's state at the time of a read.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Size and `ctime`. The kernel updates `ctime` on every write, and programs cannot set it.
    contents: (u64, i64, i64),
    /// Changes with every commit of another connection.
    data_version: i64,
    /// SQLite's schema cookie. It changes with the schema, and when SQLite's backup API overwrites
    /// this database with another one.
    schema: i64,
}

impl DatabaseFile {
    /// Records the file at `path`, which is about to be opened.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(DatabaseFile {
            path: path.to_owned(),
            opened: Identity::of(&fs::metadata(path)?),
            last: Cell::new(None),
        })
    }

    /// Checks, within a read transaction of `db`, that the connection reads the current contents of
    /// the file at its path.
    ///
    /// # Errors
    /// [`StoreError::Replaced`] if the file must be reopened, and [`StoreError::File`] if it is
    /// missing.
    pub(super) fn check(&self, db: &Connection) -> Result<(), StoreError> {
        // The first statement acquires the lock that keeps writers out.
        let data_version = cookie(db, "PRAGMA data_version")?;
        let schema = cookie(db, "PRAGMA schema_version")?;
        let metadata =
            fs::metadata(&self.path).map_err(|error| StoreError::File(self.path.clone(), error))?;
        let state = State {
            contents: (metadata.size(), metadata.ctime(), metadata.ctime_nsec()),
            data_version,
            schema,
        };
        let last = self.last.replace(Some(state));
        let is_unseen_write = last.is_some_and(|last| {
            last.contents != state.contents && last.data_version == state.data_version
        });
        let is_other_schema = last.is_some_and(|last| last.schema != state.schema);
        // In WAL mode, checkpoints write to the file without a commit.
        if Identity::of(&metadata) != self.opened
            || is_other_schema
            || (is_unseen_write && !uses_wal(db)?)
        {
            return Err(StoreError::Replaced(self.path.clone()));
        }
        Ok(())
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Returns whether two paths lead to the same file.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => Identity::of(&one) == Identity::of(&other),
        _ => false,
    }
}

/// Returns whether the connection was in WAL mode at its last read.
pub(super) fn uses_wal(db: &Connection) -> Result<bool, rusqlite::Error> {
    db.prepare_cached("PRAGMA journal_mode")?
        .query_row([], |row| Ok(row.get_ref(0)?.as_str()? == "wal"))
}

fn cookie(db: &Connection, pragma: &str) -> Result<i64, rusqlite::Error> {
    db.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}

//! The history file: opens it, creates its schema, checks it, and moves a damaged one aside.
//!
//! Unlike the users' database, it has a write-ahead log: every published event is a commit, which
//! then takes no sync of the disk. A synced checkpoint follows within a second, on a thread of its
//! own. That of a long log precedes the next commit, so that the log is bounded.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::SCHEMA_VERSION;
use super::checkpoint::{Checkpointer, checkpoint};
use super::error::HistoryError;
use super::log_check::has_skipped_commit;
use crate::backend::data_dir::{adopt, sync_directory_of};
use crate::backend::embedded::store::wait_for_lock;
use crate::model::Durability;

/// An open history file.
#[derive(Debug)]
pub(super) struct HistoryFile {
    /// `None` if the system refuses the thread. Its connection is closed before the other one.
    checkpointer: Option<Checkpointer>,
    pub db: Connection,
    path: PathBuf,
    durability: Cell<Durability>,
    /// The maximum size of the write-ahead log between two turns, in bytes.
    log_size: u64,
    /// The database and its write-ahead log.
    opened: [Option<FileId>; 2],
}

/// The device and the inode of a file.
pub(super) type FileId = (u64, u64);

impl HistoryFile {
    /// Opens the file, and creates it with mode 0600 if it does not exist.
    pub(super) fn open(
        path: &Path,
        durability: Durability,
        disk: u64,
    ) -> Result<HistoryFile, HistoryError> {
        create(path).map_err(io_error)?;
        let database = file_id(path);
        if has_skipped_commit(&log_of(path)).map_err(io_error)? {
            let cause = "the write-ahead log history.db-wal is damaged";
            return Err(HistoryError::Damaged(cause.to_owned()));
        }
        // SQLite takes a file that is shorter than a header for an empty one, and the rest of an
        // incomplete page for zeros. Without a log, no checkpoint has been interrupted.
        let len = fs::metadata(path).map_err(io_error)?.len();
        let is_complete = len.is_multiple_of(HEADER) || has_log(path);
        if (1..HEADER).contains(&len) || !is_complete {
            return Err(HistoryError::Damaged("the file is truncated".to_owned()));
        }
        let mut db = Connection::open_with_flags(path, flags())?;
        db.busy_handler(Some(wait_for_lock))?;
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        check_format(&db)?;
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        // If the file system does not support shared memory, the mode stays a rollback journal.
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        let log_size = log_size(disk);
        db.pragma_update(None, "journal_size_limit", log_size.cast_signed())?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.pragma_update(None, "synchronous", synchronous(durability))?;
        create_schema(&db)?;
        let checkpointer = checkpointer(path)?;
        let opened = [database, file_id(&log_of(path))];
        let path = path.to_owned();
        let durability = Cell::new(durability);
        let file = HistoryFile {
            db,
            path,
            durability,
            checkpointer,
            log_size,
            opened,
        };
        file.check_pages()?;
        Ok(file)
    }

    /// Checks the structure of the database and of its indexes, in time linear in its size.
    fn check_pages(&self) -> Result<(), HistoryError> {
        let query = "PRAGMA integrity_check(1)";
        let found: String = self.db.query_row(query, [], |row| row.get(0))?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(HistoryError::Damaged(found)),
        }
    }

    /// Removes the log if it is that of this file and the path leads to another database. SQLite would
    /// apply it to that one.
    pub(super) fn remove_stale_log(&self) {
        let [database, log] = self.opened;
        let path = log_of(&self.path);
        if log.is_some() && file_id(&path) == log && file_id(&self.path) != database {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(suffixed(&self.path, "-shm"));
        }
    }

    /// Returns the identity of the database file.
    pub(super) fn id(&self) -> Option<FileId> {
        self.opened[0]
    }

    /// Checks that the paths still lead to the files that were opened.
    pub(super) fn check_paths(&self) -> Result<(), HistoryError> {
        let [database, log] = self.opened;
        let is_same = |opened: Option<FileId>, path: &Path| {
            opened.is_none_or(|opened| file_id(path) == Some(opened))
        };
        match is_same(database, &self.path) && is_same(log, &log_of(&self.path)) {
            true => Ok(()),
            false => Err(HistoryError::Replaced),
        }
    }

    /// Returns the number of bytes in use.
    pub(super) fn used(&self) -> Result<u64, HistoryError> {
        let free = self.pragma("PRAGMA freelist_count")? * self.pragma("PRAGMA page_size")?;
        Ok(self.size()?.saturating_sub(free.unsigned_abs()))
    }

    /// Returns the size of the database in bytes.
    pub(super) fn size(&self) -> Result<u64, HistoryError> {
        let size = self.pragma("PRAGMA page_count")? * self.pragma("PRAGMA page_size")?;
        Ok(size.unsigned_abs())
    }

    fn pragma(&self, pragma: &str) -> Result<i64, HistoryError> {
        Ok(self
            .db
            .prepare_cached(pragma)?
            .query_row([], |row| row.get(0))?)
    }

    /// Returns free pages to the file system, a limited number of them.
    pub(super) fn release_pages(&self) -> Result<(), HistoryError> {
        let mut vacuum = self
            .db
            .prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        // Each step frees a page.
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Syncs the write-ahead log, and copies it to the database. Returns whether it did: another
    /// process may be doing the same.
    pub(super) fn checkpoint(&self) -> Result<bool, HistoryError> {
        Ok(match &self.checkpointer {
            Some(checkpointer) => checkpointer.perform(&self.db)?,
            None => checkpoint(&self.db)?,
        })
    }

    /// Does the same without waiting for it. Returns the error of an earlier request.
    pub(super) fn request_checkpoint(&self) -> Result<(), HistoryError> {
        let Some(checkpointer) = &self.checkpointer else {
            return self.checkpoint().map(drop);
        };
        checkpointer.request();
        match checkpointer.failure() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Bounds the write-ahead log: the next commit begins it again if it is long, and no other
    /// process is reading it.
    pub(super) fn bound_log(&self) -> Result<(), HistoryError> {
        let log = fs::metadata(log_of(&self.path));
        // The file of the log keeps this length when the log begins again.
        let is_long = log.is_ok_and(|log| log.len() > self.log_size);
        match is_long.then(|| self.checkpoint()).transpose() {
            // The transaction may free space; otherwise, its commit fails with the same error.
            Ok(_) | Err(HistoryError::Full(_) | HistoryError::Locked) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Changes the durability of the following commits.
    pub(super) fn set_durability(&self, durability: Durability) -> Result<(), HistoryError> {
        if self.durability.get() != durability {
            self.db
                .pragma_update(None, "synchronous", synchronous(durability))?;
            self.durability.set(durability);
        }
        Ok(())
    }
}

/// Starts the checkpoint thread.
fn checkpointer(path: &Path) -> Result<Option<Checkpointer>, HistoryError> {
    let mut db = Connection::open_with_flags(path, flags())?;
    db.busy_handler(Some(wait_for_lock))?;
    // Opens the log, before the identities of the files are recorded.
    check_format(&db)?;
    Ok(Checkpointer::start(db).ok())
}

fn flags() -> OpenFlags {
    OpenFlags::default() - OpenFlags::SQLITE_OPEN_CREATE
}

/// Creates an empty file, whose permissions SQLite gives to its companion files. SQLite removes a
/// write-ahead log beside an empty database.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => adopt(&file, path).and_then(|()| sync_directory_of(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that a file is empty or a history of this version, before anything is written to it.
fn check_format(db: &Connection) -> Result<(), HistoryError> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let query = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = db.query_row(query, [], |row| row.get(0))?;
    match (application, version, tables) {
        (0, 0, 0) | (APPLICATION_ID, SCHEMA_VERSION, _) => Ok(()),
        (APPLICATION_ID, version, _) if version > SCHEMA_VERSION => {
            Err(HistoryError::Newer(version))
        }
        _ => {
            let cause = "the file is not a history of h-realtime".to_owned();
            Err(HistoryError::Damaged(cause))
        }
    }
}

fn create_schema(db: &Connection) -> Result<(), HistoryError> {
    let version =
        |db: &Connection| db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if version(db)? == SCHEMA_VERSION {
        return Ok(());
    }
    // Check again with the write lock held, since two processes may have started at once.
    db.execute_batch("BEGIN IMMEDIATE")?;
    let create = || -> Result<(), rusqlite::Error> {
        if version(db)? != SCHEMA_VERSION {
            db.execute_batch(include_str!("schema.sql"))?;
            db.pragma_update(None, "application_id", APPLICATION_ID)?;
            db.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        db.execute_batch("COMMIT")
    };
    let created = create();
    if created.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    Ok(created?)
}

/// Moves a damaged file with its companions aside, over an earlier damaged one. Does nothing if the
/// path leads to another file than `damaged` by now, which another process has started.
pub(super) fn set_aside(path: &Path, damaged: Option<FileId>) -> io::Result<Option<PathBuf>> {
    let Some(found) = file_id(path) else {
        return Ok(None);
    };
    if damaged.is_some_and(|damaged| damaged != found) {
        return Ok(None);
    }
    let aside = suffixed(path, ".damaged");
    // The database comes last: while it exists, no process creates companions of a new one.
    for beside in ["-wal", "-shm", ""] {
        let _ = fs::remove_file(suffixed(&aside, beside));
        match fs::rename(suffixed(path, beside), suffixed(&aside, beside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory_of(path)?;
    Ok(Some(aside))
}

/// Returns the identity of the file at a path, if there is one.
pub(super) fn file_id(path: &Path) -> Option<FileId> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn log_of(path: &Path) -> PathBuf {
    suffixed(path, "-wal")
}

/// Returns whether there is a write-ahead log with contents.
fn has_log(path: &Path) -> bool {
    fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(error: io::Error) -> HistoryError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => HistoryError::Full(error.to_string()),
        _ => HistoryError::Io(error),
    }
}

/// Returns SQLite's name of a durability.
fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Normal => "NORMAL",
        Durability::Full => "FULL",
    }
}

/// Identifies the file as a history: "hRTh".
const APPLICATION_ID: i64 = 0x6852_5468;
/// The minimum size of a page, in bytes, of which every size is a multiple.
const HEADER: u64 = 512;
/// Returns the size of the write-ahead log, in bytes, at which it begins again, and to which its file
/// is truncated. A commit waits for a checkpoint then.
pub(super) fn log_size(disk: u64) -> u64 {
    (disk / 2).clamp(MIN_LOG, MAX_LOG)
}

/// The limits on the size of the write-ahead log, in bytes.
const MIN_LOG: u64 = 8 << 20;
const MAX_LOG: u64 = 32 << 20;
/// The size of the page cache, in KiB.
const CACHE_KIB: i64 = 8192;
/// The number of pages that are returned to the file system at a time.
const VACUUM_PAGES: u32 = 64;
/// The number of prepared statements, more than there are.
const STATEMENTS: usize = 64;

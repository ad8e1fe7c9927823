//! The checkpoint thread: syncs the write-ahead log and copies it to the database, so that publishers
//! do not wait for the disk.
//!
//! It has a connection of its own. Checkpoints of both connections exclude each other: one that
//! fails because of the other would leave the log to grow.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

/// The handle to the thread, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// `None` while the handle is being dropped.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<Mutex<State>>,
}

/// Locked during a checkpoint.
#[derive(Debug, Default)]
struct State {
    /// The error of the last failed checkpoint, until it is reported.
    failure: Option<rusqlite::Error>,
}

impl Checkpointer {
    /// Starts the thread, with a connection that has opened the log.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(db: Connection) -> io::Result<Checkpointer> {
        // One request that waits covers all commits before its checkpoint.
        let (requests, queue) = sync_channel(1);
        let state = Arc::default();
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&db, &queue, &shared))?;
        Ok(Checkpointer {
            requests: Some(requests),
            thread: Some(thread),
            state,
        })
    }

    /// Requests a checkpoint of all commits so far.
    pub(super) fn request(&self) {
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(());
        }
    }

    /// Performs a checkpoint on this thread, after one in progress.
    pub(super) fn perform(&self, db: &Connection) -> Result<bool, rusqlite::Error> {
        let _state = locked(&self.state);
        checkpoint(db)
    }

    /// Returns the error of the last failed checkpoint, once. Does not wait for one in progress.
    pub(super) fn failure(&self) -> Option<rusqlite::Error> {
        self.state.try_lock().ok()?.failure.take()
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(db: &Connection, requests: &Receiver<()>, state: &Mutex<State>) {
    while requests.recv().is_ok() {
        let mut state = locked(state);
        if let Err(error) = checkpoint(db) {
            state.failure = Some(error);
        }
    }
}

/// Syncs the write-ahead log, and copies it to the database. Returns whether it did: another process
/// may be doing the same.
pub(super) fn checkpoint(db: &Connection) -> Result<bool, rusqlite::Error> {
    let query = "PRAGMA wal_checkpoint(PASSIVE)";
    let is_busy: bool = db.query_row(query, [], |row| row.get(0))?;
    Ok(!is_busy)
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn requested_checkpoint_copies_the_log_and_ends_with_the_handle() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let open = || {
            let db = Connection::open(&path).unwrap();
            db.pragma_update(None, "journal_mode", "WAL").unwrap();
            db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
            db
        };
        let db = open();
        let checkpointer = Checkpointer::start(open()).unwrap();
        db.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000))")
            .unwrap();
        let is_copied = || fs::metadata(&path).unwrap().len() > 100_000;
        assert!(!is_copied());
        checkpointer.request();
        let end = Instant::now() + Duration::from_secs(30);
        while !is_copied() && Instant::now() < end {
            thread::yield_now();
        }
        assert!(is_copied());
        assert!(checkpointer.perform(&db).unwrap());
        assert!(checkpointer.failure().is_none());
        drop(checkpointer);
        // No other connection is open.
        db.execute_batch("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES (1)")
            .unwrap();
    }

    #[test]
    fn failed_checkpoint_is_reported_once() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        fs::write(&path, [b'x'; 4096]).unwrap();
        let checkpointer = Checkpointer::start(Connection::open(&path).unwrap()).unwrap();
        checkpointer.request();
        let end = Instant::now() + Duration::from_secs(30);
        let mut failure = None;
        while failure.is_none() && Instant::now() < end {
            thread::yield_now();
            failure = checkpointer.failure();
        }
        assert!(failure.is_some());
        assert!(checkpointer.failure().is_none());
    }
}

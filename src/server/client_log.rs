//! The log of clients in the data directory.
//!
//! Owns: the files, their locks, and the thread that writes. Must not know the meaning of records.
//!
//! | file | holds |
//! |---|---|
//! | `files` | the choice of a file, and reading all of them at startup |
//! | `others` | following the files of other running servers |
//! | `writer` | the thread that writes, and its handle in the reactor |
//!
//! A log that cannot be read or written never prevents a start: clients are then remembered in
//! memory only.

mod files;
mod others;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::backend::{DataDir, DataDirError, advice};
use crate::config::ServerSettings;
use crate::realtime::{ClientLog, Cursor, Digest};

pub(super) use writer::WriterThread;

/// The state from which the API starts.
pub(super) struct RestoredClients {
    /// The key of the digests.
    pub seed: [u64; 4],
    /// The clients, the oldest first.
    pub clients: Vec<(Digest, Cursor)>,
    /// The log, if it can be written.
    pub log: Option<Box<dyn ClientLog>>,
    /// The thread that writes it, which ends when the log has been dropped.
    pub thread: Option<WriterThread>,
}

/// Reads the logs in the data directory, and starts the thread that writes. `seed` is used if there
/// is no log yet. Records that are not written are counted in `dropped`.
pub(super) fn open(
    settings: &ServerSettings,
    seed: [u64; 4],
    dropped: &Arc<AtomicU64>,
) -> RestoredClients {
    let mut restored = RestoredClients {
        seed,
        clients: Vec::new(),
        log: None,
        thread: None,
    };
    let limit = settings.history.clients;
    if settings.history.memory == 0 || limit == 0 {
        return restored;
    }
    let opened = DataDir::open(&settings.data)
        .and_then(|data| files::open(&data, limit, seed, settings.reuse_port));
    match opened {
        Ok(mut opened) => {
            restored.seed = opened.seed;
            restored.clients = std::mem::take(&mut opened.clients);
            match writer::start(opened, Arc::clone(dropped)) {
                Ok((log, thread)) => {
                    restored.log = Some(Box::new(log));
                    restored.thread = Some(thread);
                }
                Err(error) => warn(&format!("cannot create a thread: {error}")),
            }
        }
        Err(error) => warn(&error.to_string()),
    }
    restored
}

fn warn(cause: &str) {
    log::warn!(
        "{cause}; remembering clients in memory only: after a restart, clients that reconnect without \
         a cursor are not sent the events that they missed"
    );
}

/// Describes an error of the log, with the remedy.
fn failed(path: &std::path::Path, error: io::Error) -> DataDirError {
    DataDirError::Io(path.to_owned(), error)
}

/// Formats an error of the log, with the remedy.
fn describe(path: &std::path::Path, error: &io::Error) -> String {
    advice::about(path, error)
}

#[cfg(test)]
mod tests;

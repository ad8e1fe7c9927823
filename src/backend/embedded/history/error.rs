//! Errors of the history file, by their consequence.

use std::fmt;
use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use super::SCHEMA_VERSION;
use crate::model::PublishError;

/// The reason why the history is unusable, or a change to it failed.
#[derive(Debug)]
pub(super) enum HistoryError {
    /// There is no room for the change.
    Full(String),
    /// The file is damaged, or not a history; the text states why.
    Damaged(String),
    /// The path leads to another file now, or to none.
    Replaced,
    /// A later version of this program has written the file.
    Newer(i64),
    /// Another process has held the lock for longer than the timeout.
    Locked,
    /// The file cannot be created, read, or written.
    Io(io::Error),
    /// Any other error.
    Other(String),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryError::Full(cause) => write!(
                f,
                "{cause}; free some space on this file system, raise the quota or the limit on the \
                 size of files (ulimit -f), or reduce history.disk"
            ),
            HistoryError::Damaged(cause) | HistoryError::Other(cause) => f.write_str(cause),
            HistoryError::Io(error) => error.fmt(f),
            HistoryError::Replaced => f.write_str("the file was replaced or removed"),
            HistoryError::Newer(found) => write!(
                f,
                "the history has schema version {found}, and this program supports version \
                 {SCHEMA_VERSION}; use a newer version of the program, or remove the file to start a new \
                 history"
            ),
            HistoryError::Locked => f.write_str(
                "the history is locked by another program; find that program with fuser",
            ),
        }
    }
}

impl HistoryError {
    /// Returns the text for the log and for publishers.
    pub(super) fn about(&self, path: &Path) -> String {
        format!("{}: {self}", path.display())
    }

    /// Returns the answer to publish requests.
    pub(super) fn to_publish_error(&self, path: &Path) -> PublishError {
        let text = format!("the events cannot be stored: {}", self.about(path));
        match self {
            HistoryError::Full(_) => PublishError::StorageFull(text),
            _ => PublishError::Unavailable(text),
        }
    }
}

impl From<rusqlite::Error> for HistoryError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let Some(cause) = error.sqlite_error() else {
            // A value has another type than in the schema, or a row is missing.
            return HistoryError::Damaged(text);
        };
        match cause.extended_code {
            ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS => {
                return HistoryError::Damaged(text);
            }
            // Such as beyond the quota or the limit on the size of files.
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE => return HistoryError::Full(text),
            ffi::SQLITE_READONLY_DBMOVED => return HistoryError::Replaced,
            _ => {}
        }
        match cause.code {
            ErrorCode::DiskFull => HistoryError::Full(text),
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                HistoryError::Io(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => HistoryError::Locked,
            // All statements are valid for the schema, and violate no constraint of it.
            ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::Unknown => HistoryError::Damaged(text),
            _ => HistoryError::Other(text),
        }
    }
}

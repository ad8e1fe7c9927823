//! The failure of a command: its message and its exit code.
//!
//! Owns: the exit codes, and which code each configuration, data directory, and database error has.
//! Must not know the command line or the server, which both return this type.

use std::fmt;
use std::io;
#[cfg(feature = "sqlite")]
use std::path::Path;

use crate::backend::DataDirError;
#[cfg(feature = "sqlite")]
use crate::backend::embedded::StoreError;
use crate::config::ConfigError;

/// A failed command: the message for standard error, and the exit code of `sysexits.h` that
/// identifies the cause to scripts.
#[derive(Debug)]
pub struct Exit {
    /// One of the constants below.
    pub code: u8,
    /// One human-readable line. Empty if there is nothing to report.
    pub message: String,
    /// Whether the message concerns the database but does not name its file.
    #[cfg(feature = "sqlite")]
    is_unnamed: bool,
}

impl Exit {
    /// The answer of `explain` is no.
    pub const NOT_NOTIFIED: u8 = 1;
    /// The command was used incorrectly.
    pub const USAGE: u8 = 64;
    /// The input was invalid.
    pub const DATA: u8 = 65;
    /// An input file cannot be read.
    pub const NO_INPUT: u8 = 66;
    /// The specified user, group, or token does not exist.
    pub const NO_USER: u8 = 67;
    /// The receiver of `forward` refuses all further requests.
    pub const GONE: u8 = 68;
    /// A required server or file is not available.
    pub const UNAVAILABLE: u8 = 69;
    /// The operating system refused something.
    pub const OS: u8 = 71;
    /// Reading or writing failed.
    pub const IO: u8 = 74;
    /// The server does not accept a cursor.
    pub const INVALID_CURSOR: u8 = 76;
    /// Permission denied.
    pub const NO_PERMISSION: u8 = 77;
    /// The configuration is invalid.
    pub const CONFIG: u8 = 78;
    /// Ended by SIGINT: 128 plus the signal number, as in shells.
    pub const INTERRUPTED: u8 = 130;
    /// Ended by SIGTERM before the command was complete.
    pub const TERMINATED: u8 = 143;

    /// Returns a failure with one of the codes above.
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Exit {
            code,
            message: message.to_string(),
            #[cfg(feature = "sqlite")]
            is_unnamed: false,
        }
    }

    /// Returns the same failure, with the name of the database file added to a message about the
    /// database.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub(crate) fn in_database(self, path: &Path) -> Self {
        match self.is_unnamed {
            true => Exit::new(self.code, format!("{}: {}", path.display(), self.message)),
            false => self,
        }
    }

    /// Returns a failure without a message, such as for a signal.
    pub fn silent(code: u8) -> Self {
        Exit::new(code, "")
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Exit::new(Exit::CONFIG, error)
    }
}

impl From<DataDirError> for Exit {
    fn from(error: DataDirError) -> Self {
        let code = match &error {
            DataDirError::NotADirectory(_) | DataDirError::BadKey(_) => Exit::CONFIG,
            DataDirError::Missing(_) | DataDirError::InUse(..) => Exit::UNAVAILABLE,
            DataDirError::Io(_, error) => of_io(error.kind()),
            DataDirError::Random(_) => Exit::OS,
        };
        Exit::new(code, error)
    }
}

#[cfg(feature = "sqlite")]
impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Invalid(_) | StoreError::Exists(_) => Exit::DATA,
            StoreError::Missing(_) => Exit::NO_USER,
            StoreError::Newer { .. } | StoreError::NewerHistory(..) => Exit::UNAVAILABLE,
            StoreError::File(_, cause) if cause.kind() == io::ErrorKind::NotFound => {
                Exit::UNAVAILABLE
            }
            StoreError::File(..) | StoreError::Sqlite(_) => of_io(error.io_kind()),
            StoreError::Locked | StoreError::Unusable(..) | StoreError::Replaced(_) => Exit::IO,
        };
        let is_unnamed = error.lacks_file_name();
        Exit {
            is_unnamed,
            ..Exit::new(code, error)
        }
    }
}

impl From<io::Error> for Exit {
    /// Converts a failure of standard input or output. A closed reader, as with `head`, is not
    /// reported.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(Exit::IO),
            _ => Exit::new(Exit::IO, format!("standard input or output: {error}")),
        }
    }
}

/// Returns the exit code for a failure to read or write a file.
pub(crate) fn of_io(kind: io::ErrorKind) -> u8 {
    match kind {
        io::ErrorKind::PermissionDenied => Exit::NO_PERMISSION,
        _ => Exit::IO,
    }
}

/// Returns the failure to create a thread.
pub(crate) fn thread_failed(error: io::Error) -> Exit {
    Exit::new(Exit::OS, format!("cannot create a thread: {error}"))
}

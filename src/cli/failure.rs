//! Exit codes of configuration and back-end failures.

use std::io;

use super::exit::Exit;
use crate::backend::DataDirError;
#[cfg(feature = "sqlite")]
use crate::backend::embedded::StoreError;
use crate::config::ConfigError;

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
            StoreError::Newer { .. } => Exit::UNAVAILABLE,
            StoreError::File(_, cause) if cause.kind() == io::ErrorKind::NotFound => {
                Exit::UNAVAILABLE
            }
            StoreError::File(..) | StoreError::Sqlite(_) => of_io(error.io_kind()),
            StoreError::Locked | StoreError::Unusable(..) | StoreError::Replaced(_) => Exit::IO,
        };
        let is_unnamed = error.is_unnamed();
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
pub(super) fn of_io(kind: io::ErrorKind) -> u8 {
    match kind {
        io::ErrorKind::PermissionDenied => Exit::NO_PERMISSION,
        _ => Exit::IO,
    }
}

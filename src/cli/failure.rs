//! Which exit code a failure of the configuration or the back end ends with.

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
            DataDirError::Io(_, error) => of_io(error),
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
            StoreError::File(_, error) => of_io(error),
            StoreError::Locked
            | StoreError::Unusable(..)
            | StoreError::Replaced(_)
            | StoreError::Sqlite(_) => Exit::IO,
        };
        Exit::new(code, error)
    }
}

impl From<io::Error> for Exit {
    /// Standard input or output failed. That nobody reads the output any more, as behind `head`,
    /// is no error to speak of.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(Exit::IO),
            _ => Exit::new(Exit::IO, format!("standard input or output: {error}")),
        }
    }
}

fn of_io(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NO_PERMISSION,
        _ => Exit::IO,
    }
}

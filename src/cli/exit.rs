//! Failures of commands.

use std::fmt;
#[cfg(feature = "sqlite")]
use std::path::Path;

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
    pub(super) is_unnamed: bool,
}

impl Exit {
    /// The command was used incorrectly.
    pub const USAGE: u8 = 64;
    /// The input was invalid.
    pub const DATA: u8 = 65;
    /// An input file cannot be read.
    pub const NO_INPUT: u8 = 66;
    /// The specified user, group, or token does not exist.
    pub const NO_USER: u8 = 67;
    /// A required server or file is not available.
    pub const UNAVAILABLE: u8 = 69;
    /// The operating system refused something.
    pub const OS: u8 = 71;
    /// Reading or writing failed.
    pub const IO: u8 = 74;
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

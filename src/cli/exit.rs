//! How a command ends when it does not succeed.

use std::fmt;
#[cfg(feature = "sqlite")]
use std::path::Path;

/// A failed command: what to say on standard error, and the exit code of `sysexits.h` that
/// says whose fault it is to a script.
#[derive(Debug)]
pub struct Exit {
    /// One of the constants below.
    pub code: u8,
    /// One line, for a person; empty if there is nothing to say.
    pub message: String,
    /// Whether the message is about the database and does not name its file.
    #[cfg(feature = "sqlite")]
    pub(super) is_unnamed: bool,
}

impl Exit {
    /// The command was used wrongly.
    pub const USAGE: u8 = 64;
    /// The input was wrong.
    pub const DATA: u8 = 65;
    /// An input file cannot be read.
    pub const NO_INPUT: u8 = 66;
    /// The user, group or token named does not exist.
    pub const NO_USER: u8 = 67;
    /// A server or file that is needed is not there.
    pub const UNAVAILABLE: u8 = 69;
    /// The operating system refused something.
    pub const OS: u8 = 71;
    /// Reading or writing failed.
    pub const IO: u8 = 74;
    /// Not allowed.
    pub const NO_PERMISSION: u8 = 77;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;
    /// Ended by SIGINT: 128 and the number of the signal, as shells count.
    pub const INTERRUPTED: u8 = 130;
    /// Ended by SIGTERM before the command had done what it was asked for.
    pub const TERMINATED: u8 = 143;

    /// A failure with one of the codes above.
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Exit {
            code,
            message: message.to_string(),
            #[cfg(feature = "sqlite")]
            is_unnamed: false,
        }
    }

    /// The same failure; a message about the database names its file.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub(crate) fn in_database(self, path: &Path) -> Self {
        match self.is_unnamed {
            true => Exit::new(self.code, format!("{}: {}", path.display(), self.message)),
            false => self,
        }
    }

    /// A failure that needs no explanation, such as a signal.
    pub fn silent(code: u8) -> Self {
        Exit::new(code, "")
    }
}

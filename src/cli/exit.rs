//! How a command ends when it does not succeed.

use std::fmt;

/// A failed command: what to say on standard error, and the exit code of `sysexits.h` that
/// says whose fault it is to a script.
#[derive(Debug)]
pub struct Exit {
    /// One of the constants below.
    pub code: u8,
    /// One line, for a person.
    pub message: String,
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

    /// A failure with one of the codes above.
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Exit {
            code,
            message: message.to_string(),
        }
    }
}

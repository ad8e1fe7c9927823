//! Why an attempt to connect failed, and whether another one is useful.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::cli::sanitize::printable;
use crate::exit::Exit;

/// The reason why there is no connection.
#[derive(Debug)]
pub(in crate::cli) enum ConnectError {
    /// Trying again is useless.
    Permanent(Exit),
    /// The server does not match the URL, for this human-readable reason. Final, unless a
    /// connection has succeeded before: the server may be under repair.
    Mismatch(String),
    /// The server does not accept the cursor, for this reason.
    InvalidCursor(String),
    /// A later attempt may succeed.
    Temporary {
        /// A human-readable reason.
        reason: String,
        /// The minimum time to wait, if the server specifies one.
        after: Option<Duration>,
    },
}

impl ConnectError {
    pub(super) fn temporary(reason: String) -> Self {
        ConnectError::Temporary {
            reason,
            after: None,
        }
    }
}

/// Returns a human-readable reason for a socket error.
pub(in crate::cli) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        // The error kind that the system uses for a timeout on a blocking socket.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no complete response within {} s", STEP_TIMEOUT.as_secs())
        }
        _ => printable(&error.to_string()),
    }
}

/// The timeout of each step of connecting: TCP, TLS, and the upgrade.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(10);

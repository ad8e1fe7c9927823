//! The interface between the stream of events and the command that uses them: `listen` prints them,
//! `forward` sends them to a receiver.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::exit::Exit;

/// A consumer of the events of a stream.
///
/// Only `event`, `status`, and `wait` are required: the defaults are those of a consumer that
/// handles each event at once.
pub(in crate::cli) trait EventConsumer {
    /// Handles an event, a line of JSON, and its cursor. Returns false if no further events are
    /// needed.
    fn event(&mut self, line: &str, cursor: Option<&str>) -> Result<bool, Exit>;

    /// Reports a line to the user.
    fn status(&mut self, line: impl fmt::Display);

    /// Waits for `delay` between two connections. Returns false if no further events are needed.
    fn wait(&mut self, delay: Duration) -> Result<bool, Exit>;

    /// Called when the position has moved to `cursor` without an event.
    fn mark(&mut self, _cursor: &str) {}

    /// Called when the filter is in place, with a line about the identity of the client.
    fn connected(&mut self, identity: &str) {
        self.status(identity);
    }

    /// Called when the connection has ended, for any reason.
    fn disconnected(&mut self) {}

    /// Called when the history does not reach back to the position. With a reason, the connection
    /// ends, and the next one resumes at [`EventConsumer::position`]. Without, the gap is reported,
    /// and the connection continues from now.
    fn gap(&mut self, _oldest: Option<&str>) -> Option<String> {
        None
    }

    /// Returns the position from which the next connection resumes. `None` if the stream keeps it.
    fn position(&self) -> Option<String> {
        None
    }

    /// Called once in each turn, after received messages have been handled. `is_current` is true if
    /// the turn has read everything that had arrived, and at least some bytes. With a reason, the
    /// connection ends, and another one is made.
    fn turn(&mut self, _is_current: bool, _now: Instant) -> Result<Option<String>, Exit> {
        Ok(None)
    }

    /// Returns the time until the next turn must take place.
    fn timeout(&self, _now: Instant) -> Option<Duration> {
        None
    }

    /// Returns whether a ping must be sent now.
    fn wants_ping(&mut self, _now: Instant) -> bool {
        false
    }

    /// Returns the descriptor of an output, which shows when its reader has closed it.
    fn closable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns a descriptor that becomes readable when a turn must take place.
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

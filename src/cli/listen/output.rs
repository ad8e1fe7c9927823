//! The output of `listen`: events on standard output, everything else on standard error.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::consumer::EventConsumer;
use crate::exit::Exit;

/// The output of the command.
pub(super) struct ListenOutput<'a> {
    pub events: &'a mut dyn Write,
    /// The descriptor of `events`, which shows when the reader has closed it.
    pub output: Option<BorrowedFd<'a>>,
    pub status: &'a mut dyn Write,
}

impl EventConsumer for ListenOutput<'_> {
    /// Prints an event. Returns false if the reader has closed the output.
    fn event(&mut self, line: &str, _cursor: Option<&str>) -> Result<bool, Exit> {
        let written = writeln!(self.events, "{line}").and_then(|()| self.events.flush());
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Exit::new(Exit::IO, format!("standard output: {error}"))),
        }
    }

    /// Waits for `delay`. Returns false as soon as the reader has closed the output.
    fn wait(&mut self, delay: Duration) -> Result<bool, Exit> {
        let end = Instant::now() + delay;
        let Some(output) = self.output else {
            thread::sleep(delay);
            return Ok(true);
        };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            let mut fds = [PollFd::from_borrowed_fd(output, PollFlags::empty())];
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(false),
                Err(_) => {
                    thread::sleep(left);
                    return Ok(true);
                }
            }
        }
    }

    fn closable(&self) -> Option<BorrowedFd<'_>> {
        self.output
    }

    /// Prints a status message. A closed standard error does not end the command.
    fn status(&mut self, line: impl fmt::Display) {
        let _ = writeln!(self.status, "{line}");
    }
}

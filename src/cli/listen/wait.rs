//! The concurrent wait for the server, for signals, and for a closed standard output.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::consumer::EventConsumer;
use super::interrupt::Interrupts;

/// The reason why a wait has ended.
#[derive(Default)]
pub(super) struct Readiness {
    /// The socket is readable, or at its end.
    pub is_readable: bool,
    /// Standard output was closed.
    pub is_output_closed: bool,
}

/// Waits for the given events of the socket, for a signal, or for standard output to be closed.
pub(super) fn wait(
    socket: BorrowedFd<'_>,
    interest: PollFlags,
    timeout: Duration,
    consumer: &impl EventConsumer,
    interrupts: &Interrupts,
) -> io::Result<Readiness> {
    let mut fds = vec![PollFd::from_borrowed_fd(socket, interest)];
    if let Some(output) = consumer.closable() {
        // Errors are always reported, even without requested events: the reader of a pipe has
        // closed it.
        fds.push(PollFd::from_borrowed_fd(output, PollFlags::empty()));
    }
    if let Some(signals) = interrupts.as_fd() {
        fds.push(PollFd::from_borrowed_fd(signals, PollFlags::IN));
    }
    if let Some(wake) = consumer.wake() {
        fds.push(PollFd::from_borrowed_fd(wake, PollFlags::IN));
    }
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Readiness::default()),
        Err(error) => return Err(error.into()),
    }
    let of = |at: usize| fds.get(at).map_or(PollFlags::empty(), PollFd::revents);
    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    Ok(Readiness {
        is_readable: !of(0).is_empty() && of(0) != PollFlags::OUT,
        is_output_closed: consumer.closable().is_some() && of(1).intersects(gone),
    })
}

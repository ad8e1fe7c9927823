//! SIGINT and SIGTERM: while a connection is open, they start a closing handshake. At any other
//! time, they end the process immediately.
//!
//! Owns: the handlers, and the exit code for each signal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::exit::Exit;

/// The signals received so far.
pub(in crate::cli) struct Interrupts {
    /// The handler ends the process at the next signal.
    at_once: Arc<AtomicBool>,
    /// The last signal. 0 before the first.
    last: Arc<AtomicUsize>,
    /// Becomes readable when a signal has been received, so that `poll` returns.
    pipe: Option<UnixStream>,
    on_term: u8,
}

impl Interrupts {
    /// Returns an instance without handlers, for tests, which share their process.
    #[cfg(test)]
    pub(in crate::cli) fn none() -> Self {
        Interrupts {
            at_once: Arc::default(),
            last: Arc::default(),
            pipe: None,
            on_term: 0,
        }
    }

    /// Installs the handlers. SIGINT leads to exit code 130, SIGTERM to `on_term`.
    pub(in crate::cli) fn catch(on_term: u8) -> io::Result<Self> {
        let at_once = Arc::new(AtomicBool::new(true));
        let last = Arc::new(AtomicUsize::new(0));
        let (pipe, writer) = UnixStream::pair()?;
        let handled = [(SIGINT, Exit::INTERRUPTED), (SIGTERM, on_term)];
        for (signal, code) in handled
            .into_iter()
            .filter(|(signal, _)| !is_ignored(*signal))
        {
            // The handlers run in this order: the first signal is recorded, and the second one ends
            // the process, even if the server does not answer the close frame.
            flag::register_conditional_shutdown(signal, code.into(), Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&at_once))?;
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, Arc::clone(&last), number)?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Interrupts {
            at_once,
            last,
            pipe: Some(pipe),
            on_term,
        })
    }

    /// Lets the caller handle the next signal.
    pub(super) fn defer(&self) {
        self.at_once.store(false, Ordering::SeqCst);
        // A signal between the last check and this line must not be lost.
        if self.received() {
            self.at_once.store(true, Ordering::SeqCst);
        }
    }

    /// Makes every signal end the process again.
    pub(super) fn resume(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }

    /// Returns whether a signal has been received.
    pub(in crate::cli) fn received(&self) -> bool {
        self.last.load(Ordering::SeqCst) != 0
    }

    /// Returns the result of the command after a signal.
    pub(super) fn result(&self) -> Result<(), Exit> {
        let sigterm = usize::try_from(SIGTERM).unwrap_or_default();
        let code = match self.last.load(Ordering::SeqCst) {
            last if last == sigterm => self.on_term,
            _ => Exit::INTERRUPTED,
        };
        match code {
            0 => Ok(()),
            code => Err(Exit::silent(code)),
        }
    }

    /// Returns a descriptor that becomes readable when a signal is received.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }
}

/// Returns whether the process inherited the signal as ignored, as shells do with SIGINT for
/// background commands of a script. Such a signal stays ignored.
fn is_ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|at| 1u64.checked_shl(at));
    matches!((mask, bit), (Some(mask), Some(bit)) if mask & bit != 0)
}

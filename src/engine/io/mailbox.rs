//! The mailbox: how other threads reach the reactor.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use mio::Waker;

use super::wake_flag::WakeFlag;
use crate::config::Reload;

/// A sender of a bounded channel to the reactor. Sending wakes the reactor.
pub struct Mailbox<C> {
    sender: SyncSender<Mail<C>>,
    wakeup: Arc<Wakeup>,
}

/// A message from another thread.
pub enum Mail<C> {
    /// A command for the handler.
    Command(C),
    /// Shut down over this period; the second time, immediately.
    Shutdown(Duration),
    /// Apply a new configuration.
    Reload(Box<Reload>),
}

/// The reactor has ended and reads no more messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why a command was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered<C> {
    /// The mailbox is full; returns the command.
    Full(C),
    /// The reactor has ended.
    Closed,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor has ended")
    }
}

impl std::error::Error for Closed {}

impl<C> fmt::Display for Undelivered<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Undelivered::Full(_) => "the mailbox is full",
            Undelivered::Closed => "the reactor has ended",
        })
    }
}

impl<C: fmt::Debug> std::error::Error for Undelivered<C> {}

impl<C> Mailbox<C> {
    /// Sends a command to the reactor. Blocks while the mailbox is full, which is the backpressure
    /// on senders.
    ///
    /// # Errors
    /// [`Closed`] if the reactor has ended.
    pub fn send(&self, command: C) -> Result<(), Closed> {
        self.put(Mail::Command(command))
    }

    /// Sends a command to the reactor without blocking, or returns it if the mailbox is full.
    ///
    /// # Errors
    /// [`Undelivered`], with the command if it can be retried.
    pub fn try_send(&self, command: C) -> Result<(), Undelivered<C>> {
        match self.sender.try_send(Mail::Command(command)) {
            Ok(()) => {
                self.wakeup.wake();
                Ok(())
            }
            Err(TrySendError::Full(Mail::Command(command))) => Err(Undelivered::Full(command)),
            Err(_) => Err(Undelivered::Closed),
        }
    }

    /// Shuts the reactor down. Clients are told to reconnect later, spread over `over`. The second
    /// call ends the reactor immediately.
    ///
    /// # Errors
    /// [`Closed`] if the reactor has ended.
    pub fn shut_down(&self, over: Duration) -> Result<(), Closed> {
        self.put(Mail::Shutdown(over))
    }

    /// Makes the reactor apply new limits or another certificate between two turns.
    ///
    /// # Errors
    /// [`Closed`] if the reactor has ended.
    pub fn reload(&self, reload: Reload) -> Result<(), Closed> {
        self.put(Mail::Reload(Box::new(reload)))
    }

    fn put(&self, mail: Mail<C>) -> Result<(), Closed> {
        self.sender.send(mail).map_err(|_| Closed)?;
        self.wakeup.wake();
        Ok(())
    }
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Mailbox {
            sender: self.sender.clone(),
            wakeup: Arc::clone(&self.wakeup),
        }
    }
}

/// The receiving side, in the reactor.
pub(crate) struct Inbox<C> {
    receiver: Receiver<Mail<C>>,
    wakeup: Arc<Wakeup>,
    /// There may be more messages in the channel.
    pending: bool,
}

impl<C> Inbox<C> {
    /// Returns the next message, if any. [`Inbox::clear_wake_flag`] must be called first in each turn.
    pub(crate) fn take(&mut self) -> Option<Mail<C>> {
        if !self.pending {
            return None;
        }
        match self.receiver.try_recv() {
            Ok(mail) => Some(mail),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                self.pending = false;
                None
            }
        }
    }

    /// Clears the wake flag. Must be called before receiving, so that a message sent after the last
    /// receive wakes the reactor again.
    pub(crate) fn clear_wake_flag(&mut self) {
        if self.wakeup.flag.clear() {
            self.pending = true;
        }
    }
}

/// Wakes the reactor when there are messages.
struct Wakeup {
    flag: WakeFlag,
    waker: Waker,
}

impl Wakeup {
    fn wake(&self) {
        if self.flag.set()
            && let Err(error) = self.waker.wake()
        {
            // The message waits for the next turn, which comes with the next tick at the latest.
            log::warn!("the reactor cannot be woken: {error}");
        }
    }
}

/// Creates a mailbox for `capacity` messages.
pub(crate) fn mailbox<C>(capacity: usize, waker: Waker) -> (Mailbox<C>, Inbox<C>) {
    let (sender, receiver) = sync_channel(capacity);
    let wakeup = Arc::new(Wakeup {
        flag: WakeFlag::new(),
        waker,
    });
    let mailbox = Mailbox {
        sender,
        wakeup: Arc::clone(&wakeup),
    };
    let inbox = Inbox {
        receiver,
        wakeup,
        pending: false,
    };
    (mailbox, inbox)
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn full_mailbox_returns_the_command() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (mailbox, mut inbox) = mailbox(1, waker);
        assert_eq!(mailbox.try_send(1), Ok(()));
        assert_eq!(mailbox.try_send(2), Err(Undelivered::Full(2)));
        inbox.clear_wake_flag();
        assert!(inbox.pending, "the first one rang");
        assert!(matches!(inbox.take(), Some(Mail::Command(1))));
        assert_eq!(mailbox.try_send(3), Ok(()));
        drop(inbox);
        assert_eq!(mailbox.try_send(4), Err(Undelivered::Closed));
    }

    // R9
    #[test]
    fn no_wakeup_is_lost() {
        const EACH: usize = 100_000;
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (mailbox, mut inbox) = mailbox(64, waker);
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || (0..EACH).try_for_each(|n| mailbox.send(n)))
            })
            .collect();
        let mut events = Events::with_capacity(4);
        let mut seen = 0;
        while seen < 4 * EACH {
            // Without a timeout, a lost wakeup would hang here.
            let timeout = inbox.pending.then_some(Duration::ZERO);
            poll.poll(&mut events, timeout).unwrap();
            inbox.clear_wake_flag();
            while let Some(Mail::Command(_)) = inbox.take() {
                seen += 1;
            }
        }
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Ok(()));
        }
    }

    #[test]
    fn shutdown_and_configuration_reach_the_reactor_until_it_has_ended() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (mailbox, mut inbox) = mailbox::<u8>(4, waker);
        let over = Duration::from_secs(7);
        assert_eq!(mailbox.shut_down(over), Ok(()));
        inbox.clear_wake_flag();
        assert!(matches!(inbox.take(), Some(Mail::Shutdown(period)) if period == over));
        drop(inbox);
        assert_eq!(mailbox.shut_down(over), Err(Closed));
        assert_eq!(Closed.to_string(), "the reactor has ended");
        let full = Undelivered::Full(1).to_string();
        assert_eq!(full, "the mailbox is full");
    }
}

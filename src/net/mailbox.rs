//! How other threads reach the reactor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use mio::Waker;

/// A way into the reactor: bounded, and the reactor wakes up for what is put in.
pub struct Mailbox<C> {
    sender: SyncSender<Mail<C>>,
    bell: Arc<Bell>,
}

/// What the reactor can be sent.
pub(super) enum Mail<C> {
    /// For the handler.
    Command(C),
    /// Shut down over this time; when told again, at once.
    Shutdown(Duration),
}

/// The reactor is gone; nothing will be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl<C> Mailbox<C> {
    /// Hands a command to the reactor; waits while the mailbox is full. That is the
    /// back-pressure on whoever sends.
    ///
    /// # Errors
    /// [`Closed`] when the reactor has ended.
    pub fn send(&self, command: C) -> Result<(), Closed> {
        self.put(Mail::Command(command))
    }

    /// Shuts the reactor down: everybody is told to come back later, spread over `over`. Said
    /// a second time, it ends at once.
    ///
    /// # Errors
    /// [`Closed`] when the reactor has ended.
    pub fn shut_down(&self, over: Duration) -> Result<(), Closed> {
        self.put(Mail::Shutdown(over))
    }

    fn put(&self, mail: Mail<C>) -> Result<(), Closed> {
        self.sender.send(mail).map_err(|_| Closed)?;
        self.bell.ring();
        Ok(())
    }
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Mailbox {
            sender: self.sender.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

/// The reactor's end.
pub(super) struct Inbox<C> {
    receiver: Receiver<Mail<C>>,
    bell: Arc<Bell>,
    /// There may be more than was taken out.
    pub pending: bool,
}

impl<C> Inbox<C> {
    /// The next mail, if there is any. Call [`Inbox::answer_bell`] first in each turn.
    pub fn take(&mut self) -> Option<Mail<C>> {
        match self.receiver.try_recv() {
            Ok(mail) => Some(mail),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                self.pending = false;
                None
            }
        }
    }

    /// Takes note that the bell rang. Before looking, so that whatever is put in after the
    /// look rings again.
    pub fn answer_bell(&mut self) {
        if self.bell.rung.swap(false, Ordering::AcqRel) {
            self.pending = true;
        }
    }
}

/// Wakes the reactor once for any number of mails: wake-ups coalesce anyway, and each costs a
/// system call.
struct Bell {
    rung: AtomicBool,
    waker: Waker,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            // Then the mail waits for the next turn, which the tick brings at the latest.
            log::warn!("the reactor cannot be woken: {error}");
        }
    }
}

/// A mailbox for `capacity` mails.
pub(super) fn mailbox<C>(capacity: usize, waker: Waker) -> (Mailbox<C>, Inbox<C>) {
    let (sender, receiver) = sync_channel(capacity);
    let bell = Arc::new(Bell {
        rung: AtomicBool::new(false),
        waker,
    });
    let mailbox = Mailbox {
        sender,
        bell: Arc::clone(&bell),
    };
    let inbox = Inbox {
        receiver,
        bell,
        pending: false,
    };
    (mailbox, inbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    // R9
    #[test]
    fn nothing_is_lost_between_the_bell_and_the_look() {
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
            // Without a timeout: a lost wake-up would hang here.
            let timeout = inbox.pending.then_some(Duration::ZERO);
            poll.poll(&mut events, timeout).unwrap();
            inbox.answer_bell();
            while let Some(Mail::Command(_)) = inbox.take() {
                seen += 1;
            }
        }
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Ok(()));
        }
    }
}

//! The flag that coalesces wakeups of the reactor.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the reactor has been woken and has not looked into its mailbox since.
///
/// Wakes the reactor once for any number of messages: wakeups coalesce anyway, and each costs a
/// system call.
pub(crate) struct WakeFlag {
    is_set: AtomicBool,
}

impl WakeFlag {
    pub(crate) fn new() -> Self {
        WakeFlag {
            is_set: AtomicBool::new(false),
        }
    }

    /// Sets the flag after a message has been put into the channel. Returns whether the caller must
    /// wake the reactor: otherwise another sender has, and the reactor has yet to clear the flag.
    pub(crate) fn set(&self) -> bool {
        // Pairs with the one in `clear`: the reactor that reads this value also sees the message.
        !self.is_set.swap(true, Ordering::Release)
    }

    /// Clears the flag, and returns whether it was set. The reactor must receive until the channel
    /// is empty after this, not before: a message sent in between would wait for another wakeup.
    pub(crate) fn clear(&self) -> bool {
        // Only reading it first avoids an atomic write in almost every turn. A flag set right after
        // is seen in the next turn, for which its sender wakes the reactor.
        self.is_set.load(Ordering::Relaxed) && self.is_set.swap(false, Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn first_sender_wakes_the_reactor() {
        let flag = WakeFlag::new();
        assert!(!flag.clear());
        for _ in 0..2 {
            assert!(flag.set());
            assert!(!flag.set(), "another sender has woken it");
            assert!(flag.clear());
            assert!(!flag.clear());
        }
    }
}

// RUSTFLAGS="--cfg loom" cargo test --package h-realtime-engine --no-default-features --lib wake_flag
#[cfg(all(test, loom))]
mod tests {
    use std::sync::Arc;

    use loom::sync::Notify;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    const SENDERS: usize = 2;

    /// A channel that orders nothing by itself, so that only the flag does.
    struct Channel {
        flag: WakeFlag,
        waker: Notify,
        messages: [AtomicUsize; SENDERS],
    }

    impl Channel {
        fn send(&self, sender: usize) {
            self.messages[sender].store(1, Ordering::Relaxed);
            if self.flag.set() {
                self.waker.notify();
            }
        }

        fn received(&self) -> usize {
            let loads = self.messages.iter().map(|m| m.load(Ordering::Relaxed));
            loads.sum()
        }
    }

    // R9
    #[test]
    fn every_message_is_received_in_every_interleaving() {
        loom::model(|| {
            let channel = Arc::new(Channel {
                flag: WakeFlag::new(),
                waker: Notify::new(),
                messages: [(); SENDERS].map(|()| AtomicUsize::new(0)),
            });
            for sender in 0..SENDERS {
                let channel = Arc::clone(&channel);
                thread::spawn(move || channel.send(sender));
            }
            // The turns of the reactor. A lost wakeup is a deadlock, which loom reports.
            let mut received = 0;
            while received < SENDERS {
                channel.waker.wait();
                if channel.flag.clear() {
                    received = channel.received();
                }
            }
        });
    }
}

//! Events that wait until the database can be asked about them.
//!
//! Owns: how many may wait, and which are given up for others: the oldest, for clients that have
//! heard of a later state need not hear of an earlier one.

use std::collections::VecDeque;

use crate::backend::amqp::Delivery;

/// Events in the order of their arrival.
#[derive(Default)]
pub(super) struct Backlog {
    events: VecDeque<Waiting>,
    bytes: usize,
}

/// An event that waits.
pub(super) struct Waiting {
    pub delivery: Delivery,
    /// How often the database went away over it.
    pub failures: u8,
}

impl Backlog {
    /// Adds an event; how many others had to go for it.
    pub fn push(&mut self, delivery: Delivery) -> usize {
        self.bytes += delivery.size;
        self.events.push_back(Waiting {
            delivery,
            failures: 0,
        });
        let mut count = 0;
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            self.pop();
            count += 1;
        }
        count
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.events.pop_front()?;
        self.bytes -= waiting.delivery.size;
        Some(waiting)
    }

    /// Puts back what was taken.
    pub fn put_back(&mut self, waiting: Waiting) {
        self.bytes += waiting.delivery.size;
        self.events.push_front(waiting);
    }
}

/// How many events wait. h's are small: an id, and who did it.
pub(super) const MAX_EVENTS: usize = 4096;
/// Bytes of the messages they came in.
const MAX_BYTES: usize = 16 << 20;
/// How many events of each topic RabbitMQ hands out that have not been dealt with. It hands out
/// more only for those that have been given up, so it must be more than may wait.
pub(super) const PREFETCH: u16 = 5000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::backend::Topic;
    use crate::model::{MonoMillis, Receipt};

    fn delivery(number: usize, size: usize, handled: &Arc<AtomicUsize>) -> Delivery {
        let mut event = serde_json::Map::new();
        event.insert("n".to_owned(), number.into());
        let handled = Arc::clone(handled);
        Delivery {
            topic: Topic::Annotation,
            event,
            size,
            received: MonoMillis(0),
            receipt: Receipt::new(move || {
                handled.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    fn number(waiting: &Waiting) -> usize {
        waiting.delivery.event["n"].as_u64().unwrap() as usize
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let handled = Arc::default();
        let mut backlog = Backlog::default();
        for n in 0..MAX_EVENTS {
            assert_eq!(backlog.push(delivery(n, 100, &handled)), 0);
        }
        assert_eq!(backlog.push(delivery(MAX_EVENTS, 100, &handled)), 1);
        assert_eq!(handled.load(Ordering::Relaxed), 1);
        let first = backlog.pop().unwrap();
        assert_eq!(number(&first), 1);
        backlog.put_back(first);
        for n in 1..=MAX_EVENTS {
            assert_eq!(number(&backlog.pop().unwrap()), n);
        }
        assert!(backlog.pop().is_none());
        assert_eq!(backlog.bytes, 0);
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let handled = Arc::default();
        let mut backlog = Backlog::default();
        let size = MAX_BYTES / 4;
        for n in 0..4 {
            assert_eq!(backlog.push(delivery(n, size, &handled)), 0);
        }
        assert_eq!(backlog.push(delivery(4, size + 1, &handled)), 2);
        assert_eq!(number(&backlog.pop().unwrap()), 2);
        // One alone stays, whatever its size.
        assert_eq!(backlog.push(delivery(5, MAX_BYTES + 1, &handled)), 2);
        assert_eq!(number(&backlog.pop().unwrap()), 5);
    }

    const _: () = assert!(PREFETCH as usize > MAX_EVENTS + super::super::thread::HANDS + 1);
}

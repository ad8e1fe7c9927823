//! Events that wait for the database.
//!
//! Owns: the limits on waiting events. When a limit is exceeded, the oldest events are dropped: a
//! client that receives a later state of an annotation does not need an earlier one.

use std::collections::VecDeque;

use crate::backend::amqp::Delivery;

/// Limits on the events that wait for the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The number of events, at most [`MAX_EVENTS`].
    pub events: usize,
    /// The total size of their messages, in bytes. A single event is accepted regardless of its
    /// size.
    pub bytes: usize,
}

impl Limits {
    /// Returns the prefetch count per topic. It must exceed the number of events that may wait:
    /// RabbitMQ delivers a new event only once another one has been acknowledged, which here
    /// includes dropped events.
    pub fn prefetch(self) -> u16 {
        let events = self.events.min(MAX_EVENTS) + SURPLUS;
        u16::try_from(events).unwrap_or(u16::MAX)
    }
}

/// A queue of events in order of arrival.
pub(super) struct Backlog {
    limits: Limits,
    events: VecDeque<QueuedEvent>,
    bytes: usize,
}

/// A waiting event.
pub(super) struct QueuedEvent {
    pub delivery: Delivery,
    /// How often the database became unavailable while this event was being processed.
    pub failures: u8,
}

impl Backlog {
    /// Creates an empty queue.
    pub(super) fn new(limits: Limits) -> Self {
        Backlog {
            limits,
            events: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds an event. Returns the number of events dropped to make room.
    pub(super) fn push(&mut self, delivery: Delivery) -> usize {
        self.bytes += delivery.size;
        self.events.push_back(QueuedEvent {
            delivery,
            failures: 0,
        });
        let mut count = 0;
        let Limits { events, bytes } = self.limits;
        while self.events.len() > events || (self.bytes > bytes && self.events.len() > 1) {
            self.pop();
            count += 1;
        }
        count
    }

    /// Removes the oldest event.
    pub(super) fn pop(&mut self) -> Option<QueuedEvent> {
        let queued = self.events.pop_front()?;
        self.bytes -= queued.delivery.size;
        Some(queued)
    }

    /// Puts an event back to the front.
    pub(super) fn push_front(&mut self, queued: QueuedEvent) {
        self.bytes += queued.delivery.size;
        self.events.push_front(queued);
    }
}

/// The maximum number of waiting events. AMQP's prefetch count has 16 bits.
pub const MAX_EVENTS: usize = 60_000;
/// Unacknowledged events besides the waiting ones: in the reactor, and in transit.
const SURPLUS: usize = 904;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::backend::Topic;
    use crate::model::{AckGuard, MonoMillis};

    const LIMITS: Limits = Limits {
        events: 4096,
        bytes: 16 << 20,
    };

    fn delivery(number: usize, size: usize, handled: &Arc<AtomicUsize>) -> Delivery {
        let mut event = serde_json::Map::new();
        event.insert("n".to_owned(), number.into());
        let handled = Arc::clone(handled);
        Delivery {
            topic: Topic::Annotation,
            event,
            size,
            received: MonoMillis(0),
            ack: AckGuard::new(move || {
                handled.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    fn number(queued: &QueuedEvent) -> usize {
        queued.delivery.event["n"].as_u64().unwrap() as usize
    }

    #[test]
    fn oldest_events_are_dropped_beyond_the_count_limit() {
        let handled = Arc::default();
        let mut backlog = Backlog::new(LIMITS);
        for n in 0..LIMITS.events {
            assert_eq!(backlog.push(delivery(n, 100, &handled)), 0);
        }
        assert_eq!(backlog.push(delivery(LIMITS.events, 100, &handled)), 1);
        assert_eq!(handled.load(Ordering::Relaxed), 1);
        let first = backlog.pop().unwrap();
        assert_eq!(number(&first), 1);
        backlog.push_front(first);
        for n in 1..=LIMITS.events {
            assert_eq!(number(&backlog.pop().unwrap()), n);
        }
        assert!(backlog.pop().is_none());
        assert_eq!(backlog.bytes, 0);
    }

    #[test]
    fn oldest_events_are_dropped_beyond_the_byte_limit() {
        let handled = Arc::default();
        let mut backlog = Backlog::new(LIMITS);
        let size = LIMITS.bytes / 4;
        for n in 0..4 {
            assert_eq!(backlog.push(delivery(n, size, &handled)), 0);
        }
        assert_eq!(backlog.push(delivery(4, size + 1, &handled)), 2);
        assert_eq!(number(&backlog.pop().unwrap()), 2);
        // A single event stays regardless of its size.
        assert_eq!(backlog.push(delivery(5, LIMITS.bytes + 1, &handled)), 2);
        assert_eq!(number(&backlog.pop().unwrap()), 5);
    }

    #[test]
    fn prefetch_exceeds_the_events_that_may_wait() {
        let others =
            super::super::thread::DELIVERY_CAPACITY + super::super::in_flight::MAX_PLANS + 1;
        for events in [1, 4096, MAX_EVENTS] {
            let limits = Limits { events, ..LIMITS };
            assert!(usize::from(limits.prefetch()) > events + others, "{events}");
        }
        assert_eq!(LIMITS.prefetch(), 5000);
    }
}

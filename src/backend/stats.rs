//! Counters of backends for the metrics. The backends' threads update them, and the reactor reads
//! them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The counters of a backend and of its event sources.
#[derive(Debug, Default)]
pub struct Stats {
    /// The connection to the message broker.
    pub broker: Link,
    /// The connection to the database server.
    pub database: Link,
    /// Statements sent to the database server, `BEGIN` and `COMMIT` included.
    pub statements: AtomicU64,
    /// Sweeps of changes in the database that have been completed.
    pub sweeps: AtomicU64,
    /// Changes that only a sweep has found: no event from the queue reported them.
    pub swept: AtomicU64,
    /// Plans sent because the receivers of an annotation have changed without an event.
    pub replanned: AtomicU64,
    received: [AtomicU64; 2],
    dropped: [AtomicU64; DROP_REASONS.len()],
}

/// A connection to another server, which is remade after a loss.
#[derive(Debug, Default)]
pub struct Link {
    is_required: bool,
    is_up: AtomicBool,
    connects: AtomicU64,
    losses: AtomicU64,
}

/// The kinds of events in h's message queue, by routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// An event on an annotation.
    Annotation,
    /// An event on a user.
    User,
}

/// The reason why an event from a message queue was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It is not a JSON object of content type `application/json`.
    Undecodable,
    /// A required member is missing or has the wrong type.
    Malformed,
    /// The annotation does not exist.
    Missing,
    /// The annotation's data in the database cannot be converted into a notification.
    Unreadable,
    /// It exceeds the size limit.
    TooLarge,
    /// Too many events waited for the database, and this was the oldest.
    Overflow,
    /// The sweep has already sent the same state of the annotation.
    Duplicate,
}

impl Stats {
    /// Creates counters for a backend that requires these servers.
    pub fn requiring(broker: bool, database: bool) -> Self {
        Stats {
            broker: Link::required(broker),
            database: Link::required(database),
            ..Stats::default()
        }
    }

    /// Returns whether the connections to all required servers are up.
    pub fn is_connected(&self) -> bool {
        [&self.broker, &self.database]
            .into_iter()
            .all(|link| link.is_up() || !link.is_required)
    }

    /// Counts a received event.
    pub fn count_received(&self, topic: Topic) {
        self.received[topic as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a dropped event.
    pub fn count_dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of received events.
    pub fn received(&self, topic: Topic) -> u64 {
        self.received[topic as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of events dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }
}

impl Link {
    fn required(is_required: bool) -> Self {
        Link {
            is_required,
            ..Link::default()
        }
    }

    /// Records that the connection is up.
    pub fn connected(&self) {
        self.is_up.store(true, Ordering::Relaxed);
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the connection was lost.
    pub fn lost(&self) {
        self.is_up.store(false, Ordering::Relaxed);
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether the connection is up.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Returns the number of connections made.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Returns the number of connections lost.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }
}

impl Topic {
    /// All topics.
    pub const ALL: [Topic; 2] = [Topic::Annotation, Topic::User];

    /// Returns the routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Annotation => "annotation",
            Topic::User => "user",
        }
    }
}

/// All reasons, in the order of their discriminants.
const DROP_REASONS: [DropReason; 7] = [
    DropReason::Undecodable,
    DropReason::Malformed,
    DropReason::Missing,
    DropReason::Unreadable,
    DropReason::TooLarge,
    DropReason::Overflow,
    DropReason::Duplicate,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_independent() {
        let stats = Stats::default();
        for (number, reason) in DROP_REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            for _ in 0..=number {
                stats.count_dropped(reason);
            }
        }
        for (number, reason) in DROP_REASONS.into_iter().enumerate() {
            assert_eq!(stats.dropped(reason), number as u64 + 1, "{reason:?}");
        }
        stats.count_received(Topic::User);
        assert_eq!(Topic::ALL.map(|topic| stats.received(topic)), [0, 1]);
    }

    #[test]
    fn link_counts_connects_and_losses() {
        let link = Link::default();
        assert!(!link.is_up());
        link.connected();
        assert!(link.is_up());
        link.lost();
        assert!(!link.is_up());
        link.connected();
        assert_eq!((link.connects(), link.losses()), (2, 1));
    }

    #[test]
    fn unneeded_links_may_be_down() {
        assert!(Stats::default().is_connected());
        let stats = Stats::requiring(true, false);
        assert!(!stats.is_connected());
        stats.broker.connected();
        assert!(stats.is_connected());
    }
}

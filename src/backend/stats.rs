//! What back ends count, for the metrics: written by their threads, read by the reactor's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is counted of a back end and of its sources of events.
#[derive(Debug, Default)]
pub struct Stats {
    /// The connection to the message broker.
    pub broker: Link,
    /// The connection to the database server.
    pub database: Link,
    /// Statements sent to the database server, `BEGIN` and `COMMIT` included.
    pub statements: AtomicU64,
    received: [AtomicU64; 2],
    dropped: [AtomicU64; FATES.len()],
}

/// A connection to another server, made again whenever it is lost.
#[derive(Debug, Default)]
pub struct Link {
    is_needed: bool,
    is_up: AtomicBool,
    connects: AtomicU64,
    losses: AtomicU64,
}

/// The kinds of events of h's message queue, by their routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Something happened to an annotation.
    Annotation,
    /// Something happened to a user.
    User,
}

/// Why an event from a message queue led to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is no JSON object of content type `application/json`.
    Undecodable,
    /// It lacks what an event must have, or has it of another type.
    Malformed,
    /// There is no such annotation.
    Missing,
    /// What the database has of the annotation cannot be made into an event.
    Unreadable,
    /// It is larger than an event may be.
    TooLarge,
    /// Too many waited for the database, and it was the oldest.
    Overflow,
}

impl Stats {
    /// For a back end that needs these servers.
    pub fn needing(broker: bool, database: bool) -> Self {
        Stats {
            broker: Link::needed(broker),
            database: Link::needed(database),
            ..Stats::default()
        }
    }

    /// Whether the connections to all servers that are needed are up.
    pub fn is_connected(&self) -> bool {
        [&self.broker, &self.database]
            .into_iter()
            .all(|link| link.is_up() || !link.is_needed)
    }

    /// An event has arrived.
    pub fn count_received(&self, topic: Topic) {
        self.received[topic as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// An event has led to nothing.
    pub fn count_dropped(&self, fate: Fate) {
        self.dropped[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many events have arrived.
    pub fn received(&self, topic: Topic) -> u64 {
        self.received[topic as usize].load(Ordering::Relaxed)
    }

    /// How many events have led to nothing for a reason.
    pub fn dropped(&self, fate: Fate) -> u64 {
        self.dropped[fate as usize].load(Ordering::Relaxed)
    }
}

impl Link {
    fn needed(is_needed: bool) -> Self {
        Link {
            is_needed,
            ..Link::default()
        }
    }

    /// It is up, now or again.
    pub fn connected(&self) {
        self.is_up.store(true, Ordering::Relaxed);
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    /// It was up, and is lost.
    pub fn lost(&self) {
        self.is_up.store(false, Ordering::Relaxed);
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is up now.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// How often it was made.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// How often it was lost.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }
}

impl Topic {
    /// Both.
    pub const ALL: [Topic; 2] = [Topic::Annotation, Topic::User];

    /// The routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Annotation => "annotation",
            Topic::User => "user",
        }
    }
}

/// All fates, in the order of their numbers.
const FATES: [Fate; 6] = [
    Fate::Undecodable,
    Fate::Malformed,
    Fate::Missing,
    Fate::Unreadable,
    Fate::TooLarge,
    Fate::Overflow,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_by_itself() {
        let stats = Stats::default();
        for (number, fate) in FATES.into_iter().enumerate() {
            assert_eq!(fate as usize, number);
            for _ in 0..=number {
                stats.count_dropped(fate);
            }
        }
        for (number, fate) in FATES.into_iter().enumerate() {
            assert_eq!(stats.dropped(fate), number as u64 + 1, "{fate:?}");
        }
        stats.count_received(Topic::User);
        assert_eq!(Topic::ALL.map(|topic| stats.received(topic)), [0, 1]);
    }

    #[test]
    fn a_link_is_up_or_lost() {
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
    fn what_is_not_needed_need_not_be_up() {
        assert!(Stats::default().is_connected());
        let stats = Stats::needing(true, false);
        assert!(!stats.is_connected());
        stats.broker.connected();
        assert!(stats.is_connected());
    }
}

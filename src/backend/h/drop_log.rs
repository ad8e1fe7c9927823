//! Dropped events: counted, and logged at a bounded rate.
//!
//! Owns: the log lines about dropped events. Every dropped event is included in one of them.

use std::sync::Arc;

use log::warn;
use tokio::time::Instant;

use super::backlog::Limits;
use crate::backend::{DropReason, Stats};
use crate::log_throttle::LogThrottle;

/// The counts that have not been logged yet.
pub(super) struct DropLog {
    stats: Arc<Stats>,
    limits: Limits,
    started: Instant,
    overflowed: LogThrottle,
    discarded: LogThrottle,
    malformed: LogThrottle,
    unreadable: LogThrottle,
}

impl DropLog {
    pub(super) fn new(stats: Arc<Stats>, limits: Limits) -> Self {
        DropLog {
            stats,
            limits,
            started: Instant::now(),
            overflowed: LogThrottle::default(),
            discarded: LogThrottle::default(),
            malformed: LogThrottle::default(),
            unreadable: LogThrottle::default(),
        }
    }

    /// Counts a dropped event.
    pub(super) fn count(&self, reason: DropReason) {
        self.stats.count_dropped(reason);
        match reason {
            // The annotation was deleted soon after its creation, which is not an error.
            DropReason::Missing => {}
            // The change was delivered.
            DropReason::Duplicate => {}
            DropReason::Malformed => self.log_malformed(self.malformed.count(1, self.now())),
            _ => self.log_unreadable(self.unreadable.count(1, self.now())),
        }
    }

    /// Counts an unconfirmed membership change that was discarded.
    pub(super) fn discard_statement(&self) {
        self.log_discarded(self.discarded.count(1, self.now()));
    }

    /// Counts events dropped because too many wait for the database.
    pub(super) fn overflow(&self, dropped: usize) {
        for _ in 0..dropped {
            self.stats.count_dropped(DropReason::Overflow);
        }
        if dropped > 0 {
            self.log_overflow(self.overflowed.count(dropped as u64, self.now()));
        }
    }

    /// Logs the counts whose period has ended. Must be called about once a second.
    pub(super) fn flush(&self) {
        let now = self.now();
        self.log_overflow(self.overflowed.poll(now));
        self.log_discarded(self.discarded.poll(now));
        self.log_malformed(self.malformed.poll(now));
        self.log_unreadable(self.unreadable.poll(now));
    }

    /// Logs the overflow so far, since the database is available again.
    pub(super) fn finish_overflow(&self) {
        self.log_overflow(self.overflowed.finish());
    }

    fn log_overflow(&self, due: Option<u64>) {
        if let Some(count) = due {
            let Limits { events, bytes } = self.limits;
            warn!(
                "dropped the oldest events that waited for the database: {count} since the last \
                 such line; limits.backlog_events={events} limits.backlog_total={bytes}B"
            );
        }
    }

    fn log_discarded(&self, due: Option<u64>) {
        if let Some(count) = due {
            warn!(
                "discarded unconfirmed membership changes beyond the limit: {count} since the last \
                 such line; they take effect when the database has them"
            );
        }
    }

    fn log_malformed(&self, due: Option<u64>) {
        if let Some(count) = due {
            warn!(
                "dropped malformed events from the queue: {count} since the last such line; a \
                 required member is missing or has the wrong type"
            );
        }
    }

    fn log_unreadable(&self, due: Option<u64>) {
        if let Some(count) = due {
            warn!(
                "dropped events because the database cannot read their annotation or user: {count} \
                 since the last such line"
            );
        }
    }

    /// Milliseconds since the creation.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for DropLog {
    fn drop(&mut self) {
        self.log_overflow(self.overflowed.finish());
        self.log_discarded(self.discarded.finish());
        self.log_malformed(self.malformed.finish());
        self.log_unreadable(self.unreadable.finish());
    }
}

//! The times of sweeps.
//!
//! Owns: when the next one is due. Must not know: the work of a sweep. Time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The schedule of sweeps.
pub(in crate::backend::h) struct Schedule {
    interval: Duration,
    grace: Duration,
    next: Instant,
    /// Events may have been lost since the last sweep.
    is_urgent: bool,
    /// The number of connections to the broker and the database when it was last observed.
    connects: u64,
}

impl Schedule {
    /// Creates a schedule whose first sweep is due one interval after `now`.
    pub(in crate::backend::h) fn new(interval: Duration, grace: Duration, now: Instant) -> Self {
        Schedule {
            interval,
            grace,
            next: now + interval,
            is_urgent: false,
            connects: 0,
        }
    }

    /// Requests a sweep at once: events may have been lost.
    pub(in crate::backend::h) fn hurry(&mut self, now: Instant) {
        self.is_urgent = true;
        self.next = self.next.min(now);
    }

    /// Requests a sweep at once if a connection has been remade. `connects` counts all of them.
    pub(in crate::backend::h) fn observe(&mut self, connects: u64, now: Instant) {
        if std::mem::replace(&mut self.connects, connects) != connects {
            self.hurry(now);
        }
    }

    /// Returns whether a sweep is due.
    pub(in crate::backend::h) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Returns whether a sweep has been due for so long that it must not wait for a pause between
    /// events any more.
    pub(in crate::backend::h) fn is_overdue(&self, now: Instant) -> bool {
        now >= self.next + self.interval
    }

    /// Returns the time of the next sweep.
    pub(in crate::backend::h) fn next(&self) -> Instant {
        self.next
    }

    /// Records that a sweep begins. Recent changes are left to the next one, so one that follows a
    /// loss of events is repeated soon.
    pub(in crate::backend::h) fn begin(&mut self, now: Instant) {
        let pause = match std::mem::take(&mut self.is_urgent) {
            true => self.grace.saturating_add(MARGIN).min(self.interval),
            false => self.interval,
        };
        self.next = now + pause;
    }

    /// Records that a sweep was abandoned at a time that is not an outage.
    pub(in crate::backend::h) fn abandon(&mut self, now: Instant) {
        self.next = now + self.interval;
    }
}

/// The pause after the grace period, before a sweep is repeated.
const MARGIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(5);

    #[test]
    fn sweeps_are_due_at_the_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, GRACE, start);
        assert!(!schedule.is_due(start + Duration::from_millis(59_999)));
        let first = start + INTERVAL;
        assert!(schedule.is_due(first) && !schedule.is_overdue(first));
        assert!(schedule.is_overdue(first + INTERVAL));
        schedule.begin(first);
        assert_eq!(schedule.next(), first + INTERVAL);
    }

    #[test]
    fn sweep_after_a_loss_is_due_at_once_and_repeated_after_the_grace_period() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, GRACE, start);
        schedule.observe(2, start);
        schedule.begin(start);
        schedule.begin(start);
        schedule.observe(2, start);
        assert!(!schedule.is_due(start), "connections were not remade");
        schedule.observe(3, start);
        assert!(schedule.is_due(start));
        schedule.begin(start);
        assert_eq!(schedule.next(), start + GRACE + MARGIN);
        schedule.begin(schedule.next());
        assert_eq!(schedule.next(), start + GRACE + MARGIN + INTERVAL);
    }
}

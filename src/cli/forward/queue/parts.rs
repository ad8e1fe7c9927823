//! The parts of the queue that change single events: acknowledgements, failures, and removals.

use std::time::{Duration, Instant};

use super::{LostEvent, Queue, QueueLimits};
use crate::backoff::Backoff;
use crate::model::UnixMillis;

/// An event that has failed and is not acknowledged.
pub(super) struct FailingEvent {
    pub version: String,
    pub first_failed: UnixMillis,
    /// The time since the first failure, and when it was determined. Within a process, a change of
    /// the wall clock does not affect it. `None` if the first failure was in another process.
    age: Option<(Duration, Instant)>,
    pub attempts: u32,
    backoff: Backoff,
    pub due: Instant,
    /// The maximum size of a batch with this event.
    pub batch: usize,
    /// It failed while the receiver did not work at all.
    in_outage: bool,
}

impl FailingEvent {
    pub(super) fn new(
        version: String,
        first_failed: UnixMillis,
        now: Instant,
        limits: &QueueLimits,
    ) -> Self {
        FailingEvent {
            version,
            first_failed,
            age: None,
            attempts: 0,
            backoff: Backoff::new(limits.retry_delay, MAX_DELAY),
            due: now,
            batch: limits.batch,
            in_outage: false,
        }
    }

    /// Returns the time since the first failure.
    fn age(&mut self, failure: &Failure) -> Duration {
        let age = match self.age {
            Some((age, at)) => age + failure.now.saturating_duration_since(at),
            None => Duration::from_millis(failure.wall_clock.saturating_sub(self.first_failed)),
        };
        self.age = Some((age, failure.now));
        age
    }
}

/// A failed request.
pub(super) struct Failure {
    pub now: Instant,
    pub wall_clock: UnixMillis,
    pub random: u64,
    /// The delay that the receiver requests.
    pub after: Option<Duration>,
    /// The maximum size of the next batch.
    pub batch: usize,
    pub in_outage: bool,
}

impl Queue {
    /// Chooses the events of the next request, by their due times and sequences. The second value
    /// is false if the batch should wait for more events.
    pub(super) fn choose(&self, now: Instant) -> (Vec<(Instant, u64)>, bool) {
        let mut most = self.limits.batch;
        let mut chosen: Vec<(Instant, u64)> = Vec::new();
        let mut has_failed = false;
        for &(due, sequence) in self.ready.range(..=(now, u64::MAX)) {
            let failing = self.order.get(&sequence);
            let failing = failing.and_then(|id| self.failing.get(id));
            let own = failing.map_or(self.limits.batch, |failing| failing.batch);
            if chosen.len() >= most.min(own) {
                break;
            }
            most = most.min(own);
            has_failed |= failing.is_some();
            chosen.push((due, sequence));
        }
        let oldest = chosen.first().map(|&(due, _)| due + self.limits.batch_wait);
        let is_complete =
            chosen.len() >= most || has_failed || oldest.is_none_or(|oldest| oldest <= now);
        (chosen, is_complete)
    }

    pub(super) fn sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    pub(super) fn advance(&mut self, cursor: String) {
        // The events behind an overflow are received again.
        if !self.is_overflowing {
            self.read = Some(cursor);
        }
    }

    pub(super) fn has_place(&self) -> bool {
        self.pending.len() < self.limits.pending && self.known() < self.limits.window
    }

    /// Returns the number of known events.
    pub(super) fn known(&self) -> usize {
        self.pending.len() + self.acknowledged.len() + self.carried.len()
    }

    pub(super) fn is_acknowledged(&self, id: &str, version: &str) -> bool {
        let known = self.acknowledged.get(id).map(|(version, _)| version);
        let carried = self.carried.get(id);
        known == Some(&version.to_owned()) || carried.is_some_and(|carried| carried == version)
    }

    pub(super) fn acknowledge(&mut self, id: String, version: String, sequence: u64) {
        if let Some((_, old)) = self.acknowledged.insert(id.clone(), (version, sequence)) {
            self.acknowledged_order.remove(&old);
        }
        self.acknowledged_order.insert(sequence, id);
    }

    pub(super) fn forget_acknowledged(&mut self, id: &str) {
        self.carried.remove(id);
        if let Some((_, sequence)) = self.acknowledged.remove(id) {
            self.acknowledged_order.remove(&sequence);
        }
    }

    /// Forgets acknowledged events before the position, which the stream does not repeat.
    pub(super) fn forget_before(&mut self, sequence: u64) {
        while let Some(entry) = self.acknowledged_order.first_entry() {
            if *entry.key() > sequence {
                return;
            }
            let id = entry.remove();
            self.acknowledged.remove(&id);
        }
    }

    /// Removes a pending event. Returns false if there is none.
    pub(super) fn remove_pending(&mut self, id: &str) -> bool {
        let Some(pending) = self.pending.remove(id) else {
            return false;
        };
        self.pending_bytes -= pending.event.line.len();
        self.order.remove(&pending.sequence);
        self.ready.remove(&(pending.due, pending.sequence));
        true
    }

    /// Records that an event needs no further attempts.
    pub(super) fn resolve(&mut self, id: &str, version: &str, now: Instant) {
        match self.pending.get(id) {
            Some(pending) if pending.event.version == version => {
                let sequence = pending.sequence;
                self.remove_pending(id);
                self.acknowledge(id.to_owned(), version.to_owned(), sequence);
            }
            // A newer event has arrived meanwhile.
            Some(_) => {
                self.set_due(id, now);
                return;
            }
            // The connection has ended, and the event may be received again.
            None => {
                self.carried.insert(id.to_owned(), version.to_owned());
            }
        }
        let acknowledged = (id.to_owned(), version.to_owned());
        self.changes.acknowledged.push(acknowledged);
    }

    fn set_due(&mut self, id: &str, due: Instant) {
        if let Some(pending) = self.pending.get_mut(id) {
            self.ready.remove(&(pending.due, pending.sequence));
            pending.due = due;
            if !self.in_progress.contains_key(id) {
                self.ready.insert((due, pending.sequence));
            }
        }
    }

    /// Records a failure of one event. Returns it if it is given up.
    pub(super) fn on_failed(
        &mut self,
        id: &str,
        version: &str,
        failure: &Failure,
    ) -> Option<LostEvent> {
        let pending = self.pending.get(id);
        if pending.is_some_and(|pending| pending.event.version != version) {
            let pause = failure.after.unwrap_or(self.limits.retry_delay);
            self.set_due(id, failure.now + pause);
            return None;
        }
        let is_first = self
            .failing
            .get(id)
            .is_none_or(|event| event.version != version);
        if is_first {
            let (now, wall_clock) = (failure.now, failure.wall_clock);
            let event = FailingEvent::new(version.to_owned(), wall_clock, now, &self.limits);
            self.failing.insert(id.to_owned(), event);
            let failing = (id.to_owned(), version.to_owned(), wall_clock);
            self.changes.failing.push(failing);
        }
        let event = self.failing.get_mut(id)?;
        event.attempts = event.attempts.saturating_add(1);
        event.batch = failure.batch;
        event.in_outage = failure.in_outage;
        let delay = event.backoff.next(Duration::ZERO, failure.random);
        let due = failure.now + delay.max(failure.after.unwrap_or_default());
        event.due = due;
        let age = event.age(failure);
        let attempts = event.attempts;
        if age < self.limits.give_up_after || attempts < 2 {
            self.set_due(id, due);
            return None;
        }
        let event = self.pending.get(id).map(|pending| pending.event.clone())?;
        self.failing.remove(id);
        self.resolve(id, version, failure.now);
        Some(LostEvent { event, attempts })
    }

    /// Called when the receiver works again: events that failed in the meantime are due.
    pub(super) fn end_outage(&mut self, now: Instant) {
        let retry_delay = self.limits.retry_delay;
        let failed = self.failing.iter_mut();
        let failed = failed.filter(|(_, event)| event.in_outage);
        let failed = failed.map(|(id, event)| {
            event.in_outage = false;
            event.due = now;
            event.backoff = Backoff::new(retry_delay, MAX_DELAY);
            id.clone()
        });
        for id in failed.collect::<Vec<_>>() {
            self.set_due(&id, now);
        }
    }
}

/// The maximum delay between attempts for one event.
const MAX_DELAY: Duration = Duration::from_secs(6 * 3600);

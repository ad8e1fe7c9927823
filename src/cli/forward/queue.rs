//! The events to be sent: their order, their retries, and the position up to which everything has
//! been acknowledged.
//!
//! Owns the guarantees of the command: of one annotation, requests are made one after the other, in
//! order, and with the newest state; if an annotation becomes unreadable, the retraction replaces its
//! pending event; the position never passes an event that is not acknowledged. Must not know a
//! clock, a random source, sockets, or files: time and randomness are arguments.
//!
//! Events are received in the order of the stream and acknowledged in any order. The *position* is
//! the cursor before the oldest event that is not acknowledged. After a connection has ended, the
//! readability of pending events is unknown. They are dropped, and the next connection resumes at
//! the position: the server sends those that are still readable again, and the queue recognizes
//! those that were acknowledged. Pending deletions remain, since the server does not repeat those
//! that a change of memberships has caused.

mod parts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use self::parts::{FailingEvent, Failure};
use super::circuit::{Circuit, FailureScope};
use super::event::{Action, ForwardEvent};
use crate::model::UnixMillis;

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// The maximum number of events in one request.
    pub batch: usize,
    /// How long an incomplete batch waits for more events.
    pub batch_wait: Duration,
    /// The maximum number of simultaneous requests.
    pub parallel: usize,
    /// The first delay after a failure is between this one and twice as long.
    pub retry_delay: Duration,
    /// An event that still fails at this time after its first failure is lost.
    pub give_up_after: Duration,
    /// The maximum number of pending events.
    pub pending: usize,
    /// The maximum size of all pending events, in bytes.
    pub pending_bytes: usize,
    /// The maximum number of annotations with known events, pending or acknowledged.
    pub window: usize,
}

/// The result of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Delivered,
    Failed {
        scope: FailureScope,
        /// The delay that the receiver requests.
        after: Option<Duration>,
    },
}

/// The treatment of a received event.
#[derive(Debug, PartialEq)]
pub(super) enum Arrival {
    Queued,
    /// Another pending event of the same annotation has been replaced.
    Replaced,
    /// It was acknowledged before.
    Known,
    /// There is no room: the event is received again later.
    Overflow,
}

/// Changes that must survive a crash.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// The new position, if it has moved.
    pub position: Option<String>,
    /// Acknowledged events behind the position: annotation ids and versions.
    pub acknowledged: Vec<(String, String)>,
    /// Events that failed for the first time, and when.
    pub failing: Vec<(String, String, UnixMillis)>,
}

/// An event that was given up after many attempts.
pub(super) struct LostEvent {
    pub event: ForwardEvent,
    pub attempts: u32,
}

struct PendingEvent {
    event: ForwardEvent,
    /// The position before the event.
    before: Option<String>,
    /// The order in the stream.
    sequence: u64,
    due: Instant,
}

/// The queue.
pub(super) struct Queue {
    limits: QueueLimits,
    circuit: Circuit,
    /// The cursor up to which the stream has been read.
    read: Option<String>,
    stored: Option<String>,
    pending: HashMap<String, PendingEvent>,
    pending_bytes: usize,
    /// The pending events in the order of the stream.
    order: BTreeMap<u64, String>,
    /// The pending events without a request in progress, by their due time.
    ready: BTreeSet<(Instant, u64)>,
    /// Acknowledged events behind the position.
    acknowledged: HashMap<String, (String, u64)>,
    acknowledged_order: BTreeMap<u64, String>,
    /// Acknowledged events of earlier connections, which the stream may repeat.
    carried: HashMap<String, String>,
    /// Annotations with a request in progress, and the versions of the events in it.
    in_progress: HashMap<String, String>,
    requests: usize,
    failing: HashMap<String, FailingEvent>,
    next_sequence: u64,
    is_overflowing: bool,
    changes: Changes,
}

impl Queue {
    /// Creates a queue with the stored position and events.
    pub(super) fn new(limits: QueueLimits, stored: Changes, now: Instant) -> Self {
        let failing = stored.failing.into_iter().map(|(id, version, since)| {
            let event = FailingEvent::new(version, since, now, &limits);
            (id, event)
        });
        Queue {
            limits,
            circuit: Circuit::new(limits.retry_delay),
            read: stored.position.clone(),
            stored: stored.position,
            pending: HashMap::new(),
            pending_bytes: 0,
            order: BTreeMap::new(),
            ready: BTreeSet::new(),
            acknowledged: HashMap::new(),
            acknowledged_order: BTreeMap::new(),
            carried: stored.acknowledged.into_iter().collect(),
            in_progress: HashMap::new(),
            requests: 0,
            failing: failing.collect(),
            next_sequence: 0,
            is_overflowing: false,
            changes: Changes::default(),
        }
    }

    /// Adds an event of the stream.
    pub(super) fn on_event(&mut self, event: ForwardEvent, now: Instant) -> Arrival {
        let (id, cursor) = (event.id.clone(), event.cursor.clone());
        if self.is_acknowledged(&id, &event.version) {
            let sequence = self.sequence();
            self.carried.remove(&id);
            self.acknowledge(id, event.version, sequence);
            self.advance(cursor);
            return Arrival::Known;
        }
        let replaced_due = self.pending.get(&id).map(|pending| pending.due);
        let is_replacing = self.remove_pending(&id);
        // A replaced event needs no place of its own. Its newest state is behind the position to
        // which an overflow returns.
        let has_place = is_replacing || !self.is_overflowing && self.has_place();
        if !has_place || self.pending_bytes + event.line.len() > self.limits.pending_bytes {
            self.is_overflowing = true;
            return Arrival::Overflow;
        }
        self.forget_acknowledged(&id);
        let due = match self.failing.get(&id) {
            Some(failing) if failing.version == event.version => failing.due.max(now),
            // The state that failed is not sent again. The newer one may succeed, and is sent sooner, but
            // an annotation that keeps changing must not flood the receiver.
            Some(failing) => {
                let due = failing.due.min(now + self.limits.retry_delay).max(now);
                self.failing.remove(&id);
                due
            }
            None => replaced_due.map_or(now, |due| due.max(now)),
        };
        let sequence = self.sequence();
        self.pending_bytes += event.line.len();
        if !self.in_progress.contains_key(&id) {
            self.ready.insert((due, sequence));
        }
        self.order.insert(sequence, id.clone());
        let before = self.read.clone();
        let pending = PendingEvent {
            event,
            before,
            sequence,
            due,
        };
        self.pending.insert(id, pending);
        self.advance(cursor);
        match is_replacing {
            true => Arrival::Replaced,
            false => Arrival::Queued,
        }
    }

    /// Records that the stream has been read up to a cursor.
    pub(super) fn on_mark(&mut self, cursor: &str) {
        self.advance(cursor.to_owned());
    }

    /// Drops the pending events, except deletions: without a connection, their readability is unknown.
    pub(super) fn disconnected(&mut self) {
        let position = self.position();
        if self.is_overflowing && self.pending.is_empty() {
            // Everything up to the position is acknowledged. Of the events behind it, some may be
            // sent twice; otherwise, there might be no room for others.
            self.carried.clear();
            self.acknowledged.clear();
        }
        self.pending
            .retain(|_, pending| pending.event.action == Action::Delete);
        self.resume_at(position);
        let lines = self
            .pending
            .values()
            .map(|pending| pending.event.line.len());
        self.pending_bytes = lines.sum();
        self.order.retain(|_, id| self.pending.contains_key(id));
        self.ready
            .retain(|(_, sequence)| self.order.contains_key(sequence));
        self.acknowledged_order.clear();
        let acknowledged = self.acknowledged.drain();
        self.carried
            .extend(acknowledged.map(|(id, (version, _))| (id, version)));
        self.is_overflowing = false;
    }

    /// Moves the position to the oldest one that the server still has, after a gap.
    pub(super) fn restart_at(&mut self, cursor: &str) {
        self.disconnected();
        self.resume_at(Some(cursor.to_owned()));
    }

    /// Sets the position from which the stream is read again, before the events that are still pending.
    fn resume_at(&mut self, position: Option<String>) {
        for pending in self.pending.values_mut() {
            pending.before.clone_from(&position);
        }
        self.read = position;
    }

    /// Forgets events of earlier connections, if the stream cannot repeat any of them. Called some
    /// time after a connection was made.
    pub(super) fn forget_earlier(&mut self) {
        if self.pending.is_empty() && self.requests == 0 && !self.is_overflowing {
            self.carried.clear();
            self.failing.clear();
        }
    }

    /// Starts the next request. Returns its events, none if no request may be made now.
    pub(super) fn next_request(&mut self, now: Instant) -> Vec<ForwardEvent> {
        if self.requests >= self.limits.parallel || !self.circuit.may_send(now, self.requests) {
            return Vec::new();
        }
        let (chosen, is_complete) = self.choose(now);
        if chosen.is_empty() || !is_complete {
            return Vec::new();
        }
        let mut events = Vec::with_capacity(chosen.len());
        for (due, sequence) in chosen {
            self.ready.remove(&(due, sequence));
            let id = self.order.get(&sequence);
            if let Some(pending) = id.and_then(|id| self.pending.get(id)) {
                let (id, version) = (&pending.event.id, &pending.event.version);
                self.in_progress.insert(id.clone(), version.clone());
                events.push(pending.event.clone());
            }
        }
        self.requests += 1;
        events
    }

    /// Returns the time from which a request may be made. `None` if that depends on other events.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let open_until = self.circuit.open_until();
        if self.requests >= self.limits.parallel || open_until.is_some() && self.requests > 0 {
            return None;
        }
        let &(due, _) = self.ready.first()?;
        let due = match self.choose(now) {
            (chosen, false) if !chosen.is_empty() => due + self.limits.batch_wait,
            _ => due,
        };
        Some(open_until.map_or(due, |until| due.max(until)))
    }

    /// Records the result of a request for these annotation ids and versions. Returns the events
    /// that are given up.
    pub(super) fn on_result(
        &mut self,
        events: &[(String, String)],
        outcome: Outcome,
        (now, wall_clock): (Instant, UnixMillis),
        random: u64,
    ) -> Vec<LostEvent> {
        self.requests = self.requests.saturating_sub(1);
        for (id, _) in events {
            self.in_progress.remove(id);
        }
        match outcome {
            Outcome::Delivered => {
                if self.circuit.on_success() {
                    self.end_outage(now);
                }
                for (id, version) in events {
                    self.failing.remove(id);
                    self.resolve(id, version, now);
                }
                Vec::new()
            }
            Outcome::Failed { scope, after } => {
                let first = events.first().map_or("", |(id, _)| id);
                let in_outage = self.circuit.on_failure(scope, first, after, now, random);
                // Events of a batch are sent in smaller ones, to find those that fail.
                let batch = match scope {
                    FailureScope::Event => (events.len() / 2).max(1),
                    FailureScope::Receiver => self.limits.batch,
                };
                let failure = Failure {
                    now,
                    wall_clock,
                    random,
                    after,
                    batch,
                    in_outage,
                };
                let lost = events
                    .iter()
                    .filter_map(|(id, version)| self.on_failed(id, version, &failure));
                lost.collect()
            }
        }
    }

    /// Records that a request has ended, and that no others will follow.
    pub(super) fn on_gone(&mut self, events: &[(String, String)]) {
        self.requests = self.requests.saturating_sub(1);
        for (id, _) in events {
            self.in_progress.remove(id);
        }
    }

    /// Returns the position: everything up to it is acknowledged.
    pub(super) fn position(&self) -> Option<String> {
        let oldest = self.order.first_key_value().map(|(_, id)| id);
        match oldest.and_then(|id| self.pending.get(id)) {
            Some(pending) => pending.before.clone(),
            None => self.read.clone(),
        }
    }

    /// Returns the changes since the last call that must be stored, if there are any.
    pub(super) fn take_changes(&mut self) -> Option<Changes> {
        let position = self.position();
        let mut changes = std::mem::take(&mut self.changes);
        let oldest = self.order.first_key_value().map(|(&sequence, _)| sequence);
        self.forget_before(oldest.unwrap_or(self.next_sequence));
        changes
            .acknowledged
            .retain(|(id, version)| self.is_acknowledged(id, version));
        if position != self.stored {
            changes.position.clone_from(&position);
            self.stored = position;
        }
        (changes != Changes::default()).then_some(changes)
    }

    /// Returns everything that must be stored.
    pub(super) fn snapshot(&self) -> Changes {
        let acknowledged = self.acknowledged.iter();
        let acknowledged = acknowledged.map(|(id, (version, _))| (id.clone(), version.clone()));
        let carried = self.carried.iter();
        let carried = carried.map(|(id, version)| (id.clone(), version.clone()));
        let failing = self.failing.iter();
        Changes {
            position: self.position(),
            acknowledged: acknowledged.chain(carried).collect(),
            failing: failing
                .map(|(id, event)| (id.clone(), event.version.clone(), event.first_failed))
                .collect(),
        }
    }

    /// Returns whether another connection is needed to receive the events for which there was no
    /// room.
    pub(super) fn wants_restart(&self) -> bool {
        let has_room = self.pending.len() <= self.limits.pending / 2
            && self.pending_bytes <= self.limits.pending_bytes / 2
            && self.known() <= self.limits.window / 4 * 3;
        self.is_overflowing && (has_room || self.pending.is_empty())
    }

    pub(super) fn is_overflowing(&self) -> bool {
        self.is_overflowing
    }

    /// Returns the number of pending events, and when the oldest was received.
    pub(super) fn pending(&self) -> (usize, Option<UnixMillis>) {
        let oldest = self.order.first_key_value();
        let oldest = oldest.and_then(|(_, id)| self.pending.get(id));
        let received = oldest.map(|pending| pending.event.received);
        (self.pending.len(), received)
    }

    /// Returns the number of requests in progress.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Returns the number of events that have failed and are not acknowledged.
    pub(super) fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Returns whether the receiver as a whole does not work.
    pub(super) fn is_circuit_open(&self) -> bool {
        self.circuit.open_until().is_some()
    }
}

#[cfg(test)]
mod tests;

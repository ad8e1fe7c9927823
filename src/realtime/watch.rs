//! The outcomes of recent events for single connections.
//!
//! Owns: the recorded outcomes of the connections that have requested tracing, and of those that an
//! operator has requested an explanation of; and the approximate times at which connections were
//! opened. All of it is bounded. Must not know: the presentation of outcomes, or the messages that
//! result from them.

use std::collections::{HashMap, VecDeque};

use crate::model::{Decision, DenyReason, EventKind, Plan, Subject, UnixMillis};
use crate::net::ConnKey;

use super::Realtime;
use super::outgoing::Form;

/// The recorded connections.
#[derive(Default)]
pub(super) struct Watches {
    connections: HashMap<ConnKey, Watch>,
    /// The number of the next recording.
    next: u64,
    opened: OpenTimes,
}

/// A recorded connection.
pub(super) struct Watch {
    /// Recordings are numbered in the order in which they began.
    number: u64,
    is_traced: bool,
    /// When the recording began.
    pub since: UnixMillis,
    /// The newest outcomes, oldest first.
    pub outcomes: VecDeque<Recorded>,
    /// Limits debug messages.
    pub budget: Budget,
}

/// The outcome of an event for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub at: UnixMillis,
    /// The position of the event. 0 if it has none.
    pub position: u64,
    pub kind: EventKind,
    /// The beginning of the id of the annotation, or of the userid.
    pub subject: Box<str>,
    pub outcome: Outcome,
}

/// What happened to an event for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Sent as this variant.
    Sent(usize),
    /// The client caused the event itself.
    Own,
    /// Withheld for this reason.
    Denied(DenyReason),
    /// The filter does not select the action.
    Suppressed,
    /// A replay in progress sends it.
    Deferred,
    /// Sent by a replay, or after a change of rights.
    Replayed,
    /// Sent as a deletion, because the annotation became unreadable for the receiver.
    Retracted,
}

/// A token bucket for debug messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// Thousandths of messages taken, as of `refilled_at`.
    used: u64,
    refilled_at: u64,
    /// The number of messages suppressed since the last one that was sent.
    pub suppressed: u64,
}

/// The times at which connections were opened, as samples of their generations.
#[derive(Default)]
struct OpenTimes {
    /// In the order of the generations.
    samples: VecDeque<(u32, UnixMillis)>,
}

impl From<Decision> for Outcome {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Send(variant) => Outcome::Sent(variant),
            Decision::Deny(reason) => Outcome::Denied(reason),
        }
    }
}

impl From<Form> for Outcome {
    fn from(form: Form) -> Self {
        match form {
            Form::Variant(_) | Form::Appearance(_) => Outcome::Replayed,
            Form::Retraction => Outcome::Retracted,
        }
    }
}

impl Outcome {
    /// Returns the name in explanations.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Outcome::Sent(_) => "sent",
            Outcome::Own => "own_event",
            Outcome::Denied(_) => "withheld",
            Outcome::Suppressed => "action",
            Outcome::Deferred => "deferred_to_replay",
            Outcome::Replayed => "replayed",
            Outcome::Retracted => "retracted",
        }
    }
}

impl Watches {
    /// Returns the number of recorded connections.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Begins to record a connection. Returns false if too many are recorded. A request of an operator
    /// replaces the oldest recording instead.
    pub(super) fn insert(&mut self, key: ConnKey, is_traced: bool, now: UnixMillis) -> bool {
        if self.connections.contains_key(&key) {
            return true;
        }
        if self.connections.len() >= MAX_WATCHED {
            if is_traced {
                return false;
            }
            let oldest = self
                .connections
                .iter()
                .min_by_key(|(_, watch)| watch.number);
            if let Some((&oldest, _)) = oldest {
                self.remove(oldest);
            }
        }
        let watch = Watch {
            number: self.next,
            is_traced,
            since: now,
            outcomes: VecDeque::new(),
            budget: Budget::default(),
        };
        self.next += 1;
        self.connections.insert(key, watch);
        true
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, key: ConnKey) {
        self.connections.remove(&key);
    }

    /// Returns a recorded connection.
    pub(super) fn get(&self, key: ConnKey) -> Option<&Watch> {
        self.connections.get(&key)
    }

    /// Returns a recorded connection that has requested tracing.
    pub(super) fn traced_mut(&mut self, key: ConnKey) -> Option<&mut Watch> {
        let watch = self.connections.get_mut(&key);
        watch.filter(|watch| watch.is_traced)
    }

    /// Records the outcome of an event, if the connection is recorded.
    pub(super) fn record(&mut self, key: ConnKey, plan: &Plan, outcome: Outcome, at: UnixMillis) {
        let Some(watch) = self.connections.get_mut(&key) else {
            return;
        };
        if watch.outcomes.len() >= MAX_OUTCOMES {
            watch.outcomes.pop_front();
        }
        watch.outcomes.push_back(Recorded {
            at,
            position: plan.stamp.position,
            kind: plan.kind,
            subject: beginning(subject_of(plan)).into(),
            outcome,
        });
    }

    /// Records that a connection has opened.
    pub(super) fn record_open(&mut self, key: ConnKey, now: UnixMillis) {
        self.opened.record(key.generation(), now);
    }

    /// Returns the approximate time at which an open connection was opened.
    pub(super) fn opened_at(&self, key: ConnKey) -> Option<UnixMillis> {
        self.opened.at(key.generation())
    }
}

impl Realtime {
    /// Records a message to a connection, if it is recorded.
    #[inline]
    pub(super) fn record_form(&mut self, key: ConnKey, plan: &Plan, form: Form, at: UnixMillis) {
        if self.watches.len() > 0 {
            self.watches.record(key, plan, Outcome::from(form), at);
        }
    }
}

impl Budget {
    /// Takes one message. Returns false if the budget is used up.
    pub(super) fn take(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.refilled_at);
        self.refilled_at = now;
        self.used = self.used.saturating_sub(elapsed.saturating_mul(RATE));
        let has_message = self.used + 1000 <= BURST * 1000;
        self.used += if has_message { 1000 } else { 0 };
        has_message
    }
}

impl OpenTimes {
    fn record(&mut self, generation: u32, now: UnixMillis) {
        match self.samples.back_mut() {
            // Of the connections of one period, the time of the first one stands for all.
            Some((last, at)) if now < at.saturating_add(SAMPLE_PERIOD) => {
                *last = generation.max(*last);
            }
            _ => self.samples.push_back((generation, now)),
        }
        if self.samples.len() > MAX_SAMPLES {
            // Old connections are known less exactly than new ones.
            let mut is_kept = false;
            self.samples.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    fn at(&self, generation: u32) -> Option<UnixMillis> {
        let end = self.samples.partition_point(|(last, _)| *last < generation);
        self.samples.get(end).map(|(_, at)| *at)
    }
}

/// Returns the id of the annotation, or the userid.
pub(super) fn subject_of(plan: &Plan) -> &str {
    match &plan.subject {
        Subject::Annotation(id) | Subject::User(id) => id,
    }
}

/// Returns the beginning of a publisher's text, which may be long.
pub(super) fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_SUBJECT_CHARS);
    end.map_or(text, |(end, _)| &text[..end])
}

/// The maximum number of recorded connections.
pub(super) const MAX_WATCHED: usize = 256;
/// The number of outcomes that are kept for a connection.
pub(super) const MAX_OUTCOMES: usize = 100;
/// The number of characters of an id that are kept.
const MAX_SUBJECT_CHARS: usize = 64;
/// The maximum burst of debug messages to a connection.
const BURST: u64 = 100;
/// The sustained rate of debug messages to a connection, per second.
const RATE: u64 = 10;
/// The minimum interval between samples of [`OpenTimes`], in milliseconds.
const SAMPLE_PERIOD: u64 = 1000;
/// The maximum number of samples.
const MAX_SAMPLES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Candidates, Cause, Stamp};
    use crate::realtime::testing::key;

    fn plan(id: &str) -> Plan {
        Plan {
            kind: EventKind::Create,
            subject: Subject::Annotation(id.into()),
            stamp: Stamp::default(),
            cause: Cause::Event,
            candidates: Candidates::Terms(Vec::new()),
            exclude_client: None,
            rules: Vec::new(),
            variants: Vec::new(),
        }
    }

    // M16
    #[test]
    fn recorded_connections_and_outcomes_are_bounded() {
        let mut watches = Watches::default();
        for index in 0..MAX_WATCHED as u32 {
            assert!(watches.insert(key(index), true, 7));
        }
        assert!(!watches.insert(key(1000), true, 7), "a client is refused");
        assert!(watches.insert(key(5), true, 7), "it is recorded already");
        assert!(watches.insert(key(1000), false, 7), "an operator is not");
        assert!(watches.get(key(0)).is_none(), "the oldest is replaced");
        assert_eq!(watches.len(), MAX_WATCHED);
        for number in 0..250 {
            let id = format!("{number}{}", "é".repeat(1000));
            watches.record(key(1000), &plan(&id), Outcome::Sent(0), number);
        }
        let outcomes = &watches.get(key(1000)).unwrap().outcomes;
        assert_eq!((outcomes.len(), outcomes[0].at), (MAX_OUTCOMES, 150));
        assert!(outcomes.iter().all(|one| one.subject.len() <= 128));
        for index in 0..2000 {
            watches.remove(key(index));
        }
        assert_eq!(watches.len(), 0);
    }

    #[test]
    fn opening_times_of_new_connections_are_more_exact_than_of_old_ones() {
        let mut times = OpenTimes::default();
        for generation in 1..100_000 {
            times.record(generation, u64::from(generation) * 500);
        }
        assert!(times.samples.len() <= MAX_SAMPLES);
        for (generation, tolerance) in [(99_999, 1_000), (99_000, 4_000), (1, 100_000)] {
            let at = times.at(generation).unwrap();
            let exact = u64::from(generation) * 500;
            assert!(at.abs_diff(exact) <= tolerance, "{generation}: {at}");
        }
        assert_eq!(times.at(200_000), None);
    }

    // M16
    #[test]
    fn debug_messages_to_a_connection_are_rate_limited() {
        let mut budget = Budget::default();
        let mut count = |now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(count(5_000), 100);
        assert_eq!(count(5_099), 0);
        assert_eq!(count(6_000), 10);
        assert_eq!(count(1_000_000), 100);
    }
}

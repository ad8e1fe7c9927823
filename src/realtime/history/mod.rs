//! The history: the newest plan on each subject, from which clients resume.
//!
//! Owns: the plans and the positions of recent events, their postings by term, and the limits on
//! both. Must not know: connections. The reactor appends a plan when it is delivered, so that the
//! history, the replays from it, and live delivery have one order.
//!
//! The history is compacted: a plan replaces the previous one on its subject. It is bounded by bytes
//! and age. When an entry is evicted, the floor rises to its position: clients that resume from a
//! position below the floor have missed events that are no longer known.

mod cursor;
mod past;
mod postings;
mod timeline;
mod times;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::model::{Cause, EpochScope, HistoryStart, Plan};

pub use cursor::{Cursor, ReplayCursor};
pub(super) use past::{Past, StateAt};

use super::HistorySettings;
use super::digest::{Digest, DigestHasher};
use super::interest::Interest;
use postings::Postings;
use timeline::{Reached, Timeline};
use times::Times;

/// The history of recent events.
pub(super) struct History {
    limits: HistorySettings,
    phase: Phase,
    start: HistoryStart,
    /// The newest position.
    head: u64,
    /// The time of the newest entry, in UNIX milliseconds. Entries have increasing times, even if the
    /// clock was set back.
    last_time: u64,
    /// All changes up to this time are in the history.
    watermark: u64,
    /// The entries by position.
    entries: BTreeMap<u64, Entry>,
    /// The position of the entry of each subject.
    subjects: HashMap<Digest, u64, DigestHasher>,
    postings: Postings,
    timeline: Timeline,
    times: Times,
    /// An earlier history of this process has been lost.
    is_restarted: bool,
    /// The accounted bytes of all entries.
    bytes: usize,
}

/// The progress of filling the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No backend has started it.
    Unstarted,
    /// Plans from before the start are being restored.
    Filling,
    Ready,
}

/// The newest plan on a subject.
pub(super) struct Entry {
    pub plan: Rc<Plan>,
    /// The digest of the subject.
    pub subject: Digest,
    /// The digests of the plan's terms, sorted.
    pub terms: Rc<[Digest]>,
    /// The position of the last event, which is earlier than the entry's own if rights have changed
    /// since.
    pub event_position: u64,
    /// The positions of the newest creation and of the newest update, see [`Entry::changes`].
    created: u64,
    updated: u64,
    /// The client that caused the last event, if rights have changed since.
    event_client: Option<Box<str>>,
    /// The position of the first plan on the subject, as far as is known.
    first_position: u64,
    /// Earlier states with other receivers, oldest first.
    pub past: Vec<Past>,
    /// The states before this position have been forgotten.
    forgotten: u64,
    /// The time of the cursor before the entry.
    reached: u64,
    time: u64,
    bytes: usize,
}

/// The result of looking up a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The history contains all events after this position.
    Found(u64),
    /// Events after the cursor are missing from the history.
    Gap,
    /// The cursor is later than all events.
    Future,
}

/// The result of a search for entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matches {
    /// The number of terms and entries examined.
    pub examined: usize,
    /// The position up to which the history has been searched; `None` if that is all of it.
    pub until: Option<u64>,
}

impl History {
    /// Creates a history that has not been started. Nothing is kept until then.
    pub(super) fn new(limits: HistorySettings) -> Self {
        History {
            limits,
            phase: Phase::Unstarted,
            start: HistoryStart {
                epoch: 0,
                scope: EpochScope::Stored,
                floor: 0,
                floor_time: 0,
                head: 0,
            },
            head: 0,
            last_time: 0,
            watermark: 0,
            entries: BTreeMap::new(),
            subjects: HashMap::default(),
            postings: Postings::default(),
            timeline: Timeline::default(),
            times: Times::default(),
            is_restarted: false,
            bytes: 0,
        }
    }

    /// Starts the history anew. All entries are dropped.
    pub(super) fn begin(&mut self, start: HistoryStart) {
        let is_restarted = self.phase != Phase::Unstarted;
        *self = History::new(self.limits);
        self.is_restarted = is_restarted;
        self.phase = Phase::Filling;
        self.head = start.head.max(start.floor);
        self.last_time = start.floor_time;
        self.watermark = start.floor_time;
        self.start = start;
    }

    /// Marks the history as complete.
    pub(super) fn set_ready(&mut self) {
        self.phase = Phase::Ready;
        self.timeline = Timeline::default();
        // This process has sent nothing before.
        if !self.is_restarted {
            self.timeline.record(0, self.reached());
        }
    }

    /// Returns whether clients can resume.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Records that all changes up to a time are in the history.
    pub(super) fn set_watermark(&mut self, time: u64) {
        self.watermark = self.watermark.max(time);
    }

    /// Changes the limits. Takes effect with the next entry or tick.
    pub(super) fn set_limits(&mut self, limits: HistorySettings) {
        self.limits = limits;
    }

    /// Returns the newest position.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Returns the position after which the history contains all events.
    pub(super) fn floor(&self) -> u64 {
        self.start.floor
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the accounted bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the time of the oldest entry, in UNIX milliseconds.
    pub(super) fn oldest_time(&self) -> Option<u64> {
        self.entries.values().next().map(|entry| entry.time)
    }

    /// Returns the cursor of a position: all events up to it, and no others, precede the cursor.
    pub(super) fn cursor(&self, position: u64) -> Cursor {
        let next = match position < self.head {
            true => self.entries.range(position + 1..).next(),
            false => None,
        };
        Cursor {
            epoch: self.start.epoch,
            position,
            time: next
                .map_or(u64::MAX, |(_, next)| next.reached)
                .min(self.reached_time()),
        }
    }

    /// Returns the time up to which all changes are known. An event that has not been appended may be
    /// earlier than the newest entry, since that has the time at which it became known.
    fn reached_time(&self) -> u64 {
        match self.start.scope {
            EpochScope::Process => self.watermark,
            EpochScope::Stored => self.last_time,
        }
    }

    fn reached(&self) -> Reached {
        Reached {
            head: self.head,
            time: self.reached_time(),
        }
    }

    /// Returns the oldest cursor from which clients can resume.
    pub(super) fn oldest_cursor(&self) -> Cursor {
        Cursor {
            time: self.start.floor_time,
            ..self.cursor(self.start.floor)
        }
    }

    /// Looks up a cursor. `now` is the wall clock in UNIX milliseconds.
    pub(super) fn look_up(&self, cursor: Cursor, now: u64) -> Lookup {
        if cursor.epoch == self.start.epoch {
            return match cursor.position {
                position if position > self.head => Lookup::Future,
                position if position < self.start.floor => Lookup::Gap,
                position => Lookup::Found(position),
            };
        }
        match self.start.scope {
            EpochScope::Stored => Lookup::Gap,
            EpochScope::Process => self.look_up_time(cursor.time, now),
        }
    }

    /// Returns whether a cursor has a position of this history.
    pub(super) fn has_issued(&self, cursor: Cursor) -> bool {
        cursor.epoch == self.start.epoch
    }

    /// Returns whether a cursor may be that of a newer event, which another server has stored, and this
    /// one has not read yet.
    pub(super) fn may_become_known(&self, cursor: Cursor, now: u64) -> bool {
        let newest = now.max(self.last_time).saturating_add(CLOCK_TOLERANCE);
        self.start.scope == EpochScope::Stored
            && cursor.epoch == self.start.epoch
            && cursor.position > self.head
            && cursor.time <= newest
    }

    /// Looks up a time in UNIX milliseconds: the position before the first event after it.
    pub(super) fn look_up_time(&self, time: u64, now: u64) -> Lookup {
        let newest = now.max(self.last_time).max(self.watermark);
        if time > newest.saturating_add(CLOCK_TOLERANCE) {
            return Lookup::Future;
        }
        if time < self.start.floor_time {
            return Lookup::Gap;
        }
        let position = self.times.position_at(time).unwrap_or_default();
        Lookup::Found(position.max(self.start.floor))
    }

    /// Returns the newest cursor of which is known that it was reached at a time by the monotonic
    /// clock. Before an earlier history was lost, that is a cursor from which no client can resume.
    pub(super) fn cursor_at(&self, mono: u64) -> Cursor {
        match self.timeline.at(mono) {
            Some(Reached { head, time }) => Cursor {
                epoch: self.start.epoch,
                position: head,
                time,
            },
            None => Cursor {
                epoch: !self.start.epoch,
                position: 0,
                time: 0,
            },
        }
    }

    /// Returns the cursor of the newest position before the start.
    pub(super) fn start_cursor(&self) -> Cursor {
        self.cursor(self.start.head.max(self.start.floor))
    }

    /// Returns the entry of a subject.
    pub(super) fn of_subject(&self, subject: Digest) -> Option<&Entry> {
        self.entries.get(self.subjects.get(&subject)?)
    }

    /// Returns the entry at a position.
    pub(super) fn at(&self, position: u64) -> Option<&Entry> {
        self.entries.get(&position)
    }

    /// Returns the entries with their positions and times, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = (u64, u64, &Entry)> {
        let entries = self.entries.iter().rev();
        entries.map(|(position, entry)| (*position, entry.time, entry))
    }

    /// Appends a plan, which replaces the entry of its subject. `terms` are the digests of its terms,
    /// sorted. Ignores a plan without a position, and one that is not newer than all others.
    pub(super) fn append(&mut self, plan: &Rc<Plan>, subject: Digest, terms: &[Digest], mono: u64) {
        let position = plan.stamp.position;
        if self.phase == Phase::Unstarted || position <= self.head {
            return;
        }
        self.timeline.record(mono, self.reached());
        self.head = position;
        if self.limits.memory == 0 {
            self.start.floor = position;
            self.start.floor_time = self.start.floor_time.max(plan.stamp.time);
            return;
        }
        let old = self.subjects.get(&subject).copied();
        let old = old.and_then(|position| self.remove(position));
        let terms: Rc<[Digest]> = match &old {
            Some(old) if *old.terms == *terms => Rc::clone(&old.terms),
            _ => terms.into(),
        };
        let event_position = match (plan.cause, &old) {
            (Cause::RightsChange, Some(old)) => old.event_position,
            (Cause::RightsChange, None) => 0,
            (Cause::Event, _) => position,
        };
        let mut entry = Entry::new(plan, subject, terms, event_position);
        if let Some(old) = old {
            entry.replace(old, position);
        }
        entry.reached = self.reached_time();
        self.insert(position, entry);
        self.evict_excess();
    }

    /// Restores a plan from before the start, with its earlier states.
    pub(super) fn restore(
        &mut self,
        plan: &Rc<Plan>,
        subject: Digest,
        terms: Vec<Digest>,
        event_position: u64,
        past: Vec<Past>,
    ) {
        let position = plan.stamp.position;
        if self.phase != Phase::Filling || self.limits.memory == 0 || position <= self.start.floor {
            return;
        }
        if let Some(old) = self.subjects.get(&subject).copied() {
            self.remove(old);
        }
        let mut entry = Entry::new(plan, subject, terms.into(), event_position);
        entry.set_past(past);
        self.head = self.head.max(position);
        entry.reached = match self.start.scope {
            // The times of restored plans are those of the changes, so that all changes before one are
            // known, as far as the watermark will allow.
            EpochScope::Process => plan.stamp.time.saturating_sub(1),
            EpochScope::Stored => self.reached_time(),
        };
        self.insert(position, entry);
        self.evict_excess();
    }

    /// Evicts entries by age, and records the newest position. Called periodically.
    pub(super) fn on_tick(&mut self, unix: u64, mono: u64) {
        self.timeline.record(mono, self.reached());
        let oldest = unix.saturating_sub(self.limits.window);
        for _ in 0..MAX_EVICTIONS {
            match self.entries.first_key_value() {
                Some((_, entry)) if entry.time < oldest => self.evict(),
                _ => break,
            }
        }
        self.evict_excess();
        self.postings.shrink();
    }

    /// Appends the positions after `after` of the next entries that may be of interest, in order and
    /// without duplicates, at most `limit`. An entry is of interest if its plan or an earlier state is.
    pub(super) fn matches(
        &self,
        interest: &Interest,
        after: u64,
        limit: usize,
        out: &mut Vec<u64>,
    ) -> Matches {
        let Some(terms) = interest.terms() else {
            return self.scan(interest, after, limit, out);
        };
        for term in terms {
            self.postings.after(*term, after, limit, out);
            let of_subject = self.subjects.get(term).copied();
            out.extend(of_subject.filter(|position| *position > after));
        }
        let examined = terms.len() + out.len();
        out.sort_unstable();
        out.dedup();
        out.truncate(limit);
        let until = out.last().filter(|_| out.len() >= limit).copied();
        Matches { examined, until }
    }

    /// Finds entries by examining all of them.
    fn scan(&self, interest: &Interest, after: u64, limit: usize, out: &mut Vec<u64>) -> Matches {
        let (mut examined, mut until) = (0, None);
        let Some(from) = after.checked_add(1) else {
            return Matches { examined, until };
        };
        for (position, entry) in self.entries.range(from..) {
            let is_full = out.len() >= limit || interest.spent() >= MAX_STEPS;
            if is_full || examined >= MAX_SCANNED {
                return Matches { examined, until };
            }
            examined += 1;
            until = Some(*position);
            if entry.any_state(|state| interest.matches(state)) {
                out.push(*position);
            }
        }
        let until = None;
        Matches { examined, until }
    }

    fn insert(&mut self, position: u64, mut entry: Entry) {
        self.last_time = self.last_time.max(entry.plan.stamp.time);
        entry.time = self.last_time;
        self.times.push(entry.time, position);
        entry.bytes = entry.footprint();
        self.bytes += entry.bytes;
        let postings = &mut self.postings;
        entry.for_each_term(|term| postings.push(term, position));
        self.subjects.insert(entry.subject, position);
        self.entries.insert(position, entry);
    }

    fn remove(&mut self, position: u64) -> Option<Entry> {
        let entry = self.entries.remove(&position)?;
        let postings = &mut self.postings;
        entry.for_each_term(|term| postings.remove(term, position));
        self.subjects.remove(&entry.subject);
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn evict_excess(&mut self) {
        while self.bytes > self.limits.memory && !self.entries.is_empty() {
            self.evict();
        }
    }

    /// Removes the oldest entry.
    fn evict(&mut self) {
        let Some((&position, _)) = self.entries.first_key_value() else {
            return;
        };
        if let Some(entry) = self.remove(position) {
            self.start.floor = self.start.floor.max(position);
            self.times.raise_floor(self.start.floor);
            self.start.floor_time = self.start.floor_time.max(entry.time);
        }
    }
}

/// How far a cursor's time may be ahead of this machine's clock, in milliseconds.
const CLOCK_TOLERANCE: u64 = 60_000;
/// The number of entries after which a search that examines all of them pauses.
const MAX_SCANNED: usize = 1024;
/// The work of comparing patterns after which such a search pauses, in units of a byte.
pub(super) const MAX_STEPS: usize = 1 << 20;
/// The maximum number of entries that a tick evicts because of their age.
const MAX_EVICTIONS: usize = 4096;

#[cfg(test)]
mod tests;

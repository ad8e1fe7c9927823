//! Reconciles open connections with the history after their user's memberships have changed.
//!
//! Owns: the connections to be reconciled, and their progress. An annotation that has become
//! unreadable is sent as a deletion, and one that has become readable as a creation.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::model::{Cause, Decision, EventKind};
use crate::net::{ConnKey, Cx};
use crate::ws::CloseCode;

use super::{
    Item, MAX_BACKLOG, MAX_BYTES, MAX_EXAMINED, MAX_ITEMS, Place, STEPS_OF_ENTRY, message_len,
};
use crate::realtime::history::{Entry, MAX_STEPS, StateAt};
use crate::realtime::interest::Interest;
use crate::realtime::outgoing::Form;
use crate::realtime::principals::Principal;
use crate::realtime::rules::decide;
use crate::realtime::{ApiSession, Realtime};

/// The connections to be reconciled.
#[derive(Default)]
pub(in crate::realtime) struct Reconciles {
    jobs: HashMap<ConnKey, Reconcile>,
    /// The order of the connections.
    queue: VecDeque<ConnKey>,
}

/// The states that a connection may have been sent since it was last reconciled.
struct Reconcile {
    /// The users before each change, oldest first. Events have been sent by the memberships of any of
    /// them.
    before: Vec<Rc<Principal>>,
    /// The newest position at the time of the first change.
    start: u64,
    /// The newest position at the time of the last change. Later events have been delivered by the new
    /// memberships.
    end: u64,
    /// The position up to which the history has been examined.
    position: u64,
    /// Whether it is in the queue. Otherwise it waits until its output has been sent.
    is_queued: bool,
    /// Whether anything has been examined since the last change.
    is_started: bool,
    /// The position up to which entries have been examined between the changes.
    reached: u64,
    /// The positions up to which entries had been examined at changes with progress, and the index of
    /// the user at each: the newest change last, with the lowest position. Of the entries up to a
    /// position, and after the next one, the client has those that this user may read.
    settled: Vec<(u64, usize)>,
    /// The position from which the client had resumed, if it was in a replay at any of the changes.
    resumed: Option<u64>,
    /// The position up to which the connection had been sent everything at the time of the last change,
    /// if it was in a replay.
    replayed: Option<u64>,
}

/// The progress of a connection. For tests.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::realtime) struct Progress {
    pub is_started: bool,
    /// The position up to which entries have been examined since the first change.
    pub reached: u64,
    /// The same since the last change.
    pub position: u64,
    /// Up to where, and by which of the memberships, the client's state is known.
    pub settled: Vec<(u64, usize)>,
    pub start: u64,
    pub end: u64,
    /// The start of the replay, and its position at the last change.
    pub replay: (Option<u64>, Option<u64>),
    /// The number of memberships before each change.
    pub memberships: Vec<usize>,
}

impl Reconciles {
    /// Returns the connections in order. For tests.
    #[cfg(test)]
    pub(in crate::realtime) fn progress(&self) -> impl Iterator<Item = (ConnKey, Progress)> {
        let queued = self.queue.iter().copied();
        let parked = self.jobs.iter().filter(|(_, job)| !job.is_queued);
        let keys = queued.chain(parked.map(|(key, _)| *key));
        let jobs = keys.filter_map(|key| Some((key, self.jobs.get(&key)?)));
        jobs.map(|(key, job)| {
            let users = job.before.iter();
            let memberships = users.map(|user| user.memberships().len());
            let progress = Progress {
                is_started: job.is_started,
                reached: job.reached.max(job.position),
                position: job.position,
                settled: job.settled.clone(),
                start: job.start,
                end: job.end,
                replay: (job.resumed, job.replayed),
                memberships: memberships.collect(),
            };
            (key, progress)
        })
    }

    /// Forgets all connections.
    pub(in crate::realtime) fn clear(&mut self) {
        *self = Reconciles::default();
    }

    /// Adds a change of a connection's user, at the newest position `head`. The connection may be in a
    /// replay, with this start and position. Returns false if there are too many changes.
    fn push(
        &mut self,
        key: ConnKey,
        before: &Rc<Principal>,
        head: u64,
        replay: Option<(u64, u64)>,
    ) -> bool {
        let (resumed, replayed) = (replay.map(|it| it.0), replay.map(|it| it.1));
        let Some(job) = self.jobs.get_mut(&key) else {
            let job = Reconcile {
                before: vec![Rc::clone(before)],
                start: head,
                end: head,
                position: 0,
                is_queued: true,
                is_started: false,
                reached: 0,
                settled: Vec::new(),
                resumed,
                replayed,
            };
            self.jobs.insert(key, job);
            self.queue.push_back(key);
            return true;
        };
        // Nothing has been sent since the last change.
        if !job.is_started && job.end == head && job.replayed == replayed {
            return true;
        }
        let is_known = |known: &Rc<Principal>| known.memberships() == before.memberships();
        let index = job.before.iter().position(is_known);
        if index.is_none() {
            if job.before.len() >= MAX_BEFORE {
                return false;
            }
            job.before.push(Rc::clone(before));
        }
        if job.position > 0 {
            let index = index.unwrap_or(job.before.len() - 1);
            // A replay has yet to send later entries.
            let until = job.position.min(replayed.unwrap_or(u64::MAX));
            job.settle(until, index);
        }
        job.reached = job.reached.max(job.position);
        (job.end, job.position, job.is_started) = (head, 0, false);
        job.resumed = match (job.resumed, resumed) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        job.replayed = replayed;
        true
    }

    /// Notes that a connection is sent states from a position on by its present memberships.
    pub(super) fn note_replay(&mut self, key: ConnKey, from: u64) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.resumed = Some(job.resumed.map_or(from, |known| known.min(from)));
            job.settled.clear();
            // The next change is not the same as the last one, even if the replay has ended by then.
            job.replayed = Some(u64::MAX);
        }
    }

    fn pop(&mut self) -> Option<(ConnKey, Reconcile)> {
        let key = self.queue.pop_front()?;
        let job = self.jobs.remove(&key);
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT);
        }
        // A table that shrank with jobs in it would be copied each time that one is woken.
        if self.jobs.is_empty() {
            self.jobs.shrink_to(KEPT);
        }
        Some((key, job?))
    }

    fn put_back(&mut self, key: ConnKey, job: Reconcile) {
        if job.is_queued {
            self.queue.push_back(key);
        }
        self.jobs.insert(key, job);
    }

    /// Continues with a connection after its output has been sent.
    pub(in crate::realtime) fn wake(&mut self, key: ConnKey) {
        if let Some(job) = self.jobs.get_mut(&key)
            && !job.is_queued
        {
            job.is_queued = true;
            self.queue.push_back(key);
        }
    }

    /// Forgets a closed connection.
    pub(in crate::realtime) fn remove(&mut self, key: ConnKey) {
        self.jobs.remove(&key);
    }

    #[cfg(test)]
    pub(in crate::realtime) fn len(&self) -> usize {
        self.jobs.len()
    }

    #[cfg(test)]
    pub(in crate::realtime) fn queued(&self) -> usize {
        self.queue.len()
    }
}

impl Realtime {
    /// Queues the connections of all users with other memberships than at the last call.
    pub(in crate::realtime) fn queue_reconciles(&mut self, cx: &mut Cx<'_, ApiSession>) {
        for before in self.principals.take_changes() {
            if self.history.len() == 0 {
                continue;
            }
            let before = Rc::new(before);
            for key in self.principals.connections_of(before.userid()) {
                // Nothing has been sent to a connection before it opens, or before its first filter is in force.
                if cx.session(key).is_none() || self.resumption.has_been_sent_nothing(key) {
                    continue;
                }
                let (head, replay) = (self.history.head(), self.replays.range(key));
                if !self.reconciles.push(key, &before, head, replay) {
                    self.counters.recovery.overruns += 1;
                    cx.close(key, CloseCode::TRY_AGAIN_LATER, "memberships overrun");
                }
            }
        }
    }

    /// Continues to reconcile connections as far as the limits of a turn allow. Returns whether any
    /// are left.
    pub(super) fn reconcile_queued(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        if self.reconciles.queue.is_empty() {
            return false;
        }
        let (mut items, mut examined, mut has_progress) = (Vec::new(), 0, false);
        for _ in 0..self.reconciles.queue.len() {
            if items.len() >= MAX_ITEMS || examined >= MAX_EXAMINED || cx.backlog() >= MAX_BACKLOG {
                has_progress = true;
                break;
            }
            let Some((key, mut job)) = self.reconciles.pop() else {
                continue;
            };
            job.is_queued = cx.buffered(key) == 0;
            if !job.is_queued {
                self.reconciles.put_back(key, job);
                continue;
            }
            has_progress = true;
            job.is_started = true;
            let (count, is_complete) = self.reconcile(cx, key, &mut job, &mut items);
            examined += count;
            if !is_complete {
                self.reconciles.put_back(key, job);
            }
        }
        self.send_batch(cx, items);
        has_progress && !self.reconciles.queue.is_empty()
    }

    /// Examines the next entries for a connection. Returns their number, and whether all have been
    /// examined.
    fn reconcile(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        reconcile: &mut Reconcile,
        items: &mut Vec<Item>,
    ) -> (usize, bool) {
        let Some(session) = cx.session(key) else {
            return (1, true);
        };
        let encoding = session.encoding();
        let client = session.client();
        let interest = self.interest_of(key);
        let (max, mut positions) = (self.replays.max_entries, Vec::new());
        let history = &self.history;
        let found = history.matches(&interest, reconcile.position, max, &mut positions);
        let mut until = found.until;
        let (searched, mut bytes) = (interest.spent(), 0);
        // Everything up to here has been sent to the connection.
        let place = self.replays.place(key, encoding).unwrap_or(Place {
            position: self.history.head(),
            within: None,
        });
        let limit = self.expiry_limit(cx.now());
        let is_silenced = self.principals.is_silenced(key, limit);
        let replay = self.replays.range(key);
        let (replay_from, replayed) = replay.unwrap_or((u64::MAX, u64::MAX));
        for position in positions {
            if bytes >= MAX_BYTES || interest.spent() - searched >= MAX_STEPS {
                until = Some(reconcile.position);
                break;
            }
            reconcile.position = position;
            let entry = self.history.at(position).filter(|_| !is_silenced);
            let form = entry.and_then(|entry| {
                let after = self.principals.of(key);
                let is_own = client.is_some() && self.client_of(entry) == client;
                let from = match reconcile.settled_user(position) {
                    Some(_) => position,
                    None => reconcile.from().min(replay_from),
                };
                // The client knows the state that it has caused.
                let since = match is_own {
                    true => from.max(entry.event_position),
                    false => from,
                };
                let form = reconciled_form(entry, &interest, reconcile, (since, after))?;
                if is_own && form != Form::Retraction && reconcile.has_own_state(entry) {
                    return None;
                }
                // The replay will send it.
                let has_new_event = entry.event_position > replay_from && !is_own;
                let is_ahead = position > replayed
                    && has_new_event
                    && interest.event_form(entry, 0, replay_from).is_some();
                (form == Form::Retraction || !is_ahead).then_some(form)
            });
            let Some(form) = form else {
                continue;
            };
            bytes += entry.map_or(0, |entry| message_len(entry, form));
            items.push(Item {
                position,
                place,
                key,
                form,
                encoding,
            });
        }
        if let Some(until) = until {
            reconcile.position = until;
        }
        let examined = found.examined + 1 + interest.spent() / STEPS_OF_ENTRY;
        (examined, until.is_none())
    }
}

impl Reconcile {
    /// Returns the position since which the connection may have been sent any state.
    fn from(&self) -> u64 {
        self.resumed.map_or(self.start, |from| from.min(self.start))
    }

    /// Returns the users with the memberships by which the entry at a position may have been sent.
    fn users_of(&self, position: u64) -> impl Iterator<Item = &Principal> + Clone {
        let is_unchanged = position <= self.start && position > self.reached;
        let indexes = match self.settled_user(position) {
            Some(index) => index..index + 1,
            None if is_unchanged && self.resumed.is_none() => 0..1,
            None => 0..self.before.len(),
        };
        let users = self.before.get(indexes).unwrap_or_default();
        users.iter().map(|user| &**user)
    }

    /// Notes that the entries up to a position have been examined by a user's memberships. Later ones
    /// have been examined by those of earlier users.
    fn settle(&mut self, until: u64, index: usize) {
        while self.settled.pop_if(|(other, _)| *other <= until).is_some() {}
        if self.settled.last().is_some_and(|(_, last)| *last == index) {
            return;
        }
        if self.settled.len() >= MAX_BEFORE {
            self.settled.remove(0);
        }
        self.settled.push((until, index));
    }

    /// Returns the index of the user with the only memberships by which the entry at a position may
    /// have been sent, if they are known from a former change.
    fn settled_user(&self, position: u64) -> Option<usize> {
        let mut settled = self.settled.iter().rev();
        let found = settled.find(|(until, _)| position <= *until);
        found.map(|(_, index)| *index)
    }

    /// Returns whether a client has the state that it has caused: it has not been sent a retraction.
    fn has_own_state(&self, entry: &Entry) -> bool {
        let (position, first) = (entry.plan.stamp.position, self.before.first());
        let decision = decide(&entry.plan.rules, first.map(|user| &**user));
        let was_readable = matches!(decision, Decision::Send(_));
        entry.plan.cause == Cause::Event
            && position > self.reached
            && (position > self.start || was_readable)
    }
}

/// Returns the form in which a connection gets an entry after a change of memberships; `None` if it
/// gets nothing. It may have been sent any state since `from`.
fn reconciled_form(
    entry: &Entry,
    interest: &Interest,
    reconcile: &Reconcile,
    (from, after): (u64, Option<&Principal>),
) -> Option<Form> {
    let end = reconcile.end;
    let could_read = |user: &Principal, state: StateAt<'_>| {
        let decision = decide(state.rules, Some(user));
        interest.matches(state) && matches!(decision, Decision::Send(_))
    };
    let users = reconcile.users_of(entry.plan.stamp.position);
    let any = |state| users.clone().any(|user| could_read(user, state));
    let all = |state| users.clone().all(|user| could_read(user, state));
    let mut states = entry.states_between(from.min(end), end);
    let is_deletion = entry.plan.kind == EventKind::Delete;
    // A later event has been delivered by the new memberships.
    let is_earlier = entry.event_position <= end;
    let variant = match decide(&entry.plan.rules, after) {
        Decision::Send(variant) if !is_deletion => variant,
        decision => {
            let may_read = matches!(decision, Decision::Send(_));
            let mut is_gone = states.clone().any(any);
            if may_read {
                // Unless it has been delivered as an event.
                is_gone &= is_earlier && !states.all(all);
                is_gone &= interest.actions().contains(EventKind::Delete);
            }
            return is_gone.then_some(Form::Retraction);
        }
    };
    let is_new = is_earlier && !states.all(all) && interest.matches(entry.state());
    let form = interest.appearance_form(&entry.plan, variant);
    form.filter(|_| is_new)
}

/// The number of different memberships that a connection can have had since it was last reconciled.
const MAX_BEFORE: usize = 64;
/// The capacity that an empty queue and an empty table keep.
const KEPT: usize = 64;

//! Replays: sends a connection the events after a position, from the history, in bounded steps.
//!
//! Owns: the replays in progress, and the decision on each event. Must not know: how the position was
//! determined.
//!
//! A connection is sent no live events during its replay. The replay follows the history at its own
//! pace, and ends when nothing is left: from then on, events are delivered live. Since the history
//! grows by an event at the moment of its delivery, no event is lost or sent out of order in between.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::model::{Cause, Decision, EventKind};
use crate::net::{ConnKey, Cx};
use crate::ws::CloseCode;

use super::digest::Digest;
use super::history::{Cursor, Entry, MAX_STEPS, ReplayCursor, StateAt};
use super::interest::Interest;
use super::outgoing::{DeliveryBuilder, Encoding, Form};
use super::principals::Principal;
use super::rules::decide;
use super::session::SessionFlag;
use super::{ApiSession, Realtime, cost};

/// The replays in progress.
pub(super) struct Replays {
    jobs: HashMap<ConnKey, Job>,
    /// The connections with replays that can proceed. The others wait until their output has been sent.
    runnable: VecDeque<ConnKey>,
    /// The maximum number of entries that a connection is sent in a turn.
    max_entries: usize,
}

/// Where a replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplayStart {
    /// The position from which the client resumes. If it resumes in the midst of an earlier replay, it
    /// has received the newest states up to `position`, and nothing of earlier changes since `from`.
    pub from: u64,
    pub position: u64,
    /// The time of the cursor from which it resumes.
    pub time: u64,
}

/// A replay in progress.
struct Job {
    start: ReplayStart,
    /// The position up to which the newest states have been sent.
    position: u64,
    is_queued: bool,
}

/// A message to one connection.
struct Item {
    /// The position of the entry.
    position: u64,
    /// The message's cursor.
    place: Place,
    key: ConnKey,
    form: Form,
    encoding: Encoding,
}

/// The place of a cursor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    position: u64,
    /// The position and the time at which the replay began, of which the message is a part.
    within: Option<(u64, u64)>,
}

/// The messages of one step.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    /// The event streams whose replay ends here, with messages that do not lead to the newest position:
    /// they are sent a mark, since heartbeats do not repeat an old one.
    behind: Vec<ConnKey>,
    /// The total length of the messages.
    bytes: usize,
    /// The number of entries and terms examined.
    examined: usize,
}

/// A receiver of replayed events.
struct Receiver<'a> {
    interest: &'a Interest,
    principal: Option<&'a Principal>,
    client: Option<Digest>,
}

impl Default for Replays {
    fn default() -> Self {
        Replays {
            jobs: HashMap::new(),
            runnable: VecDeque::new(),
            max_entries: MAX_ENTRIES,
        }
    }
}

impl Replays {
    /// Returns the number of replays in progress.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Returns the position up to which a connection in a replay has been sent everything.
    pub(super) fn position(&self, key: ConnKey) -> Option<u64> {
        self.jobs.get(&key).map(|job| job.position)
    }

    /// Returns the place that a connection in a replay has reached.
    fn place(&self, key: ConnKey, encoding: Encoding) -> Option<Place> {
        let job = self.jobs.get(&key)?;
        Some(job.start.place(job.position, encoding))
    }

    /// Returns the position from which a connection in a replay has resumed, and the one up to which it
    /// has been sent everything.
    fn range(&self, key: ConnKey) -> Option<(u64, u64)> {
        let job = self.jobs.get(&key)?;
        Some((job.start.from, job.position))
    }

    /// Ends the replay of a closed connection.
    pub(super) fn remove(&mut self, key: ConnKey) {
        self.jobs.remove(&key);
    }

    /// Lets the replay of a connection proceed after its output has been sent.
    pub(super) fn wake(&mut self, key: ConnKey) {
        if let Some(job) = self.jobs.get_mut(&key)
            && !job.is_queued
        {
            job.is_queued = true;
            self.runnable.push_back(key);
        }
    }

    /// Returns the connections in a replay.
    pub(super) fn connections(&self) -> Vec<ConnKey> {
        self.jobs.keys().copied().collect()
    }
}

impl Realtime {
    /// Starts the replay of all events after a position to a connection. Replaces one in progress.
    pub(super) fn start_replay(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        start: ReplayStart,
    ) {
        let Some(session) = cx.session(key) else {
            return;
        };
        session.set(SessionFlag::Replaying, true);
        if session.is_traced() {
            self.debug_replay(cx, key);
        }
        let matcher = self.index.conditional_of(key);
        if matcher.is_some_and(|matcher| matcher.terms().is_none()) {
            cx.charge(cost::SCANNED_ENTRY * self.history.len() as u64);
        }
        self.resumption.receipts.remove(key);
        self.reconciles.note_replay(key, start.from);
        let job = self.replays.jobs.entry(key).or_insert(Job {
            start,
            position: start.position,
            is_queued: false,
        });
        (job.start, job.position) = (start, start.position);
        self.replays.wake(key);
        cx.request_turn();
    }

    /// Continues the replays as far as the limits of a turn allow, and other work in proportion to the
    /// number of connections. Returns whether there is more to do at once.
    pub fn replay_queued(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        let has_more = self.replay_some(cx);
        self.flush_clients(cx);
        self.continue_steps(cx) || has_more
    }

    fn replay_some(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        self.check_ahead(cx);
        let has_reconciled = self.reconcile_queued(cx);
        if self.replays.runnable.is_empty() {
            return has_reconciled;
        }
        self.expire(cx.now());
        let mut batch = Batch::default();
        for _ in 0..self.replays.runnable.len() {
            if batch.is_full() || cx.backlog() >= MAX_BACKLOG {
                break;
            }
            if let Some(key) = self.replays.runnable.pop_front() {
                self.step(cx, key, &mut batch);
            }
        }
        self.send_batch(cx, batch.items);
        self.deliver_marks(cx, &batch.behind);
        has_reconciled || !self.replays.runnable.is_empty()
    }

    /// Adds the next messages of a connection's replay to a batch.
    fn step(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, batch: &mut Batch) {
        let Some(job) = self.replays.jobs.get_mut(&key) else {
            return;
        };
        job.is_queued = false;
        let (start, mut position) = (job.start, job.position);
        if cx.buffered(key) > 0 {
            return;
        }
        let Some(session) = cx.session(key) else {
            return;
        };
        if position < self.history.floor() {
            // The client reconnects, and is told which events are missing.
            self.counters.recovery.overruns += 1;
            return cx.close(key, CloseCode::TRY_AGAIN_LATER, "history overrun");
        }
        let encoding = session.encoding();
        let client = session.client();
        let limit = self.expiry_limit(cx.now());
        if self.principals.is_silenced(key, limit) {
            // The client resumes when it reconnects with other credentials.
            self.forget_connection(cx, key);
            return self.finish_replay(cx, key);
        }
        let interest = self.interest_of(key);
        let (max, mut positions) = (self.replays.max_entries, Vec::new());
        let history = &self.history;
        let found = history.matches(&interest, position, max, &mut positions);
        batch.examined += found.examined;
        let receiver = Receiver {
            interest: &interest,
            principal: self.principals.of(key),
            client,
        };
        let (mut bytes, mut until, searched) = (0, found.until, interest.spent());
        for at in positions {
            if bytes >= MAX_BYTES || interest.spent() - searched >= MAX_STEPS {
                until = Some(position);
                break;
            }
            position = at;
            let Some(entry) = self.history.at(at) else {
                continue;
            };
            if let Some(form) = self.replay_form(entry, start.from, &receiver) {
                bytes += message_len(entry, form);
                batch.items.push(Item {
                    position: at,
                    place: start.place(at, encoding),
                    key,
                    form,
                    encoding,
                });
            }
        }
        batch.bytes += bytes;
        batch.examined += interest.spent() / STEPS_OF_ENTRY;
        match until {
            None => {
                let mut last = batch.items.last_mut().filter(|item| item.key == key);
                // Nothing is left that the client could miss.
                if let Some(last) = &mut last {
                    last.place.within = None;
                }
                let sent = last.map_or(start.position, |item| item.position);
                if encoding == Encoding::EventStream && sent < self.history.head() {
                    batch.behind.push(key);
                }
                self.finish_replay(cx, key);
            }
            Some(until) => {
                if let Some(job) = self.replays.jobs.get_mut(&key) {
                    job.position = until;
                    self.replays.wake(key);
                }
            }
        }
    }

    fn finish_replay(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        self.replays.remove(key);
        if let Some(session) = cx.session(key) {
            session.set(SessionFlag::Replaying, false);
        }
        self.await_receipt(cx, key);
    }

    /// Passes messages to the engine, in the order of their positions. Each message is encoded once
    /// for all its receivers.
    fn send_batch(&mut self, cx: &mut Cx<'_, ApiSession>, mut items: Vec<Item>) {
        let place = |item: &Item| (item.position, item.place);
        items.sort_by_key(place);
        for items in items.chunk_by(|one, other| place(one) == place(other)) {
            let Some((position, place)) = items.first().map(place) else {
                continue;
            };
            let Some(plan) = self
                .history
                .at(position)
                .map(|entry| Rc::clone(&entry.plan))
            else {
                continue;
            };
            let cursor = place.cursor(self.history.cursor(place.position));
            let mut builder = DeliveryBuilder::new(&plan, cursor, None);
            for item in items {
                if builder.add(item.key, item.form, item.encoding) {
                    self.counters.recovery.count(item.form);
                    self.record_form(item.key, &plan, item.form, cx.now().unix);
                }
            }
            if builder.len() > 0 {
                self.counters.sent += builder.len() as u64;
                cx.fan_out(builder.finish());
            }
        }
    }

    /// Returns the events that a connection is interested in.
    pub(super) fn interest_of(&self, key: ConnKey) -> Interest {
        let user = self.principals.of(key);
        let user = user.map(|user| self.digester.userid(user.userid()));
        let matcher = self.index.conditional_of(key).cloned();
        Interest::new(self.index.terms_of(key), matcher, user)
    }

    /// Returns the client that caused the last event of an entry.
    fn client_of(&self, entry: &Entry) -> Option<Digest> {
        let client = entry.client();
        client.map(|client| self.digester.client_id(client))
    }

    /// Returns the form in which a receiver that resumes from a position gets an entry; `None` if it
    /// gets nothing.
    fn replay_form(&self, entry: &Entry, from: u64, receiver: &Receiver<'_>) -> Option<Form> {
        let plan = &entry.plan;
        let is_own = receiver.client.is_some() && self.client_of(entry) == receiver.client;
        if plan.cause == Cause::Event && is_own {
            return None;
        }
        let has_new_event = entry.event_position > from && !is_own;
        // The client knows the state that it has caused.
        let since = match is_own {
            true => from.max(entry.event_position),
            false => from,
        };
        let mut past = entry.past_since(since).map(|state| receiver.decide(state));
        match receiver.decide(entry.state()) {
            Some(variant) if has_new_event => receiver.interest.event_form(entry, variant, from),
            // Only rights have changed since. If the receiver could not read it for a while, it may
            // have been sent a deletion.
            Some(variant) => {
                let is_hidden = entry.has_forgotten(since) || past.any(|sent| sent.is_none());
                let form = receiver.interest.appearance_form(plan, variant);
                form.filter(|_| is_hidden)
            }
            // Otherwise the annotation may still exist, and only matches the filter no longer.
            None if receiver.is_gone(entry) => {
                let could_read = past.any(|sent| sent.is_some());
                could_read.then_some(Form::Retraction)
            }
            None => None,
        }
    }
}

impl ReplayStart {
    /// Starts at a cursor outside a replay.
    pub(super) fn at(cursor: Cursor) -> Self {
        ReplayStart {
            from: cursor.position,
            position: cursor.position,
            time: cursor.time,
        }
    }

    /// Returns the cursor from which a client resumes here, given that of the position.
    pub(super) fn cursor(&self, of_position: Cursor) -> ReplayCursor {
        self.place(self.position, Encoding::WithCursor)
            .cursor(of_position)
    }

    /// Returns the place of a message in the replay.
    fn place(&self, position: u64, encoding: Encoding) -> Place {
        Place {
            position,
            within: encoding.has_cursor().then_some((self.from, self.time)),
        }
    }
}

impl Place {
    /// Returns the cursor of a message, given that of the position outside a replay.
    fn cursor(self, of_position: Cursor) -> ReplayCursor {
        match self.within {
            None => of_position.into(),
            Some((from, time)) => ReplayCursor {
                cursor: Cursor {
                    time: time.min(of_position.time),
                    ..of_position
                },
                from,
            },
        }
    }
}

impl Receiver<'_> {
    /// Returns the variant that the receiver gets of a state; `None` if the filter does not match or
    /// the receiver may not read it.
    fn decide(&self, state: StateAt<'_>) -> Option<usize> {
        if !self.interest.matches(state) {
            return None;
        }
        match decide(state.rules, self.principal) {
            Decision::Send(variant) => Some(variant),
            Decision::Deny(_) => None,
        }
    }

    /// Returns whether an annotation is to be removed by the receiver, regardless of whether the filter
    /// matches the newest state: it is unreadable, or its deletion is selected.
    fn is_gone(&self, entry: &Entry) -> bool {
        match decide(&entry.plan.rules, self.principal) {
            Decision::Send(_) => {
                let kind = EventKind::Delete;
                entry.plan.kind == kind && self.interest.actions().contains(kind)
            }
            Decision::Deny(_) => true,
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() >= MAX_ITEMS || self.bytes >= MAX_BATCH || self.examined >= MAX_EXAMINED
    }
}

/// Returns the approximate length of a message.
fn message_len(entry: &Entry, form: Form) -> usize {
    match form {
        Form::Variant(variant) | Form::Appearance(variant) => {
            let text = entry.plan.variants.get(variant);
            text.map_or(0, |text| text.len())
        }
        Form::Retraction => 128,
    }
}

mod reconcile;
mod verify;

pub(super) use reconcile::Reconciles;

/// The maximum number of entries that a connection is sent in a turn.
const MAX_ENTRIES: usize = 64;
/// The bytes of messages after which a connection is sent no more in a turn.
const MAX_BYTES: usize = 64 * 1024;
/// The number of messages after which a turn starts no further step.
const MAX_ITEMS: usize = 2048;
/// The bytes of messages after which a turn starts no further step.
const MAX_BATCH: usize = 512 * 1024;
/// The number of terms and entries examined after which a turn starts no further step.
const MAX_EXAMINED: usize = 8192;
/// The work of comparing patterns that counts as an entry.
const STEPS_OF_ENTRY: usize = 256;
/// The number of pending receivers in the engine at which replays pause.
const MAX_BACKLOG: usize = 16_384;

//! The operations: events, changes of rights, and the actions of clients.

use crate::model::{BackendEvent, Membership, Role};
use crate::realtime::session::SessionFlag;
use crate::realtime::testing::{identity, key};

use super::annotation::{Annotation, State};
use super::receiver::{Connection, Kind, Message, Protocol};
use super::world::{SILENCE, World, client_id};

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// An annotation is created, updated, or deleted, perhaps by the client of a receiver.
    Event(usize, State, Option<usize>),
    /// The rights to an annotation change without an event.
    Rights(usize, State),
    /// The member joins or leaves the group.
    Member(bool),
    Connect(usize),
    /// A client with an open connection sets its filter again, with its last cursor.
    Resume(usize),
    /// A connection is lost, with all messages that have not been read.
    Lose(usize),
    /// The server notices that a former connection is dead.
    LoseOld(usize),
    /// A client reads all messages.
    Read(usize),
    /// A client reads one message.
    ReadOne(usize),
    /// The server continues with replays.
    Turn,
    /// Half a minute passes.
    Wait,
    /// A second passes.
    Second,
    /// The wall clock is set forward or back by an hour.
    SetClock(bool),
    /// The backend has filled the history.
    Ready,
    Crash(Crash),
    Shutdown,
    /// The log of clients is to be rewritten in the next turn.
    RewriteLog,
    /// The history is lost.
    NewEpoch,
}

/// The rest of the log of clients after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// All that has been written.
    Whole,
    /// All but the last record.
    Truncated,
}

impl World<'_> {
    /// Returns whether an operation is possible.
    pub(super) fn is_possible(&self, op: Op) -> bool {
        let annotation = |id: usize| self.annotations[id].as_ref();
        match op {
            Op::Event(id, state, author) => {
                let is_author = |author: usize| {
                    let kind = self.receivers[author].kind;
                    self.receivers[author].is_known && state.is_readable(kind, self.is_member)
                };
                let needs_one = matches!(state, State::Deleted | State::Moved);
                self.is_ready
                    && author.is_none_or(is_author)
                    && match annotation(id) {
                        Some(annotation) => annotation.state != State::Deleted,
                        None => !needs_one,
                    }
            }
            Op::Rights(id, state) => {
                let is_changed = |annotation: &Annotation| {
                    annotation.state != state
                        && !matches!(annotation.state, State::Deleted | State::Moved)
                };
                self.is_ready && annotation(id).is_some_and(is_changed)
            }
            Op::Member(is_member) => self.is_member != is_member,
            Op::Connect(receiver) => {
                let receiver = &self.receivers[receiver];
                match receiver.protocol {
                    Protocol::Cursors => receiver.connection.is_none(),
                    Protocol::ClientId => receiver.old.is_none(),
                }
            }
            Op::Resume(receiver) => {
                let receiver = &self.receivers[receiver];
                !self.instance.has_gaps
                    && receiver.protocol == Protocol::Cursors
                    && receiver.is_known
                    && self.is_ready
                    && receiver.connection.as_ref().is_some_and(|it| !it.is_closed)
            }
            Op::Lose(receiver) | Op::Read(receiver) => {
                self.receivers[receiver].connection.is_some()
            }
            Op::ReadOne(receiver) => {
                let connection = &self.receivers[receiver].connection;
                connection.as_ref().is_some_and(|it| it.inbox.len() > 1)
            }
            Op::LoseOld(receiver) => self.receivers[receiver].old.is_some(),
            Op::Ready => !self.is_ready,
            Op::Second | Op::SetClock(_) => true,
            Op::Turn | Op::Wait | Op::Crash(_) | Op::Shutdown | Op::NewEpoch => true,
            Op::RewriteLog => !self.log.wants_rewrite(),
        }
    }

    pub(super) fn apply(&mut self, op: Op) -> Result<(), String> {
        self.step += 1;
        self.apply_one(op)?;
        for number in 0..self.receivers.len() {
            if self.is_up_to_date(number) {
                let promises = &mut self.receivers[number].promises;
                promises
                    .iter_mut()
                    .for_each(|promise| promise.has_event_since = false);
            }
        }
        self.check_tables()
    }

    /// Returns whether a receiver's connection is sent events as they occur.
    fn is_up_to_date(&self, number: usize) -> bool {
        let connection = self.receivers[number].connection.as_ref();
        let index = connection.filter(|it| !it.is_closed).map(|it| it.index);
        let session = index.and_then(|index| self.api.session(index));
        session.is_some_and(|session| !session.has(SessionFlag::Replaying))
    }

    fn apply_one(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Event(id, state, author) => self.event(id, state, author),
            Op::Rights(id, state) => self.change_rights(id, state),
            Op::Member(is_member) => self.change_membership(is_member),
            Op::Connect(receiver) => self.connect(receiver),
            Op::Resume(number) => {
                let connection = self.receivers[number].connection.as_ref();
                let index = connection.map(|it| it.index).ok_or("closed")?;
                self.set_filter_with_cursor(number, index)
            }
            Op::Lose(receiver) => {
                self.lose(receiver);
                Ok(())
            }
            Op::LoseOld(receiver) => {
                if let Some(old) = self.receivers[receiver].old.take() {
                    self.api.lose(old.index, old.last_received);
                }
                Ok(())
            }
            Op::Read(receiver) => self.read(receiver, usize::MAX),
            Op::ReadOne(receiver) => self.read(receiver, 1),
            Op::Turn => self.turn().map(|_| ()),
            Op::Wait => self.wait(30_000),
            Op::Second => self.wait(1000),
            Op::SetClock(is_forward) => {
                let unix = &mut self.api.now.unix;
                *unix = match is_forward {
                    true => *unix + HOUR,
                    false => *unix - HOUR,
                };
                Ok(())
            }
            Op::Ready => self.ready(),
            Op::Crash(crash) => self.crash(crash),
            Op::Shutdown => self.shut_down(),
            Op::RewriteLog => {
                self.log.request_rewrite();
                Ok(())
            }
            Op::NewEpoch => self.begin_epoch(),
        }
    }

    fn event(&mut self, id: usize, state: State, author: Option<usize>) -> Result<(), String> {
        self.version += 1;
        let version = self.version;
        let before = self.annotations[id].as_ref().map(|before| before.state);
        self.replace(id, |annotation| {
            annotation.before = before.unwrap_or(state);
            annotation.state = state;
            annotation.version = version;
            annotation.author = author;
            annotation.is_rights_change = false;
            annotation.event_position = annotation.position;
        });
        let (is_held, is_forgotten) = (self.is_held(id), self.is_forgotten(id));
        let step = self.step;
        for (number, receiver) in self.receivers.iter_mut().enumerate() {
            let is_open = receiver.connection.as_ref().is_some_and(|it| !it.is_closed);
            let promise = &mut receiver.promises[id];
            promise.is_due = receiver.is_known;
            promise.has_event_since |= !is_open;
            promise.set_stale(!is_held || is_forgotten || state == State::Moved, step);
            promise.was_readable |=
                state != State::Moved && state.is_readable(receiver.kind, self.is_member);
            if author == Some(number) {
                promise.own_since = Some(step);
                promise.stale_since = promise.stale_since.filter(|_| state == State::Moved);
                receiver.view.insert(id, version);
            }
        }
        self.publish(id)
    }

    fn change_rights(&mut self, id: usize, state: State) -> Result<(), String> {
        let before = self.annotations[id].as_ref().map(|before| before.state);
        let before = before.ok_or("no annotation")?;
        self.replace(id, |annotation| {
            annotation.before = before;
            annotation.state = state;
            annotation.is_rights_change = true;
        });
        let (is_held, is_forgotten) = (self.is_held(id), self.is_forgotten(id));
        let step = self.step;
        for receiver in &mut self.receivers {
            let could_read = before.is_readable(receiver.kind, self.is_member);
            let may_read = state.is_readable(receiver.kind, self.is_member);
            let promise = &mut receiver.promises[id];
            if may_read && !could_read {
                promise.is_due = is_held && receiver.is_known;
            }
            // An annotation that the history has lost cannot be reconciled.
            promise.is_due &= is_held || !promise.is_due_while_connected;
            promise.set_stale(!is_held || is_forgotten, step);
            promise.was_readable |= may_read;
        }
        self.publish(id)
    }

    /// Returns whether an annotation has had more states than the history remembers.
    fn is_forgotten(&self, id: usize) -> bool {
        let annotation = self.annotations[id].as_ref();
        annotation.is_some_and(|it| it.past.len() > MAX_PAST)
    }

    /// Changes an annotation, and gives it the next position.
    fn replace(&mut self, id: usize, change: impl FnOnce(&mut Annotation)) {
        self.position += 1;
        let (position, noticed) = (self.position, self.api.now.unix);
        let annotation = self.annotations[id].get_or_insert_with(|| Annotation {
            state: State::Public,
            before: State::Public,
            version: 0,
            author: None,
            position: 0,
            event_position: 0,
            past: Vec::new(),
            is_rights_change: false,
            was_group: false,
            changed: 0,
            noticed: 0,
        });
        let former =
            (annotation.position > 0).then(|| (annotation.audience().page(), annotation.rules()));
        if former.is_none() {
            annotation.past.clear();
            annotation.event_position = 0;
        }
        annotation.position = position;
        annotation.noticed = noticed;
        annotation.changed = noticed - LAG;
        change(annotation);
        annotation.was_group |= annotation.state == State::Group;
        let now = (annotation.audience().page(), annotation.rules());
        if let Some((page, rules)) = former.filter(|former| *former != now) {
            annotation.past.push((position, page, rules));
        }
    }

    /// Delivers the last plan of an annotation.
    fn publish(&mut self, id: usize) -> Result<(), String> {
        let plan = self.plan(id).ok_or("no annotation")?;
        let (_, outputs) = self.api.deliver(vec![plan]);
        self.route(outputs, None)
    }

    fn change_membership(&mut self, is_member: bool) -> Result<(), String> {
        let held: Vec<bool> = (0..self.annotations.len())
            .map(|id| self.is_held(id) && self.is_ready)
            .collect();
        let step = self.step;
        for receiver in &mut self.receivers {
            if receiver.kind != Kind::Member {
                continue;
            }
            let connection = receiver.connection.as_ref().filter(|it| !it.is_closed);
            let is_open = connection.is_some();
            let realtime = &self.api.realtime;
            let progress = connection.and_then(|it| {
                let key = key(it.index);
                let mut pending = realtime.reconciles.progress();
                pending.find_map(|(of, progress)| (of == key).then_some(progress))
            });
            // Two changes are one if nothing has been sent by the memberships in between.
            let is_pending = |annotation: &Annotation| {
                progress.as_ref().is_some_and(|progress| {
                    let unreached = progress.reached + 1..=progress.start;
                    !progress.is_started || unreached.contains(&annotation.position)
                })
            };
            for (id, annotation) in self.annotations.iter().enumerate() {
                let Some(annotation) = annotation else {
                    continue;
                };
                let is_reconciled = is_open && held[id];
                let may_lack = receiver.may_lack(id);
                let promise = &mut receiver.promises[id];
                let could_read = annotation.is_for(receiver.kind, !is_member);
                let may_read = annotation.is_for(receiver.kind, is_member);
                promise.was_readable |= may_read || (is_member && annotation.was_group);
                // If messages are lost, the server cannot know by which membership.
                promise.is_due_while_connected |= is_member && may_lack;
                if is_member && may_read && !could_read {
                    if is_reconciled && is_pending(annotation) {
                        promise.is_due_while_connected = true;
                    } else if is_reconciled {
                        promise.is_due = receiver.is_known;
                        promise.is_due_while_connected = true;
                    } else {
                        promise.is_due &= promise.has_event_since;
                    }
                } else if is_member && !is_reconciled && !receiver.view.contains_key(&id) {
                    promise.is_due &= promise.has_event_since;
                } else if !is_member {
                    promise.may_be_stale_if_lost |= is_reconciled;
                    promise.set_stale(!is_reconciled, step);
                }
            }
        }
        self.is_member = is_member;
        let outputs = self.api.backend_event(BackendEvent::Memberships {
            userid: Kind::MEMBER.into(),
            memberships: memberships(is_member),
        });
        self.route(outputs, None)
    }

    fn connect(&mut self, number: usize) -> Result<(), String> {
        let index = self.next_index();
        let (now, step) = (self.api.now.mono, self.step);
        let receiver = &mut self.receivers[number];
        if let Some(old) = receiver.connection.take() {
            receiver.lose_unread(&old, step);
            if !old.is_closed {
                receiver.disconnected(step);
                receiver.old = Some(old);
            }
        }
        receiver.connection = Some(Connection {
            index,
            inbox: std::collections::VecDeque::new(),
            is_closed: false,
            has_output: false,
            last_received: now,
        });
        let groups: &[_] = match self.is_member {
            true => &[("g", Role::Member)],
            false => &[],
        };
        match self.receivers[number].kind {
            Kind::Anonymous => drop(self.api.open(index)),
            Kind::Member => self.api.open_as(index, identity(Kind::MEMBER, 1, groups)),
            Kind::Author => self.api.open_as(index, identity(Kind::AUTHOR, 2, &[])),
        }
        match self.receivers[number].protocol {
            Protocol::Cursors => self.set_filter_with_cursor(number, index),
            Protocol::ClientId => self.set_client_and_filter(number, index),
        }
    }

    fn set_filter_with_cursor(&mut self, number: usize, index: u32) -> Result<(), String> {
        let since = self.receivers[number].cursor.as_deref().unwrap_or("now");
        let filter = self.instance.filter(number);
        let text = format!(r#"{{"type":"filter","id":3,"since":"{since}","filter":{filter}}}"#);
        let outputs = self.api.text(index, &text);
        self.route(outputs, Some(index))
    }

    fn set_client_and_filter(&mut self, number: usize, index: u32) -> Result<(), String> {
        if !self.receivers[number].is_known {
            let snapshot = self.snapshot(number);
            self.receivers[number].reset_promises(&snapshot);
            self.receivers[number].reload(snapshot, self.step);
            // Until the history is ready, the client is remembered only while it is connected.
            self.receivers[number].is_known = self.is_ready;
        }
        let client = client_id(number);
        let text = format!(r#"{{"messageType":"client_id","value":"{client}"}}"#);
        let outputs = self.api.text(index, &text);
        self.route(outputs, Some(index))?;
        let filter = self.instance.filter(number);
        let outputs = self.api.text(index, &format!(r#"{{"filter":{filter}}}"#));
        self.route(outputs, Some(index))
    }

    pub(super) fn lose(&mut self, number: usize) {
        let step = self.step;
        let receiver = &mut self.receivers[number];
        if let Some(connection) = receiver.connection.take() {
            receiver.lose_unread(&connection, step);
            if !connection.is_closed {
                receiver.disconnected(step);
                self.api.lose(connection.index, connection.last_received);
            }
        }
    }

    /// A client reads at most `max` messages.
    pub(super) fn read(&mut self, number: usize, max: usize) -> Result<(), String> {
        let now = self.api.now.mono;
        let Some(connection) = &mut self.receivers[number].connection else {
            return Ok(());
        };
        let (index, is_open) = (connection.index, !connection.is_closed);
        let count = connection.inbox.len().min(max);
        let messages: Vec<Message> = connection.inbox.drain(..count).collect();
        let is_drained = connection.inbox.is_empty();
        // A client that has not read everything may not have received it.
        if is_drained {
            connection.last_received = now;
        }
        for message in messages {
            self.check_read(number, message)?;
        }
        if is_open && is_drained {
            self.api.set_last_received(index, now);
            let outputs = self.api.set_blocked(index, false);
            self.route(outputs, Some(index))?;
        }
        Ok(())
    }

    /// Continues with replays. Returns whether more can be sent at once.
    pub(super) fn turn(&mut self) -> Result<bool, String> {
        let (has_more, outputs) = self.api.call(|realtime, cx| realtime.replay_queued(cx));
        self.route(outputs, None)?;
        Ok(has_more)
    }

    fn wait(&mut self, millis: u64) -> Result<(), String> {
        let mut now = self.api.now;
        now.mono += millis;
        now.unix += millis;
        self.api.now = now;
        for number in 0..self.receivers.len() {
            let is_dead = |it: &Connection| now.mono - it.last_received > SILENCE;
            if self.receivers[number]
                .connection
                .as_ref()
                .is_some_and(is_dead)
            {
                self.lose(number);
            }
            if self.receivers[number].old.as_ref().is_some_and(is_dead) {
                self.apply(Op::LoseOld(number))?;
            }
        }
        if self.instance.is_process && self.is_ready {
            let all_sent = now.unix - LAG - 1;
            self.api.realtime.set_watermark(all_sent);
        }
        let outputs = self.api.tick(now);
        self.route(outputs, None)
    }
}

/// Returns the memberships of the member.
fn memberships(is_member: bool) -> Vec<Membership> {
    let membership = Membership {
        group: "g".into(),
        role: Role::Member,
    };
    is_member.then_some(membership).into_iter().collect()
}

/// The number of former states of an annotation that the history remembers.
const MAX_PAST: usize = 4;
/// The time after which the backend notices a change, in milliseconds.
const LAG: u64 = 1500;
const HOUR: u64 = 3_600_000;

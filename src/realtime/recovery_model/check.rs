//! The delivery contract, stated in terms of what a client has read and what it may read.

use std::collections::BTreeMap;

use crate::realtime::session::SessionFlag;
use crate::realtime::testing::key;

use super::annotation::State;
use super::operations::Op;
use super::receiver::{Message, Protocol, Receiver};
use super::world::World;

impl World<'_> {
    /// A message has been sent: the receiver must be allowed to read it now.
    pub(super) fn check_sent(
        &mut self,
        number: usize,
        is_old: bool,
        message: &Message,
    ) -> Result<(), String> {
        let is_member = self.is_member;
        let receiver = &self.receivers[number];
        match message {
            Message::Upsert { id, version, .. } => {
                let annotation = self.annotations[*id].as_ref().ok_or("does not exist")?;
                if !annotation.is_for(receiver.kind, is_member) {
                    return Err(format!("{number} may not read {id} now: {annotation:?}"));
                }
                if annotation.version != *version {
                    return Err(format!("{number} is sent an old state of {id}"));
                }
            }
            Message::Delete { id, .. } => {
                let annotation = self.annotations[*id].as_ref().ok_or("does not exist")?;
                let is_event = !annotation.is_rights_change && annotation.state == State::Deleted;
                let may_read = annotation.before.is_readable(receiver.kind, is_member);
                let was_readable = receiver.promises[*id].was_readable;
                if !was_readable && (!is_event || !may_read) {
                    return Err(format!("{number} could never read {id}"));
                }
                let is_deleted = annotation.state == State::Deleted;
                if !is_deleted && annotation.is_for(receiver.kind, is_member) {
                    return Err(format!("{number} may read {id}, and is sent a deletion"));
                }
            }
            Message::Resumed {
                is_recovered,
                snapshot,
                ..
            } => {
                if !receiver.is_known || !is_recovered {
                    self.check_gap(number, is_old, receiver.is_known, &snapshot.clone())?;
                }
            }
            Message::Gap { snapshot, .. } => {
                self.check_gap(number, is_old, true, &snapshot.clone())?
            }
            Message::Mark { .. } | Message::Closed => {}
        }
        Ok(())
    }

    /// A gap has been reported: it must be one, and precede everything else.
    fn check_gap(
        &mut self,
        number: usize,
        is_old: bool,
        is_gap: bool,
        snapshot: &BTreeMap<usize, u64>,
    ) -> Result<(), String> {
        let has_evicted = self.api.realtime.history.floor() > 0;
        let receiver = &mut self.receivers[number];
        if is_gap && !receiver.may_have_gap && !has_evicted {
            return Err(format!("{number} has missed nothing, and is told of a gap"));
        }
        let connection = receiver.connection.as_ref();
        if !is_old && connection.is_some_and(|it| it.has_output) {
            return Err(format!("{number} is told of a gap after other messages"));
        }
        if !is_old {
            receiver.reset_promises(snapshot);
        }
        Ok(())
    }

    /// A client has read a message.
    pub(super) fn check_read(&mut self, number: usize, message: Message) -> Result<(), String> {
        let receiver = &mut self.receivers[number];
        match message {
            Message::Upsert {
                id,
                version,
                step,
                cursor,
            } => {
                let promise = &mut receiver.promises[id];
                let annotation = self.annotations[id].as_ref();
                let is_own = receiver.protocol == Protocol::ClientId
                    && annotation
                        .is_some_and(|it| it.author == Some(number) && !it.is_rights_change)
                    && promise.stale_since.is_none();
                if is_own && receiver.view.get(&id) == Some(&version) {
                    return Err(format!("{number} is sent its own event about {id}"));
                }
                if version < promise.newest {
                    return Err(format!("{number} reads {id} in the wrong order"));
                }
                promise.newest = version;
                promise.update(step);
                if promise.own_since.is_none_or(|own| own < step) {
                    receiver.view.insert(id, version);
                }
                receiver.keep(cursor)?;
            }
            Message::Delete { id, step, cursor } => {
                let promise = &mut receiver.promises[id];
                promise.update(step);
                if promise.own_since.is_none_or(|own| own < step) {
                    receiver.view.remove(&id);
                }
                receiver.keep(cursor)?;
            }
            Message::Resumed {
                is_recovered,
                cursor,
                snapshot,
                step,
            } => {
                if !receiver.is_known || !is_recovered {
                    receiver.reload(snapshot, step);
                }
                receiver.is_known = true;
                receiver.keep(Some(cursor))?;
            }
            Message::Gap { snapshot, step } => receiver.reload(snapshot, step),
            Message::Mark { cursor } => receiver.keep(Some(cursor))?,
            Message::Closed => receiver.connection = None,
        }
        Ok(())
    }

    /// Lets all clients connect and read everything, and checks what they have.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        if !self.is_ready {
            self.ready()?;
        }
        for _ in 0..MAX_ROUNDS {
            let mut is_settled = true;
            for number in 0..self.receivers.len() {
                self.read(number, usize::MAX)?;
                if self.receivers[number].connection.is_none() {
                    self.apply(Op::LoseOld(number))?;
                    self.apply(Op::Connect(number))?;
                    is_settled = false;
                }
            }
            is_settled &= !self.turn()?;
            let has_unread = |receiver: &Receiver| {
                let connection = receiver.connection.as_ref();
                connection.is_some_and(|it| !it.inbox.is_empty())
            };
            is_settled &= !self.receivers.iter().any(has_unread);
            if is_settled {
                return self.check_settled();
            }
        }
        Err("replays do not end".to_owned())
    }

    fn check_settled(&mut self) -> Result<(), String> {
        self.check_tables()?;
        for (number, receiver) in self.receivers.iter().enumerate() {
            if receiver.must_have_gap {
                return Err(format!("{number} has not been told of a gap"));
            }
            for (id, annotation) in self.annotations.iter().enumerate() {
                let Some(annotation) = annotation else {
                    continue;
                };
                let promise = receiver.promises[id];
                let is_for = annotation.is_for(receiver.kind, self.is_member);
                let may_read = annotation.state.is_readable(receiver.kind, self.is_member);
                // Connections are reconciled with what the history has.
                let is_reconciled = self.is_held(id)
                    || (!promise.is_due_while_connected && !promise.may_be_stale_if_lost);
                let problem = match receiver.view.get(&id) {
                    _ if !is_reconciled => continue,
                    None if is_for && promise.is_due => "has not been sent",
                    Some(_) if promise.stale_since.is_some() => continue,
                    Some(version) if is_for && *version != annotation.version => "has an old",
                    Some(_) if !may_read => "still has the unreadable",
                    _ => continue,
                };
                return Err(format!(
                    "{number} {problem} {id}: {annotation:?} {promise:?} {:?}",
                    receiver.view
                ));
            }
        }
        Ok(())
    }
}

impl World<'_> {
    /// Checks the tables of the API: a connection is marked as in a replay if it is in one.
    pub(super) fn check_tables(&self) -> Result<(), String> {
        let connections = self.receivers.iter();
        let connections = connections.flat_map(|receiver| [&receiver.connection, &receiver.old]);
        let open: Vec<u32> = connections
            .flatten()
            .filter(|it| !it.is_closed)
            .map(|it| it.index)
            .collect();
        let realtime = &self.api.realtime;
        realtime.check_invariants(|key| open.contains(&key.slot()))?;
        for index in open {
            let session = self.api.session(index);
            let is_replaying = session.is_some_and(|it| it.has(SessionFlag::Replaying));
            if is_replaying != realtime.is_replaying(key(index)) {
                return Err(format!("{index} is in a replay, or marked as such"));
            }
        }
        Ok(())
    }
}

impl Receiver {
    /// The client reads all annotations: nothing from before is promised.
    pub(super) fn reset_promises(&mut self, snapshot: &BTreeMap<usize, u64>) {
        for (id, promise) in self.promises.iter_mut().enumerate() {
            promise.is_due = snapshot.contains_key(&id);
            promise.stale_since = None;
            promise.has_event_since = false;
            promise.was_readable |= promise.is_due;
        }
    }

    fn keep(&mut self, cursor: Option<String>) -> Result<(), String> {
        match (self.protocol, cursor) {
            (Protocol::Cursors, Some(cursor)) => self.cursor = Some(cursor),
            (Protocol::ClientId, None) => {}
            (protocol, cursor) => return Err(format!("{cursor:?} for {protocol:?}")),
        }
        Ok(())
    }
}

/// The number of rounds in which all clients must have read everything.
const MAX_ROUNDS: usize = 40;

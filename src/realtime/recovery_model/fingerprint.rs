//! A number for each distinct state. Positions and versions are replaced by their ranks, and times by
//! the distance from now, so that states that differ only in these numbers are one.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::{Cause, Rule};
use crate::net::ConnKey;
use crate::realtime::LoadedClients;
use crate::realtime::digest::Digest;
use crate::realtime::history::{Cursor, ReplayCursor};
use crate::realtime::testing::key;

use super::annotation::State;
use super::receiver::{Connection, Message};
use super::world::World;

/// The parts of a state.
#[derive(Default)]
struct Parts {
    parts: Vec<(Kind, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Raw,
    Position,
    Version,
    Step,
}

impl Parts {
    fn raw(&mut self, value: impl Hash) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        self.parts.push((Kind::Raw, hasher.finish()));
    }

    fn position(&mut self, position: u64) {
        self.parts.push((Kind::Position, position));
    }

    fn version(&mut self, version: u64) {
        self.parts.push((Kind::Version, version));
    }

    fn step(&mut self, step: u64) {
        self.parts.push((Kind::Step, step));
    }

    fn cursor(&mut self, text: Option<&str>) {
        let cursor = text.and_then(ReplayCursor::parse);
        self.received(cursor.map(|cursor| cursor.cursor));
        self.position(cursor.map_or(0, |cursor| cursor.from));
    }

    fn received(&mut self, received: Option<Cursor>) {
        self.raw(received.map(|received| received.epoch));
        self.position(received.map_or(0, |received| received.position));
    }

    fn finish(mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for kind in [Kind::Position, Kind::Version, Kind::Step] {
            let numbers = self.parts.iter().filter(|(of, _)| *of == kind);
            let mut ranks: Vec<u64> = numbers.map(|(_, number)| *number).collect();
            ranks.push(0);
            ranks.sort_unstable();
            ranks.dedup();
            for (of, number) in &mut self.parts {
                if *of == kind {
                    *number = ranks.partition_point(|rank| rank < number) as u64;
                }
            }
        }
        self.parts.hash(&mut hasher);
        hasher.finish()
    }
}

impl World<'_> {
    pub(super) fn fingerprint(&self) -> u64 {
        let mut parts = Parts::default();
        parts.raw((self.is_member, self.epoch, self.is_ready));
        parts.position(self.position);
        for annotation in &self.annotations {
            parts.raw(annotation.is_some());
            if let Some(annotation) = annotation {
                parts.raw((annotation.state, annotation.before, annotation.author));
                parts.raw((annotation.is_rights_change, annotation.past.len()));
                parts.version(annotation.version);
                parts.position(annotation.position);
                parts.position(annotation.event_position);
            }
        }
        for receiver in &self.receivers {
            parts.raw((
                receiver.is_known,
                receiver.may_have_gap,
                receiver.must_have_gap,
            ));
            for id in 0..self.annotations.len() {
                parts.version(receiver.view.get(&id).copied().unwrap_or_default());
                let mut promise = receiver.promises[id];
                parts.version(promise.newest);
                promise.newest = 0;
                parts.step(promise.own_since.take().map_or(0, |since| since + 1));
                parts.step(promise.stale_since.take().map_or(0, |since| since + 1));
                parts.raw(promise);
            }
            parts.cursor(receiver.cursor.as_deref());
            self.connection(&mut parts, receiver.connection.as_ref());
            self.connection(&mut parts, receiver.old.as_ref());
        }
        self.server(&mut parts);
        parts.finish()
    }

    fn connection(&self, parts: &mut Parts, connection: Option<&Connection>) {
        let Some(connection) = connection else {
            return parts.raw(false);
        };
        let now = self.api.now.mono;
        parts.raw((connection.is_closed, connection.has_output));
        parts.raw(now - connection.last_received);
        for message in &connection.inbox {
            match message {
                Message::Upsert {
                    id,
                    version,
                    step,
                    cursor,
                } => {
                    parts.step(*step + 1);
                    parts.raw(("upsert", id));
                    parts.version(*version);
                    parts.cursor(cursor.as_deref());
                }
                Message::Delete { id, step, cursor } => {
                    parts.step(*step + 1);
                    parts.raw(("delete", id));
                    parts.cursor(cursor.as_deref());
                }
                Message::Resumed {
                    is_recovered,
                    cursor,
                    step,
                    ..
                } => {
                    parts.raw(("resumed", is_recovered));
                    parts.cursor(Some(cursor));
                    parts.step(*step + 1);
                }
                Message::Gap { step, .. } => {
                    parts.raw("gap");
                    parts.step(*step + 1);
                }
                Message::Mark { cursor } => {
                    parts.raw("mark");
                    parts.cursor(Some(cursor));
                }
                Message::Closed => parts.raw("closed"),
            }
        }
        let session = self.api.session(connection.index);
        parts.raw(session.map(|session| session.flags()));
        let realtime = &self.api.realtime;
        let is_it = |key: ConnKey| key.slot() == connection.index;
        let key = key(connection.index);
        if let Some((from, position, is_queued)) = realtime.replays.progress(key) {
            parts.raw(is_queued);
            parts.position(from);
            parts.position(position);
        }
        for (_, progress) in realtime
            .reconciles
            .progress()
            .filter(|(key, ..)| is_it(*key))
        {
            let (resumed, replayed) = progress.replay;
            parts.raw(("reconcile", progress.is_started, progress.memberships));
            parts.raw((resumed.is_some(), replayed.is_some()));
            for position in [
                progress.start,
                progress.end,
                progress.reached,
                progress.position,
            ] {
                parts.position(position);
            }
            parts.raw(progress.settled.len());
            for (until, index) in progress.settled {
                parts.position(until);
                parts.raw(index);
            }
            parts.position(resumed.unwrap_or_default());
            parts.position(replayed.unwrap_or_default());
        }
        parts.raw(realtime.resumption.is_waiting(key));
        let end = realtime.resumption.receipts.end(key);
        parts.raw(end.map(|end| now - end));
        for (_, due, position) in realtime.resumption.marks().filter(|(key, ..)| is_it(*key)) {
            parts.raw(due.saturating_sub(now));
            parts.position(position);
        }
    }

    fn server(&self, parts: &mut Parts) {
        let realtime = &self.api.realtime;
        let now = self.api.now.mono;
        let history = &realtime.history;
        parts.position(history.floor());
        parts.position(history.head());
        for (position, entry) in history.iter() {
            parts.position(position);
            parts.position(entry.event_position);
            parts.raw(entry.plan.cause == Cause::Event);
            parts.raw((&entry.subject, rules_number(&entry.plan.rules)));
            parts.raw(&entry.terms);
            for past in &entry.past {
                parts.position(past.until);
                parts.raw((rules_number(&past.rules), &past.terms));
            }
        }
        for (at, position) in history.samples() {
            parts.raw((now - at).min(MAX_AGE));
            parts.position(position);
        }
        parts.raw((now - realtime.resumption.last_alive).min(MAX_AGE));
        for number in 0..self.receivers.len() {
            let client = self.client_digest(number);
            parts.received(realtime.clients.position(client));
            received(parts, &self.log.load(), client);
            received(parts, &self.log.load_truncated(), client);
        }
        parts.raw(self.log.wants_rewrite());
    }
}

fn received(parts: &mut Parts, clients: &LoadedClients, client: Digest) {
    let found = clients.clients.iter().find(|(known, _)| *known == client);
    parts.received(found.map(|(_, received)| *received));
}

fn rules_number(rules: &[Rule]) -> Option<usize> {
    let all = [State::Public, State::Group, State::Private, State::Hidden];
    all.iter().position(|state| state.rules() == rules)
}

/// The age in milliseconds beyond which times make no difference.
const MAX_AGE: u64 = 120_000;

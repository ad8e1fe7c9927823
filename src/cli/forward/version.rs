//! Versions: they distinguish the states of one annotation, and with it the ids of events.
//!
//! Owns: their text, and the memory of the states that have been received. Must not know the queue.
//!
//! A version is the event's place in the history, and whether the annotation is readable. A change of
//! memberships is not an event: its messages have the place of the newest one. If the user leaves a
//! group, joins it, and leaves it again meanwhile, the last state is a new one at a place at which the
//! annotation has been in this state before. Therefore every state after another one at the same or a
//! later place gets a number, so that receivers do not ignore it as a repetition.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::event::{Action, Digest, ForwardEvent, digest};
use super::queue::Changes;
use crate::realtime::{Cursor, ReplayCursor};

/// The newest states of annotations in one epoch of the history.
pub(super) struct VersionMemory {
    epoch: Option<u64>,
    known: HashMap<Digest, Known>,
    /// The position up to which an annotation that is not known may have been in any state.
    forgotten: Option<u64>,
    /// Earlier epochs, and the newest position of a state in each.
    former: VecDeque<(u64, u64)>,
    max: usize,
    next_number: u64,
}

#[derive(Clone, Copy)]
struct Known {
    /// The newest position of a state.
    newest: u64,
    /// The state that was received last. `None` if it is one of several.
    last: Option<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    position: u64,
    is_deleted: bool,
    /// 0 for the first state at its place.
    number: u64,
}

impl VersionMemory {
    /// Creates a memory with the stored events. Other events up to the stored position are not known.
    /// The numbers begin at a random one, so that they differ from those of earlier processes.
    pub(super) fn new(stored: &Changes, random: u64) -> Self {
        VersionMemory::with_max(stored, random, MAX_KNOWN)
    }

    fn with_max(stored: &Changes, random: u64, max: usize) -> Self {
        let position = stored.position.as_deref().and_then(ReplayCursor::parse);
        let mut memory = VersionMemory {
            epoch: position.map(|position| position.cursor.epoch),
            known: HashMap::new(),
            forgotten: position.map(|position| position.cursor.position),
            former: VecDeque::new(),
            max,
            next_number: random,
        };
        for (id, version) in &stored.acknowledged {
            memory.restore(id, version, false);
        }
        // Their requests may have had an effect, before or after those of the acknowledged events.
        for (id, version, _) in &stored.failing {
            memory.restore(id, version, true);
        }
        memory
    }

    /// Adds a stored event. The server does not repeat those up to the stored position, and they need
    /// not be the last ones: others that were acknowledged while no older one was pending are not stored.
    fn restore(&mut self, id: &str, version: &str, is_failing: bool) {
        let Some((epoch, state)) = parse(version) else {
            return;
        };
        let is_forgotten = self.forgotten.is_some_and(|until| state.position <= until);
        if *self.epoch.get_or_insert(epoch) != epoch || is_forgotten {
            return;
        }
        let key = digest(&[id]);
        let former = self.known.get(&key).copied();
        let last = former.and_then(|former| former.last);
        let is_contradictory = |last: State| last != state && last.position == state.position;
        let last = match last {
            Some(last) if is_failing && is_contradictory(last) => None,
            Some(last) if is_failing && last.position > state.position => Some(last),
            _ => Some(state),
        };
        let newest = former.map_or(0, |former| former.newest).max(state.position);
        self.insert(key, Known { newest, last });
    }

    /// Distinguishes the version of a received event from those of other states at the same place. The
    /// same state again has the same version.
    pub(super) fn distinguish(&mut self, event: &mut ForwardEvent) {
        // The places of other servers' cursors are unknown.
        let Some(ReplayCursor { cursor, .. }) = ReplayCursor::parse(&event.cursor) else {
            return;
        };
        self.enter(cursor.epoch);
        let (position, is_deleted) = (cursor.position, event.action == Action::Delete);
        let key = digest(&[&event.id]);
        let former = self.known.get(&key).copied();
        let is_same = |last: &State| (last.position, last.is_deleted) == (position, is_deleted);
        let last = former.and_then(|former| former.last).filter(is_same);
        let newest = former.map_or(self.forgotten, |former| Some(former.newest));
        let number = match last {
            Some(last) => last.number,
            None if newest.is_none_or(|newest| newest < position) => 0,
            None => self.number(),
        };
        let state = State {
            position,
            is_deleted,
            number,
        };
        let known = Known {
            newest: newest.map_or(position, |newest| newest.max(position)),
            last: Some(state),
        };
        self.insert(key, known);
        event.version = text(&place(cursor), is_deleted, number);
    }

    /// Positions of other epochs cannot be compared. An earlier epoch returns if the client reconnects
    /// to another instance of the server, and then to the former one.
    fn enter(&mut self, epoch: u64) {
        let left = self.epoch.replace(epoch);
        if left == Some(epoch) {
            return;
        }
        let newest = self.known.values().map(|known| known.newest).max();
        let newest = newest.max(self.forgotten);
        self.known.clear();
        let index = self.former.iter().position(|(former, _)| *former == epoch);
        let returned = index.and_then(|index| self.former.remove(index));
        self.forgotten = returned.map(|(_, newest)| newest);
        if self.former.len() >= MAX_FORMER {
            self.former.pop_front();
        }
        self.former.extend(left.zip(newest));
    }

    fn insert(&mut self, key: Digest, known: Known) {
        if self.known.len() >= self.max && !self.known.contains_key(&key) {
            self.forget_half();
        }
        self.known.insert(key, known);
    }

    /// Forgets the older half, or more if they are at the same place.
    fn forget_half(&mut self) {
        let mut newest: Vec<u64> = self.known.values().map(|known| known.newest).collect();
        let middle = newest.len() / 2;
        if middle < newest.len() {
            let (_, &mut until, _) = newest.select_nth_unstable(middle);
            self.known.retain(|_, known| known.newest > until);
            self.forgotten = self.forgotten.max(Some(until));
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number.max(1);
        self.next_number = number.wrapping_add(1);
        number
    }
}

/// Returns the version of the first state at its place. A cursor has this place; its
/// other parts may differ when the event is received again. Of other servers' cursors, the whole text
/// is used.
pub(super) fn version(cursor: &str, action: Action) -> String {
    let is_deleted = action == Action::Delete;
    match ReplayCursor::parse(cursor) {
        Some(parsed) => text(&place(parsed.cursor), is_deleted, 0),
        None => text(cursor, is_deleted, 0),
    }
}

fn text(place: &str, is_deleted: bool, number: u64) -> String {
    let deleted = if is_deleted { "-" } else { "" };
    match number {
        0 => format!("{place}{deleted}"),
        number => format!("{place}{deleted}.{number:x}"),
    }
}

/// Returns the epoch and the state of a version.
fn parse(version: &str) -> Option<(u64, State)> {
    let (place, rest) = version.split_at_checked(PLACE_LEN)?;
    // The last character has the remaining bits of the time's first byte.
    let bytes = URL_SAFE_NO_PAD.decode(format!("{place}A")).ok()?;
    let (numbers, _) = bytes.get(1..)?.as_chunks();
    let &[epoch, position] = numbers else {
        return None;
    };
    let (is_deleted, number) = match rest.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, rest),
    };
    let number = match number.strip_prefix('.') {
        Some(number) => u64::from_str_radix(number, 16).ok()?,
        None if number.is_empty() => 0,
        None => return None,
    };
    let state = State {
        position: u64::from_be_bytes(position),
        is_deleted,
        number,
    };
    Some((u64::from_be_bytes(epoch), state))
}

/// Returns the part of a cursor's text before its time.
fn place(cursor: Cursor) -> String {
    let mut text = cursor.encode();
    text.truncate(PLACE_LEN);
    text
}

/// The length of the part of a cursor's text before its time.
const PLACE_LEN: usize = 23;
/// The maximum number of annotations of which the newest state is known: about 6 MiB. The oldest are
/// forgotten first. At a place up to which any have been forgotten, the event of an unknown annotation
/// may be a repetition or not: it gets a number, since a state that is sent twice is better than one
/// that is ignored.
const MAX_KNOWN: usize = 100_000;
/// The maximum number of earlier epochs of which the newest position is known.
const MAX_FORMER: usize = 64;

#[cfg(test)]
mod tests;

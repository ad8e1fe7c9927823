//! The annotations that the history holds: the state of each when it was last sent.
//!
//! Owns: the decision whether a state has been sent, and the bound on their number. It holds no
//! content.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::facts::{Facts, Purpose, Rights, RowState};
use crate::backend::h::ids::Uuid;
use crate::model::UnixMillis;

/// The annotations by id, and by position.
pub(in crate::backend::h) struct HeldTable {
    entries: HashMap<Uuid, Held>,
    order: BTreeMap<u64, Uuid>,
    /// Userids and groups, shared by entries.
    names: HashSet<Rc<str>>,
    /// Annotations that could not be converted into a plan, in this state.
    unreadable: HashMap<Uuid, RowState>,
    max: usize,
}

/// The last state of an annotation that was sent.
#[derive(Clone, Debug)]
pub(in crate::backend::h) struct Held {
    pub state: RowState,
    pub author: Rc<str>,
    pub group: Rc<str>,
    pub document: i32,
    /// See [`Facts::size`].
    pub size: usize,
    pub muted: bool,
    pub group_rights: u64,
    pub checkpoint: u64,
    pub rules: u64,
    /// The client that caused this state.
    pub client: Option<Box<str>>,
    pub origin: Origin,
    pub position: u64,
    pub time: UnixMillis,
}

/// The names with rights on which the receivers of annotations depend.
#[derive(Clone, Debug, Default)]
pub(in crate::backend::h) struct Names {
    /// The userids of authors.
    pub authors: Vec<Rc<str>>,
    pub groups: Vec<Rc<str>>,
}

/// The reason why an annotation was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::h) enum Origin {
    /// An event from the queue.
    Queue,
    /// A sweep found the change.
    Sweep,
    /// A sweep found that the receivers have changed.
    RightsChange,
    /// It was restored at the start, and not delivered.
    Fill,
}

impl HeldTable {
    /// Creates an empty table for a history of this size in bytes.
    pub(in crate::backend::h) fn new(memory: usize) -> HeldTable {
        HeldTable {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            names: HashSet::new(),
            unreadable: HashMap::new(),
            max: (memory / SMALLEST_PLAN).max(MIN_HELD),
        }
    }

    /// Returns the last state of an annotation that was sent.
    pub(in crate::backend::h) fn get(&self, id: Uuid) -> Option<&Held> {
        self.entries.get(&id)
    }

    /// Returns the ids and sizes of all annotations that were not deleted.
    pub(in crate::backend::h) fn live(&self) -> Vec<(Uuid, usize)> {
        let live = self.entries.iter().filter(|(_, held)| !held.state.deleted);
        live.map(|(id, held)| (*id, held.size)).collect()
    }

    /// Returns the distinct authors and groups of all annotations that were not deleted.
    pub(in crate::backend::h) fn names(&self) -> Names {
        let live = || self.entries.values().filter(|held| !held.state.deleted);
        let authors: HashSet<_> = live().map(|held| Rc::clone(&held.author)).collect();
        let groups: HashSet<_> = live().map(|held| Rc::clone(&held.group)).collect();
        Names {
            authors: authors.into_iter().collect(),
            groups: groups.into_iter().collect(),
        }
    }

    /// Records that an annotation was sent, in place of its earlier state.
    pub(in crate::backend::h) fn record(
        &mut self,
        facts: &Facts,
        client: Option<Box<str>>,
        origin: Origin,
        (position, time): (u64, UnixMillis),
    ) {
        let held = Held {
            state: facts.state,
            author: self.shared(&facts.author),
            group: self.shared(&facts.group),
            document: facts.document,
            size: facts.size,
            muted: facts.muted,
            group_rights: facts.group_rights,
            checkpoint: facts.checkpoint,
            rules: facts.rules,
            client,
            origin,
            position,
            time,
        };
        self.unreadable.remove(&facts.id);
        if let Some(before) = self.entries.insert(facts.id, held) {
            self.order.remove(&before.position);
        }
        self.order.insert(position, facts.id);
        while self.entries.len() > self.max {
            self.forget_oldest();
        }
    }

    /// Records that the rights on an annotation have been read again and have not changed its
    /// receivers.
    pub(in crate::backend::h) fn refresh(&mut self, facts: &Facts) {
        if let Some(held) = self.entries.get_mut(&facts.id)
            && held.state == facts.state
        {
            held.muted = facts.muted;
            held.group_rights = facts.group_rights;
            held.checkpoint = facts.checkpoint;
        }
    }

    /// Records that an annotation cannot be converted into a plan.
    pub(in crate::backend::h) fn record_unreadable(&mut self, id: Uuid, state: RowState) {
        if self.unreadable.len() >= MAX_UNREADABLE {
            self.unreadable.clear();
        }
        self.unreadable.insert(id, state);
    }

    /// Removes an annotation.
    pub(in crate::backend::h) fn remove(&mut self, id: Uuid) {
        if let Some(held) = self.entries.remove(&id) {
            self.order.remove(&held.position);
        }
    }

    /// Returns whether this state of a row was sent, or cannot be.
    pub(in crate::backend::h) fn is_known(&self, id: Uuid, state: &RowState) -> bool {
        self.entries
            .get(&id)
            .is_some_and(|held| held.state == *state)
            || self.unreadable.get(&id) == Some(state)
    }

    /// Returns whether a sweep has already delivered exactly this state, so that a later event from
    /// the queue would be a duplicate.
    pub(in crate::backend::h) fn was_swept(&self, facts: &Facts) -> bool {
        self.entries.get(&facts.id).is_some_and(|held| {
            held.origin == Origin::Sweep && held.state == facts.state && held.rules == facts.rules
        })
    }

    /// Returns the reason to send an annotation that a sweep has read, or `None` if this state was
    /// sent.
    pub(in crate::backend::h) fn purpose(&self, facts: &Facts) -> Option<Purpose> {
        let Some(held) = self.entries.get(&facts.id) else {
            return Some(Purpose::Event);
        };
        let (was, is) = (held.state, facts.state);
        if (was.updated, was.deleted) != (is.updated, is.deleted) {
            return Some(Purpose::Event);
        }
        let is_same = was.status == is.status && held.rules == facts.rules;
        (!is_same).then_some(Purpose::RightsChange)
    }

    /// Returns the client that caused this state of an annotation, if the state was sent before.
    pub(in crate::backend::h) fn client(&self, facts: &Facts) -> Option<Box<str>> {
        let held = self.entries.get(&facts.id)?;
        (held.state.updated == facts.state.updated).then(|| held.client.clone())?
    }

    /// Returns the annotations on which the rights may have changed, in the order in which they were
    /// sent.
    pub(in crate::backend::h) fn changed_rights(&self, rights: &Rights) -> Vec<(Uuid, usize)> {
        let mut changed: Vec<(u64, Uuid, usize)> = Vec::new();
        for (id, held) in self.entries.iter().filter(|(_, held)| !held.state.deleted) {
            let group = rights.groups.get(&*held.group);
            let checkpoint = |group: &super::GroupRights| {
                let is_active = group.documents.contains(&held.document);
                if is_active { group.checkpoint } else { 0 }
            };
            let has_changed = held.muted != rights.muted.contains(&*held.author)
                || group.is_some_and(|group| group.rights != held.group_rights)
                || group.is_some_and(|group| checkpoint(group) != held.checkpoint);
            if has_changed {
                changed.push((held.position, *id, held.size));
            }
        }
        changed.sort_unstable();
        changed
            .into_iter()
            .map(|(_, id, size)| (id, size))
            .collect()
    }

    /// Forgets annotations that were last sent before `time`, and unused names.
    pub(in crate::backend::h) fn expire(&mut self, time: UnixMillis) {
        while let Some((_, id)) = self.order.first_key_value()
            && self.entries.get(id).is_some_and(|held| held.time < time)
        {
            self.forget_oldest();
        }
        self.names.retain(|name| Rc::strong_count(name) > 1);
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_first() {
            self.entries.remove(&id);
        }
    }

    fn shared(&mut self, name: &str) -> Rc<str> {
        if let Some(shared) = self.names.get(name) {
            return Rc::clone(shared);
        }
        // At most two names per annotation are in use.
        if self.names.len() >= 4 * self.max {
            self.names.retain(|name| Rc::strong_count(name) > 1);
        }
        let shared: Rc<str> = name.into();
        self.names.insert(Rc::clone(&shared));
        shared
    }
}

/// The smallest plan in the reactor's history, in bytes. The table must not hold fewer annotations
/// than the reactor: their rights would not be checked.
const SMALLEST_PLAN: usize = 512;
/// The least number of annotations to hold: at 500 events a second, those of the overlap.
const MIN_HELD: usize = 16_384;
/// The maximum number of annotations that are known to be unreadable.
const MAX_UNREADABLE: usize = 4096;

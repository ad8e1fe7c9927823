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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::h::history::GroupRights;
    use crate::backend::time::PgTime;

    fn facts(number: u128, updated: i64) -> Facts {
        Facts {
            id: Uuid(number.to_be_bytes()),
            state: RowState {
                updated: PgTime(updated),
                deleted: false,
                status: 0,
            },
            is_new: true,
            author: format!("acct:user{number}@b"),
            group: "g".to_owned(),
            document: 5,
            size: 100,
            muted: false,
            group_rights: 1,
            checkpoint: 0,
            rules: 7,
            read_at: PgTime(updated),
        }
    }

    fn table(count: u64) -> HeldTable {
        let mut table = HeldTable::new(1 << 20);
        for number in 1..=count {
            let facts = facts(u128::from(number), 1);
            table.record(&facts, None, Origin::Queue, (number, number));
        }
        table
    }

    #[test]
    fn oldest_annotations_are_forgotten_beyond_the_limit() {
        let max = u64::try_from(MIN_HELD).unwrap();
        let mut table = table(max + 10);
        assert_eq!(
            (table.entries.len(), table.order.len()),
            (MIN_HELD, MIN_HELD)
        );
        assert!(table.get(Uuid(10_u128.to_be_bytes())).is_none());
        assert!(table.get(Uuid(11_u128.to_be_bytes())).is_some());
        // A later state is a later position.
        let place = (max + 11, max + 11);
        table.record(&facts(11, 2), None, Origin::Queue, place);
        table.record(
            &facts(1_000_000, 2),
            None,
            Origin::Queue,
            (max + 12, max + 12),
        );
        assert!(table.get(Uuid(11_u128.to_be_bytes())).is_some());
        assert!(table.get(Uuid(12_u128.to_be_bytes())).is_none());
        assert_eq!(table.entries.len(), MIN_HELD);
        for number in 0..200_000 {
            let facts = facts(2_000_000 + u128::from(number), 2);
            let place = (2 * max + number, 2 * max + number);
            table.record(&facts, None, Origin::Queue, place);
            assert!(table.names.len() <= 4 * MIN_HELD);
        }
    }

    #[test]
    fn annotations_and_names_expire() {
        let mut table = table(100);
        table.expire(61);
        assert_eq!((table.entries.len(), table.order.len()), (40, 40));
        assert_eq!(table.names.len(), 41);
        let names = table.names();
        assert_eq!((names.authors.len(), names.groups.len()), (40, 1));
    }

    #[test]
    fn state_is_known_after_it_was_sent_or_found_unreadable() {
        let mut table = table(1);
        let (sent, other, later) = (facts(1, 1), facts(2, 1), facts(1, 2));
        assert!(table.is_known(sent.id, &sent.state));
        assert!(!table.is_known(later.id, &later.state));
        assert!(!table.is_known(other.id, &other.state));
        table.record_unreadable(other.id, other.state);
        assert!(table.is_known(other.id, &other.state));
        table.record(&other, None, Origin::Sweep, (2, 2));
        assert!(table.unreadable.is_empty());
        assert!(table.was_swept(&other) && !table.was_swept(&sent));
        assert!(!table.was_swept(&facts(2, 2)));
    }

    #[test]
    fn purpose_depends_on_the_difference() {
        let table = table(1);
        let same = facts(1, 1);
        assert_eq!(table.purpose(&same), None);
        assert_eq!(table.purpose(&facts(2, 1)), Some(Purpose::Event));
        assert_eq!(table.purpose(&facts(1, 2)), Some(Purpose::Event));
        let mut changed = facts(1, 1);
        changed.rules = 8;
        assert_eq!(table.purpose(&changed), Some(Purpose::RightsChange));
        let mut changed = facts(1, 1);
        changed.state.status = 8;
        assert_eq!(table.purpose(&changed), Some(Purpose::RightsChange));
        let mut changed = facts(1, 1);
        changed.state.deleted = true;
        assert_eq!(table.purpose(&changed), Some(Purpose::Event));
    }

    #[test]
    fn client_is_known_for_the_same_state_only() {
        let mut table = table(0);
        table.record(&facts(1, 1), Some("tab".into()), Origin::Queue, (1, 1));
        assert_eq!(table.client(&facts(1, 1)).as_deref(), Some("tab"));
        assert_eq!(table.client(&facts(1, 2)), None);
        assert_eq!(table.client(&facts(2, 1)), None);
    }

    #[test]
    fn changed_rights_are_found_in_order_of_positions() {
        let table = table(3);
        let mut rights = Rights::default();
        let group = |rights, documents: &[i32]| GroupRights {
            rights,
            checkpoint: 9,
            documents: documents.to_vec(),
        };
        let changed = |rights: &Rights| {
            let changed = table.changed_rights(rights).into_iter();
            changed
                .map(|(id, _)| u128::from_be_bytes(id.0))
                .collect::<Vec<_>>()
        };
        rights.groups.insert("g".to_owned(), group(1, &[]));
        assert_eq!(changed(&rights), []);
        rights.groups.insert("g".to_owned(), group(1, &[6]));
        assert_eq!(changed(&rights), []);
        rights.groups.insert("g".to_owned(), group(1, &[6, 5]));
        assert_eq!(changed(&rights), [1, 2, 3]);
        rights.groups.insert("g".to_owned(), group(2, &[]));
        assert_eq!(changed(&rights), [1, 2, 3]);
        rights.groups.clear();
        rights.muted.insert("acct:user2@b".to_owned());
        assert_eq!(changed(&rights), [2]);
    }
}

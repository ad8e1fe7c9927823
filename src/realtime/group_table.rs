//! Members in groups, which are found by a key: the subscriptions of a term, and the logins of a
//! user.
//!
//! Owns: a hash table of groups, and a doubly linked list of the members of each. Adding and
//! removing a member takes constant time, regardless of the size of its group. A group exists for
//! as long as it has a member. Must not know: the meaning of groups and members.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::slab::{NONE, Slab};

/// A table of groups and their members. Both are referenced by index.
#[derive(Default)]
pub(super) struct GroupTable<G, M> {
    groups: Slab<GroupEntry<G>>,
    members: Slab<M>,
    /// Indices into `groups`, by hash.
    table: HashTable<u32>,
}

/// A value that identifies a group.
pub(super) trait Group: Default {
    /// Returns the hash of the key.
    fn table_hash(&self) -> u64;

    /// Returns whether the keys are equal.
    fn has_same_key(&self, other: &Self) -> bool;
}

/// A value with its position in the list of a group.
pub(super) trait Member: Copy + Default {
    /// Returns the position.
    fn links(&self) -> &Links;

    /// Returns a mutable reference to the position.
    fn links_mut(&mut self) -> &mut Links;
}

/// The position of a member in the list of its group. It is part of the member rather than around
/// it, so that both share their padding.
#[derive(Clone, Copy)]
pub(super) struct Links {
    group: u32,
    next: u32,
    prev: u32,
}

struct GroupEntry<G> {
    group: G,
    /// The first member; [`NONE`] only in a vacant entry, and in a new group.
    head: u32,
}

impl<G: Group, M: Member> GroupTable<G, M> {
    /// The bytes of a member: itself, and the entry in the list of vacant slots once it is removed.
    pub(super) const MEMBER_BYTES: usize = size_of::<M>() + size_of::<u32>();
    /// The bytes of a group: likewise, plus its share of the hash table, which has an index and a
    /// control byte for each slot, and up to 2 × 8/7 times as many slots as entries.
    pub(super) const GROUP_BYTES: usize = size_of::<GroupEntry<G>>() + size_of::<u32>() + 12;

    /// Adds a member to the front of a group, which is created if necessary. Returns the indices of
    /// the group and the member.
    pub(super) fn insert(&mut self, group: G, member: M) -> (u32, u32) {
        let group = self.intern(group);
        (group, self.push(group, member))
    }

    /// Removes a member, and its group if it was the last one.
    pub(super) fn remove(&mut self, at: u32) -> Option<M> {
        let member = self.members.remove(at)?;
        self.unlink(*member.links());
        Some(member)
    }

    /// Returns the index of the group with a key.
    pub(super) fn find(&self, hash: u64, is_same: impl Fn(&G) -> bool) -> Option<u32> {
        let is_same = |&at: &u32| {
            let entry = self.groups.get(at);
            entry.is_some_and(|entry| is_same(&entry.group))
        };
        self.table.find(hash, is_same).copied()
    }

    /// Returns a group.
    pub(super) fn group(&self, at: u32) -> Option<&G> {
        self.groups.get(at).map(|entry| &entry.group)
    }

    /// Returns a mutable reference to a group, whose key must not change.
    pub(super) fn group_mut(&mut self, at: u32) -> Option<&mut G> {
        self.groups.get_mut(at).map(|entry| &mut entry.group)
    }

    /// Returns a member.
    pub(super) fn member(&self, at: u32) -> Option<&M> {
        self.members.get(at)
    }

    /// Returns a mutable reference to a member.
    pub(super) fn member_mut(&mut self, at: u32) -> Option<&mut M> {
        self.members.get_mut(at)
    }

    /// Returns all members.
    pub(super) fn members(&self) -> impl Iterator<Item = &M> {
        let slots = self.members.slots();
        slots.filter(|member| member.links().group != NONE)
    }

    /// Returns the members of a group, the latest first.
    pub(super) fn members_of(&self, group: u32) -> impl Iterator<Item = &M> {
        let mut at = self.groups.get(group).map_or(NONE, |entry| entry.head);
        std::iter::from_fn(move || {
            let member = self.members.get(at)?;
            at = member.links().next;
            Some(member)
        })
    }

    /// Returns the only member of a group, or `None` if it has several.
    pub(super) fn only_member(&self, group: u32) -> Option<&M> {
        let head = self.groups.get(group).map_or(NONE, |entry| entry.head);
        let member = self.members.get(head);
        member.filter(|member| member.links().next == NONE)
    }

    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns the number of groups.
    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Returns the allocated bytes, without those that groups and members own.
    pub(super) fn bytes(&self) -> usize {
        self.members.bytes() + self.groups.bytes() + self.table.allocation_size()
    }

    /// Returns whether the table is large and mostly vacant, so that rebuilding it pays off.
    pub(super) fn is_sparse(&self) -> bool {
        self.members.is_sparse() || self.groups.is_sparse()
    }

    /// Moves the groups and members into new, smaller tables. Calls `on_move` with each member and
    /// its new index.
    pub(super) fn rebuild(&mut self, mut on_move: impl FnMut(&M, u32)) {
        let mut old = std::mem::take(self);
        for slot in 0..old.groups.slots().count() as u32 {
            let Some(entry) = old.groups.get_mut(slot).map(std::mem::take) else {
                continue;
            };
            if entry.head == NONE {
                continue;
            }
            let group = self.intern(entry.group);
            let mut at = entry.head;
            while let Some(member) = old.members.get(at) {
                on_move(member, self.push(group, *member));
                at = member.links().next;
            }
        }
    }

    /// Returns the index of the group with the same key, which is created if necessary.
    fn intern(&mut self, group: G) -> u32 {
        let groups = &self.groups;
        let entry = self.table.entry(
            group.table_hash(),
            |&at| {
                let entry = groups.get(at);
                entry.is_some_and(|entry| entry.group.has_same_key(&group))
            },
            |&at| groups.get(at).map_or(0, |entry| entry.group.table_hash()),
        );
        match entry {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let at = self.groups.insert(GroupEntry { group, head: NONE });
                entry.insert(at);
                at
            }
        }
    }

    /// Adds a member to the front of a group's list.
    fn push(&mut self, group: u32, mut member: M) -> u32 {
        let next = self.groups.get(group).map_or(NONE, |entry| entry.head);
        let prev = NONE;
        *member.links_mut() = Links { group, next, prev };
        let at = self.members.insert(member);
        if let Some(next) = self.members.get_mut(next) {
            next.links_mut().prev = at;
        }
        if let Some(entry) = self.groups.get_mut(group) {
            entry.head = at;
        }
        at
    }

    /// Unlinks a member, which has been removed from its slot, from its group's list. Removes the
    /// group if it has no other member.
    fn unlink(&mut self, links: Links) {
        if let Some(next) = self.members.get_mut(links.next) {
            next.links_mut().prev = links.prev;
        }
        if let Some(prev) = self.members.get_mut(links.prev) {
            prev.links_mut().next = links.next;
            return;
        }
        let Some(entry) = self.groups.get_mut(links.group) else {
            return;
        };
        entry.head = links.next;
        if entry.head == NONE {
            let hash = entry.group.table_hash();
            self.groups.remove(links.group);
            if let Ok(entry) = self.table.find_entry(hash, |&at| at == links.group) {
                entry.remove();
            }
        }
    }
}

impl Links {
    /// Returns the index of the member's group.
    pub(super) fn group(self) -> u32 {
        self.group
    }
}

impl Default for Links {
    fn default() -> Self {
        Links {
            group: NONE,
            next: NONE,
            prev: NONE,
        }
    }
}

impl<G: Default> Default for GroupEntry<G> {
    fn default() -> Self {
        GroupEntry {
            group: G::default(),
            head: NONE,
        }
    }
}

mod verify;

#[cfg(test)]
mod tests;

//! Members in groups, which are found by a key: the subscriptions of a term, and the logins of a
//! user.
//!
//! Owns: a hash table of groups, and a doubly linked list of the members of each. Adding and
//! removing a member takes constant time, regardless of the size of its group. A group exists for
//! as long as it has a member. Must not know: the meaning of groups and members.

use super::buckets::{Buckets, Chained};
use super::slab::{NONE, Slab};

/// A table of groups and their members. Both are referenced by index.
#[derive(Default)]
pub(super) struct GroupTable<G, M> {
    groups: Slab<GroupEntry<G>>,
    members: Slab<M>,
    /// The groups, by hash.
    buckets: Buckets<1>,
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
    /// The next group in the same bucket.
    next_in_bucket: u32,
}

impl<G: Group, M: Member> GroupTable<G, M> {
    /// The bytes of a member: itself, and its bit among the vacant slots once it is removed.
    pub(super) const MEMBER_BYTES: usize = size_of::<M>() + 1;
    /// The bytes of a group: likewise, plus its share of the buckets, of which there are up to twice
    /// as many as groups.
    pub(super) const GROUP_BYTES: usize = size_of::<GroupEntry<G>>() + 1 + 2 * size_of::<u32>();

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
        let mut at = self.buckets.first(hash);
        while let Some(entry) = self.groups.get(at) {
            if is_same(&entry.group) {
                return Some(at);
            }
            at = entry.next_in_bucket;
        }
        None
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
        self.members.bytes() + self.groups.bytes() + self.buckets.bytes()
    }

    /// Releases memory if the table is mostly vacant. If a member has moved, returns its former and
    /// its new index; the caller updates its references to it, and calls again. The work is
    /// subtracted from `budget`.
    #[inline]
    pub(super) fn next_move(&mut self, budget: &mut usize) -> Option<(u32, u32)> {
        if self.members.is_sparse() || self.groups.is_sparse() {
            self.members.begin_shrinking();
            self.groups.begin_shrinking();
        }
        match self.members.is_shrinking() || self.groups.is_shrinking() {
            true => self.continue_shrinking(budget),
            false => None,
        }
    }

    #[inline(never)]
    fn continue_shrinking(&mut self, budget: &mut usize) -> Option<(u32, u32)> {
        while let Some((from, to)) = self.groups.next_move(budget) {
            self.buckets.replace(from, to, &mut self.groups);
            let mut at = self.groups.get(to).map_or(NONE, |entry| entry.head);
            while let Some(member) = self.members.get_mut(at) {
                member.links_mut().group = to;
                at = member.links().next;
                *budget = budget.saturating_sub(1);
            }
        }
        let (from, to) = self.members.next_move(budget)?;
        let links = self.members.get(to).map(|member| *member.links())?;
        if let Some(next) = self.members.get_mut(links.next) {
            next.links_mut().prev = to;
        }
        match self.members.get_mut(links.prev) {
            Some(prev) => prev.links_mut().next = to,
            None => {
                if let Some(entry) = self.groups.get_mut(links.group) {
                    entry.head = to;
                }
            }
        }
        Some((from, to))
    }

    /// Returns the index of the group with the same key, which is created if necessary.
    fn intern(&mut self, group: G) -> u32 {
        let found = self.find(group.table_hash(), |other| other.has_same_key(&group));
        if let Some(at) = found {
            return at;
        }
        let at = self.groups.insert(GroupEntry {
            group,
            ..GroupEntry::default()
        });
        self.buckets.insert(at, &mut self.groups);
        at
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
        if links.next == NONE {
            self.buckets.remove(links.group, &mut self.groups);
            self.groups.remove(links.group);
        } else {
            entry.head = links.next;
        }
    }
}

impl<G: Group> Chained for Slab<GroupEntry<G>> {
    fn hash(&self, at: u32) -> u64 {
        self.get(at).map_or(0, |entry| entry.group.table_hash())
    }

    fn next(&self, at: u32) -> u32 {
        self.get(at).map_or(NONE, |entry| entry.next_in_bucket)
    }

    fn set_next(&mut self, at: u32, next: u32) {
        if let Some(entry) = self.get_mut(at) {
            entry.next_in_bucket = next;
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
            next_in_bucket: NONE,
        }
    }
}

mod verify;

#[cfg(test)]
mod tests;

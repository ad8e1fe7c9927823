//! Members in groups, which are found by a key: the subscriptions of a term, and the logins of a
//! user.
//!
//! Owns: a hash table of groups, and a doubly linked list of the members of each. Adding and
//! removing a member takes constant time, regardless of the size of its group. A group exists for
//! as long as it has a member. Must not know: the meaning of groups and members.
//!
//! While memory is released, a group moves to a lower index, which each of its members must then
//! contain. A group of a million members is therefore moved in many steps, in which some of its members
//! still contain the former index.

use std::ops::Range;

use super::buckets::{Buckets, Chained};
use super::slab::{MOVE_COST, NONE, Slab};

/// A table of groups and their members. Both are referenced by index.
#[derive(Default)]
pub(super) struct GroupTable<G, M> {
    groups: Slab<GroupEntry<G>>,
    members: Slab<M>,
    /// The groups, by hash.
    buckets: Buckets<1>,
    moving: Moving,
}

/// The group that is being moved. All indices are [`NONE`] if there is none.
#[derive(Clone, Copy)]
struct Moving {
    /// The former index, which some members contain. Its slot is vacated when none does.
    from: u32,
    to: u32,
    /// The next member to update. Those that follow it in the list contain the former index, and those
    /// that precede it do not.
    member: u32,
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
        let links = *member.links();
        if self.moving.member == at {
            self.moving.member = links.next;
        }
        self.unlink(links);
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

    /// Returns the index of a member's group.
    #[inline]
    pub(super) fn group_of(&self, member: &M) -> u32 {
        self.resolve(member.links().group)
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

    /// Returns the members in a range of indices.
    pub(super) fn members_in(&self, range: Range<u32>) -> impl Iterator<Item = &M> {
        let slots = range.filter_map(|at| self.members.get(at));
        slots.filter(|member| member.links().group != NONE)
    }

    /// Returns an index above those of all members.
    pub(super) fn member_end(&self) -> usize {
        self.members.end()
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
        self.groups.len() - usize::from(self.moving.from != NONE)
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
        while self.continue_move(budget)
            && let Some((from, to)) = self.groups.begin_move(budget)
        {
            self.buckets.replace(from, to, &mut self.groups);
            let member = self.groups.get(to).map_or(NONE, |entry| entry.head);
            self.moving = Moving { from, to, member };
        }
        if self.moving.from != NONE {
            return None;
        }
        let (from, to) = self.members.next_move(budget)?;
        let links = self.members.get(to).map(|member| *member.links())?;
        if let Some(next) = self.members.get_mut(links.next) {
            next.links_mut().prev = to;
        }
        match self.members.get_mut(links.prev) {
            Some(prev) => prev.links_mut().next = to,
            None => {
                let group = self.resolve(links.group);
                if let Some(entry) = self.groups.get_mut(group) {
                    entry.head = to;
                }
            }
        }
        Some((from, to))
    }

    /// Updates members of the group that is being moved. Returns whether none is left.
    fn continue_move(&mut self, budget: &mut usize) -> bool {
        while let Some(member) = self.members.get_mut(self.moving.member) {
            if *budget == 0 {
                return false;
            }
            *budget = budget.saturating_sub(UPDATE_COST);
            member.links_mut().group = self.moving.to;
            self.moving.member = member.links().next;
        }
        self.end_move();
        true
    }

    /// Vacates the former slot of the group that has been moved, if there is one.
    fn end_move(&mut self) {
        if self.moving.from != NONE {
            self.groups.remove(self.moving.from);
            self.moving = Moving::default();
        }
    }

    /// Returns the current index of a group, given one that a member contains.
    #[inline]
    fn resolve(&self, group: u32) -> u32 {
        match group == self.moving.from {
            true => self.moving.to,
            false => group,
        }
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
        let group = self.resolve(links.group);
        let Some(entry) = self.groups.get_mut(group) else {
            return;
        };
        if links.next == NONE {
            self.buckets.remove(group, &mut self.groups);
            self.groups.remove(group);
            if group == self.moving.to {
                self.end_move();
            }
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

impl Default for Moving {
    fn default() -> Self {
        Moving {
            from: NONE,
            to: NONE,
            member: NONE,
        }
    }
}

/// The cost of updating a member of a group that is being moved, in the units of
/// [`Slab::next_move`]: it is in no cache.
const UPDATE_COST: usize = MOVE_COST / 2;

mod verify;

#[cfg(test)]
mod tests;

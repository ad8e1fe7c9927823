//! Consistency checks of the lists and the hash table, for tests and simulations only.

use crate::realtime::slab::NONE;

use super::{Group, GroupTable, Member};

impl<G: Group, M: Member> GroupTable<G, M> {
    /// Walks every list from both ends, and finds every group by its key.
    pub(crate) fn verify(&self) -> Result<(), String> {
        let (mut groups, mut members) = (0, 0);
        for (at, entry) in (0..).zip(self.groups.slots()) {
            if entry.head == NONE {
                continue;
            }
            if self.find(entry.group.table_hash(), |group| {
                group.has_same_key(&entry.group)
            }) != Some(at)
            {
                return Err(format!("group {at} is not found by its key"));
            }
            groups += 1;
            members += self.verify_list(at, entry.head)?;
        }
        let counts = (groups, self.buckets.len(), members, self.members().count());
        let (all_groups, all) = (self.group_count(), self.members.len());
        if counts != (all_groups, all_groups, all, all) {
            return Err(format!(
                "{counts:?} for {all_groups} groups and {all} members"
            ));
        }
        Ok(())
    }

    /// Checks a group's list, and returns its length.
    fn verify_list(&self, group: u32, head: u32) -> Result<usize, String> {
        let (mut count, mut before, mut at) = (0, NONE, head);
        while at != NONE {
            let member = self.members.get(at);
            let member = member.filter(|member| self.group_of(member) == group);
            let links = member
                .map(Member::links)
                .ok_or_else(|| format!("member {at} is not of group {group}"))?;
            if links.prev != before || count == self.members.len() {
                return Err(format!(
                    "member {at} of group {group} is linked incorrectly"
                ));
            }
            (before, at) = (at, links.next);
            count += 1;
        }
        Ok(count)
    }
}

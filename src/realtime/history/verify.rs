//! Consistency checks of the history, for tests and simulations only.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
use super::Entry;
use super::History;
use crate::realtime::digest::Digest;

impl History {
    /// Returns the entries with their positions, in order. For tests.
    #[cfg(test)]
    pub(in crate::realtime) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries
            .iter()
            .map(|(position, entry)| (*position, entry))
    }

    /// Returns the times at which positions were reached, for tests.
    #[cfg(test)]
    pub(in crate::realtime) fn samples(&self) -> impl Iterator<Item = (u64, u64)> {
        self.timeline.iter()
    }

    /// Checks the entries, the postings, and the accounted bytes against each other.
    pub(in crate::realtime) fn verify(&self) -> Result<(), String> {
        let mut expected: BTreeMap<Digest, BTreeSet<u64>> = BTreeMap::new();
        let (mut bytes, mut time) = (0, 0);
        for (position, entry) in &self.entries {
            let position = *position;
            if position <= self.start.floor || position > self.head {
                return Err(format!("{position} is outside the history"));
            }
            if self.subjects.get(&entry.subject) != Some(&position) {
                return Err(format!("{position} is not the entry of its subject"));
            }
            if entry.time < time {
                return Err(format!("{position} is earlier than its predecessor"));
            }
            if entry.event_position > position {
                return Err(format!("the event of {position} is later"));
            }
            let until: Vec<u64> = entry.past.iter().map(|past| past.until).collect();
            if !until.is_sorted() || until.last().is_some_and(|until| *until > position) {
                return Err(format!("the past of {position} is {until:?}"));
            }
            time = entry.time;
            bytes += entry.footprint();
            entry.for_each_term(|term| {
                expected.entry(term).or_default().insert(position);
            });
        }
        if self.subjects.len() != self.entries.len() {
            return Err(format!(
                "{} subjects of {} entries",
                self.subjects.len(),
                self.entries.len()
            ));
        }
        if bytes != self.bytes || (bytes > self.limits.memory && !self.entries.is_empty()) {
            return Err(format!("{} bytes are accounted of {bytes}", self.bytes));
        }
        match self.postings.to_map() == expected {
            true => Ok(()),
            false => Err(format!("postings differ from {expected:?}")),
        }
    }
}

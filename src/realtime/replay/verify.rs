//! Consistency checks of the replays, for tests and simulations only.

use std::collections::BTreeSet;

use crate::net::ConnKey;

use super::Replays;

impl Replays {
    /// Changes the maximum number of entries that a connection is sent in a turn.
    pub(in crate::realtime) fn set_max_entries(&mut self, max: usize) {
        self.max_entries = max;
    }

    /// Returns the positions of a connection's replay, and whether it can proceed. For tests.
    #[cfg(test)]
    pub(in crate::realtime) fn progress(&self, key: ConnKey) -> Option<(u64, u64, bool)> {
        let job = self.jobs.get(&key)?;
        Some((job.start.from, job.position, job.is_queued))
    }

    /// Checks the queue of replays. Returns the connections in a replay, or an error.
    pub(in crate::realtime) fn verify(&self) -> Result<BTreeSet<ConnKey>, String> {
        let queued: BTreeSet<ConnKey> = self.runnable.iter().copied().collect();
        for (key, job) in &self.jobs {
            if job.position < job.start.position {
                return Err(format!("the replay of {key:?} has gone back"));
            }
            if job.is_queued != queued.contains(key) {
                return Err(format!(
                    "the replay of {key:?} is noted to be queued, or not"
                ));
            }
        }
        // Connections that have closed may be left in the queue until the next turn.
        let live = self
            .runnable
            .iter()
            .filter(|key| self.jobs.contains_key(key));
        match live.count() <= self.jobs.len() {
            true => Ok(self.jobs.keys().copied().collect()),
            false => Err(format!("queued twice: {:?}", self.runnable)),
        }
    }
}

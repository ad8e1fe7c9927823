//! The open connections of recognized clients, by client.
//!
//! Owns: a part of the hash of each such connection's client, by the connection's slot. Must not know:
//! the clients themselves, which are in the sessions: a match must be verified.

use crate::net::ConnKey;

use super::buckets::{Buckets, Chained};
use super::digest::Digest;
use super::slab::NONE;
use super::sparse::SparseVec;

/// Connections by client.
#[derive(Default)]
pub(super) struct LiveClients {
    entries: Entries,
    buckets: Buckets<2>,
}

/// The clients, by slot.
type Entries = SparseVec<Entry>;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// 0 stands for none.
    hash: u32,
    /// The slot of the next entry in the same bucket.
    next: u32,
}

impl LiveClients {
    /// Sets the client of a connection. Another connection of a client with [`MOST`] of them is
    /// forgotten: all of them are in one bucket, which is searched on each removal.
    pub(super) fn insert(&mut self, key: ConnKey, client: Digest) {
        self.take(key.slot());
        let others = self.candidates(client);
        if let Some(other) = others.last().filter(|_| others.len() >= MOST) {
            self.take(*other);
        }
        let entry = Entry {
            hash: hash_of(client),
            ..Entry::default()
        };
        self.entries.replace(key.slot() as usize, entry);
        self.buckets.insert(key.slot(), &mut self.entries);
    }

    /// Removes the client of a connection.
    pub(super) fn remove(&mut self, key: ConnKey) {
        self.take(key.slot());
    }

    /// Releases unused memory.
    pub(super) fn trim(&mut self) {
        self.entries.trim();
    }

    /// Returns the slots of connections that may belong to a client: all that do, and rarely another.
    pub(super) fn candidates(&self, client: Digest) -> Vec<u32> {
        let wanted = hash_of(client);
        let mut slots = Vec::new();
        let mut at = self.buckets.first(wanted.into());
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.hash == wanted {
                slots.push(at);
            }
            at = entry.next;
        }
        slots
    }

    fn take(&mut self, slot: u32) {
        let entry = self.entries.get(slot as usize);
        if entry.is_none_or(|entry| entry.hash == 0) {
            return;
        }
        self.buckets.remove(slot, &mut self.entries);
        self.entries.replace(slot as usize, Entry::default());
    }
}

impl Chained for Entries {
    fn hash(&self, at: u32) -> u64 {
        self.get(at as usize).map_or(0, |entry| entry.hash.into())
    }

    fn next(&self, at: u32) -> u32 {
        self.get(at as usize).map_or(NONE, |entry| entry.next)
    }

    fn set_next(&mut self, at: u32, next: u32) {
        if let Some(entry) = self.get_mut(at as usize) {
            entry.next = next;
        }
    }
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            hash: 0,
            next: NONE,
        }
    }
}

/// The maximum number of connections of one client.
const MOST: usize = 8;

fn hash_of(client: Digest) -> u32 {
    ((client.table_hash() >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::digest::Digester;
    use crate::realtime::testing::key;

    #[test]
    fn client_with_many_connections_has_a_limited_number_of_candidates() {
        let client = Digester::new([1, 2, 3, 4]).client_id("1");
        let mut live = LiveClients::default();
        for n in 0..1000 {
            live.insert(key(n), client);
            let found = live.candidates(client);
            assert!(found.contains(&n) && found.len() <= MOST, "{found:?}");
        }
        assert_eq!(live.buckets.len(), MOST);
        for n in 0..1000 {
            live.remove(key(n));
        }
        live.trim();
        assert_eq!((live.entries.end(), live.buckets.len()), (0, 0));
    }

    #[test]
    fn candidates_include_every_connection_of_the_client() {
        let digester = Digester::new([1, 2, 3, 4]);
        let client = |n: u32| digester.client_id(&(n % 500).to_string());
        let mut live = LiveClients::default();
        for n in 0..1000 {
            live.insert(key(n), client(n));
        }
        for n in 0..500 {
            let found = live.candidates(client(n));
            assert!(
                found.contains(&n) && found.contains(&(n + 500)),
                "{found:?}"
            );
            assert_eq!(found.len(), 2, "{found:?}");
        }
        for n in 0..1000 {
            live.remove(key(n));
        }
        live.remove(key(7));
        assert_eq!(live.candidates(client(3)), [0; 0]);
        live.trim();
        assert_eq!((live.entries.end(), live.buckets.len()), (0, 0));
    }
}

//! The clients that have disconnected, with the position up to which each has received everything.
//!
//! Owns: a map of bounded size, from which the entries inserted first are evicted. Every operation
//! takes constant time. Must not know: connections, events, or the storage of the map.

use hashbrown::HashTable;

use super::digest::Digest;
use super::history::Cursor;
use super::slab::{NONE, PagedVec};

/// Positions by client, see [`Digest::of_client`].
pub struct Remembered {
    /// Without gaps. The links in the entries form a list from the oldest to the newest.
    entries: PagedVec<Entry>,
    /// Indices into `entries`, by hash.
    table: HashTable<u32>,
    oldest: u32,
    newest: u32,
    limit: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    client: Digest,
    received: Cursor,
    older: u32,
    newer: u32,
}

impl Remembered {
    /// Creates a map of at most `limit` clients.
    pub fn new(limit: usize) -> Self {
        Remembered {
            entries: PagedVec::default(),
            table: HashTable::new(),
            oldest: NONE,
            newest: NONE,
            limit: limit.min(MAX),
        }
    }

    /// Changes the maximum number of clients. Evicts the oldest ones beyond it.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX);
        while self.len() > self.limit {
            self.remove(self.oldest);
        }
        self.shrink();
    }

    /// Inserts or replaces the position of a client, which becomes the newest one. Evicts the oldest
    /// client if there are too many.
    pub fn insert(&mut self, client: Digest, received: Cursor) {
        if self.limit == 0 {
            return;
        }
        if let Some(at) = self.find(client) {
            self.unlink(at);
            if let Some(entry) = self.entries.get_mut(at as usize) {
                entry.received = received;
            }
            self.link_newest(at);
            return;
        }
        if self.len() >= self.limit {
            self.remove(self.oldest);
        }
        let at = self.len() as u32;
        self.entries.push(Entry {
            client,
            received,
            ..Entry::default()
        });
        let entries = &self.entries;
        let hash = |&at: &u32| hash_at(entries, at);
        self.table.insert_unique(client.table_hash(), at, hash);
        self.link_newest(at);
    }

    /// Inserts a client, which becomes the newest one. Of two positions, the later one is kept.
    pub fn merge(&mut self, client: Digest, received: Cursor) {
        let known = self.get(client).unwrap_or(received);
        self.insert(client, received.or_later(known));
    }

    /// Returns the position of a client.
    pub fn get(&self, client: Digest) -> Option<Cursor> {
        let at = self.find(client)?;
        self.entries.get(at as usize).map(|entry| entry.received)
    }

    /// Removes a client and returns its position.
    pub fn take(&mut self, client: Digest) -> Option<Cursor> {
        let at = self.find(client)?;
        self.remove(at).map(|entry| entry.received)
    }

    /// Returns the clients with their positions, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Digest, Cursor)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.newer;
            Some((entry.client, entry.received))
        })
    }

    /// Returns the number of clients.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no client is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the allocated bytes.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.table.allocation_size()
    }

    /// Releases memory of the hash table if most of it is vacant.
    pub fn shrink(&mut self) {
        if self.table.capacity() > MIN_CAPACITY && self.len() < self.table.capacity() / 4 {
            let entries = &self.entries;
            self.table
                .shrink_to(entries.len() * 2, |&at| hash_at(entries, at));
        }
    }

    fn find(&self, client: Digest) -> Option<u32> {
        let is_same = |&at: &u32| {
            let entry = self.entries.get(at as usize);
            entry.is_some_and(|entry| entry.client == client)
        };
        self.table.find(client.table_hash(), is_same).copied()
    }

    /// Removes the entry at an index, and moves the last entry there.
    fn remove(&mut self, at: u32) -> Option<Entry> {
        let removed = *self.entries.get(at as usize)?;
        self.unlink(at);
        let slot = self
            .table
            .find_entry(removed.client.table_hash(), |&it| it == at);
        if let Ok(slot) = slot {
            slot.remove();
        }
        let last = self.entries.pop()?;
        let from = self.len() as u32;
        if from != at {
            let slot = self
                .table
                .find_mut(last.client.table_hash(), |&it| it == from);
            if let Some(slot) = slot {
                *slot = at;
            }
            if let Some(entry) = self.entries.get_mut(at as usize) {
                *entry = last;
            }
            self.set_newer(last.older, at);
            self.set_older(last.newer, at);
        }
        Some(removed)
    }

    fn link_newest(&mut self, at: u32) {
        let older = self.newest;
        if let Some(entry) = self.entries.get_mut(at as usize) {
            (entry.older, entry.newer) = (older, NONE);
        }
        self.set_newer(older, at);
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        if let Some(&Entry { older, newer, .. }) = self.entries.get(at as usize) {
            self.set_newer(older, newer);
            self.set_older(newer, older);
        }
    }

    /// Sets the link of an entry to the next newer one, or the beginning of the list.
    fn set_newer(&mut self, at: u32, newer: u32) {
        match self.entries.get_mut(at as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Sets the link of an entry to the next older one, or the end of the list.
    fn set_older(&mut self, at: u32, older: u32) {
        match self.entries.get_mut(at as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}

fn hash_at(entries: &PagedVec<Entry>, at: u32) -> u64 {
    let entry = entries.get(at as usize);
    entry.map_or(0, |entry| entry.client.table_hash())
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            client: Digest::default(),
            received: Cursor::default(),
            older: NONE,
            newer: NONE,
        }
    }
}

/// The maximum number of clients: [`NONE`] is not an index.
const MAX: usize = NONE as usize;
/// The size of the hash table below which it is not worth shrinking.
const MIN_CAPACITY: usize = 1024;

#[cfg(test)]
mod tests;

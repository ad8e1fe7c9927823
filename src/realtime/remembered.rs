//! The clients that have disconnected, with the position up to which each has received everything.
//!
//! Owns: a map of bounded size, from which the entries inserted first are evicted. Every operation
//! takes constant time: no table is rebuilt when the map grows or shrinks. Must not know: connections,
//! events, or the storage of the map.

use super::buckets::{Buckets, Chained};
use super::digest::Digest;
use super::history::Cursor;
use super::slab::{NONE, PagedVec};

/// Positions by client, see [`Digest::of_client`].
pub struct Remembered {
    /// Without gaps. The links in the entries form a list from the oldest to the newest.
    entries: PagedVec<Entry>,
    /// Indices into `entries`, by client.
    buckets: Buckets<2>,
    oldest: u32,
    newest: u32,
    limit: usize,
    /// The next entry of a walk from the oldest to the newest one.
    walk: u32,
}

/// A client: 56 bytes, and two for its share of the buckets.
#[derive(Clone, Copy)]
struct Entry {
    client: Digest,
    received: Cursor,
    older: u32,
    newer: u32,
    next_in_bucket: u32,
    /// A number of the caller's.
    tag: u32,
}

impl Remembered {
    /// Creates a map of at most `limit` clients.
    pub fn new(limit: usize) -> Self {
        Remembered {
            entries: PagedVec::default(),
            buckets: Buckets::default(),
            oldest: NONE,
            newest: NONE,
            limit: limit.min(MAX),
            walk: NONE,
        }
    }

    /// Changes the maximum number of clients. [`Remembered::evict`] removes those beyond it.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX);
    }

    /// Evicts the oldest clients beyond the maximum number, at most `count` of them. Returns whether more
    /// are left.
    pub fn evict(&mut self, count: usize) -> bool {
        let beyond = self.len().saturating_sub(self.limit);
        for _ in 0..beyond.min(count) {
            self.remove(self.oldest);
        }
        beyond > count
    }

    /// Inserts or replaces the position of a client, which becomes the newest one. Evicts the oldest
    /// client if there are too many.
    pub fn insert(&mut self, client: Digest, received: Cursor) {
        self.insert_with(client, received, 0);
    }

    /// Like [`Remembered::insert`], with a number for [`Remembered::get_with`].
    pub(super) fn insert_with(&mut self, client: Digest, received: Cursor, tag: u32) {
        if self.limit == 0 {
            return;
        }
        if let Some(at) = self.find(client) {
            self.unlink(at);
            if let Some(entry) = self.entries.get_mut(at as usize) {
                (entry.received, entry.tag) = (received, tag);
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
            tag,
            ..Entry::default()
        });
        self.buckets.insert(at, &mut self.entries);
        self.link_newest(at);
    }

    /// Inserts a client, which becomes the newest one. Of two positions, the later one is kept.
    pub fn merge(&mut self, client: Digest, received: Cursor) {
        let known = self.get(client).unwrap_or(received);
        self.insert(client, received.or_later(known));
    }

    /// Returns the position of a client.
    pub fn get(&self, client: Digest) -> Option<Cursor> {
        self.get_with(client).map(|(received, _)| received)
    }

    /// Returns the position of a client, and its number.
    pub(super) fn get_with(&self, client: Digest) -> Option<(Cursor, u32)> {
        let entry = self.entries.get(self.find(client)? as usize)?;
        Some((entry.received, entry.tag))
    }

    /// Removes a client and returns its position.
    pub fn take(&mut self, client: Digest) -> Option<Cursor> {
        let at = self.find(client)?;
        self.remove(at).map(|entry| entry.received)
    }

    /// Returns the clients with their positions, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Digest, Cursor)> {
        self.iter_with()
            .map(|(client, received, _)| (client, received))
    }

    /// Returns the clients with their positions and numbers, the oldest first.
    pub(super) fn iter_with(&self) -> impl Iterator<Item = (Digest, Cursor, u32)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.newer;
            Some((entry.client, entry.received, entry.tag))
        })
    }

    /// Begins a walk through all clients, the oldest first.
    pub(super) fn start_walk(&mut self) {
        self.walk = self.oldest;
    }

    /// Returns the next client of the walk. The map may change between two calls: clients that are
    /// inserted meanwhile may be part of the walk, and those that are removed are not.
    pub(super) fn walk(&mut self) -> Option<(Digest, Cursor)> {
        let entry = self.entries.get(self.walk as usize)?;
        self.walk = entry.newer;
        Some((entry.client, entry.received))
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
        self.entries.bytes() + self.buckets.bytes()
    }

    fn find(&self, client: Digest) -> Option<u32> {
        let mut at = self.buckets.first(client.table_hash());
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.client == client {
                return Some(at);
            }
            at = entry.next_in_bucket;
        }
        None
    }

    /// Removes the entry at an index, and moves the last entry there.
    fn remove(&mut self, at: u32) -> Option<Entry> {
        let removed = *self.entries.get(at as usize)?;
        self.unlink(at);
        self.buckets.remove(at, &mut self.entries);
        let last = self.entries.pop()?;
        let from = self.len() as u32;
        if from != at {
            if let Some(entry) = self.entries.get_mut(at as usize) {
                *entry = last;
            }
            self.buckets.replace(from, at, &mut self.entries);
            if self.walk == from {
                self.walk = at;
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
        if self.walk == at {
            self.walk = self.entries.get(at as usize).map_or(NONE, |it| it.newer);
        }
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

impl Chained for PagedVec<Entry> {
    fn hash(&self, at: u32) -> u64 {
        let entry = self.get(at as usize);
        entry.map_or(0, |entry| entry.client.table_hash())
    }

    fn next(&self, at: u32) -> u32 {
        self.get(at as usize)
            .map_or(NONE, |entry| entry.next_in_bucket)
    }

    fn set_next(&mut self, at: u32, next: u32) {
        if let Some(entry) = self.get_mut(at as usize) {
            entry.next_in_bucket = next;
        }
    }
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            client: Digest::default(),
            received: Cursor::default(),
            older: NONE,
            newer: NONE,
            next_in_bucket: NONE,
            tag: 0,
        }
    }
}

/// The maximum number of clients: [`NONE`] is not an index.
const MAX: usize = NONE as usize;
// Every client that is connected to another server takes this much memory.
const _: () = assert!(size_of::<Entry>() <= 56);

#[cfg(test)]
mod tests;

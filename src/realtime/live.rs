//! The open connections of recognized clients, by client.
//!
//! Owns: a fingerprint of each such connection's client, by the connection's slot. Must not know: the
//! clients themselves, which are in the sessions: a match must be verified.
//!
//! A client is looked up once per connection, and few connections have the client of another one. A
//! scan of two bytes per connection therefore beats a table, which would take ten.

use crate::net::ConnKey;

use super::digest::Digest;
use super::slab::PagedVec;

/// Fingerprints by slot.
#[derive(Default)]
pub(super) struct LiveClients {
    /// 0 stands for none.
    prints: PagedVec<u16>,
}

impl LiveClients {
    /// Sets the client of a connection.
    pub(super) fn insert(&mut self, key: ConnKey, client: Digest) {
        let slot = key.slot() as usize;
        while self.prints.len() <= slot {
            self.prints.push(0);
        }
        if let Some(print) = self.prints.get_mut(slot) {
            *print = fingerprint(client);
        }
    }

    /// Removes the client of a connection.
    pub(super) fn remove(&mut self, key: ConnKey) {
        if let Some(print) = self.prints.get_mut(key.slot() as usize) {
            *print = 0;
        }
        if key.slot() as usize + 1 == self.prints.len() {
            self.prints.truncate_empty();
        }
    }

    /// Returns the slots of connections that may belong to a client: all that do, and a few others.
    pub(super) fn candidates(&self, client: Digest) -> Vec<u32> {
        let wanted = fingerprint(client);
        let mut slots = Vec::new();
        for (first, page) in self.prints.pages() {
            // Most pages have no match, which this loop finds out without branches.
            let matches = page.iter().filter(|print| **print == wanted).count();
            if matches > 0 {
                let slot = |at: usize| (first + at) as u32;
                let found = page.iter().enumerate();
                let found = found.filter(|(_, print)| **print == wanted);
                slots.extend(found.map(|(at, _)| slot(at)));
            }
        }
        slots
    }

    /// Returns the number of slots that a look-up examines.
    pub(super) fn len(&self) -> usize {
        self.prints.len()
    }
}

fn fingerprint(client: Digest) -> u16 {
    ((client.table_hash() >> 48) as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::digest::Digester;
    use crate::realtime::testing::key;

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
            assert!(found.len() < 5, "{found:?}");
        }
        for n in 0..1000 {
            live.remove(key(n));
        }
        live.remove(key(7));
        assert_eq!(live.candidates(client(3)), [0; 0]);
        assert_eq!(live.len(), 0);
    }
}

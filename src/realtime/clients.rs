//! The clients that are remembered after they have disconnected, and the log from which they are
//! restored.
//!
//! Owns: the table of disconnected clients, and the times at which records of the log are written.
//! Must not know: files, or the positions of open connections.

use super::Realtime;
use super::client_log::{self, HEADER, RECORD, Record};
use super::digest::Digest;
use super::history::Cursor;
use super::remembered::Remembered;

/// The storage of the log of clients.
pub trait ClientLog {
    /// Appends records. Never blocks. If records are dropped, all further ones are dropped as well
    /// until the log is replaced.
    fn append(&mut self, records: &[u8]);

    /// Returns whether the log should be replaced: because it is much longer than necessary, or
    /// because records were dropped and the log can be written again.
    fn wants_rewrite(&self) -> bool;

    /// Replaces the log. Never blocks.
    fn replace(&mut self, log: Vec<u8>);

    /// Returns the position of a client by the logs of other running servers.
    fn position_elsewhere(&self, client: Digest) -> Option<Cursor>;
}

/// The disconnected clients, and the log of all clients.
///
/// A connected client is removed from the table once it is up to date, not when it has
/// identified itself: if the connection or the process ends in the midst of a replay, the old position
/// is still in effect.
pub struct Clients {
    table: Remembered,
    log: Option<Box<dyn ClientLog>>,
    /// The key of the digests.
    seed: [u64; 4],
    /// Records of this turn.
    batch: Vec<u8>,
    /// The number of clients that have connected and not disconnected.
    open: usize,
}

impl Clients {
    /// Creates an empty table of at most `limit` clients. `seed` is the key of the digests.
    pub fn new(limit: usize, seed: [u64; 4]) -> Self {
        Clients {
            table: Remembered::new(limit),
            log: None,
            seed,
            batch: Vec::new(),
            open: 0,
        }
    }

    /// Sets the storage of the log, which must contain the header and the restored clients.
    pub fn set_log(&mut self, log: Box<dyn ClientLog>) {
        self.log = Some(log);
    }

    /// Changes the maximum number of disconnected clients.
    pub fn set_limit(&mut self, limit: usize) {
        self.table.set_limit(limit);
    }

    /// Adds clients from a log, the oldest first. Of two positions of a client, the later one is
    /// kept.
    pub fn restore(&mut self, clients: Vec<(Digest, Cursor)>) {
        for (client, received) in clients {
            self.table.merge(client, received);
        }
    }

    /// Returns the position of a client that is disconnected here. It may be connected to another
    /// server, or seem to be.
    pub fn position(&self, client: Digest) -> Option<Cursor> {
        let log = self.log.as_ref();
        let elsewhere = log.and_then(|log| log.position_elsewhere(client));
        match (self.table.get(client), elsewhere) {
            (Some(here), Some(elsewhere)) => Some(here.or_later(elsewhere)),
            (here, elsewhere) => here.or(elsewhere),
        }
    }

    /// Called when a client has connected and has received everything up to a position, from which
    /// on it receives events as they occur.
    pub fn connect(&mut self, client: Digest, received: Cursor) {
        self.open += 1;
        self.table.take(client);
        self.record(Record::Connected(client, received));
    }

    /// Called when a client for which [`Clients::connect`] was called has disconnected. The position
    /// is that of its last sign of life.
    pub fn close(&mut self, client: Digest, received: Cursor) {
        self.open = self.open.saturating_sub(1);
        self.table.insert(client, received);
        self.record(Record::Closed(client, received));
    }

    /// Called from time to time with a position up to which each connected client has certainly
    /// received everything. Limits the number of events that are replayed after a crash.
    pub fn alive(&mut self, received: Cursor) {
        self.record(Record::Alive(received));
    }

    /// Writes the records of a turn. `for_each_open` calls its argument with each connected client
    /// and a position up to which it has certainly received everything.
    pub fn flush(&mut self, for_each_open: impl FnOnce(&mut dyn FnMut(Digest, Cursor))) {
        self.append();
        if self.wants_rewrite() {
            let log = self.encode(for_each_open);
            self.replace(log);
        }
    }

    /// Returns the number of disconnected clients.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether there are no disconnected clients.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns the allocated bytes.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.batch.capacity()
    }

    /// Releases memory.
    pub fn shrink(&mut self) {
        self.table.shrink();
    }

    fn record(&mut self, record: Record) {
        if self.log.is_none() {
            return;
        }
        record.encode(&mut self.batch);
        if self.batch.len() >= BATCH {
            self.append();
        }
    }

    fn append(&mut self) {
        if let Some(log) = self.log.as_mut().filter(|_| !self.batch.is_empty()) {
            log.append(&self.batch);
            self.batch.clear();
            self.batch.shrink_to(KEPT_BATCH);
        }
    }

    fn wants_rewrite(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.wants_rewrite())
    }

    fn replace(&mut self, all: Vec<u8>) {
        if let Some(log) = &mut self.log {
            log.replace(all);
        }
    }

    /// Returns the shortest log of the current state.
    fn encode(&self, for_each_open: impl FnOnce(&mut dyn FnMut(Digest, Cursor))) -> Vec<u8> {
        let records = self.table.len() + self.open;
        let mut log = Vec::with_capacity(HEADER + records * RECORD);
        client_log::start(self.seed, &mut log);
        for (client, received) in self.table.iter() {
            Record::Closed(client, received).encode(&mut log);
        }
        for_each_open(&mut |client, received| {
            Record::Connected(client, received).encode(&mut log);
        });
        log
    }
}

impl Drop for Clients {
    /// Writes the last records.
    fn drop(&mut self) {
        self.append();
        // Otherwise, the positions of the open connections are unknown here.
        if self.open == 0 && self.wants_rewrite() {
            let log = self.encode(|_| {});
            self.replace(log);
        }
    }
}

impl Realtime {
    /// Adds the clients from a log, and sets its storage, which contains them already. Must precede
    /// the first connection.
    pub fn restore_clients(
        &mut self,
        clients: Vec<(Digest, Cursor)>,
        log: Option<Box<dyn ClientLog>>,
    ) {
        self.clients.restore(clients);
        if let Some(log) = log {
            self.clients.set_log(log);
        }
    }
}

/// The size from which on records are written before the end of the turn.
const BATCH: usize = 16 << 10;
/// The capacity that is kept between turns, in bytes.
const KEPT_BATCH: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::client_log::decode;
    use super::*;

    /// A log in memory.
    #[derive(Default)]
    struct Memory {
        log: Vec<u8>,
        appends: usize,
        wants_rewrite: bool,
        /// The position of client 4 elsewhere.
        elsewhere: Option<Cursor>,
    }

    #[derive(Clone, Default)]
    struct MemoryLog(Rc<RefCell<Memory>>);

    impl ClientLog for MemoryLog {
        fn append(&mut self, records: &[u8]) {
            let mut memory = self.0.borrow_mut();
            memory.log.extend(records);
            memory.appends += 1;
        }

        fn wants_rewrite(&self) -> bool {
            self.0.borrow().wants_rewrite
        }

        fn replace(&mut self, log: Vec<u8>) {
            let mut memory = self.0.borrow_mut();
            memory.log = log;
            memory.wants_rewrite = false;
        }

        fn position_elsewhere(&self, client: Digest) -> Option<Cursor> {
            let is_known = client == self::client(4);
            self.0.borrow().elsewhere.filter(|_| is_known)
        }
    }

    impl MemoryLog {
        fn clients(&self) -> Vec<(Digest, u64)> {
            let loaded = decode(&self.0.borrow().log, 100);
            assert_eq!(loaded.damage, None);
            let clients = loaded.clients.into_iter();
            clients.map(|(client, at)| (client, at.position)).collect()
        }
    }

    fn client(number: u64) -> Digest {
        Digest::from_words([number, number])
    }

    fn at(position: u64) -> Cursor {
        Cursor {
            epoch: 1,
            position,
            time: 0,
        }
    }

    fn clients(limit: usize) -> (Clients, MemoryLog) {
        let mut clients = Clients::new(limit, [1, 2, 3, 4]);
        let log = MemoryLog::default();
        client_log::start([1, 2, 3, 4], &mut log.0.borrow_mut().log);
        clients.set_log(Box::new(log.clone()));
        (clients, log)
    }

    fn no_rewrite(_: &mut dyn FnMut(Digest, Cursor)) {
        panic!("rewritten");
    }

    #[test]
    fn table_holds_disconnected_clients_and_log_holds_all() {
        let (mut clients, log) = clients(10);
        clients.restore(vec![(client(1), at(5)), (client(2), at(6))]);
        assert_eq!(clients.position(client(1)), Some(at(5)));
        clients.connect(client(1), at(8));
        assert_eq!(clients.position(client(1)), None);
        clients.connect(client(3), at(8));
        clients.alive(at(9));
        clients.close(client(3), at(10));
        assert_eq!(log.clients(), [], "written at the end of the turn");
        clients.flush(no_rewrite);
        clients.flush(no_rewrite);
        assert_eq!(log.0.borrow().appends, 1);
        assert_eq!(log.clients(), [(client(1), 9), (client(3), 10)]);
        assert_eq!(clients.len(), 2);
    }

    #[test]
    fn restored_position_never_replaces_a_later_one() {
        let (mut clients, _) = clients(10);
        clients.restore(vec![(client(1), at(5)), (client(2), at(6))]);
        clients.restore(vec![(client(1), at(4)), (client(2), at(7))]);
        assert_eq!(clients.position(client(1)), Some(at(5)));
        assert_eq!(clients.position(client(2)), Some(at(7)));
    }

    #[test]
    fn later_position_at_another_server_is_used() {
        let (mut clients, log) = clients(10);
        log.0.borrow_mut().elsewhere = Some(at(5));
        clients.restore(vec![(client(3), at(1))]);
        for (own, expected) in [(None, 5), (Some(4), 5), (Some(6), 6)] {
            clients.restore(own.map(|own| (client(4), at(own))).into_iter().collect());
            assert_eq!(clients.position(client(4)), Some(at(expected)));
        }
        assert_eq!(clients.position(client(3)), Some(at(1)));
        assert_eq!(clients.position(client(5)), None);
    }

    #[test]
    fn rewritten_log_has_one_record_for_each_client() {
        let (mut clients, log) = clients(10);
        for position in 1..100 {
            clients.connect(client(1), at(position));
            clients.close(client(1), at(position));
        }
        clients.connect(client(2), at(50));
        log.0.borrow_mut().wants_rewrite = true;
        clients.flush(|open| open(client(2), at(60)));
        assert_eq!(log.clients(), [(client(1), 99), (client(2), 60)]);
        assert_eq!(log.0.borrow().log.len(), HEADER + 2 * RECORD);
        // The open client is still connected in the log.
        clients.alive(at(70));
        clients.flush(no_rewrite);
        assert_eq!(log.clients(), [(client(1), 99), (client(2), 70)]);
    }

    #[test]
    fn last_records_are_written_on_drop() {
        let (mut table, log) = clients(10);
        table.connect(client(1), at(1));
        table.close(client(1), at(2));
        drop(table);
        assert_eq!(log.clients(), [(client(1), 2)]);

        // A log with dropped records is replaced if all clients have disconnected.
        for (closes, expected) in [(true, vec![(client(1), 2)]), (false, vec![])] {
            let (mut table, log) = clients(10);
            table.connect(client(1), at(1));
            if closes {
                table.close(client(1), at(2));
            }
            table.flush(no_rewrite);
            log.0.borrow_mut().log.truncate(HEADER);
            log.0.borrow_mut().wants_rewrite = true;
            drop(table);
            assert_eq!(log.clients(), expected);
        }
    }

    #[test]
    fn table_without_a_log_buffers_no_records() {
        let mut table = Clients::new(10, [1, 2, 3, 4]);
        for position in 1..100_000 {
            table.connect(client(1), at(position));
            table.close(client(1), at(position));
        }
        assert_eq!((table.len(), table.batch.capacity()), (1, 0));
    }

    #[test]
    fn records_are_not_omitted_while_the_limit_is_zero() {
        let (mut clients, log) = clients(10);
        clients.connect(client(1), at(1));
        clients.set_limit(0);
        clients.close(client(1), at(2));
        clients.set_limit(10);
        clients.alive(at(3));
        clients.flush(no_rewrite);
        assert_eq!((clients.len(), log.clients()), (0, vec![(client(1), 2)]));
    }

    #[test]
    fn long_turns_are_written_in_pieces() {
        let (mut table, log) = clients(10);
        for position in 1..100_000 {
            table.alive(at(position));
        }
        assert!(log.0.borrow().appends > 50);
        assert!(table.bytes() < 4 * BATCH, "{}", table.bytes());
    }
}

//! The clients that are remembered after they have disconnected, and the log from which they are
//! restored.
//!
//! Owns: the table of disconnected clients, and the times at which records of the log are written.
//! Must not know: files, or the positions of open connections.
//!
//! A log that has become long is replaced by a shorter one, which is written in many turns. Meanwhile,
//! all records are added to both: a client that changes its state before the shorter log contains it
//! gets a record there, and one that changes it later gets another.

use std::mem;

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
    rewrite: Option<Rewrite>,
    /// Whether the log was to be rewritten before the first records of this turn, with which it is
    /// busy at first.
    is_wanted: Option<bool>,
}

/// A log that is being written to replace the current one. The disconnected clients come first, by a
/// walk through the table.
struct Rewrite {
    log: Vec<u8>,
    /// The maximum length while it is complete and waits for the current log.
    most: usize,
    has_disconnected: bool,
    /// The slot of the next open connection.
    next_slot: u32,
    is_complete: bool,
    /// Records that were added to both logs since the last step.
    added: usize,
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
            rewrite: None,
            is_wanted: None,
        }
    }

    /// Sets the storage of the log, which must contain the header and the restored clients.
    pub fn set_log(&mut self, log: Box<dyn ClientLog>) {
        self.log = Some(log);
    }

    /// Changes the maximum number of disconnected clients. [`Clients::evict`] removes those beyond it.
    pub fn set_limit(&mut self, limit: usize) {
        self.table.set_limit(limit);
    }

    /// Forgets the oldest disconnected clients beyond the maximum number, at most `count` of them. Returns
    /// whether more are left.
    pub fn evict(&mut self, count: usize) -> bool {
        self.table.evict(count)
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

    /// Returns whether [`Clients::flush`] would do anything.
    #[inline]
    pub fn needs_flush(&self) -> bool {
        let Some(log) = &self.log else {
            return false;
        };
        !self.batch.is_empty() || self.rewrite.is_some() || log.wants_rewrite()
    }

    /// Writes the records of a turn. `connected_in` returns the connected client in a slot, all of which
    /// are below `end`, and a position up to which it has certainly received everything. Returns
    /// whether there is more to write.
    pub fn flush(
        &mut self,
        end: usize,
        connected_in: impl FnMut(u32) -> Option<(Digest, Cursor)>,
    ) -> bool {
        self.ask_log();
        self.append();
        let is_wanted = self.is_wanted.take();
        if self.rewrite.is_none() {
            if is_wanted != Some(true) {
                return false;
            }
            self.start_rewrite();
        }
        let is_complete = self.continue_rewrite(end, connected_in);
        self.finish_rewrite();
        !is_complete
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
        let rewrite = self.rewrite.as_ref();
        let rewrite = rewrite.map_or(0, |rewrite| rewrite.log.capacity());
        self.table.bytes() + self.batch.capacity() + rewrite
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

    /// Asks the log, once in a turn, whether it is to be rewritten.
    fn ask_log(&mut self) {
        if self.is_wanted.is_none() {
            self.finish_rewrite();
            self.is_wanted = Some(self.wants_rewrite());
        }
    }

    fn append(&mut self) {
        if !self.batch.is_empty() {
            self.ask_log();
        }
        if let Some(log) = self.log.as_mut().filter(|_| !self.batch.is_empty()) {
            log.append(&self.batch);
            if let Some(rewrite) = &mut self.rewrite {
                rewrite.log.extend_from_slice(&self.batch);
                rewrite.added += self.batch.len() / RECORD;
                // The current log cannot be replaced for a long time: start again then.
                if rewrite.is_complete && rewrite.log.len() > rewrite.most {
                    self.rewrite = None;
                }
            }
            self.batch.clear();
            self.batch.shrink_to(KEPT_BATCH);
        }
    }

    fn wants_rewrite(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.wants_rewrite())
    }

    fn start_rewrite(&mut self) {
        let records = self.table.len() + self.open;
        // With room for records of the meantime: moving a long log would take long.
        let most = HEADER + (records + records / 4) * RECORD + BATCH;
        let mut log = Vec::with_capacity(most);
        client_log::start(self.seed, &mut log);
        self.table.start_walk();
        self.rewrite = Some(Rewrite {
            log,
            most,
            has_disconnected: false,
            next_slot: 0,
            is_complete: false,
            added: 0,
        });
    }

    /// Writes a limited number of clients. Returns whether all have been written.
    fn continue_rewrite(
        &mut self,
        end: usize,
        mut connected_in: impl FnMut(u32) -> Option<(Digest, Cursor)>,
    ) -> bool {
        let Some(rewrite) = &mut self.rewrite else {
            return false;
        };
        // Ends before the records of the meantime are an eighth of the steps, however many a turn has.
        let steps = REWRITTEN + STEPS_PER_RECORD * mem::take(&mut rewrite.added);
        for _ in 0..steps {
            if !rewrite.has_disconnected {
                match self.table.walk() {
                    Some((client, at)) => Record::Closed(client, at).encode(&mut rewrite.log),
                    None => rewrite.has_disconnected = true,
                }
            } else if (rewrite.next_slot as usize) < end {
                if let Some((client, at)) = connected_in(rewrite.next_slot) {
                    Record::Connected(client, at).encode(&mut rewrite.log);
                }
                rewrite.next_slot += 1;
            } else {
                rewrite.is_complete = true;
                break;
            }
        }
        rewrite.is_complete
    }

    /// Replaces the log by the new one if that is complete, unless earlier records are still being
    /// written.
    fn finish_rewrite(&mut self) {
        let is_complete = |rewrite: &Rewrite| rewrite.is_complete;
        if self.rewrite.as_ref().is_some_and(is_complete)
            && self.wants_rewrite()
            && let Some(rewrite) = self.rewrite.take()
            && let Some(log) = &mut self.log
        {
            log.replace(rewrite.log);
        }
    }
}

impl Drop for Clients {
    /// Writes the last records.
    fn drop(&mut self) {
        self.append();
        // Otherwise, the positions of the open connections are unknown here.
        if self.open == 0 && self.wants_rewrite() {
            self.start_rewrite();
            while !self.continue_rewrite(0, |_| None) {}
            self.finish_rewrite();
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
/// The number of clients, or slots, of a new log that a turn writes.
const REWRITTEN: usize = 2048;
/// The number that it writes besides for each record that it has added: more than one, so that the new
/// log is complete before the current one is too long.
const STEPS_PER_RECORD: usize = 8;

#[cfg(test)]
mod tests;

//! The history of the embedded backend: stores published events, and restores them after a restart.
//!
//! Owns: the history file beside the users' database, positions, and the exchange of events between
//! processes that share a data directory. Must not know: requests, the reactor's copy of the
//! history, or replays.
//!
//! A turn of the backend is one transaction, which begins before the users' database is read: the
//! rights in a plan are therefore never older than those of any event of another process that is
//! read in the same turn.

mod checkpoint;
mod error;
mod file;
mod load;
mod log_check;
mod prune;
mod rights;
mod rows;
mod state;
mod stored;
mod sync;

use std::path::PathBuf;

use rusqlite::Error as UsersError;

use self::stored::StoredHistory;
use super::change_log::Affected;
use super::directory::Directory;
use super::publish::PlannedEvent;
use super::store::StoreError;
use crate::model::{
    BackendEvent, Durability, EpochScope, HistoryEvent, HistoryStart, PublishError, UnixMillis,
};

/// The limits of the stored history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// The memory of the history in the reactor, in bytes. 0 disables the history.
    pub memory: usize,
    /// The size of the stored history, in bytes. 0 stores nothing.
    pub disk: u64,
    /// The maximum age of an event, in milliseconds.
    pub window: UnixMillis,
    /// The durability of accepted events.
    pub durability: Durability,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        HistoryOptions {
            memory: 16 << 20,
            disk: 64 << 20,
            window: 7 * 24 * 3600 * 1000,
            durability: Durability::default(),
        }
    }
}

/// An event that is being accepted.
#[derive(Debug)]
pub(super) struct Incoming {
    pub planned: Vec<PlannedEvent>,
    /// Whether it came from a message queue, from which every process receives it.
    pub is_queued: bool,
    /// Whether another process has stored it already. Set by the history.
    pub is_duplicate: bool,
}

impl Incoming {
    pub(super) fn new(planned: Vec<PlannedEvent>, is_queued: bool) -> Self {
        Incoming {
            planned,
            is_queued,
            is_duplicate: false,
        }
    }
}

/// The reason why a turn was not completed. Nothing has been stored.
#[derive(Debug)]
pub(super) enum TurnError {
    /// The users' database cannot be read.
    Users(UsersError),
    /// The turn must be repeated, with a new view of the users' database.
    Again,
    /// The events cannot be stored, for this reason.
    Refused(PublishError),
}

/// The history: in a file, or only in the reactor.
#[derive(Debug)]
pub(super) enum History {
    /// Positions are counted, and nothing is stored.
    Counted(Counter),
    /// Events are stored.
    Stored(Box<StoredHistory>),
}

/// Positions without a file.
#[derive(Debug)]
pub(super) struct Counter {
    epoch: u64,
    last: u64,
    is_started: bool,
}

impl History {
    /// Opens the history file, or counts positions if the options disable it.
    ///
    /// # Errors
    /// The file was written by a later version, or cannot be created or written by this user.
    pub(super) fn open(path: PathBuf, options: HistoryOptions) -> Result<History, StoreError> {
        if options.memory == 0 || options.disk == 0 {
            return History::counted();
        }
        let stored = StoredHistory::open(path, options, random()?)?;
        Ok(History::Stored(Box::new(stored)))
    }

    /// Returns a history without a file.
    pub(super) fn counted() -> Result<History, StoreError> {
        Ok(History::Counted(Counter {
            epoch: random()?.unsigned_abs(),
            last: 0,
            is_started: false,
        }))
    }

    /// Records changes of rights, whose effects on stored events the next turns determine.
    pub(super) fn add_affected(&mut self, affected: &[Affected]) {
        if let History::Stored(stored) = self {
            stored.add_affected(affected);
        }
    }

    /// Begins a turn, before the users' database is read. An error is reported by
    /// [`History::work`].
    pub(super) fn begin(&mut self, has_events: bool) {
        if let History::Stored(stored) = self {
            stored.begin(has_events);
        }
    }

    /// Stores the events of a turn, and sets the stamps of their plans. Returns the messages to the
    /// reactor that precede them and that follow them.
    pub(super) fn work(
        &mut self,
        directory: &Directory<'_>,
        incoming: &mut [Incoming],
        now: UnixMillis,
    ) -> Result<TurnMessages, TurnError> {
        match self {
            History::Counted(counter) => Ok(counter.work(incoming, now)),
            History::Stored(stored) => stored.work(directory, incoming, now),
        }
    }

    /// Returns the newest event on an annotation as it was published, if it is stored. Must be called
    /// within a turn, before [`History::work`].
    pub(super) fn event_on(&self, id: &str) -> Option<Vec<u8>> {
        match self {
            History::Counted(_) => None,
            History::Stored(stored) => stored.event_on(id),
        }
    }

    /// Ends a turn. Undoes it unless it was completed.
    pub(super) fn end(&mut self) {
        if let History::Stored(stored) = self {
            stored.end();
        }
    }

    /// Does the work that no answer waits for.
    pub(super) fn maintain(&mut self, now: UnixMillis) {
        if let History::Stored(stored) = self {
            stored.maintain(now);
        }
    }
}

/// The messages of a turn about the history.
#[derive(Debug, Default)]
pub(super) struct TurnMessages {
    /// Those with lower positions than the events of the turn.
    pub before: Vec<BackendEvent>,
    /// Those with higher positions.
    pub after: Vec<BackendEvent>,
}

impl Counter {
    fn work(&mut self, incoming: &mut [Incoming], now: UnixMillis) -> TurnMessages {
        let mut messages = TurnMessages::default();
        if !self.is_started {
            self.is_started = true;
            let start = HistoryStart {
                epoch: self.epoch,
                scope: EpochScope::Stored,
                floor: 0,
                floor_time: now,
                head: 0,
            };
            messages.before = [HistoryEvent::Start(start), HistoryEvent::Ready]
                .map(BackendEvent::History)
                .into();
        }
        for planned in incoming.iter_mut().flat_map(|one| &mut one.planned) {
            self.last += 1;
            planned.plan.stamp.position = self.last;
            planned.plan.stamp.time = now;
        }
        messages
    }
}

/// Decodes receivers as stored, and encodes them again; `None` if the bytes are invalid. For the fuzz
/// targets.
#[doc(hidden)]
pub fn reencode_receivers(bytes: &[u8]) -> Option<Vec<u8>> {
    let state = state::decode(bytes).ok()?;
    Some(state::encode(&state.candidates, &state.rules))
}

/// Returns a random number, of which two equal ones are not to be expected.
fn random() -> Result<i64, StoreError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        StoreError::Invalid(format!("cannot generate a random number: {error}"))
    })?;
    Ok(i64::from_le_bytes(bytes))
}

/// The version of the schema.
pub(super) const SCHEMA_VERSION: i64 = 1;
#[cfg(test)]
mod tests;

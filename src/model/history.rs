//! The start of the history: its identity, its contents, and the guarantees of a backend.
//!
//! Owns: the messages from which the reactor fills its history before the first event. Must not
//! know: the storage of events, or the replay to clients.

use super::plan::RestoredPlan;
use super::time::UnixMillis;

/// A message about the history.
#[derive(Debug)]
pub enum HistoryEvent {
    /// Starts the history, and discards any earlier one. Precedes all other messages about it and
    /// all plans.
    Start(HistoryStart),
    /// Plans from before the start, in increasing order of positions.
    Restored(Vec<RestoredPlan>),
    /// All plans have been restored. Clients that resume wait for this message.
    Ready,
    /// All changes up to this time by the backend's clock have been sent. Cursors contain the latest
    /// such time, see [`EpochScope::Process`].
    Watermark(UnixMillis),
}

/// The identity and the extent of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStart {
    /// Identifies the sequence of positions: positions of different epochs cannot be compared.
    pub epoch: u64,
    /// The meaning of cursors from other epochs.
    pub scope: EpochScope,
    /// The history contains all events after this position.
    pub floor: u64,
    /// The history contains all events after this time, by the backend's clock.
    pub floor_time: UnixMillis,
    /// The position of the newest event before the start, at least `floor`.
    pub head: u64,
}

/// The meaning of a cursor from another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochScope {
    /// Positions are stored. Another epoch is that of a history that was lost, so the events after
    /// such a cursor are unknown.
    Stored,
    /// Positions are counted by each process. The time in a cursor is a watermark
    /// ([`HistoryEvent::Watermark`]) and is valid in all processes: the events after the cursor are
    /// those with a later time.
    Process,
}

/// The durability of an event that a backend with stored positions has accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The event survives a crash of the server. A power failure may lose the last events.
    #[default]
    Normal,
    /// The event survives a power failure, too.
    Full,
}

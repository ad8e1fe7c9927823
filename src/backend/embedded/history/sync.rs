//! Which commits have been synced, and would survive a power failure.
//!
//! With [`Durability::Normal`], commits are synced up to a second later. The history records whether
//! there are such commits: the first one after a quiet period, which records it, is synced at once.
//! A server that starts after the machine has stopped thus knows whether events may be missing.

use std::fs;

use super::error::HistoryError;
use super::file::HistoryFile;
use super::rows::Meta;
use crate::model::{Durability, UnixMillis};

/// The commits of this process that have not been synced.
#[derive(Debug)]
pub(super) struct SyncState {
    durability: Durability,
    /// Identifies the boot of the machine.
    machine: String,
    /// The time of the first commit since the last sync.
    unsynced: Option<UnixMillis>,
    /// The time of the last commit, until the history records that all are synced.
    unrecorded: Option<UnixMillis>,
}

impl SyncState {
    pub(super) fn new(durability: Durability) -> SyncState {
        // Without an id, a power failure is not detected.
        let machine = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let machine = machine.trim();
        SyncState {
            durability,
            machine: if machine.is_empty() { "?" } else { machine }.to_owned(),
            unsynced: None,
            unrecorded: None,
        }
    }

    /// Returns the id of the machine's boot.
    pub(super) fn machine(&self) -> &str {
        &self.machine
    }

    /// Returns the id that a commit records.
    pub(super) fn boot(&self) -> &str {
        match self.durability {
            Durability::Normal => &self.machine,
            Durability::Full => "",
        }
    }

    /// Returns whether the next commit must be synced, since it is the first one to record that
    /// commits may not be.
    pub(super) fn must_sync(&self, meta: &Meta) -> bool {
        self.durability == Durability::Normal && meta.boot != self.machine
    }

    /// Records a commit.
    pub(super) fn committed(&mut self, now: UnixMillis) {
        self.unsynced.get_or_insert(now);
        self.unrecorded = Some(now);
    }

    /// Syncs commits that are old enough. After a quiet period, records that all are synced.
    pub(super) fn maintain(
        &mut self,
        file: &HistoryFile,
        last_turn: Option<(i64, i64)>,
        now: UnixMillis,
    ) -> Result<(), HistoryError> {
        let is_due = |since: Option<UnixMillis>, period: UnixMillis| {
            since.is_some_and(|since| now.abs_diff(since) >= period)
        };
        if is_due(self.unsynced, SYNC_PERIOD) {
            self.unsynced = None;
            file.request_checkpoint()?;
        }
        if is_due(self.unrecorded, QUIET_PERIOD) {
            self.finish(file, last_turn)?;
            self.unrecorded = None;
        }
        Ok(())
    }

    /// Syncs all commits, and records it.
    pub(super) fn finish(
        &self,
        file: &HistoryFile,
        last_turn: Option<(i64, i64)>,
    ) -> Result<(), HistoryError> {
        if self.unrecorded.is_none() || self.durability == Durability::Full {
            return Ok(());
        }
        let (Some((epoch, last)), true) = (last_turn, file.checkpoint()?) else {
            return Ok(());
        };
        // Another process may have stored further events meanwhile.
        file.db.execute(
            "UPDATE meta SET boot = '' WHERE epoch = ?1 AND last = ?2",
            [epoch, last],
        )?;
        Ok(())
    }
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The time within which commits are synced, in milliseconds.
const SYNC_PERIOD: UnixMillis = 1000;
/// The time without commits after which the history records that all are synced, in milliseconds.
const QUIET_PERIOD: UnixMillis = 10_000;

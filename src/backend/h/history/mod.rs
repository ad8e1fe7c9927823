//! The history of h's backend: the changes that the worker has sent, and the sweep that finds those
//! which no event has reported.
//!
//! h stores no stream of events. When the backend starts, it fills the history from the rows of
//! `annotation` that have changed recently. Afterwards, a sweep looks for changes at an interval.
//!
//! Owns: the state of both, and the decisions. Must not know: SQL, or the requests of connections.

mod facts;
mod fill;
mod held;
mod schedule;
mod state;
mod sweep;

use std::time::Duration;

pub(super) use facts::{ChangedRow, Facts, GroupRights, Hasher, Purpose, Rights, RowState};
pub(super) use fill::{Fill, Filled};
pub(super) use held::{HeldTable, Names, Origin};
pub(super) use schedule::Schedule;
pub(super) use state::{History, Phase};
pub(super) use sweep::{Step, Sweep};

use super::ids::Uuid;
use crate::backend::time::PgTime;
use crate::model::Plan;

/// The settings of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// The memory of the history in the reactor, in bytes. 0 disables the history and the sweep.
    pub memory: usize,
    /// The age of the oldest change in the history.
    pub window: Duration,
    /// The interval between sweeps.
    pub sweep: Duration,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        HistoryOptions {
            memory: 16 << 20,
            window: Duration::from_secs(7 * 24 * 60 * 60),
            sweep: Duration::from_secs(60),
        }
    }
}

impl HistoryOptions {
    /// Returns the age below which a change is left to the next sweep, since its event is probably
    /// on its way. At most the interval, so that it does not delay sweeps that are more frequent.
    pub(super) fn grace(&self) -> Duration {
        GRACE.min(self.sweep)
    }
}

/// An annotation's plan, with the facts that it is based on.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan. Its stamp is not assigned yet.
    pub plan: Plan,
    pub(super) facts: Facts,
}

/// A page of changes.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    /// The time of the transaction, by the database's clock.
    pub now: PgTime,
    /// The changed annotations, in the order of the page.
    pub rows: Vec<ChangedRow>,
    /// Moderated annotations with the key of their log entry, in the order of the page.
    pub moderated: Vec<(i32, ChangedRow)>,
    /// Whether moderation is known: the table `moderation_log` can be read.
    pub knows_moderation: bool,
}

/// Selects a page of changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Page {
    /// The oldest changes after this row. With a key of `moderation_log`, also the oldest entries
    /// after it.
    After(PageKey, Option<i32>),
    /// The newest changes before this row, and not before the time. If true, also the newest
    /// entries of `moderation_log`.
    Before(PageKey, PgTime, bool),
}

/// The time and the id of a changed row. Rows are ordered by both.
pub(super) type PageKey = (PgTime, Uuid);

/// The key of the first page of [`Page::Before`]: in the year 9999.
pub(super) const NEWEST: PageKey = (PgTime(252_423_993_600_000_000), Uuid([0xff; 16]));

/// Returns the next annotations to read in one transaction, given their estimated sizes: at least
/// one, and at most `max`.
fn take_batch(rows: impl Iterator<Item = (Uuid, usize)>, max: usize) -> Vec<Uuid> {
    let mut bytes = 0;
    rows.take(max)
        .take_while(|(_, size)| {
            let fits = bytes < PLAN_BATCH_BYTES;
            bytes += size;
            fits
        })
        .map(|(id, _)| id)
        .collect()
}

/// The number of changed rows per page. Such a page has about 100 kB.
pub(super) const PAGE: usize = 1000;
/// The maximum number of annotations that are read in one transaction.
pub(super) const PLAN_BATCH: usize = 64;
/// The estimated size of annotations that are read in one transaction, in bytes. The last one may
/// exceed it.
pub(super) const PLAN_BATCH_BYTES: usize = 4 << 20;
/// The number of names per statement on rights.
pub(super) const RIGHTS_BATCH: usize = 2000;
/// h sets `updated` before it commits, by the clock of its own server. Rows that become visible
/// later than this after their `updated` are not found by a sweep.
pub(super) const OVERLAP: Duration = Duration::from_secs(30);
/// The age below which a change is left to the next sweep.
const GRACE: Duration = Duration::from_secs(5);
/// h deletes rows of deleted annotations after ten minutes. Earlier deletions are unknown when the
/// backend starts.
pub(super) const DELETIONS_KEPT: Duration = Duration::from_secs(600);
/// If no sweep has been completed for this time, deleted rows may have disappeared unseen.
pub(super) const VERIFY_AFTER: Duration = Duration::from_secs(540);
/// How often an annotation is tried if the database becomes unavailable while it is read.
pub(super) const MAX_ATTEMPTS: u8 = 3;

//! The start of the history: its contents for the reactor, with the rights of now.

use log::warn;
use rusqlite::{Connection, params};

use super::HistoryOptions;
use super::error::HistoryError;
use super::rights::{rebuild, restate};
use super::rows::{Meta, StoredEvent, past};
use super::state;
use super::stored::WorkError;
use crate::backend::embedded::directory::{Directory, to_millis};
use crate::model::{
    BackendEvent, EpochScope, HistoryEvent, HistoryStart, RestoredPlan, UnixMillis,
};

/// Returns the row of the history for a server that starts. A new history gets the epoch. Positions
/// continue after a hole: those that were assigned just before a power failure may be unknown here.
/// `boot` identifies the boot of the machine: if commits were not synced before the last one, events
/// may be missing, which the floor then shows.
pub(super) fn start_meta(
    db: &Connection,
    epoch: i64,
    boot: &str,
    now: UnixMillis,
) -> Result<Meta, HistoryError> {
    let clock = i64::try_from(now.saturating_mul(POSITIONS_PER_MILLISECOND)).unwrap_or(0);
    let found = Meta::read(db)?;
    let is_new = found.is_none();
    let mut meta = match found {
        Some(meta) => meta,
        None => new_meta(db, epoch, now)?,
    };
    meta.check_digest(db)?;
    let next = (meta.last / STEP).saturating_add(1).saturating_mul(STEP);
    // If the file is an older copy of itself, positions of a later state are below the clock's.
    let base = next.max(clock.min(MAX_BASE));
    meta.last = base;
    let is_incomplete = !meta.boot.is_empty() && meta.boot != boot;
    if is_incomplete {
        warn!(
            "the machine stopped before the last events in the history were synced, and they may be \
             lost: clients that resume are told of the gap; history.durability = \"full\" prevents this"
        );
        meta.floor_time = now.max(meta.last_time);
    }
    if is_new || is_incomplete {
        meta.floor = base;
    }
    Ok(meta)
}

fn new_meta(db: &Connection, epoch: i64, now: UnixMillis) -> Result<Meta, HistoryError> {
    let has_events = db.prepare("SELECT 1 FROM event LIMIT 1")?.exists([])?;
    match has_events {
        true => {
            let cause = "its table meta is empty".to_owned();
            Err(HistoryError::Damaged(cause))
        }
        false => Ok(Meta {
            epoch,
            last: 0,
            last_time: now,
            floor: 0,
            floor_time: now,
            digest: 0,
            boot: String::new(),
        }),
    }
}

/// Returns the messages that start the history in the reactor: the newest events that fit into its
/// memory and window. Events whose rights have changed meanwhile get a new position.
pub(super) fn load(
    db: &Connection,
    directory: &Directory<'_>,
    meta: &mut Meta,
    options: &HistoryOptions,
    origin: i64,
    now: UnixMillis,
) -> Result<Vec<BackendEvent>, WorkError> {
    let (floor, floor_time) = loaded_floor(db, meta, options, now)?;
    let mut chunks = Vec::new();
    let mut examined = floor;
    loop {
        let rows = StoredEvent::query(
            db,
            "WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            params![examined, CHUNK],
        )?;
        let Some(last) = rows.last() else { break };
        examined = last.seq;
        let mut chunk = Vec::with_capacity(rows.len());
        for row in rows {
            // A row that is stored again comes last, with its new position.
            if restate(db, directory, meta, row.clone(), origin, now)?.is_none() {
                let mut past = past(db, &row.subject, floor)?;
                let event_position = row.event_seq.unsigned_abs();
                let plan = rebuild(directory, row, None)?.plan;
                past.iter_mut()
                    .for_each(|past| state::complete(&mut past.candidates, &plan));
                chunk.push(RestoredPlan {
                    plan,
                    event_position,
                    past,
                });
            }
        }
        chunks.push(chunk);
    }
    let start = HistoryStart {
        epoch: meta.epoch.cast_unsigned(),
        scope: EpochScope::Stored,
        floor: floor.unsigned_abs(),
        floor_time,
        head: meta.last.unsigned_abs(),
    };
    let chunks = chunks.into_iter().filter(|chunk| !chunk.is_empty());
    let events = std::iter::once(HistoryEvent::Start(start))
        .chain(chunks.map(HistoryEvent::Restored))
        .chain([HistoryEvent::Ready]);
    Ok(events.map(BackendEvent::History).collect())
}

/// Returns the position and the time after which all events fit into the reactor's history.
fn loaded_floor(
    db: &Connection,
    meta: &Meta,
    options: &HistoryOptions,
    now: UnixMillis,
) -> Result<(i64, UnixMillis), HistoryError> {
    let oldest = now.saturating_sub(options.window);
    let mut query =
        db.prepare("SELECT seq, time, length(state) + length(body) FROM event ORDER BY seq DESC")?;
    let mut rows = query.query([])?;
    let mut memory = 0_usize;
    while let Some(row) = rows.next()? {
        let (seq, time): (i64, UnixMillis) = (row.get(0)?, to_millis(row.get(1)?));
        let size = usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX);
        memory = memory.saturating_add(size).saturating_add(PLAN);
        if memory > options.memory || time < oldest {
            return Ok((seq.max(meta.floor), time.max(meta.floor_time)));
        }
    }
    Ok((meta.floor, meta.floor_time))
}

/// The number of plans in a message to the reactor.
const CHUNK: i64 = 256;
/// The approximate size of a plan in memory without its contents, in bytes.
const PLAN: usize = 256;
/// Positions continue at a multiple of this, far beyond the positions that can be assigned between
/// two syncs of the disk.
const STEP: i64 = 1 << 20;
/// More positions than can be assigned in a millisecond.
const POSITIONS_PER_MILLISECOND: UnixMillis = 1 << 10;
/// The maximum position that is derived from the clock, which may be wrong: about the year 10000.
const MAX_BASE: i64 = 1 << 58;

//! The limits on the age and the size of the stored history.

use rusqlite::params;

use super::HistoryOptions;
use super::error::HistoryError;
use super::file::HistoryFile;
use super::rows::{Meta, delete_readers};
use crate::backend::embedded::directory::{from_millis, to_millis};
use crate::model::UnixMillis;

/// Deletes the oldest events beyond the limits, at most `most` of them. Returns whether more remain.
pub(super) fn prune(
    file: &HistoryFile,
    meta: &mut Meta,
    options: &HistoryOptions,
    most: usize,
    now: UnixMillis,
) -> Result<bool, HistoryError> {
    let oldest = now.saturating_sub(options.window);
    let is_old = |row: &OldRow, _| row.time < from_millis(oldest);
    let mut deleted = delete_oldest(file, meta, is_old, most)?;
    loop {
        let excess = file.used()?.saturating_sub(options.disk);
        if excess == 0 || deleted >= most {
            return Ok(excess > 0 || deleted >= most);
        }
        let is_needed = |_: &OldRow, freed| freed < excess;
        match delete_oldest(file, meta, is_needed, BATCH.min(most - deleted))? {
            0 => return Ok(false),
            count => deleted += count,
        }
    }
}

/// A row that may be deleted.
struct OldRow {
    id: i64,
    readers: i64,
    seq: i64,
    time: i64,
    subject: String,
    checksum: i64,
    /// Approximately, in bytes.
    size: u64,
}

/// Returns whether events are beyond the limits. Returns free pages to the file system if the file is
/// much larger than its limit.
pub(super) fn is_beyond_limits(
    file: &HistoryFile,
    options: &HistoryOptions,
    now: UnixMillis,
) -> Result<bool, HistoryError> {
    let oldest = now.saturating_sub(options.window);
    let is_old = file
        .db
        .prepare_cached(
            "SELECT coalesce((SELECT time FROM event ORDER BY seq LIMIT 1) < ?1, false)",
        )?
        .query_row([from_millis(oldest)], |row| row.get(0))?;
    if file.size()? > options.disk.saturating_add(options.disk / 4) {
        file.release_pages()?;
    }
    Ok(is_old || file.used()? > options.disk)
}

/// Deletes up to `most` of the oldest events, as long as `is_due` returns true for an event and the
/// number of bytes freed before it. Raises the floor.
fn delete_oldest(
    file: &HistoryFile,
    meta: &mut Meta,
    is_due: impl Fn(&OldRow, u64) -> bool,
    most: usize,
) -> Result<usize, HistoryError> {
    let db = &file.db;
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let mut query = db.prepare_cached(
        "SELECT seq, time, subject, checksum, length(state) + length(body), id, readers FROM event
         ORDER BY seq LIMIT ?1",
    )?;
    let mut rows = query.query([limit])?;
    let (mut oldest, mut freed) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let row = OldRow {
            seq: row.get(0)?,
            time: row.get(1)?,
            subject: row.get(2)?,
            checksum: row.get(3)?,
            size: row.get::<_, i64>(4)?.unsigned_abs(),
            id: row.get(5)?,
            readers: row.get(6)?,
        };
        if !is_due(&row, freed) {
            break;
        }
        freed += row.size;
        oldest.push(row);
    }
    drop(rows);
    for row in &oldest {
        db.prepare_cached("DELETE FROM event WHERE id = ?1")?
            .execute([row.id])?;
        delete_readers(db, row.id, row.readers)?;
        meta.digest ^= row.checksum;
        meta.delete_past(db, "subject = ?1", params![row.subject])?;
        meta.floor = meta.floor.max(row.seq);
        meta.floor_time = meta.floor_time.max(to_millis(row.time));
    }
    Ok(oldest.len())
}

/// Returns the number of events that a turn may delete: more than it has stored, so that the size
/// converges.
pub(super) fn allowance(stored: usize, bytes: usize) -> usize {
    BATCH + 4 * stored + bytes / 512
}

/// The number of events that are deleted between two measurements of the size.
const BATCH: usize = 64;

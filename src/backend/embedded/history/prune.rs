//! The limits on the age and the size of the stored history.

use super::HistoryOptions;
use super::error::HistoryError;
use super::file::HistoryFile;
use super::rows::Meta;
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
    let limit = now.saturating_sub(options.window);
    let by_age = delete_oldest(file, meta, Some(limit), most)?;
    if by_age == most {
        return Ok(true);
    }
    let mut deleted = by_age;
    while file.used()? > options.disk {
        let count = delete_oldest(file, meta, None, BATCH.min(most - deleted))?;
        deleted += count;
        if count == 0 {
            return Ok(deleted == most);
        }
    }
    Ok(false)
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

/// Deletes up to `most` of the oldest events; with `before`, only earlier ones. Raises the floor.
fn delete_oldest(
    file: &HistoryFile,
    meta: &mut Meta,
    before: Option<UnixMillis>,
    most: usize,
) -> Result<usize, HistoryError> {
    let db = &file.db;
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let oldest: Vec<(i64, i64, String)> = db
        .prepare_cached("SELECT seq, time, subject FROM event ORDER BY seq LIMIT ?1")?
        .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let is_old = |time: i64| before.is_none_or(|before| time < from_millis(before));
    let mut count = 0;
    for (seq, time, subject) in oldest.into_iter().take_while(|row| is_old(row.1)) {
        db.prepare_cached("DELETE FROM event WHERE seq = ?1")?
            .execute([seq])?;
        db.prepare_cached("DELETE FROM past WHERE subject = ?1")?
            .execute([subject])?;
        meta.floor = meta.floor.max(seq);
        meta.floor_time = meta.floor_time.max(to_millis(time));
        count += 1;
    }
    Ok(count)
}

/// Returns the number of events that a turn may delete: more than it has stored, so that the size
/// converges.
pub(super) fn allowance(stored: usize, bytes: usize) -> usize {
    BATCH + 4 * stored + bytes / 512
}

/// The number of events that are deleted between two measurements of the size.
const BATCH: usize = 64;

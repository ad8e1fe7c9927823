//! The rows of the history, within a transaction.

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};
use sha2::{Digest as _, Sha256};

use super::error::HistoryError;
use super::state;
use crate::backend::embedded::directory::{from_millis, to_millis};
use crate::backend::embedded::publish::PlannedEvent;
use crate::model::{Cause, PastState, Subject, UnixMillis};

/// The row of the history as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub epoch: i64,
    pub last: i64,
    pub last_time: UnixMillis,
    pub floor: i64,
    pub floor_time: UnixMillis,
    /// The exclusive or of the checksums of all events and past states: shows missing rows.
    pub digest: i64,
    /// The id of the machine's boot if commits may not be synced; empty if all are.
    pub boot: String,
}

/// The newest event of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredEvent {
    /// The key of the row, which the next event of the subject keeps. 0 in a new row.
    pub id: i64,
    pub seq: i64,
    pub time: UnixMillis,
    pub subject: String,
    pub cause: Cause,
    /// The position of the last event on the subject.
    pub event_seq: i64,
    pub author: Option<String>,
    pub group: Option<String>,
    pub origin: i64,
    /// The number of other groups that the annotation names as readers.
    pub readers: i64,
    pub state: Vec<u8>,
    pub body: Vec<u8>,
}

impl Meta {
    /// Returns the row, or `None` in a new history.
    pub(super) fn read(db: &Connection) -> Result<Option<Meta>, HistoryError> {
        let meta = db
            .prepare_cached(
                "SELECT epoch, last, last_time, floor, floor_time, digest, boot FROM meta",
            )?
            .query_row([], |row| {
                Ok(Meta {
                    epoch: row.get(0)?,
                    last: row.get(1)?,
                    last_time: to_millis(row.get(2)?),
                    floor: row.get(3)?,
                    floor_time: to_millis(row.get(4)?),
                    digest: row.get(5)?,
                    boot: row.get(6)?,
                })
            })
            .optional()?;
        Ok(meta)
    }

    pub(super) fn write(&self, db: &Connection) -> Result<(), HistoryError> {
        db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                self.epoch,
                self.last,
                from_millis(self.last_time),
                self.floor,
                from_millis(self.floor_time),
                self.digest,
                self.boot
            ])?;
        Ok(())
    }

    /// Checks that no row is missing.
    pub(super) fn check_digest(&self, db: &Connection) -> Result<(), HistoryError> {
        let mut query =
            db.prepare("SELECT checksum FROM event UNION ALL SELECT checksum FROM past")?;
        let checksums = query.query_map([], |row| row.get::<_, i64>(0))?;
        let mut digest = 0;
        for checksum in checksums {
            digest ^= checksum?;
        }
        match digest == self.digest {
            true => Ok(()),
            false => Err(HistoryError::Damaged("rows are missing".to_owned())),
        }
    }

    /// Deletes past states.
    pub(super) fn delete_past(
        &mut self,
        db: &Connection,
        condition: &str,
        parameters: &[&dyn ToSql],
    ) -> Result<(), HistoryError> {
        let select = format!("SELECT checksum FROM past WHERE {condition}");
        let mut select = db.prepare_cached(&select)?;
        let checksums = select.query_map(parameters, |row| row.get::<_, i64>(0))?;
        let checksums = checksums.collect::<Result<Vec<_>, _>>()?;
        if checksums.is_empty() {
            return Ok(());
        }
        for checksum in checksums {
            self.digest ^= checksum;
        }
        db.prepare_cached(&format!("DELETE FROM past WHERE {condition}"))?
            .execute(parameters)?;
        Ok(())
    }

    /// Assigns the next position. Times do not decrease, unless the clock was wrong before.
    fn advance(&mut self, now: UnixMillis) -> (i64, UnixMillis) {
        let is_plausible = self.last_time.saturating_sub(now) <= CLOCK_TOLERANCE;
        self.last_time = if is_plausible {
            self.last_time.max(now)
        } else {
            now
        };
        self.last = self.last.saturating_add(1);
        (self.last, self.last_time)
    }
}

impl StoredEvent {
    fn checksum(&self) -> i64 {
        let mut hash = Sha256::new();
        for number in [
            self.seq,
            from_millis(self.time),
            cause_tag(self.cause),
            self.event_seq,
            self.origin,
            self.readers,
        ] {
            hash.update(number.to_be_bytes());
        }
        let names = [
            Some(&self.subject),
            self.author.as_ref(),
            self.group.as_ref(),
        ];
        let names = names.map(|name| name.map(String::as_bytes));
        for part in names
            .into_iter()
            .chain([Some(&*self.state), Some(&*self.body)])
        {
            // A missing name differs from an empty one.
            let len = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(len.to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        truncated(hash)
    }

    /// Writes the row, over the one that it replaces. Returns its id.
    fn write(
        &self,
        db: &Connection,
        meta: &mut Meta,
        replaced: Option<ReplacedRow>,
    ) -> Result<i64, HistoryError> {
        let checksum = self.checksum();
        meta.digest ^= checksum;
        // An update of the author or of the group writes to their indexes, even if they are equal.
        let statement = match &replaced {
            None => {
                "INSERT INTO event (seq, time, cause, event, origin, readers, checksum, state, body,
                     subject, author, grp)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
            }
            Some(row) if row.is_moved => {
                "UPDATE event SET seq = ?1, time = ?2, cause = ?3, event = ?4, origin = ?5,
                     readers = ?6, checksum = ?7, state = ?8, body = ?9, author = ?11, grp = ?12
                 WHERE id = ?10"
            }
            Some(_) => {
                "UPDATE event SET seq = ?1, time = ?2, cause = ?3, event = ?4, origin = ?5,
                     readers = ?6, checksum = ?7, state = ?8, body = ?9
                 WHERE id = ?10"
            }
        };
        let id = replaced.as_ref().map(|row| row.id);
        let key: &dyn ToSql = match &id {
            None => &self.subject,
            Some(id) => id,
        };
        let columns = params![
            self.seq,
            from_millis(self.time),
            cause_tag(self.cause),
            self.event_seq,
            self.origin,
            self.readers,
            checksum,
            self.state,
            self.body,
            key,
            self.author,
            self.group,
        ];
        // The last statement has no parameters for the author and the group.
        let count = match &replaced {
            Some(row) if !row.is_moved => columns.len() - 2,
            _ => columns.len(),
        };
        db.prepare_cached(statement)?.execute(&columns[..count])?;
        Ok(id.unwrap_or_else(|| db.last_insert_rowid()))
    }

    fn from_row(row: &Row<'_>) -> Result<(StoredEvent, i64), rusqlite::Error> {
        let stored = StoredEvent {
            seq: row.get(0)?,
            time: to_millis(row.get(1)?),
            subject: row.get(2)?,
            cause: match row.get::<_, i64>(3)? {
                0 => Cause::Event,
                _ => Cause::RightsChange,
            },
            event_seq: row.get(4)?,
            author: row.get(5)?,
            group: row.get(6)?,
            origin: row.get(7)?,
            id: row.get(11)?,
            readers: row.get(12)?,
            state: row.get(9)?,
            body: row.get(10)?,
        };
        Ok((stored, row.get(8)?))
    }

    /// Returns the events of a query in `EVENT_COLUMNS`.
    pub(super) fn query(
        db: &Connection,
        condition: &str,
        parameters: &[&dyn ToSql],
    ) -> Result<Vec<StoredEvent>, HistoryError> {
        let mut query =
            db.prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM event {condition}"))?;
        let rows = query.query_map(parameters, StoredEvent::from_row)?;
        rows.map(|row| {
            let (stored, checksum) = row?;
            match stored.checksum() == checksum {
                true => Ok(stored),
                false => Err(invalid_row(stored.seq, "its checksum is wrong")),
            }
        })
        .collect()
    }
}

/// Returns an error that names a row.
pub(super) fn invalid_row(seq: i64, cause: impl std::fmt::Display) -> HistoryError {
    HistoryError::Damaged(format!("the event at position {seq} is damaged: {cause}"))
}

/// Stores an event as the newest one of its subject, and sets its stamp. The previous one remains as
/// a past state if it had other receivers. `event_seq` is the position of the last event, if this is
/// none. Returns the number of bytes stored.
pub(super) fn insert(
    db: &Connection,
    meta: &mut Meta,
    planned: &mut PlannedEvent,
    event_seq: Option<i64>,
    origin: i64,
    now: UnixMillis,
) -> Result<usize, HistoryError> {
    let (seq, time) = meta.advance(now);
    let plan = &mut planned.plan;
    let stored = StoredEvent {
        seq,
        time,
        subject: subject_key(&plan.subject),
        cause: plan.cause,
        event_seq: event_seq.unwrap_or(seq),
        author: planned.basis.author.clone(),
        group: planned.basis.group.clone(),
        origin,
        id: 0,
        readers: i64::try_from(planned.basis.other_groups.len()).unwrap_or(i64::MAX),
        state: state::encode(&plan.candidates, &plan.rules),
        body: std::mem::take(&mut planned.body),
    };
    let replaced = retire(db, meta, &stored)?;
    let id = stored.write(db, meta, replaced)?;
    for group in &planned.basis.other_groups {
        db.prepare_cached("INSERT INTO reader_group VALUES (?1, ?2)")?
            .execute(params![group, id])?;
    }
    plan.stamp.position = seq.unsigned_abs();
    plan.stamp.time = time;
    Ok(stored.body.len() + stored.state.len())
}

/// The row of a subject's previous event.
struct ReplacedRow {
    id: i64,
    /// Whether it has another author or group.
    is_moved: bool,
}

/// Returns the row of the previous event of a subject, which the next one replaces. The previous one
/// becomes a past state if its receivers differ.
fn retire(
    db: &Connection,
    meta: &mut Meta,
    next: &StoredEvent,
) -> Result<Option<ReplacedRow>, HistoryError> {
    let query = "SELECT id, author IS NOT ?2 OR grp IS NOT ?3, checksum, readers, state FROM event
                 WHERE subject = ?1";
    let mut query = db.prepare_cached(query)?;
    let mut rows = query.query(params![next.subject, next.author, next.group])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let replaced = ReplacedRow {
        id: row.get(0)?,
        is_moved: row.get(1)?,
    };
    meta.digest ^= row.get::<_, i64>(2)?;
    delete_readers(db, replaced.id, row.get(3)?)?;
    let state = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
    if state == next.state {
        return Ok(Some(replaced));
    }
    let state = state.to_vec();
    keep_past(db, meta, next, &state)?;
    Ok(Some(replaced))
}

/// Deletes the rows of an event in `reader_group`, of which it has this number.
pub(super) fn delete_readers(db: &Connection, id: i64, count: i64) -> Result<(), HistoryError> {
    if count != 0 {
        db.prepare_cached("DELETE FROM reader_group WHERE event = ?1")?
            .execute([id])?;
    }
    Ok(())
}

/// Stores the receivers of a subject before its next event.
fn keep_past(
    db: &Connection,
    meta: &mut Meta,
    next: &StoredEvent,
    state: &[u8],
) -> Result<(), HistoryError> {
    let subject = &next.subject;
    // Of equal states, the last one suffices: clients that have seen an earlier one resume from
    // before its end, too.
    let obsolete = "subject = ?1 AND (state = ?2 OR until <= ?3)";
    let floor = meta.floor;
    meta.delete_past(db, obsolete, params![subject, state, floor])?;
    let checksum = past_checksum(subject, next.seq, state);
    meta.digest ^= checksum;
    db.prepare_cached("INSERT INTO past VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![subject, next.seq, checksum, state])?;
    let excess = "subject = ?1 AND until NOT IN
                      (SELECT until FROM past WHERE subject = ?1 ORDER BY until DESC LIMIT ?2)";
    meta.delete_past(db, excess, params![subject, PAST_STATES])
}

/// Returns the past states of a subject, oldest first.
pub(super) fn past(
    db: &Connection,
    subject: &str,
    floor: i64,
) -> Result<Vec<PastState>, HistoryError> {
    let mut query = db.prepare_cached(
        "SELECT until, checksum, state FROM past WHERE subject = ?1 AND until > ?2 ORDER BY until",
    )?;
    let mut rows = query.query(params![subject, floor])?;
    let mut past = Vec::new();
    while let Some(row) = rows.next()? {
        let (until, checksum): (i64, i64) = (row.get(0)?, row.get(1)?);
        let state: Vec<u8> = row.get(2)?;
        if checksum != past_checksum(subject, until, &state) {
            return Err(invalid_row(until, "the checksum of a past state is wrong"));
        }
        let state = state::decode(&state).map_err(|error| invalid_row(until, error))?;
        past.push(PastState {
            until: until.unsigned_abs(),
            candidates: state.candidates,
            rules: state.rules,
        });
    }
    Ok(past)
}

/// Returns whether another process has recently stored the same event from a message queue, and
/// records it otherwise.
pub(super) fn is_stored_by_other(
    db: &Connection,
    body: &[u8],
    origin: i64,
    now: UnixMillis,
) -> Result<bool, HistoryError> {
    let digest = Sha256::digest(body);
    let digest = digest.as_slice().get(..DIGEST).unwrap_or_default();
    let is_stored = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM queued WHERE digest = ?1 AND origin <> ?2 AND time >= ?3)",
        )?
        .query_row(
            params![digest, origin, from_millis(now.saturating_sub(QUEUE_LAG))],
            |row| row.get(0),
        )?;
    if is_stored {
        return Ok(true);
    }
    db.prepare_cached("INSERT INTO queued (time, origin, digest) VALUES (?1, ?2, ?3)")?
        .execute(params![from_millis(now), origin, digest])?;
    db.prepare_cached("DELETE FROM queued WHERE id <= ?1")?
        .execute([db.last_insert_rowid() - QUEUED])?;
    Ok(false)
}

/// Returns the stored name of a subject.
pub(super) fn subject_key(subject: &Subject) -> String {
    match subject {
        Subject::Annotation(id) => format!("a{id}"),
        Subject::User(userid) => format!("u{userid}"),
    }
}

fn past_checksum(subject: &str, until: i64, state: &[u8]) -> i64 {
    let mut hash = Sha256::new();
    hash.update(until.to_be_bytes());
    hash.update((subject.len() as u64).to_be_bytes());
    hash.update(subject);
    hash.update(state);
    truncated(hash)
}

fn truncated(hash: Sha256) -> i64 {
    let hash = hash.finalize();
    let first = hash.as_slice().first_chunk().copied().unwrap_or_default();
    i64::from_be_bytes(first)
}

fn cause_tag(cause: Cause) -> i64 {
    match cause {
        Cause::Event => 0,
        Cause::RightsChange => 1,
    }
}

const EVENT_COLUMNS: &str = "seq, time, event.subject, cause, event.event, author, event.grp, origin, checksum, state, body, id, readers";
/// The number of past states of a subject.
const PAST_STATES: i64 = 4;
/// The maximum by which the time of the last event may be ahead of the clock, in milliseconds. Beyond
/// it, the clock was wrong.
const CLOCK_TOLERANCE: UnixMillis = 3_600_000;
/// The number of recorded events from a message queue.
const QUEUED: i64 = 16_384;
/// The time within which all processes receive an event from a message queue, in milliseconds.
const QUEUE_LAG: UnixMillis = 60_000;
/// The length of a digest, in bytes.
const DIGEST: usize = 16;

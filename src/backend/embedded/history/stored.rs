//! The turns of a history in a file.

use std::path::PathBuf;

use log::{error, info, warn};

use super::error::HistoryError;
use super::file::{FileId, HistoryFile, file_id, log_size, set_aside};
use super::load::{load, start_meta};
use super::prune::{allowance, is_beyond_limits, prune};
use super::rights::{RightsProgress, RightsQueue, rebuild};
use super::rows::{Meta, StoredEvent, insert, is_stored_by_other, subject_key};
use super::sync::SyncState;
use super::{HistoryOptions, Incoming, TurnError, TurnMessages, UsersError, random};
use crate::backend::embedded::change_log::Affected;
use crate::backend::embedded::directory::Directory;
use crate::backend::embedded::store::StoreError;
use crate::model::{BackendEvent, Durability, Plan, PublishError, Subject, UnixMillis};

/// The history in a file.
#[derive(Debug)]
pub(in crate::backend::embedded) struct StoredHistory {
    path: PathBuf,
    options: HistoryOptions,
    /// Identifies the rows of this process.
    origin: i64,
    /// `None` after an error, until the file has been reopened.
    file: Option<HistoryFile>,
    turn: Turn,
    /// Whether the reactor has the contents of the open file.
    is_started: bool,
    /// The rows up to this position have been sent to the reactor.
    seen: i64,
    /// The epoch and the last position of the last turn.
    last_turn: Option<(i64, i64)>,
    rights: RightsQueue,
    /// Whether rows are beyond the limits on size and age.
    is_prune_due: bool,
    /// The number of events and of their bytes since the limits were applied.
    unpruned: (usize, usize),
    /// The approximate number of bytes in the log since a checkpoint was requested.
    uncopied: usize,
    last_check: UnixMillis,
    /// Which commits have been synced.
    sync: SyncState,
    /// The error logged last while the history is unavailable.
    last_error: Option<String>,
}

/// The transaction of a turn.
#[derive(Debug)]
enum Turn {
    None,
    Reading,
    Writing,
    Failed(HistoryError),
}

/// An error within a transaction.
#[derive(Debug)]
pub(super) enum WorkError {
    Users(UsersError),
    History(HistoryError),
}

impl<E: Into<HistoryError>> From<E> for WorkError {
    fn from(error: E) -> Self {
        WorkError::History(error.into())
    }
}

impl StoredHistory {
    /// Opens the file. A damaged one is replaced; on a full disk, it is opened later.
    pub(super) fn open(
        path: PathBuf,
        options: HistoryOptions,
        origin: i64,
    ) -> Result<StoredHistory, StoreError> {
        let mut history = StoredHistory {
            path,
            options,
            origin,
            file: None,
            turn: Turn::None,
            is_started: false,
            seen: 0,
            last_turn: None,
            rights: RightsQueue::default(),
            is_prune_due: false,
            unpruned: (0, 0),
            uncopied: 0,
            last_check: 0,
            sync: SyncState::new(options.durability),
            last_error: None,
        };
        match history.reopen().map_err(|error| history.repair(error)) {
            Ok(()) | Err(None | Some(HistoryError::Full(_) | HistoryError::Locked)) => Ok(history),
            Err(Some(error)) => {
                let (path, text) = (history.path.clone(), error.to_string());
                Err(match error {
                    HistoryError::Newer(_) => StoreError::NewerHistory(path, text),
                    HistoryError::Io(error) => StoreError::File(path, error),
                    _ => StoreError::File(path, std::io::Error::other(text)),
                })
            }
        }
    }

    fn reopen(&mut self) -> Result<(), HistoryError> {
        if self.file.is_none() {
            self.is_started = false;
            // The first transaction must survive a power failure, see `start_meta`.
            self.file = Some(HistoryFile::open(
                &self.path,
                Durability::Full,
                self.options.disk,
            )?);
        }
        Ok(())
    }

    pub(super) fn add_affected(&mut self, affected: &[Affected]) {
        affected.iter().for_each(|one| self.rights.add(one));
    }

    pub(super) fn begin(&mut self, has_events: bool) {
        self.end();
        let begun = match self.try_begin(has_events) {
            Err(error) => match self.repair(error) {
                None => self.try_begin(has_events),
                Some(error) => Err(error),
            },
            begun => begun,
        };
        self.turn = begun.unwrap_or_else(Turn::Failed);
    }

    fn try_begin(&mut self, has_events: bool) -> Result<Turn, HistoryError> {
        self.reopen()?;
        let is_writing =
            has_events || !self.is_started || !self.rights.is_empty() || self.is_prune_due;
        let file = self.file()?;
        file.check_paths()?;
        if is_writing {
            file.bound_log()?;
        }
        let begin = match is_writing {
            true => "BEGIN IMMEDIATE",
            false => "BEGIN",
        };
        file.db.prepare_cached(begin)?.execute([])?;
        // The first read determines the state that a read transaction sees.
        let meta = Meta::read(&file.db)?;
        if is_writing && self.is_started && meta.is_some_and(|meta| self.sync.must_sync(&meta)) {
            file.db.prepare_cached("ROLLBACK")?.execute([])?;
            file.set_durability(Durability::Full)?;
            file.db.prepare_cached(begin)?.execute([])?;
        }
        Ok(match is_writing {
            true => Turn::Writing,
            false => Turn::Reading,
        })
    }

    fn file(&self) -> Result<&HistoryFile, HistoryError> {
        let closed = || HistoryError::Other("the file is closed".to_owned());
        self.file.as_ref().ok_or_else(closed)
    }

    /// Errors are reported by [`StoredHistory::work`].
    pub(super) fn event_on(&self, id: &str) -> Option<Vec<u8>> {
        let subject = subject_key(&Subject::Annotation(id.into()));
        let db = &self.file.as_ref()?.db;
        let found = StoredEvent::query(db, "WHERE subject = ?1", &[&subject]);
        found.ok()?.pop().map(|stored| stored.body)
    }

    pub(super) fn work(
        &mut self,
        directory: &Directory<'_>,
        incoming: &mut [Incoming],
        now: UnixMillis,
    ) -> Result<TurnMessages, TurnError> {
        let worked = match std::mem::replace(&mut self.turn, Turn::None) {
            Turn::None => return Err(TurnError::Again),
            Turn::Failed(error) => Err(WorkError::History(error)),
            // The turn began before the view that shows the changes of rights.
            Turn::Reading if !self.rights.is_empty() => return Err(TurnError::Again),
            Turn::Reading => self.read(directory),
            Turn::Writing => self.write(directory, incoming, now),
        };
        match worked {
            Ok(messages) => {
                if self.last_error.take().is_some() {
                    info!("history available again: path={}", self.path.display());
                }
                Ok(messages)
            }
            Err(WorkError::Users(error)) => Err(TurnError::Users(error)),
            Err(WorkError::History(error)) => {
                self.end();
                match self.repair(error) {
                    None => Err(TurnError::Again),
                    Some(error) => Err(TurnError::Refused(self.refuse(&error))),
                }
            }
        }
    }

    /// Reads the events of other processes.
    fn read(&mut self, directory: &Directory<'_>) -> Result<TurnMessages, WorkError> {
        let plans = self.foreign_plans(directory)?;
        if let Some(last) = plans.last() {
            self.seen = last.stamp.position.cast_signed();
        }
        let before = shared(plans);
        Ok(TurnMessages {
            before,
            after: Vec::new(),
        })
    }

    fn write(
        &mut self,
        directory: &Directory<'_>,
        incoming: &mut [Incoming],
        now: UnixMillis,
    ) -> Result<TurnMessages, WorkError> {
        let (mut meta, before) = match self.is_started {
            true => (self.meta()?, shared(self.foreign_plans(directory)?)),
            false => self.start(directory, now)?,
        };
        let file = self.file()?;
        let (mut count, mut bytes) = self.unpruned;
        let mut uncopied = self.uncopied + LOGGED;
        for one in incoming {
            one.is_duplicate = one.is_queued && self.is_duplicate(one, now)?;
            let planned = one.planned.iter_mut().filter(|_| !one.is_duplicate);
            for planned in planned {
                let size = insert(&file.db, &mut meta, planned, None, self.origin, now)?;
                bytes += size;
                uncopied += size + LOGGED;
                count += 1;
            }
        }
        let (plans, progress) =
            self.rights
                .step(&file.db, directory, &mut meta, self.origin, now)?;
        let mut is_prune_due = self.is_prune_due || !self.is_started;
        if is_prune_due || bytes > prune_step(self.options.disk) {
            let most = allowance(count, bytes);
            is_prune_due = prune(file, &mut meta, &self.options, most, now)?;
            (count, bytes) = (0, 0);
        }
        meta.boot = self.sync.boot().to_owned();
        meta.write(&file.db)?;
        file.db.prepare_cached("COMMIT")?.execute([])?;
        self.committed(&meta, progress, now)?;
        self.is_prune_due = is_prune_due;
        self.unpruned = (count, bytes);
        self.uncopied = uncopied;
        let after = shared(plans);
        Ok(TurnMessages { before, after })
    }

    /// Records a commit.
    fn committed(
        &mut self,
        meta: &Meta,
        progress: RightsProgress,
        now: UnixMillis,
    ) -> Result<(), HistoryError> {
        self.rights.commit(progress);
        self.seen = meta.last;
        self.last_turn = Some((meta.epoch, meta.last));
        self.sync.committed(now);
        self.is_started = true;
        self.file()?.set_durability(self.options.durability)
    }

    fn start(
        &self,
        directory: &Directory<'_>,
        now: UnixMillis,
    ) -> Result<(Meta, Vec<BackendEvent>), WorkError> {
        let db = &self.file()?.db;
        if let (Some((epoch, last)), Some(meta)) = (self.last_turn, Meta::read(db)?)
            && epoch == meta.epoch
            && meta.last < last
        {
            let cause = format!("the events after position {} are missing", meta.last);
            return Err(HistoryError::Damaged(cause).into());
        }
        let epoch = random().map_err(|error| HistoryError::Other(error.to_string()))?;
        let mut meta = start_meta(db, epoch, self.sync.machine(), now)?;
        let messages = load(db, directory, &mut meta, &self.options, self.origin, now)?;
        Ok((meta, messages))
    }

    fn meta(&self) -> Result<Meta, HistoryError> {
        let meta = Meta::read(&self.file()?.db)?;
        let meta =
            meta.ok_or_else(|| HistoryError::Damaged("its table meta is empty".to_owned()))?;
        match self.last_turn {
            Some((epoch, last)) if epoch == meta.epoch && last <= meta.last => Ok(meta),
            _ => {
                let cause = "another program has changed its table meta".to_owned();
                Err(HistoryError::Damaged(cause))
            }
        }
    }

    /// Returns the plans of the events that other processes have stored.
    fn foreign_plans(&self, directory: &Directory<'_>) -> Result<Vec<Plan>, WorkError> {
        let rows = StoredEvent::query(
            &self.file()?.db,
            "WHERE seq > ?1 AND origin <> ?2 ORDER BY seq",
            &[&self.seen, &self.origin],
        )?;
        rows.into_iter()
            .map(|row| Ok(rebuild(directory, row, None)?.plan))
            .collect()
    }

    fn is_duplicate(&self, incoming: &Incoming, now: UnixMillis) -> Result<bool, HistoryError> {
        let bodies: Vec<&[u8]> = incoming.planned.iter().map(|one| &*one.body).collect();
        let body = bodies.join(&b'\n');
        is_stored_by_other(&self.file()?.db, &body, self.origin, now)
    }

    pub(super) fn end(&mut self) {
        self.turn = Turn::None;
        if let Some(file) = &self.file
            && !file.db.is_autocommit()
            && file.db.execute_batch("ROLLBACK").is_err()
        {
            self.file = None;
        }
    }

    pub(super) fn maintain(&mut self, now: UnixMillis) {
        let Some(file) = self.file.as_ref().filter(|_| self.is_started) else {
            return;
        };
        let mut done = self.sync.maintain(file, self.last_turn, now);
        if self.uncopied as u64 >= log_size(self.options.disk) / 2 {
            self.uncopied = 0;
            done = done.and(file.request_checkpoint());
        }
        if now.abs_diff(self.last_check) >= CHECK_PERIOD {
            self.last_check = now;
            let checked = is_beyond_limits(file, &self.options, now);
            self.is_prune_due |= *checked.as_ref().unwrap_or(&false);
            done = done.and(checked.map(drop));
        }
        match done {
            // The next turn reports a full disk, and the log is kept until there is room.
            Ok(()) | Err(HistoryError::Full(_) | HistoryError::Locked) => {}
            Err(error) => {
                if let Some(error) = self.repair(error) {
                    self.refuse(&error);
                }
            }
        }
    }

    /// Closes a file that is damaged or gone, so that the next turn opens a new one. Returns other
    /// errors.
    fn repair(&mut self, error: HistoryError) -> Option<HistoryError> {
        let about = error.about(&self.path);
        match error {
            HistoryError::Replaced => {
                warn!("{about}; reopening the history");
                if let Some(file) = self.file.take() {
                    file.remove_stale_log();
                }
                None
            }
            HistoryError::Damaged(_) => {
                let damaged = match &self.file {
                    Some(file) => file.id(),
                    None => file_id(&self.path),
                };
                let moved = self.move_aside(damaged);
                match moved {
                    Ok(text) => {
                        error!(
                            "history lost: {about}; {text}, and starting a new history: clients that \
                             resume are told of the gap"
                        );
                        self.file = None;
                        None
                    }
                    Err(cause) => Some(HistoryError::Other(format!(
                        "the history is damaged and cannot be moved aside: {cause}"
                    ))),
                }
            }
            error => Some(error),
        }
    }

    fn move_aside(&self, damaged: Option<FileId>) -> std::io::Result<String> {
        Ok(match set_aside(&self.path, damaged)? {
            Some(aside) => format!("moved the file to {}", aside.display()),
            None => "another process has replaced the file".to_owned(),
        })
    }

    /// Logs each new reason for refusing events, and returns it for publishers.
    fn refuse(&mut self, error: &HistoryError) -> PublishError {
        let about = error.about(&self.path);
        if self.last_error.as_ref() != Some(&about) {
            error!("history unavailable: {about}; retrying, and rejecting events meanwhile");
            self.last_error = Some(about);
        }
        error.to_publish_error(&self.path)
    }
}

impl Drop for StoredHistory {
    fn drop(&mut self) {
        self.end();
        if let (Some(file), true) = (&self.file, self.is_started) {
            // After an error, the next start assumes that commits are missing if the machine stops.
            let _ = self.sync.finish(file, self.last_turn);
        }
    }
}

#[cfg(test)]
impl StoredHistory {
    pub(super) fn set_busy_timeout(&self, timeout: std::time::Duration) {
        self.file().unwrap().db.busy_timeout(timeout).unwrap();
    }

    pub(super) fn synchronous(&self) -> i64 {
        let db = &self.file().unwrap().db;
        db.pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap()
    }

    /// Limits the number of pages, as a full disk does.
    pub(super) fn set_page_limit(&self, pages: u32) {
        let db = &self.file().unwrap().db;
        let set = |_: &rusqlite::Row<'_>| Ok(());
        db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], set)
            .unwrap();
    }
}

/// Returns the message with plans that no request of this process is answered with.
fn shared(plans: Vec<Plan>) -> Vec<BackendEvent> {
    let mut messages = Vec::new();
    let mut plans = plans.into_iter().peekable();
    while plans.peek().is_some() {
        let plans = plans.by_ref().take(PLANS).collect();
        messages.push(BackendEvent::Replanned { plans });
    }
    messages
}

/// Returns the number of bytes that are stored between two checks of the size.
fn prune_step(disk: u64) -> usize {
    let step = usize::try_from(disk / 256).unwrap_or(usize::MAX);
    step.clamp(PRUNE_STEP, 16 * PRUNE_STEP)
}

/// The minimum number of bytes that are stored between two checks of the size.
const PRUNE_STEP: usize = 64 << 10;
/// The approximate number of bytes in the log for an event or a commit, besides the contents.
const LOGGED: usize = 4096;
/// The interval between checks of the limits, in milliseconds.
const CHECK_PERIOD: UnixMillis = 10_000;
/// The number of plans in a message to the reactor.
const PLANS: usize = 256;

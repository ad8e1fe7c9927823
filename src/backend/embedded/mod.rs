//! The embedded backend: users, tokens, and groups in one SQLite file, and events over HTTP.
//!
//! Owns: the file and its schema, the lookup of tokens, the conversion of published events into
//! plans, and the history of these events. Must not know: how events arrive and how notifications
//! are sent.
//!
//! The server's thread only reads the users' database. Only commands write to it, each in a process
//! of its own, and the server finds their changes in the change log that the schema's triggers
//! write. The history is a file of its own, which only servers write.

mod accounts;
mod annotation;
mod answer;
mod backup;
mod change_log;
mod directory;
mod explain;
mod fields;
mod file;
mod groups;
mod history;
mod policy_facts;
mod publish;
mod store;

pub use accounts::{TokenRow, UserRow};
pub use backup::{Contents, Restored, RevokedTokens, restore};
pub use directory::ReadableBy;
pub use groups::GroupRow;
pub use history::{HistoryOptions, reencode_receivers};
pub use store::{Store, StoreError};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{error, info, warn};

use self::answer::Answers;
use self::change_log::{ChangeLogReader, Changes};
use self::directory::{Credential, Directory};
use self::history::{History, TurnError};
use super::{Backend, DataDir, DropReason, Stats};
use crate::log_throttle::LogThrottle;
use crate::model::{
    AuthReply, BackendEvent, BackendRequest, ExplainError, PublishError, TokenId, UnixMillis,
};

/// The embedded backend, for [`start`](super::start).
#[derive(Debug)]
pub struct Embedded {
    /// `None` for a database in memory.
    path: Option<PathBuf>,
    /// `None` after an error, until the file has been reopened.
    store: Option<Store>,
    change_log: ChangeLogReader,
    history: History,
    /// Events from the message queue that could not be stored. They are not acknowledged, so that
    /// the queue limits their number.
    deferred: Vec<BackendRequest>,
    /// The messages of the start, which the first turn returns.
    first: Vec<BackendEvent>,
    stats: Arc<Stats>,
    /// The health reported last; `None` before the first report.
    ready: Option<bool>,
    /// The error logged last while the database is unavailable.
    last_error: Option<String>,
    malformed: LogThrottle,
}

/// The result of reading the database in one view.
struct ReadResult {
    changes: Changes,
    answers: Vec<BackendEvent>,
    /// The tokens of successful logins.
    logins: Vec<(TokenId, Credential)>,
    /// The reasons why events from the message queue were dropped.
    malformed: Vec<String>,
    /// The indices of the requests whose events could not be stored, and must be repeated.
    repeated: Vec<usize>,
}

/// The reason why a view was not read.
enum ReadError {
    Store(StoreError),
    /// The history needs another view.
    Again,
}

impl<E: Into<StoreError>> From<E> for ReadError {
    fn from(error: E) -> Self {
        ReadError::Store(error.into())
    }
}

impl Embedded {
    /// Opens the database and the history of a data directory, and creates them if they do not
    /// exist. Reads both, so that events that other servers store from now on are live events.
    ///
    /// # Errors
    /// See [`Store::open`]; the same for the history.
    pub fn open(
        data: &DataDir,
        history: HistoryOptions,
        stats: Arc<Stats>,
        now: UnixMillis,
    ) -> Result<Embedded, StoreError> {
        let path = data.database();
        let store = Store::open(&path)?;
        let history = History::open(data.history(), history)?;
        let mut embedded = Embedded::with_store(store, Some(path), history, stats)?;
        embedded.first = embedded.turn(Vec::new(), now);
        Ok(embedded)
    }

    fn with_store(
        store: Store,
        path: Option<PathBuf>,
        history: History,
        stats: Arc<Stats>,
    ) -> Result<Embedded, StoreError> {
        let change_log = ChangeLogReader::start(&store.directory())?;
        Ok(Embedded {
            path,
            store: Some(store),
            change_log,
            history,
            deferred: Vec::new(),
            first: Vec::new(),
            stats,
            ready: None,
            last_error: None,
            malformed: LogThrottle::default(),
        })
    }

    /// Reads changes and answers from one view of the database that is at its path now. A login
    /// therefore never succeeds because of a state older than the change that would have rejected it.
    fn read(
        &mut self,
        requests: &[BackendRequest],
        now: UnixMillis,
    ) -> Result<ReadResult, StoreError> {
        let reading = self.read_once(requests, now);
        if !self.disconnect_after(&reading) {
            return reading;
        }
        let reading = self.read_once(requests, now);
        self.disconnect_after(&reading);
        reading
    }

    /// Closes the connection after an error that a new connection might not have. Returns whether
    /// it did.
    fn disconnect_after(&mut self, reading: &Result<ReadResult, StoreError>) -> bool {
        let is_lasting = !matches!(reading, Ok(_) | Err(StoreError::Locked));
        is_lasting && self.path.is_some() && self.store.take().is_some()
    }

    fn read_once(
        &mut self,
        requests: &[BackendRequest],
        now: UnixMillis,
    ) -> Result<ReadResult, StoreError> {
        if let (None, Some(path)) = (&self.store, &self.path) {
            self.store = Some(Store::open_existing(path)?);
        }
        let is_event = |request: &BackendRequest| match request {
            BackendRequest::Publish { .. } | BackendRequest::QueueEvent { .. } => true,
            BackendRequest::Authenticate { .. }
            | BackendRequest::Sweep { .. }
            | BackendRequest::LookUp { .. } => false,
        };
        let has_events = requests.iter().any(is_event);
        for _ in 0..MOST_VIEWS {
            self.history.begin(has_events);
            let read = self.read_view(requests, now);
            self.history.end();
            match read {
                Err(ReadError::Again) => {}
                Err(ReadError::Store(error)) => return Err(error),
                Ok(result) => return Ok(result),
            }
        }
        Err(StoreError::Locked)
    }

    /// Reads a view of the database within a turn of the history, which is the older one.
    fn read_view(
        &mut self,
        requests: &[BackendRequest],
        now: UnixMillis,
    ) -> Result<ReadResult, ReadError> {
        let Some(store) = self.store.as_ref() else {
            return Err(StoreError::Missing("there is no database".to_owned()).into());
        };
        store.leave_wal()?;
        let view = store.view()?;
        let directory = Directory::new(&view);
        let changes = self.change_log.unreported(&directory)?;
        self.history.add_affected(&changes.affected);
        let mut answers = Answers::new(requests, &directory, &self.history, now)?;
        let logins = std::mem::take(&mut answers.logins);
        let malformed = std::mem::take(&mut answers.malformed);
        let worked = self.history.work(&directory, &mut answers.incoming, now);
        let (answers, repeated) = match worked {
            Ok(messages) => {
                let (mut events, after) = (messages.before, messages.after);
                events.extend(answers.stored().into_iter().chain(after));
                (events, Vec::new())
            }
            Err(TurnError::Refused(error)) => answers.refused(&error),
            Err(TurnError::Users(error)) => return Err(error.into()),
            Err(TurnError::Again) => return Err(ReadError::Again),
        };
        Ok(ReadResult {
            changes,
            answers,
            logins,
            malformed,
            repeated,
        })
    }

    /// `reason` is our own text, except for short quotations of invalid input.
    fn drop_malformed(&self, reason: &str, now: UnixMillis) {
        self.stats.count_dropped(DropReason::Malformed);
        if let Some(count) = self.malformed.count(1, now) {
            warn!(
                "dropped malformed events from the queue: {count} since the last such line; \
                 latest: {reason}"
            );
        }
    }

    /// Logs the dropped events that have no log line of their own.
    fn log_dropped(malformed: Option<u64>) {
        if let Some(count) = malformed {
            warn!("dropped malformed events from the queue: {count} since the last such line");
        }
    }

    /// The answer while the database is unavailable.
    fn unavailable(request: &BackendRequest) -> Option<BackendEvent> {
        match request {
            BackendRequest::Authenticate { request_id, .. } => Some(BackendEvent::Authenticated {
                request_id: *request_id,
                reply: AuthReply::Unavailable,
            }),
            BackendRequest::Publish { request_id, .. } => Some(BackendEvent::Published {
                request_id: *request_id,
                result: Err(PublishError::Unavailable(
                    "the database cannot be read now".to_owned(),
                )),
            }),
            BackendRequest::LookUp { request_id, .. } => Some(BackendEvent::Found {
                request_id: *request_id,
                result: Err(ExplainError::Unavailable(
                    "the database cannot be read now".to_owned(),
                )),
            }),
            // It is repeated until the database is available.
            BackendRequest::QueueEvent { .. } | BackendRequest::Sweep { .. } => None,
        }
    }

    /// Keeps the events from the message queue that must be processed again.
    fn defer(&mut self, requests: Vec<BackendRequest>, is_repeated: impl Fn(usize) -> bool) {
        let requests = requests.into_iter().enumerate();
        let events = requests.filter(|(index, request)| {
            is_repeated(*index) && matches!(request, BackendRequest::QueueEvent { .. })
        });
        self.deferred.extend(events.map(|(_, request)| request));
    }

    /// Reports the health if it differs from the last report. Logs each new reason for being
    /// unavailable.
    fn health(&mut self, outcome: Result<(), &StoreError>, events: &mut Vec<BackendEvent>) {
        let path = self.path.as_deref().unwrap_or(Path::new("(in memory)"));
        let last_error = outcome.err().map(|cause| cause.about(path));
        if let Some(last_error) = last_error
            .as_ref()
            .filter(|_| self.last_error != last_error)
        {
            error!(
                "database unavailable: {last_error}; retrying, and rejecting authenticated handshakes \
                 and publish requests with 503"
            );
        }
        self.last_error = last_error;
        let ready = outcome.is_ok();
        if self.ready == Some(ready) {
            return;
        }
        if ready && self.ready.is_some() {
            info!("database available again: path={}", path.display());
        }
        self.ready = Some(ready);
        events.push(BackendEvent::Health { ready });
    }
}

impl Backend for Embedded {
    fn turn(&mut self, requests: Vec<BackendRequest>, now: UnixMillis) -> Vec<BackendEvent> {
        let mut events = std::mem::take(&mut self.first);
        let mut all = std::mem::take(&mut self.deferred);
        all.extend(requests);
        match self.read(&all, now) {
            Ok(reading) => {
                self.health(Ok(()), &mut events);
                events.extend(self.change_log.commit(reading.changes));
                for (token, credential) in &reading.logins {
                    self.change_log.record_login(*token, credential);
                }
                for reason in &reading.malformed {
                    self.drop_malformed(reason, now);
                }
                events.extend(reading.answers);
                self.defer(all, |index| reading.repeated.contains(&index));
            }
            Err(cause) => {
                self.health(Err(&cause), &mut events);
                events.extend(all.iter().filter_map(Self::unavailable));
                self.defer(all, |_| true);
            }
        }
        self.history.maintain(now);
        Self::log_dropped(self.malformed.poll(now));
        events
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        Self::log_dropped(self.malformed.finish());
    }
}

/// The number of views that a turn reads at most. Another one is needed if the history is damaged, or
/// if rights have changed.
const MOST_VIEWS: usize = 4;

#[cfg(test)]
mod tests;

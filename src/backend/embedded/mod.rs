//! The embedded backend: users, tokens, and groups in one SQLite file, and events over HTTP.
//!
//! Owns: the file and its schema, the lookup of tokens, and the conversion of published events into
//! plans. Must not know: how events arrive and how notifications are sent.
//!
//! The server's thread only reads. Only commands write, each in a process of its own, and the
//! server finds their changes in the change log that the schema's triggers write.

mod accounts;
mod annotation;
mod backup;
mod change_log;
mod directory;
mod fields;
mod file;
mod groups;
mod policy_facts;
mod publish;
mod store;

pub use accounts::{TokenRow, UserRow};
pub use backup::{Contents, Restored, RevokedTokens, restore};
pub use directory::ReadableBy;
pub use groups::GroupRow;
pub use store::{Store, StoreError};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{error, info, warn};

use self::change_log::{ChangeLogReader, Changes};
use self::directory::{Credential, Directory, token_hash};
use self::publish::PublishFailure;
use super::{Backend, DataDir, DropReason, Stats};
use crate::log_throttle::LogThrottle;
use crate::model::{
    AuthReply, BackendEvent, BackendRequest, PublishError, Secret, TokenId, UnixMillis,
};

/// The embedded backend, for [`start`](super::start).
#[derive(Debug)]
pub struct Embedded {
    /// `None` for a database in memory.
    path: Option<PathBuf>,
    /// `None` after an error, until the file has been reopened.
    store: Option<Store>,
    change_log: ChangeLogReader,
    stats: Arc<Stats>,
    /// The health reported last; `None` before the first report.
    ready: Option<bool>,
    /// The error logged last while the database is unavailable.
    last_error: Option<String>,
    malformed: LogThrottle,
    /// Events that arrived while the database was unavailable.
    unreadable: LogThrottle,
}

/// The result of reading the database in one view.
struct ReadResult {
    changes: Changes,
    answers: Vec<BackendEvent>,
    /// The tokens of successful logins.
    logins: Vec<(TokenId, Credential)>,
}

impl Embedded {
    /// Opens the database of a data directory, and creates it if it does not exist.
    ///
    /// # Errors
    /// See [`Store::open`].
    pub fn open(data: &DataDir, stats: Arc<Stats>) -> Result<Embedded, StoreError> {
        let path = data.database();
        let store = Store::open(&path)?;
        Embedded::with_store(store, Some(path), stats)
    }

    fn with_store(
        store: Store,
        path: Option<PathBuf>,
        stats: Arc<Stats>,
    ) -> Result<Embedded, StoreError> {
        let change_log = ChangeLogReader::start(&store.directory())?;
        Ok(Embedded {
            path,
            store: Some(store),
            change_log,
            stats,
            ready: None,
            last_error: None,
            malformed: LogThrottle::default(),
            unreadable: LogThrottle::default(),
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
        let Some(store) = &self.store else {
            return Err(StoreError::Missing("there is no database".to_owned()));
        };
        store.leave_wal()?;
        let view = store.view()?;
        let directory = Directory::new(&view);
        let mut reading = ReadResult {
            changes: self.change_log.unreported(&directory)?,
            answers: Vec::with_capacity(requests.len()),
            logins: Vec::new(),
        };
        for request in requests {
            let answer = self.answer(request, &directory, now)?;
            if let (BackendRequest::Authenticate { token, .. }, Some(answer)) = (request, &answer) {
                reading.logins.extend(credential(token, answer));
            }
            reading.answers.extend(answer);
        }
        Ok(reading)
    }

    fn answer(
        &self,
        request: &BackendRequest,
        directory: &Directory<'_>,
        now: UnixMillis,
    ) -> Result<Option<BackendEvent>, rusqlite::Error> {
        Ok(Some(match request {
            BackendRequest::Authenticate { request_id, token } => BackendEvent::Authenticated {
                request_id: *request_id,
                reply: match directory.identity(token, now)? {
                    Some(identity) => AuthReply::Known(identity),
                    None => AuthReply::Unknown,
                },
            },
            BackendRequest::Publish { request_id, body } => BackendEvent::Published {
                request_id: *request_id,
                result: match publish::plans(body, directory, now) {
                    Ok(plans) => Ok(plans),
                    Err(PublishFailure::Publisher(error)) => Err(error),
                    Err(PublishFailure::Database(error)) => return Err(error),
                },
            },
            BackendRequest::QueueEvent {
                body,
                received,
                ack,
            } => match publish::plans(body, directory, now) {
                Ok(plans) => BackendEvent::QueueEvents {
                    plans,
                    received: *received,
                    ack: ack.clone(),
                },
                Err(PublishFailure::Publisher(error)) => {
                    self.drop_malformed(error.reason(), now);
                    return Ok(None);
                }
                Err(PublishFailure::Database(error)) => return Err(error),
            },
            // The change log already reports all changes.
            BackendRequest::Sweep { .. } => return Ok(None),
        }))
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
    fn log_dropped(malformed: Option<u64>, unreadable: Option<u64>) {
        if let Some(count) = malformed {
            warn!("dropped malformed events from the queue: {count} since the last such line");
        }
        if let Some(count) = unreadable {
            warn!(
                "dropped events from the queue while the database is unavailable: {count} since \
                 the last such line"
            );
        }
    }

    /// The answer while the database is unavailable.
    fn unavailable(&self, request: &BackendRequest, now: UnixMillis) -> Option<BackendEvent> {
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
            BackendRequest::QueueEvent { .. } => {
                self.stats.count_dropped(DropReason::Unreadable);
                Self::log_dropped(None, self.unreadable.count(1, now));
                None
            }
            BackendRequest::Sweep { .. } => None,
        }
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

/// Returns the credential of a successful login.
fn credential(token: &Secret, answer: &BackendEvent) -> Option<(TokenId, Credential)> {
    let BackendEvent::Authenticated {
        reply: AuthReply::Known(identity),
        ..
    } = answer
    else {
        return None;
    };
    let credential = Credential {
        userid: identity.userid.to_string(),
        hash: token_hash(token),
        expires: identity.expires,
    };
    Some((identity.token, credential))
}

impl Backend for Embedded {
    fn turn(&mut self, requests: Vec<BackendRequest>, now: UnixMillis) -> Vec<BackendEvent> {
        let mut events = Vec::new();
        match self.read(&requests, now) {
            Ok(reading) => {
                self.health(Ok(()), &mut events);
                events.extend(self.change_log.commit(reading.changes));
                for (token, credential) in &reading.logins {
                    self.change_log.record_login(*token, credential);
                }
                events.extend(reading.answers);
            }
            Err(cause) => {
                self.health(Err(&cause), &mut events);
                events.extend(
                    requests
                        .iter()
                        .filter_map(|request| self.unavailable(request, now)),
                );
            }
        }
        Self::log_dropped(self.malformed.poll(now), self.unreadable.poll(now));
        events
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        Self::log_dropped(self.malformed.finish(), self.unreadable.finish());
    }
}

#[cfg(test)]
mod tests;

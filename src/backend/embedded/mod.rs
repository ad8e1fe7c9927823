//! The embedded back end: users, tokens and groups in one SQLite file, events by HTTP.
//!
//! Owns: the file and its schema, who a token stands for, and what a published event becomes.
//! Must not know: how events arrive and how they go out.
//!
//! The server's thread only reads. It is the commands (each a process of its own) that write,
//! and what they change is found in the log that the schema's triggers keep.

mod accounts;
mod annotation;
mod audience;
mod directory;
mod fields;
mod publish;
mod store;
pub mod time;
mod userid;
mod watch;

pub use accounts::{GroupRow, TokenRow, UserRow};
pub use directory::ReadableBy;
pub use store::{Store, StoreError};

use std::sync::Arc;

use log::{error, info, warn};

use self::directory::Directory;
use self::publish::Fault;
use self::watch::{News, Watch};
use super::rarely::Rarely;
use super::{BackEnd, DataDir, Fate, Stats};
use crate::model::{Ask, AuthReply, PublishError, Tell, UnixMillis};

/// The embedded back end, for [`start`](super::start).
#[derive(Debug)]
pub struct Embedded {
    store: Store,
    watch: Watch,
    stats: Arc<Stats>,
    /// What was last told of the health; nothing yet at first.
    ready: Option<bool>,
    passed_over: Rarely,
}

impl Embedded {
    /// Opens the database of a data directory, making it if it is not there.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open(data: &DataDir, stats: Arc<Stats>) -> Result<Embedded, StoreError> {
        Embedded::with_store(Store::open(&data.database())?, stats)
    }

    fn with_store(store: Store, stats: Arc<Stats>) -> Result<Embedded, StoreError> {
        let watch = Watch::start(&store.directory())?;
        Ok(Embedded {
            store,
            watch,
            stats,
            ready: None,
            passed_over: Rarely::default(),
        })
    }

    /// News and answers, all from one view of the database: nobody is let in by an answer older
    /// than the news that would have kept them out.
    fn read(
        &mut self,
        questions: &[Ask],
        now: UnixMillis,
    ) -> Result<(News, Vec<Tell>), rusqlite::Error> {
        let view = self.store.view()?;
        let directory = Directory::new(&view);
        let news = self.watch.news(&directory)?;
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            answers.extend(self.answer(question, &directory, now)?);
        }
        Ok((news, answers))
    }

    fn answer(
        &self,
        question: &Ask,
        directory: &Directory<'_>,
        now: UnixMillis,
    ) -> Result<Option<Tell>, rusqlite::Error> {
        Ok(Some(match question {
            Ask::Authenticate { ticket, token } => Tell::Authenticated {
                ticket: *ticket,
                reply: match directory.identity(token, now)? {
                    Some(identity) => AuthReply::Known(identity),
                    None => AuthReply::Unknown,
                },
            },
            Ask::Publish { ticket, body } => Tell::Published {
                ticket: *ticket,
                result: match publish::plans(body, directory, now) {
                    Ok(plans) => Ok(plans),
                    Err(Fault::Publisher(error)) => Err(error),
                    Err(Fault::Database(error)) => return Err(error),
                },
            },
            Ask::Event { body, received, .. } => match publish::plans(body, directory, now) {
                Ok(plans) => Tell::Happened {
                    plans,
                    received: *received,
                },
                Err(Fault::Publisher(error)) => {
                    self.pass_over(&error.reason, now);
                    return Ok(None);
                }
                Err(Fault::Database(error)) => return Err(error),
            },
            // The change log tells of everything by itself.
            Ask::Sweep { .. } => return Ok(None),
        }))
    }

    /// `reason` is in our words, but for short quotations of what was wrong.
    fn pass_over(&self, reason: &str, now: UnixMillis) {
        self.stats.count_dropped(Fate::Malformed);
        if let Some(count) = self.passed_over.count(now) {
            warn!("an event from the queue is no event: {reason}; {count} passed over of late");
        }
    }

    /// The answer while the database cannot be read.
    fn unavailable(&self, question: &Ask) -> Option<Tell> {
        match question {
            Ask::Authenticate { ticket, .. } => Some(Tell::Authenticated {
                ticket: *ticket,
                reply: AuthReply::Unavailable,
            }),
            Ask::Publish { ticket, .. } => Some(Tell::Published {
                ticket: *ticket,
                result: Err(PublishError {
                    line: 0,
                    reason: "the database cannot be read now".to_owned(),
                }),
            }),
            Ask::Event { .. } => {
                self.stats.count_dropped(Fate::Unreadable);
                None
            }
            Ask::Sweep { .. } => None,
        }
    }

    /// Tells of the health where it differs from what was last told.
    fn health(&mut self, outcome: Result<(), &rusqlite::Error>, tells: &mut Vec<Tell>) {
        let ready = outcome.is_ok();
        if self.ready == Some(ready) {
            return;
        }
        match outcome {
            Err(cause) => error!("the database cannot be read: {cause}"),
            Ok(()) if self.ready.is_some() => info!("the database can be read again"),
            Ok(()) => {}
        }
        self.ready = Some(ready);
        tells.push(Tell::Health { ready });
    }
}

impl BackEnd for Embedded {
    fn turn(&mut self, questions: Vec<Ask>, now: UnixMillis) -> Vec<Tell> {
        let mut tells = Vec::new();
        match self.read(&questions, now) {
            Ok((news, answers)) => {
                self.health(Ok(()), &mut tells);
                tells.extend(self.watch.take(news));
                for answer in &answers {
                    if let Tell::Authenticated {
                        reply: AuthReply::Known(identity),
                        ..
                    } = answer
                    {
                        self.watch.let_in(identity.token);
                    }
                }
                tells.extend(answers);
            }
            Err(cause) => {
                self.health(Err(&cause), &mut tells);
                tells.extend(
                    questions
                        .iter()
                        .filter_map(|question| self.unavailable(question)),
                );
            }
        }
        tells
    }
}

#[cfg(test)]
mod tests;

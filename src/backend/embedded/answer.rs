//! The answers to the requests of a turn, before and after their events have been stored.

use super::directory::{Credential, Directory, token_hash};
use super::explain::look_up;
use super::history::{History, Incoming};
use super::publish::{PublishFailure, plans};
use crate::model::{
    AckGuard, AuthReply, BackendEvent, BackendRequest, MonoMillis, Plan, PublishError, RequestId,
    Secret, TokenId, UnixMillis,
};

/// The answers to the requests of a turn, from one view of the database.
#[derive(Default)]
pub(super) struct Answers {
    answers: Vec<Answer>,
    /// The events of the answers with events, in the same order.
    pub incoming: Vec<Incoming>,
    /// The tokens of successful logins.
    pub logins: Vec<(TokenId, Credential)>,
    /// The reasons why events from the message queue were dropped.
    pub malformed: Vec<String>,
}

/// The answer to one request.
enum Answer {
    /// It has no events.
    Complete(BackendEvent),
    /// Events from a publisher.
    Published(RequestId),
    /// Events from the message queue.
    Queued {
        /// The index of the request.
        request: usize,
        received: MonoMillis,
        ack: AckGuard,
    },
}

impl Answers {
    /// Answers all requests as far as possible without storing events.
    pub(super) fn new(
        requests: &[BackendRequest],
        directory: &Directory<'_>,
        history: &History,
        now: UnixMillis,
    ) -> Result<Answers, rusqlite::Error> {
        let mut answers = Answers::default();
        for (index, request) in requests.iter().enumerate() {
            let answer = match request {
                BackendRequest::LookUp { request_id, lookup } => {
                    Some(Answer::Complete(BackendEvent::Found {
                        request_id: *request_id,
                        result: look_up(lookup, directory, history, now)?.map(Box::new),
                    }))
                }
                request => answers.answer(index, request, directory, now)?,
            };
            answers.answers.extend(answer);
        }
        Ok(answers)
    }

    fn answer(
        &mut self,
        index: usize,
        request: &BackendRequest,
        directory: &Directory<'_>,
        now: UnixMillis,
    ) -> Result<Option<Answer>, rusqlite::Error> {
        Ok(Some(match request {
            BackendRequest::Authenticate { request_id, token } => {
                let reply = match directory.identity(token, now)? {
                    Some(identity) => AuthReply::Known(identity),
                    None => AuthReply::Unknown,
                };
                self.logins.extend(credential(token, &reply));
                Answer::Complete(BackendEvent::Authenticated {
                    request_id: *request_id,
                    reply,
                })
            }
            BackendRequest::Publish {
                request_id, claim, ..
            } if !claim.publish() => {
                let reason = "the request was canceled".to_owned();
                Answer::Complete(refusal(*request_id, PublishError::Unavailable(reason)))
            }
            BackendRequest::Publish {
                request_id, body, ..
            } => match plans(body, directory, now) {
                Ok(planned) => {
                    self.incoming.push(Incoming::new(planned, false));
                    Answer::Published(*request_id)
                }
                Err(PublishFailure::Publisher(error)) => {
                    Answer::Complete(refusal(*request_id, error))
                }
                Err(PublishFailure::Database(error)) => return Err(error),
            },
            BackendRequest::QueueEvent {
                body,
                received,
                ack,
            } => match plans(body, directory, now) {
                Ok(planned) => {
                    self.incoming.push(Incoming::new(planned, true));
                    Answer::Queued {
                        request: index,
                        received: *received,
                        ack: ack.clone(),
                    }
                }
                Err(PublishFailure::Publisher(error)) => {
                    self.malformed.push(error.reason().to_owned());
                    return Ok(None);
                }
                Err(PublishFailure::Database(error)) => return Err(error),
            },
            // The change log already reports all changes.
            BackendRequest::Sweep { .. } | BackendRequest::LookUp { .. } => return Ok(None),
        }))
    }

    /// Returns the complete answers, once the events have been stored.
    pub(super) fn stored(self) -> Vec<BackendEvent> {
        let mut incoming = self.incoming.into_iter();
        let mut events = Vec::with_capacity(self.answers.len());
        for answer in self.answers {
            events.extend(match answer {
                Answer::Complete(event) => Some(event),
                Answer::Published(request_id) => Some(BackendEvent::Published {
                    request_id,
                    result: Ok(incoming.next().map(plans_of).unwrap_or_default()),
                }),
                Answer::Queued { received, ack, .. } => incoming
                    .next()
                    // Another process has stored it, and its row has been read.
                    .filter(|incoming| !incoming.is_duplicate)
                    .map(|incoming| BackendEvent::QueueEvents {
                        plans: plans_of(incoming),
                        received,
                        ack,
                    }),
            });
        }
        events
    }

    /// Returns the complete answers if the events cannot be stored, and the indices of the requests
    /// that must be repeated.
    pub(super) fn refused(self, error: &PublishError) -> (Vec<BackendEvent>, Vec<usize>) {
        let (mut events, mut repeated) = (Vec::new(), Vec::new());
        for answer in self.answers {
            match answer {
                Answer::Complete(event) => events.push(event),
                Answer::Published(request_id) => events.push(refusal(request_id, error.clone())),
                Answer::Queued { request, .. } => repeated.push(request),
            }
        }
        (events, repeated)
    }
}

fn plans_of(incoming: Incoming) -> Vec<Plan> {
    let planned = incoming.planned.into_iter();
    planned.map(|planned| planned.plan).collect()
}

fn refusal(request_id: RequestId, error: PublishError) -> BackendEvent {
    BackendEvent::Published {
        request_id,
        result: Err(error),
    }
}

/// Returns the credential of a successful login.
fn credential(token: &Secret, reply: &AuthReply) -> Option<(TokenId, Credential)> {
    let AuthReply::Known(identity) = reply else {
        return None;
    };
    let credential = Credential {
        userid: identity.userid.to_string(),
        hash: token_hash(token),
        expires: identity.expires,
    };
    Some((identity.token, credential))
}

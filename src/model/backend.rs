//! The interface between the reactor and a backend's thread: requests and events.
//!
//! Owns: the types of both directions. Must not know: the channels that carry them.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::explain::{ExplainError, Findings, Lookup};
use super::history::HistoryEvent;
use super::identity::{AuthReply, EndCause, Membership, Secret, TokenId};
use super::plan::Plan;
use super::time::MonoMillis;

/// Identifies a request to a backend. The answer returns it. The caller chooses the value (the
/// server uses the connection's key), and backends must treat it as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// A request to the backend's thread.
#[derive(Debug)]
pub enum BackendRequest {
    /// Authenticates a token. Answered by [`BackendEvent::Authenticated`].
    Authenticate {
        /// Identifies the request.
        request_id: RequestId,
        /// The token.
        token: Secret,
    },
    /// Publishes a body: one JSON object, or NDJSON. Answered by [`BackendEvent::Published`].
    Publish {
        /// Identifies the request.
        request_id: RequestId,
        /// The body as received.
        body: Vec<u8>,
        /// Must be taken before anything of the body is published.
        claim: PublishClaim,
    },
    /// Processes an event from a message queue. A valid event results in [`BackendEvent::QueueEvents`]; there
    /// is no other answer.
    QueueEvent {
        /// The event: one JSON object.
        body: Vec<u8>,
        /// When it arrived.
        received: MonoMillis,
        /// Must be dropped when the event has been processed. It is passed on in
        /// [`BackendEvent::QueueEvents`].
        ack: AckGuard,
    },
    /// Checks the tokens of all connections. Changes of tokens and their users that no event has
    /// reported are sent as [`BackendEvent::TokenEnded`] and [`BackendEvent::Memberships`]; there is no other
    /// answer.
    Sweep {
        /// The tokens, in no order. A token may occur more than once.
        tokens: Vec<TokenId>,
    },
    /// Looks up the facts for an explanation. Publishes and stores nothing. Answered by
    /// [`BackendEvent::Found`].
    LookUp {
        /// Identifies the request.
        request_id: RequestId,
        /// What to look up.
        lookup: Lookup,
    },
}

/// Decides between publishing a body and canceling the request, which happen on different threads.
/// Clones share the decision. The first one holds.
#[derive(Clone, Debug, Default)]
pub struct PublishClaim(Arc<AtomicU8>);

impl PublishClaim {
    /// Decides to publish. Returns false if the request was canceled: then nothing may be published.
    pub fn publish(&self) -> bool {
        self.decide(PUBLISHED)
    }

    /// Decides to cancel the request. Returns false if its events are being published.
    pub fn cancel(&self) -> bool {
        self.decide(CANCELED)
    }

    fn decide(&self, decision: u8) -> bool {
        let before =
            self.0
                .compare_exchange(UNDECIDED, decision, Ordering::AcqRel, Ordering::Acquire);
        before.is_ok() || before == Err(decision)
    }
}

const UNDECIDED: u8 = 0;
const PUBLISHED: u8 = 1;
const CANCELED: u8 = 2;

/// Held while an event from a message queue is being processed: until the event has been dropped,
/// or is on its way to its receivers. The queue limits the number of unacknowledged events. An
/// event is acknowledged when its ack guard and all clones have been dropped.
#[derive(Clone)]
pub struct AckGuard {
    _on_drop: Arc<OnDrop>,
}

struct OnDrop(Option<Box<dyn FnOnce() + Send + Sync>>);

impl AckGuard {
    /// Creates a guard that calls `dropped` when its last clone is dropped.
    pub fn new(dropped: impl FnOnce() + Send + Sync + 'static) -> Self {
        let on_drop = OnDrop(Some(Box::new(dropped)));
        AckGuard {
            _on_drop: Arc::new(on_drop),
        }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            dropped();
        }
    }
}

impl fmt::Debug for AckGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AckGuard")
    }
}

/// The backend's request queue is full. The request was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// A handle for requests to a backend. Never blocks.
pub trait BackendHandle {
    /// Sends a request, or returns [`Busy`].
    fn send(&self, request: BackendRequest) -> Result<(), Busy>;
}

impl<A: BackendHandle + ?Sized> BackendHandle for Rc<A> {
    fn send(&self, request: BackendRequest) -> Result<(), Busy> {
        (**self).send(request)
    }
}

/// A message from a backend to the reactor: an answer, or unsolicited news.
#[derive(Debug)]
pub enum BackendEvent {
    /// Answers [`BackendRequest::Authenticate`].
    Authenticated {
        /// Identifies the request.
        request_id: RequestId,
        /// The result.
        reply: AuthReply,
    },
    /// Answers [`BackendRequest::Publish`].
    Published {
        /// Identifies the request.
        request_id: RequestId,
        /// A plan for each event of the body in order, or the reason for the rejection.
        result: Result<Vec<Plan>, PublishError>,
    },
    /// Answers [`BackendRequest::LookUp`].
    Found {
        /// Identifies the request.
        request_id: RequestId,
        /// The facts, or the reason why they are not known.
        result: Result<Box<Findings>, ExplainError>,
    },
    /// Events from a message queue.
    QueueEvents {
        /// A plan for each event, in order.
        plans: Vec<Plan>,
        /// When they arrived.
        received: MonoMillis,
        /// Must be dropped when all of them are on their way to their receivers.
        ack: AckGuard,
    },
    /// Plans that replace earlier ones without an event, in order: see
    /// [`Cause::RightsChange`](super::Cause::RightsChange). They are queued with events.
    Replanned {
        /// The plans.
        plans: Vec<Plan>,
    },
    /// The start of the history, and its contents.
    History(HistoryEvent),
    /// A user's memberships have changed.
    Memberships {
        /// The user.
        userid: Box<str>,
        /// All memberships of the user.
        memberships: Vec<Membership>,
    },
    /// A token has ended.
    TokenEnded {
        /// The token.
        token: TokenId,
        /// The cause.
        cause: EndCause,
    },
    /// A user was deleted, which ends all tokens of the user.
    UserDeleted {
        /// The user.
        userid: Box<str>,
    },
    /// Reports the availability of the backend. Initially it is not ready.
    Health {
        /// Whether the backend is available.
        ready: bool,
    },
}

/// The reason why a publish request was rejected as a whole. Each contains a text for the
/// publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The body is invalid.
    Invalid {
        /// The line of the body, counted from 1.
        line: usize,
        /// The error.
        reason: String,
    },
    /// The backend is unavailable.
    Unavailable(String),
    /// The events cannot be stored, since the disk is full.
    StorageFull(String),
}

impl PublishError {
    /// Returns the text for the publisher.
    pub fn reason(&self) -> &str {
        match self {
            PublishError::Invalid { reason, .. }
            | PublishError::Unavailable(reason)
            | PublishError::StorageFull(reason) => reason,
        }
    }
}

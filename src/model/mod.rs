//! The types that backends, `realtime`, `admin`, and `config` share.
//!
//! Owns: vocabulary, with no behavior except the normal forms of values. Must not know: sockets, JSON, SQL, or any other
//! module of this crate.
//!
//! | file | purpose |
//! |---|---|
//! | `time` | units of time, and the wall clock |
//! | `identity` | tokens, users, memberships, and the treatment of tokens that are not valid |
//! | `folded` | the forms in which userids and tags are compared |
//! | `plan` | an event's messages, and the rules that select their receivers |
//! | `history` | the start of the history, and its restored contents |
//! | `api_document` | the machine-readable description of the API |
//! | `explain` | requests for explanations, and the facts that they need |
//! | `backend` | requests to a backend ([`BackendRequest`]), and its events ([`BackendEvent`]) |
//!
//! A backend runs on its own thread. It expresses its knowledge of users, groups, and permissions
//! as data in a [`Plan`], which the reactor evaluates in memory. No event ever costs a lookup per
//! connection.

mod api_document;
mod backend;
mod explain;
mod folded;
mod history;
mod identity;
mod plan;
mod time;

pub use api_document::API_DOCUMENT;
pub use backend::{
    AckGuard, BackendEvent, BackendHandle, BackendRequest, Busy, PublishClaim, PublishError,
    RequestId,
};
pub use explain::{
    ExplainError, ExplainRequest, ExplainedConnection, ExplainedEvent, Findings, FoundUser, Lookup,
};
pub use folded::{folded, folded_userid, folded_userids};
pub use history::{Durability, EpochScope, HistoryEvent, HistoryStart};
pub use identity::{
    AuthReply, EndCause, Identity, InvalidToken, Membership, OnExpiry, Role, Secret, TokenId,
};
pub use plan::{
    AnnotationFacts, Candidates, Cause, Condition, Decision, DenyReason, EventKind, Field,
    PastState, Plan, RestoredPlan, Rule, Stamp, Subject, Term, Userids,
};
pub use time::{MonoMillis, UnixMillis, unix_now};

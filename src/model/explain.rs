//! Explanations of deliveries: the request of an operator, and what a backend looks up for it.
//!
//! Owns: the types between the admin interface, the backends, and the API. Must not know: the
//! evaluation, which is part of the API.

use super::identity::Membership;
use super::plan::Plan;

/// A request for an explanation. Answering it publishes and stores nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The connection whose notification is explained.
    pub connection: ExplainedConnection,
    /// The facts that a backend must look up. `None` if the API has all of them.
    pub lookup: Option<Lookup>,
}

/// The connection in a request for an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainedConnection {
    /// A connection that need not exist.
    Supposed {
        /// Its filter, as JSON text. `None` if it has set none.
        filter: Option<Box<str>>,
        /// Its client id.
        client: Option<Box<str>>,
    },
    /// The open connections with this client id.
    Open {
        /// The client id.
        client: Box<str>,
    },
}

/// A user and an event to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// The userid. `None` is anonymous, or a user that need not be looked up.
    pub user: Option<Box<str>>,
    /// The event.
    pub event: Option<ExplainedEvent>,
}

/// The event in a request for an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainedEvent {
    /// An event on the annotation with this id, as far as the backend knows the annotation.
    Annotation {
        /// The annotation's id.
        id: Box<str>,
        /// The action: `create`, `update`, or `delete`. `None` is that of the newest known event, or
        /// `create`.
        action: Option<Box<str>>,
    },
    /// An event as publishers send it, as JSON text.
    Published(Box<str>),
}

/// The facts that a backend has looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The user, if one was requested and exists.
    pub user: Option<FoundUser>,
    /// The plan of the event. `None` if none was requested, or the backend does not know the
    /// annotation.
    pub plan: Option<Plan>,
}

/// A user in [`Findings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUser {
    /// The userid in the stored spelling.
    pub userid: Box<str>,
    /// The user's memberships.
    pub memberships: Vec<Membership>,
}

/// The reason why a backend could not look up the facts, as text for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainError {
    /// The event is invalid.
    Invalid(String),
    /// The backend is unavailable.
    Unavailable(String),
}

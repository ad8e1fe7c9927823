//! The types that backends, `realtime`, and `admin` share.
//!
//! Owns: identities ([`Identity`]), requests to a backend ([`BackendRequest`]), its messages ([`BackendEvent`]), and
//! the delivery of events ([`Plan`]). Must not know: sockets, JSON, SQL, or any other module of
//! this crate.
//!
//! A backend runs on its own thread. It expresses its knowledge of users, groups, and permissions
//! as data in a [`Plan`], which the reactor evaluates in memory. No event ever costs a lookup per
//! connection.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

/// Milliseconds on a monotonic clock since a fixed moment of this process, for measuring durations.
/// This is the reactor's clock in [`Now::mono`](crate::net::Now::mono). The separate type prevents
/// confusion with the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    /// Returns the time elapsed since an earlier moment.
    pub fn since(self, earlier: MonoMillis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Identifies a request to a backend. The answer returns it. The caller chooses the value (the
/// server uses the connection's key), and backends must treat it as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// A bearer token as sent by a client. It can be compared, but neither `Debug` nor any log shows
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A backend's identifier of a token, stable for the token's lifetime. It is not the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

/// A member's role in a group (h's `GroupMembershipRoles`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// May read the group.
    Member,
    /// May read the group and moderate its annotations.
    Moderator,
    /// Has the same rights as a moderator.
    Admin,
    /// Has the same rights as a moderator.
    Owner,
}

impl Role {
    /// Returns whether the role carries h's `MODERATE` permission.
    pub fn moderates(self) -> bool {
        self != Role::Member
    }

    /// Returns h's name of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Moderator => "moderator",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Role::Member, Role::Moderator, Role::Admin, Role::Owner]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(())
    }
}

/// A user's membership in a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// The group's id in the API (h's `pubid`).
    pub group: Box<str>,
    /// The user's role in the group.
    pub role: Role,
}

/// The identity of a token's user at the time of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The userid, `acct:name@authority`, in the stored spelling.
    pub userid: Box<str>,
    /// The user's memberships.
    pub memberships: Vec<Membership>,
    /// The token.
    pub token: TokenId,
    /// The time of expiry; `None` means never.
    pub expires: Option<UnixMillis>,
}

/// The result of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthReply {
    /// The token is valid.
    Known(Identity),
    /// The token is unknown, expired, or revoked, or its user has been deleted.
    Unknown,
    /// The backend cannot check the token now, since its database is unavailable.
    Unavailable,
}

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
        /// The tokens, without duplicates.
        tokens: Vec<TokenId>,
    },
}

/// Held while an event from a message queue is being processed: until the event has been dropped,
/// or is on its way to its receivers. The queue limits the number of unacknowledged events. An
/// event is acknowledged when its receipt and all clones have been dropped.
#[derive(Clone)]
pub struct AckGuard {
    _on_drop: Arc<OnDrop>,
}

struct OnDrop(Option<Box<dyn FnOnce() + Send + Sync>>);

impl AckGuard {
    /// Creates a receipt that calls `dropped` when its last clone is dropped.
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
        f.write_str("Receipt")
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

/// The reason why a token has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// The token has expired.
    Expired,
    /// The token was revoked, or belongs to another user now.
    Revoked,
    /// The token's user was deleted.
    UserDeleted,
}

impl EndCause {
    /// Returns the reason for the close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            EndCause::Expired => "token expired",
            EndCause::Revoked => "token revoked",
            EndCause::UserDeleted => "user deleted",
        }
    }
}

/// A message from a backend to the reactor: an answer, or unsolicited news.
#[derive(Debug)]
pub enum BackendEvent {
    /// Answers [`BackendRequest::Authenticate`].
    Authenticated {
        /// The ticket of the request.
        request_id: RequestId,
        /// The result.
        reply: AuthReply,
    },
    /// Answers [`BackendRequest::Publish`].
    Published {
        /// The ticket of the request.
        request_id: RequestId,
        /// A plan for each event of the body in order, or the reason for the rejection.
        result: Result<Vec<Plan>, PublishError>,
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

/// The reason why a publish request was rejected as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishError {
    /// The line of the body, counted from 1; 0 if the backend is unavailable.
    pub line: usize,
    /// The error, as text for the publisher.
    pub reason: String,
}

/// The fields that a filter may name: h's `/id`, `/group`, `/uri`, and `/references`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// The annotation's own id.
    Id,
    /// The annotation's group.
    Group,
    /// The annotated page.
    Uri,
    /// The annotations that this one replies to.
    References,
}

impl Field {
    /// Returns the field that a filter clause names, if it exists.
    pub fn from_pointer(pointer: &str) -> Option<Field> {
        match pointer {
            "/id" => Some(Field::Id),
            "/group" => Some(Field::Group),
            "/uri" => Some(Field::Uri),
            "/references" => Some(Field::References),
            _ => None,
        }
    }
}

/// A field with a value. Filters select annotations by terms. For [`Field::Uri`], the value is a
/// scope key of [`crate::uri`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The field.
    pub field: Field,
    /// The value, which must be equal.
    pub value: Box<str>,
}

impl Term {
    /// Returns the terms by which filters match an annotation, sorted and without duplicates.
    /// `pages` are the scope keys of all addresses of its page. An address without a normal form
    /// has no key, since no filter can name it either.
    pub fn of_annotation(
        id: String,
        group: String,
        references: impl IntoIterator<Item = String>,
        pages: impl IntoIterator<Item = String>,
    ) -> Vec<Term> {
        let references = references.into_iter().map(|id| (Field::References, id));
        let pages = pages.into_iter().map(|key| (Field::Uri, key));
        let mut terms: Vec<Term> = [(Field::Id, id), (Field::Group, group)]
            .into_iter()
            .chain(references)
            .chain(pages)
            .map(|(field, value)| Term {
                field,
                value: value.into(),
            })
            .collect();
        terms.sort_unstable();
        terms.dedup();
        terms
    }
}

/// The kind of an event, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An annotation was created.
    Create,
    /// An annotation was updated.
    Update,
    /// An annotation was deleted.
    Delete,
    /// A user's memberships changed.
    SessionChange,
}

impl EventKind {
    /// Returns the name in metrics and on the admin page.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Create => "create",
            EventKind::Update => "update",
            EventKind::Delete => "delete",
            EventKind::SessionChange => "session-change",
        }
    }
}

/// An event, with its messages and the rules that select their receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The kind of event.
    pub kind: EventKind,
    /// The candidate connections.
    pub candidates: Candidates,
    /// The client that caused the event; connections with this client id are excluded. `None`
    /// excludes no connections.
    pub exclude_client: Option<Box<str>>,
    /// The rules in order. The first one whose conditions all hold decides. If none does, the
    /// message is withheld.
    pub rules: Vec<Rule>,
    /// The messages, as JSON text. Rules reference them by index. Each is encoded once, regardless
    /// of the number of receivers.
    pub variants: Vec<Box<str>>,
}

/// The candidate connections for a plan, before its rules are evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Connections whose filter contains any of these terms.
    Terms(Vec<Term>),
    /// All connections of this user, regardless of their filter.
    User(Box<str>),
}

/// A rule: if all conditions in `when` hold for the receiver, `then` is the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions. A rule without conditions always holds.
    pub when: Vec<Condition>,
    /// The decision.
    pub then: Decision,
}

/// A condition on the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Logged in with exactly this userid.
    User(Box<str>),
    /// A member of this group, in any role.
    Member(Box<str>),
    /// A member of this group with a moderating role.
    Moderator(Box<str>),
    /// Logged in as one of these users.
    OneOf(Userids),
}

/// A set of userids, shared by the rules that reference it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Userids(Arc<[Box<str>]>);

impl Userids {
    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the set contains exactly this userid.
    pub fn contains(&self, userid: &str) -> bool {
        self.0.binary_search_by(|one| (**one).cmp(userid)).is_ok()
    }

    /// Returns the userids, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| &**one)
    }
}

impl<T: Into<Box<str>>> FromIterator<T> for Userids {
    fn from_iter<I: IntoIterator<Item = T>>(userids: I) -> Self {
        let mut all: Vec<Box<str>> = userids.into_iter().map(Into::into).collect();
        all.sort_unstable();
        all.dedup();
        Userids(all.into())
    }
}

/// The decision of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the variant with this index.
    Send(usize),
    /// Send nothing, for this reason.
    Deny(DenyReason),
}

/// The reason why an event is withheld from a connection with a matching filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The receiver may not read it: it is private, or in a group of which the receiver is not a
    /// member.
    Permission,
    /// The author is muted (h's NIPSA).
    Muted,
    /// The annotation is hidden by moderation.
    Hidden,
    /// The annotation is hidden from students until their teacher reveals it (h's checkpoints).
    Checkpoint,
}

#[cfg(test)]
mod tests {
    use super::*;

    // CVE-2026-33247
    #[test]
    fn debug_output_does_not_show_a_secret() {
        let secret = Secret("hunter2".to_owned());
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
    }
}

//! The vocabulary that back ends, `realtime` and `admin` share.
//!
//! Owns: who somebody is ([`Identity`]), what a back end may be asked ([`Ask`]) and tells
//! ([`Tell`]), and what is to be said to whom when something happened ([`Plan`]).
//! Must not know: sockets, JSON, SQL, or any other module of this crate.
//!
//! A back end runs on a thread of its own. Whatever it knows of users, groups and permissions
//! it says as data in a [`Plan`]; the reactor evaluates that in memory, so that no event ever
//! costs a look-up per connection.

pub mod uri;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

/// Milliseconds of a clock that is never set, since some fixed moment of this process: for how
/// long something takes. The reactor's, in [`Now::mono`](crate::net::Now::mono). A type of its
/// own, so that it is not mistaken for the wall clock's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    /// How long before this moment an earlier one was.
    pub fn since(self, earlier: MonoMillis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Names one question to a back end; the answer carries it back. Its meaning is the asker's
/// (the server uses the connection's key), and a back end must not read anything into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A bearer token as a client sent it. It can be hashed and compared, but neither `Debug` nor
/// any log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A back end's name for one token, stable while the token exists. It is not the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

/// A member's role in a group, h's `GroupMembershipRoles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads the group.
    Member,
    /// Reads the group and moderates its annotations.
    Moderator,
    /// As a moderator.
    Admin,
    /// As a moderator.
    Owner,
}

impl Role {
    /// Whether the role carries h's `MODERATE` permission.
    pub fn moderates(self) -> bool {
        self != Role::Member
    }

    /// h's own word for the role.
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

/// One group that a user belongs to. `group` is the id the API uses (h's `pubid`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// The group's id.
    pub group: Box<str>,
    /// What the user is in it.
    pub role: Role,
}

/// Who a token stands for, as of the moment of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `acct:name@authority`, in the stored spelling.
    pub userid: Box<str>,
    /// The groups the user belongs to.
    pub memberships: Vec<Membership>,
    /// Which token it was.
    pub token: TokenId,
    /// When the token ends; `None` is never.
    pub expires: Option<UnixMillis>,
}

/// What a back end made of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthReply {
    /// It is this user's.
    Known(Identity),
    /// Unknown, expired or revoked, or its user is deleted.
    Unknown,
    /// The back end cannot say now (its database is away).
    Unavailable,
}

/// A question to the back end's thread.
#[derive(Debug)]
pub enum Ask {
    /// Whose token is this? Answered by [`Tell::Authenticated`].
    Authenticate {
        /// Names the question.
        ticket: Ticket,
        /// The token.
        token: Secret,
    },
    /// The body of a publish request: one JSON object, or NDJSON. Answered by
    /// [`Tell::Published`].
    Publish {
        /// Names the question.
        ticket: Ticket,
        /// The body, as it came.
        body: Vec<u8>,
    },
    /// One event from a message queue, which waits for no answer. Where it can be understood it
    /// becomes a [`Tell::Happened`].
    Event {
        /// The event: one JSON object.
        body: Vec<u8>,
        /// When it arrived.
        received: MonoMillis,
        /// To be dropped when the event has been processed; it goes on in [`Tell::Happened`].
        receipt: Receipt,
    },
    /// These are the tokens that connections have now. What has changed about them or their users
    /// without any event is told, as [`Tell::TokenEnded`] and [`Tell::Memberships`]; there is no
    /// other answer.
    Sweep {
        /// Each once.
        tokens: Vec<TokenId>,
    },
}

/// Held for as long as an event from a message queue is being processed: until the event has led
/// to nothing, or is on its way to its receivers. The queue hands out only so many events at a
/// time, and receives an acknowledgment of each event whose receipt, with all clones, has been
/// dropped.
#[derive(Clone)]
pub struct Receipt {
    _on_drop: Arc<OnDrop>,
}

struct OnDrop(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Receipt {
    /// Creates a receipt that calls `dropped` when its last clone is dropped.
    pub fn new(dropped: impl FnOnce() + Send + Sync + 'static) -> Self {
        let on_drop = OnDrop(Some(Box::new(dropped)));
        Receipt {
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

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// The back end's queue is full. The question was not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// Where questions to a back end go. Never blocks.
pub trait Asks {
    /// Hands a question over, or says that there is no room for it.
    fn ask(&self, question: Ask) -> Result<(), Busy>;
}

impl<A: Asks + ?Sized> Asks for Rc<A> {
    fn ask(&self, question: Ask) -> Result<(), Busy> {
        (**self).ask(question)
    }
}

/// Why a token has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// Its time is up.
    Expired,
    /// It was revoked, or stands for another user now.
    Revoked,
    /// Its user was deleted.
    UserDeleted,
}

impl EndCause {
    /// The reason in the close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            EndCause::Expired => "token expired",
            EndCause::Revoked => "token revoked",
            EndCause::UserDeleted => "user deleted",
        }
    }
}

/// What a back end tells the reactor: answers, and news that nobody asked for.
#[derive(Debug)]
pub enum Tell {
    /// Answers [`Ask::Authenticate`].
    Authenticated {
        /// That question's.
        ticket: Ticket,
        /// The answer.
        reply: AuthReply,
    },
    /// Answers [`Ask::Publish`].
    Published {
        /// That question's.
        ticket: Ticket,
        /// A plan for each event of the body in its order, or why there is none.
        result: Result<Vec<Plan>, PublishError>,
    },
    /// Something happened, of which nobody here has asked.
    Happened {
        /// A plan for each event, in their order.
        plans: Vec<Plan>,
        /// When they arrived.
        received: MonoMillis,
        /// To be dropped when all of them are on their way to their receivers.
        receipt: Receipt,
    },
    /// These are a user's memberships from now on.
    Memberships {
        /// Whose.
        userid: Box<str>,
        /// All of them.
        memberships: Vec<Membership>,
    },
    /// A token has ended.
    TokenEnded {
        /// Which.
        token: TokenId,
        /// Why.
        cause: EndCause,
    },
    /// A user was deleted: every token of theirs has ended.
    UserGone {
        /// Who.
        userid: Box<str>,
    },
    /// Whether the back end can do its work. It starts as not ready.
    Health {
        /// Whether it can.
        ready: bool,
    },
}

/// Why nothing of a publish request was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishError {
    /// The line of the body, counted from 1. 0 where no line is at fault: the back end could not
    /// do its work.
    pub line: usize,
    /// What is wrong with it, for the publisher to read.
    pub reason: String,
}

/// The fields a filter may name; h's `/id`, `/group`, `/uri` and `/references`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// The annotation's own id.
    Id,
    /// Its group.
    Group,
    /// The page it is on.
    Uri,
    /// The annotations it replies to.
    References,
}

impl Field {
    /// The field that a filter clause names, if there is one of that name.
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

/// A field and one value of it: what filters ask for and annotations have. For [`Field::Uri`]
/// the value is a scope key of [`uri`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The field.
    pub field: Field,
    /// The value, to be equal.
    pub value: Box<str>,
}

impl Term {
    /// What filters may ask for to hear of an annotation, sorted, each once. `pages` are the scope
    /// keys of its page under all its names; one without a normal form has none, for no filter can
    /// name it either.
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

/// What kind of thing happened, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An annotation was made.
    Create,
    /// An annotation was changed.
    Update,
    /// An annotation was deleted.
    Delete,
    /// A user's groups changed.
    SessionChange,
}

impl EventKind {
    /// The word for it in metrics, and on the admin page.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Create => "create",
            EventKind::Update => "update",
            EventKind::Delete => "delete",
            EventKind::SessionChange => "session-change",
        }
    }
}

/// One thing that happened, and what is to be said of it to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What happened.
    pub kind: EventKind,
    /// Whom it could concern.
    pub reach: Reach,
    /// The client whose own action this was; a connection with this client id is passed over.
    /// `None` excludes nobody.
    pub exclude_client: Option<Box<str>>,
    /// In order: the first rule whose conditions all hold decides. None: refused.
    pub rules: Vec<Rule>,
    /// The messages, as JSON text; rules name them by index. Each is encoded once, whatever
    /// the number of its receivers.
    pub variants: Vec<Box<str>>,
}

/// Which connections a plan is for, before its rules are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those whose filter has any of these terms.
    Terms(Vec<Term>),
    /// Those of this user, whatever their filter.
    User(Box<str>),
}

/// If all of `when` hold for the receiver, `then` is what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions; with none it always holds.
    pub when: Vec<Who>,
    /// The decision.
    pub then: Decision,
}

/// A condition on the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Logged in as this userid (exactly this spelling).
    User(Box<str>),
    /// A member, in any role, of this group.
    Member(Box<str>),
    /// A member of this group in a role that moderates.
    Moderator(Box<str>),
    /// Logged in as one of these.
    OneOf(Userids),
}

/// A set of userids, shared by the rules that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Userids(Arc<[Box<str>]>);

impl Userids {
    /// Whether there is nobody in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody of exactly this spelling is in it.
    pub fn contains(&self, userid: &str) -> bool {
        self.0.binary_search_by(|one| (**one).cmp(userid)).is_ok()
    }

    /// All of them, sorted.
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

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the variant of this index.
    Send(usize),
    /// Send nothing, for this reason.
    Withhold(Reason),
}

/// Why somebody whose filter matched is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not readable by this receiver: private, or of a group they are not in.
    Permission,
    /// The author is muted (h's NIPSA).
    Muted,
    /// Hidden by moderation.
    Hidden,
    /// Hidden from students until their teacher reveals it (h's checkpoints).
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

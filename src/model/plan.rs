//! The delivery of an event: its messages, and the rules that select their receivers.
//!
//! Owns: the terms of filters, plans, and rules. Must not know: connections, or the evaluation of
//! rules, which is part of the API.

use std::sync::Arc;

use super::folded::{folded, folded_userids};
use super::time::UnixMillis;

/// The fields of an annotation by which filters select it: h's `/id`, `/group`, `/uri`, and
/// `/references`, and those of h's search API.
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
    /// The author.
    User,
    /// A tag.
    Tags,
}

impl Field {
    /// All fields.
    pub const ALL: [Field; 6] = [
        Field::Id,
        Field::Group,
        Field::Uri,
        Field::References,
        Field::User,
        Field::Tags,
    ];

    /// Returns the field that a filter clause names, if it exists.
    pub fn from_pointer(pointer: &str) -> Option<Field> {
        match pointer {
            "/id" => Some(Field::Id),
            "/group" => Some(Field::Group),
            "/uri" => Some(Field::Uri),
            "/references" => Some(Field::References),
            "/user" => Some(Field::User),
            "/tags" => Some(Field::Tags),
            _ => None,
        }
    }

    /// Returns the name in a filter clause.
    pub fn pointer(self) -> &'static str {
        match self {
            Field::Id => "/id",
            Field::Group => "/group",
            Field::Uri => "/uri",
            Field::References => "/references",
            Field::User => "/user",
            Field::Tags => "/tags",
        }
    }
}

/// A field with a value. Filters select annotations by terms. For [`Field::Uri`], the value is a
/// scope key of [`crate::uri`]; for [`Field::User`] and [`Field::Tags`], it is in the form of
/// [`super::folded`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The field.
    pub field: Field,
    /// The value, which must be equal.
    pub value: Box<str>,
}

impl Term {
    /// Returns the terms by which filters match an annotation, sorted and without duplicates.
    pub fn of_annotation(facts: AnnotationFacts<'_>) -> Vec<Term> {
        let term = |field, value: Box<str>| Term { field, value };
        let references = facts.references.into_iter().map(String::into_boxed_str);
        let pages = facts.pages.into_iter().map(String::into_boxed_str);
        let users = folded_userids(facts.user).into_iter().map(Into::into);
        let tags = facts.tags.iter().map(|tag| folded(tag).into());
        let mut terms = vec![
            term(Field::Id, facts.id.into()),
            term(Field::Group, facts.group.into()),
        ];
        terms.extend(references.map(|id| term(Field::References, id)));
        terms.extend(pages.map(|key| term(Field::Uri, key)));
        terms.extend(users.map(|userid| term(Field::User, userid)));
        terms.extend(tags.map(|tag| term(Field::Tags, tag)));
        terms.sort_unstable();
        terms.dedup();
        terms
    }
}

/// The values of an annotation by which filters select it.
#[derive(Clone, Debug, Default)]
pub struct AnnotationFacts<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its group.
    pub group: &'a str,
    /// The author's userid; empty if unknown.
    pub user: &'a str,
    /// The tags as written.
    pub tags: Vec<&'a str>,
    /// The annotations that it replies to.
    pub references: Vec<String>,
    /// The scope keys of all addresses of its page. An address without a normal form has no key,
    /// since no filter can name it either.
    pub pages: Vec<String>,
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
    /// Returns the name in metrics, in the log, and on the admin page.
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
    /// The object of the event. In the history, a plan replaces the previous one on the same object.
    pub subject: Subject,
    /// The place in the history.
    pub stamp: Stamp,
    /// The reason for the plan.
    pub cause: Cause,
    /// The candidate connections.
    pub candidates: Candidates,
    /// The client that caused the event; connections with this client id are excluded. `None`
    /// excludes no connections.
    pub exclude_client: Option<Box<str>>,
    /// The rules in order. The first rule with all conditions met decides. If none does, the
    /// message is withheld.
    pub rules: Vec<Rule>,
    /// The messages, as JSON text. Rules reference them by index. Each is encoded once, regardless
    /// of the number of receivers.
    pub variants: Vec<Box<str>>,
}

/// The object of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The annotation with this id.
    Annotation(Box<str>),
    /// The user with this userid.
    User(Box<str>),
}

/// A place in the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The position. A backend sends its plans in increasing order of positions, which may have
    /// holes. 0 stands for a plan that is not kept in the history.
    pub position: u64,
    /// The time of the change by the backend's clock, or a later one.
    pub time: UnixMillis,
}

/// The reason for a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// An event was published.
    #[default]
    Event,
    /// The receivers of an earlier event have changed, for example because its author was muted. Only
    /// connections for which the decision changes are notified.
    RightsChange,
}

/// A plan that is restored into the history when a backend starts. It is not delivered, but replayed
/// to clients that resume from an earlier position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredPlan {
    /// The newest plan on its subject.
    pub plan: Plan,
    /// The position of the last event on the subject: the plan's own, unless its cause is
    /// [`Cause::RightsChange`].
    pub event_position: u64,
    /// Earlier states of the subject, oldest first. Their receivers may have to be notified that the
    /// annotation is no longer readable for them.
    pub past: Vec<PastState>,
}

/// The receivers of a plan that another one on the same subject has replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastState {
    /// The position of the plan that replaced it.
    pub until: u64,
    /// The terms of the plan.
    pub candidates: Candidates,
    /// The rules of the plan.
    pub rules: Vec<Rule>,
}

/// The candidate connections for a plan, before its rules are evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Connections with a filter that contains any of these terms.
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

impl DenyReason {
    /// Returns the name in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            DenyReason::Permission => "permission",
            DenyReason::Muted => "muted_author",
            DenyReason::Hidden => "hidden",
            DenyReason::Checkpoint => "checkpoint",
        }
    }
}

//! The states of annotations, and who may read them.

use crate::model::{Condition, Decision, DenyReason, Rule};
use crate::realtime::testing::rule;

use super::receiver::Kind;

/// The state of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Public,
    /// For the author and the members of a group.
    Group,
    /// For the author.
    Private,
    /// Hidden by a moderator, for the author.
    Hidden,
    /// Public, on a page that no filter contains.
    Moved,
    Deleted,
}

/// An annotation as the backend knows it.
#[derive(Clone, Debug)]
pub(super) struct Annotation {
    pub state: State,
    /// The state before a deletion.
    pub before: State,
    /// The number of the last event.
    pub version: u64,
    /// The receiver whose client caused the last event.
    pub author: Option<usize>,
    /// The position of the last plan.
    pub position: u64,
    /// The position of the last event.
    pub event_position: u64,
    /// Earlier states: the position of the plan that replaced each, its page, and its rules.
    pub past: Vec<(u64, &'static str, Vec<Rule>)>,
    /// Whether the last plan reflects only changed rights.
    pub is_rights_change: bool,
    /// The times of the last plan: when the change was made, and when the backend noticed it, in UNIX
    /// milliseconds.
    pub changed: u64,
    pub noticed: u64,
    /// Whether it was for the members of the group at some time.
    pub was_group: bool,
}

impl Annotation {
    /// Returns the state that decides on the receivers of the last plan.
    pub(super) fn audience(&self) -> State {
        match (self.state, self.is_rights_change) {
            (State::Deleted, false) => self.before,
            (state, _) => state,
        }
    }

    /// Returns the rules of the last plan.
    pub(super) fn rules(&self) -> Vec<Rule> {
        self.audience().rules()
    }

    /// Returns whether a receiver may read the annotation, and finds it by its filter.
    pub(super) fn is_for(&self, kind: Kind, is_member: bool) -> bool {
        self.state.is_readable(kind, is_member) && self.state != State::Moved
    }
}

impl State {
    pub(super) fn rules(self) -> Vec<Rule> {
        let author = || {
            rule(
                vec![Condition::User(Kind::AUTHOR.into())],
                Decision::Send(0),
            )
        };
        let member = || rule(vec![Condition::Member("g".into())], Decision::Send(0));
        match self {
            State::Public | State::Moved => vec![rule(vec![], Decision::Send(0))],
            State::Group => vec![author(), member()],
            State::Private => vec![author()],
            State::Hidden => vec![author(), rule(vec![], Decision::Deny(DenyReason::Hidden))],
            State::Deleted => vec![],
        }
    }

    /// Returns the page.
    pub(super) fn page(self) -> &'static str {
        match self {
            State::Moved => "elsewhere",
            _ => "page",
        }
    }

    pub(super) fn is_readable(self, kind: Kind, is_member: bool) -> bool {
        match self {
            State::Public | State::Moved => true,
            State::Group => kind == Kind::Author || (kind == Kind::Member && is_member),
            State::Private | State::Hidden => kind == Kind::Author,
            State::Deleted => false,
        }
    }
}

//! The events that a connection is interested in: those that its filter matches, and those of its user.
//!
//! Owns: the comparison with states in the history, and the effect of the selected actions on
//! replayed events. Must not know: permissions.

use std::rc::Rc;

use crate::model::{EventKind, Plan};

use super::digest::Digest;
use super::filter::{Actions, Effort, Matcher, intersects};
use super::history::{Entry, StateAt};
use super::outgoing::{Form, first_sight};

/// The events that a connection is interested in.
pub(super) struct Interest {
    /// Terms of which each such event has one, sorted, unless [`Interest::terms`] returns `None`.
    terms: Vec<Digest>,
    /// The digest of the connection's user.
    user: Option<Digest>,
    /// The filter, if it is conditional.
    matcher: Option<Rc<Matcher>>,
    /// The work of comparing states with the filter.
    effort: Effort,
}

impl Interest {
    /// Creates an interest. `terms` are those of a filter that is not conditional.
    pub(super) fn new(
        terms: Vec<Digest>,
        matcher: Option<Rc<Matcher>>,
        user: Option<Digest>,
    ) -> Interest {
        let mut terms = match &matcher {
            Some(matcher) => matcher.terms().unwrap_or_default().to_vec(),
            None => terms,
        };
        terms.extend(user);
        terms.sort_unstable();
        Interest {
            terms,
            user,
            matcher,
            effort: Effort::default(),
        }
    }

    /// Returns the work of all comparisons so far, in units of a byte.
    pub(super) fn spent(&self) -> usize {
        self.effort.spent()
    }

    /// Returns the terms of which each event has one, sorted; `None` if events may have none of them.
    pub(super) fn terms(&self) -> Option<&[Digest]> {
        let has_patterns = |matcher: &Rc<Matcher>| matcher.terms().is_none();
        match self.matcher.as_ref().is_some_and(has_patterns) {
            true => None,
            false => Some(&self.terms),
        }
    }

    /// Returns whether a state is one of the connection's events.
    pub(super) fn matches(&self, state: StateAt<'_>) -> bool {
        let Some(matcher) = &self.matcher else {
            return intersects(state.terms, &self.terms);
        };
        let is_own = self
            .user
            .is_some_and(|user| state.terms.binary_search(&user).is_ok());
        is_own || matcher.matches(state.terms, state.pages, &self.effort)
    }

    /// Returns the form in which an event after `from` is replayed, if its action is selected.
    pub(super) fn event_form(&self, entry: &Entry, variant: usize, from: u64) -> Option<Form> {
        let (plan, actions) = (&entry.plan, self.actions());
        let form = Form::Variant(variant);
        if actions == Actions::ALL {
            return Some(form);
        }
        let (created, updated) = entry.changes();
        let has_update = updated > from && actions.contains(EventKind::Update);
        // Of several events, the history has only the last one.
        let has_creation = created > from && actions.contains(EventKind::Create);
        match plan.kind {
            EventKind::Delete | EventKind::SessionChange => {
                actions.contains(plan.kind).then_some(form)
            }
            EventKind::Create | EventKind::Update if has_update => Some(form),
            EventKind::Create | EventKind::Update => {
                has_creation.then_some(Form::Appearance(variant))
            }
        }
    }

    /// Returns the form in which an annotation is sent that has become readable without an event, if
    /// creations are selected.
    pub(super) fn appearance_form(&self, plan: &Plan, variant: usize) -> Option<Form> {
        let is_selected = self.actions().contains(EventKind::Create);
        is_selected.then(|| first_sight(plan, variant))
    }

    /// Returns the selected actions.
    pub(super) fn actions(&self) -> Actions {
        let matcher = self.matcher.as_ref();
        matcher.map_or(Actions::ALL, |matcher| matcher.actions())
    }
}

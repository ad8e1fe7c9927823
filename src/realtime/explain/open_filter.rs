//! The relation of an event to the filter of an open connection, for explanations.
//!
//! Owns: nothing. A [`FilterView`](crate::realtime::filter::FilterView) explains a filter that is given as JSON; of the
//! filters of connections, only digests are stored.

use crate::model::{Candidates, Plan, Term};
use crate::net::ConnKey;

use crate::realtime::Realtime;
use crate::realtime::filter::{Effort, Pages};

/// The relation of an event to a connection's filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterMatch {
    /// Whether the filter selects the event.
    pub is_match: bool,
    /// The terms of the event that are values of the filter, except of excluding clauses.
    pub terms: Vec<Term>,
    /// Whether the filter has more than terms: wildcards, excluding clauses, `include_all`, or not all
    /// actions.
    pub is_conditional: bool,
    /// Whether an excluding clause matches.
    pub is_excluded: bool,
    /// Whether the filter selects the action of the event.
    pub has_action: bool,
    /// Whether only the action is not selected.
    pub lacks_only_action: bool,
}

impl Realtime {
    /// Returns the relation of an event to a connection's filter; `None` if the connection has no
    /// filter, or one that matches nothing.
    pub fn explain_filter(&self, key: ConnKey, plan: &Plan) -> Option<FilterMatch> {
        if self.index.in_slot(key.slot()) != Some(key) {
            return None;
        }
        let mut digests = Vec::new();
        self.digest_terms(&plan.candidates, &mut digests);
        let pages = Pages::Of(&plan.candidates);
        let matcher = self.index.conditional_of(key);
        let own = match matcher {
            Some(matcher) => matcher.matching_terms(&digests),
            None => self.index.terms_of(key),
        };
        let terms = match &plan.candidates {
            Candidates::Terms(terms) => terms.as_slice(),
            Candidates::User(_) => &[],
        };
        let is_own = |term: &&Term| own.contains(&self.digester.term(term.field, &term.value));
        let terms: Vec<Term> = terms.iter().filter(is_own).cloned().collect();
        let (is_match, is_excluded, has_action) = match matcher {
            Some(matcher) => (
                matcher.matches(&digests, pages, &Effort::default()),
                matcher.excludes(&digests, pages),
                matcher.actions().allow(plan),
            ),
            None => (!terms.is_empty(), false, true),
        };
        Some(FilterMatch {
            is_match: is_match && has_action,
            lacks_only_action: is_match && !has_action,
            terms,
            is_conditional: matcher.is_some(),
            is_excluded,
            has_action,
        })
    }
}

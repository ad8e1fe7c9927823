//! Earlier states of a subject, whose receivers may have to be notified of a retraction.

use std::rc::Rc;

use crate::model::{Candidates, Condition, Plan, Rule};
use crate::realtime::digest::Digest;

use super::Entry;

/// A state that another one with different receivers has replaced.
#[derive(Clone, Debug)]
pub(in crate::realtime) struct Past {
    /// The position of the plan that replaced it.
    pub until: u64,
    /// The digests of its terms, sorted.
    pub terms: Rc<[Digest]>,
    /// Its rules.
    pub rules: Rc<[Rule]>,
}

/// A state of a subject, current or past: the terms and rules by which receivers are selected.
#[derive(Clone, Copy)]
pub(in crate::realtime) struct StateAt<'a> {
    pub terms: &'a [Digest],
    pub rules: &'a [Rule],
}

impl StateAt<'_> {
    /// Returns whether a filter with these terms, which are sorted, matches.
    pub(in crate::realtime) fn is_matched_by(&self, filter: &[Digest]) -> bool {
        intersects(self.terms, filter)
    }
}

impl Entry {
    /// Returns the newest state.
    pub(in crate::realtime) fn state(&self) -> StateAt<'_> {
        StateAt {
            terms: &self.terms,
            rules: &self.plan.rules,
        }
    }

    /// Returns the earlier states that were in force at `position` or later, oldest first.
    pub(in crate::realtime) fn past_since(
        &self,
        position: u64,
    ) -> impl Iterator<Item = StateAt<'_>> + Clone {
        let past = self.past.iter().filter(move |past| past.until > position);
        past.map(|past| StateAt {
            terms: &past.terms,
            rules: &past.rules,
        })
    }

    /// Returns the earlier states after a plan has replaced this entry. This entry's state is one
    /// of them if its receivers may differ.
    pub(super) fn into_past(self, until: u64, plan: &Plan, terms: &Rc<[Digest]>) -> Vec<Past> {
        let mut past = self.past;
        if self.plan.rules != plan.rules || self.terms != *terms {
            past.push(Past {
                until,
                terms: self.terms,
                rules: match Rc::try_unwrap(self.plan) {
                    Ok(plan) => plan.rules.into(),
                    Err(plan) => plan.rules.as_slice().into(),
                },
            });
        }
        past.drain(..past.len().saturating_sub(MAX_PAST));
        past
    }

    /// Calls `visit` with each term of all states, without duplicates and without the subject's own.
    pub(super) fn for_each_term(&self, mut visit: impl FnMut(Digest)) {
        let is_other = |term: &&Digest| **term != self.subject;
        if self.past.is_empty() {
            return self
                .terms
                .iter()
                .filter(is_other)
                .for_each(|term| visit(*term));
        }
        let past = self.past.iter().flat_map(|past| past.terms.iter());
        let mut terms: Vec<Digest> = self.terms.iter().chain(past).copied().collect();
        terms.sort_unstable();
        terms.dedup();
        terms.iter().filter(is_other).for_each(|term| visit(*term));
    }

    /// Returns an upper bound of the memory that the entry and its postings take, in bytes.
    pub(super) fn footprint(&self) -> usize {
        let plan = &self.plan;
        let variants: usize = plan.variants.iter().map(|text| text.len() + 16).sum();
        let rules: usize = plan.rules.iter().map(rule_bytes).sum();
        let past: usize = self.past.iter().map(Past::footprint).sum();
        let text = match &plan.candidates {
            Candidates::Terms(terms) => terms.iter().map(|term| term.value.len()).sum(),
            Candidates::User(userid) => userid.len(),
        };
        let terms = self.terms.len() * TERM_BYTES;
        ENTRY_BYTES + variants + rules + past + terms + text
    }
}

impl Past {
    fn footprint(&self) -> usize {
        let rules: usize = self.rules.iter().map(rule_bytes).sum();
        size_of::<Past>() + rules + self.terms.len() * TERM_BYTES
    }
}

/// Returns whether two sorted lists have a common element.
fn intersects(one: &[Digest], other: &[Digest]) -> bool {
    let (short, long) = match one.len() <= other.len() {
        true => (one, other),
        false => (other, one),
    };
    short.iter().any(|term| long.binary_search(term).is_ok())
}

fn rule_bytes(rule: &Rule) -> usize {
    let conditions = rule.when.iter().map(|condition| {
        let text = match condition {
            Condition::User(text) | Condition::Member(text) | Condition::Moderator(text) => {
                text.len()
            }
            Condition::OneOf(userids) => userids.iter().map(|userid| userid.len() + 16).sum(),
        };
        size_of::<Condition>() + text
    });
    size_of::<Rule>() + conditions.sum::<usize>()
}

/// The maximum number of earlier states of a subject. Beyond it, the oldest one is forgotten.
pub(super) const MAX_PAST: usize = 4;
/// The bytes of an entry without its variable parts: itself, its plan, and its places in the maps.
const ENTRY_BYTES: usize = 640;
/// The bytes of a term without its text: in the plan, as a digest, and as a posting, which has a
/// list of its own at worst.
const TERM_BYTES: usize = 170;

//! Earlier states of a subject, whose receivers may have to be notified of a retraction.

use std::rc::Rc;

use crate::model::{Candidates, Cause, Condition, EventKind, Plan, Rule};
use crate::realtime::digest::Digest;
use crate::realtime::filter::Pages;

use super::Entry;

/// A state that another one with different receivers has replaced.
#[derive(Clone, Debug)]
pub(in crate::realtime) struct Past {
    /// The position of the plan that replaced it.
    pub until: u64,
    /// The digests of its terms, sorted.
    pub terms: Rc<[Digest]>,
    /// The addresses of its page.
    pub pages: Box<[Box<str>]>,
    /// Its rules.
    pub rules: Rc<[Rule]>,
}

/// A state of a subject, current or past: what selects its receivers.
#[derive(Clone, Copy)]
pub(in crate::realtime) struct StateAt<'a> {
    pub terms: &'a [Digest],
    pub pages: Pages<'a>,
    pub rules: &'a [Rule],
}

impl Entry {
    /// Returns the newest state.
    pub(in crate::realtime) fn state(&self) -> StateAt<'_> {
        StateAt {
            terms: &self.terms,
            pages: Pages::Of(&self.plan.candidates),
            rules: &self.plan.rules,
        }
    }

    /// Returns the earlier states that were in force at `position` or later, oldest first.
    pub(in crate::realtime) fn past_since(
        &self,
        position: u64,
    ) -> impl Iterator<Item = StateAt<'_>> + Clone {
        let past = self.past.iter().filter(move |past| past.until > position);
        past.map(Past::state)
    }

    /// Returns whether any state, current or past, meets a condition.
    pub(super) fn any_state(&self, mut condition: impl FnMut(StateAt<'_>) -> bool) -> bool {
        condition(self.state()) || self.past.iter().any(|past| condition(past.state()))
    }

    /// Returns the positions of the newest creation and of the newest update, as far as they are
    /// known; otherwise the position of the last event, which may have been either.
    pub(in crate::realtime) fn changes(&self) -> (u64, u64) {
        (self.created, self.updated)
    }

    /// Returns the states that were in force at any of the positions from `from` to `to`, oldest
    /// first, as far as they are known.
    pub(in crate::realtime) fn states_between(
        &self,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = StateAt<'_>> + Clone {
        let until = self.past.iter().map(|past| past.until);
        let begins = std::iter::once(self.first_position).chain(until.clone());
        let ends = until.chain(Some(u64::MAX));
        let past = self.past.iter().map(Past::state);
        let states = past.chain(Some(self.state()));
        let of_time = states.zip(begins.zip(ends));
        of_time
            .filter(move |(_, (begin, end))| *begin <= to && *end > from)
            .map(|(state, _)| state)
    }

    /// Returns whether the state that was in force at a position may have been forgotten.
    pub(in crate::realtime) fn has_forgotten(&self, position: u64) -> bool {
        position < self.forgotten
    }

    /// Returns the client that caused the last event.
    pub(in crate::realtime) fn client(&self) -> Option<&str> {
        let client = self.event_client.as_deref();
        client.or(self.plan.exclude_client.as_deref())
    }

    /// Creates an entry without earlier states.
    pub(super) fn new(
        plan: &Rc<Plan>,
        subject: Digest,
        terms: Rc<[Digest]>,
        event_position: u64,
    ) -> Self {
        let is_event = plan.cause == Cause::Event;
        let at = |kind| match is_event && plan.kind == kind {
            true => event_position,
            false => 0,
        };
        Entry {
            created: at(EventKind::Create),
            updated: at(EventKind::Update),
            plan: Rc::clone(plan),
            subject,
            terms,
            event_position,
            event_client: None,
            first_position: plan.stamp.position,
            past: Vec::new(),
            forgotten: 0,
            reached: 0,
            time: 0,
            bytes: 0,
        }
    }

    /// Takes over the earlier states of an entry that this one replaces at a position. Its own state
    /// is one of them if its receivers may differ.
    pub(super) fn replace(&mut self, old: Entry, position: u64) {
        if self.plan.cause == Cause::RightsChange {
            self.event_client = old.client().map(Into::into);
        }
        self.first_position = old.first_position;
        self.forgotten = old.forgotten;
        self.created = self.created.max(old.created);
        self.updated = self.updated.max(old.updated);
        let mut past = old.past;
        if old.plan.rules != self.plan.rules || old.terms != self.terms {
            past.push(Past {
                until: position,
                terms: old.terms,
                pages: Pages::Of(&old.plan.candidates).to_list(),
                rules: match Rc::try_unwrap(old.plan) {
                    Ok(plan) => plan.rules.into(),
                    Err(plan) => plan.rules.as_slice().into(),
                },
            });
        }
        self.limit_past(past);
    }

    /// Sets the earlier states of an entry from before the start.
    pub(super) fn set_past(&mut self, past: Vec<Past>) {
        self.first_position = 0;
        // The stored plan does not show which events it has replaced.
        (self.created, self.updated) = (self.event_position, self.event_position);
        self.limit_past(past);
    }

    fn limit_past(&mut self, mut past: Vec<Past>) {
        let excess = past.len().saturating_sub(MAX_PAST);
        for forgotten in past.drain(..excess) {
            self.forgotten = forgotten.until;
            self.first_position = forgotten.until;
        }
        self.past = past;
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
        let client = self.event_client.as_ref().map_or(0, |client| client.len());
        let terms = self.terms.len() * TERM_BYTES;
        ENTRY_BYTES + variants + rules + past + terms + text + client
    }
}

impl Past {
    fn footprint(&self) -> usize {
        let rules: usize = self.rules.iter().map(rule_bytes).sum();
        let pages: usize = self.pages.iter().map(|page| page.len() + 32).sum();
        size_of::<Past>() + rules + self.terms.len() * TERM_BYTES + pages
    }

    fn state(&self) -> StateAt<'_> {
        StateAt {
            terms: &self.terms,
            pages: Pages::List(&self.pages),
            rules: &self.rules,
        }
    }
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
const ENTRY_BYTES: usize = 688;
/// The bytes of a term without its text: in the plan, as a digest, and as a posting, which has a
/// list of its own at worst.
const TERM_BYTES: usize = 170;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Decision, Field, Stamp, Subject, Term};
    use crate::realtime::digest::Digester;

    fn footprint(values: &[&str], rules: Vec<Rule>, variants: &[&str], past: Vec<Past>) -> usize {
        let term = |value: &&str| Term {
            field: Field::Group,
            value: (*value).into(),
        };
        let plan = Rc::new(Plan {
            kind: EventKind::Update,
            subject: Subject::Annotation("one".into()),
            stamp: Stamp {
                position: 1,
                time: 1,
            },
            cause: Cause::Event,
            candidates: Candidates::Terms(values.iter().map(term).collect()),
            exclude_client: None,
            rules,
            variants: variants.iter().map(|text| (*text).into()).collect(),
        });
        let digester = Digester::new([1, 2, 3, 4]);
        let subject = digester.term(Field::Id, "one");
        let terms = values
            .iter()
            .map(|value| digester.term(Field::Group, value));
        let mut entry = Entry::new(&plan, subject, terms.collect(), 1);
        entry.past = past;
        entry.footprint()
    }

    #[test]
    fn footprint_is_the_sum_of_the_parts() {
        let base = footprint(&[], Vec::new(), &[], Vec::new());
        assert_eq!(base, ENTRY_BYTES);
        let terms = footprint(&["ab", "cde"], Vec::new(), &[], Vec::new());
        assert_eq!(terms, base + 2 * TERM_BYTES + 5);
        let variants = footprint(&[], Vec::new(), &["abc", "d"], Vec::new());
        assert_eq!(variants, base + 4 + 2 * 16);
        let rule = |when| Rule {
            when,
            then: Decision::Send(0),
        };
        let user = vec![Condition::User("abc".into())];
        let set = vec![Condition::OneOf(["ab", "c"].into_iter().collect())];
        let rules = footprint(&[], vec![rule(user), rule(set)], &[], Vec::new());
        let sizes = 2 * (size_of::<Rule>() + size_of::<Condition>());
        assert_eq!(rules, base + sizes + 3 + 3 + 2 * 16);
        let past = Past {
            until: 1,
            terms: Rc::new([Digester::new([1; 4]).term(Field::Group, "a")]),
            pages: Box::new(["abc".into()]),
            rules: Rc::new([]),
        };
        let with_past = footprint(&[], Vec::new(), &[], vec![past]);
        assert_eq!(with_past, base + size_of::<Past>() + TERM_BYTES + 3 + 32);
    }
}

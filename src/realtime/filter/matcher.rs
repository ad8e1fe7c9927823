//! The evaluation of conditional filters.
//!
//! Owns: the compact form of a filter: digests and patterns, without the fields and the text of its
//! clauses. Must not know: JSON, or the index.

use std::cell::Cell;
use std::rc::Rc;

use super::pages::Pages;
use super::{Actions, Collector, Filter};
use crate::realtime::digest::{Digest, Digester};
use crate::uri::Pattern;

/// A conditional filter, with the terms by which the index finds it.
#[derive(Debug, PartialEq, Eq)]
pub struct Conditional {
    /// Terms and prefixes of pages, distinct and sorted: an annotation that matches has one of them.
    pub anchors: Vec<Digest>,
    /// The decision on an annotation.
    pub matcher: Rc<Matcher>,
}

/// Decides whether a filter matches an annotation.
#[derive(Debug, PartialEq, Eq)]
pub struct Matcher {
    /// An annotation must match each of these.
    required: Box<[Alternatives]>,
    /// It must not match these.
    excluded: Alternatives,
    actions: Actions,
    /// The item of `required` whose values are the anchors.
    anchor: usize,
}

/// Terms and patterns, any of which matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alternatives {
    /// Sorted.
    pub terms: Vec<Digest>,
    pub patterns: Vec<Pattern>,
    /// How many annotations the values are likely to match.
    pub breadth: Breadth,
}

/// How many annotations a clause is likely to match. The clause with the fewest provides the anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Breadth {
    /// An annotation or a page.
    #[default]
    Page,
    /// The annotations of a user, or on a site.
    Site,
    Tag,
    Group,
}

/// The work of comparing patterns, summed over the filters that are compared with an event, or over
/// the events that are compared with a filter.
#[derive(Debug, Default)]
pub struct Effort {
    spent: Cell<usize>,
}

impl Matcher {
    /// Returns whether the filter matches an annotation with these terms, which are sorted, and these
    /// addresses. If the comparison of patterns would take too long, the undecided clauses count in
    /// favor of a match, so that no event is lost. Adds the work to `effort`.
    pub fn matches(&self, terms: &[Digest], pages: Pages<'_>, effort: &Effort) -> bool {
        let limit = effort.limit(|| self.least_steps());
        let mut budget = limit;
        let mut required = self.required.iter();
        let is_match = required.all(|one| one.compare(terms, pages, &mut budget) != Some(false))
            && self.excluded.compare(terms, pages, &mut budget) != Some(true);
        effort.spent.set(effort.spent() + limit - budget);
        is_match
    }

    /// Returns the work that is always allowed: enough for addresses in which little text repeats.
    fn least_steps(&self) -> usize {
        let all = self.required.iter().chain([&self.excluded]);
        let patterns = all.flat_map(|one| &one.patterns);
        LEAST_STEPS + patterns.map(|pattern| 2 * pattern.len()).sum::<usize>()
    }

    /// Returns the actions of which notifications are selected.
    pub fn actions(&self) -> Actions {
        self.actions
    }

    /// Returns the terms of which a matching annotation has one, sorted; `None` if it may have none,
    /// since a pattern matches.
    pub fn terms(&self) -> Option<&[Digest]> {
        let anchor = self.required.get(self.anchor)?;
        anchor.patterns.is_empty().then_some(&*anchor.terms)
    }

    /// Returns the required terms that an annotation has. For explanations.
    pub fn matching_terms(&self, terms: &[Digest]) -> Vec<Digest> {
        let required = self.required.iter().flat_map(|one| &one.terms);
        let found = required.filter(|term| terms.binary_search(term).is_ok());
        found.copied().collect()
    }

    /// Returns whether an excluding clause matches an annotation. For explanations.
    pub fn excludes(&self, terms: &[Digest], pages: Pages<'_>) -> bool {
        self.excluded.compare(terms, pages, &mut { MAX_STEPS }) == Some(true)
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        let all = self.required.iter().chain([&self.excluded]);
        all.map(|one| one.terms.len() + one.patterns.len()).sum()
    }

    /// Returns whether the matcher has no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size in bytes, an upper bound of the allocated memory.
    pub fn footprint(&self) -> usize {
        let all = self.required.iter().chain([&self.excluded]);
        let each = all.map(|one| {
            let patterns = one.patterns.iter();
            let text: usize = patterns.map(|pattern| pattern.len() + MALLOC).sum();
            let values = size_of_val(&*one.terms) + size_of_val(&*one.patterns);
            size_of::<Alternatives>() + values + text + 2 * MALLOC
        });
        size_of::<Matcher>() + each.sum::<usize>() + MALLOC
    }
}

impl Effort {
    /// Returns the work so far, in units of a byte, about a nanosecond each.
    pub fn spent(&self) -> usize {
        self.spent.get()
    }

    /// Returns the work that the next filter may take; `least` is always allowed.
    fn limit(&self, least: impl FnOnce() -> usize) -> usize {
        match MAX_TOTAL_STEPS.saturating_sub(self.spent()) {
            left if left >= MAX_STEPS => MAX_STEPS,
            left => left.max(least()).min(MAX_STEPS),
        }
    }
}

impl Alternatives {
    /// Returns whether any value matches; `None` if the budget did not suffice to decide.
    fn compare(&self, terms: &[Digest], pages: Pages<'_>, budget: &mut usize) -> Option<bool> {
        if intersects(&self.terms, terms) {
            return Some(true);
        }
        let mut is_decided = true;
        let is_match = self.patterns.iter().any(|pattern| {
            pages.any(|page| {
                let compared = pattern.compare(page, budget);
                is_decided &= compared.is_some();
                compared == Some(true)
            })
        });
        (is_match || is_decided).then_some(is_match)
    }

    fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.patterns.is_empty()
    }

    /// Takes the terms, sorted and without duplicates.
    fn take_terms(&mut self) -> Vec<Digest> {
        let mut terms = std::mem::take(&mut self.terms);
        terms.sort_unstable();
        terms.dedup();
        terms
    }

    /// Returns the terms and the prefixes by which the index finds the values.
    fn anchors(&self, digester: &Digester) -> Vec<Digest> {
        let mut anchors = self.terms.clone();
        anchors.extend(self.patterns.iter().map(|pattern| digester.anchor(pattern)));
        anchors.sort_unstable();
        anchors.dedup();
        anchors
    }
}

impl Collector<'_, '_> {
    /// Returns the filter, in its simplest form.
    pub(super) fn finish(self, actions: Actions) -> Filter {
        let (mut any, mut required) = (self.any, self.all);
        let is_simple = self.excluded.is_empty() && actions == Actions::ALL;
        if is_simple && required.len() <= 1 {
            let only = required.first_mut().unwrap_or(&mut any);
            if only.patterns.is_empty() {
                return Filter::Terms(only.take_terms());
            }
        }
        if !self.is_all {
            required.push(any);
        }
        // Without a positive clause, or with one that no annotation can match.
        if required.is_empty() || required.iter().any(Alternatives::is_empty) || actions.is_empty()
        {
            return Filter::Terms(Vec::new());
        }
        let mut excluded = self.excluded;
        for one in required.iter_mut().chain([&mut excluded]) {
            one.terms = one.take_terms();
            one.terms.shrink_to_fit();
            one.patterns.shrink_to_fit();
        }
        let order = |(_, one): &(usize, &Alternatives)| (one.breadth, one.terms.len());
        let anchor = required.iter().enumerate().min_by_key(order);
        let anchor = anchor.map_or(0, |(at, _)| at);
        let anchors = required[anchor].anchors(self.digester);
        Filter::Conditional(Box::new(Conditional {
            anchors,
            matcher: Rc::new(Matcher {
                required: required.into(),
                excluded,
                actions,
                anchor,
            }),
        }))
    }
}

/// Returns whether two sorted lists have a common element.
pub(in crate::realtime) fn intersects(one: &[Digest], other: &[Digest]) -> bool {
    let (short, long) = match one.len() <= other.len() {
        true => (one, other),
        false => (other, one),
    };
    short.iter().any(|term| long.binary_search(term).is_ok())
}

/// The work of comparing the patterns of a filter with the addresses of an event, in units of a byte,
/// about a nanosecond each. 200 patterns for one site take a twentieth of it.
pub(in crate::realtime) const MAX_STEPS: usize = 1 << 18;
/// The work after which each further filter may take only [`Matcher::least_steps`], so that many
/// filters cannot make one event expensive.
const MAX_TOTAL_STEPS: usize = 1 << 24;
/// The part of [`Matcher::least_steps`] that does not depend on the patterns.
const LEAST_STEPS: usize = 1 << 10;
/// The bytes that an allocator may use in addition to an allocation.
const MALLOC: usize = 16;

//! Parses filters from JSON.
//!
//! Owns: the validity of a filter, and its meaning. Must not know: the connection of the filter.
//!
//! | file | contents |
//! |---|---|
//! | `matcher` | the evaluation of filters that are more than a list of terms |
//! | `pages` | the addresses with which patterns are compared |
//! | `view` | a filter in readable form, for replies and explanations |
//!
//! Most filters are a list of terms, of which any matches: those need only an entry in the index for
//! each term. All others are *conditional*: some of their terms, the *anchors*, are in the index, and a
//! [`Matcher`] decides on the events that have one of these.

mod actions;
mod matcher;
mod pages;
mod view;

use super::digest::{Digest, Digester};
use super::index::{BYTES_OF_TERM, ConditionalFilters};
use super::{cost, json};
use crate::model::{Field, folded, folded_userid};
use crate::uri::{self, FilterKeysError, Pattern, PatternError};

pub use actions::Actions;
pub use matcher::{Conditional, Matcher};
pub(super) use matcher::{Effort, MAX_STEPS, intersects};
pub use pages::Pages;
pub(super) use pages::pages_of;
pub use view::{ClauseVerdict, FilterView, Ignored, Mismatch, ViewedClause};

use matcher::{Alternatives, Breadth};
use view::Operator;

/// The reason why a filter is rejected. The previous filter stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The filter is malformed, or contains a URI without a normal form.
    Malformed,
    /// A wildcard pattern is invalid.
    Pattern(PatternError),
    /// More values than the limit.
    TooManyValues,
    /// More clauses than `max_clauses` allows.
    TooManyClauses,
}

/// A filter as it is evaluated.
#[derive(Debug, PartialEq, Eq)]
pub enum Filter {
    /// An annotation matches if it has any of these terms, which are distinct and sorted.
    Terms(Vec<Digest>),
    /// Any other filter.
    Conditional(Box<Conditional>),
}

impl Filter {
    /// Returns the terms by which the index finds the filter.
    pub fn anchors(&self) -> &[Digest] {
        match self {
            Filter::Terms(terms) => terms,
            Filter::Conditional(conditional) => &conditional.anchors,
        }
    }

    /// Returns whether the filter takes no more memory than one of `terms` terms.
    pub fn is_small(&self, terms: usize) -> bool {
        match self {
            Filter::Terms(own) => own.len() <= terms,
            Filter::Conditional(conditional) => {
                ConditionalFilters::bytes_of(conditional) <= terms * BYTES_OF_TERM
            }
        }
    }
}

/// Parses a filter.
///
/// As in h, `match_policy`, `clauses`, and `actions` must be present, and `case_sensitive` and
/// unknown operators are ignored. A clause with an unknown field is skipped without examining its
/// value. Unlike in h, which stores any JSON, values must be strings or lists of strings.
///
/// At most `limit` values are read, including duplicates; each version of a URI counts as one. Adds
/// the work to `spent`, even for a filter that is rejected. With a view, the filter is described in
/// it.
///
/// # Errors
/// [`FilterError`]
pub fn parse(
    filter: &str,
    limit: usize,
    digester: &Digester,
    view: Option<&mut FilterView>,
    spent: &mut u64,
) -> Result<Filter, FilterError> {
    let (mut policy, mut clauses, mut actions) = (None, None, None);
    json::members(filter, |key, value| match key {
        "match_policy" => policy = Some(value),
        "clauses" => clauses = Some(value),
        "actions" => actions = Some(value),
        _ => {}
    })?;
    let is_all = match policy.and_then(json::string).as_deref() {
        Some("include_any") => false,
        Some("include_all") => true,
        _ => return Err(FilterError::Malformed),
    };
    let actions = Actions::parse(actions.ok_or(FilterError::Malformed)?)?;
    let mut collector = Collector {
        any: Alternatives::default(),
        all: Vec::new(),
        excluded: Alternatives::default(),
        is_all,
        is_excluding: false,
        values: limit,
        digester,
        view,
        spent,
    };
    let (max, mut number) = (max_clauses(limit), 0);
    json::elements(clauses.ok_or(FilterError::Malformed)?, |clause| {
        if number == max {
            return Err(FilterError::TooManyClauses);
        }
        number += 1;
        collector.add_clause(clause, number - 1)
    })?;
    if let Some(view) = &mut collector.view {
        view.set_policy(is_all, actions);
        view.set_limits((limit, collector.values), (max, max - number));
    }
    Ok(collector.finish(actions))
}

/// Returns the maximum number of clauses in a filter with at most `limit` values, including clauses
/// with unknown fields.
pub(super) fn max_clauses(limit: usize) -> usize {
    limit.max(MIN_CLAUSE_LIMIT)
}

impl From<json::JsonError> for FilterError {
    fn from(_: json::JsonError) -> Self {
        FilterError::Malformed
    }
}

/// The field of a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClauseField {
    /// Its values are terms.
    Term(Field),
    /// Its values are patterns for the addresses of pages.
    Wildcard,
}

impl ClauseField {
    fn from_pointer(pointer: &str) -> Option<ClauseField> {
        match pointer {
            WILDCARD_POINTER => Some(ClauseField::Wildcard),
            pointer => Field::from_pointer(pointer).map(ClauseField::Term),
        }
    }

    fn pointer(self) -> &'static str {
        match self {
            ClauseField::Term(field) => field.pointer(),
            ClauseField::Wildcard => WILDCARD_POINTER,
        }
    }

    fn breadth(self) -> Breadth {
        match self {
            ClauseField::Term(Field::Id | Field::Uri | Field::References) => Breadth::Page,
            ClauseField::Term(Field::User) | ClauseField::Wildcard => Breadth::Site,
            ClauseField::Term(Field::Tags) => Breadth::Tag,
            ClauseField::Term(Field::Group) => Breadth::Group,
        }
    }
}

struct Collector<'a, 'v> {
    /// The values of all positive clauses, with `include_any`.
    any: Alternatives,
    /// The values of each positive clause, with `include_all`.
    all: Vec<Alternatives>,
    /// The values of all excluding clauses.
    excluded: Alternatives,
    is_all: bool,
    /// Whether the current clause is excluding.
    is_excluding: bool,
    /// The number of values that may follow.
    values: usize,
    digester: &'a Digester,
    view: Option<&'v mut FilterView>,
    spent: &'a mut u64,
}

impl Collector<'_, '_> {
    fn add_clause(&mut self, clause: &str, number: usize) -> Result<(), FilterError> {
        *self.spent += cost::CLAUSE;
        let (mut field, mut value, mut operator) = (None, None, None);
        json::members(clause, |key, text| match key {
            "field" => field = Some(text),
            "value" => value = Some(text),
            "operator" => operator = Some(text),
            _ => {}
        })?;
        let pointer = field.and_then(json::string);
        let pointer = pointer.ok_or(FilterError::Malformed)?;
        let operator = Operator::parse(operator);
        let Some(field) = ClauseField::from_pointer(&pointer) else {
            if let Some(view) = &mut self.view {
                view.ignore_field(number, &pointer);
            }
            return Ok(());
        };
        if let Some(view) = &mut self.view {
            view.add_clause(number, field.pointer(), operator);
        }
        self.is_excluding = operator == Operator::NotOneOf;
        if self.is_all && !self.is_excluding {
            let breadth = field.breadth();
            self.all.push(Alternatives {
                breadth,
                ..Alternatives::default()
            });
        }
        let value = value.ok_or(FilterError::Malformed)?;
        if value.starts_with('[') {
            json::elements(value, |element| self.add_value(field, element))
        } else {
            self.add_value(field, value)
        }
    }

    /// Returns the values of the current clause.
    fn alternatives(&mut self) -> &mut Alternatives {
        match self.all.last_mut() {
            _ if self.is_excluding => &mut self.excluded,
            Some(last) if self.is_all => last,
            _ => &mut self.any,
        }
    }

    /// Adds a value. A value beyond the limit is rejected without examining it.
    fn add_value(&mut self, field: ClauseField, value: &str) -> Result<(), FilterError> {
        if self.values == 0 {
            return Err(FilterError::TooManyValues);
        }
        *self.spent += cost::VALUE + cost::VALUE_BYTE * value.len() as u64;
        let value = json::string(value).ok_or(FilterError::Malformed)?;
        match field {
            ClauseField::Term(Field::Uri) => return self.add_page(&value),
            ClauseField::Term(field @ Field::User) => self.add_term(field, &folded_userid(&value)),
            ClauseField::Term(field @ Field::Tags) => self.add_term(field, &folded(&value)),
            ClauseField::Term(field) => self.add_term(field, &value),
            ClauseField::Wildcard => {
                self.charge_parameters(&value);
                let pattern = Pattern::parse(&value).map_err(FilterError::Pattern)?;
                if let Some(view) = &mut self.view {
                    view.add_pattern(pattern.clone());
                }
                self.count_value();
                self.alternatives().patterns.push(pattern);
            }
        }
        Ok(())
    }

    fn add_page(&mut self, value: &str) -> Result<(), FilterError> {
        let field = Field::Uri;
        self.charge_parameters(value);
        let keys = uri::filter_keys(value, self.values).map_err(|error| match error {
            FilterKeysError::Uri(_) => FilterError::Malformed,
            FilterKeysError::TooManyVersions => FilterError::TooManyValues,
        })?;
        if let Some(view) = &mut self.view {
            for key in keys.iter() {
                if view.is_full() {
                    break;
                }
                view.add_term(field, key);
            }
        }
        // The address is hashed only once, so that further versions of a long address only cost
        // their own bytes.
        let (mut page, mut unversioned) = (None, None);
        for version in &keys.versions {
            let digester = self.digester;
            let term = match version {
                // The address itself may look like a key with a version.
                uri::Version::Unversioned => {
                    *unversioned.get_or_insert_with(|| digester.term(field, &keys.page))
                }
                version => {
                    let page = page.get_or_insert_with(|| digester.page(&keys.page));
                    page.version(&version.suffix())
                }
            };
            self.count_value();
            self.alternatives().terms.push(term);
        }
        Ok(())
    }

    fn add_term(&mut self, field: Field, value: &str) {
        if let Some(view) = &mut self.view {
            view.add_term(field, value.to_owned());
        }
        self.count_value();
        let term = self.digester.term(field, value);
        self.alternatives().terms.push(term);
    }

    fn charge_parameters(&mut self, uri: &str) {
        let parameters = uri.bytes().filter(|&byte| byte == b'&').count();
        *self.spent += cost::PARAMETER * parameters as u64;
    }

    fn count_value(&mut self) {
        *self.spent += cost::TERM;
        self.values -= 1;
    }
}

/// The field of wildcard patterns.
pub(super) const WILDCARD_POINTER: &str = "/wildcard_uri";
/// The minimum limit on clauses, which applies even if fewer values are allowed.
const MIN_CLAUSE_LIMIT: usize = 256;

#[cfg(test)]
mod tests;

//! A filter in readable form.
//!
//! Owns: the clauses of a filter with their normalized values, what was ignored, and a verdict on an
//! event for each clause. Must not know: connections, or JSON.
//!
//! A view is only built for replies and explanations that need one.

use super::matcher::MAX_STEPS;
use super::{Actions, FilterError};
use crate::model::{Candidates, Field, Plan, Term};
use crate::realtime::digest::Digester;
use crate::uri::{Pattern, page_of_key};

/// A filter in readable form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterView {
    /// Whether all positive clauses must match.
    pub is_all: bool,
    /// The actions of which notifications are selected.
    pub actions: Actions,
    /// The clauses in force, in order.
    pub clauses: Vec<ViewedClause>,
    /// The parts that have no effect.
    pub ignored: Vec<Ignored>,
    /// The limit on values, and how many more would be allowed.
    pub values: (usize, usize),
    /// The limit on clauses, and how many more would be allowed.
    pub clause_limit: (usize, usize),
    /// The bytes of values that may still be kept. The value that exceeds them is the last one kept.
    room: usize,
}

/// A clause of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewedClause {
    /// The index in the filter, from 0.
    pub number: usize,
    /// The field, such as `/uri`.
    pub field: &'static str,
    /// Whether annotations that match it are excluded.
    pub is_excluding: bool,
    values: Vec<Value>,
}

/// A normalized value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Term(Term),
    Pattern(Pattern),
}

/// A part of a filter that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The index of the clause, from 0.
    pub clause: usize,
    /// Its field.
    pub field: String,
    /// The reason.
    pub reason: &'static str,
}

/// The operator of a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `equals`, `one_of`, or none.
    OneOf,
    /// `not_one_of`
    NotOneOf,
    /// Any other, which is treated as `one_of`, as in h.
    Unknown,
}

/// The decision of a filter on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterVerdict {
    /// Each clause in force.
    pub clauses: Vec<ClauseVerdict>,
    /// `None` if the filter matches.
    pub mismatch: Option<Mismatch>,
}

/// A clause, and whether it matches an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClauseVerdict {
    /// The index in the filter, from 0.
    pub number: usize,
    /// The field, such as `/uri`.
    pub field: &'static str,
    /// `one_of` or `not_one_of`
    pub operator: &'static str,
    /// The normalized values.
    pub values: Vec<String>,
    /// Those of the values that the annotation has.
    pub matching: Vec<String>,
}

/// The reason why a filter does not match an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The event concerns a user, and reaches the user's connections regardless of filters.
    NotAnAnnotation,
    /// The filter has no positive clause.
    NoClause,
    /// No positive clause matches.
    NoneMatches,
    /// This clause does not match, and all must.
    Missing {
        /// The index of the clause.
        clause: usize,
    },
    /// This excluding clause matches.
    Excluded {
        /// The index of the clause.
        clause: usize,
    },
    /// The filter does not select this action.
    Action,
}

impl Mismatch {
    /// Returns the name for explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Mismatch::NotAnAnnotation => "not_an_annotation",
            Mismatch::NoClause => "no_clause",
            Mismatch::NoneMatches => "no_clause_matches",
            Mismatch::Missing { .. } => "clause_does_not_match",
            Mismatch::Excluded { .. } => "excluded",
            Mismatch::Action => "action",
        }
    }
}

impl Operator {
    /// Parses the JSON text of an operator.
    pub(super) fn parse(operator: Option<&str>) -> Operator {
        match operator {
            None | Some(r#""one_of""# | r#""equals""#) => Operator::OneOf,
            Some(r#""not_one_of""#) => Operator::NotOneOf,
            Some(other) => match crate::realtime::json::string(other).as_deref() {
                Some("one_of" | "equals") => Operator::OneOf,
                Some("not_one_of") => Operator::NotOneOf,
                _ => Operator::Unknown,
            },
        }
    }
}

impl Default for FilterView {
    fn default() -> Self {
        FilterView {
            is_all: false,
            actions: Actions::ALL,
            clauses: Vec::new(),
            ignored: Vec::new(),
            values: (0, 0),
            clause_limit: (0, 0),
            room: usize::MAX,
        }
    }
}

impl FilterView {
    /// Creates an empty view that keeps no further values after `len` bytes: the versions of a long
    /// address are a multiple of the filter.
    pub fn bounded(len: usize) -> FilterView {
        FilterView {
            room: len,
            ..FilterView::default()
        }
    }

    /// Parses a filter, with at most `limit` values.
    ///
    /// # Errors
    /// [`FilterError`]
    pub fn parse(filter: &str, limit: usize) -> Result<FilterView, FilterError> {
        FilterView::default().fill(filter, limit)
    }

    /// Like [`FilterView::parse`], for an empty view.
    ///
    /// # Errors
    /// [`FilterError`]
    pub fn fill(mut self, filter: &str, limit: usize) -> Result<FilterView, FilterError> {
        let digester = Digester::new([0; 4]);
        super::parse(filter, limit, &digester, Some(&mut self), &mut 0)?;
        Ok(self)
    }

    /// Returns the decision on an event.
    pub fn evaluate(&self, plan: &Plan) -> FilterVerdict {
        let judge = |clause: &ViewedClause| ClauseVerdict {
            number: clause.number,
            field: clause.field,
            operator: clause.operator(),
            values: clause.values().collect(),
            matching: clause.matching(&plan.candidates),
        };
        let clauses: Vec<ClauseVerdict> = self.clauses.iter().map(judge).collect();
        let mismatch = self.mismatch(plan, &clauses);
        FilterVerdict { clauses, mismatch }
    }

    fn mismatch(&self, plan: &Plan, clauses: &[ClauseVerdict]) -> Option<Mismatch> {
        if matches!(plan.candidates, Candidates::User(_)) {
            return Some(Mismatch::NotAnAnnotation);
        }
        let of_kind = |is_excluding: bool| {
            let both = self.clauses.iter().zip(clauses);
            both.filter(move |(clause, _)| clause.is_excluding == is_excluding)
                .map(|(_, verdict)| verdict)
        };
        let matches = |verdict: &&ClauseVerdict| !verdict.matching.is_empty();
        let missing = of_kind(false).find(|verdict| !matches(verdict));
        let (has_clause, has_match) = (
            of_kind(false).next().is_some(),
            of_kind(false).any(|verdict| matches(&verdict)),
        );
        match missing {
            _ if !has_clause => return Some(Mismatch::NoClause),
            Some(missing) if self.is_all => {
                let clause = missing.number;
                return Some(Mismatch::Missing { clause });
            }
            _ if !has_match => return Some(Mismatch::NoneMatches),
            _ => {}
        }
        if let Some(excluding) = of_kind(true).find(matches) {
            let clause = excluding.number;
            return Some(Mismatch::Excluded { clause });
        }
        (!self.actions.allow(plan)).then_some(Mismatch::Action)
    }

    pub(super) fn set_policy(&mut self, is_all: bool, actions: Actions) {
        (self.is_all, self.actions) = (is_all, actions);
    }

    pub(super) fn set_limits(&mut self, values: (usize, usize), clauses: (usize, usize)) {
        (self.values, self.clause_limit) = (values, clauses);
    }

    pub(super) fn ignore_field(&mut self, number: usize, field: &str) {
        self.ignore(number, field, UNKNOWN_FIELD);
    }

    pub(super) fn add_clause(&mut self, number: usize, field: &'static str, operator: Operator) {
        if operator == Operator::Unknown {
            self.ignore(number, field, UNKNOWN_OPERATOR);
        }
        self.clauses.push(ViewedClause {
            number,
            field,
            is_excluding: operator == Operator::NotOneOf,
            values: Vec::new(),
        });
    }

    /// Adds a value to the last clause.
    pub(super) fn add_term(&mut self, field: Field, value: String) {
        let value = value.into();
        self.add_value(Value::Term(Term { field, value }));
    }

    /// Adds a pattern to the last clause.
    pub(super) fn add_pattern(&mut self, pattern: Pattern) {
        self.add_value(Value::Pattern(pattern));
    }

    /// Returns whether no further values are kept.
    pub(super) fn is_full(&self) -> bool {
        self.room == 0
    }

    fn add_value(&mut self, value: Value) {
        if self.is_full() {
            return;
        }
        self.room = self.room.saturating_sub(value.len());
        if let Some(clause) = self.clauses.last_mut() {
            clause.values.push(value);
        }
    }

    fn ignore(&mut self, clause: usize, field: &str, reason: &'static str) {
        let field = field.to_owned();
        self.ignored.push(Ignored {
            clause,
            field,
            reason,
        });
    }
}

impl ViewedClause {
    /// Returns `one_of` or `not_one_of`.
    pub fn operator(&self) -> &'static str {
        match self.is_excluding {
            true => "not_one_of",
            false => "one_of",
        }
    }

    /// Returns the normalized values.
    pub fn values(&self) -> impl Iterator<Item = String> + '_ {
        self.values.iter().map(Value::text)
    }

    /// Returns those of the values that an annotation has.
    fn matching(&self, candidates: &Candidates) -> Vec<String> {
        let Candidates::Terms(terms) = candidates else {
            return Vec::new();
        };
        // As in the delivery of events, an undecided clause counts in favor of a match.
        let matches = |value: &&Value| value.matches(terms).unwrap_or(!self.is_excluding);
        let matching = self.values.iter().filter(matches);
        matching.map(Value::text).collect()
    }
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Value::Term(term) => term.value.len(),
            Value::Pattern(pattern) => pattern.len(),
        }
    }

    fn text(&self) -> String {
        match self {
            Value::Term(term) => term.value.clone().into(),
            Value::Pattern(pattern) => pattern.to_string(),
        }
    }

    /// Returns whether an annotation has the value; `None` if the comparison would take too long.
    fn matches(&self, terms: &[Term]) -> Option<bool> {
        match self {
            Value::Term(term) => Some(terms.contains(term)),
            Value::Pattern(pattern) => {
                let pages = terms.iter().filter(|term| term.field == Field::Uri);
                let mut pages = pages.filter_map(|term| page_of_key(&term.value));
                let (mut budget, mut is_decided) = (MAX_STEPS, true);
                let is_match = pages.any(|page| {
                    let compared = pattern.compare(page, &mut budget);
                    is_decided &= compared.is_some();
                    compared == Some(true)
                });
                (is_match || is_decided).then_some(is_match)
            }
        }
    }
}

const UNKNOWN_FIELD: &str = "unknown field";
const UNKNOWN_OPERATOR: &str = "unknown operator, treated as one_of";

//! A filter in readable form.
//!
//! Owns: the clauses of a filter with their normalized values, what was ignored, and a verdict on an
//! event for each clause. Must not know: connections, or JSON.
//!
//! A view is only built for replies and explanations that need one.

use super::matcher::MAX_STEPS;
use super::pages::pages_of;
use super::{Actions, FilterError};
use crate::model::{Candidates, Field, Plan, Term};
use crate::realtime::digest::Digester;
use crate::uri::Pattern;

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
    /// None of the values matches, and the comparison of some would take too many steps.
    pub is_undecided: bool,
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

    /// Returns the reason why the filter does not match an event; `None` if it does. As in a
    /// [`Matcher`](super::matcher::Matcher), clauses that cannot be decided in its number of steps
    /// count in favor of a match.
    pub fn mismatch(&self, plan: &Plan) -> Option<Mismatch> {
        let Candidates::Terms(terms) = &plan.candidates else {
            return Some(Mismatch::NotAnAnnotation);
        };
        let mut budget = MAX_STEPS;
        let (excluding, required): (Vec<_>, Vec<_>) =
            self.clauses.iter().partition(|clause| clause.is_excluding);
        if required.is_empty() {
            return Some(Mismatch::NoClause);
        }
        let groups: Vec<&[&ViewedClause]> = match self.is_all {
            true => required.chunks(1).collect(),
            false => vec![&required],
        };
        for group in groups {
            if compare(group, terms, &mut budget) == Some(false) {
                return Some(match (self.is_all, group) {
                    (true, [missing, ..]) => Mismatch::Missing {
                        clause: missing.number,
                    },
                    _ => Mismatch::NoneMatches,
                });
            }
        }
        if compare(&excluding, terms, &mut budget) == Some(true) {
            let mut budget = MAX_STEPS;
            let is_match = |one: &&&ViewedClause| {
                compare(std::slice::from_ref(*one), terms, &mut budget) == Some(true)
            };
            let first = excluding.iter().find(is_match).or(excluding.first())?;
            return Some(Mismatch::Excluded {
                clause: first.number,
            });
        }
        (!self.actions.allow(plan)).then_some(Mismatch::Action)
    }

    /// Returns whether each clause matches an event. Subtracts the work from `budget`, in the units of
    /// [`Pattern::compare`].
    pub fn judge(&self, plan: &Plan, budget: &mut usize) -> Vec<ClauseVerdict> {
        let judge = |clause: &ViewedClause| {
            let (matching, is_undecided) = clause.matching(&plan.candidates, budget);
            ClauseVerdict {
                number: clause.number,
                field: clause.field,
                operator: clause.operator(),
                values: clause.values().collect(),
                matching,
                is_undecided,
            }
        };
        self.clauses.iter().map(judge).collect()
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

    /// Returns those of the values that an annotation has, and whether there is none, and others are
    /// undecided.
    fn matching(&self, candidates: &Candidates, budget: &mut usize) -> (Vec<String>, bool) {
        let Candidates::Terms(terms) = candidates else {
            return (Vec::new(), false);
        };
        let (mut matching, mut is_decided) = (Vec::new(), true);
        for value in &self.values {
            match value.compare(terms, budget) {
                Some(true) => matching.push(value.text()),
                compared => is_decided &= compared.is_some(),
            }
        }
        let is_undecided = matching.is_empty() && !is_decided;
        (matching, is_undecided)
    }
}

/// Returns whether any value of the clauses matches; `None` if the budget did not suffice to decide.
/// Patterns are compared in the order of a `Matcher`, after the terms.
fn compare(clauses: &[&ViewedClause], terms: &[Term], budget: &mut usize) -> Option<bool> {
    let values = || clauses.iter().flat_map(|clause| &clause.values);
    if values().any(|value| matches!(value, Value::Term(term) if terms.contains(term))) {
        return Some(true);
    }
    let mut is_decided = true;
    for value in values() {
        match value.compare(terms, budget) {
            Some(true) => return Some(true),
            compared => is_decided &= compared.is_some(),
        }
    }
    is_decided.then_some(false)
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

    fn compare(&self, terms: &[Term], budget: &mut usize) -> Option<bool> {
        let Value::Pattern(pattern) = self else {
            return Some(matches!(self, Value::Term(term) if terms.contains(term)));
        };
        let mut is_decided = true;
        for page in pages_of(terms) {
            match pattern.compare(page, budget) {
                Some(true) => return Some(true),
                compared => is_decided &= compared.is_some(),
            }
        }
        is_decided.then_some(false)
    }
}

const UNKNOWN_FIELD: &str = "unknown field";
const UNKNOWN_OPERATOR: &str = "unknown operator, treated as one_of";

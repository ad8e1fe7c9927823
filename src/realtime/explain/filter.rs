//! The part of an explanation about a filter that is given as JSON: its clauses, and the values that
//! match an annotation.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::model::{Field, Plan, Term};
use crate::realtime::filter::{ClauseVerdict, FilterView, MAX_STEPS, pages_of};
use crate::realtime::json;
use crate::realtime::reply;
use crate::realtime::watch::beginning;
use crate::uri::page_of_key;

/// Returns the meaning of a valid filter: the members of an acknowledgement.
pub(in crate::realtime) fn interpretation(filter: &str, limit: usize) -> Value {
    let view = FilterView::bounded(reply::MAX_INTERPRETATION).fill(filter, limit);
    let view = view.unwrap_or_default();
    let members = reply::interpretation(&view);
    serde_json::from_str(&format!("{{{members}}}")).unwrap_or_default()
}

/// Returns whether each clause of a valid filter matches an event, and by which values.
pub(super) fn clause_results(filter: &str, view: &FilterView, limit: usize, plan: &Plan) -> Value {
    let given = given_values(filter);
    let terms = super::terms_of(plan);
    let judged = view.judge(plan, &mut { MAX_STEPS });
    // Together, the values may take as many steps as the filter.
    let mut budget = MAX_STEPS;
    let judged = judged.iter().map(|clause| {
        let values = given.get(clause.number).into_iter().flatten();
        let values = values.map(|value| value_result(clause, value, (limit, &mut budget), plan));
        let mut result = json!({
            "clause": clause.number,
            "field": clause.field,
            "operator": clause.operator,
            "matches": !clause.matching.is_empty(),
            "values": values.take(MAX_VALUES).collect::<Vec<_>>(),
            "annotation": values_of(terms, clause.field),
        });
        if clause.is_undecided {
            result["note"] = UNDECIDED.into();
        }
        result
    });
    let mut results: Vec<Value> = judged.collect();
    for ignored in &view.ignored {
        let is_judged = |one: &Value| one["clause"] == ignored.clause;
        match results.iter_mut().find(|one| is_judged(one)) {
            Some(result) => result["note"] = ignored.reason.into(),
            None => results.push(json!({
                "clause": ignored.clause,
                "field": beginning(&ignored.field),
                "matches": false,
                "ignored": ignored.reason,
            })),
        }
    }
    results.sort_by_key(|one| one["clause"].as_u64());
    results.into()
}

/// Returns whether one value of a clause matches, as if it were the only one of the filter.
fn value_result(
    clause: &ClauseVerdict,
    given: &str,
    (limit, budget): (usize, &mut usize),
    plan: &Plan,
) -> Value {
    let only = json!({"field": clause.field, "operator": "one_of", "value": given});
    let filter = json!({"match_policy": "include_any", "clauses": [only], "actions": {}});
    let view = FilterView::parse(&filter.to_string(), limit).unwrap_or_default();
    let judged = view.judge(plan, budget).into_iter().next();
    let (values, matches) = judged.map_or_else(Default::default, |clause| {
        (clause.values, !clause.matching.is_empty())
    });
    let mut result = json!({"value": given, "matches": matches});
    if values != [given] {
        result["normalized"] = values.into();
    }
    result
}

/// Returns the values of a field of an annotation, in normalized form.
fn values_of(terms: &[Term], pointer: &str) -> Vec<String> {
    let field = Field::from_pointer(pointer);
    let pages: HashSet<&str> = pages_of(terms).collect();
    // The key for all versions of a page only repeats its address.
    let is_repeated = |term: &Term| {
        term.field == Field::Uri
            && page_of_key(&term.value).is_some_and(|page| pages.contains(page))
    };
    let of_field = terms.iter().filter(|term| Some(term.field) == field);
    let values: Vec<&str> = match field {
        Some(_) => of_field
            .filter(|term| !is_repeated(term))
            .map(|term| &*term.value)
            .collect(),
        // Patterns are compared with the addresses.
        None => pages_of(terms).collect(),
    };
    let values = values.into_iter().take(MAX_VALUES);
    values
        .map(|value| beginning_of_value(value).to_owned())
        .collect()
}

/// Returns terms of an annotation.
pub(super) fn terms_json(terms: &[Term]) -> Value {
    let all = terms.iter().take(MAX_VALUES).map(
        |term| json!({"field": term.field.pointer(), "value": beginning_of_value(&term.value)}),
    );
    all.collect()
}

/// Returns the values of each clause of a valid filter, as the client wrote them.
fn given_values(filter: &str) -> Vec<Vec<String>> {
    let mut clauses = Vec::new();
    let _ = json::members(filter, |key, value| {
        if key == "clauses" {
            clauses.clear();
            let _ = json::elements(value, |clause| -> Result<(), json::JsonError> {
                let mut values = Vec::new();
                json::members(clause, |key, text| {
                    if key == "value" {
                        values = strings(text);
                    }
                })?;
                clauses.push(values);
                Ok(())
            });
        }
    });
    clauses
}

/// Returns the strings of a clause's value: a string, or a list of strings.
fn strings(text: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut push = |text: &str| strings.extend(json::string(text).map(|text| text.into_owned()));
    if text.starts_with('[') {
        let _ = json::elements(text, |element| -> Result<(), json::JsonError> {
            push(element);
            Ok(())
        });
    } else {
        push(text);
    }
    strings
}

/// Returns the beginning of an annotation's value.
fn beginning_of_value(value: &str) -> &str {
    let end = value.char_indices().nth(MAX_VALUE_CHARS);
    end.map_or(value, |(end, _)| &value[..end])
}

/// The note on a clause that is not decided.
const UNDECIDED: &str = "comparing the patterns with this address takes too many steps: the clause counts in favor of a \
     notification";
/// The number of values of a clause, or of an annotation, that an explanation lists.
const MAX_VALUES: usize = 200;
/// The number of characters of an annotation's value that an explanation repeats.
const MAX_VALUE_CHARS: usize = 4096;

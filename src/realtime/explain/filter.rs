//! The part of an explanation about a filter: its clauses, and the values that match an annotation.

use serde_json::{Value, json};

use crate::model::{Field, Term};
use crate::realtime::json;
use crate::realtime::watch::beginning;
use crate::uri::{self, FilterKeysError};

/// A clause of a valid filter.
struct Clause {
    index: usize,
    /// The name of the field.
    pointer: String,
    field: Option<Field>,
    operator: Option<String>,
    values: Vec<ClauseValue>,
}

/// A value of a clause.
struct ClauseValue {
    /// As the client wrote it.
    given: String,
    /// The terms by which it matches.
    terms: Vec<String>,
}

/// Returns the meaning of a valid filter, with at most `max` values.
pub(in crate::realtime) fn interpretation(filter: &str, limit: usize, max: usize) -> Value {
    let (clauses, mut left) = (clauses(filter, limit), max);
    let (mut known, mut ignored, mut is_truncated) = (Vec::new(), Vec::new(), false);
    for clause in &clauses {
        if clause.field.is_none() {
            ignored.push(json!({
                "clause": clause.index,
                "field": beginning(&clause.pointer),
                "reason": UNKNOWN_FIELD,
            }));
            continue;
        }
        let terms = clause.values.iter().flat_map(|value| &value.terms);
        let terms: Vec<&str> = terms.take(left).map(String::as_str).collect();
        let count: usize = clause.values.iter().map(|value| value.terms.len()).sum();
        is_truncated |= terms.len() < count;
        left -= terms.len();
        known.push(json!({
            "field": clause.pointer,
            "operator": "one_of",
            "value": terms,
        }));
    }
    let mut meaning = json!({"match_policy": "include_any", "clauses": known, "ignored": ignored});
    if is_truncated {
        meaning["truncated"] = true.into();
    }
    meaning
}

/// Returns whether each clause of a valid filter matches an annotation with these terms, and why.
pub(super) fn clause_results(filter: &str, limit: usize, terms: &[Term]) -> Value {
    let results = clauses(filter, limit).into_iter().map(|clause| {
        let Some(field) = clause.field else {
            return json!({
                "clause": clause.index,
                "field": beginning(&clause.pointer),
                "matches": false,
                "ignored": UNKNOWN_FIELD,
            });
        };
        let has = |value: &String| {
            let mut terms = terms.iter();
            terms.any(|term| term.field == field && *term.value == **value)
        };
        let is_matched = |value: &ClauseValue| value.terms.iter().any(has);
        let values = clause.values.iter().take(MAX_VALUES).map(|value| {
            let mut result = json!({"value": value.given, "matches": is_matched(value)});
            if value.terms != [&*value.given] {
                result["normalized"] = value.terms.clone().into();
            }
            result
        });
        json!({
            "clause": clause.index,
            "field": clause.pointer,
            "operator": clause.operator,
            "matches": clause.values.iter().any(is_matched),
            "values": values.collect::<Vec<_>>(),
            "annotation": values_of(terms, field),
        })
    });
    results.collect()
}

/// Returns the values of a field of an annotation.
fn values_of(terms: &[Term], field: Field) -> Vec<&str> {
    let values = terms.iter().filter(|term| term.field == field);
    values
        .take(MAX_VALUES)
        .map(|term| beginning_of_value(&term.value))
        .collect()
}

/// Returns the terms of an annotation by field.
pub(super) fn terms_json(terms: &[Term]) -> Value {
    let all = terms.iter().take(MAX_VALUES).map(
        |term| json!({"field": term.field.pointer(), "value": beginning_of_value(&term.value)}),
    );
    all.collect()
}

/// Returns the clauses of a valid filter. Values beyond `limit` do not occur.
fn clauses(filter: &str, limit: usize) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let _ = json::members(filter, |key, value| {
        if key == "clauses" {
            clauses.clear();
            let _ = json::elements(value, |clause| -> Result<(), json::JsonError> {
                clauses.push(clause_of(clauses.len(), clause, limit));
                Ok(())
            });
        }
    });
    clauses
}

fn clause_of(index: usize, clause: &str, limit: usize) -> Clause {
    let (mut pointer, mut operator, mut values) = (String::new(), None, Vec::new());
    let _ = json::members(clause, |key, text| match key {
        "field" => pointer = json::string(text).unwrap_or_default().into_owned(),
        "operator" => operator = json::string(text).map(|text| text.into_owned()),
        "value" => values = strings(text),
        _ => {}
    });
    let field = Field::from_pointer(&pointer);
    let values = values.into_iter().map(|given| ClauseValue {
        terms: match field {
            Some(field) => terms_of(field, &given, limit),
            None => Vec::new(),
        },
        given,
    });
    Clause {
        index,
        field,
        operator,
        values: values.collect(),
        pointer,
    }
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

fn terms_of(field: Field, value: &str, limit: usize) -> Vec<String> {
    if field != Field::Uri {
        return vec![value.to_owned()];
    }
    match uri::filter_keys(value, limit) {
        Ok(keys) => keys.iter().collect(),
        Err(FilterKeysError::Uri(_) | FilterKeysError::TooManyVersions) => Vec::new(),
    }
}

/// Returns the beginning of an annotation's value.
fn beginning_of_value(value: &str) -> &str {
    let end = value.char_indices().nth(MAX_VALUE_CHARS);
    end.map_or(value, |(end, _)| &value[..end])
}

const UNKNOWN_FIELD: &str = "unknown field";
/// The number of values of a clause, or of an annotation, that an explanation lists.
const MAX_VALUES: usize = 200;
/// The number of characters of an annotation's value that an explanation repeats.
const MAX_VALUE_CHARS: usize = 4096;

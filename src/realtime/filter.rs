//! Parses filters from JSON into the terms of the index.
//!
//! Owns: the validity of a filter, and its terms. Must not know: the connection of the filter.

use super::digest::{Digest, Digester};
use super::{cost, json};
use crate::model::Field;
use crate::uri::{self, FilterKeysError};

/// The reason why a filter is rejected. The previous filter stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The filter is malformed, or contains a URI without a normal form.
    Malformed,
    /// More values than the limit.
    TooManyValues,
    /// More clauses than `max_clauses` allows.
    TooManyClauses,
}

/// Returns the distinct terms of a filter, sorted. An annotation matches if it has any of them.
///
/// As in h, `match_policy` must be `"include_any"`, `clauses` must be a list, and `actions` must be
/// present, although it is ignored, as are a clause's `operator` and `case_sensitive`. A clause
/// with an unknown field is skipped without examining its value. Unlike in h, which stores any
/// JSON, values must be strings or lists of strings.
///
/// At most `limit` values are read, including duplicates; each version of a URI counts as one. Adds
/// the work to `spent`, even for a filter that is rejected.
///
/// # Errors
/// [`FilterError`]
pub fn parse(
    filter: &str,
    limit: usize,
    digester: &Digester,
    spent: &mut u64,
) -> Result<Vec<Digest>, FilterError> {
    let (mut policy, mut clauses, mut has_actions) = (None, None, false);
    json::members(filter, |key, value| match key {
        "match_policy" => policy = Some(value),
        "clauses" => clauses = Some(value),
        "actions" => has_actions = true,
        _ => {}
    })?;
    let policy = policy.and_then(json::string);
    if policy.as_deref() != Some("include_any") || !has_actions {
        return Err(FilterError::Malformed);
    }
    let mut collector = TermCollector {
        terms: Vec::new(),
        values: limit,
        digester,
        spent,
    };
    let mut clauses_left = max_clauses(limit);
    json::elements(clauses.ok_or(FilterError::Malformed)?, |clause| {
        clauses_left = clauses_left
            .checked_sub(1)
            .ok_or(FilterError::TooManyClauses)?;
        collector.add_clause(clause)
    })?;
    let mut terms = collector.terms;
    terms.sort_unstable();
    terms.dedup();
    Ok(terms)
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

struct TermCollector<'a> {
    /// In the order written.
    terms: Vec<Digest>,
    /// The number of values that may follow.
    values: usize,
    digester: &'a Digester,
    spent: &'a mut u64,
}

impl TermCollector<'_> {
    fn add_clause(&mut self, clause: &str) -> Result<(), FilterError> {
        *self.spent += cost::CLAUSE;
        let (mut field, mut value) = (None, None);
        json::members(clause, |key, text| match key {
            "field" => field = Some(text),
            "value" => value = Some(text),
            _ => {}
        })?;
        let field = field.and_then(json::string);
        let field = field.ok_or(FilterError::Malformed)?;
        let Some(field) = Field::from_pointer(&field) else {
            return Ok(());
        };
        let value = value.ok_or(FilterError::Malformed)?;
        if value.starts_with('[') {
            json::elements(value, |element| self.add_value(field, element))
        } else {
            self.add_value(field, value)
        }
    }

    /// Adds a value. A value beyond the limit is rejected without examining it.
    fn add_value(&mut self, field: Field, value: &str) -> Result<(), FilterError> {
        if self.values == 0 {
            return Err(FilterError::TooManyValues);
        }
        *self.spent += cost::VALUE + cost::VALUE_BYTE * value.len() as u64;
        let value = json::string(value).ok_or(FilterError::Malformed)?;
        if field != Field::Uri {
            self.add(self.digester.term(field, &value));
            return Ok(());
        }
        let parameters = value.bytes().filter(|&byte| byte == b'&').count();
        *self.spent += cost::PARAMETER * parameters as u64;
        let keys = uri::filter_keys(&value, self.values).map_err(|error| match error {
            FilterKeysError::Uri(_) => FilterError::Malformed,
            FilterKeysError::TooManyVersions => FilterError::TooManyValues,
        })?;
        // The address is hashed only once, so that further versions of a long address only cost
        // their own bytes.
        let (mut page, mut unversioned) = (None, None);
        for version in &keys.versions {
            let digester = self.digester;
            self.add(match version {
                // The address itself may look like a key with a version.
                uri::Version::Unversioned => {
                    *unversioned.get_or_insert_with(|| digester.term(field, &keys.page))
                }
                version => {
                    let page = page.get_or_insert_with(|| digester.page(&keys.page));
                    page.version(&version.suffix())
                }
            });
        }
        Ok(())
    }

    fn add(&mut self, term: Digest) {
        *self.spent += cost::TERM;
        self.values -= 1;
        self.terms.push(term);
    }
}

/// The minimum limit on clauses, which applies even if fewer values are allowed.
const MIN_CLAUSE_LIMIT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use Field::{Group, Id, References, Uri};

    fn digester() -> Digester {
        Digester::new([1, 2, 3, 4])
    }

    fn parse_clauses(clauses: &str, limit: usize) -> Result<Vec<Digest>, FilterError> {
        let filter =
            format!(r#"{{"match_policy":"include_any","clauses":{clauses},"actions":{{}}}}"#);
        parse(&filter, limit, &digester(), &mut 0)
    }

    fn terms(terms: &[(Field, &str)]) -> Vec<Digest> {
        let mut digests: Vec<_> = terms
            .iter()
            .map(|(field, value)| digester().term(*field, value))
            .collect();
        digests.sort();
        digests
    }

    #[test]
    fn clauses_yield_terms() {
        for (clauses, expected) in [
            ("[]", &[][..]),
            (r#"[{"field":"/id","value":"a"}]"#, &[(Id, "a")]),
            (
                r#"[{"field":"/id","operator":7,"value":["a","b","a"]}]"#,
                &[(Id, "a"), (Id, "b")],
            ),
            (r#"[{"field":"/id","value":[]}]"#, &[]),
            (r#"[{"field":"/id","value":""}]"#, &[(Id, "")]),
            (
                r#"[{"field":"/id","value":"a"},{"field":"/references","value":"a"}]"#,
                &[(Id, "a"), (References, "a")],
            ),
            (
                r#"[{"field":"/group","value":"\u0061\""}]"#,
                &[(Group, "a\"")],
            ),
            (
                r#"[{"field":"/id","field":"/group","value":"a"}]"#,
                &[(Group, "a")],
            ),
            (r#"[{"field":"\/id","value":"a"}]"#, &[(Id, "a")]),
            (r#"[{"field":"/nope","value":{}},{"field":"id"}]"#, &[]),
            (
                r#"[{"field":"/uri","value":["http://Example.com/a/","https://example.com/a#b"]}]"#,
                &[(Uri, "httpx://example.com/a")],
            ),
            (
                r#"[{"field":"/uri","value":"http://example.com/a:v2:v3"}]"#,
                &[
                    (Uri, "httpx://example.com/a__v2"),
                    (Uri, "httpx://example.com/a__v3"),
                ],
            ),
        ] {
            assert_eq!(
                parse_clauses(clauses, 200),
                Ok(terms(expected)),
                "{clauses}"
            );
        }
    }

    #[test]
    fn malformed_clauses_are_refused() {
        for clauses in [
            "null",
            "{}",
            "[null]",
            "[1]",
            "[\"x\"]",
            "[[]]",
            "[{}]",
            r#"[{"value":"a"}]"#,
            r#"[{"field":["/id"],"value":"a"}]"#,
            r#"[{"field":null,"value":"a"}]"#,
            r#"[{"field":"/id"}]"#,
            r#"[{"field":"/id","value":null}]"#,
            r#"[{"field":"/id","value":1}]"#,
            r#"[{"field":"/id","value":true}]"#,
            r#"[{"field":"/references","value":{"a":1}}]"#,
            r#"[{"field":"/id","value":["a",1]}]"#,
            r#"[{"field":"/id","value":["a",["b"]]}]"#,
            r#"[{"field":"/id","value":"\ud800"}]"#,
            r#"[{"field":"/uri","value":"http://[::1"}]"#,
            r#"[{"field":"/uri","value":[{"a":1}]}]"#,
            r#"[{"field":"/id","value":"a"},{"field":"/uri","value":5}]"#,
        ] {
            let actual = parse_clauses(clauses, 200);
            assert_eq!(actual, Err(FilterError::Malformed), "{clauses}");
        }
    }

    #[test]
    fn filter_without_required_members_is_refused() {
        for (filter, valid) in [
            (
                r#"{"match_policy":"include_any","clauses":[],"actions":{}}"#,
                true,
            ),
            (
                r#"{"match_policy":"include_any","clauses":[],"actions":"x"}"#,
                true,
            ),
            (
                r#"{"match_policy":"include_any","clauses":[],"actions":null,"x":1}"#,
                true,
            ),
            (
                r#"{"match_policy":"include_all","clauses":[],"actions":{}}"#,
                false,
            ),
            (
                r#"{"match_policy":["include_any"],"clauses":[],"actions":{}}"#,
                false,
            ),
            (r#"{"clauses":[],"actions":{}}"#, false),
            (r#"{"match_policy":"include_any","actions":{}}"#, false),
            (r#"{"match_policy":"include_any","clauses":[]}"#, false),
            ("{}", false),
            ("[]", false),
            ("null", false),
            ("1", false),
            ("\"x\"", false),
        ] {
            let parsed = parse(filter, 200, &digester(), &mut 0);
            assert_eq!(parsed.is_ok(), valid, "{filter}");
        }
    }

    // M7
    #[test]
    fn the_limit_counts_values_before_deduplication() {
        let list = |n: usize| -> String {
            let values: Vec<_> = (0..n).map(|i| format!("\"{}\"", i % 100)).collect();
            format!(r#"[{{"field":"/id","value":[{}]}}]"#, values.join(","))
        };
        assert_eq!(parse_clauses(&list(200), 200).map(|t| t.len()), Ok(100));
        assert_eq!(
            parse_clauses(&list(201), 200),
            Err(FilterError::TooManyValues)
        );
        assert_eq!(parse_clauses(&list(1), 0), Err(FilterError::TooManyValues));
        let versions = |version: &dyn Fn(usize) -> String| -> String {
            let versions: String = (1..=201).map(version).collect();
            format!(r#"[{{"field":"/uri","value":"http://a{versions}"}}]"#)
        };
        for clauses in [versions(&|v| format!(":v{v}")), versions(&|_| ":v1".into())] {
            assert_eq!(
                parse_clauses(&clauses, 200),
                Err(FilterError::TooManyValues)
            );
            assert!(parse_clauses(&clauses, 201).is_ok());
        }
        // The limit applies to all clauses together.
        let clause = r#"{"field":"/id","value":["a","b"]}"#;
        let clauses = format!("[{clause},{clause}]");
        assert_eq!(parse_clauses(&clauses, 3), Err(FilterError::TooManyValues));
        assert_eq!(parse_clauses(&clauses, 4).map(|t| t.len()), Ok(2));
    }

    // M7
    #[test]
    fn clauses_are_limited_even_if_they_have_no_values() {
        for clause in [r#"{"field":"/nope"}"#, r#"{"field":"/id","value":[]}"#] {
            let list = |n: usize| format!("[{}]", vec![clause; n].join(","));
            assert_eq!(parse_clauses(&list(256), 1), Ok(vec![]));
            let refused = Err(FilterError::TooManyClauses);
            assert_eq!(parse_clauses(&list(257), 1), refused);
            assert_eq!(parse_clauses(&list(257), 300), Ok(vec![]));
            assert_eq!(parse_clauses(&list(301), 300), refused);
        }
    }

    /// Returns the work of a filter, in units.
    fn work_of(clauses: &str) -> u64 {
        let mut spent = 0;
        let filter =
            format!(r#"{{"match_policy":"include_any","clauses":{clauses},"actions":{{}}}}"#);
        let _ = parse(&filter, 200, &digester(), &mut spent);
        spent
    }

    #[test]
    fn work_is_charged_and_stops_at_the_limits() {
        assert_eq!(work_of("[]"), 0);
        let one = work_of(r#"[{"field":"/id","value":"a"}]"#);
        assert_eq!(
            one,
            cost::CLAUSE + cost::VALUE + 3 * cost::VALUE_BYTE + cost::TERM
        );
        let same = r#""http://example.com/a","#.repeat(2500);
        let same = format!(r#"[{{"field":"/uri","value":[{same}"b"]}}]"#);
        let page = "b".repeat(60_000);
        let versions: String = (1..=200).map(|v| format!(":v{v}")).collect();
        let versions = format!(r#"[{{"field":"/uri","value":"http://a/{page}{versions}"}}]"#);
        let unknown = format!("[{}]", vec![r#"{"field":"/x"}"#; 4000].join(","));
        let query = format!(
            r#"[{{"field":"/uri","value":"http://a/?{}"}}]"#,
            "a=&".repeat(20_000)
        );
        for (clauses, least, most) in [
            (same, 100_000, 250_000),
            (versions, 300_000, 800_000),
            (unknown, 50_000, 60_000),
            (query, 3_000_000, 4_000_000),
        ] {
            let spent = work_of(&clauses);
            assert!((least..most).contains(&spent), "{spent}");
        }
    }
}

//! Filters: from their JSON to the terms that the index knows.
//!
//! Owns: what makes a filter valid, and what it asks for. Must not know whose it is.

use super::json;
use super::term::{Digest, Digester};
use crate::model::{Field, uri};

/// Why a filter is refused. The one before stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// Not built as a filter, or with a URI that has no normal form.
    Malformed,
    /// More distinct terms than the limit.
    TooMany,
}

/// The distinct terms of a filter, sorted; any one of them is enough for a match.
///
/// As h has it: `match_policy` must be `"include_any"`, `clauses` a list, and `actions` be
/// there, though nothing looks at it; nor at a clause's `operator` and `case_sensitive`. A
/// clause of an unknown field is skipped, its value unseen. Unlike h, which keeps any JSON,
/// values are strings or lists of strings.
///
/// # Errors
/// [`FilterError`]
pub fn parse(filter: &str, limit: usize, digester: &Digester) -> Result<Vec<Digest>, FilterError> {
    let (mut policy, mut clauses, mut has_actions) = (None, None, false);
    json::members(filter, |key, value| match key {
        "match_policy" => policy = json::string(value),
        "clauses" => clauses = Some(value),
        "actions" => has_actions = true,
        _ => {}
    })?;
    if policy.as_deref() != Some("include_any") || !has_actions {
        return Err(FilterError::Malformed);
    }
    let mut terms = Terms {
        found: Vec::new(),
        limit,
        digester,
    };
    for clause in json::elements(clauses.ok_or(FilterError::Malformed)?)? {
        terms.add_clause(clause.get())?;
    }
    Ok(terms.found)
}

impl From<json::Mismatch> for FilterError {
    fn from(_: json::Mismatch) -> Self {
        FilterError::Malformed
    }
}

struct Terms<'a> {
    found: Vec<Digest>,
    limit: usize,
    digester: &'a Digester,
}

impl Terms<'_> {
    fn add_clause(&mut self, clause: &str) -> Result<(), FilterError> {
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
            for element in json::elements(value)? {
                self.add_value(field, element.get())?;
            }
            Ok(())
        } else {
            self.add_value(field, value)
        }
    }

    fn add_value(&mut self, field: Field, value: &str) -> Result<(), FilterError> {
        let value = json::string(value).ok_or(FilterError::Malformed)?;
        if field != Field::Uri {
            return self.add(self.digester.term(field, &value));
        }
        for key in uri::filter_keys(&value).map_err(|_| FilterError::Malformed)? {
            self.add(self.digester.term(field, &key))?;
        }
        Ok(())
    }

    /// Refuses at the first term too many, before the rest is even made.
    fn add(&mut self, term: Digest) -> Result<(), FilterError> {
        if let Err(place) = self.found.binary_search(&term) {
            if self.found.len() >= self.limit {
                return Err(FilterError::TooMany);
            }
            self.found.insert(place, term);
        }
        Ok(())
    }
}

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
        parse(&filter, limit, &digester())
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
    fn what_clauses_ask_for() {
        for (clauses, want) in [
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
            assert_eq!(parse_clauses(clauses, 200), Ok(terms(want)), "{clauses}");
        }
    }

    #[test]
    fn clauses_of_the_wrong_kind() {
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
            let got = parse_clauses(clauses, 200);
            assert_eq!(got, Err(FilterError::Malformed), "{clauses}");
        }
    }

    #[test]
    fn what_a_filter_must_have() {
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
            assert_eq!(parse(filter, 200, &digester()).is_ok(), valid, "{filter}");
        }
    }

    // M7
    #[test]
    fn the_limit_counts_distinct_terms() {
        let list = |n: usize| -> String {
            let values: Vec<_> = (0..n).map(|i| format!("\"{}\"", i % 200)).collect();
            format!(r#"[{{"field":"/id","value":[{}]}}]"#, values.join(","))
        };
        assert_eq!(parse_clauses(&list(1000), 200).map(|t| t.len()), Ok(200));
        assert_eq!(parse_clauses(&list(200), 199), Err(FilterError::TooMany));
        let versions: String = (1..=201).map(|v| format!(":v{v}")).collect();
        let clause = format!(r#"[{{"field":"/uri","value":"http://a{versions}"}}]"#);
        assert_eq!(parse_clauses(&clause, 200), Err(FilterError::TooMany));
    }
}

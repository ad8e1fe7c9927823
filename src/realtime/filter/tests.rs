//! Parsing of filters.

use super::*;
use Field::{Group, Id, References, Tags, Uri, User};

fn digester() -> Digester {
    Digester::new([1, 2, 3, 4])
}

fn parse_clauses(clauses: &str, limit: usize) -> Result<Vec<Digest>, FilterError> {
    let filter = format!(r#"{{"match_policy":"include_any","clauses":{clauses},"actions":{{}}}}"#);
    match parse(&filter, limit, &digester(), None, &mut 0)? {
        Filter::Terms(terms) => Ok(terms),
        Filter::Conditional(conditional) => panic!("{clauses}: {conditional:?}"),
    }
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
            r#"[{"field":"/user","value":["acct:Joe@Example.org","joe"]}]"#,
            &[(User, "joe@example.org"), (User, "joe")],
        ),
        (
            r#"[{"field":"/tags","operator":"equals","value":" To  Do "}]"#,
            &[(Tags, "to do")],
        ),
        (
            r#"[{"field":"/id","operator":"not_one_of","value":"a"}]"#,
            &[],
        ),
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
            true,
        ),
        (
            r#"{"match_policy":"include_none","clauses":[],"actions":{}}"#,
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
        let parsed = parse(filter, 200, &digester(), None, &mut 0);
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
    let filter = format!(r#"{{"match_policy":"include_any","clauses":{clauses},"actions":{{}}}}"#);
    let _ = parse(&filter, 200, &digester(), None, &mut spent);
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

mod evaluation;

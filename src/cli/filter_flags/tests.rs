//! Tests of the flags, their filters, and their queries.

use clap::Parser;

use super::*;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    flags: FilterFlags,
}

/// Parses a command line of words without spaces.
fn parsed(line: &str) -> Result<FilterFlags, String> {
    let words = std::iter::once("test").chain(line.split_whitespace());
    match Cli::try_parse_from(words) {
        Ok(cli) => Ok(cli.flags),
        Err(error) => Err(error.to_string()),
    }
}

fn filter(line: &str) -> Result<String, (u8, String)> {
    let flags = parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    match flags.to_filter() {
        Ok(filter) => Ok(filter.to_string()),
        Err(exit) => Err((exit.code, exit.message)),
    }
}

const ALL_ACTIONS: &str = r#""actions":{"create":true,"update":true,"delete":true}}"#;

#[test]
fn flags_become_one_clause_per_field() {
    for (line, policy, clauses) in [
        ("", "any", String::new()),
        (
            "--references -R --uri u1 --id A --group g --uri u2",
            "any",
            [
                r#"{"field":"/uri","operator":"one_of","value":["u1","u2"],"case_sensitive":false}"#,
                r#"{"field":"/group","operator":"one_of","value":["g"],"case_sensitive":true}"#,
                r#"{"field":"/id","operator":"one_of","value":["A"],"case_sensitive":true}"#,
                r#"{"field":"/references","operator":"one_of","value":["-R"],"case_sensitive":true}"#,
            ]
            .join(","),
        ),
        (
            "--all --wildcard-uri https://a.example/* --tag T --user acct:a@b",
            "all",
            [
                r#"{"field":"/user","operator":"one_of","value":["acct:a@b"]}"#,
                r#"{"field":"/tags","operator":"one_of","value":["T"]}"#,
                r#"{"field":"/wildcard_uri","operator":"one_of","value":["https://a.example/*"]}"#,
            ]
            .join(","),
        ),
    ] {
        let expected = format!(
            r#"{{"match_policy":"include_{policy}","clauses":[{clauses}],{ALL_ACTIONS}"#
        );
        assert_eq!(filter(line), Ok(expected), "{line}");
    }
}

#[test]
fn exclusions_follow_and_keep_their_text() {
    let line = "--group g --not tag=a=b --not user=acct:me@b --not tag=c --not wildcard-uri=x";
    let expected = [
        r#"{"match_policy":"include_any","clauses":["#,
        r#"{"field":"/group","operator":"one_of","value":["g"],"case_sensitive":true},"#,
        r#"{"field":"/user","operator":"not_one_of","value":["acct:me@b"]},"#,
        r#"{"field":"/tags","operator":"not_one_of","value":["a=b","c"]},"#,
        r#"{"field":"/wildcard_uri","operator":"not_one_of","value":["x"]}],"#,
        ALL_ACTIONS,
    ];
    assert_eq!(filter(line), Ok(expected.concat()));
}

#[test]
fn actions_that_are_not_listed_are_suppressed() {
    for (line, actions) in [
        ("--actions delete", [false, false, true]),
        ("--actions create,update", [true, true, false]),
        (
            "--actions update --actions create,create",
            [true, true, false],
        ),
    ] {
        let filter = filter(&format!("--id A {line}")).expect(line);
        let filter: Value = serde_json::from_str(&filter).expect("JSON");
        let [create, update, delete] = actions;
        let expected = json!({"create": create, "update": update, "delete": delete});
        assert_eq!(filter["actions"], expected, "{line}");
    }
}

#[test]
fn query_has_the_same_filter_as_parameters() {
    for (line, query) in [
        ("", ""),
        (
            "--uri a&b --group g --uri c",
            "uri=a%26b&uri=c&group=g&match=any",
        ),
        (
            "--all --wildcard-uri https://a.example/* --not user=acct:me@b.example --not tag=x,é",
            "not_user=acct%3Ame%40b.example&not_tag=x,%C3%A9\
             &wildcard_uri=https%3A%2F%2Fa.example%2F%2A&match=all",
        ),
        (
            "--id -A --actions delete,create",
            "id=-A&match=any&actions=delete,create",
        ),
    ] {
        assert_eq!(parsed(line).expect(line).to_query(), query, "{line}");
    }
}

#[test]
fn filters_that_h_would_misunderstand_are_extended() {
    for (line, extended) in [
        ("", false),
        ("--uri u --group g --id A --references B", false),
        ("--user acct:a@b", true),
        ("--tag x", true),
        ("--wildcard-uri x", true),
        ("--id A --not tag=x", true),
        ("--id A --all", true),
        ("--id A --actions create", true),
        ("--filter f", true),
    ] {
        assert_eq!(parsed(line).expect(line).is_extended(), extended, "{line}");
    }
}

#[test]
fn restrictions_without_a_requested_value_are_usage_errors() {
    for line in ["--not user=acct:a@b", "--all", "--actions create"] {
        let flag = line.split(' ').next().unwrap_or_default();
        let (code, message) = filter(line).expect_err(line);
        assert_eq!(code, Exit::USAGE, "{line}");
        assert!(message.starts_with(flag), "{message}");
        assert!(message.contains("--uri, --group,"), "{message}");
    }
}

#[test]
fn invalid_flags_are_explained() {
    for (line, part) in [
        ("--id A --not user", "expected FIELD=VALUE"),
        (
            "--id A --not usr=x",
            "unknown field \"usr\": expected one of uri, group, id",
        ),
        ("--id A --not tag=", "the value of tag is empty"),
        ("--id A --actions create,move", "move"),
        ("--id A --actions=", "ACTIONS"),
        ("--user=", "USER"),
        ("--tag=", "TAG"),
        ("--wildcard-uri=", "PATTERN"),
        ("--filter f --uri u", "--uri"),
        ("--filter f --not tag=x", "--not"),
        ("--filter f --all", "--all"),
        ("--filter f --actions create", "--actions"),
    ] {
        let error = parsed(line).err().expect(line);
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn filter_file_is_sent_as_it_is() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("filter.json");
    let line = format!("--filter {}", path.display());
    let text =
        r#"{"actions":{},"match_policy":"include_all","clauses":[{"field":"/new","value":1}]}"#;
    std::fs::write(&path, format!("\n{text}\n")).expect("a file");
    assert_eq!(filter(&line), Ok(text.to_owned()));
    assert!(!parsed(&line).expect("flags").is_empty());
    for (text, part) in [
        ("", "not valid JSON"),
        ("[]", "a JSON object"),
        (r#"{"clauses":[],"actions":{}}"#, "\"match_policy\" must be"),
        (r#"{"type":"filter","filter":{}}"#, "contains a message"),
        (
            r#"{"match_policy":"include_none","clauses":[],"actions":{}}"#,
            "\"match_policy\" must be",
        ),
        (
            r#"{"match_policy":"include_any","clauses":{},"actions":{}}"#,
            "\"clauses\" must be a list",
        ),
        (
            r#"{"match_policy":"include_any","clauses":[]}"#,
            "\"actions\" is missing",
        ),
        (&" ".repeat(MAX_FILE + 1), "at most 64 KiB"),
    ] {
        std::fs::write(&path, text).expect("a file");
        let (code, message) = filter(&line).expect_err(part);
        assert_eq!(code, Exit::DATA, "{message}");
        assert!(
            message.contains("filter.json") && message.contains(part),
            "{message}"
        );
    }
    let (code, message) = filter("--filter /nonexistent/f").expect_err("no file");
    assert_eq!(code, Exit::NO_INPUT, "{message}");
}

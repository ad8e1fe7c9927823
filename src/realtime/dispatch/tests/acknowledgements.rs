//! Replies with the server's interpretation of a filter.

use super::*;
use crate::realtime::session::SessionFlag;

#[test]
fn acknowledgement_has_the_interpretation_of_the_filter() {
    let filter = r#"{"match_policy":"include_all","clauses":[
        {"field":"/uri","operator":"one_of","value":["https://Example.org/page/:v2","http://a.org/#x"]},
        {"field":"/nope","value":{}},
        {"field":"/user","operator":"not_one_of","value":"acct:Me@Example.org"},
        {"field":"/wildcard_uri","operator":"like","value":"http://a.org/b/*"}],
        "actions":{"create":true,"delete":false}}"#;
    let expected = concat!(
        r#"{"type": "filter", "ok": true, "reply_to": 7, "filter": {"match_policy": "include_all", "clauses": ["#,
        r#"{"field": "/uri", "operator": "one_of", "value": ["httpx://example.org/page__v2", "httpx://a.org"]}, "#,
        r#"{"field": "/user", "operator": "not_one_of", "value": ["me@example.org"]}, "#,
        r#"{"field": "/wildcard_uri", "operator": "one_of", "value": ["httpx://a.org/b/*"]}], "#,
        r#""actions": {"create": true, "update": true, "delete": false}}, "#,
        r#""ignored": [{"clause": 1, "field": "/nope", "reason": "unknown field"}, "#,
        r#"{"clause": 3, "field": "/wildcard_uri", "reason": "unknown operator, treated as one_of"}], "#,
        r#""limits": {"values": 200, "values_left": 196, "clauses": 256, "clauses_left": 252}}"#,
    );
    let mut api = api();
    let with = |rest: &str| format!(r#"{{"type":"filter","id":7,{rest}"filter":{filter}}}"#);
    assert_eq!(reply_to(&mut api, &with(r#""ack":true,"#)), expected);
    for other in ["", r#""ack":false,"#, r#""ack":1,"#, r#""ack":"true","#] {
        assert_eq!(reply_to(&mut api, &with(other)), "", "{other}");
    }
    // Without an id there is no reply.
    let text = format!(r#"{{"type":"filter","ack":true,"filter":{filter}}}"#);
    assert_eq!(reply_to(&mut api, &text), "");
    assert!(!api.session(0).unwrap().has(SessionFlag::Cursors));
}

// M12
#[test]
fn replies_to_filters_are_bounded() {
    let mut api = api();
    let send = |api: &mut TestApi, clauses: &str| {
        let text = format!(
            r#"{{"type":"filter","id":{},"ack":true,"filter":{{"match_policy":"include_any","clauses":[{clauses}],"actions":{{}}}}}}"#,
            "1".repeat(256)
        );
        let reply = reply_to(api, &text);
        assert!(reply.len() <= 8192, "{} bytes", reply.len());
        let json: serde_json::Value = serde_json::from_str(&reply).expect("valid JSON");
        assert_eq!(json["ok"], true);
        json
    };
    let values = |len: usize| {
        let values: Vec<String> = (0..200)
            .map(|n| format!("\"{n}{}\"", "é".repeat(len)))
            .collect();
        format!(r#"{{"field":"/id","value":[{}]}}"#, values.join(","))
    };
    let short = send(&mut api, &values(0));
    assert_eq!(short["truncated"], serde_json::Value::Null);
    assert_eq!(short["limits"]["values_left"], 0);
    let long = send(&mut api, &values(100));
    assert_eq!(long["truncated"], true);
    let shown = long["filter"]["clauses"][0]["value"].as_array().unwrap();
    assert!((5..20).contains(&shown.len()), "{}", shown.len());
    let one = format!(r#"{{"field":"/id","value":"{}"}}"#, "x".repeat(60_000));
    assert_eq!(send(&mut api, &one)["truncated"], true);
    let many = [r#"{"field":"/tags","value":[]}"#; 256].join(",");
    assert_eq!(send(&mut api, &many)["truncated"], true);
    let unknown = [r#"{"field":"/\u0000\u0000\u0000\u0000\u0000\u0000"}"#; 256].join(",");
    assert_eq!(send(&mut api, &unknown)["truncated"], true);
}

#[test]
fn invalid_pattern_is_an_error_and_keeps_the_filter() {
    let mut api = api();
    api.filter(0, "/id", &["a"]);
    let before = api.realtime.counters().terms;
    let text = r#"{"type":"filter","id":1,"filter":{"match_policy":"include_any","clauses":[{"field":"/wildcard_uri","value":"http://*.org/"}],"actions":{}}}"#;
    let description = "invalid value of /wildcard_uri: a scheme is missing, or there are wildcards in the scheme or host";
    assert_eq!(
        reply_to(&mut api, text),
        error("invalid_data", description, "1")
    );
    let counters = api.realtime.counters();
    assert_eq!(
        (counters.errors.invalid_filter, counters.terms),
        (1, before)
    );
}

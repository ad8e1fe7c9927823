//! Filters: which events a connection receives.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, Received, Server, event, filter};

#[test]
fn any_value_of_any_clause_matches() {
    let server = Server::start();
    let mut client = server.anonymous();
    let annotation = json!({
        "id": "own", "group": "friends", "references": ["root", "parent"],
        "permissions": {"read": ["group:__world__"]},
    });
    let mut event = event("create", annotation);
    event["uris"] = json!([
        "https://example.org/page.pdf",
        "urn:x-pdf:1234",
        "http://[bad"
    ]);
    let table = [by_uri(), by_other_fields(), by_several()].concat();
    for (clauses, matches) in table {
        client.send(&filter(clauses.clone()).to_string());
        assert_eq!(
            count_received(&server, &mut client, &event),
            usize::from(matches),
            "{clauses}"
        );
    }
}

#[test]
fn unclear_actions_are_ignored_and_without_filter_nothing_matches() {
    let server = Server::start();
    let mut client = server.anonymous();
    let events = ["create", "update", "delete"].map(|action| event(action, json!({})));
    for event in &events {
        assert_eq!(
            count_received(&server, &mut client, event),
            0,
            "before any filter"
        );
    }
    let clauses = json!([{"field": "/uri", "value": "https://example.org/page"}]);
    for actions in [
        json!({"create": null, "update": 0, "delete": "false"}),
        json!({"Create": false}),
        json!({}),
        json!(null),
        json!("none"),
        json!([]),
    ] {
        let mut message = filter(clauses.clone());
        message["filter"]["actions"] = actions;
        client.send(&message.to_string());
        for event in &events {
            assert_eq!(count_received(&server, &mut client, event), 1, "{message}");
        }
    }
}

#[test]
fn valid_filter_replaces_the_previous_one() {
    let server = Server::start();
    let mut client = server.anonymous();
    let [a, b] = ["a", "b"].map(|id| event("create", json!({ "id": id })));
    client.subscribe("/id", "a");
    assert_eq!(
        [
            count_received(&server, &mut client, &a),
            count_received(&server, &mut client, &b)
        ],
        [1, 0]
    );
    client.subscribe("/id", "b");
    assert_eq!(
        [
            count_received(&server, &mut client, &a),
            count_received(&server, &mut client, &b)
        ],
        [0, 1]
    );
    for bad in bad_filters() {
        let with_id = json!({"type": "filter", "id": 1, "filter": bad});
        let description = r#""description": "failed to parse filter"}"#;
        let want = format!(
            r#"{{"type": "error", "error": {{"type": "invalid_data", {description}, "ok": false, "reply_to": 1}}"#
        );
        assert_eq!(client.ask(&with_id.to_string()), want, "{bad}");
        // Without an id there is no reply.
        client.send(&json!({ "filter": bad }).to_string());
        assert_eq!(client.drain(), [], "{bad}");
    }
    assert_eq!(
        [
            count_received(&server, &mut client, &a),
            count_received(&server, &mut client, &b)
        ],
        [0, 1]
    );
    let refused = server.metric(r#"h_realtime_client_errors_total{reason="invalid_filter"}"#);
    assert_eq!(refused, 2.0 * bad_filters().len() as f64);
    client.send(&filter(json!([])).to_string());
    assert_eq!(
        [
            count_received(&server, &mut client, &a),
            count_received(&server, &mut client, &b)
        ],
        [0, 0]
    );
}

#[test]
fn invalid_filter_does_not_affect_other_clients() {
    let server = Server::start();
    let mut others: Vec<_> = (0..8).map(|_| server.anonymous()).collect();
    let (before, after) = others.split_at_mut(4);
    before
        .iter_mut()
        .for_each(|client| client.subscribe("/id", "a"));
    let mut poisoner = server.anonymous();
    for bad in bad_filters() {
        poisoner.send(&json!({ "filter": bad }).to_string());
    }
    assert_eq!(poisoner.drain(), []);
    after
        .iter_mut()
        .for_each(|client| client.subscribe("/id", "a"));
    let (status, answer) = server.publish(&event("create", json!({"id": "a"})).to_string());
    assert_eq!(
        (status, answer),
        (202, json!({"accepted": 1, "matched": 8}))
    );
    for client in &mut others {
        assert_eq!(client.drain().len(), 1);
    }
}

#[test]
fn filter_is_limited_to_200_values() {
    let server = Server::start();
    let mut client = server.anonymous();
    let values = |range: std::ops::Range<u32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    let versions: String = (1..=201).map(|n| format!(":v{n}")).collect();
    let last = event("create", json!({"id": "199"}));
    client.subscribe("/id", "199");
    let mut received = true;
    for (clauses, fits) in [
        (json!([{"field": "/id", "value": values(0..201)}]), false),
        (json!([{"field": "/id", "value": values(0..5_000)}]), false),
        (json!([{"field": "/id", "value": values(0..200)}]), true),
        (json!([{"field": "/group", "value": values(0..201)}]), false),
        // Over all clauses together.
        (
            json!([{"field": "/id", "value": values(0..150)}, {"field": "/group", "value": values(0..50)}]),
            true,
        ),
        (
            json!([{"field": "/id", "value": values(0..200)}, {"field": "/group", "value": "x"}]),
            false,
        ),
        // Duplicates count.
        (
            json!([{"field": "/id", "value": values(0..200)}, {"field": "/id", "value": "0"}]),
            false,
        ),
        (json!([{"field": "/id", "value": vec!["199"; 200]}]), true),
        // Each version counts.
        (
            json!([{"field": "/uri", "value": format!("http://a.example/{versions}")}]),
            false,
        ),
        (json!([{"field": "/nope", "value": values(0..500)}]), true),
        (
            json!(vec![json!({"field": "/nope", "value": []}); 256]),
            true,
        ),
    ] {
        let mut message = filter(clauses.clone());
        message["id"] = 7.into();
        client.send(&message.to_string());
        let answers = client.drain();
        if fits {
            assert_eq!(answers, [], "{clauses}");
            received = clauses[0]["value"]
                .as_array()
                .unwrap()
                .contains(&json!("199"))
                && clauses[0]["field"] == "/id";
        } else {
            let want = r#"{"type": "error", "error": {"type": "invalid_data", "description": "filter has more than 200 values (repetitions count)"}, "ok": false, "reply_to": 7}"#;
            assert_eq!(answers, [Received::Text(want.to_owned())], "{clauses}");
        }
        // The previous filter stays after a refusal.
        assert_eq!(
            count_received(&server, &mut client, &last),
            usize::from(received),
            "{clauses}"
        );
    }
    let too_many = r#"h_realtime_client_errors_total{reason="too_many_terms"}"#;
    assert_eq!(server.metric(too_many), 6.0);
}

#[test]
fn filter_limit_is_configurable() {
    let server = Server::configured("[limits]\nfilter_terms = 2\n");
    let mut client = server.anonymous();
    let with = |values: &[&str]| {
        let mut message = filter(json!([{"field": "/id", "value": values}]));
        message["id"] = 7.into();
        message.to_string()
    };
    client.send(&with(&["a", "b"]));
    assert_eq!(client.drain(), []);
    assert!(
        client
            .ask(&with(&["a", "b", "c"]))
            .contains("filter has more than 2 values")
    );
}

#[test]
fn uris_match_in_normal_form() {
    let server = Server::start();
    let mut client = server.anonymous();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors/uri_normalize.json");
    let vectors: Vec<Value> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let (mut good, mut bad) = (0, 0);
    let is_sampled =
        |at: usize, vector: &Value| at.is_multiple_of(7) || vector.get("error").is_some();
    let sample = vectors
        .iter()
        .enumerate()
        .filter(|(at, vector)| is_sampled(*at, vector));
    for (_, vector) in sample {
        let uri = vector["in"].as_str().unwrap();
        // A suffix in the form of a version is not part of the URI.
        let end = uri.rsplit(':').next().unwrap();
        if uri.is_empty() || end == "all" || end.starts_with('v') {
            continue;
        }
        let mut ask = filter(json!([{"field": "/uri", "operator": "one_of", "value": [uri]}]));
        ask["id"] = 1.into();
        client.send(&ask.to_string());
        let answers = client.drain();
        let Some(normal) = vector["ok"].as_str() else {
            bad += 1;
            assert_eq!(answers.len(), 1, "{uri:?} has no normal form");
            continue;
        };
        good += 1;
        assert_eq!(answers, [], "{uri:?}");
        // A normalized form is not a web URI, and normalizes to itself.
        for (page, matches) in [(uri, 1), (normal, 1), (&*format!("{normal}x"), 0)] {
            let event = event("create", json!({ "uri": page }));
            assert_eq!(
                count_received(&server, &mut client, &event),
                matches,
                "{uri:?}: {page:?}"
            );
        }
    }
    assert!(good > 150 && bad == 9, "{good} good, {bad} bad");
}

#[test]
fn page_versions_are_distinguished() {
    let server = Server::start();
    let mut client = server.anonymous();
    let page = "https://example.org/page";
    for (asked, versions) in [
        ("", &[None, Some(0)][..]),
        (":v0", &[None, Some(0)]),
        (":v1", &[Some(1)]),
        (":v2", &[Some(2)]),
        (":v002", &[Some(2)]),
        (":v1:v2", &[Some(1), Some(2)]),
        (":v2:v0", &[None, Some(0), Some(2)]),
        (":all", &[None, Some(0), Some(1), Some(2), Some(30)]),
        (":v1:all", &[None, Some(0), Some(1), Some(2), Some(30)]),
        (":v٣٠", &[Some(30)]), // Digits of any script, as in h.
        (":v", &[]),
        (":V1", &[]),
        (":v1x", &[]),
        (":all:", &[]),
    ] {
        client.subscribe("/uri", &format!("{page}{asked}"));
        for version in [None, Some(0), Some(1), Some(2), Some(30)] {
            let event = event("create", json!({ "version": version }));
            let matches = usize::from(versions.contains(&version));
            assert_eq!(
                count_received(&server, &mut client, &event),
                matches,
                "{asked} {version:?}"
            );
        }
    }
    // Versions apply to all URIs of the document.
    client.subscribe("/uri", "urn:x-pdf:1234:v2");
    for (version, matches) in [(None, 0), (Some(1), 0), (Some(2), 1)] {
        let mut event = event("create", json!({ "version": version }));
        event["uris"] = json!(["urn:x-pdf:1234"]);
        assert_eq!(
            count_received(&server, &mut client, &event),
            matches,
            "{version:?}"
        );
    }
}

/// Returns clauses, and whether they match the test's annotation.
fn by_uri() -> Vec<(Value, bool)> {
    vec![
        (json!([]), false),
        (
            json!([{"field": "/uri", "value": "https://example.org/page"}]),
            true,
        ),
        (
            json!([{"field": "/uri", "value": "https://example.org/other"}]),
            false,
        ),
        (
            json!([{"field": "/uri", "value": ["https://a.example", "https://example.org/page"]}]),
            true,
        ),
        // Other URIs of the same document.
        (
            json!([{"field": "/uri", "value": ["http://EXAMPLE.org/page.pdf#page=2"]}]),
            true,
        ),
        (
            json!([{"field": "/uri", "value": ["urn:x-pdf:1234"]}]),
            true,
        ),
        (
            json!([{"field": "/uri", "value": ["urn:x-pdf:12345"]}]),
            false,
        ),
        (json!([{"field": "/uri", "value": []}]), false),
    ]
}

fn by_other_fields() -> Vec<(Value, bool)> {
    vec![
        (json!([{"field": "/group", "value": "friends"}]), true),
        (json!([{"field": "/group", "value": "Friends"}]), false),
        (json!([{"field": "/group", "value": "__world__"}]), false),
        (json!([{"field": "/id", "value": "own"}]), true),
        (
            json!([{"field": "/id", "value": ["no", "own", "own"]}]),
            true,
        ),
        (json!([{"field": "/id", "value": "root"}]), false),
        (json!([{"field": "/references", "value": "root"}]), true),
        (json!([{"field": "/references", "value": "parent"}]), true),
        (json!([{"field": "/references", "value": "own"}]), false),
        // `operator` and `case_sensitive` have no effect.
        (
            json!([{"field": "/id", "operator": "equals", "value": ["own"]}]),
            true,
        ),
        (
            json!([{"field": "/id", "operator": 5, "value": "own"}]),
            true,
        ),
        (
            json!([{"field": "/id", "case_sensitive": false, "value": "OWN"}]),
            false,
        ),
    ]
}

fn by_several() -> Vec<(Value, bool)> {
    vec![
        // The official client's filter on the page of a single thread.
        (
            json!([{"field": "/references", "operator": "one_of", "value": "root"},
                   {"field": "/id", "operator": "equals", "value": "root"}]),
            true,
        ),
        // An event that matches several clauses is delivered once.
        (
            json!([{"field": "/id", "value": "own"}, {"field": "/references", "value": ["root", "parent"]},
                   {"field": "/uri", "value": ["https://example.org/page", "urn:x-pdf:1234"]}]),
            true,
        ),
        // Unknown fields are ignored, with any value.
        (
            json!([{"field": "/created", "value": "acct:author@example.org"}]),
            false,
        ),
        (
            json!([{"field": "/nope", "value": {}}, {"field": "/id", "value": "own"}]),
            true,
        ),
        (
            json!([{"field": "id"}, {"field": "/id/"}, {"field": "/ID", "value": "own"}]),
            false,
        ),
        // The same text in another field does not match.
        (
            json!([{"field": "/uri", "value": "own"}, {"field": "/group", "value": "own"}]),
            false,
        ),
        (json!([{"field": "/id", "value": "friends"}]), false),
    ]
}

/// Publishes one event and returns the number of messages that the client receives, which must
/// equal the count returned to the publisher.
fn count_received(server: &Server, client: &mut Client, event: &Value) -> usize {
    let (status, answer) = server.publish(&event.to_string());
    assert_eq!(status, 202, "{answer}");
    let received = client.drain();
    assert_eq!(answer["matched"], received.len(), "{received:?}");
    for message in &received {
        let Received::Text(text) = message else {
            panic!("{message:?}");
        };
        assert!(
            text.starts_with(r#"{"type":"annotation-notification""#),
            "{text}"
        );
    }
    received.len()
}

fn bad_filters() -> Vec<Value> {
    let mut filters = vec![
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
        json!({"clauses": [], "actions": {}}),
        json!({"match_policy": "include_any", "actions": {}}),
        json!({"match_policy": "include_any", "clauses": []}),
        json!({"match_policy": "include_none", "clauses": [], "actions": {}}),
        json!({"match_policy": ["include_any"], "clauses": [], "actions": {}}),
        json!({"match_policy": null, "clauses": [], "actions": {}}),
    ];
    for clauses in [
        json!(null),
        json!({}),
        json!("x"),
        json!([null]),
        json!([1]),
        json!(["x"]),
        json!([[]]),
        json!([{}]),
        json!([{"value": "a"}]),
        json!([{"field": null, "value": "a"}]),
        json!([{"field": ["/id"], "value": "a"}]),
        json!([{"field": "/id"}]),
        json!([{"field": "/id", "value": null}]),
        json!([{"field": "/id", "value": 1}]),
        json!([{"field": "/id", "value": true}]),
        json!([{"field": "/references", "value": {"a": 1}}]),
        json!([{"field": "/references", "value": [{"a": 1}]}]),
        json!([{"field": "/id", "value": ["a", 1]}]),
        json!([{"field": "/id", "value": [["a"]]}]),
        json!([{"field": "/uri", "value": {}}]),
        json!([{"field": "/uri", "value": "http://[::1"}]),
        json!([{"field": "/uri", "value": ["http://a.example", "http://a.example:99999"]}]),
        // No clause is kept if the last one is invalid.
        json!([{"field": "/id", "value": "a"}, {"field": "/group", "value": 5}]),
    ] {
        filters.push(json!({"match_policy": "include_any", "clauses": clauses, "actions": {}}));
    }
    filters
}

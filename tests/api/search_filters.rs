//! Filters by the fields of h's search API, `include_all`, excluding clauses, and actions, as clients
//! send them, and the replies with the server's interpretation.

use serde_json::{Value, json};

use crate::support::{Client, Received, Server, event};

/// Returns a filter message without an id.
fn message(policy: &str, clauses: Value, actions: Value) -> Value {
    json!({"filter": {"match_policy": policy, "clauses": clauses, "actions": actions}})
}

fn clause(field: &str, operator: &str, value: Value) -> Value {
    json!({"field": field, "operator": operator, "value": value, "case_sensitive": true})
}

/// Publishes an annotation, and returns the actions that a client receives.
fn received(server: &Server, client: &mut Client, event: &Value) -> Vec<String> {
    let (status, answer) = server.publish(&event.to_string());
    assert_eq!(status, 202, "{answer}");
    let notifications = client.drain().into_iter().map(|received| match received {
        Received::Text(text) => {
            let message: Value = serde_json::from_str(&text).unwrap();
            message["options"]["action"].as_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    });
    let notifications: Vec<String> = notifications.collect();
    assert_eq!(answer["matched"], notifications.len(), "{answer}");
    notifications
}

fn annotation() -> Value {
    event(
        "create",
        json!({
            "user": "acct:Judy.U@hypothes.is", "tags": ["To Do", "Straße"], "group": "friends",
            "uri": "https://www.example.org/Docs/intro/?b=2&a=1#top",
            "permissions": {"read": ["group:__world__"]},
        }),
    )
}

#[test]
fn values_are_normalized_as_in_a_search() {
    let server = Server::start();
    let mut client = server.anonymous();
    let annotation = annotation();
    for (field, value, matches) in [
        ("/user", json!(["acct:judy.u@hypothes.is"]), true),
        ("/user", json!("ACCT:JUDY.U@HYPOTHES.IS"), true),
        ("/user", json!("judy.u@hypothes.is"), true),
        ("/user", json!("judy.u"), true),
        (
            "/user",
            json!(["acct:judyu@hypothes.is", "acct:judy.u@example.org", ""]),
            false,
        ),
        ("/tags", json!(["to do"]), true),
        ("/tags", json!("STRASSE"), true),
        ("/tags", json!(["to", "do", "todo", ""]), false),
        ("/wildcard_uri", json!("https://www.example.org/*"), true),
        ("/wildcard_uri", json!("www.example.org/*"), true),
        (
            "/wildcard_uri",
            json!("http://WWW.example.org/Docs/*"),
            true,
        ),
        ("/wildcard_uri", json!("http://www.example.org/Doc*"), true),
        (
            "/wildcard_uri",
            json!("http://www.example.org/*/intro?a=_&b=*"),
            true,
        ),
        (
            "/wildcard_uri",
            json!("http://www.example.org/Docs/intr_?a=1&b=2"),
            true,
        ),
        (
            "/wildcard_uri",
            json!([
                "http://www.example.org/Doc/*",
                "http://example.org/*",
                "http://www.example.org/docs/*"
            ]),
            false,
        ),
    ] {
        let clauses = json!([clause(field, "one_of", value)]);
        let message = message("include_any", clauses, json!({}));
        client.send(&message.to_string());
        let actual = received(&server, &mut client, &annotation).len();
        assert_eq!(actual, usize::from(matches), "{message}");
    }
}

#[test]
fn policies_and_excluding_clauses_are_combined() {
    let server = Server::start();
    let mut client = server.anonymous();
    let annotation = annotation();
    let group = clause("/group", "equals", json!("friends"));
    let world = clause("/group", "equals", json!("__world__"));
    let tag = clause("/tags", "one_of", json!(["other", "to do"]));
    let not_judy = clause("/user", "not_one_of", json!(["judy.u"]));
    let not_bob = clause("/user", "not_one_of", json!("acct:bob@hypothes.is"));
    let not_site = clause(
        "/wildcard_uri",
        "not_one_of",
        json!("http://www.example.org/*"),
    );
    for (policy, clauses, matches) in [
        ("include_all", json!([group, tag]), true),
        ("include_all", json!([world, tag]), false),
        ("include_any", json!([world, tag]), true),
        ("include_all", json!([group, tag, not_judy]), false),
        ("include_any", json!([world, not_judy, tag]), false),
        ("include_any", json!([tag, not_site]), false),
        ("include_any", json!([not_bob]), false),
        ("include_all", json!([not_bob]), false),
        (
            "include_all",
            json!([group, clause("/tags", "one_of", json!([]))]),
            false,
        ),
        (
            "include_all",
            json!([group, clause("/nope", "one_of", json!({}))]),
            true,
        ),
        ("include_all", json!([group, tag, not_bob]), true),
    ] {
        let message = message(policy, clauses, json!({}));
        client.send(&message.to_string());
        let actual = received(&server, &mut client, &annotation).len();
        assert_eq!(actual, usize::from(matches), "{message}");
    }
    let mismatches = server.metric("h_realtime_filter_mismatches_total");
    assert!(mismatches >= 3.0, "{mismatches}");
    assert_eq!(server.metric("h_realtime_conditional_filters"), 1.0);
}

#[test]
fn only_selected_actions_are_sent() {
    let server = Server::start();
    let mut client = server.anonymous();
    let clauses = json!([clause("/group", "one_of", json!("friends"))]);
    for (actions, expected) in [
        (
            json!({"create": true, "update": true, "delete": true}),
            "create update delete",
        ),
        (json!({"create": false}), "update delete"),
        (json!({"create": true, "update": false}), "create delete"),
        (
            json!({"create": true, "update": true, "delete": false}),
            "create update",
        ),
        (
            json!({"create": false, "update": false, "delete": false}),
            "",
        ),
    ] {
        client.send(&message("include_any", clauses.clone(), actions.clone()).to_string());
        let mut actual = Vec::new();
        for action in ["create", "update", "delete"] {
            let mut event = annotation();
            event["action"] = json!(action);
            actual.extend(received(&server, &mut client, &event));
        }
        assert_eq!(actual.join(" "), expected, "{actions}");
    }
}

/// As `hyputils` sends it.
#[test]
fn filter_by_group_and_user_of_a_script_is_understood() {
    let server = Server::start();
    let mut client = server.anonymous();
    let message = json!({"filter": {
        "actions": {"create": true, "update": true, "delete": true},
        "match_policy": "include_any",
        "clauses": [
            {"field": "/group", "case_sensitive": true, "operator": "equals", "options": {}, "value": "nowhere"},
            {"field": "/user", "case_sensitive": true, "operator": "one_of", "options": {}, "value": ["acct:judy.u@hypothes.is"]},
            {"field": "/tags", "case_sensitive": true, "operator": "one_of", "options": {}, "value": ["pinned"]}]}});
    client.send(&message.to_string());
    assert_eq!(received(&server, &mut client, &annotation()), ["create"]);
    let mut other = annotation();
    other["annotation"]["user"] = json!("acct:bob@hypothes.is");
    assert_eq!(received(&server, &mut client, &other), Vec::<String>::new());
    other["annotation"]["tags"] = json!(["Pinned"]);
    assert_eq!(received(&server, &mut client, &other), ["create"]);
}

#[test]
fn acknowledgement_shows_the_filter_in_force() {
    let server = Server::start();
    let mut client = server.anonymous();
    let mut message = message(
        "include_all",
        json!([
            clause("/uri", "one_of", json!("https://Example.org/page/")),
            clause("/mood", "one_of", json!("happy")),
            clause("/user", "not_one_of", json!("acct:Me@example.org"))
        ]),
        json!({"create": true, "update": false}),
    );
    message["type"] = json!("filter");
    message["id"] = json!(5);
    message["ack"] = json!(true);
    let reply: Value = serde_json::from_str(&client.ask(&message.to_string())).unwrap();
    let expected = json!({
        "type": "filter", "ok": true, "reply_to": 5,
        "filter": {
            "match_policy": "include_all",
            "clauses": [
                {"field": "/uri", "operator": "one_of", "value": ["httpx://example.org/page"]},
                {"field": "/user", "operator": "not_one_of", "value": ["me@example.org"]}],
            "actions": {"create": true, "update": false, "delete": true}},
        "ignored": [{"clause": 1, "field": "/mood", "reason": "unknown field"}],
        "limits": {"values": 200, "values_left": 198, "clauses": 256, "clauses_left": 253},
    });
    assert_eq!(reply, expected);
    message["since"] = json!("now");
    let reply: Value = serde_json::from_str(&client.ask(&message.to_string())).unwrap();
    assert_eq!(reply["filter"], expected["filter"]);
    assert_eq!(reply["recovered"], true);
    assert!(reply["cursor"].is_string());
}

#[test]
fn invalid_wildcards_are_reported_and_the_filter_stays() {
    let server = Server::start();
    let mut client = server.anonymous();
    client.subscribe("/group", "friends");
    for value in ["https://*.example.org/", "*", "http*://example.org/a"] {
        let clauses = json!([clause("/wildcard_uri", "one_of", json!([value]))]);
        let mut message = message("include_any", clauses, json!({}));
        message["id"] = json!(1);
        let reply = client.ask(&message.to_string());
        assert!(reply.contains("invalid value of /wildcard_uri"), "{reply}");
    }
    assert_eq!(received(&server, &mut client, &annotation()), ["create"]);
}

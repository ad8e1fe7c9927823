//! Explanations over the admin listener, compared with real notifications, and debug messages.

use serde_json::{Value, json};

use crate::support::{Client, EventStream, Received, Server, event, http};

/// Sends a request for an explanation with these header fields.
fn explain_with(server: &Server, fields: &str, body: &str) -> (u16, String, Value) {
    let request = format!(
        "POST /explain HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n{body}",
        server.admin,
        body.len()
    );
    let (status, head, body) = http(server.admin, request.as_bytes());
    (
        status,
        head,
        serde_json::from_str(&body).unwrap_or_default(),
    )
}

fn explain(server: &Server, body: &Value) -> Value {
    let key = format!("Authorization: Bearer {}\r\n", server.publish_key());
    let (status, head, answer) = explain_with(server, &key, &body.to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(head.contains("Cache-Control: no-store"), "{head}");
    answer
}

fn filter(field: &str, value: &str) -> Value {
    json!({
        "match_policy": "include_any",
        "clauses": [{"field": field, "operator": "one_of", "value": [value]}],
        "actions": {},
    })
}

/// Returns the messages received up to a fence.
fn received(client: &mut Client) -> Vec<Value> {
    let read = |received| match received {
        Received::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    };
    client.drain().into_iter().map(read).collect()
}

/// Returns all kinds of annotations, with the expected reason for withholding each from a receiver
/// that is neither a member nor the author.
fn annotations() -> Vec<(Value, &'static str)> {
    vec![
        (json!({}), "notified"),
        (json!({"hidden": true, "group": "open"}), "hidden"),
        (json!({"user": MUTED}), "muted_author"),
        (
            json!({"group": "closed", "permissions": {"read": ["group:closed"]}}),
            "permission",
        ),
        (
            json!({"group": "closed", "permissions": {"read": ["acct:author@example.org"]}}),
            "permission",
        ),
        (
            json!({"group": "nowhere", "permissions": {"read": ["group:nowhere"]}}),
            "permission",
        ),
        (
            json!({"group": "open", "permissions": {"read": ["group:open"]}}),
            "notified",
        ),
    ]
}

/// Starts a server with groups and users. Returns it with a client of each user.
fn site() -> (Server, Vec<(Option<&'static str>, Client)>) {
    let server = Server::start();
    server.run(&["group", "add", "open", "--readable-by", "world"]);
    server.run(&["group", "add", "closed"]);
    let mut clients = vec![(None, server.anonymous())];
    for (userid, role) in [
        ("acct:other@example.org", None),
        ("acct:member@example.org", Some("member")),
        ("acct:moderator@example.org", Some("moderator")),
        ("acct:author@example.org", Some("member")),
        (MUTED, Some("member")),
    ] {
        let token = server.user(userid);
        for group in ["open", "closed"] {
            if let Some(role) = role {
                server.run(&["group", "member", "add", group, userid, "--role", role]);
            }
        }
        clients.push((Some(userid), server.logged_in(&token)));
    }
    server.run(&["user", "mute", MUTED]);
    (server, clients)
}

#[test]
fn answer_equals_the_notification_of_each_receiver() {
    let (server, mut clients) = site();
    for (_, client) in &mut clients {
        client.subscribe("/uri", "https://example.org/page");
    }
    let (mut sent, mut withheld) = (0, 0);
    for (number, (members, _)) in annotations().into_iter().enumerate() {
        for action in ["create", "update", "delete"] {
            let mut published = event(action, members.clone());
            let id = format!("A{number}{action}");
            published["annotation"]["id"] = json!(id);
            published["annotation_id"] = json!(id);
            let answers: Vec<Value> = clients
                .iter()
                .map(|(user, _)| {
                    explain(
                        &server,
                        &json!({"user": user, "annotation": published,
                            "filter": filter("/uri", "http://example.org/page#x")}),
                    )
                })
                .collect();
            assert_eq!(server.publish(&published.to_string()).0, 202);
            for ((user, client), answer) in clients.iter_mut().zip(answers) {
                let messages = received(client);
                assert_eq!(
                    answer["would_notify"],
                    messages.len() == 1,
                    "{user:?} {answer}"
                );
                if let [message] = &messages[..] {
                    let mut predicted = answer["variant"]["message"].clone();
                    // The default of a time is now.
                    for key in ["created", "updated"] {
                        if message["payload"][0].get(key).is_some() {
                            predicted["payload"][0][key] = message["payload"][0][key].clone();
                        }
                    }
                    assert_eq!(predicted, *message);
                    sent += 1;
                } else {
                    withheld += 1;
                }
                // By its id, the stored event is evaluated.
                let by_id = json!({"user": user, "annotation": id, "filter": filter("/id", &id)});
                let by_id = explain(&server, &by_id);
                assert_eq!(by_id["would_notify"], answer["would_notify"], "{by_id}");
                assert_eq!(by_id["event"]["action"], action);
                assert_eq!(by_id["event"]["source"], "backend");
            }
        }
    }
    assert!(sent > 30 && withheld > 30, "{sent} {withheld}");
}

#[test]
fn every_reason_and_variant_is_stated() {
    let (server, _clients) = site();
    let on = |user: Option<&str>, members: &Value| {
        explain(
            &server,
            &json!({"user": user, "annotation": event("create", members.clone()),
                "filter": filter("/uri", "https://example.org/page")}),
        )
    };
    for (members, reason) in annotations() {
        let answer = on(Some("acct:other@example.org"), &members);
        assert_eq!(answer["reason"], reason, "{members}");
    }
    let hidden = json!({"hidden": true, "group": "open"});
    for (user, role) in [
        ("acct:author@example.org", "author"),
        ("acct:moderator@example.org", "moderator"),
    ] {
        assert_eq!(on(Some(user), &hidden)["variant"]["receiver"], role);
    }
    let answer = on(Some("acct:member@example.org"), &json!({"group": "open"}));
    assert_eq!(answer["variant"]["receiver"], "reader");
    let summary = on(None, &annotations()[3].0)["summary"].clone();
    let text = "not notified: not permitted: only a member of group closed may read it";
    assert_eq!(summary, text);
    assert_eq!(
        on(Some("acct:nobody@example.org"), &json!({}))["reason"],
        "unknown_user"
    );
}

#[test]
fn missing_terms_are_shown_in_both_normal_forms() {
    let server = Server::start();
    for (field, value, annotation) in [
        (
            "/uri",
            "https://www.example.org/page",
            "httpx://example.org/page",
        ),
        ("/group", "other", "__world__"),
        ("/id", "B", "AAAAAREREeaAAAAAAAAAAQ"),
        ("/references", "R", "Q"),
    ] {
        let annotated = event("create", json!({"references": ["Q"]}));
        let answer = explain(
            &server,
            &json!({"annotation": annotated, "filter": filter(field, value)}),
        );
        assert_eq!(answer["reason"], "filter", "{answer}");
        let clause = &answer["filter"]["clauses"][0];
        assert_eq!(clause["values"][0]["matches"], false);
        let own = clause["annotation"].as_array().unwrap();
        assert!(own.contains(&json!(annotation)), "{clause}");
    }
}

#[test]
fn explaining_publishes_and_stores_nothing() {
    let server = Server::start();
    let mut reader = server.anonymous();
    let watch = json!({"type": "filter", "since": "now", "id": 1,
        "filter": filter("/uri", "https://example.org/page")});
    let first: Value = serde_json::from_str(&reader.ask(&watch.to_string())).unwrap();
    for annotation in [event("create", json!({})), json!("A")] {
        explain(&server, &json!({"annotation": annotation, "filter": null}));
    }
    let again: Value = serde_json::from_str(&reader.ask(&watch.to_string())).unwrap();
    assert_eq!(first["cursor"], again["cursor"]);
    assert_eq!(received(&mut reader), [] as [Value; 0]);
    assert_eq!(server.metric("h_realtime_events_received_total"), 0.0);
    assert_eq!(server.metric("h_realtime_explanations_total"), 2.0);
}

// D15
#[test]
fn explaining_needs_the_key_and_a_valid_request() {
    let server = Server::start();
    let key = format!("Authorization: Bearer {}\r\n", server.publish_key());
    let body = json!({"annotation": event("create", json!({}))}).to_string();
    for fields in ["", "Authorization: Bearer x\r\n"] {
        let (status, _, answer) = explain_with(&server, fields, &body);
        assert_eq!((status, &answer["error"]), (401, &json!("unauthorized")));
    }
    let metrics = format!("Authorization: Bearer {}\r\n", crate::support::METRICS_KEY);
    assert_eq!(explain_with(&server, &metrics, &body).0, 401);
    for (body, status, error) in [
        ("{", 400, "invalid_request"),
        ("{}", 400, "invalid_request"),
        (
            r#"{"annotation":{"topic":"annotation"}}"#,
            400,
            "invalid_event",
        ),
        (&" ".repeat(65 * 1024), 413, "too_large"),
    ] {
        let (actual, _, answer) = explain_with(&server, &key, body);
        assert_eq!((actual, &answer["error"]), (status, &json!(error)));
    }
    let get = format!(
        "GET /explain HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.admin
    );
    let (status, head, _) = http(server.admin, get.as_bytes());
    assert_eq!(status, 405);
    assert!(head.contains("Allow: POST"), "{head}");
}

#[test]
fn open_connections_are_explained_with_their_outcomes() {
    let (server, _) = site();
    let token = server.run(&["token", "create", "acct:member@example.org"]);
    let mut client = server.logged_in(&token);
    client.send(r#"{"type":"client_id","value":"the-client"}"#);
    client.subscribe("/uri", "https://example.org/page");
    let of_group = json!({"group": "closed", "permissions": {"read": ["group:closed"]}});
    server.publish(&event("create", of_group).to_string());
    assert_eq!(received(&mut client).len(), 1);
    let request = json!({"client": "the-client"});
    let answer = explain(&server, &request);
    assert_eq!(answer["open_connections"], 1);
    let connection = &answer["connections"][0];
    assert_eq!(connection["userid"], "acct:member@example.org");
    assert_eq!(connection["events"][0]["basis"], "evaluated");
    assert_eq!(connection["events"][0]["outcome"], "readable");
    let is_text = |key: &str| connection[key].is_u64();
    assert!(
        is_text("opened_at") && is_text("last_received_at"),
        "{connection}"
    );

    let mut own = event("create", json!({"id": "B"}));
    own["src_client_id"] = json!("the-client");
    server.publish(&own.to_string());
    server.publish(&event("update", json!({"id": "B", "hidden": true})).to_string());
    let events = explain(&server, &request)["connections"][0]["events"].clone();
    let recorded: Vec<(&Value, &Value)> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["basis"] == "recorded")
        .map(|one| (&one["outcome"], &one["reason"]))
        .collect();
    for expected in [
        (json!("withheld"), json!("hidden")),
        (json!("own_event"), Value::Null),
    ] {
        let is_recorded = recorded.contains(&(&expected.0, &expected.1));
        assert!(is_recorded, "{expected:?} in {events}");
    }
    let log = server.log_with("explained the notifications");
    assert!(log.contains("kind=open"), "{log}");
    for secret in [
        "the-client",
        "acct:member@example.org",
        &*server.publish_key(),
    ] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert_eq!(
        explain(&server, &json!({"client": "nobody"}))["open_connections"],
        0
    );
}

#[test]
fn traced_connection_gets_debug_messages() {
    let server = Server::start();
    let mut client = Client::open(server.address(), "/ws?debug=1", "");
    let clauses = json!([{"field": "/uri", "value": "https://Example.org/page/"}, {"field": "/x"}]);
    let filter = json!({"match_policy": "include_any", "clauses": clauses, "actions": {}});
    client.send(&json!({"type": "filter", "filter": filter}).to_string());
    let filter = client.json();
    assert_eq!(filter["event"], "filter");
    let value = &filter["filter"]["clauses"][0]["value"];
    assert_eq!(*value, json!(["httpx://example.org/page"]));
    client.send(r#"{"type":"client_id","value":"c"}"#);
    assert_eq!(client.json()["event"], "client_id");
    let mut own = event("create", json!({}));
    own["src_client_id"] = json!("c");
    server.publish(&own.to_string());
    let withheld = client.json();
    assert_eq!(withheld["reason"], "own_event");
    assert_eq!(withheld["id"], "AAAAAREREeaAAAAAAAAAAQ");
    // An event that the client may not read causes no message.
    let mut private = own;
    private["annotation"]["permissions"]["read"] = json!(["acct:author@example.org"]);
    private["annotation"]["id"] = json!("B");
    private["annotation_id"] = json!("B");
    server.publish(&private.to_string());
    assert_eq!(received(&mut client), [] as [Value; 0]);
}

#[test]
fn event_stream_is_explained_and_gets_debug_messages() {
    let server = Server::start();
    let query = "uri=https://example.org/page&uri=https://Example.org/b/&client_id=c&debug=1";
    let mut stream = EventStream::open(server.address(), query, "");
    // Every event stream begins with a replay, before or after its filter.
    let first = [(); 2].map(|()| stream.event().expect("a debug message"));
    assert!(first.iter().all(|(kind, _)| kind == "debug"), "{first:?}");
    let of_filter = |(_, message): &&(String, Value)| message["event"] == "filter";
    let (_, filter) = first.iter().find(of_filter).expect("a filter");
    let values = json!(["httpx://example.org/page", "httpx://example.org/b"]);
    assert_eq!(filter["filter"]["clauses"][0]["value"], values);
    let answer = explain(
        &server,
        &json!({"client": "c", "annotation": event("create", json!({}))}),
    );
    let connection = &answer["connections"][0];
    assert_eq!(
        (&connection["transport"], &connection["debug"]),
        (&json!("sse"), &json!(true))
    );
    assert_eq!(connection["verdict"]["reason"], "notified");
    let mut own = event("create", json!({}));
    own["src_client_id"] = json!("c");
    server.publish(&own.to_string());
    let (kind, withheld) = stream.event().expect("a debug message");
    assert_eq!(
        (&*kind, &withheld["reason"]),
        ("debug", &json!("own_event"))
    );
}

const MUTED: &str = "acct:muted@example.org";

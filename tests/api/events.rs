//! The exact notifications that clients receive for events.

use serde_json::{Value, json};

use crate::support::{Client, Received, Server, event};

#[test]
fn published_annotation_is_passed_on_completely() {
    let server = Server::start();
    server.run(&[
        "user",
        "add",
        "acct:author@example.org",
        "--display-name",
        "A. Author",
    ]);
    let mut client = subscribed(&server);
    let published = json!({
        "id": "own",
        "created": "2024-01-02T03:04:05.678901+00:00",
        "updated": "2024-01-02T03:04:06.000000+00:00",
        "user": "acct:author@example.org",
        "uri": "https://example.org/page",
        "text": "Hello — “wörld” \u{1f600} </script> \"\\ \u{0}\u{7f}\u{2028}",
        "tags": ["one", "two"],
        "group": "__world__",
        "moderation_status": "APPROVED",
        "permissions": {
            "read": ["group:__world__"],
            "admin": ["acct:author@example.org"],
            "update": ["acct:author@example.org", "acct:editor@example.org"],
            "delete": [],
        },
        "target": [{"source": "https://example.org/page", "selector": [
            {"type": "RangeSelector", "startOffset": 0, "endOffset": 5},
            {"type": "TextQuoteSelector", "exact": "Hello", "prefix": "", "suffix": " wörld"}]}],
        "document": {"title": ["A page"]},
        "links": {"html": "https://example.org/a/own"},
        "mentions": [{"userid": "acct:joe@example.org", "joined": null}],
        "references": ["root", "parent"],
        "version": 3,
        "extra": serde_json::from_str::<Value>(NUMBERS).unwrap(),
    });
    // Members about the receiver are set here, whatever the publisher sends.
    let mut told = published.clone();
    told["flagged"] = true.into();
    told["actions"] = json!(["moderate"]);
    told["moderation"] = json!({"flagCount": 3});
    client.subscribe("/id", "own");
    publish(&server, &event("create", told), 1);

    let mut want = published;
    want["actions"] = json!([]);
    want["user_info"] = json!({"display_name": "A. Author"});
    want["flagged"] = json!(false);
    want["hidden"] = json!(false);
    let got = client.json();
    assert_eq!(got["payload"][0], want);
    assert_eq!(got["payload"][0]["extra"].to_string(), NUMBERS);
    assert_eq!(keys(&got), ["type", "options", "payload"]);
    assert_eq!(got["type"], "annotation-notification");
    assert_eq!(got["options"], json!({"action": "create"}));
    assert_eq!(got["payload"].as_array().unwrap().len(), 1);
    // h's order, then members that only the publisher knows.
    assert_eq!(
        keys(&got["payload"][0]).join(" "),
        "id created updated user uri text tags group moderation_status permissions target document \
         links actions mentions user_info references flagged hidden version extra"
    );
}

/// The official client shows no further event after an annotation without the members that it
/// reads.
#[test]
fn members_that_clients_need_are_always_present() {
    let server = Server::start();
    let mut client = subscribed(&server);
    for action in ["create", "update"] {
        publish(&server, &event(action, json!({})), 1);
        let mut got = client.json();
        for time in ["created", "updated"] {
            let time = got["payload"][0][time].take();
            let time = time.as_str().unwrap();
            assert!(time.len() == 32 && time.ends_with("+00:00"), "{time}");
        }
        let author = json!(["acct:author@example.org"]);
        let want = json!({
            "type": "annotation-notification", "options": {"action": action}, "payload": [{
                "id": ID, "created": null, "updated": null,
                "user": "acct:author@example.org", "uri": PAGE, "text": "", "tags": [],
                "group": "__world__",
                "permissions": {"read": ["group:__world__"], "admin": author, "update": author,
                                "delete": author},
                "target": [{"source": PAGE}], "document": {}, "links": {}, "actions": [],
                "mentions": [], "user_info": {"display_name": null}, "flagged": false,
                "hidden": false}],
        });
        assert_eq!(got.to_string(), want.to_string());
    }
}

#[test]
fn delete_event_only_contains_the_id() {
    let server = Server::start();
    let mut client = subscribed(&server);
    publish(
        &server,
        &event("delete", json!({"text": "gone", "references": ["root"]})),
        1,
    );
    let want = format!(
        r#"{{"type":"annotation-notification","options":{{"action":"delete"}},"payload":[{{"id":"{ID}"}}]}}"#
    );
    assert_eq!(client.receive(), Received::Text(want));
}

#[test]
fn session_change_reaches_all_connections_of_its_user_only() {
    let server = Server::start();
    let token = server.user("acct:joe@example.org");
    let other_token = server.run(&["token", "create", "acct:joe@example.org"]);
    let somebody = server.user("acct:somebody@example.org");
    // With a filter, without one, with another token, and as the client that causes the event.
    let mut joes = [&token, &token, &other_token, &token].map(|token| server.logged_in(token));
    joes[0].subscribe("/id", "x");
    joes[3].send(r#"{"type": "client_id", "value": "joes client"}"#);
    let mut others = [server.logged_in(&somebody), server.anonymous()];
    others
        .iter_mut()
        .for_each(|client| client.subscribe("/group", "__world__"));
    let all = joes.iter_mut().chain(&mut others);
    all.for_each(|client| assert_eq!(client.drain(), []));

    let model = json!({
        "userid": "acct:joe@example.org",
        "groups": [{"name": "Frïends", "id": "friends", "public": false, "url": "https://x"}],
        "features": {"a": true}, "preferences": {}, "more": [1.0],
    });
    for kind in ["group-join", "group-leave"] {
        let change = json!({
            "topic": "user", "type": kind, "userid": "acct:joe@example.org", "group": "friends",
            "src_client_id": "joes client", "session_model": model,
        });
        publish(&server, &change, 4);
        let want = json!({"type": "session-change", "action": kind, "model": model});
        for client in &mut joes {
            assert_eq!(client.drain(), [Received::Text(want.to_string())]);
        }
        for client in &mut others {
            assert_eq!(client.drain(), []);
        }
    }
    for userid in [
        "acct:JOE@example.org",
        "acct:j.oe@example.org",
        "acct:nobody@example.org",
    ] {
        let change = json!({
            "topic": "user", "type": "group-join", "userid": userid, "session_model": model,
        });
        publish(&server, &change, 0);
    }
}

#[test]
fn event_is_not_sent_to_its_originating_client() {
    for (output, source, is_told) in [
        (&[][..], None, true),
        (&[], Some("a"), true),
        (&[TYPED_A], None, true),
        (&[TYPED_A], Some("a"), false),
        (&[UNTYPED_A], Some("a"), false),
        (&[TYPED_A], Some("b"), true),
        (&[TYPED_A], Some("A"), true),
        (&[TYPED_A], Some(""), true),
        // The last client id counts, null resets it, and invalid ones have no effect.
        (
            &[TYPED_A, r#"{"type": "client_id", "value": "b"}"#],
            Some("a"),
            true,
        ),
        (
            &[TYPED_A, r#"{"type": "client_id", "value": "b"}"#],
            Some("b"),
            false,
        ),
        (
            &[TYPED_A, r#"{"type": "client_id", "value": null}"#],
            Some("a"),
            true,
        ),
        (
            &[TYPED_A, r#"{"type": "client_id", "value": 5}"#],
            Some("a"),
            false,
        ),
        (&[TYPED_A, r#"{"type": "client_id"}"#], Some("a"), false),
        (
            &[r#"{"type": "client_id", "value": "\u0061"}"#],
            Some("a"),
            false,
        ),
        (&[r#"{"type": "client_id", "value": 5}"#], Some("5"), true),
        (&[r#"{"type": "client_id", "value": ""}"#], Some(""), false),
    ] {
        // A client that returns is sent the events that it has missed.
        let server = Server::start();
        let mut client = subscribed(&server);
        let mut other = subscribed(&server);
        output.iter().for_each(|message| client.send(message));
        assert_eq!(client.drain(), []);
        for action in ["create", "update", "delete"] {
            let mut event = event(action, json!({}));
            event["src_client_id"] = source.into();
            publish(&server, &event, 1 + usize::from(is_told));
            assert_eq!(
                client.drain().len(),
                usize::from(is_told),
                "{output:?} {source:?}"
            );
            assert_eq!(other.drain().len(), 1);
        }
    }
}

#[test]
fn events_arrive_in_order_one_per_text_frame() {
    let server = Server::start();
    let mut client = subscribed(&server);
    let sizes = [0, 100, 125, 126, 1000, 65_000, 66_000, 130_000];
    let events: Vec<_> = (0..40)
        .map(|n| {
            let action = ["create", "update", "delete"][n % 3];
            event(
                action,
                json!({"id": n.to_string(), "text": "x".repeat(sizes[n % 8])}),
            )
            .to_string()
        })
        .collect();
    // Two batches with a request in between.
    let (first, second) = events.split_at(10);
    assert_eq!(
        server.publish(&first.join("\n")),
        (202, json!({"accepted": 10, "matched": 10}))
    );
    client.send(r#"{"type": "ping", "id": 1}"#);
    let ids = |client: &mut Client, range: std::ops::Range<usize>| {
        for n in range {
            let got = client.json();
            assert_eq!(
                got["options"]["action"],
                ["create", "update", "delete"][n % 3]
            );
            assert_eq!(got["payload"][0]["id"], n.to_string());
            let text = got["payload"][0]["text"].as_str();
            assert_eq!(text.map(str::len), (n % 3 != 2).then_some(sizes[n % 8]));
        }
    };
    ids(&mut client, 0..10);
    assert_eq!(client.json()["type"], "pong");
    for (at, batch) in second.chunks(5).enumerate() {
        let matched = json!({"accepted": 5, "matched": 5});
        assert_eq!(server.publish(&batch.join("\r\n")), (202, matched));
        ids(&mut client, 10 + 5 * at..15 + 5 * at);
    }
}

#[test]
fn refused_batch_publishes_nothing() {
    let server = Server::start();
    let mut client = subscribed(&server);
    let good = event("create", json!({}));
    let mut no_client = good.clone();
    no_client["src_client_id"] = 5.into();
    for bad in [
        event("destroy", json!({})),
        event("create", json!({"permissions": {}})),
        event("create", json!({"tags": "one"})),
        no_client,
        json!({"topic": "user", "type": "group-join", "userid": "acct:a@b", "session_model": {}}),
        json!(5),
    ] {
        let (status, answer) = server.publish(&format!("{good}\n\n{bad}\n{good}\n"));
        let told = (status, &answer["error"], &answer["line"]);
        assert_eq!(told, (400, &json!("invalid_event"), &json!(3)), "{bad}");
        assert_eq!(client.drain(), [], "{bad}");
    }
}

const ID: &str = "AAAAAREREeaAAAAAAAAAAQ";
/// Numbers of any size and precision are passed on unchanged.
const NUMBERS: &str = "[1.50,1e+400,-0,12345678901234567890123]";
const PAGE: &str = "https://example.org/page";
const TYPED_A: &str = r#"{"type": "client_id", "value": "a"}"#;
const UNTYPED_A: &str = r#"{"messageType": "client_id", "value": "a"}"#;

/// Connects an anonymous client that receives all public annotations.
fn subscribed(server: &Server) -> Client {
    let mut client = server.anonymous();
    client.subscribe("/group", "__world__");
    client
}

fn publish(server: &Server, event: &Value, matched: usize) {
    let (status, answer) = server.publish(&event.to_string());
    assert_eq!(
        (status, answer),
        (202, json!({"accepted": 1, "matched": matched}))
    );
}

fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

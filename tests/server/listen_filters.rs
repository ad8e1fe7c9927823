//! The filter options of `listen`, with this server and with servers that do not understand them.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{PROGRAM, Program, Server, Subscribed, event, subscribed};

/// The options of each transport.
const TRANSPORTS: [&[&str]; 2] = [&[], &["--sse"]];

const ME: &str = "acct:me@example.org";

fn listen(url: &str, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    Program::start(command.args(["listen", url]).args(args))
}

/// Publishes annotations whose ids name their properties: the author, the tag, and the page.
fn publish(server: &Server) {
    for user in ["alice", "bob"] {
        for tag in ["red", "blue"] {
            for page in ["a/1", "b/1"] {
                let id = format!("{user}-{tag}-{page}");
                let more = json!({"id": id, "user": format!("acct:{user}@example.org"), "tags": [tag],
                    "uri": format!("https://example.org/{page}")});
                assert_eq!(server.publish(&event("create", more).to_string()).0, 202);
            }
        }
    }
    // All connections of this user receive it.
    let model = json!({"userid": ME, "groups": [], "features": {}, "preferences": {}});
    let join = json!({"topic": "user", "type": "group-join", "userid": ME, "session_model": model});
    assert_eq!(server.publish(&join.to_string()).0, 202);
}

#[test]
fn options_select_the_same_annotations_over_each_transport() {
    let server = Server::start();
    let token = server.user(ME);
    let filter = server.folder().join("filter.json");
    let text = json!({"match_policy": "include_all", "actions": {}, "clauses": [
        {"field": "/user", "operator": "one_of", "value": "acct:bob@example.org"},
        {"field": "/tags", "operator": "not_one_of", "value": ["blue"]}]});
    std::fs::write(&filter, text.to_string()).unwrap();
    let from_file = ["--filter", filter.to_str().unwrap()];
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["--user", "acct:Alice@example.org", "--tag", "RED", "--all"],
            &["alice-red-a/1", "alice-red-b/1"],
        ),
        (
            &[
                "--wildcard-uri",
                "https://example.org/a/*",
                "--not",
                "user=acct:bob@example.org",
            ],
            &["alice-red-a/1", "alice-blue-a/1"],
        ),
        (
            &[
                "--tag",
                "blue",
                "--not",
                "wildcard-uri=https://example.org/_/1",
            ],
            &[],
        ),
        (
            &[
                "--uri",
                "https://example.org/a/1",
                "--user",
                "bob@example.org",
                "--not",
                "tag=red",
            ],
            &["alice-blue-a/1", "bob-blue-a/1", "bob-blue-b/1"],
        ),
        (&["--group", "__world__", "--actions", "delete"], &[]),
        (&from_file, &["bob-red-a/1", "bob-red-b/1"]),
    ];
    for transport in TRANSPORTS {
        let is_sse = !transport.is_empty();
        // Of the cases, only a filter file cannot be a query.
        let usable = cases
            .iter()
            .filter(|(args, _)| !is_sse || *args != from_file);
        let listeners: Vec<_> = usable
            .map(|&(args, ids)| {
                let args = [args, transport, &["--token", &token]].concat();
                let listener = listen(&server.listeners[0], &args);
                listener.wait_for_error_line("connected ");
                (listener, ids, args)
            })
            .collect();
        publish(&server);
        for (listener, ids, args) in listeners {
            let mut received = Vec::new();
            loop {
                let line = listener.line().expect("an event");
                let event: Value = serde_json::from_str(&line).unwrap();
                match event["payload"][0]["id"].as_str() {
                    Some(id) => received.push(id.to_owned()),
                    None => break,
                }
            }
            assert_eq!(received, ids, "{args:?}");
        }
    }
}

#[test]
fn server_that_does_not_confirm_an_extended_filter_is_refused() {
    let whoami = json!({"type": "whoyouare", "userid": null, "ok": true, "reply_to": 2});
    for script in [
        // h sends no reply.
        |socket: &mut Subscribed| socket.identify(),
        // Annotations that arrive before the reply are not printed.
        |socket: &mut Subscribed| {
            socket.say(&json!({"type": "annotation-notification", "payload": []}));
        },
        // An older server with cursors.
        |socket: &mut Subscribed| socket.accept("c"),
    ] {
        let (url, _) = subscribed(vec![script]);
        let mut listener = listen(&url, &["--tag", "x"]);
        listener.wait_for_error_line("the server does not confirm filters");
        assert_eq!(listener.wait(), Some(69));
        assert_eq!(listener.line(), None);
    }
    let (url, _) = subscribed(vec![|socket: &mut Subscribed| {
        socket.say(
            &json!({"type": "filter", "ok": true, "reply_to": 1, "filter": {}, "limits": {},
            "ignored": [{"clause": 0, "field": "/tags", "reason": "unknown field"}]}),
        );
    }]);
    let mut listener = listen(&url, &["--tag", "x"]);
    listener.wait_for_error_line("the server ignores a part of the filter: /tags: unknown field");
    assert_eq!(listener.wait(), Some(64));

    let event = json!({"type": "annotation-notification", "payload": []});
    let line = event.to_string();
    let (url, _) = subscribed(vec![move |socket: &mut Subscribed| {
        socket.say(
            &json!({"type": "filter", "ok": true, "reply_to": 1, "filter": {}, "ignored": []}),
        );
        socket.say(&whoami);
        socket.say(&event);
    }]);
    let mut listener = listen(&url, &["--tag", "x", "--count", "1"]);
    assert_eq!(listener.line(), Some(line));
    assert_eq!(listener.wait(), Some(0));
}

//! Changes made by commands while the server runs also apply to open connections.
//!
//! Positive effects are awaited for up to a second. For negative effects, an event is published
//! after the command has ended, followed by a fence.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::support::{Client, PATIENCE, Received, Server, connect, eventually};

/// Returns an event of a group's annotation, or a public one.
fn event(id: &str, group: &str) -> String {
    let annotation = json!({"id": id, "user": AUTHOR, "uri": "https://example.org/",
                            "group": group, "permissions": {"read": [format!("group:{group}")]}});
    json!({"topic": "annotation", "action": "create", "annotation": annotation}).to_string()
}

/// Connects an authenticated client with a filter for the public group and `club`.
fn member(server: &Server, token: &str) -> Client {
    let mut client = server.logged_in(token);
    let clause = json!({"field": "/group", "operator": "one_of", "value": ["__world__", "club"]});
    let filter = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
    client.send(&json!({"filter": filter}).to_string());
    assert_eq!(client.drain(), []);
    client
}

/// Publishes an event on a new annotation, and returns the annotation if the client receives it.
fn receive_event(server: &Server, client: &mut Client, group: &str) -> Option<Value> {
    let id = publish_new(server, group);
    received(client, &id)
}

/// Publishes an event on a new annotation; returns its id.
fn publish_new(server: &Server, group: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let id = format!("new-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    assert_eq!(server.publish(&event(&id, group)).0, 202);
    id
}

/// Returns the annotation if it is among the messages that the client has received. The changes
/// also retract earlier annotations, or make them readable.
fn received(client: &mut Client, id: &str) -> Option<Value> {
    let mut annotations = created(client);
    annotations.retain(|annotation| annotation["id"] == id);
    assert!(annotations.len() <= 1, "{annotations:?}");
    annotations.pop()
}

/// Returns the annotations that the client has received, except for retractions.
fn created(client: &mut Client) -> Vec<Value> {
    let messages = client.drain().into_iter().map(|message| match message {
        Received::Text(text) => serde_json::from_str::<Value>(&text).unwrap(),
        other => panic!("{other:?}"),
    });
    let created = messages.filter(|message| message["options"]["action"] == "create");
    created
        .map(|message| message["payload"][0].clone())
        .collect()
}

/// Asserts that the client is closed within a second because its credentials have ended, and
/// receives nothing more, not even that it is anonymous now.
fn is_closed(client: &mut Client) {
    let since = Instant::now();
    let received = client.receive();
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    let Received::Close(Some((3000, reason))) = received else {
        panic!("{received:?}");
    };
    assert!(!reason.is_empty());
    client.close(3000, "");
    assert_eq!(client.receive(), Received::End);
}

fn whoami(client: &mut Client) -> Value {
    let answer = client.ask(r#"{"type": "whoami", "id": 1}"#);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["userid"].clone()
}

/// Returns the id of the user's first token.
fn first_token(server: &Server) -> String {
    let list = server.command(&["token", "list", ME]).stdout;
    let list = String::from_utf8(list).unwrap();
    let first = list.lines().nth(1).expect("a token");
    first.split(' ').next().unwrap().to_owned()
}

#[test]
fn membership_changes_take_effect_at_once() {
    let server = Server::start();
    let token = server.user(ME);
    server.run(&["group", "add", "club"]);
    let mut me = member(&server, &token);
    let mut other_window = member(&server, &token);
    let mut anonymous = server.anonymous();
    anonymous.subscribe("/group", "club");

    assert!(receive_event(&server, &mut me, "club").is_none());
    server.run(&["group", "member", "add", "club", ME]);
    let first = receive_event(&server, &mut me, "club").expect("an event");
    assert_eq!(first["actions"], json!([]));
    server.run(&["group", "member", "add", "club", ME, "--role", "moderator"]);
    let second = receive_event(&server, &mut me, "club").expect("an event");
    assert_eq!(second["actions"], json!(["moderate"]));
    let seen = created(&mut other_window);
    for annotation in [&first, &second] {
        assert_eq!(seen.iter().filter(|seen| *seen == annotation).count(), 1);
    }

    server.run(&["group", "member", "remove", "club", ME]);
    assert!(receive_event(&server, &mut me, "club").is_none());
    // Unrelated events still arrive.
    let public = receive_event(&server, &mut me, "__world__").expect("an event");
    assert_eq!(created(&mut other_window), [public]);
    assert_eq!(anonymous.drain(), []);
}

/// The server detects the change by itself, without a publish request or a new connection.
#[test]
fn revoked_token_closes_only_its_connections() {
    let server = Server::start();
    let token = server.user(ME);
    let kept = server.run(&["token", "create", ME]);
    let mut ended = [member(&server, &token), member(&server, &token)];
    let mut others = [member(&server, &kept), server.anonymous()];
    assert_eq!(whoami(&mut ended[0]), ME);
    server.run(&["token", "revoke", &first_token(&server)]);
    for client in &mut ended {
        is_closed(client);
    }
    assert_eq!(whoami(&mut others[0]), ME);
    assert_eq!(whoami(&mut others[1]), Value::Null);
    // New connections with the token are anonymous.
    assert_eq!(whoami(&mut server.logged_in(&token)), Value::Null);
}

#[test]
fn expired_token_closes_its_connections() {
    let server = Server::start();
    server.user(ME);
    let since = Instant::now();
    let token = server.run(&["token", "create", ME, "--expires", "3s"]);
    let mut client = member(&server, &token);
    assert_eq!(whoami(&mut client), ME);
    let left = Instant::now();
    let received = client.receive();
    assert!(
        matches!(received, Received::Close(Some((3000, _)))),
        "{received:?}"
    );
    assert!(since.elapsed() >= Duration::from_secs(3));
    assert!(left.elapsed() < Duration::from_secs(4));
    assert_eq!(whoami(&mut server.logged_in(&token)), Value::Null);
}

// CVE-2025-55070
#[test]
fn deleted_user_is_closed_on_all_connections() {
    let server = Server::start();
    let (token, other) = (server.user(ME), server.user(AUTHOR));
    let mut mine = [member(&server, &token), member(&server, &token)];
    let mut other = member(&server, &other);
    server.run(&["user", "delete", ME]);
    for client in &mut mine {
        is_closed(client);
    }
    assert_eq!(whoami(&mut other), AUTHOR);
    // A new user with the same name is a different user: the old token stays invalid.
    server.run(&["user", "add", ME]);
    assert_eq!(whoami(&mut server.logged_in(&token)), Value::Null);
}

// CVE-2025-55070
/// At no time between the end of the token and the close is the connection served as another user.
#[test]
fn ended_credentials_never_downgrade_to_anonymous() {
    let server = Server::start();
    for command in ["revoke", "delete"] {
        let token = server.user(ME);
        let mut client = member(&server, &token);
        match command {
            "revoke" => server.run(&["token", "revoke", &first_token(&server)]),
            _ => server.run(&["user", "delete", ME]),
        };
        client.send(r#"{"type": "whoami", "id": 1}"#);
        // Not even public events reach this connection.
        let answer = json!({"accepted": 1, "matched": 0});
        assert_eq!(server.publish(&event("A", "__world__")), (202, answer));
        let first = match client.receive() {
            Received::Text(text) => {
                // The request was sent before the server knew.
                assert!(
                    text.contains(r#""userid": "acct:me@example.org""#),
                    "{text}"
                );
                client.receive()
            }
            first => first,
        };
        assert!(
            matches!(first, Received::Close(Some((3000, _)))),
            "{first:?}"
        );
        let _ = server.command(&["user", "delete", ME]);
    }
}

#[test]
fn muted_author_only_reaches_the_author_until_unmuted() {
    let server = Server::start();
    let (token, author) = (server.user(ME), server.user(AUTHOR));
    let (mut me, mut author) = (member(&server, &token), member(&server, &author));
    let mut anonymous = server.anonymous();
    anonymous.subscribe("/group", "__world__");
    for (command, is_received) in [("mute", false), ("unmute", true), ("mute", false)] {
        server.run(&["user", command, AUTHOR]);
        let id = publish_new(&server, "__world__");
        for reader in [&mut me, &mut anonymous] {
            assert_eq!(received(reader, &id).is_some(), is_received, "{command}");
        }
        assert_eq!(author.drain().len(), 1, "{command}");
    }
}

#[test]
fn deleted_group_has_no_receivers_despite_permissions() {
    let server = Server::start();
    let token = server.user(ME);
    server.run(&["group", "add", "club"]);
    server.run(&["group", "member", "add", "club", ME, "--role", "owner"]);
    let mut me = member(&server, &token);
    let mut anonymous = server.anonymous();
    anonymous.subscribe("/group", "club");
    // As h writes it for world-readable groups, which this one is not.
    let open = event("A", "club").replace("group:club", "group:__world__");
    assert!(receive_event(&server, &mut me, "club").is_some());
    assert_eq!(server.publish(&open).1["matched"], 1);
    assert_eq!(me.drain().len(), 1);

    server.run(&["group", "delete", "club"]);
    assert!(receive_event(&server, &mut me, "club").is_none());
    assert_eq!(server.publish(&open).1["matched"], 0);
    // A group that is added again has none of its former members.
    server.run(&["group", "add", "club"]);
    assert!(receive_event(&server, &mut me, "club").is_none());
    assert!(receive_event(&server, &mut me, "__world__").is_some());
    assert_eq!(anonymous.drain(), []);
}

#[test]
fn changed_readability_takes_effect_at_once() {
    let server = Server::start();
    let token = server.user(ME);
    server.run(&["group", "add", "club", "--readable-by", "world"]);
    let mut me = member(&server, &token);
    let mut anonymous = server.anonymous();
    anonymous.subscribe("/group", "club");
    for (readers, is_received) in [("members", false), ("world", true), ("members", false)] {
        server.run(&["group", "set", "club", "--readable-by", readers]);
        let id = publish_new(&server, "club");
        for reader in [&mut me, &mut anonymous] {
            assert_eq!(received(reader, &id).is_some(), is_received, "{readers}");
        }
    }
}

#[test]
fn changed_display_name_takes_effect_at_once() {
    let server = Server::start();
    let token = server.user(AUTHOR);
    let mut author = member(&server, &token);
    for (args, name) in [
        (&["--display-name", "Ann"][..], json!("Ann")),
        (&["--no-display-name"], Value::Null),
    ] {
        server.run(&[&["user", "set", AUTHOR], args].concat());
        let seen = receive_event(&server, &mut author, "__world__").expect("an event");
        assert_eq!(seen["user_info"]["display_name"], name);
    }
}

const ME: &str = "acct:me@example.org";
const AUTHOR: &str = "acct:author@example.org";

// D1
#[test]
fn events_queued_for_a_client_are_dropped_when_its_token_is_revoked() {
    let server = Server::configured("[timeouts]\nclose = \"60s\"\n");
    let token = server.user(ME);
    server.run(&["group", "add", "club"]);
    server.run(&["group", "member", "add", "club", ME]);
    // A client that does not read: the kernel accepts some megabytes, and the server queues the
    // rest.
    let stream = connect(server.address());
    SockRef::from(&stream)
        .set_recv_buffer_size(64 << 10)
        .unwrap();
    let target = format!("/ws?access_token={token}");
    let mut stalled = Client::over(stream, &target, "");
    stalled.subscribe("/group", "club");
    let queued = || server.metric("h_realtime_queued_bytes");
    let id = "x".repeat(20_000);
    while queued() < 100_000.0 {
        assert_eq!(server.publish(&event(&id, "club")).0, 202);
    }
    server.run(&["token", "revoke", &first_token(&server)]);
    // The message in progress, and the close frame.
    eventually(PATIENCE, || (queued() < 21_000.0).then_some(()));
    // From here on it reads the data that the kernel still holds.
    let end = loop {
        match stalled.receive() {
            Received::Text(_) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Received::Close(Some((3000, _)))), "{end:?}");
}

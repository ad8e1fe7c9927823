//! The database is backed up, restored, replaced, and removed while the server runs.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Received, Server, eventually};

/// Connects an authenticated client with a filter for the group `club`.
fn member(server: &Server, token: &str) -> Client {
    let mut client = server.logged_in(token);
    client.subscribe("/group", "club");
    client
}

/// Returns how many of the clients that may read `club` receive an event of it.
fn matched(server: &Server) -> Value {
    let annotation = json!({"id": "A", "user": "acct:author@example.org",
                            "uri": "https://example.org/", "group": "club",
                            "permissions": {"read": ["group:club"]}});
    let event = json!({"topic": "annotation", "action": "create", "annotation": annotation});
    let (status, answer) = server.publish(&event.to_string());
    assert_eq!(status, 202, "{answer}");
    answer["matched"].clone()
}

/// Returns the user of a connection. Retractions may precede the reply.
fn whoami(client: &mut Client) -> Value {
    client.send(r#"{"type": "whoami", "id": 1}"#);
    loop {
        let Received::Text(text) = client.receive() else {
            panic!("no reply");
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        match message["type"].as_str() {
            Some("whoyouare") => return message["userid"].clone(),
            _ => assert_eq!(message["options"]["action"], "delete", "{text}"),
        }
    }
}

/// Asserts that the client is closed within a second because its token has ended. A retraction may
/// precede the close, if the user has lost a membership as well.
fn assert_closed(client: &mut Client, since: Instant) {
    let mut received = client.receive();
    while matches!(&received, Received::Text(text) if text.contains(r#""action":"delete""#)) {
        received = client.receive();
    }
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
    assert!(
        matches!(received, Received::Close(Some((3000, _)))),
        "{received:?}"
    );
}

/// A user with one token in the backup and one added later; the user joins a group after the
/// backup.
struct Site {
    server: Server,
    token: String,
    later: String,
}

impl Site {
    fn new() -> Site {
        let server = Server::start();
        let token = server.user(ME);
        server.run(&["group", "add", "club"]);
        server.run(&["backup", &file(&server, "backup")]);
        let later = server.run(&["token", "create", ME]);
        server.run(&["group", "member", "add", "club", ME]);
        Site {
            server,
            token,
            later,
        }
    }
}

fn file(server: &Server, name: &str) -> String {
    server.folder().join(name).to_str().unwrap().to_owned()
}

// D2
#[test]
fn open_connections_follow_a_restored_backup_within_a_second() {
    for way in ["restore", "mv"] {
        let Site {
            server,
            token,
            later,
        } = Site::new();
        let mut kept = member(&server, &token);
        let mut ended = member(&server, &later);
        assert_eq!(matched(&server), 2);
        assert_eq!((kept.drain().len(), ended.drain().len()), (1, 1));
        let backup = file(&server, "backup");
        let since = Instant::now();
        match way {
            "mv" => fs::rename(&backup, server.data().join("h-realtime.sqlite")).unwrap(),
            _ => drop(server.run(&["restore", &backup])),
        }
        assert_closed(&mut ended, since);
        // The user is no longer a member of the group.
        assert_eq!(matched(&server), 0, "{way}");
        for message in kept.drain() {
            let is_retraction = matches!(&message, Received::Text(text) if text.contains("delete"));
            assert!(is_retraction, "{way} {message:?}");
        }
        assert_eq!(whoami(&mut kept), ME, "{way}");
        assert_eq!(whoami(&mut server.logged_in(&later)), Value::Null, "{way}");
        assert_eq!(server.readiness(), 200);
        server.log_with("change log does not continue");
        assert_eq!(server.log().matches("does not continue").count(), 1);
    }
}

#[test]
fn restore_lists_revoked_tokens_that_become_valid() {
    let Site { server, token, .. } = Site::new();
    server.run(&["token", "revoke", "1"]);
    let backup = file(&server, "backup");
    let output = server.command(&["restore", &backup, "--keep-revocations"]);
    assert!(output.status.success());
    assert_eq!(whoami(&mut server.logged_in(&token)), Value::Null);

    let output = server.command(&["restore", &backup]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("valid again: 1 (ids: 1)"), "{stderr}");
    assert_eq!(whoami(&mut server.logged_in(&token)), ME);
}

// D2
#[test]
fn server_without_database_is_not_ready_and_refuses_tokens() {
    let Site { server, token, .. } = Site::new();
    let mut open = member(&server, &token);
    let database = server.data().join("h-realtime.sqlite");
    let away = server.folder().join("away");
    for replacement in [
        None,
        Some("not a database, but long enough to be one".repeat(9)),
    ] {
        fs::rename(&database, &away).unwrap();
        if let Some(text) = replacement {
            fs::write(&database, text).unwrap();
        }
        for command in [["user", "list"], ["user", "add"], ["group", "list"]] {
            let name = (command[1] == "add").then_some("acct:new@example.org");
            let line: Vec<&str> = command.into_iter().chain(name).collect();
            let output = server.command(&line);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{line:?}: {stderr}");
            assert!(stderr.contains("h-realtime restore FILE"), "{stderr}");
        }
        eventually(SECOND, || (server.readiness() == 503).then_some(()));
        let fields = format!("Authorization: Bearer {token}\r\n");
        let refused = Client::try_open(server.address(), "/ws", &fields);
        assert!(
            refused.head.starts_with("HTTP/1.1 503 "),
            "{}",
            refused.head
        );
        let unavailable = format!("database unavailable: {}", database.display());
        let log = server.log_with(&unavailable);
        assert!(log.contains("h-realtime restore FILE"), "{log}");
        fs::rename(&away, &database).unwrap();
        eventually(SECOND, || (server.readiness() == 200).then_some(()));
    }
    assert_eq!(whoami(&mut server.logged_in(&token)), ME);
    assert_eq!(matched(&server), 1);
    assert_eq!(open.drain().len(), 1);
}

/// With WAL, the server mapped a file beside the database, and truncating that file killed it.
#[test]
fn files_beside_the_database_can_be_truncated_and_removed() {
    let Site { server, token, .. } = Site::new();
    let mut client = member(&server, &token);
    let files = || {
        let files = server.data().read_dir().unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_str().is_some_and(|path| path.contains(".sqlite-")))
    };
    for path in files() {
        fs::write(path, "").unwrap();
    }
    assert_eq!(matched(&server), 1);
    for path in files() {
        fs::remove_file(path).unwrap();
    }
    let since = Instant::now();
    server.run(&["token", "revoke", "1"]);
    assert!(matches!(client.receive(), Received::Text(_)));
    assert_closed(&mut client, since);
    assert_eq!(whoami(&mut server.logged_in(&token)), Value::Null);
    assert_eq!(server.readiness(), 200);
}

#[test]
fn backups_are_made_while_users_change() {
    let server = Server::start();
    let users = 30;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..users {
                server.user(&format!("acct:user{number}@example.org"));
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            server.run(&["backup", &file(&server, "backup"), "--force"]);
            let copy = server.folder().join("copy");
            fs::create_dir_all(&copy).unwrap();
            fs::copy(file(&server, "backup"), copy.join("h-realtime.sqlite")).unwrap();
            let list = std::process::Command::new(crate::support::PROGRAM)
                .args(["user", "list", "--data"])
                .arg(&copy)
                .output()
                .unwrap();
            assert!(list.status.success());
            let found = String::from_utf8(list.stdout).unwrap().lines().count();
            assert!(found >= last, "{found} after {last}");
            last = found;
        }
    });
    assert_eq!(server.readiness(), 200);
}

const ME: &str = "acct:me@example.org";
const SECOND: Duration = Duration::from_secs(1);

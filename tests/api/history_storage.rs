//! The stored history of a server process: crashes, a full disk, several servers, and changes of
//! rights by commands.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, PROGRAM, Server, eventually};

const PAGE: &str = "https://example.com/page";
const JOE: &str = "acct:joe@example.org";

fn create(id: &str, text: &str) -> String {
    let annotation = json!({
        "id": id, "user": JOE, "uri": PAGE, "text": text,
        "permissions": {"read": ["group:__world__"]},
    });
    json!({"topic": "annotation", "action": "create", "annotation": annotation}).to_string()
}

/// A publisher with a connection of its own.
struct Publisher {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Publisher {
    fn connect(admin: SocketAddr, key: &str) -> Publisher {
        let stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Publisher {
            stream: BufReader::new(stream),
            head: format!(
                "POST /events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {key}\r\n"
            ),
        }
    }

    /// Returns the status of the response, or `None` if the server is gone.
    fn publish(&mut self, body: &str) -> Option<u16> {
        let request = format!("{}Content-Length: {}\r\n\r\n{body}", self.head, body.len());
        self.stream.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut len) = (None, 0);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().to_ascii_lowercase().split_once(' ') {
                Some(("http/1.1", rest)) => status = rest.get(..3)?.parse().ok(),
                Some(("content-length:", value)) => len = value.parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        self.stream.read_exact(&mut vec![0; len]).ok()?;
        status
    }
}

/// Reads the history beside a running server: the ids, in the order of their positions.
fn stored(server: &Server) -> Vec<String> {
    let db = Connection::open(server.data().join("history.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    let mut query = db
        .prepare("SELECT substr(subject, 2) FROM event ORDER BY seq")
        .unwrap();
    let rows = query.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Returns the names of the files in the data directory. A damaged history is kept there.
fn files(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.data()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn no_accepted_event_is_lost_by_kills_at_random_times() {
    const ROUNDS: u64 = 30;
    let mut server = Server::start();
    let mut accepted: Vec<Vec<String>> = vec![Vec::new(); 2];
    for round in 0..ROUNDS {
        let (admin, key) = (server.admin, server.publish_key());
        let publishers: Vec<_> = (0..2)
            .map(|number| {
                let mut publisher = Publisher::connect(admin, &key);
                thread::spawn(move || {
                    let mut accepted = Vec::new();
                    for at in 0.. {
                        let ids: Vec<_> = (0..=at % 3)
                            .map(|n| format!("{number}-{round}-{at}-{n}"))
                            .collect();
                        let lines: Vec<_> = ids.iter().map(|id| create(id, "text")).collect();
                        match publisher.publish(&lines.join("\n")) {
                            Some(202) => accepted.extend(ids),
                            Some(status) => panic!("{status}"),
                            None => break,
                        }
                    }
                    accepted
                })
            })
            .collect();
        // Not a wait for a condition: the kill must come at an arbitrary time.
        thread::sleep(Duration::from_millis(10 + round * 7919 % 90));
        server.restart();
        for (publisher, all) in publishers.into_iter().zip(&mut accepted) {
            all.extend(publisher.join().unwrap());
        }
        let stored = stored(&server);
        let known: HashSet<&String> = stored.iter().collect();
        for all in &accepted {
            let missing: Vec<_> = all.iter().filter(|id| !known.contains(id)).collect();
            assert!(
                missing.is_empty(),
                "round {round}: {} of {} are missing, first {:?}; {} are stored; files: {:?}; {}",
                missing.len(),
                all.len(),
                missing.first(),
                stored.len(),
                files(&server),
                server.log()
            );
            // The positions are in the order of the answers.
            let of_publisher: HashSet<&String> = all.iter().collect();
            let order = stored.iter().filter(|id| of_publisher.contains(id));
            assert!(order.eq(all), "round {round}");
        }
    }
    assert!(
        accepted.iter().all(|all| all.len() as u64 > ROUNDS),
        "{accepted:?}"
    );
    assert!(!server.log().contains("history lost"), "{}", server.log());
}

#[test]
fn client_resumes_after_a_crash_and_misses_nothing() {
    let mut server = Server::start();
    let subscribe = |client: &mut Client, since: &str| -> Value {
        let clause = json!({"field": "/uri", "operator": "one_of", "value": [PAGE]});
        let filter = json!({"match_policy": "include_any", "actions": {}, "clauses": [clause]});
        let message = json!({"type": "filter", "id": 1, "filter": filter, "since": since});
        client.send(&message.to_string());
        client.json()
    };
    let mut client = server.anonymous();
    let first = subscribe(&mut client, "now");
    for id in ["a", "b"] {
        assert_eq!(server.publish(&create(id, "")).0, 202);
    }
    server.restart();
    let mut client = server.anonymous();
    let reply = subscribe(&mut client, first["cursor"].as_str().unwrap());
    assert_eq!(reply["recovered"], true, "{reply}");
    for id in ["a", "b"] {
        assert_eq!(client.json()["payload"][0]["id"], id);
    }
}

#[test]
fn full_disk_rejects_events_with_507_until_there_is_room() {
    let folder = tempfile::TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    let mut command = Command::new("sh");
    // The signal would end the process.
    command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#, PROGRAM]);
    let mut server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    assert_eq!(server.publish(&create("a", "")).0, 202);
    let pid = Some(Pid::from_child(&server.child));
    let limit = Rlimit {
        current: Some(400_000),
        ..getrlimit(Resource::Fsize)
    };
    let before = prlimit(pid, Resource::Fsize, limit).unwrap();
    let large = create("b", &"x".repeat(1_000_000));
    let (status, answer) = server.publish(&large);
    assert_eq!(
        (status, &answer["error"]),
        (507, &json!("storage_full")),
        "{answer}"
    );
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        reason.contains("history.db") && reason.contains("ulimit -f"),
        "{reason}"
    );
    server.log_with("history unavailable: ");
    assert_eq!(server.publish(&create("c", "")).0, 202);
    server.log_with("history available again: ");
    prlimit(pid, Resource::Fsize, before).unwrap();
    assert_eq!(server.publish(&large).0, 202);
    assert_eq!(server.readiness(), 200);
    server.restart();
    assert_eq!(stored(&server), ["a", "c", "b"]);
}

#[test]
fn servers_on_one_data_directory_deliver_the_events_of_both_in_order() {
    let one = Server::configured("reuse_port = true");
    let other = one.beside(Command::new(PROGRAM), &["--listen", "ws://127.0.0.1:0"]);
    let mut clients = [one.anonymous(), other.anonymous()];
    for client in &mut clients {
        client.subscribe("/uri", PAGE);
    }
    for (at, server) in [&one, &one, &other, &one, &other, &other]
        .into_iter()
        .enumerate()
    {
        assert_eq!(server.publish(&create(&at.to_string(), "")).0, 202);
    }
    for client in &mut clients {
        let ids: Vec<Value> = (0..6)
            .map(|_| client.json()["payload"][0]["id"].clone())
            .collect();
        assert_eq!(ids, ["0", "1", "2", "3", "4", "5"]);
        assert!(client.is_quiet(Duration::from_millis(500)));
    }
}

#[test]
fn muting_an_author_retracts_the_annotation_and_unmuting_sends_it_again() {
    let server = Server::start();
    server.user(JOE);
    let mut client = server.anonymous();
    client.subscribe("/uri", PAGE);
    server.publish(&create("a", ""));
    let action = |client: &mut Client| {
        let message = client.json();
        assert_eq!(message["payload"][0]["id"], "a", "{message}");
        message["options"]["action"].clone()
    };
    assert_eq!(action(&mut client), "create");
    server.run(&["user", "mute", JOE]);
    assert_eq!(action(&mut client), "delete");
    server.run(&["user", "unmute", JOE]);
    assert_eq!(action(&mut client), "create");
}

#[test]
fn damaged_history_is_reported_and_replaced_while_the_server_runs() {
    let server = Server::start();
    server.publish(&create("a", ""));
    fs::remove_file(server.data().join("history.db")).unwrap();
    let (status, _) = server.publish(&create("b", ""));
    assert_eq!(status, 202);
    server.log_with("history.db: the file was replaced or removed; reopening the history");
    eventually(PATIENCE, || (stored(&server) == ["b"]).then_some(()));
}

#[test]
fn history_of_a_later_version_stops_the_start_with_its_name() {
    let mut server = Server::start();
    let _ = server.child.kill();
    server.wait();
    let path = server.data().join("history.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let output = Command::new(PROGRAM)
        .args([
            "serve",
            "--listen",
            "ws://127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(server.data())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    let expected = format!("{}: the history has schema version 99", path.display());
    assert!(printed.contains(&expected), "{printed}");
}

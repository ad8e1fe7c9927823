//! The file of remembered clients: its permissions, damage, and servers that share a directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, Server, eventually};

fn client_log(server: &Server) -> PathBuf {
    server.data().join("clients")
}

/// Returns the log of an ended server, which has the header only.
fn header(path: &Path) -> Vec<u8> {
    let log = fs::read(path).unwrap();
    assert_eq!((&log[..8], log.len()), (&b"hrt-clnt"[..], 64));
    log
}

fn stop(server: &mut Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait().1, Some(0));
}

#[test]
fn log_of_clients_is_private_and_keeps_its_key() {
    let mut server = Server::start();
    let path = client_log(&server);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stop(&mut server);
    let before = header(&path);
    let mut server = server.successor();
    stop(&mut server);
    assert_eq!(header(&path), before);
    assert!(!server.log().contains("log of clients"), "{}", server.log());
}

#[test]
fn damaged_log_of_clients_is_repaired_at_the_start() {
    let mut server = Server::start();
    let path = client_log(&server);
    stop(&mut server);
    let before = header(&path);
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(&[1; 30]).unwrap();
    let mut server = server.successor();
    stop(&mut server);
    let named = path.display();
    let line = format!("{named}: discarded the end of the log of clients: invalid from byte 64");
    assert!(server.log().contains(&line), "{}", server.log());
    assert_eq!(header(&path), before);

    fs::write(&path, "something else").unwrap();
    let mut server = server.successor();
    stop(&mut server);
    let line = format!("{named}: discarded the log of clients: the header is invalid");
    assert!(server.log().contains(&line), "{}", server.log());
    assert_ne!(header(&path), before, "a new key");
}

#[test]
fn server_without_a_writable_log_of_clients_starts_with_a_warning() {
    let mut server = Server::start();
    let path = client_log(&server);
    stop(&mut server);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let mut server = server.successor();
    server.wait_until_ready();
    let line = format!(
        "{}: not a regular file; remembering clients in memory only",
        path.display()
    );
    let log = server.log_with(&line);
    assert_eq!(log.matches("remembering clients").count(), 1, "{log}");
    stop(&mut server);
    assert!(path.is_dir());
}

#[test]
fn log_of_clients_is_not_created_if_no_clients_are_remembered() {
    for config in ["[history]\nclients = 0", "[history]\nmemory = \"0\""] {
        let server = Server::configured(config);
        assert!(!client_log(&server).exists());
        assert!(server.data().join("publish.key").exists());
    }
}

#[test]
fn servers_that_share_the_directory_have_a_log_of_clients_each() {
    let config = "reuse_port = true\n[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let mut first = Server::configured(config);
    let mut second = first.successor();
    let paths = [client_log(&first), first.data().join("clients-2")];
    assert!(paths.iter().all(|path| path.exists()));
    stop(&mut first);
    // The free file is taken first; that of the running server stays.
    let mut third = second.successor();
    assert!(paths.iter().all(|path| path.exists()));
    stop(&mut second);
    stop(&mut third);
    let logs = paths.each_ref().map(|path| header(path));
    assert_eq!(logs[0], logs[1], "they use one key");
    // The file of an ended server is removed.
    let _last = third.successor();
    eventually(PATIENCE, || (!paths[1].exists()).then_some(()));
    assert!(paths[0].exists());
}

#[cfg(feature = "h")]
#[test]
fn h_backend_keeps_the_log_of_clients_if_the_directory_can_be_created() {
    use std::process::Command;

    use tempfile::TempDir;

    use crate::support::PROGRAM;

    let config = "backend = \"h\"\nh.database_url = \"postgresql://127.0.0.1:1/h\"\n\
                  amqp.url = \"amqp://127.0.0.1:1//\"";
    let listen = ["--listen", "ws://127.0.0.1:0"];
    let mut server = Server::with(&listen, config);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.data()), 0o700);
    assert_eq!(mode(&client_log(&server)), 0o600);
    let entries = fs::read_dir(server.data()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["admin.address", "clients", "publish.key"]);
    // Another server may use the same directory.
    let mut second = server.beside(Command::new(PROGRAM), &listen);
    assert!(server.data().join("clients-2").exists());
    stop(&mut second);
    stop(&mut server);

    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), config).unwrap();
    fs::write(folder.path().join("data"), "a file").unwrap();
    let mut server = Server::launch(Command::new(PROGRAM), folder, &listen);
    let log = server.log_with("is not a directory; remembering clients in memory only");
    assert_eq!(log.matches("remembering clients").count(), 1, "{log}");
    stop(&mut server);
}

/// Connects a client as the official one does: with its client id and a filter.
fn client_on(server: &Server) -> Client {
    let mut client = server.anonymous();
    client.send(r#"{"messageType": "client_id", "value": "0123456789abcdef0123456789abcdef"}"#);
    let clause = json!({"field": "/uri", "operator": "one_of", "value": ["https://example.org/"]});
    let filter = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
    client.send(&json!({ "filter": filter }).to_string());
    client
}

fn publish(server: &Server, id: &str) {
    let annotation = json!({"id": id, "user": "acct:a@example.org", "uri": "https://example.org/",
                            "permissions": {"read": ["group:__world__"]}});
    let event = json!({"topic": "annotation", "action": "create", "annotation": annotation});
    let (status, reply) = server.publish(&event.to_string());
    assert_eq!(status, 202, "{reply}");
}

/// Returns the id of the annotation in the next notification.
fn next_id(client: &mut Client) -> Value {
    client.json()["payload"][0]["id"].clone()
}

#[test]
fn client_gets_events_missed_during_a_restart_or_a_crash() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut server = Server::configured("[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"");
        let mut client = client_on(&server);
        assert_eq!(client.drain(), []);
        publish(&server, "before");
        assert_eq!(next_id(&mut client), "before");
        // The record of the client is in the file.
        let length = || fs::metadata(client_log(&server)).unwrap().len();
        eventually(PATIENCE, || (length() > 64).then_some(()));
        server.signal(signal);
        server.wait();
        drop(client);
        let server = server.successor();
        server.wait_until_ready();
        publish(&server, "missed");
        let mut client = client_on(&server);
        // Events shortly before the end are sent again, since they may not have arrived.
        while next_id(&mut client) != "missed" {}
        publish(&server, "live");
        assert_eq!(next_id(&mut client), "live");
    }
}

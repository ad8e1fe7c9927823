//! `listen --sse` with this server: positions across restarts, and the ends of streams.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PROGRAM, Program, Server, event};

const ME: &str = "acct:me@example.org";

fn listen(server: &Server, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    let fixed = [
        "listen",
        &server.listeners[0],
        "--sse",
        "--group",
        "__world__",
    ];
    Program::start(command.args(fixed).args(args))
}

fn publish(server: &Server, id: &str) {
    let event = event("create", json!({ "id": id }));
    assert_eq!(server.publish(&event.to_string()).0, 202);
}

fn next_id(listener: &Program) -> String {
    let line = listener.line().expect("an event");
    let event: Value = serde_json::from_str(&line).unwrap();
    event["payload"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn events_of_an_interruption_are_printed_once_after_a_restart() {
    let mut server = Server::configured("[timeouts]\ndrain = \"100ms\"");
    let listener = listen(&server, &[]);
    listener.wait_for_error_line("connected, anonymous");
    publish(&server, "A");
    assert_eq!(next_id(&listener), "A");
    server.restart();
    publish(&server, "B");
    publish(&server, "C");
    assert_eq!([next_id(&listener), next_id(&listener)], ["B", "C"]);
    listener.wait_for_error_line("connected, anonymous");
    publish(&server, "D");
    assert_eq!(next_id(&listener), "D");
}

#[test]
fn state_file_is_shared_with_the_websocket() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state");
    let state = ["--state", path.to_str().unwrap(), "--count", "1"];
    let server = Server::start();
    let mut listener = listen(&server, &state);
    listener.wait_for_error_line("connected");
    publish(&server, "A");
    assert_eq!(next_id(&listener), "A");
    assert_eq!(listener.wait(), Some(0));
    publish(&server, "B");
    let mut command = Command::new(PROGRAM);
    command.args(["listen", &server.listeners[0], "--group", "__world__"]);
    let mut listener = Program::start(command.args(state));
    assert_eq!(next_id(&listener), "B");
    assert_eq!(listener.wait(), Some(0));
    publish(&server, "C");
    let mut listener = listen(&server, &state);
    let line = listener.line().expect("an event");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["payload"][0]["id"], "C");
    assert!(event["cursor"].is_string(), "{line}");
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn ends_and_rejections_have_the_exit_codes_of_the_websocket() {
    let mut server = Server::configured("[timeouts]\ndrain = \"100ms\"");
    let token = server.user(ME);
    let mut listener = listen(&server, &["--token", "hrt-wrong"]);
    listener.wait_for_error_line("responded with 401");
    assert_eq!(listener.wait(), Some(77));

    let mut listener = listen(&server, &["--since", "neither"]);
    listener.wait_for_error_line("the server rejected the cursor neither: The value must be");
    assert_eq!(listener.wait(), Some(76));

    let mut listener = listen(&server, &["--wildcard-uri", "https://*.example/"]);
    listener.wait_for_error_line("responded with 400 invalid value of /wildcard_uri");
    assert_eq!(listener.wait(), Some(64));

    let mut listener = listen(&server, &["--token", &token]);
    listener.wait_for_error_line("connected with a token");
    server.run(&["token", "revoke", "1"]);
    listener.wait_for_error_line("closed by the server: 3000 token revoked");
    assert_eq!(listener.wait(), Some(77));

    let mut listener = listen(&server, &["--no-reconnect"]);
    listener.wait_for_error_line("connected, anonymous");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(listener.wait(), Some(0));
    server.wait();
}

//! `listen` with cursors: `--since`, `--state`, reconnects, gaps, and servers without cursors.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::Message;

use crate::support::{
    PATIENCE, PROGRAM, Program, Server, Subscribed, event as published_event, eventually,
    subscribed,
};

/// A folder with the path of a state file that does not exist yet.
fn state_file() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state");
    (folder, path)
}

/// Returns the stored cursor, or an empty string.
fn stored(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    value["cursor"].as_str().unwrap_or_default().to_owned()
}

fn wait_for_stored(path: &Path, cursor: &str) {
    eventually(PATIENCE, || (stored(path) == cursor).then_some(()));
}

fn listen(url: &str, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    Program::start(command.args(["listen", url, "--group", "g"]).args(args))
}

fn listen_with(url: &str, state: &Path) -> Program {
    listen(url, &["--state", state.to_str().unwrap()])
}

fn event(cursor: &str) -> Value {
    json!({"type": "annotation-notification", "options": {"action": "delete"},
        "payload": [{"id": "A"}], "cursor": cursor})
}

fn signal(listener: &Program, signal: Signal) {
    kill_process(Pid::from_child(&listener.child), signal).unwrap();
}

#[test]
fn state_file_continues_at_the_last_printed_event() {
    let (_folder, state) = state_file();
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![
        |socket| {
            socket.accept("c0");
            socket.say(&event("c1"));
            socket.say(&event("c2"));
        },
        |socket| socket.accept("head"),
    ]);
    let mut listener = listen_with(&url, &state);
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "now");
    for cursor in ["c1", "c2"] {
        let line: Value = serde_json::from_str(&listener.line().unwrap()).unwrap();
        assert_eq!(line, event(cursor));
    }
    signal(&listener, Signal::TERM);
    assert_eq!(listener.wait(), Some(0));
    assert_eq!(stored(&state), "c2");

    let mut listener = listen_with(&url, &state);
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "c2");
    listener.wait_for_error_line("connected, anonymous");
    signal(&listener, Signal::INT);
    assert_eq!(listener.wait(), Some(130));
    // The events up to the cursor of the reply had not arrived.
    assert_eq!(stored(&state), "c2");
}

#[test]
fn first_cursor_and_marks_are_stored_without_any_event() {
    let (_folder, state) = state_file();
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![|socket| {
        socket.accept("c0");
    }]);
    let _listener = listen_with(&url, &state);
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "now");
    wait_for_stored(&state, "c0");

    let (_folder, state) = state_file();
    let (url, _) = subscribed::<fn(&mut Subscribed)>(vec![|socket| {
        socket.accept("c0");
        socket.say(&json!({"type": "cursor", "cursor": "c9"}));
    }]);
    let listener = listen_with(&url, &state);
    wait_for_stored(&state, "c9");
    signal(&listener, Signal::TERM);
    assert_eq!(listener.line(), None, "marks are not printed");
}

#[test]
fn killed_command_repeats_events_and_loses_none() {
    let (_folder, state) = state_file();
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![
        |socket| {
            socket.accept("0");
            for number in 1..=5000 {
                let message = Message::text(event(&number.to_string()).to_string());
                if socket.0.send(message).is_err() {
                    return;
                }
            }
        },
        |socket| socket.accept("head"),
    ]);
    let mut listener = listen_with(&url, &state);
    since.recv_timeout(PATIENCE).unwrap();
    for _ in 0..250 {
        listener.line().unwrap();
    }
    listener.child.kill().unwrap();
    let printed = 250 + std::iter::from_fn(|| listener.line()).count();
    let _listener = listen_with(&url, &state);
    let resumed = since.recv_timeout(PATIENCE).unwrap();
    let resumed: usize = resumed.as_str().unwrap().parse().unwrap();
    // The process may have been killed between a write and the storage of its cursor, which is due
    // once in 100 events.
    assert!(resumed <= printed, "{resumed} > {printed}");
    assert!(resumed + 100 >= printed, "{resumed} < {printed}");
}

#[test]
fn reconnect_resumes_at_the_newest_cursor() {
    for (args, first) in [
        (&["--since", "-c0"][..], "-c0"),
        (&["--since", "now"], "now"),
    ] {
        let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![
            Subscribed::restart,
            |socket| {
                socket.accept("c0");
                socket.say(&event("c1"));
                socket.restart();
            },
            |socket| {
                socket.accept("c2");
                socket.say(&json!({"type": "cursor", "cursor": "c2"}));
                socket.restart();
            },
            |socket| socket.accept("c2"),
        ]);
        let _listener = listen(&url, args);
        // The first connection ends before the server has replied.
        for expected in [first, first, "c1", "c2"] {
            assert_eq!(since.recv_timeout(PATIENCE).unwrap(), expected);
        }
    }
}

#[test]
fn gap_is_reported_and_the_command_continues_from_now() {
    let (_folder, state) = state_file();
    fs::write(&state, r#"{"h_realtime_listen": 1, "cursor": "c1"}"#).unwrap();
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![|socket| {
        socket.accept_with_gap("c90", "c50");
        while !socket.0.read().unwrap().is_close() {}
        let _ = socket.0.flush();
    }]);
    let mut listener = listen_with(&url, &state);
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "c1");
    let line = listener.wait_for_error_line("gap: ");
    assert!(
        line.contains("after c1 (the oldest possible cursor is c50)"),
        "{line}"
    );
    listener.wait_for_error_line("connected, anonymous");
    wait_for_stored(&state, "c90");
    signal(&listener, Signal::TERM);
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn gap_of_a_remembered_client_id_is_reported() {
    let (url, _) = subscribed::<fn(&mut Subscribed)>(vec![|socket| {
        socket.say(&json!({"type": "recovery", "recovered": false, "oldest": "c50"}));
        socket.identify();
    }]);
    let listener = listen(&url, &[]);
    let line = listener.wait_for_error_line("gap: ");
    assert!(
        line.contains("since the last connection (the oldest possible cursor is c50)"),
        "{line}"
    );
}

#[test]
fn rejected_cursor_ends_the_command_with_the_remedy() {
    let (_folder, state) = state_file();
    fs::write(&state, r#"{"h_realtime_listen": 1, "cursor": "c1"}"#).unwrap();
    let refuse: fn(&mut Subscribed) = |socket| {
        let error = json!({"type": "invalid_cursor", "description": "the cursor is in the future"});
        socket.say(&json!({"type": "error", "error": error, "ok": false, "reply_to": 1}));
    };
    let (url, _) = subscribed(vec![refuse]);
    let mut listener = listen_with(&url, &state);
    let line = listener.wait_for_error_line("rejected the cursor c1: the cursor is in the future");
    assert!(
        line.contains(&format!("remove {}", state.display())),
        "{line}"
    );
    assert_eq!(listener.wait(), Some(76));
    assert_eq!(stored(&state), "c1");

    let (url, _) = subscribed(vec![refuse]);
    let mut listener = listen(&url, &["--since", "yesterday"]);
    let line = listener.wait_for_error_line("rejected the cursor yesterday");
    assert!(line.contains("use --since with now, a time"), "{line}");
    assert_eq!(listener.wait(), Some(76));
}

#[test]
fn server_without_cursors_is_reported_and_used() {
    let (_folder, state) = state_file();
    fs::write(&state, r#"{"h_realtime_listen": 1, "cursor": "c1"}"#).unwrap();
    let plain = json!({"type": "annotation-notification", "options": {"action": "delete"},
        "payload": [{"id": "A"}]});
    let message = plain.clone();
    let (url, _) = subscribed(vec![move |socket: &mut Subscribed| {
        socket.identify();
        socket.say(&message);
    }]);
    let mut listener = listen_with(&url, &state);
    assert_eq!(listener.line().unwrap(), plain.to_string());
    listener.wait_for_error_line("the server does not support cursors");
    signal(&listener, Signal::TERM);
    assert_eq!(listener.wait(), Some(0));
    assert_eq!(stored(&state), "c1");
}

#[test]
fn cursor_of_an_event_that_was_not_written_is_not_stored() {
    let (_folder, state) = state_file();
    let (proceed, next) = channel::<()>();
    let (url, _) = subscribed(vec![move |socket: &mut Subscribed| {
        socket.accept("c0");
        socket.say(&event("c1"));
        next.recv_timeout(PATIENCE).unwrap();
        // The client may have closed the connection already.
        let _ = socket.0.send(Message::text(event("c2").to_string()));
    }]);
    let mut child = Command::new(PROGRAM)
        .args(["listen", &url, "--group", "g", "--state"])
        .arg(&state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), event("c1").to_string());
    drop(lines);
    let _ = proceed.send(());
    let status = eventually(PATIENCE, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(stored(&state), "c1");
}

#[test]
fn state_file_in_use_is_refused() {
    let (_folder, state) = state_file();
    let (url, _) = subscribed::<fn(&mut Subscribed)>(vec![|socket| socket.accept("c0")]);
    let first = listen_with(&url, &state);
    first.wait_for_error_line("connected, anonymous");
    let mut second = listen_with(&url, &state);
    let line = second.wait_for_error_line("another process uses this state file");
    assert!(line.contains(state.to_str().unwrap()), "{line}");
    assert_eq!(second.wait(), Some(69));
}

#[test]
fn unwritable_state_file_ends_the_command() {
    let (folder, state) = state_file();
    let (proceed, next) = channel::<()>();
    let (url, _) = subscribed(vec![move |socket: &mut Subscribed| {
        socket.accept("c0");
        next.recv_timeout(PATIENCE).unwrap();
        socket.say(&event("c1"));
    }]);
    let mut listener = listen_with(&url, &state);
    wait_for_stored(&state, "c0");
    drop(folder);
    proceed.send(()).unwrap();
    let line = listener.wait_for_error_line("cannot store the cursor");
    assert!(line.contains(state.to_str().unwrap()), "{line}");
    assert_eq!(listener.wait(), Some(74));
    assert_eq!(listener.line().unwrap(), event("c1").to_string());
}

/// Publishes a public annotation with a number as its id, in the group that `listen_to` names.
fn publish(server: &Server, number: usize) {
    let event = published_event("create", json!({"id": number.to_string()}));
    let (status, answer) = server.publish(&event.to_string());
    assert_eq!(status, 202, "{answer}");
}

fn listen_to(server: &Server, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    let url = &server.listeners[0];
    Program::start(
        command
            .args(["listen", url, "--group", "__world__"])
            .args(args),
    )
}

/// Returns the number of the annotation in a printed event.
fn number(line: &str) -> usize {
    let event: Value = serde_json::from_str(line).unwrap();
    event["payload"][0]["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn kills_of_command_and_server_lose_no_event() {
    let (_folder, state) = state_file();
    let args = ["--state", state.to_str().unwrap()];
    let mut server = Server::start();
    let mut listener = listen_to(&server, &args);
    listener.wait_for_error_line("connected, anonymous");
    eventually(PATIENCE, || (!stored(&state).is_empty()).then_some(()));
    let (mut printed, mut published) = (BTreeSet::new(), 0);
    for round in 0..6 {
        for _ in 0..20 {
            publish(&server, published);
            published += 1;
        }
        match round % 3 {
            0 => {
                // Killed in the midst of the events.
                printed.extend(listener.line().map(|line| number(&line)));
                listener.child.kill().unwrap();
                printed.extend(std::iter::from_fn(|| listener.line()).map(|line| number(&line)));
                publish(&server, published);
                published += 1;
                listener = listen_to(&server, &args);
            }
            1 => server.restart(),
            _ => {
                listener.child.kill().unwrap();
                printed.extend(std::iter::from_fn(|| listener.line()).map(|line| number(&line)));
                server.restart();
                listener = listen_to(&server, &args);
            }
        }
    }
    // Missing events would precede the last one.
    publish(&server, published);
    let last = published;
    while !printed.contains(&last) {
        printed.insert(number(&listener.line().expect("an event")));
    }
    let all: BTreeSet<usize> = (0..=last).collect();
    assert_eq!(printed, all);
    signal(&listener, Signal::TERM);
    while let Some(line) = listener.error_line() {
        assert!(!line.contains("gap"), "{line}");
    }
}

#[test]
fn time_selects_the_events_since() {
    let server = Server::start();
    publish(&server, 1);
    // Events have times in milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(10));
    let time = jiff::Timestamp::now().to_string();
    publish(&server, 2);
    let listener = listen_to(&server, &["--since", &time, "--count", "1"]);
    assert_eq!(number(&listener.line().unwrap()), 2);
}

#[test]
fn cursor_of_another_history_is_a_gap() {
    let (_folder, state) = state_file();
    let args = ["--state", state.to_str().unwrap()];
    let first = Server::start();
    let mut listener = listen_to(&first, &args);
    eventually(PATIENCE, || (!stored(&state).is_empty()).then_some(()));
    signal(&listener, Signal::TERM);
    assert_eq!(listener.wait(), Some(0));
    let old = stored(&state);
    let second = Server::start();
    let listener = listen_to(&second, &args);
    let line = listener.wait_for_error_line("gap: ");
    assert!(line.contains(&format!("after {old}")), "{line}");
    listener.wait_for_error_line("connected, anonymous");
    publish(&second, 1);
    assert_eq!(number(&listener.line().unwrap()), 1);
}

#[test]
fn text_that_is_neither_cursor_nor_time_is_rejected() {
    let server = Server::start();
    let mut listener = listen_to(&server, &["--since", "yesterday"]);
    listener.wait_for_error_line("rejected the cursor yesterday");
    assert_eq!(listener.wait(), Some(76));
}

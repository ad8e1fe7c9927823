//! The clients in `examples`, started as documented: each receives the events of its document, and
//! reconnects after a restart of the server. With cursors, it resumes and reports a gap.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{
    Browser, PATIENCE, Program, Server, Subscribed, event, interpreter, serve_page, subscribed,
};

const DOCUMENT: &str = "https://example.org/page";

#[test]
fn rust_example() {
    check_example(rust_client());
}

#[test]
fn rust_example_resumes_and_reports_a_gap() {
    check_resuming(rust_client());
}

#[test]
fn rust_example_follows_a_pattern_and_reports_ignored_clauses() {
    check_pattern(&rust_client);
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn python_example_follows_a_pattern_and_reports_ignored_clauses() {
    check_pattern(&python_client);
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn python_example() {
    check_example(python_client());
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn python_example_resumes_and_reports_a_gap() {
    check_resuming(python_client());
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn browser_example() {
    let mut server = Server::start();
    let token = server.user("acct:alice@example.org");
    let site = serve_page(include_str!("../../examples/client.html"));
    let browser = Browser::start();
    browser.open(&format!("http://{site}/"));
    browser.fill("[name=url]", &server.listeners[0]);
    browser.fill("[name=document]", DOCUMENT);
    browser.fill("[name=token]", &token);
    browser.click("button");
    let connected = "document.querySelector('[role=status]').textContent === \
                     'Connected as acct:alice@example.org.'";
    browser.until(connected);
    server.publish(&event("create", json!({"text": "<b>Hello</b>"})).to_string());
    browser.until("document.querySelector('li')");
    assert_eq!(
        browser.text("li"),
        "create AAAAAREREeaAAAAAAAAAAQ <b>Hello</b>"
    );
    browser.screenshot("client-example");

    server.restart();
    // Before the page has reconnected.
    server.publish(&event("delete", json!({})).to_string());
    browser.until("document.querySelector('[role=status]').textContent.startsWith('Disconnected')");
    browser.until(connected);
    browser.until("document.querySelector('li + li')");
    assert_eq!(
        browser.text("li + li").trim(),
        "delete AAAAAREREeaAAAAAAAAAAQ"
    );

    server.run(&["user", "delete", "acct:alice@example.org"]);
    browser.until(
        "document.querySelector('[role=status]').textContent === \
         'The token has ended: get another one.'",
    );
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn browser_example_resumes_and_reports_a_gap() {
    let (url, since) = subscribed(scripts());
    let site = serve_page(include_str!("../../examples/client.html"));
    let browser = Browser::start();
    browser.open(&format!("http://{site}/"));
    browser.fill("[name=url]", &url);
    browser.click("button");
    for expected in CURSORS {
        assert_eq!(since.recv_timeout(PATIENCE).unwrap(), expected);
    }
    assert_eq!(browser.text("li"), "create A Hello");
    assert_eq!(browser.text("li + li"), "gap some events are missing");
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn browser_example_receives_server_sent_events() {
    let mut server = Server::start();
    let site = serve_page(include_str!("../../examples/client.html"));
    let browser = Browser::start();
    browser.open(&format!("http://{site}/"));
    browser.fill("[name=url]", &server.listeners[0]);
    browser.fill("[name=document]", "https://example.org/*");
    browser.click("[name=sse]");
    browser.click("button");
    browser.until("document.querySelector('[role=status]').textContent === 'Connected.'");
    server.publish(&event("create", json!({"text": "<b>Hello</b>"})).to_string());
    browser.until("document.querySelector('li')");
    assert_eq!(
        browser.text("li"),
        "create AAAAAREREeaAAAAAAAAAAQ <b>Hello</b>"
    );
    server.restart();
    // Before the browser has reconnected.
    server.publish(&event("delete", json!({})).to_string());
    browser.until("document.querySelector('li + li')");
    let deleted = browser.text("li + li");
    assert_eq!(deleted.trim(), "delete AAAAAREREeaAAAAAAAAAAQ");

    browser.fill("[name=token]", "hrt-unknown");
    browser.click("button");
    browser.until(
        "document.querySelector('[role=status]').textContent === \
         'The server does not accept the request.'",
    );
}

/// The position in each filter of a client that is served by `scripts`.
const CURSORS: [&str; 3] = ["now", "c1", "c9"];

/// A server that sends an event, restarts, does not have the events after its cursor anymore, and
/// restarts again.
fn scripts() -> Vec<fn(&mut Subscribed)> {
    vec![
        |client| {
            client.accept("c0");
            let payload = json!([{"id": "A", "text": "Hello"}]);
            client.say(
                &json!({"type": "annotation-notification", "options": {"action": "create"},
                "payload": payload, "cursor": "c1"}),
            );
            client.restart();
        },
        |client| {
            client.accept_with_gap("c8", "c5");
            client.say(&json!({"type": "cursor", "cursor": "c9"}));
            client.restart();
        },
        |client| client.accept("c9"),
    ]
}

fn check_resuming(mut command: Command) {
    let (url, since) = subscribed(scripts());
    let client = Program::start(command.args([&url, DOCUMENT]));
    for expected in CURSORS {
        assert_eq!(since.recv_timeout(PATIENCE).unwrap(), expected);
    }
    for line in [
        "connected as null",
        "create \"A\" \"Hello\"",
        "gap \"c5\"",
        "connected as null",
    ] {
        assert_eq!(client.line().as_deref(), Some(line));
    }
}

/// Runs a command with a pattern instead of a document.
fn check_pattern(client: &dyn Fn() -> Command) {
    let server = Server::start();
    let pattern = "https://example.org/*";
    let listener = Program::start(client().args([&server.listeners[0], pattern]));
    assert_eq!(listener.line().as_deref(), Some("connected as null"));
    server.publish(&event("create", json!({"uri": "https://other.example/page"})).to_string());
    server.publish(&event("create", json!({"id": "B", "text": "Hello"})).to_string());
    let created = "create \"B\" \"Hello\"";
    assert_eq!(listener.line().as_deref(), Some(created));

    let (url, _) = subscribed(vec![|socket: &mut Subscribed| {
        socket.say(
            &json!({"type": "filter", "ok": true, "reply_to": 1, "cursor": "c", "recovered": true,
            "ignored": [{"clause": 0, "field": "/wildcard_uri", "reason": "unknown field"}]}),
        );
    }]);
    let listener = Program::start(client().args([&url, pattern]));
    let ignored = "ignored \"/wildcard_uri\" \"unknown field\"";
    assert_eq!(listener.line().as_deref(), Some(ignored));
}

fn rust_client() -> Command {
    let program = examples().join("client");
    assert!(
        program.exists(),
        "this test needs {}: cargo test builds it, unless --test is given",
        program.display()
    );
    Command::new(program)
}

fn python_client() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(interpreter());
    command.arg(root.join("examples/client.py"));
    command
}

/// Runs a command with the server and the document as arguments, and the token in its environment.
fn check_example(mut command: Command) {
    let mut server = Server::start();
    let token = server.user("acct:alice@example.org");
    let command = command
        .args([&server.listeners[0], DOCUMENT])
        .env("H_REALTIME_TOKEN", token);
    let mut client = Program::start(command);
    let hello = "connected as \"acct:alice@example.org\"";
    assert_eq!(client.line().as_deref(), Some(hello));
    server.publish(&event("create", json!({"text": "Hello"})).to_string());
    server.publish(&event("create", json!({"uri": "https://example.org/other"})).to_string());
    server.publish(&event("delete", json!({})).to_string());
    let created = "create \"AAAAAREREeaAAAAAAAAAAQ\" \"Hello\"";
    assert_eq!(client.line().as_deref(), Some(created));
    let deleted = "delete \"AAAAAREREeaAAAAAAAAAAQ\" null";
    assert_eq!(client.line().as_deref(), Some(deleted));

    server.restart();
    // Before the client has reconnected.
    server.publish(&event("delete", json!({"id": "B"})).to_string());
    let mut lines = [client.line().unwrap(), client.line().unwrap()];
    lines.sort();
    assert_eq!(lines, [hello, "delete \"B\" null"]);

    server.run(&["user", "delete", "acct:alice@example.org"]);
    assert_eq!(client.line(), None);
    assert_eq!(client.wait(), Some(1));
}

/// Returns the directory of the examples, next to that of this test's binary.
fn examples() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("examples")
}

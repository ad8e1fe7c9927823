//! Event streams in a browser's `EventSource`, and in curl.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Browser, PATIENCE, Program, Server, event, eventually, serve_page};

const QUERY: &str = "uri=https://example.org/page";

fn publish(server: &Server, id: &str) -> Value {
    let (status, answer) = server.publish(&event("create", json!({"id": id})).to_string());
    assert_eq!(status, 202, "{answer}");
    answer["matched"].clone()
}

fn open_page() -> Browser {
    let site = serve_page(PAGE);
    let browser = Browser::start();
    browser.open(&format!("http://{site}/"));
    browser
}

fn open(browser: &Browser, server: &Server, query: &str) {
    let address = server.address();
    browser.run(&format!("open_source('http://{address}/sse?{query}')"));
}

/// Waits for the ids of the annotations that the page has been sent.
fn until_seen(browser: &Browser, ids: &[String]) {
    let count = ids.len();
    browser.until(&format!("seen.length >= {count}"));
    assert_eq!(browser.value("seen"), json!(ids));
}

/// A page of another site: the browser reconnects by itself, with the last id, after a shutdown and
/// after the server was killed.
#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn event_source_misses_no_event() {
    let mut server = Server::configured("[timeouts]\ndrain = \"0s\"\n");
    server.wait_until_ready();
    let browser = open_page();
    open(&browser, &server, QUERY);
    // The position is known before the first event.
    browser.until("opened === 1");
    eventually(PATIENCE, || {
        (server.metric("h_realtime_event_streams") == 1.0).then_some(())
    });
    let mut ids = Vec::new();
    for round in 0..4 {
        let id = format!("live {round}");
        assert_eq!(publish(&server, &id), 1);
        ids.push(id);
        until_seen(&browser, &ids);
        if round % 2 == 0 {
            server.signal(Signal::TERM);
            assert_eq!(server.wait().1, Some(0));
            server = server.successor();
        } else {
            server.restart();
        }
        server.wait_until_ready();
        let id = format!("missed {round}");
        publish(&server, &id);
        ids.push(id);
        until_seen(&browser, &ids);
        let opened = browser.value("opened");
        assert_eq!(opened, json!(round + 2));
    }
    let closes = browser.value("closes");
    assert_eq!(closes, json!([1012, 1012]));
    assert_eq!(browser.value("source.readyState"), 1);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn event_source_stops_when_its_token_has_ended() {
    let server = Server::start();
    let token = server.user("acct:me@example.org");
    let browser = open_page();
    open(&browser, &server, &format!("{QUERY}&access_token={token}"));
    browser.until("opened === 1");
    server.run(&["user", "delete", "acct:me@example.org"]);
    // It reconnects once, and is refused.
    browser.until("source.readyState === 2");
    assert_eq!(browser.value("closes"), json!([3000]));
    assert_eq!(browser.value("opened"), 1);
    let refused = r#"h_realtime_handshake_failures_total{reason="token"}"#;
    assert_eq!(server.metric(refused), 1.0);
}

/// A response other than 200 would end it.
#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn event_source_returns_to_a_server_that_was_full() {
    let server = Server::configured("[limits]\nconnections = 1\n");
    let client = server.anonymous();
    let browser = open_page();
    open(&browser, &server, QUERY);
    browser.until("opened === 1");
    drop(client);
    // After at most half a minute.
    let position = "source.readyState === 1 && opened > 1";
    eventually(3 * PATIENCE, || {
        (browser.value(position) == true).then_some(())
    });
    eventually(PATIENCE, || (publish(&server, "one") == 1).then_some(()));
    browser.until("seen.length >= 1");
}

#[test]
#[ignore = "needs curl"]
fn curl_receives_events_and_resumes() {
    let server = Server::start();
    let start = |more: &[&str]| {
        let mut command = Command::new("curl");
        let url = format!("http://{}/sse?{QUERY}", server.address());
        Program::start(
            command
                .args(["-sSN", "--max-time", "60"])
                .args(more)
                .arg(url),
        )
    };
    let next = |curl: &Program, start: &str| loop {
        let line = curl.line().expect("the response goes on");
        if let Some(rest) = line.strip_prefix(start) {
            return rest.to_owned();
        }
    };
    let curl = start(&[]);
    let position = next(&curl, "id: ");
    assert_eq!(publish(&server, "one"), 1);
    assert!(next(&curl, "data: ").contains("\"one\""));
    drop(curl);
    publish(&server, "two");
    let mut resumed = start(&["-H", &format!("Last-Event-ID: {position}")]);
    for id in ["\"one\"", "\"two\""] {
        assert!(next(&resumed, "data: ").contains(id));
    }
    server.signal(Signal::TERM);
    assert_eq!(next(&resumed, "event: "), "close");
    assert_eq!(resumed.wait(), Some(0));
}

const PAGE: &str = "<!doctype html><title>A dashboard</title><link rel=icon href='data:,'>
<script>
let source, opened = 0, seen = [], closes = [];
function open_source(url) {
  source = new EventSource(url);
  source.onopen = () => { opened += 1; };
  source.onmessage = ({ data }) => seen.push(JSON.parse(data).payload[0].id);
  source.addEventListener('close', ({ data }) => closes.push(JSON.parse(data).code));
}
</script>";

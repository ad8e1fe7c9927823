//! `listen --sse` with scripted servers: its output, its position, rejections, and servers that send
//! endlessly.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::scripted_stream::{STREAM, event_streams, hang_up, say};
use crate::support::{PATIENCE, PROGRAM, Program, eventually};

const EVENT: &str =
    r#"{"type":"annotation-notification","options":{"action":"delete"},"payload":[{"id":"A"}]}"#;

type Script = fn(&mut TcpStream);

fn listen(url: &str, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    let fixed = ["listen", url, "--sse", "--group", "g"];
    Program::start(command.args(fixed).args(args))
}

fn event(cursor: &str) -> String {
    format!("id: {cursor}\ndata: {EVENT}\n\n")
}

fn stored(path: &std::path::Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    value["cursor"].as_str().unwrap_or_default().to_owned()
}

/// Returns the exit code and the last line of standard error of a run with one response.
fn ended(response: String, args: &[&str]) -> (Option<i32>, String) {
    let (url, _) = event_streams(vec![move |stream: &mut TcpStream| {
        say(stream, &response);
        hang_up(stream);
    }]);
    let mut listener = listen(&url, args);
    let code = listener.wait();
    let mut last = String::new();
    while let Some(line) = listener.error_line() {
        last = line;
    }
    (code, last)
}

#[test]
fn websocket_and_event_stream_have_the_same_output() {
    let change = r#"{"type":"session-change","action":"group-join","model":{}}"#;
    for (args, with_cursors) in [(&[][..], false), (&["--since", "now"], true)] {
        let script = move |stream: &mut TcpStream| {
            say(stream, STREAM);
            say(stream, "retry: 1000\nid: c0\n\n: a comment\n\n");
            say(stream, &event("c1"));
            say(stream, "event: news\ndata: x\n\n");
            say(
                stream,
                "id: c\"2\r\ndata: {\"type\":\"session-change\",\r\ndata: \"a\":1}\r\n\r\n",
            );
            say(stream, &format!("data: {change}\n\n"));
        };
        let (url, requests) = event_streams(vec![script]);
        let args = [args, &["--count", "3"]].concat();
        let mut listener = listen(&url, &args);
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert!(
            request.starts_with("GET /sse?group=g&match=any&client_id="),
            "{request}"
        );
        assert!(
            request.contains("\r\nAccept: text/event-stream\r\n"),
            "{request}"
        );
        let expected = match with_cursors {
            false => [
                EVENT.to_owned(),
                r#"{"type":"session-change", "a":1}"#.to_owned(),
                change.to_owned(),
            ],
            true => [
                EVENT.replace("}]}", "}],\"cursor\":\"c1\"}"),
                r#"{"type":"session-change", "a":1,"cursor":"c\"2"}"#.to_owned(),
                change.replace("{}}", r#"{},"cursor":"c\"2"}"#),
            ],
        };
        for line in expected {
            assert_eq!(listener.line(), Some(line));
        }
        assert_eq!(listener.wait(), Some(0));
        let errors: Vec<_> = std::iter::from_fn(|| listener.error_line()).collect();
        assert_eq!(
            errors,
            [
                "connected, anonymous",
                "ignored an unknown event of the type news"
            ]
        );
    }
}

#[test]
fn reconnect_continues_at_the_last_event_id_without_any_option() {
    let (url, requests) = event_streams::<Script>(vec![
        |stream| {
            say(stream, STREAM);
            say(stream, &format!("retry: 50\nid: c0\n\n{}", event("-c1")));
            hang_up(stream);
        },
        |stream| {
            say(stream, STREAM);
            say(stream, "id: -c1\n\nid: c2\n\n");
            // An incomplete event is discarded, with its id.
            say(stream, "id: c3\ndata: {}\n");
            hang_up(stream);
        },
        |stream| say(stream, STREAM),
    ]);
    let listener = listen(&url, &[]);
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(
        !request.contains("Last-Event-ID") && !request.contains("since="),
        "{request}"
    );
    assert_eq!(listener.line().as_deref(), Some(EVENT));
    let line = listener.wait_for_error_line("reconnecting in ");
    // The requested 50 ms are less than the first delay of the command.
    assert!(line.starts_with("reconnecting in 1.") || line.starts_with("reconnecting in 2.0"));
    assert!(
        line.ends_with("the server ended the event stream"),
        "{line}"
    );
    for cursor in ["-c1", "c2"] {
        let request = requests.recv_timeout(PATIENCE).unwrap();
        let field = format!("\r\nLast-Event-ID: {cursor}\r\n");
        assert!(request.contains(&field), "{request}");
    }
}

#[test]
fn requested_delay_is_respected_up_to_an_hour() {
    for (retry, least, most) in [("30000", 30.0, 40.0), ("99999999999999", 3600.0, 4501.0)] {
        let (url, _) = event_streams(vec![move |stream: &mut TcpStream| {
            say(stream, &format!("{STREAM}retry: {retry}\n\n"));
            hang_up(stream);
        }]);
        let listener = listen(&url, &[]);
        let line = listener.wait_for_error_line("reconnecting in ");
        let seconds = line.split(' ').nth(2).unwrap().parse::<f64>().unwrap();
        assert!((least..most).contains(&seconds), "{line}");
        assert!(line.ends_with("before its first event"), "{line}");
    }
}

#[test]
fn state_file_holds_the_first_position_marks_and_events() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state");
    let state = path.to_str().unwrap();
    let (url, requests) = event_streams::<Script>(vec![
        |stream| {
            say(stream, &format!("{STREAM}id: c0\n\n"));
            let mut byte = [0];
            let _ = stream.read(&mut byte);
        },
        |stream| say(stream, &format!("{STREAM}id: c0\n\n: mark\nid: c5\n\n")),
        |stream| say(stream, &format!("{STREAM}{}id: b\u{1}d\n\n", event("c6"))),
    ]);
    for (before, after) in [("", "c0"), ("c0", "c5"), ("c5", "c6")] {
        let mut listener = listen(&url, &["--state", state]);
        let request = requests.recv_timeout(PATIENCE).unwrap();
        let position = format!("\r\nLast-Event-ID: {before}\r\n");
        assert_eq!(request.contains(&position), !before.is_empty(), "{request}");
        eventually(PATIENCE, || (stored(&path) == after).then_some(()));
        kill_process(Pid::from_child(&listener.child), Signal::TERM).unwrap();
        assert_eq!(listener.wait(), Some(0));
        assert_eq!(stored(&path), after);
    }
}

#[test]
fn gap_is_reported_and_the_command_continues() {
    let (url, requests) = event_streams::<Script>(vec![|stream| {
        let gap = r#"{"type":"recovery","recovered":false,"oldest":"c7"}"#;
        say(
            stream,
            &format!(
                "{STREAM}id: c8\nevent: recovery\ndata: {gap}\n\n{}",
                event("c9")
            ),
        );
    }]);
    let mut listener = listen(&url, &["--since", "c1", "--count", "1"]);
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(request.contains("&since=c1 HTTP/1.1\r\n"), "{request}");
    let line = listener.wait_for_error_line("gap: ");
    assert!(
        line.contains("all events after c1 (the oldest possible cursor is c7)"),
        "{line}"
    );
    let line: Value = serde_json::from_str(&listener.line().unwrap()).unwrap();
    assert_eq!(line["cursor"], "c9");
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn rejections_lead_to_the_exit_codes_of_their_causes() {
    let rejection = |status: &str, error: &str| {
        let body = json!({"ok": false, "error": error, "reason": "the reason"});
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n{body}")
    };
    let found = "HTTP/1.1 302 Found\r\nLocation: http://other.example/sse\r\n\r\n";
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>";
    let closed = |code: u16| {
        format!("{STREAM}event: close\ndata: {{\"code\":{code},\"reason\":\"token expired\"}}\n\n")
    };
    for (response, code, part) in [
        (
            rejection("401 No", "invalid_token"),
            77,
            "responded with 401 the reason",
        ),
        (
            rejection("400 No", "bad_request"),
            64,
            "responded with 400 the reason",
        ),
        (
            rejection("400 No", "invalid_cursor"),
            76,
            "rejected the cursor c1: the reason; use --since with now",
        ),
        (
            rejection("404 No", "not_found"),
            69,
            "responded with 404 the reason",
        ),
        (found.to_owned(), 69, "302 see http://other.example/sse"),
        (
            html.to_owned(),
            69,
            "the response is text/html, not text/event-stream",
        ),
        (
            closed(3000),
            77,
            "closed by the server: 3000 token expired; the token is no longer valid",
        ),
    ] {
        let (found, line) = ended(response, &["--since", "c1"]);
        assert_eq!(found, Some(code), "{line}");
        assert!(line.contains(part), "{line}");
    }
    for (response, code) in [
        (closed(1012), 0),
        (closed(1013), 69),
        (STREAM.to_owned(), 69),
        (rejection("503 Busy", "unavailable"), 69),
    ] {
        let (found, line) = ended(response, &["--no-reconnect"]);
        assert_eq!(found, Some(code), "{line}");
    }
}

#[test]
fn temporary_rejections_are_retried() {
    let (url, _) = event_streams::<Script>(vec![
        |stream| {
            say(
                stream,
                "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
            );
        },
        |stream| say(stream, &format!("{STREAM}{}", event("c"))),
    ]);
    let mut listener = listen(&url, &["--count", "1"]);
    listener.wait_for_error_line("responded with 503");
    assert_eq!(listener.line().as_deref(), Some(EVENT));
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn chunks_of_a_proxy_are_decoded_and_their_end_is_that_of_the_stream() {
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                   Transfer-Encoding: chunked\r\n\r\n";
    let body = event("c1");
    let (head, tail) = body.split_at(20);
    let chunks = format!(
        "{:x}\r\n{head}\r\n{:x}\r\n{tail}\r\n",
        head.len(),
        tail.len()
    );
    let (url, _) = event_streams(vec![move |stream: &mut TcpStream| {
        for byte in format!("{chunked}{chunks}0\r\n\r\n").as_bytes() {
            let _ = stream.write_all(&[*byte]);
        }
    }]);
    let mut listener = listen(&url, &["--no-reconnect"]);
    assert_eq!(listener.line().as_deref(), Some(EVENT));
    listener.wait_for_error_line("the server ended the event stream");
    assert_eq!(listener.wait(), Some(69));

    let (code, line) = ended(format!("{chunked}5\r\ndata:nope"), &["--no-reconnect"]);
    assert_eq!(code, Some(69));
    assert!(
        line.contains("the server violated HTTP: malformed chunk"),
        "{line}"
    );
}

#[test]
fn events_arrive_over_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("h.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let mut stream = socket.accept().unwrap().0;
        let mut request = [0; 4096];
        let count = stream.read(&mut request).unwrap();
        stream
            .write_all(format!("{STREAM}{}", event("c")).as_bytes())
            .unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    let mut listener = listen(&format!("unix:{}", path.display()), &["--count", "1"]);
    assert_eq!(listener.line().as_deref(), Some(EVENT));
    assert_eq!(listener.wait(), Some(0));
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /sse?group=g&"), "{request}");
    assert!(request.contains("\r\nHost: localhost\r\n"), "{request}");
}

#[test]
fn missing_filter_and_filter_file_are_usage_errors() {
    for args in [&[][..], &["--filter", "f"]] {
        let mut command = Command::new(PROGRAM);
        command
            .args(["listen", "http://127.0.0.1:1/", "--sse"])
            .args(args);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
    }
}

/// The number of bytes of a flood: more than the memory that the command may use for it, and than
/// the buffers of the kernel.
const FLOOD: usize = 24 << 20;

/// Returns the peak resident size in KiB.
fn peak(child: &Child) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.unwrap().trim().trim_end_matches(" kB");
    size.parse().unwrap()
}

#[test]
fn signal_ends_the_command_during_floods_and_its_memory_is_bounded() {
    for (first, again) in [
        ("id: c\n\n:", "x".repeat(1000)),
        ("id: c\n\n", ":\n\n".repeat(1000)),
        ("id: c\n\n", "id: c\n\n".repeat(1000)),
        ("id: c\n\n", "event: x\n".repeat(1000)),
        ("id: c\n\n", format!("data: {}\n\n", "x".repeat(9000))),
        ("id: c\n\n", "x: y\n".repeat(1000)),
    ] {
        let flood = again.clone();
        let sent = Arc::new(AtomicUsize::new(0));
        let total = Arc::clone(&sent);
        let (url, _) = event_streams(vec![move |stream: &mut TcpStream| {
            say(stream, &format!("{STREAM}{first}"));
            while stream.write_all(flood.as_bytes()).is_ok() {
                total.fetch_add(flood.len(), Ordering::Relaxed);
            }
        }]);
        let mut listener = listen(&url, &[]);
        listener.wait_for_error_line("connected, anonymous");
        let before = peak(&listener.child);
        eventually(PATIENCE, || {
            (sent.load(Ordering::Relaxed) > FLOOD).then_some(())
        });
        let grown = peak(&listener.child) - before;
        assert!(grown < 8 * 1024, "{grown} KiB: {again:.20}");
        kill_process(Pid::from_child(&listener.child), Signal::TERM).unwrap();
        assert_eq!(listener.wait(), Some(0), "{again:.20}");
    }
}

#[test]
fn size_of_an_event_is_bounded() {
    for line in [format!("data: {}\n", "x".repeat(1000)), "x".repeat(1000)] {
        let (code, last) = ended(
            format!("{STREAM}{}", line.repeat(18_000)),
            &["--no-reconnect"],
        );
        assert_eq!(code, Some(69), "{last}");
        assert!(last.contains("an event of more than 16 MiB"), "{last}");
    }
}

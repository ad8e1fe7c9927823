//! Event streams through a proxy, received by curl: nothing is buffered, and the end is orderly.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Front, NAME, PAGE};
use crate::support::{Program, Server, event};

/// Starts curl with an event stream through the proxy.
fn curl(front: &Front, client: u8, more: &[&str]) -> Program {
    let port = front.port;
    let mut command = Command::new("curl");
    command
        .args([
            "-sSN",
            "--max-time",
            "60",
            "--cacert",
            &front.path("cert.pem"),
        ])
        .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
        .args(["-H", &format!("X-Forwarded-For: 203.0.113.{client}")])
        .args(more)
        .arg(format!("https://{NAME}:{port}/sse?uri={PAGE}"));
    Program::start(&mut command)
}

/// Returns the rest of the next line that starts with this.
fn next(curl: &Program, start: &str) -> String {
    loop {
        let line = curl.line().expect("the response goes on");
        if let Some(rest) = line.strip_prefix(start) {
            return rest.to_owned();
        }
    }
}

/// Checks events, resumption, a refusal, and the end. The server ends with it.
pub fn check(server: &Server, front: &Front) {
    let first = curl(front, 9, &[]);
    let position = next(&first, "id: ");
    let publish = |id: &str| {
        let (status, answer) = server.publish(&event("create", json!({"id": id})).to_string());
        assert_eq!(status, 202, "{answer}");
    };
    let next_id = |curl: &Program| {
        let data: Value = serde_json::from_str(&next(curl, "data: ")).unwrap();
        data["payload"][0]["id"].clone()
    };
    for id in ["one", "two"] {
        publish(id);
        assert_eq!(next_id(&first), id);
    }
    // The place of the client is taken.
    let mut refused = curl(front, 9, &[]);
    let retry: u64 = next(&refused, "retry: ").parse().unwrap();
    assert!(retry >= 5000, "{retry}");
    assert_eq!(refused.wait(), Some(0), "an orderly end");
    // Another client resumes by the header field.
    let header = format!("Last-Event-ID: {position}");
    let second = curl(front, 10, &["-H", &header]);
    for id in ["one", "two"] {
        assert_eq!(next_id(&second), id);
    }
    server.signal(Signal::TERM);
    for curl in [first, second] {
        let close: Value = serde_json::from_str(&next(&curl, "data: ")).unwrap();
        assert_eq!(close["code"], 1012);
        let mut curl = curl;
        assert_eq!(curl.wait(), Some(0), "an orderly end");
    }
}

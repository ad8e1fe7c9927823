//! The command `explain`, against a server process.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Server, event};

fn output(server: &Server, args: &[&str]) -> (i32, String) {
    let output = server.command(&[&["explain"], args].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "{args:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn answer_is_printed_and_determines_the_exit_code() {
    let server = Server::start();
    server.run(&["group", "add", "g"]);
    for name in ["joe", "ann"] {
        server.run(&["user", "add", &format!("acct:{name}@example.org")]);
    }
    server.run(&["group", "member", "add", "g", "acct:joe@example.org"]);
    let of_group = json!({"group": "g", "permissions": {"read": ["group:g"]}});
    let published = event("create", of_group);
    server.publish(&published.to_string());
    let id = published["annotation_id"].as_str().unwrap();
    let page = ["--uri", "https://example.org/page"];

    let joe = ["--user", "acct:joe@example.org", "--annotation", id];
    let (code, text) = output(&server, &[&joe[..], &page].concat());
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("notified: the user is a member of group g\n"),
        "{text}"
    );
    assert!(
        text.contains("a member of group g (yes): send ← decides"),
        "{text}"
    );

    let ann = ["--user", "acct:ann@example.org", "--annotation", id];
    let (code, text) = output(&server, &[&ann[..], &page].concat());
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("not notified: not permitted"), "{text}");

    // Files, and the answer of the server as it is.
    let (filter, file) = (
        server.folder().join("filter.json"),
        server.folder().join("event.json"),
    );
    let other = json!({"match_policy": "include_any", "actions": {},
        "clauses": [{"field": "/uri", "value": "https://example.org/other"}]});
    fs::write(&filter, other.to_string()).unwrap();
    fs::write(&file, published.to_string()).unwrap();
    let (filter, file) = (filter.display().to_string(), file.display().to_string());
    let args = ["--anonymous", "--filter", &filter, "--annotation", &file];
    let (code, text) = output(&server, &args);
    assert_eq!(code, 1);
    assert!(
        text.contains("normalized: httpx://example.org/other"),
        "{text}"
    );
    let (_, text) = output(&server, &[&args[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["reason"], "filter");
}

#[test]
fn open_connections_are_printed_with_their_events() {
    let server = Server::start();
    let (code, text) = output(&server, &["--client", "c"]);
    assert_eq!(code, 1);
    assert!(text.contains("no open connection"), "{text}");
    let mut client = server.anonymous();
    client.send(r#"{"type":"client_id","value":"c"}"#);
    client.subscribe("/uri", "https://example.org/page");
    server.publish(&event("create", json!({})).to_string());
    let (code, text) = output(&server, &["--client", "c"]);
    assert_eq!(code, 0);
    let line = "create AAAAAREREeaAAAAAAAAAAQ: readable (evaluated now)";
    assert!(text.contains(line), "{text}");
    server.publish(&event("update", json!({})).to_string());
    let (_, text) = output(&server, &["--client", "c"]);
    assert!(
        text.contains("update AAAAAREREeaAAAAAAAAAAQ: sent\n"),
        "{text}"
    );
}

//! `forward` to a receiver: requests, signatures, failures, restarts.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Hook, HookReply, HookRequest, PATIENCE, PROGRAM, Program, Server, Subscribed, event,
    eventually, free_port, http, subscribed,
};

/// Starts the command with short delays, and waits until its filter is in place.
pub(crate) fn forward(url: &str, hook: &str, folder: &Path, args: &[&str]) -> Program {
    let program = start(url, hook, folder, args);
    program.wait_for_error_line("connected");
    program
}

pub(crate) fn start(url: &str, hook: &str, folder: &Path, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    command
        .args([
            "forward",
            url,
            "--url",
            hook,
            "--group",
            "__world__",
            "--state",
        ])
        .arg(folder.join("state"))
        .args(["--retry-delay", "10ms", "--timeout", "500ms"])
        .args(args);
    Program::start(&mut command)
}

pub(crate) fn publish(server: &Server, action: &str, more: Value) {
    let (status, answer) = server.publish(&event(action, more).to_string());
    assert_eq!(status, 202, "{answer}");
}

fn signal(program: &Program, signal: Signal) {
    kill_process(Pid::from_child(&program.child), signal).unwrap();
}

/// Waits until the state file has a position and no acknowledged or failing events behind it.
fn wait_until_settled(server: &Server, folder: &Path, hook: &Hook) {
    publish(server, "create", json!({"id": "last"}));
    while hook.next().id_and_type().0 != "last" {}
    eventually(PATIENCE, || {
        let text = fs::read_to_string(folder.join("state")).unwrap_or_default();
        let last: Value = serde_json::from_str(text.lines().last()?).ok()?;
        (last["cursor"].is_string() && last["acknowledged"].is_null()).then_some(())
    });
}

#[test]
fn events_are_sent_in_order_with_stable_ids_and_valid_signatures() {
    let folder = TempDir::new().unwrap();
    let secret = folder.path().join("secret");
    let key = [7; 24];
    let line = format!("whsec_{}\n", STANDARD.encode(key));
    fs::write(&secret, line).unwrap();
    let (server, hook) = (Server::start(), Hook::accepting());
    let args = ["--secret", secret.to_str().unwrap()];
    let _program = forward(&server.listeners[0], &hook.url(), folder.path(), &args);
    for (action, expected) in [
        ("create", "annotation.created"),
        ("update", "annotation.updated"),
        ("delete", "annotation.deleted"),
    ] {
        publish(&server, action, json!({"id": "A", "text": "Hellö"}));
        let request = hook.next();
        assert_eq!(request.target, "/hook");
        assert_eq!(request.field("content-type"), "application/json");
        assert_eq!(request.id_and_type(), ("A".to_owned(), expected.to_owned()));
        let id = request.field("webhook-id");
        assert_eq!(request.json()["id"], id);
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        let signed = format!(
            "{id}.{}.{}",
            request.field("webhook-timestamp"),
            request.body
        );
        mac.update(signed.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(
            request.field("webhook-signature"),
            format!("v1,{signature}")
        );
    }
}

#[test]
fn every_kind_of_failure_is_repeated_until_it_succeeds() {
    let folder = TempDir::new().unwrap();
    let failures = [
        HookReply::Status(500, ""),
        HookReply::Status(404, ""),
        HookReply::Status(302, "Location: /elsewhere\r\n"),
        HookReply::Status(101, ""),
        HookReply::Reset,
        HookReply::End,
        HookReply::Garbage,
        HookReply::Hang,
        HookReply::EndlessHead,
        HookReply::EndlessBody(503),
    ];
    let count = failures.len();
    let hook = Hook::start(move |number, _| match failures.get(number) {
        Some(failure) => failure.clone(),
        // A body that never ends does not delay the acknowledgement.
        None => HookReply::EndlessBody(200),
    });
    let server = Server::start();
    let program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "A"}));
    let first = hook.next();
    for _ in 0..count {
        let next = eventually_next(&hook);
        assert_eq!(next.target, "/hook", "redirects are not followed");
        assert_eq!(next.field("webhook-id"), first.field("webhook-id"));
    }
    program.wait_for_error_line("the receiver responded with 500 Internal Server Error");
    program.wait_for_error_line("requests succeed again");
    wait_until_settled(&server, folder.path(), &hook);
}

fn eventually_next(hook: &Hook) -> HookRequest {
    hook.next_within(3 * PATIENCE).unwrap()
}

#[test]
fn requested_delay_is_honored() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|number, _| match number {
        0 => HookReply::Status(429, "Retry-After: 2\r\n"),
        _ => HookReply::Status(200, ""),
    });
    let server = Server::start();
    let program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "A"}));
    let first = hook.next();
    program.wait_for_error_line("429 Too Many Requests");
    publish(&server, "create", json!({"id": "B"}));
    let next = hook.next();
    assert!(next.time - first.time >= Duration::from_secs(2));
}

#[test]
fn gone_ends_the_command_and_a_later_one_continues() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|_, _| HookReply::Status(410, ""));
    let server = Server::start();
    let mut program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "A"}));
    let line = program.wait_for_error_line("410 Gone");
    assert!(!line.contains("/hook"), "{line}");
    assert_eq!(program.wait(), Some(68));
    let hook = Hook::accepting();
    let _program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    assert_eq!(hook.next().id_and_type().0, "A");
}

#[test]
fn failing_annotation_does_not_block_others() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|_, request| match request.id_and_type().0.as_str() {
        "A" => HookReply::Status(400, ""),
        _ => HookReply::Status(200, ""),
    });
    let server = Server::start();
    let mut program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "A"}));
    for number in 0..20 {
        publish(&server, "create", json!({"id": format!("B{number}")}));
    }
    let mut others = Vec::new();
    while others.len() < 20 {
        others.extend(Some(hook.next().id_and_type().0).filter(|id| id != "A"));
    }
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 20);
    eventually(PATIENCE, || {
        let text = fs::read_to_string(folder.path().join("state")).unwrap();
        (0..20)
            .all(|number| text.contains(&format!("[\"B{number}\",")))
            .then_some(())
    });
    // After a restart, only the failing one is sent again.
    program.child.kill().unwrap();
    program.wait();
    let hook = Hook::accepting();
    let _program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "last"}));
    // Requests for different annotations are made at the same time, so that either may arrive first.
    let mut sent = [hook.next(), hook.next()].map(|request| request.id_and_type().0);
    sent.sort();
    assert_eq!(sent, ["A", "last"]);
}

#[test]
fn event_that_always_fails_is_reported_as_lost_and_kept_in_a_file() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|_, request| match request.id_and_type().0.as_str() {
        "A" => HookReply::Status(400, ""),
        _ => HookReply::Status(200, ""),
    });
    let server = Server::start();
    let letters = folder.path().join("lost");
    let args = [
        "--give-up-after",
        "100ms",
        "--dead-letter",
        letters.to_str().unwrap(),
    ];
    let program = forward(&server.listeners[0], &hook.url(), folder.path(), &args);
    publish(&server, "create", json!({"id": "A", "text": "Hello"}));
    let line = program.wait_for_error_line("lost: gave up the create of annotation A");
    assert!(line.contains("400 Bad Request"), "{line}");
    wait_until_settled(&server, folder.path(), &hook);
    let lost = fs::read_to_string(&letters).unwrap();
    let lost: Value = serde_json::from_str(&lost).unwrap();
    assert_eq!(lost["notification"]["payload"][0]["text"], "Hello");
}

#[test]
fn batches_are_arrays_of_events_in_order() {
    let folder = TempDir::new().unwrap();
    let (server, hook) = (Server::start(), Hook::accepting());
    let args = ["--batch", "3", "--batch-wait", "200ms", "--format", "json"];
    let _program = forward(&server.listeners[0], &hook.url(), folder.path(), &args);
    for id in ["A", "B", "C", "D"] {
        publish(&server, "create", json!({"id": id}));
    }
    let ids = |request: &HookRequest| -> Vec<String> {
        let events = request.json();
        let events = events.as_array().unwrap().iter();
        let ids = events.map(|event| event["payload"][0]["id"].as_str().unwrap().to_owned());
        ids.collect()
    };
    let mut all = Vec::new();
    let first = hook.next();
    assert!(first.field("webhook-id").starts_with("bat_"));
    all.extend(ids(&first));
    while all.len() < 4 {
        all.extend(ids(&hook.next()));
    }
    assert_eq!(all, ["A", "B", "C", "D"]);
}

#[test]
fn messages_for_chats_contain_the_text() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    for (format, pointer, expected) in [
        ("slack", "/text", "&lt;!channel&gt; Hello"),
        ("discord", "/embeds/0/description", r"\<!channel\> Hello"),
    ] {
        let hook = Hook::accepting();
        let folder = folder.path().join(format);
        fs::create_dir(&folder).unwrap();
        let args = ["--format", format];
        let _program = forward(&server.listeners[0], &hook.url(), &folder, &args);
        publish(
            &server,
            "create",
            json!({"id": "A", "text": "<!channel> Hello"}),
        );
        let body = hook.next().json();
        let text = body.pointer(pointer).unwrap().as_str().unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn receiver_with_tls_needs_a_trusted_certificate() {
    let folder = TempDir::new().unwrap();
    let trusted = crate::support::TlsServer::start();
    let other = crate::support::TlsServer::start();
    let server = Server::start();
    // A server of the API responds to a POST, which shows that the handshake has succeeded.
    let url = format!("https://localhost:{}/hook", trusted.server.address().port());
    let args = ["--receiver-ca-cert", trusted.cert.to_str().unwrap()];
    let program = forward(&server.listeners[0], &url, folder.path(), &args);
    publish(&server, "create", json!({"id": "A"}));
    program.wait_for_error_line("the receiver responded with 404 Not Found");
    drop(program);
    let args = ["--receiver-ca-cert", other.cert.to_str().unwrap()];
    let program = forward(&server.listeners[0], &url, folder.path(), &args);
    program.wait_for_error_line("the server's certificate is");
}

#[test]
fn secrets_come_from_credentials_and_are_not_shown() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/services/S3CRET?key=S3CRET\n");
    fs::write(credentials.join("url"), url).unwrap();
    fs::write(
        credentials.join("token"),
        server.user("acct:joe@example.org"),
    )
    .unwrap();
    fs::write(
        credentials.join("forward_secret"),
        format!("whsec_{}", STANDARD.encode([7; 32])),
    )
    .unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args([
            "forward",
            &server.listeners[0],
            "--group",
            "__world__",
            "--state",
        ])
        .arg(folder.path().join("state"))
        .env("CREDENTIALS_DIRECTORY", &credentials);
    let program = Program::start(&mut command);
    program.wait_for_error_line("connected as acct:joe@example.org");
    publish(&server, "create", json!({"id": "A"}));
    let line = program.wait_for_error_line("cannot connect to 127.0.0.1");
    assert!(!line.contains("S3CRET"), "{line}");
}

#[test]
fn metrics_count_events_and_failures() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|number, _| HookReply::Status(if number == 0 { 500 } else { 200 }, ""));
    let server = Server::start();
    let args = ["--metrics", "127.0.0.1:0"];
    let program = start(&server.listeners[0], &hook.url(), folder.path(), &args);
    let line = program.wait_for_error_line("metrics: http://");
    let address = line
        .trim_start_matches("metrics: http://")
        .trim_end_matches("/metrics");
    let address = address.parse().unwrap();
    program.wait_for_error_line("connected");
    publish(&server, "create", json!({"id": "A"}));
    eventually(PATIENCE, || {
        let (status, _, text) = http(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(status, 200);
        let has = |series: &str| text.contains(&format!("\nh_realtime_forward_{series}\n"));
        (has("delivered_total 1")
            && has("failures_total{cause=\"server_error\"} 1")
            && has("connected 1")
            && has("pending 0"))
        .then_some(())
    });
}

#[test]
fn sigterm_waits_for_the_request_in_progress() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|_, _| {
        std::thread::sleep(Duration::from_millis(300));
        HookReply::Status(200, "")
    });
    let server = Server::start();
    let mut program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "A"}));
    // The receiver has not responded yet.
    std::thread::sleep(Duration::from_millis(100));
    signal(&program, Signal::TERM);
    assert_eq!(program.wait(), Some(0));
    assert_eq!(hook.next().id_and_type().0, "A");
    let hook = Hook::accepting();
    let _program = forward(&server.listeners[0], &hook.url(), folder.path(), &[]);
    publish(&server, "create", json!({"id": "B"}));
    assert_eq!(hook.next().id_and_type().0, "B", "A is acknowledged");
}

#[test]
fn server_without_cursors_is_refused() {
    let (folder, hook) = (TempDir::new().unwrap(), Hook::accepting());
    let (url, _) = subscribed(vec![|socket: &mut Subscribed| {
        socket.identify();
        socket.say(
            &json!({"type": "annotation-notification", "options": {"action": "delete"},
            "payload": [{"id": "A"}]}),
        );
    }]);
    let mut program = start(&url, &hook.url(), folder.path(), &[]);
    program.wait_for_error_line("events without cursors");
    assert_eq!(program.wait(), Some(69));
}

#[test]
fn server_with_cursors_that_cannot_be_stored_is_refused() {
    let (folder, hook) = (TempDir::new().unwrap(), Hook::accepting());
    let (url, _) = subscribed(vec![|socket: &mut Subscribed| {
        socket.accept("c1");
        socket.say(&json!({"type": "cursor", "cursor": "a b"}));
        socket.say(
            &json!({"type": "annotation-notification", "options": {"action": "delete"},
            "payload": [{"id": "A"}], "cursor": "c".repeat(100_000)}),
        );
    }]);
    let mut program = start(&url, &hook.url(), folder.path(), &[]);
    program.wait_for_error_line("events without cursors");
    assert_eq!(program.wait(), Some(69));
    let state = fs::read_to_string(folder.path().join("state")).unwrap();
    assert_eq!(state, "{\"h_realtime_forward\":1,\"cursor\":\"c1\"}\n");
}

#[test]
fn gap_is_reported_and_the_oldest_events_are_sent() {
    let (folder, hook) = (TempDir::new().unwrap(), Hook::accepting());
    fs::write(
        folder.path().join("state"),
        "{\"h_realtime_forward\":1,\"cursor\":\"c1\"}\n",
    )
    .unwrap();
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![
        |socket| socket.accept_with_gap("c90", "c50"),
        |socket| {
            socket.accept("c50");
            socket.say(
                &json!({"type": "annotation-notification", "options": {"action": "delete"},
                "payload": [{"id": "A"}], "cursor": "c51"}),
            );
        },
    ]);
    let program = start(&url, &hook.url(), folder.path(), &[]);
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "c1");
    let line = program.wait_for_error_line("gap: ");
    assert!(line.contains("after c1"), "{line}");
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "c50");
    assert_eq!(hook.next().id_and_type().0, "A");
}

#[test]
fn closed_port_of_the_receiver_is_reported_once() {
    let folder = TempDir::new().unwrap();
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = Server::start();
    let url = format!("http://{address}/hook");
    let program = forward(&server.listeners[0], &url, folder.path(), &[]);
    for id in ["A", "B", "C"] {
        publish(&server, "create", json!({"id": id}));
    }
    program.wait_for_error_line("request failed");
    let hook = Hook::at(address, |_, _| HookReply::Status(204, ""));
    let mut ids: Vec<_> = (0..3).map(|_| hook.next().id_and_type().0).collect();
    ids.sort();
    assert_eq!(ids, ["A", "B", "C"]);
    assert!(
        program
            .error_line()
            .unwrap()
            .contains("requests succeed again")
    );
}

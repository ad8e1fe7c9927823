//! `listen` and `publish`, the two commands that communicate with a running server.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{Client, PATIENCE, PROGRAM, Program, Received, Server};

fn listen(url: &str, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    Program::start(command.args(["listen", url]).args(args))
}

/// Returns the next event that a listener prints.
fn next_event(listener: &Program) -> Value {
    let line = listener.line().expect("an event");
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a line of JSON: {line}"))
}

fn event(id: &str) -> Value {
    json!({"topic": "annotation", "action": "create", "annotation": {
        "id": id, "user": ME, "uri": PAGE, "text": "line\nbreak",
        "permissions": {"read": ["group:__world__"]}}})
}

fn group_join() -> Value {
    let model = json!({"userid": ME, "groups": [], "features": {}, "preferences": {}});
    json!({"topic": "user", "type": "group-join", "userid": ME, "session_model": model})
}

fn publish(server: &Server, id: &str) {
    assert_eq!(server.publish(&event(id).to_string()).0, 202);
}

#[test]
fn listen_prints_one_line_per_event_up_to_the_count() {
    let server = Server::start();
    let token = server.user(ME);
    let args = ["--uri", PAGE, "--token", &token, "--count", "3"];
    let mut listener = listen(&server.listeners[0], &args);
    listener.wait_for_error_line("connected as acct:me@example.org");
    publish(&server, "A");
    publish(&server, "B");
    server.publish(&group_join().to_string());
    for id in ["A", "B"] {
        let event = next_event(&listener);
        assert_eq!(event["type"], "annotation-notification");
        assert_eq!(event["payload"][0]["id"], id);
        assert_eq!(event["payload"][0]["text"], "line\nbreak");
    }
    assert_eq!(next_event(&listener)["type"], "session-change");
    assert_eq!(listener.line(), None);
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn listen_receives_events_matching_any_option() {
    let server = Server::start();
    let url = &server.listeners[0];
    let token = server.user(ME);
    let listeners = [
        (
            &["--uri", "http://elsewhere.example/", "--uri", PAGE][..],
            "AB",
        ),
        (&["--group", "__world__"], "AB"),
        (&["--id", "B"], "B"),
        (&["--references", "A"], "B"),
        (&["--id", "A", "--references", "A"], "AB"),
        (&["--group", "other"], ""),
    ]
    .map(|(args, ids)| {
        let args = [args, &["--token", &token]].concat();
        (listen(url, &args), ids)
    });
    for (listener, _) in &listeners {
        listener.wait_for_error_line("connected as");
    }
    publish(&server, "A");
    let mut reply = event("B");
    reply["annotation"]["references"] = json!(["A"]);
    server.publish(&reply.to_string());
    // All of them receive this one.
    server.publish(&group_join().to_string());
    for (listener, ids) in &listeners {
        for id in ids.chars() {
            assert_eq!(next_event(listener)["payload"][0]["id"], id.to_string());
        }
        assert_eq!(next_event(listener)["type"], "session-change");
    }
}

#[test]
fn listen_reconnects_after_a_restart() {
    let mut server = Server::start();
    let listener = listen(&server.listeners[0], &["--uri", PAGE]);
    listener.wait_for_error_line("connected, anonymous");
    publish(&server, "A");
    assert_eq!(next_event(&listener)["payload"][0]["id"], "A");
    server.restart();
    listener.wait_for_error_line("reconnecting in ");
    listener.wait_for_error_line("connected, anonymous");
    publish(&server, "B");
    // Events of the last minute may be repeated.
    let mut event = next_event(&listener);
    while event["payload"][0]["id"] == "A" {
        event = next_event(&listener);
    }
    assert_eq!(event["payload"][0]["id"], "B");
}

#[test]
fn listen_exits_if_it_must_not_reconnect() {
    let config = "[auth]\ninvalid_token = \"reject\"\n[timeouts]\ndrain = \"100ms\"";
    let mut server = Server::configured(config);
    let token = server.user(ME);
    let url = server.listeners[0].clone();
    // An invalid token stays invalid.
    let mut listener = listen(&url, &["--token", "hrt-wrong"]);
    listener.wait_for_error_line("401");
    assert_eq!(listener.wait(), Some(77));

    let mut listener = listen(&url, &["--no-reconnect", "--token", &token]);
    listener.wait_for_error_line("connected as");
    server.run(&["token", "revoke", "1"]);
    listener.wait_for_error_line("3000");
    assert_eq!(listener.wait(), Some(77));

    let mut done = listen(&url, &["--no-reconnect"]);
    let mut waiting = listen(&url, &["--no-reconnect", "--uri", PAGE, "--count", "1"]);
    for listener in [&done, &waiting] {
        listener.wait_for_error_line("connected, anonymous");
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(done.wait(), Some(0));
    waiting.wait_for_error_line("1012");
    assert_eq!(waiting.wait(), Some(69));
    assert_eq!(server.wait().1, Some(0));
    let mut listener = listen(&url, &["--no-reconnect"]);
    assert_eq!(listener.wait(), Some(69));
}

#[test]
fn listen_and_publish_work_over_unix_sockets() {
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("api.sock");
    // The stale socket of a killed server does not matter. It never listened: processes started by
    // other tests inherit open sockets until exec.
    let left = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    left.bind(&SockAddr::unix(&socket).unwrap()).unwrap();
    drop(left);
    let url = format!("unix:{}", socket.display());
    let args = ["--listen", &url, "--listen", "ws://127.0.0.1:0"];
    let mut server = Server::with(&args, "");
    assert_eq!(server.listeners[0], url);
    let token = server.user(ME);

    let stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = format!("/ws?access_token={token}");
    let mut client = Client::over(stream, &target, "");
    client.subscribe("/uri", PAGE);
    let answer = client.ask(r#"{"type": "whoami", "id": 1}"#);
    assert!(answer.contains(ME), "{answer}");
    let listener = listen(&url, &["--uri", PAGE, "--token", &token]);
    listener.wait_for_error_line("connected as acct:me@example.org");
    let tcp = listen(&server.listeners[1], &["--uri", PAGE]);
    tcp.wait_for_error_line("connected, anonymous");

    publish(&server, "A");
    assert!(matches!(&client.drain()[..], [Received::Text(_)]));
    assert_eq!(next_event(&listener)["payload"][0]["id"], "A");
    assert_eq!(next_event(&tcp)["payload"][0]["id"], "A");
    server.signal(rustix::process::Signal::TERM);
    assert!(matches!(client.receive(), Received::Close(Some((1012, _)))));
    client.close(1012, "");
    server.wait();
    assert!(!socket.exists());
}

/// Runs `publish` with this standard input.
fn run_publish(server: &Server, file: &Path, input: &str, key: Option<&str>) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .arg("publish")
        .arg(file)
        .arg("--data")
        .arg(server.data());
    if let Some(key) = key {
        command.env("H_REALTIME_PUBLISH_KEY", key);
    }
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = pipes.stderr(Stdio::piped()).spawn().unwrap();
    // The command may exit before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn publish_takes_files_and_pipes_in_any_layout() {
    let server = Server::start();
    let mut reader = server.anonymous();
    reader.subscribe("/uri", PAGE);
    let (a, b) = (event("A"), event("B"));
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let file = server.folder().join("events");
    for (text, ids) in [
        (a.to_string(), "A"),
        (format!("{a}\n{b}\n"), "AB"),
        (format!("\n{}\r\n\n{}", pretty(&a), pretty(&b)), "AB"),
        (format!("{a}{b} {a}"), "ABA"),
        (String::new(), ""),
    ] {
        std::fs::write(&file, &text).unwrap();
        for (path, input) in [(&*file, ""), (Path::new("-"), &*text)] {
            let output = run_publish(&server, path, input, None);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{text}");
            let line = |id| format!("create {id} matched 1\n");
            let expected: String = ids.chars().map(line).collect();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
            assert_eq!(reader.drain().len(), ids.len(), "{text}");
        }
    }
}

#[test]
fn publish_stops_at_the_first_refused_event() {
    let server = Server::start();
    let mut bad = event("B");
    bad["annotation"]["user"] = json!("nobody");
    let (a, c) = (event("A"), event("C"));
    for (input, key, code, printed, part) in [
        (
            format!("{a}\n{bad}\n{c}"),
            None,
            65,
            "create A matched 0\n",
            "event 2: annotation.user must look like",
        ),
        (
            format!("{a}\n{{\"topic\":"),
            None,
            65,
            "create A matched 0\n",
            "event 2: not valid JSON",
        ),
        (a.to_string(), Some("wrong-publish-key"), 77, "", "key"),
    ] {
        let output = run_publish(&server, Path::new("-"), &input, key);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{input}: {stderr}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
        assert!(stderr.contains(part), "{stderr}");
        assert!(!stderr.contains("wrong-publish-key"), "{stderr}");
    }
}

const PAGE: &str = "https://example.org/page";
const ME: &str = "acct:me@example.org";

//! `listen` and `publish`, the two commands that talk to a running server.

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

/// The next event that a listener prints.
fn heard(listener: &Program) -> Value {
    let line = listener.line().expect("an event");
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("no line of JSON: {line}"))
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
fn it_prints_a_line_an_event_until_it_has_enough() {
    let server = Server::start();
    let token = server.user(ME);
    let args = ["--uri", PAGE, "--token", &token, "--count", "3"];
    let mut listener = listen(&server.listeners[0], &args);
    listener.said("connected as acct:me@example.org");
    publish(&server, "A");
    publish(&server, "B");
    server.publish(&group_join().to_string());
    for id in ["A", "B"] {
        let event = heard(&listener);
        assert_eq!(event["type"], "annotation-notification");
        assert_eq!(event["payload"][0]["id"], id);
        assert_eq!(event["payload"][0]["text"], "line\nbreak");
    }
    assert_eq!(heard(&listener)["type"], "session-change");
    assert_eq!(listener.line(), None);
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn it_hears_what_any_of_its_options_asks_for() {
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
        listener.said("connected as");
    }
    publish(&server, "A");
    let mut reply = event("B");
    reply["annotation"]["references"] = json!(["A"]);
    server.publish(&reply.to_string());
    // This all of them hear.
    server.publish(&group_join().to_string());
    for (listener, ids) in &listeners {
        for id in ids.chars() {
            assert_eq!(heard(listener)["payload"][0]["id"], id.to_string());
        }
        assert_eq!(heard(listener)["type"], "session-change");
    }
}

#[test]
fn it_comes_back_when_the_server_does() {
    let mut server = Server::start();
    let listener = listen(&server.listeners[0], &["--uri", PAGE]);
    listener.said("connected, anonymous");
    publish(&server, "A");
    assert_eq!(heard(&listener)["payload"][0]["id"], "A");
    server.restart();
    listener.said("reconnecting in ");
    listener.said("connected, anonymous");
    publish(&server, "B");
    assert_eq!(heard(&listener)["payload"][0]["id"], "B");
}

#[test]
fn how_it_ends_when_it_may_not_come_back() {
    let config = "[auth]\ninvalid_token = \"reject\"\n[timeouts]\ndrain = \"100ms\"";
    let mut server = Server::configured(config);
    let token = server.user(ME);
    let url = server.listeners[0].clone();
    // A wrong token is no use the next time either.
    let mut listener = listen(&url, &["--token", "hrt-wrong"]);
    listener.said("401");
    assert_eq!(listener.wait(), Some(77));

    let mut listener = listen(&url, &["--no-reconnect", "--token", &token]);
    listener.said("connected as");
    server.run(&["token", "revoke", "1"]);
    listener.said("3000");
    assert_eq!(listener.wait(), Some(77));

    let mut done = listen(&url, &["--no-reconnect"]);
    let mut waiting = listen(&url, &["--no-reconnect", "--uri", PAGE, "--count", "1"]);
    for listener in [&done, &waiting] {
        listener.said("connected, anonymous");
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(done.wait(), Some(0));
    waiting.said("1012");
    assert_eq!(waiting.wait(), Some(69));
    assert_eq!(server.wait().1, Some(0));
    let mut listener = listen(&url, &["--no-reconnect"]);
    assert_eq!(listener.wait(), Some(69));
}

#[test]
fn a_unix_socket_serves_the_same() {
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("api.sock");
    // What a killed server has left is no obstacle. It never listened: processes that other tests
    // start have what we have open until their program runs.
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
    listener.said("connected as acct:me@example.org");
    let tcp = listen(&server.listeners[1], &["--uri", PAGE]);
    tcp.said("connected, anonymous");

    publish(&server, "A");
    assert!(matches!(&client.drain()[..], [Received::Text(_)]));
    assert_eq!(heard(&listener)["payload"][0]["id"], "A");
    assert_eq!(heard(&tcp)["payload"][0]["id"], "A");
    server.signal(rustix::process::Signal::TERM);
    assert!(matches!(client.receive(), Received::Close(Some((1012, _)))));
    client.close(1012, "");
    server.wait();
    assert!(!socket.exists());
}

/// Runs `publish` with something on standard input.
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
    // It may end before it has read all.
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
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), &*said), (Some(0), ""), "{text}");
            let line = |id| format!("create {id} matched 1\n");
            let expected: String = ids.chars().map(line).collect();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
            assert_eq!(reader.drain().len(), ids.len(), "{text}");
        }
    }
}

#[test]
fn publish_ends_at_the_first_event_that_is_refused() {
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
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{input}: {said}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("wrong-publish-key"), "{said}");
    }
}

const PAGE: &str = "https://example.org/page";
const ME: &str = "acct:me@example.org";

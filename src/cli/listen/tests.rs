//! Tests of the command over real sockets, with a server based on another library in a thread.

use std::fs;
use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use clap::Parser;
use tungstenite::Message;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use super::options::token;
use super::*;

const EVENT: &str =
    r#"{"type": "annotation-notification", "options": {"action": "create"}, "payload": []}"#;
const ME: &str = r#"{"type":"whoyouare","userid":"acct:joe@example.org","ok":true,"reply_to":2}"#;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: ListenArgs,
}

/// Runs the command. Returns its standard output, standard error, and result.
fn listened(arguments: &[&str], token: Option<&str>) -> (String, String, Result<(), Exit>) {
    let cli = Cli::try_parse_from([&["listen"], arguments].concat()).expect("arguments");
    let (mut events, mut status) = (Vec::new(), Vec::new());
    let result = ListenOptions::new(cli.args, token.map(str::to_owned)).and_then(|options| {
        let output = ListenOutput {
            events: &mut events,
            output: None,
            status: &mut status,
        };
        listen(&options, output, &Interrupts::none())
    });
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(events), text(status), result)
}

/// Serves one connection for each entry of `scripts`, in order. Returns the URL and all messages
/// from the clients.
#[expect(clippy::result_large_err, reason = "the library's callback")]
fn server<F>(scripts: Vec<F>) -> (String, JoinHandle<Vec<String>>)
where
    F: FnOnce(&mut tungstenite::WebSocket<TcpStream>) + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/ws", listener.local_addr().expect("an address"));
    let thread = thread::spawn(move || {
        let mut received = Vec::new();
        for script in scripts {
            let stream = listener.accept().expect("a connection").0;
            let timeout = Some(Duration::from_secs(10));
            stream.set_read_timeout(timeout).expect("a timeout");
            let mut socket = tungstenite::accept_hdr(stream, |request: &Request, response| {
                let authorization = request.headers().get("authorization");
                received.push(format!("{authorization:?}"));
                Ok::<Response, ErrorResponse>(response)
            })
            .expect("a handshake");
            received.extend(until_whoami(&mut socket));
            script(&mut socket);
            while let Ok(message) = socket.read() {
                received.push(message.to_string());
            }
        }
        received
    });
    (url, thread)
}

fn until_whoami<S: Read + Write>(socket: &mut tungstenite::WebSocket<S>) -> Vec<String> {
    let mut received = Vec::new();
    loop {
        let message = socket.read().expect("a message").to_string();
        let last = message.contains("whoami");
        received.push(message);
        if last {
            return received;
        }
    }
}

fn say(socket: &mut tungstenite::WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).expect("sent");
}

fn close(socket: &mut tungstenite::WebSocket<TcpStream>, code: u16) {
    let code = CloseCode::from(code);
    let reason = "bye".into();
    socket
        .close(Some(CloseFrame { code, reason }))
        .expect("sent");
}

#[test]
fn listen_prints_events_answers_pings_and_stops_at_count() {
    let (url, server) = server(vec![|socket: &mut _| {
        say(socket, ME);
        socket.send(Message::Ping("beat".into())).expect("sent");
        let pong = socket.read().expect("a pong while the client is idle");
        assert_eq!(pong, Message::Pong("beat".into()));
        socket.send(Message::binary(&b"\x00"[..])).expect("sent");
        say(
            socket,
            r#"{"type":"error","error":{"description":"failed"}}"#,
        );
        say(socket, EVENT);
        say(socket, "{\"type\":\"session-change\",\n\"model\":{}}");
        say(socket, EVENT);
    }]);
    let arguments = [
        &url,
        "--group",
        "__world__",
        "--count",
        "2",
        "--client-id",
        "me",
    ];
    let (events, status, result) = listened(&arguments, Some("t0ken"));
    assert_eq!(
        events,
        format!("{EVENT}\n{{\"type\":\"session-change\", \"model\":{{}}}}\n")
    );
    assert_eq!(
        status,
        "connected as acct:joe@example.org\nignored a binary message\nerror: failed\n"
    );
    assert!(result.is_ok());
    let received = server.join().expect("the server");
    assert_eq!(received[0], r#"Some("Bearer t0ken")"#);
    assert_eq!(received[1], r#"{"type":"client_id","value":"me"}"#);
    assert!(
        received[2].contains(r#""value":["__world__"]"#),
        "{received:?}"
    );
}

#[test]
fn reconnect_keeps_the_client_id() {
    let scripts: [fn(&mut tungstenite::WebSocket<TcpStream>); 2] = [
        |socket| close(socket, 1001),
        |socket| {
            say(socket, r#"{"type":"whoyouare","userid":null}"#);
            say(socket, EVENT);
        },
    ];
    let (url, server) = server(scripts.into());
    let (events, status, result) = listened(&[&url, "--count", "1"], None);
    assert_eq!(events, format!("{EVENT}\n"));
    assert!(result.is_ok());
    let lines: Vec<_> = status.lines().collect();
    assert!(lines[0].contains("only session-change events"), "{status}");
    assert!(
        lines[1].starts_with("reconnecting in 1.") || lines[1].starts_with("reconnecting in 2.0"),
        "{status}"
    );
    assert!(
        lines[1].ends_with("closed by the server: 1001 bye"),
        "{status}"
    );
    assert_eq!(lines[2], "connected, anonymous");
    let received = server.join().expect("the server");
    let ids: Vec<_> = received
        .iter()
        .filter(|text| text.contains("client_id"))
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        ids[0].len(),
        r#"{"type":"client_id","value":""}"#.len() + 32
    );
}

#[test]
fn rejected_filter_closes_and_is_resent_on_reconnect() {
    let refuse: fn(&mut tungstenite::WebSocket<TcpStream>) = |socket| {
        say(
            socket,
            r#"{"type":"error","error":{"description":"no memory now; try again later"},"ok":false,"reply_to":1}"#,
        );
        // The client exits before it reports that the filter is in place.
        say(socket, ME);
    };
    let accept: fn(&mut tungstenite::WebSocket<TcpStream>) = |socket| {
        say(socket, ME);
        say(socket, EVENT);
    };
    let (url, serving) = server(vec![refuse, accept]);
    let (events, status, result) = listened(&[&url, "--uri", "u", "--count", "1"], None);
    assert_eq!(events, format!("{EVENT}\n"));
    assert!(result.is_ok());
    let lines: Vec<_> = status.lines().collect();
    assert!(
        lines[0].ends_with("the server rejected the filter: no memory now; try again later"),
        "{status}"
    );
    assert_eq!(lines[1..], ["connected as acct:joe@example.org"]);
    serving.join().expect("the server");

    let (url, serving) = server(vec![refuse]);
    let result = listened(&[&url, "--uri", "u", "--no-reconnect"], None).2;
    assert_eq!(result.err().map(|exit| exit.code), Some(Exit::UNAVAILABLE));
    serving.join().expect("the server");
}

#[test]
fn no_reconnect_exits_when_the_connection_ends() {
    for (code, count, exit) in [
        (1000, false, None),
        (1012, false, None),
        (1001, true, Some(Exit::UNAVAILABLE)),
        (1013, false, Some(Exit::UNAVAILABLE)),
        (3000, false, Some(Exit::NO_PERMISSION)),
    ] {
        let (url, server) = server(vec![move |socket: &mut _| close(socket, code)]);
        let mut arguments = vec![url.as_str(), "--no-reconnect"];
        if count {
            arguments.extend(["--count", "1"]);
        }
        let result = listened(&arguments, None).2;
        assert_eq!(result.err().map(|exit| exit.code), exit, "{code}");
        server.join().expect("the server");
    }
}

#[test]
fn rejected_handshake_is_final_and_missing_server_is_unavailable() {
    let reason = r#"{"ok": false, "reason": "no such token"}"#;
    for (answer, body, code, part) in [
        (
            "401 No",
            reason,
            Exit::NO_PERMISSION,
            "responded with 401 no such token",
        ),
        (
            "404 No",
            "",
            Exit::UNAVAILABLE,
            "responded with 404 Not Found",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let server = thread::spawn(move || {
            let mut stream = listener.accept().expect("a connection").0;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            // Head and body are sent in one write: the client does not wait for a body that follows
            // later.
            let answer = format!("HTTP/1.1 {answer}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
        });
        let exit = listened(&[&url, "--token", "t0ken"], None)
            .2
            .expect_err(answer);
        assert_eq!(exit.code, code);
        assert!(exit.message.contains(part), "{}", exit.message);
        server.join().expect("the server");
        let exit = listened(&[&url, "--no-reconnect"], None)
            .2
            .expect_err("no server");
        assert_eq!(exit.code, Exit::UNAVAILABLE);
    }
}

#[test]
fn listen_works_over_unix_socket_and_stops_on_closed_pipe() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("h.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = thread::spawn(move || {
        let stream = listener.accept().expect("a connection").0;
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        until_whoami(&mut socket);
        socket.send(Message::text(EVENT)).expect("sent");
        while socket.read().is_ok() {}
    });
    let url = format!("unix:{}", path.display());
    let cli = Cli::try_parse_from(["listen", &url]).expect("arguments");
    let options =
        ListenOptions::new(cli.args, None).unwrap_or_else(|exit| panic!("{}", exit.message));
    let output = ListenOutput {
        events: &mut Closed,
        output: None,
        status: &mut Cursor::new(Vec::new()),
    };
    assert!(listen(&options, output, &Interrupts::none()).is_ok());
    server.join().expect("the server");
}

#[test]
fn token_has_one_source_and_is_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    fs::write(&file, "from-file\n").expect("a file");
    let text = |text: &str| Some(text.to_owned());
    for (argument, file, variable, expected) in [
        (text("arg"), None, text("env"), Ok(Some("Bearer arg"))),
        (
            None,
            Some(file.clone()),
            text("env"),
            Ok(Some("Bearer from-file")),
        ),
        (None, None, text("env"), Ok(Some("Bearer env"))),
        (None, None, None, Ok(None)),
        (text(" "), None, None, Err(Exit::USAGE)),
        (text("a\nb"), None, None, Err(Exit::USAGE)),
        (
            None,
            Some(directory.path().join("none")),
            None,
            Err(Exit::NO_INPUT),
        ),
    ] {
        let found = token(argument, file, variable).map_err(|exit| exit.code);
        if let Ok(Some(header)) = &found {
            assert_eq!(format!("{header:?}"), "Sensitive");
        }
        let expected = expected.map(|header| header.map(HeaderValue::from_static));
        assert_eq!(found, expected);
    }
}

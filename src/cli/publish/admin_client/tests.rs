//! Tests of the admin client: interpretation of responses, and requests to a stub server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

#[test]
fn admin_address_is_parsed_into_endpoint() {
    for (address, expected) in [
        ("http://127.0.0.1:5002/\n", Some("http://127.0.0.1:5002/")),
        ("http://[::1]:5002", Some("http://[::1]:5002/")),
        ("localhost:5002", Some("http://localhost:5002/")),
        ("https://127.0.0.1:5002/", None),
        ("http://127.0.0.1:5002/x", None),
        ("http://joe@127.0.0.1/", None),
        ("http://:5002/", None),
        ("a b", None),
        ("", None),
    ] {
        let url = endpoint(address).ok().map(|endpoint| endpoint.url);
        assert_eq!(url.as_deref(), expected, "{address}");
    }
    let socket = endpoint("unix:/run/admin.sock\n").map(|endpoint| endpoint.socket);
    assert_eq!(socket, Ok(Some("/run/admin.sock".into())));
    assert!(endpoint("unix:").is_err());
}

/// The connection is kept alive, as over TCP.
#[test]
fn events_go_over_a_unix_socket_in_one_connection() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("admin.sock");
    let address = format!("unix:{}", path.display());
    let admin =
        || AdminClient::find(Path::new("/"), Some(&address), Some("k1".into())).expect("given");
    let exit = admin().send("{}".into()).expect_err("no socket");
    assert_eq!(exit.code, Exit::UNAVAILABLE);
    assert!(exit.message.contains(&address), "{}", exit.message);

    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let server = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().expect("a connection").0);
        let answer = r#"{"accepted":1,"matched":2}"#;
        let first = serve(&mut stream, "202 Accepted", answer);
        (first, serve(&mut stream, "202 Accepted", answer))
    });
    let admin = admin();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(500_000));
    assert_eq!(admin.send("{\"a\":1}".into()).ok(), Some(2));
    assert_eq!(admin.send(long.clone()).ok(), Some(2));
    let (first, second) = server.join().expect("the stub");
    assert!(first.starts_with("POST /events HTTP/1.1\r\n"), "{first}");
    assert!(second.ends_with(&long));
}

#[test]
fn response_status_determines_exit_code() {
    for (status, body, code, message) in [
        (
            202,
            r#"{"accepted":1,"matched":-1}"#,
            Exit::UNAVAILABLE,
            UNEXPECTED_RESPONSE,
        ),
        (202, "ok", Exit::UNAVAILABLE, UNEXPECTED_RESPONSE),
        (
            200,
            r#"{"matched":1}"#,
            Exit::UNAVAILABLE,
            UNEXPECTED_RESPONSE,
        ),
        (302, "", Exit::UNAVAILABLE, UNEXPECTED_RESPONSE),
        (
            400,
            r#"{"ok":false,"error":"bad_event","reason":"no \u001b[1muri","line":1}"#,
            Exit::DATA,
            "no  [1muri",
        ),
        (400, r#"{"error":"bad_event"}"#, Exit::DATA, "bad_event"),
        (400, r#"{"reason":5}"#, Exit::DATA, "status 400"),
        (
            401,
            "",
            Exit::NO_PERMISSION,
            "the server rejected the publish key: status 401",
        ),
        (
            403,
            r#"{"reason":"Host"}"#,
            Exit::NO_PERMISSION,
            "not allowed: Host",
        ),
        (404, "<html>", Exit::UNAVAILABLE, UNEXPECTED_RESPONSE),
        (413, "", Exit::DATA, "too large: status 413"),
        (
            503,
            "",
            Exit::UNAVAILABLE,
            "the server is unavailable: status 503",
        ),
        (
            503,
            r#"{"error":"busy","reason":"Full."}"#,
            Exit::UNAVAILABLE,
            "not published: Full.",
        ),
    ] {
        let exit = parse_response(status, body).expect_err(body);
        assert_eq!(
            (exit.code, exit.message.as_str()),
            (code, message),
            "{status}"
        );
    }
    assert_eq!(
        parse_response(202, r#"{"accepted":1,"matched":3}"#).ok(),
        Some(3)
    );
}

#[test]
fn address_and_key_come_from_the_data_directory_unless_given() {
    let data = tempfile::tempdir().expect("a directory");
    let found = |address, key: Option<&str>| {
        AdminClient::find(data.path(), address, key.map(str::to_owned))
            .map(|admin| (admin.url, admin.key))
            .map_err(|exit| exit.code)
    };
    assert_eq!(found(None, None), Err(Exit::UNAVAILABLE));
    fs::write(
        data.path().join("admin.address"),
        "http://127.0.0.1:5002/\n",
    )
    .expect("a file");
    assert_eq!(found(None, None), Err(Exit::UNAVAILABLE));
    fs::write(data.path().join("publish.key"), "k1\n").expect("a file");
    let url = |port| format!("http://127.0.0.1:{port}/");
    let key = |key| HeaderValue::from_static(key);
    assert_eq!(found(None, None), Ok((url(5002), key("Bearer k1"))));
    assert_eq!(
        found(Some("127.0.0.1:7"), Some("k2")),
        Ok((url(7), key("Bearer k2")))
    );
    assert_eq!(found(Some("https://x"), None), Err(Exit::USAGE));
    assert_eq!(found(None, Some("k\n2")), Err(Exit::NO_PERMISSION));
    fs::write(data.path().join("admin.address"), "").expect("a file");
    assert_eq!(found(None, None), Err(Exit::CONFIG));
}

#[test]
fn events_go_over_one_connection_with_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().expect("a connection").0);
        let first = serve(&mut stream, "202 Accepted", r#"{"accepted":1,"matched":2}"#);
        let second = serve(
            &mut stream,
            "400 Bad Request",
            r#"{"reason":"no uri","line":1}"#,
        );
        (first, second)
    });
    let admin =
        AdminClient::find(Path::new("/"), Some(&address), Some("k1".into())).expect("all given");
    assert_eq!(admin.send("{\"a\":1}".into()).ok(), Some(2));
    let exit = admin.send("{}".into()).expect_err("refused");
    assert_eq!((exit.code, exit.message.as_str()), (Exit::DATA, "no uri"));
    let (first, second) = server.join().expect("the stub");
    assert!(first.starts_with("POST /events HTTP/1.1\r\n"), "{first}");
    let lower = first.to_ascii_lowercase();
    for line in [
        format!("host: {address}"),
        "authorization: bearer k1".into(),
    ] {
        assert!(
            lower.contains(&format!("\r\n{line}\r\n")),
            "{line} in {first}"
        );
    }
    assert!(first.ends_with("{\"a\":1}"), "{first}");
    assert!(second.ends_with("\r\n\r\n{}"), "{second}");
}

/// Starts a stub server that ends each connection with an unanswered request, as if the connection
/// had been idle when the request was sent. For each connection, `answers` specifies whether a
/// request is answered before that. The thread returns the unanswered requests.
fn ends_unanswered(answers: &[bool]) -> (AdminClient, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let answers = answers.to_vec();
    let server = thread::spawn(move || {
        let mut unanswered = Vec::new();
        for is_answered in answers {
            let mut stream = BufReader::new(listener.accept().expect("a connection").0);
            if is_answered {
                serve(&mut stream, "202 Accepted", r#"{"accepted":1,"matched":2}"#);
            }
            unanswered.push(read_request(&mut stream));
        }
        unanswered
    });
    let admin =
        AdminClient::find(Path::new("/"), Some(&address), Some("k1".into())).expect("all given");
    (admin, server)
}

#[test]
fn request_is_retried_when_reused_connection_ends_unanswered() {
    let (admin, server) = ends_unanswered(&[true, true, false]);
    assert_eq!(admin.send("{\"a\":1}".into()).ok(), Some(2));
    assert_eq!(admin.send("{\"a\":2}".into()).ok(), Some(2));
    // The new connection ends as well. There is no second retry.
    let exit = admin.send("{\"a\":3}".into()).expect_err("no answer");
    assert_eq!(exit.code, Exit::UNAVAILABLE);
    let unanswered = server.join().expect("the stub");
    let events: Vec<_> = unanswered.iter().map(|r| &r[r.len() - 7..]).collect();
    assert_eq!(events, ["{\"a\":2}", "{\"a\":3}", "{\"a\":3}"]);
}

#[test]
fn request_is_not_retried_when_new_connection_ends_unanswered() {
    // A second connection would be answered.
    let (admin, _server) = ends_unanswered(&[false, true]);
    let exit = admin.send("{\"a\":1}".into()).expect_err("no answer");
    assert_eq!(exit.code, Exit::UNAVAILABLE);
}

#[test]
fn missing_or_incoherent_server_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().expect("a connection").0;
        let _ = stream.write_all(b"SSH-2.0-x\r\n\r\n");
    });
    let admin =
        AdminClient::find(Path::new("/"), Some(&address), Some("k1".into())).expect("all given");
    for _ in 0..2 {
        let exit = admin.send("{}".into()).expect_err("no server");
        assert_eq!(exit.code, Exit::UNAVAILABLE);
        assert!(
            exit.message.contains("h-realtime serve"),
            "{}",
            exit.message
        );
        assert!(!exit.message.contains("k1"), "{}", exit.message);
    }
    server.join().expect("the stub");
}

/// Reads one request, answers it, and returns it.
fn serve<S: Read + Write>(stream: &mut BufReader<S>, status: &str, body: &str) -> String {
    let request = read_request(stream);
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .get_mut()
        .write_all(answer.as_bytes())
        .expect("written");
    request
}

fn read_request<S: Read>(stream: &mut BufReader<S>) -> String {
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let start = request.len();
        stream.read_line(&mut request).expect("a line");
        let line = request[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut event = vec![0; length];
    stream.read_exact(&mut event).expect("the body");
    request.push_str(&String::from_utf8(event).expect("text"));
    request
}

//! Publishing with bodies of unknown length over the real admin listener, and with clients and
//! proxies that send such bodies.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{
    Client, PATIENCE, Program, Server, connect, event, eventually, free_port, http,
};

const PAGE: &str = "https://example.org/page";
/// The maximum length of a body, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Returns the head of a publish request, without its framing.
fn head(server: &Server, fields: &str) -> String {
    format!(
        "POST /events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{fields}\r\n",
        server.admin,
        server.publish_key()
    )
}

/// Returns a body in chunks of at most `size` bytes.
fn chunks(body: &str, size: usize) -> String {
    let chunk = |part: &[u8]| {
        let text = std::str::from_utf8(part).unwrap();
        format!("{:x}\r\n{text}\r\n", part.len())
    };
    let chunks: String = body.as_bytes().chunks(size).map(chunk).collect();
    chunks + "0\r\n\r\n"
}

fn reader(server: &Server) -> Client {
    let mut reader = server.anonymous();
    reader.subscribe("/uri", PAGE);
    reader
}

fn refusals(server: &Server, reason: &str) -> f64 {
    let name = format!("h_realtime_handshake_failures_total{{reason=\"{reason}\"}}");
    server.metric(&name)
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const LAST: &str = "Connection: close\r\n";

#[test]
fn chunked_events_are_published_in_any_fragmentation() {
    let server = Server::start();
    let mut reader = reader(&server);
    let body = event("create", json!({})).to_string();
    let with_trailers = chunks(&body, 100).replace("\r\n0\r\n", "\r\n0;a=b\r\nA: b\r\n");
    for chunks in [chunks(&body, 1), chunks(&body, MAX_BODY), with_trailers] {
        let first = head(&server, CHUNKED) + &chunks;
        let last = head(&server, &format!("{CHUNKED}{LAST}")) + &chunks;
        let requests = first + &last;
        for size in [1, requests.len()] {
            let mut stream = connect(server.admin);
            for piece in requests.as_bytes().chunks(size) {
                stream.write_all(piece).unwrap();
            }
            let mut answers = String::new();
            stream.read_to_string(&mut answers).unwrap();
            let count = answers.matches("HTTP/1.1 202 ").count();
            assert_eq!(count, 2, "{answers}");
            assert_eq!(reader.drain().len(), 2);
        }
    }
}

#[test]
fn chunked_bodies_have_the_same_limit() {
    let server = Server::start();
    let line = event("create", json!({})).to_string();
    let fields = format!("{CHUNKED}{LAST}");
    let most = format!("{line}{}", " ".repeat(MAX_BODY - line.len()));
    let request = head(&server, &fields) + &chunks(&most, 10_000);
    assert_eq!(http(server.admin, request.as_bytes()).0, 202);
    let request = head(&server, &fields) + &chunks(&format!("{most} "), 10_000);
    let (status, _, body) = http(server.admin, request.as_bytes());
    assert_eq!(status, 413);
    assert!(body.contains("must not exceed 1 MiB"), "{body}");
    // Refused by the announced chunk size, before any data has arrived.
    for size in ["100001", "ffffffffffffffff"] {
        let request = head(&server, CHUNKED) + size;
        assert_eq!(http(server.admin, request.as_bytes()).0, 413, "{size}");
    }
    let long = "a".repeat(9000);
    let extended = head(&server, CHUNKED) + &format!("1;{long}\r\n");
    assert_eq!(http(server.admin, extended.as_bytes()).0, 413);
    let trailed = head(&server, CHUNKED) + &format!("0\r\nA: {long}\r\n\r\n");
    assert_eq!(http(server.admin, trailed.as_bytes()).0, 431);
    assert_eq!(refusals(&server, "too_large"), 5.0);
}

#[test]
fn publishing_requires_length_or_chunks() {
    let server = Server::start();
    let (status, answer, body) = http(server.admin, head(&server, "").as_bytes());
    assert_eq!(status, 411);
    assert!(answer.contains("\r\nConnection: close"), "{answer}");
    assert!(body.contains("Content-Length"), "{body}");
    let other = head(&server, "Transfer-Encoding: gzip, chunked\r\n");
    let (status, answer, body) = http(server.admin, other.as_bytes());
    assert_eq!(status, 501);
    assert!(answer.contains("\r\nConnection: close"), "{answer}");
    assert!(body.contains("chunked"), "{body}");
    assert_eq!(refusals(&server, "no_length"), 1.0);
    assert_eq!(refusals(&server, "coding"), 1.0);
    // Without the key nothing else is checked.
    let stranger = head(&server, "").replace("Bearer ", "Bearer x");
    assert_eq!(http(server.admin, stranger.as_bytes()).0, 401);
}

#[test]
fn expect_100_continue_with_chunks_gets_100_or_a_refusal() {
    let server = Server::start();
    let mut reader = reader(&server);
    let fields = format!("{CHUNKED}{LAST}Expect: 100-continue\r\n");
    let mut stream = connect(server.admin);
    stream.write_all(head(&server, &fields).as_bytes()).unwrap();
    let mut permission = [0; 25];
    stream.read_exact(&mut permission).unwrap();
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    let body = event("create", json!({})).to_string();
    stream.write_all(chunks(&body, 7).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(reader.drain().len(), 1);
    let wrong = head(&server, &fields).replace("Bearer ", "Bearer x");
    assert_eq!(http(server.admin, wrong.as_bytes()).0, 401);
}

#[test]
fn expectation_of_an_http_1_0_request_is_ignored() {
    let server = Server::start();
    let mut reader = reader(&server);
    let body = event("create", json!({})).to_string();
    let fields = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
    let head = head(&server, &fields).replace("HTTP/1.1", "HTTP/1.0");
    let mut stream = connect(server.admin);
    stream.write_all(head.as_bytes()).unwrap();
    // The head has been processed once a later request is answered.
    let get = format!(
        "GET /livez HTTP/1.1\r\nHost: {}\r\n{LAST}\r\n",
        server.admin
    );
    assert_eq!(http(server.admin, get.as_bytes()).0, 200);
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(reader.drain().len(), 1);
}

#[test]
fn responses_announce_the_keep_alive_timeout() {
    let server = Server::configured("[timeouts]\nhandshake = \"3500ms\"");
    let mut client = Client::raw(connect(server.admin));
    let host = server.admin;
    let get = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let body = event("create", json!({})).to_string();
    let post = head(&server, CHUNKED) + &chunks(&body, 50);
    for (request, status) in [(get.clone(), 200), (post, 202), (get, 200)] {
        client.send_raw(request.as_bytes());
        let answer = client.answer(false).unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.field("Keep-Alive"), Some("timeout=3"));
        assert_eq!(answer.field("Connection"), Some("keep-alive"));
    }
    let last = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n{LAST}\r\n");
    client.send_raw(last.as_bytes());
    let answer = client.answer(false).unwrap();
    assert_eq!(answer.field("Keep-Alive"), None);
    assert_eq!(answer.field("Connection"), Some("close"));
}

/// Lets curl publish its standard input; returns the response.
fn curl(server: &Server, to: SocketAddr, args: &[&str], body: &str) -> Value {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--http1.1"])
        .args(["--header", &format!("Host: {}", server.admin)])
        .args(["--oauth2-bearer", &server.publish_key()])
        .args(args)
        .arg(format!("http://{to}/events"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const IN_CHUNKS: [&str; 4] = [
    "--header",
    "Transfer-Encoding: chunked",
    "--data-binary",
    "@-",
];
const UPLOAD: [&str; 4] = ["--request", "POST", "--upload-file", "-"];

#[test]
#[ignore = "needs curl"]
fn curl_publishes_bodies_of_unknown_length() {
    let server = Server::start();
    let mut reader = reader(&server);
    let line = event("create", json!({})).to_string();
    let many = format!("{line}\n").repeat(2000);
    for args in [&IN_CHUNKS[..], &UPLOAD] {
        let answer = curl(&server, server.admin, args, &line);
        assert_eq!(answer, json!({"accepted": 1, "matched": 1}), "{args:?}");
        assert_eq!(reader.drain().len(), 1);
        let answer = curl(&server, server.admin, args, &many);
        assert_eq!(answer["accepted"], 2000, "{args:?}");
        assert_eq!(reader.drain().len(), 2000);
        let large = " ".repeat(MAX_BODY + 1);
        let answer = curl(&server, server.admin, args, &large);
        assert_eq!(answer["error"], "too_large", "{args:?}");
    }
}

/// nginx forwards a body as it arrives, in chunks if the client sends chunks.
#[test]
#[ignore = "needs nginx and curl"]
fn nginx_without_request_buffering_forwards_chunks() {
    let server = Server::start();
    let mut reader = reader(&server);
    let folder = tempfile::tempdir().unwrap();
    let here = format!("{}/", folder.path().display());
    let port = free_port();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {here}{kind};\n"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {here}pid; error_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{port};\n\
         location / {{\nproxy_pass http://{};\nproxy_http_version 1.1;\n\
         proxy_set_header Connection '';\nproxy_request_buffering off;\n}}\n}}\n}}\n",
        server.admin
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.args(["-e", "stderr", "-p", &here, "-c"]).arg(file);
    let _nginx = Program::start(&mut command);
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    eventually(PATIENCE, || std::net::TcpStream::connect(address).ok());
    let line = event("create", json!({})).to_string();
    for args in [&IN_CHUNKS[..], &UPLOAD] {
        let answer = curl(&server, address, args, &line);
        assert_eq!(answer, json!({"accepted": 1, "matched": 1}), "{args:?}");
        assert_eq!(reader.drain().len(), 1);
    }
    assert_eq!(refusals(&server, "malformed"), 0.0);
}

//! `forward` keeps its connection to the receiver open between requests, and loses or repeats no
//! event if the receiver closes it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::forward::publish;
use crate::support::{PATIENCE, PROGRAM, Program, Server, eventually, http};

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// A receiver whose connections are accepted and used one by one.
struct Site {
    listener: TcpListener,
    server: Server,
    folder: TempDir,
}

/// A connection to the receiver.
struct Connection(BufReader<TcpStream>);

impl Site {
    fn new() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Site {
            listener,
            server: Server::start(),
            folder: TempDir::new().unwrap(),
        }
    }

    fn forward(&self, args: &[&str]) -> Program {
        let program = self.start(args);
        program.wait_for_error_line("connected");
        program
    }

    fn start(&self, args: &[&str]) -> Program {
        let hook = format!("http://{}/hook", self.listener.local_addr().unwrap());
        let (url, state) = (&self.server.listeners[0], self.folder.path().join("state"));
        let mut command = Command::new(PROGRAM);
        command.args(["forward", url, "--url", &hook, "--group", "__world__"]);
        Program::start(command.arg("--state").arg(state).args(args))
    }

    fn publish(&self, id: &str) {
        publish(&self.server, "create", json!({ "id": id }));
    }

    fn accept(&self) -> Connection {
        let (stream, _) = eventually(PATIENCE, || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(BufReader::new(stream))
    }
}

impl Connection {
    /// Returns the `webhook-id` and the body of the next request.
    fn request(&mut self) -> (String, String) {
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the end");
            match line.trim_end().split_once(": ") {
                Some(("webhook-id", value)) => value.clone_into(&mut id),
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (id, String::from_utf8(body).unwrap())
    }

    /// Reads the request with the event `id`, and responds.
    fn answer(&mut self, id: &str, response: &[u8]) {
        let (_, body) = self.request();
        assert!(body.contains(&format!("\"{id}\"")), "{id}: {body}");
        self.0.get_mut().write_all(response).unwrap();
    }
}

// Events of one annotation are sent one after another, those of several at the same time, on
// several connections.
#[test]
fn successive_requests_share_a_connection() {
    let site = Site::new();
    let _program = site.forward(&[]);
    site.publish("A");
    let mut connection = site.accept();
    connection.answer("A", NO_CONTENT);
    for response in [
        NO_CONTENT,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
    ] {
        site.publish("A");
        connection.answer("A", response);
    }
}

#[test]
fn connection_closed_while_idle_is_replaced_without_a_failure() {
    let site = Site::new();
    let program = site.start(&["--metrics", "127.0.0.1:0"]);
    let line = program.wait_for_error_line("metrics: http://");
    let address = line.trim_start_matches("metrics: http://");
    let address = address.trim_end_matches("/metrics").parse().unwrap();
    program.wait_for_error_line("connected");
    for id in ["A", "B", "C"] {
        site.publish(id);
        site.accept().answer(id, NO_CONTENT);
    }
    eventually(PATIENCE, || {
        let (_, _, text) = http(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let has = |series: &str| text.contains(&format!("\nh_realtime_forward_{series}\n"));
        // Each event was sent once.
        (has("delivered_total 3") && has("requests_total 3")).then_some(())
    });
}

#[test]
fn request_without_a_response_on_a_kept_connection_is_sent_again_at_once() {
    let site = Site::new();
    let program = site.forward(&["--retry-delay", "1h"]);
    site.publish("A");
    let mut connection = site.accept();
    connection.answer("A", NO_CONTENT);
    site.publish("A");
    let first = connection.request();
    drop(connection);
    // Long before the delay of failures.
    let mut connection = site.accept();
    assert_eq!(connection.request(), first);
    connection.0.get_mut().write_all(NO_CONTENT).unwrap();
    // On a new connection, it is a failure.
    site.publish("A");
    let second = connection.request();
    drop(connection);
    let mut connection = site.accept();
    assert_eq!(connection.request(), second);
    drop(connection);
    program.wait_for_error_line("closed the connection without a complete response");
}

#[test]
fn response_to_no_request_acknowledges_nothing() {
    let site = Site::new();
    let _program = site.forward(&[]);
    site.publish("A");
    let mut connection = site.accept();
    connection.answer("A", &[NO_CONTENT, NO_CONTENT].concat());
    // The event that follows is not lost: its request is on a connection of its own.
    site.publish("B");
    site.accept().answer("B", NO_CONTENT);
}

//! The chat server in `examples`: rooms, the subprotocol, announcements, slow readers, and shutdown.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket, client};

struct Chat {
    child: Child,
    address: String,
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Chat {
    fn start() -> Self {
        let mut child = Command::new(example())
            .arg("127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let address = address.to_owned();
        Chat { child, address }
    }

    fn connect(
        &self,
        target: &str,
        protocol: Option<&str>,
    ) -> Result<WebSocket<TcpStream>, String> {
        let url = format!("ws://{}{target}", self.address);
        let mut request = ClientRequestBuilder::new(url.parse().unwrap());
        if let Some(protocol) = protocol {
            request = request.with_sub_protocol(protocol);
        }
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let (socket, response) = client(request, stream).map_err(|error| error.to_string())?;
        let field = response.headers().get("X-Chat-Room").unwrap();
        assert!(target[1..].starts_with(field.to_str().unwrap()));
        Ok(socket)
    }

    fn join(&self, target: &str) -> WebSocket<TcpStream> {
        self.connect(target, Some("chat.v1")).unwrap()
    }
}

fn text(socket: &mut WebSocket<TcpStream>) -> String {
    socket.read().unwrap().into_text().unwrap().to_string()
}

fn example() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder: &Path = program.parent().unwrap().parent().unwrap();
    let program = folder.join("examples/chat");
    assert!(
        program.exists(),
        "this test needs {}: cargo test builds it, unless --test is given",
        program.display()
    );
    program
}

#[test]
fn messages_reach_the_room_and_announcements_all_rooms() {
    let mut chat = Chat::start();
    let mut alice = chat.join("/tea?nick=alice");
    assert_eq!(text(&mut alice), "* welcome to tea; members: 1");
    assert_eq!(text(&mut alice), "* alice joins");
    let mut bob = chat.join("/tea?nick=bob");
    assert_eq!(text(&mut bob), "* welcome to tea; members: 2");
    assert_eq!(text(&mut bob), "* bob joins");
    assert_eq!(text(&mut alice), "* bob joins");
    let mut carol = chat.join("/coffee?nick=carol");
    assert_eq!(text(&mut carol), "* welcome to coffee; members: 1");
    assert_eq!(text(&mut carol), "* carol joins");
    bob.send(Message::text("hello")).unwrap();
    for socket in [&mut alice, &mut bob] {
        assert_eq!(text(socket), "bob: hello");
    }
    chat.child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"closing soon\n")
        .unwrap();
    for socket in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(text(socket), "! closing soon");
    }
    bob.close(None).unwrap();
    assert_eq!(text(&mut alice), "* bob leaves (client)");
    kill_process(Pid::from_child(&chat.child), Signal::INT).unwrap();
    let close = alice.read().unwrap();
    let Message::Close(Some(frame)) = close else {
        panic!("{close:?} instead of a close frame");
    };
    assert_eq!(u16::from(frame.code), 1012);
    drop((alice, bob, carol));
    assert!(chat.child.wait().unwrap().success());
}

#[test]
fn clients_without_a_name_or_the_subprotocol_are_rejected() {
    let chat = Chat::start();
    for (target, protocol) in [
        ("/tea?nick=alice", None),
        ("/tea?nick=alice", Some("chat.v2")),
        ("/tea", Some("chat.v1")),
        ("/?nick=alice", Some("chat.v1")),
    ] {
        let error = chat.connect(target, protocol).unwrap_err();
        assert!(error.contains("400"), "{target}: {error}");
    }
}

#[test]
fn slow_reader_misses_messages_and_is_told_how_many() {
    let chat = Chat::start();
    let mut slow = chat.join("/tea?nick=slow");
    assert_eq!(text(&mut slow), "* welcome to tea; members: 1");
    assert_eq!(text(&mut slow), "* slow joins");
    let mut fast = chat.join("/tea?nick=fast");
    let long = "x".repeat(30_000);
    let count = 1_000;
    for _ in 0..count {
        fast.send(Message::text(long.clone())).unwrap();
        while !text(&mut fast).starts_with("fast: ") {}
    }
    let (mut received, mut missed) = (0, 0);
    while received + missed < count {
        match text(&mut slow) {
            message if message.starts_with("fast: ") => received += 1,
            notice if notice.starts_with("* you missed ") => {
                missed += notice.split(' ').nth(3).unwrap().parse::<u64>().unwrap();
            }
            other => assert_eq!(other, "* fast joins"),
        }
    }
    assert!(missed > 0);
    // It takes part again.
    fast.send(Message::text("done")).unwrap();
    assert_eq!(text(&mut slow), "fast: done");
    drop(chat);
    assert!(matches!(
        slow.read(),
        Err(Error::Protocol(_) | Error::Io(_))
    ));
}

//! `listen` with servers that violate the protocol, send endlessly, or do not read: memory is
//! bounded, signals and the end of standard output are handled, and errors state the cause.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PROGRAM, scripted, switching};

const ANONYMOUS: &[u8] = br#"{"type":"whoyouare","userid":null,"ok":true,"reply_to":2}"#;

/// Runs a script on an upgraded connection.
fn server<T: Send + 'static>(
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    scripted(|mut stream, key| {
        let answer = switching(&key, "Upgrade", "");
        stream.write_all(answer.as_bytes()).unwrap();
        script(stream)
    })
}

/// Returns a frame of at most 65,535 bytes; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(length),
        _ => {
            frame.push(126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn listen(url: &str, args: &[&str]) -> Child {
    Command::new(PROGRAM)
        .args(["listen", url, "--group", "g"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the exit code, standard output, and standard error of a run with a server that sends
/// `bytes`.
fn ended(bytes: Vec<u8>, args: &[&str]) -> (Option<i32>, String, String) {
    let (url, server) = server(move |mut stream| {
        // The client may exit before it has read everything.
        let _ = stream.write_all(&bytes);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let output = listen(&url, args).wait_with_output().unwrap();
    server.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Returns the peak resident size in KiB.
fn peak(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.unwrap().trim().trim_end_matches(" kB");
    size.parse().unwrap()
}

/// Servers that send endlessly: the first bytes, and the repeated ones.
fn floods() -> [(&'static str, Vec<u8>, Vec<u8>); 3] {
    [
        (
            "empty fragments",
            frame(0x01, b""),
            // Keeps the message below the limit while the test runs.
            frame(0x00, b"").repeat(16),
        ),
        ("pings", Vec::new(), frame(0x89, &[b'p'; 125]).repeat(100)),
        ("messages", Vec::new(), frame(0x81, b"{}").repeat(100)),
    ]
}

/// Runs `listen` with each flood, ends it with `end` once it is connected, and expects exit code 0.
fn end_in_floods(end: impl Fn(&mut Child)) {
    for (name, first, again) in floods() {
        let (url, server) = server(move |mut stream| {
            let first = [frame(0x81, ANONYMOUS), first].concat();
            let mut sent = stream.write_all(&first);
            while sent.is_ok() {
                sent = stream.write_all(&again);
            }
        });
        let mut child = listen(&url, &[]);
        let mut status = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        status.read_line(&mut line).unwrap();
        assert_eq!(line, "connected, anonymous\n", "{name}");
        // Its messages must not fill the pipe.
        let rest = thread::spawn(move || std::io::copy(&mut status, &mut std::io::sink()));
        end(&mut child);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        server.join().unwrap();
        rest.join().unwrap().unwrap();
    }
}

#[test]
fn signal_ends_the_command_during_floods() {
    end_in_floods(|child| kill_process(Pid::from_child(child), Signal::TERM).unwrap());
}

#[test]
fn closed_output_ends_the_command_during_floods() {
    end_in_floods(|child| drop(child.stdout.take()));
}

#[test]
fn closed_output_ends_the_command_while_it_waits_to_reconnect() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let mut child = listen(&url, &[]);
    let mut stream = listener.accept().unwrap().0;
    let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes()).unwrap();
    let mut status = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    status.read_line(&mut line).unwrap();
    assert!(line.contains("responded with 503"), "{line}");
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn unread_pongs_use_bounded_memory() {
    let (url, server) = server(|mut stream| {
        stream.write_all(&frame(0x81, ANONYMOUS)).unwrap();
        let pings = frame(0x89, &[b'p'; 125]).repeat(100);
        for _ in 0..2500 {
            stream.write_all(&pings).unwrap();
        }
        stream
    });
    let mut child = listen(&url, &[]);
    let mut line = String::new();
    let mut status = BufReader::new(child.stderr.take().unwrap());
    status.read_line(&mut line).unwrap();
    let before = peak(&child);
    // All pings but those in the kernel's buffers have been read: 32 MB of pongs.
    let _unread = server.join().unwrap();
    let grown = peak(&child) - before;
    assert!(grown < 8 * 1024, "{grown} KiB");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn violations_of_the_protocol_are_named_as_the_servers_and_may_be_retried() {
    let violates = "the server violated the WebSocket protocol: ";
    for (bytes, what) in [
        (
            frame(0x88, &999u16.to_be_bytes()),
            "its close frame has an invalid code",
        ),
        (
            frame(0x88, &1005u16.to_be_bytes()),
            "its close frame has an invalid code",
        ),
        (frame(0x88, b"\x03"), ""),
        (frame(0x81, b"\xff\xfe"), "a text message is not UTF-8"),
        (frame(0xF1, b"a"), ""),
        (frame(0x80, b"a"), ""),
        (b"\x81\x81aaaa\0".to_vec(), ""),
    ] {
        let (code, _, printed) = ended(bytes.clone(), &["--no-reconnect"]);
        assert_eq!(code, Some(69), "{printed}");
        assert!(printed.contains(&format!("{violates}{what}")), "{printed}");
        assert!(!printed.contains("shorten them"), "{printed}");
        // The violation is retried.
        let (url, server) = server(move |mut stream| stream.write_all(&bytes).map(|()| stream));
        let mut child = listen(&url, &[]);
        let mut line = String::new();
        let mut status = BufReader::new(child.stderr.take().unwrap());
        status.read_line(&mut line).unwrap();
        assert!(
            line.starts_with("reconnecting in ") && line.contains(violates),
            "{line}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        drop(server.join().unwrap());
    }
}

#[test]
fn close_code_1002_of_the_server_is_still_a_rejection() {
    let payload = [&1002u16.to_be_bytes()[..], b"no such frame"].concat();
    let (code, _, printed) = ended(frame(0x88, &payload), &[]);
    assert_eq!(code, Some(64), "{printed}");
    assert!(printed.contains("1002 no such frame"), "{printed}");
}

#[test]
fn length_of_a_message_is_bounded_with_all_its_fragments() {
    let long = [frame(0x01, b"x"), frame(0x00, &[b'y'; 60_000]).repeat(300)].concat();
    let mut giant = vec![0x81, 127];
    giant.extend((1u64 << 40).to_be_bytes());
    for bytes in [long, giant] {
        let (code, _, printed) = ended(bytes, &["--no-reconnect"]);
        assert_eq!(code, Some(69), "{printed}");
        assert!(
            printed.contains("a message of more than 16 MiB"),
            "{printed}"
        );
    }
    let empty = [frame(0x01, b""), frame(0x00, b"").repeat(9 << 20)].concat();
    let (code, _, printed) = ended(empty, &["--no-reconnect"]);
    assert_eq!(code, Some(69), "{printed}");
    assert!(printed.contains("an endless message"), "{printed}");
}

#[test]
fn bidirectional_controls_are_escaped_in_messages_and_kept_in_events() {
    let event = "{\"type\":\"session-change\",\"name\":\"a\u{202e}b\u{200b}c\u{9b}\"}";
    let identity = r#"{"type":"whoyouare","userid":"acct:\u202ejoe\u0085@example.org"}"#;
    let other = "{\"type\":\"pong\",\"text\":\"a\u{2066}b\"}";
    let frames = [identity, other, event].map(|text| frame(0x81, text.as_bytes()));
    let (code, events, printed) = ended(frames.concat(), &["--count", "1"]);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(events, format!("{event}\n"));
    assert_eq!(
        printed,
        "connected as acct:\\u{202e}joe @example.org\n\
         reply: {\"type\":\"pong\",\"text\":\"a\\u{2066}b\"}\n"
    );
}

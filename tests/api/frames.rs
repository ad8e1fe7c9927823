//! RFC 6455 from the client's side: frames, messages, and the end of connections. Section numbers
//! refer to that document.

use std::time::Instant;

use h_realtime_engine::ws::{OpCode, encode_client_frame};

use crate::support::{Client, PATIENCE, Received, Server};

#[test]
fn fragmented_messages_are_accepted() {
    let server = Server::start();
    let mut client = server.anonymous();
    for (frames, answers) in [
        (
            &[
                (0x01, r#"{"type":"#),
                (0x00, r#""ping""#),
                (0x80, r#","id":1}"#),
            ][..],
            &["1"][..],
        ),
        (
            &[(0x02, r#"{"type":"ping""#), (0x80, r#","id":2}"#)],
            &["2"],
        ),
        (
            &[
                (0x01, ""),
                (0x00, ""),
                (0x00, r#"{"type":"ping","id":3}"#),
                (0x80, ""),
            ],
            &["3"],
        ),
        // Control frames between the fragments are answered at once.
        (
            &[
                (0x01, r#"{"type":"ping","#),
                (0x89, "a"),
                (0x8A, "b"),
                (0x89, ""),
                (0x80, r#""id":4}"#),
            ],
            &["pong a", "pong ", "4"],
        ),
        (
            &[(0x89, "alone"), (0x8A, "unasked"), (0x8A, "")],
            &["pong alone"],
        ),
        (
            &[
                (0x81, r#"{"type":"ping","id":5}"#),
                (0x82, r#"{"type":"ping","id":6}"#),
            ],
            &["5", "6"],
        ),
    ] {
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|&(first, text)| frame(first, text))
            .collect();
        // In one piece, in pieces across frame boundaries, and byte by byte.
        for size in [bytes.len(), 7, 1] {
            bytes.chunks(size).for_each(|chunk| client.send_raw(chunk));
            for answer in answers {
                let want = match answer.strip_prefix("pong ") {
                    Some(payload) => Received::Pong(payload.into()),
                    None => pong(answer),
                };
                assert_eq!(client.receive(), want, "{frames:?} by {size}");
            }
        }
    }
    // A fragment may end within a character.
    let text = "{\"type\":\"☃\",\"id\":7}".as_bytes();
    for cut in 9..=12 {
        client.send_frame(false, OpCode::Text, &text[..cut]);
        client.send_frame(true, OpCode::Continuation, &text[cut..]);
        let error = client.json();
        assert_eq!(
            error["error"]["description"],
            r#"invalid message type: "\u2603""#
        );
    }
    assert_eq!(client.drain(), []);
}

#[test]
fn payload_lengths_at_every_boundary_are_accepted() {
    let server = Server::start();
    let mut client = server.anonymous();
    for length in [30, 125, 126, 127, 128, 1000, 65_535, 65_536] {
        client.send(&ping_of_length(length, 1));
        assert_eq!(client.receive(), pong("1"), "{length}");
    }
    for length in [0, 1, 124, 125] {
        client.send_frame(true, OpCode::Ping, &vec![b'x'; length]);
        assert_eq!(client.receive(), Received::Pong(vec![b'x'; length]));
    }
}

// W13
#[test]
fn close_frame_is_answered_and_the_stream_ended() {
    let server = Server::start();
    let echoed = |code: u16, reason: &str| {
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        (payload, Some((code, reason.to_owned())))
    };
    let failed =
        |payload: &[u8], code, reason: &str| (payload.to_vec(), Some((code, reason.to_owned())));
    let longest = "é".repeat(61) + "r";
    let mut table = vec![
        (Vec::new(), None),
        echoed(1000, ""),
        echoed(1000, "because"),
        echoed(1000, &longest),
        echoed(4999, "ünïcödé"),
        failed(b"\x03", 1002, "close payload of one byte"),
        failed(b"\x03\xe8\xff", 1007, "close reason is not UTF-8"),
        failed(b"\x03\xe8\xed\xa0\x80", 1007, "close reason is not UTF-8"),
    ];
    for code in [
        1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
    ] {
        table.push(echoed(code, "because"));
    }
    for code in [
        0_u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        table.push(failed(&code.to_be_bytes(), 1002, "invalid close code"));
    }
    for (payload, answer) in table {
        // Requests before the close frame are answered, later ones are not.
        let mut client = server.anonymous();
        client.send(r#"{"type":"ping","id":1}"#);
        let close = frame_of_bytes(0x88, &payload);
        let late = frame(0x81, r#"{"type":"ping","id":2}"#);
        client.send_raw(&[close, late].concat());
        assert_eq!(client.receive(), pong("1"));
        assert_eq!(client.receive(), Received::Close(answer), "{payload:x?}");
        client.expect_end();
    }
    // Also in the middle of a message.
    let mut client = server.anonymous();
    client.send_frame(false, OpCode::Text, b"{");
    client.close(1000, "x");
    assert_eq!(
        client.receive(),
        Received::Close(Some((1000, "x".to_owned())))
    );
    client.expect_end();
}

// CVE-2020-27813, CVE-2020-13935, CVE-2026-27889
#[test]
fn protocol_violation_ends_the_connection() {
    let server = Server::start();
    let mut count = 0.0;
    let table = [wrong_headers(), wrong_order(), wrong_text(), too_much()].concat();
    for (bytes, code, reason) in table {
        // Byte by byte if the input is short: the server must fail at the earliest possible byte.
        let sizes = if bytes.len() < 200 {
            &[usize::MAX, 1][..]
        } else {
            &[usize::MAX]
        };
        for &size in sizes {
            let mut client = server.anonymous();
            client.send_frame(true, OpCode::Ping, b"first");
            client.send(r#"{"type":"ping","id":1}"#);
            bytes
                .chunks(size.min(bytes.len()))
                .for_each(|chunk| client.send_raw(chunk));
            assert_eq!(client.receive(), Received::Pong(b"first".to_vec()));
            assert_eq!(client.receive(), pong("1"));
            let close = Received::Close(Some((code, reason.to_owned())));
            assert_eq!(
                client.receive(),
                close,
                "{:x?}",
                &bytes[..bytes.len().min(40)]
            );
            // The server does not wait for the client's close frame.
            client.expect_end();
            count += 1.0;
        }
    }
    assert_eq!(
        server.metric(r#"h_realtime_disconnects_total{reason="protocol"}"#),
        count
    );
}

#[test]
fn messages_are_limited_to_64_kib_and_1024_fragments() {
    let server = Server::start();
    let mut client = server.anonymous();
    let whole = ping_of_length(65_536, 1);
    // Many fragments, including empty ones.
    for count in [1, 2, 3, 512, 1024] {
        let size = whole.len().div_ceil(count);
        let mut bytes = Vec::new();
        for at in 0..count {
            let part = whole.get(at * size..).unwrap_or("");
            let part = &part[..part.len().min(size)];
            let fin = if at + 1 == count { 0x80 } else { 0 };
            bytes.extend(frame(fin | u8::from(at == 0), part));
        }
        client.send_raw(&bytes);
        assert_eq!(client.receive(), pong("1"), "{count} fragments");
    }
}

#[test]
fn message_limits_are_configurable() {
    let server = Server::configured("[limits]\nmessage = \"100B\"\nfragments = 3\n");
    let mut client = server.anonymous();
    client.send(&ping_of_length(100, 1));
    assert_eq!(client.receive(), pong("1"));
    client.send(&ping_of_length(101, 1));
    let close = Received::Close(Some((1009, "message is too big".to_owned())));
    assert_eq!(client.receive(), close);
    let mut client = server.anonymous();
    client.send_raw(&[frame(0x01, "{"), frame(0x00, "").repeat(3)].concat());
    let close = Received::Close(Some((1009, "too many fragments".to_owned())));
    assert_eq!(client.receive(), close);
}

// R5
#[test]
fn half_closed_client_gets_its_responses() {
    let server = Server::start();
    let mut client = server.anonymous();
    for id in 1..=3 {
        client.send(&format!(r#"{{"type":"ping","id":{id}}}"#));
    }
    client.half_close();
    for id in 1..=3 {
        assert_eq!(client.receive(), pong(&id.to_string()));
    }
    client.expect_end();
}

#[test]
fn pipelined_messages_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.anonymous();
    let bytes: Vec<u8> = (0..2000)
        .flat_map(|id| frame(0x81, &format!(r#"{{"type":"ping","id":{id}}}"#)))
        .collect();
    client.send_raw(&bytes);
    for id in 0..2000 {
        assert_eq!(client.receive(), pong(&id.to_string()));
    }
    assert_eq!(client.drain(), []);
}

/// Does not affect other connections.
#[test]
fn lost_connection_is_removed() {
    let server = Server::start();
    let mut other = server.anonymous();
    other.subscribe("/group", "__world__");
    let lost: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = server.anonymous();
            client.subscribe("/group", "__world__");
            client
        })
        .collect();
    drop(lost);
    let deadline = Instant::now() + PATIENCE;
    while server.metric(r#"h_realtime_connections{state="open"}"#) > 1.0 {
        assert!(Instant::now() < deadline, "the connections are still open");
        assert_eq!(other.drain(), []);
    }
    assert_eq!(server.metric("h_realtime_subscriptions"), 1.0);
    assert_eq!(
        server.metric(r#"h_realtime_disconnects_total{reason="lost"}"#),
        20.0
    );
}

/// The input, and the code and reason of the close frame.
type Violation = (Vec<u8>, u16, &'static str);

fn wrong_headers() -> Vec<Violation> {
    vec![
        // §5.2: reserved bits and opcodes.
        (frame(0xC1, "{}"), 1002, "reserved bits are set"),
        (frame(0xA1, "{}"), 1002, "reserved bits are set"),
        (frame(0x91, "{}"), 1002, "reserved bits are set"),
        (frame(0xC9, ""), 1002, "reserved bits are set"),
        (frame(0x83, "{}"), 1002, "unknown opcode"),
        (frame(0x87, ""), 1002, "unknown opcode"),
        (frame(0x8B, "{}"), 1002, "unknown opcode"),
        (frame(0x8F, ""), 1002, "unknown opcode"),
        // §5.1: every frame must be masked, even if it is empty.
        (b"\x81\x02{}".to_vec(), 1002, "frame is not masked"),
        (b"\x81\0".to_vec(), 1002, "frame is not masked"),
        (b"\x89\0".to_vec(), 1002, "frame is not masked"),
        (b"\x88\x02\x03\xe8".to_vec(), 1002, "frame is not masked"),
        // §5.5: control frames are short and not fragmented.
        (frame(0x09, "x"), 1002, "control frame is fragmented"),
        (frame(0x08, ""), 1002, "control frame is fragmented"),
        (
            frame(0x89, &"x".repeat(126)),
            1002,
            "control frame is too long",
        ),
        (
            frame(0x88, &"x".repeat(126)),
            1002,
            "control frame is too long",
        ),
        // §5.2: "the minimal number of bytes MUST be used to encode the length".
        (
            b"\x81\xfe\0\x02\0\0\0\0{}".to_vec(),
            1002,
            "length is not minimal",
        ),
        (b"\x81\xfe\0\x7d".to_vec(), 1002, "length is not minimal"),
        (
            b"\x81\xff\0\0\0\0\0\0\xff\xff".to_vec(),
            1002,
            "length is not minimal",
        ),
        (
            b"\x81\xff\x80\0\0\0\0\0\0\x05".to_vec(),
            1002,
            "top bit of the length is set",
        ),
        (
            b"\x82\xff\x80\0\0\0\0\0\0\0".to_vec(),
            1002,
            "top bit of the length is set",
        ),
        (
            b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            1002,
            "top bit of the length is set",
        ),
    ]
}

fn wrong_order() -> Vec<Violation> {
    let unfinished = frame(0x01, "{");
    let after_unfinished = |rest: Vec<u8>| [unfinished.clone(), rest].concat();
    vec![
        // §5.4: the order of fragments.
        (frame(0x80, "{}"), 1002, "nothing to continue"),
        (frame(0x00, "{}"), 1002, "nothing to continue"),
        (
            after_unfinished(frame(0x81, "{}")),
            1002,
            "message inside a message",
        ),
        (
            after_unfinished(frame(0x02, "{}")),
            1002,
            "message inside a message",
        ),
        (
            after_unfinished(frame(0xC0, "}")),
            1002,
            "reserved bits are set",
        ),
    ]
}

fn wrong_text() -> Vec<Violation> {
    vec![
        // §8.1: text must be UTF-8; detected at the first invalid byte.
        (frame_of_bytes(0x81, b"\xff"), 1007, "text is not UTF-8"),
        (
            frame_of_bytes(0x81, b"\"\xed\xa0\x80\""),
            1007,
            "text is not UTF-8",
        ),
        (
            frame_of_bytes(0x81, b"\"\xc0\x80\""),
            1007,
            "text is not UTF-8",
        ),
        (
            frame_of_bytes(0x81, b"\"\xf4\x90\x80\x80\""),
            1007,
            "text is not UTF-8",
        ),
        (
            frame_of_bytes(0x81, b"\"\xe2\x98"),
            1007,
            "text is not UTF-8",
        ),
        (
            frame_of_bytes(0x01, b"\"\xe2\x28"),
            1007,
            "text is not UTF-8",
        ),
        (
            [
                frame_of_bytes(0x01, b"\"\xe2"),
                frame_of_bytes(0x00, b"\x28"),
            ]
            .concat(),
            1007,
            "text is not UTF-8",
        ),
    ]
}

fn too_much() -> Vec<Violation> {
    vec![
        // Too large; detected as soon as it is announced.
        (
            b"\x81\xff\0\0\0\0\0\x01\0\x01\0\0\0\0".to_vec(),
            1009,
            "message is too big",
        ),
        (
            b"\x82\xff\0\0\x01\0\0\0\0\0\0\0\0\0".to_vec(),
            1009,
            "message is too big",
        ),
        (
            b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
            1009,
            "message is too big",
        ),
        // The sum of the lengths overflows any integer.
        (
            [
                &frame(0x01, "{")[..],
                b"\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
            ]
            .concat(),
            1009,
            "message is too big",
        ),
        (
            [frame(0x01, &"x".repeat(65_536)), frame(0x80, "x")].concat(),
            1009,
            "message is too big",
        ),
        (
            [frame(0x01, "{"), frame(0x00, "").repeat(1024)].concat(),
            1009,
            "too many fragments",
        ),
    ]
}

/// Returns a masked frame with this first byte.
fn frame(first: u8, payload: &str) -> Vec<u8> {
    frame_of_bytes(first, payload.as_bytes())
}

fn frame_of_bytes(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_client_frame(true, OpCode::Text, [0xA5, 1, 0, 0xFF], payload, &mut frame);
    frame[0] = first;
    frame
}

fn pong(id: &str) -> Received {
    Received::Text(format!(
        r#"{{"type": "pong", "ok": true, "reply_to": {id}}}"#
    ))
}

/// Returns a message of exactly this length.
fn ping_of_length(length: usize, id: u32) -> String {
    let empty = format!(r#"{{"type":"ping","id":{id},"":""}}"#);
    let filler = "x".repeat(length.saturating_sub(empty.len()));
    let text = empty.replace(r#""":"""#, &format!(r#""":"{filler}""#));
    assert!(text.len() == length || filler.is_empty());
    text
}

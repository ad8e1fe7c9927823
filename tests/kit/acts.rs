//! What a client does in a random operation: requests, messages, and violations of the protocol.

use crate::app::{BODY_LIMIT, pad};
use crate::client::Client;
use crate::frames::{deflate, handshake};

/// Sends a client's first bytes.
pub fn begin(client: &mut Client, kind: u8) {
    match kind {
        0..8 => client.send_handshake("/ws"),
        8..10 => client.send_handshake("/later"),
        // Every other one is answered later.
        10 if client.compresses => client.request_stream("/stream"),
        10 => client.request_stream("/stream-later"),
        11 => ask(client, 0),
        12 => ask(client, 3),
        13 => {
            client.behavior.is_wrong = true;
            client.raw("GET / HTTP/1.1\nHost: sim\n\n");
        }
        14 => {
            // An incomplete handshake.
            client.behavior.is_wrong = true;
            client.raw(&handshake("/ws")[..40]);
        }
        _ => {}
    }
}

/// Sends another request after the ones already sent.
pub fn ask(client: &mut Client, kind: u8) {
    let is_tunnel = client.expected.iter().any(|right| right.contains(&101));
    if client.behavior.is_wrong
        || client.behavior.has_finished
        || is_tunnel
        || client.has_requested_stream
    {
        return;
    }
    let body = BODY_LIMIT - 10 + usize::from(kind);
    let with_body = |expect| {
        let head =
            format!("POST /body HTTP/1.1\r\nHost: sim\r\nContent-Length: {body}{expect}\r\n\r\n");
        head + &pad(body)
    };
    // Every other body is chunked, with two large chunks.
    let in_chunks = |expect| {
        let head =
            format!("POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked{expect}\r\n\r\n");
        let (small, large) = (pad(body - 2900), pad(1450));
        let small: String = small
            .chars()
            .map(|byte| format!("1\r\n{byte}\r\n"))
            .collect();
        head + &format!("5aa;a=b\r\n{large}\r\n{small}5AA\r\n{large}\r\n0\r\nA: b\r\n\r\n")
    };
    let is_odd = client.expected.len() % 2 == 1;
    let with_body = |expect| {
        if is_odd {
            in_chunks(expect)
        } else {
            with_body(expect)
        }
    };
    match kind {
        5 => client.request("GET /key HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]),
        0..5 => client.request("GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]),
        6 => client.request("GET /big HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]),
        7 if client.expected.is_empty() && client.compresses => client.request_stream("/stream"),
        7 => client.request("GET /none HTTP/1.1\r\nHost: sim\r\n\r\n", &[404]),
        8 => client.request("GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]),
        9 => client.request(with_body(""), &[200]),
        10 => client.request(with_body("\r\nExpect: 100-continue"), &[200]),
        11 => client.request(with_body(""), &[413]),
        12 => client.send_handshake("/later"),
        13 => client.request("GET /ws HTTP/1.1\r\nHost: sim\r\n\r\n", &[400]),
        _ => client.send_handshake("/ws"),
    }
}

pub fn say(client: &mut Client, verb: u8, size: usize) {
    let verb = match verb {
        0..4 => "echo",
        4 if size.is_multiple_of(4) => "mixed",
        5 => "quiet",
        6..8 => "twice",
        8 => "self",
        9..11 => "all",
        11 => "let",
        12 => return client.binary(&vec![verb; size]),
        13 if size.is_multiple_of(8) => "bye",
        14 if size.is_multiple_of(8) => "kill",
        _ => "echo",
    };
    client.text(&format!("{verb} {}", pad(size)));
}

/// Violates the protocol in one of several ways.
pub fn violate(client: &mut Client, how: u8) {
    client.finish_part();
    client.behavior.is_wrong = true;
    match how {
        0 => client.frame(0xC1, b"reserved bit"),
        1 => client.frame(0x83, b"unknown opcode"),
        2 => client.frame(0x80, b"unexpected continuation"),
        3 => client.raw([0x81, 2, b'h', b'i']),
        4 => client.frame(0x81, &[0xFF, 0xFE]),
        5 => client.frame(0x82, &vec![0; 20_000]),
        6 => client.frame(0x88, &[3]),
        7 => client.frame(0x88, &1005_u16.to_be_bytes()),
        8 => client.frame(0x09, b"a fragmented ping"),
        9 => client.frame(0x89, &[0; 126]),
        10 => client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Data after a close frame.
        11 => {
            client.close(1000);
            client.frame(0x81, b"echo too late");
        }
        // A decompression bomb, or a reserved bit without compression.
        12 => client.frame(0xC2, &deflate(&vec![0; 1 << 17])),
        _ => client.frame(0x88, &[]),
    }
}

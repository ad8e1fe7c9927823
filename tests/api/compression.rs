//! Compression (RFC 7692) from the client's side.
#![cfg(feature = "deflate")]

use h_realtime_engine::ws::OpCode;
use serde_json::{Value, json};

use crate::support::{Client, Received, Server, deflate, event};

/// The offer of Chromium and Firefox.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

const NEGOTIATED: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn compressing(server: &Server) -> Client {
    Client::open(server.address(), "/ws", OFFER)
}

/// Returns the field of the response.
fn extensions(client: &Client) -> Option<&str> {
    let name = "Sec-WebSocket-Extensions: ";
    client.head.lines().find_map(|line| line.strip_prefix(name))
}

fn annotation(text: &str) -> String {
    event("create", json!({ "text": text })).to_string()
}

const PAGE: &str = "https://example.org/page";

#[test]
fn offers_get_the_expected_responses() {
    let server = Server::start();
    let with_window = |bits| format!("{NEGOTIATED}; server_max_window_bits={bits}");
    for (offer, want) in [
        (
            "permessage-deflate; client_max_window_bits",
            Some(NEGOTIATED.into()),
        ),
        (
            // Python's websockets, if configured.
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            Some(with_window(12)),
        ),
        (
            "permessage-deflate; server_max_window_bits=10",
            Some(with_window(10)),
        ),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=99", None),
        ("permessage-deflate; nonsense", None),
        (
            "permessage-deflate; nonsense, permessage-deflate",
            Some(NEGOTIATED.into()),
        ),
        (
            "permessage-deflate; server_max_window_bits=8\r\n\
             sec-websocket-extensions: permessage-deflate; server_max_window_bits=15",
            Some(with_window(12)),
        ),
        ("permessage-deflate; \"", None),
        ("", None),
    ] {
        let fields = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let mut client = Client::open(server.address(), "/ws", &fields);
        assert_eq!(extensions(&client), want.as_deref(), "{offer}");
        assert_eq!(client.drain(), [], "{offer}");
    }
}

#[test]
fn client_messages_may_be_compressed_or_not() {
    let server = Server::start();
    let mut client = compressing(&server);
    let ping = |id: u64| json!({"type": "ping", "id": id, "more": "x".repeat(1000)}).to_string();
    let pong = |id: u64| json!({"type": "pong", "ok": true, "reply_to": id});
    client.send_compressed(OpCode::Text, ping(1).as_bytes());
    client.send(&ping(2));
    client.send_compressed(OpCode::Binary, ping(3).as_bytes());
    // Fragmented; only the first fragment is marked as compressed.
    let data = deflate(ping(4).as_bytes());
    let (start, rest) = data.split_at(3);
    let mut first = vec![0x41, 0x80 | start.len() as u8, 0, 0, 0, 0];
    first.extend_from_slice(start);
    client.send_raw(&first);
    client.send_frame(true, OpCode::Ping, b"between");
    client.send_frame(true, OpCode::Continuation, rest);
    for id in 1..=3 {
        assert_eq!(client.json(), pong(id));
    }
    assert_eq!(client.receive(), Received::Pong(b"between".to_vec()));
    assert_eq!(client.json(), pong(4));
    assert_eq!(client.inflated, 0, "replies are not compressed");
    // Without compression, the same frame violates the protocol.
    let mut plain = server.anonymous();
    plain.send_rsv1(OpCode::Text, &deflate(ping(5).as_bytes()));
    assert!(matches!(plain.receive(), Received::Close(Some((1002, _)))));
}

// CVE-2018-1000518, CVE-2026-27571, CVE-2026-39804.
#[test]
fn decompression_bombs_end_their_connections_and_free_memory() {
    let server = Server::start();
    let bomb = deflate(&vec![b' '; 1 << 20]);
    assert!(bomb.len() < 1200);
    let throw = || {
        let mut client = compressing(&server);
        client.send_rsv1(OpCode::Text, &bomb);
        match client.receive() {
            Received::Close(Some((code, _))) => assert_eq!(code, 1009),
            other => panic!("{other:?}"),
        }
        client.close(1009, "");
        client.expect_end();
    };
    throw();
    let before = server.resident();
    (0..100).for_each(|_| throw());
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
    assert_eq!(
        server.metric("h_realtime_decompression_failures_total"),
        101.0
    );
    // The limit applies to the decompressed size, and a message of exactly that size is accepted.
    let mut client = compressing(&server);
    let message = json!({"type": "ping", "id": 1, "more": ""}).to_string();
    let missing = 64 * 1024 - message.len();
    let largest = message.replace("\"\"", &format!("\"{}\"", "x".repeat(missing)));
    client.send_compressed(OpCode::Text, largest.as_bytes());
    assert_eq!(client.json()["reply_to"], 1);
    client.send_compressed(OpCode::Text, format!("{largest} ").as_bytes());
    assert!(matches!(client.receive(), Received::Close(Some((1009, _)))));
}

#[test]
fn corrupt_data_and_invalid_text_end_the_connection() {
    let server = Server::start();
    for data in [
        &[6][..],
        &[],
        &[0xf2, 0x48, 0xcd],
        &deflate(b"{\"id\": \"\xff\"}"),
    ] {
        let mut client = compressing(&server);
        client.send_rsv1(OpCode::Text, data);
        match client.receive() {
            Received::Close(Some((code, _))) => assert_eq!(code, 1007, "{data:x?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn event_is_compressed_once_for_all_receivers() {
    let server = Server::start();
    let mut clients: Vec<Client> = (0..100).map(|_| compressing(&server)).collect();
    clients.push(server.anonymous());
    let small_window = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    clients.push(Client::open(server.address(), "/ws", small_window));
    clients
        .iter_mut()
        .for_each(|client| client.subscribe("/uri", PAGE));
    let (status, answer) = server.publish(&annotation("A text of some length. Lorem ipsum dolor."));
    assert_eq!((status, &answer["matched"]), (202, &json!(102)));
    let told: Vec<Value> = clients.iter_mut().map(Client::json).collect();
    assert!(told.iter().all(|message| *message == told[0]));
    assert_eq!(told[0]["type"], "annotation-notification");
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.inflated, usize::from(number < 100), "{number}");
    }
    assert_eq!(server.metric("h_realtime_compressions_total"), 1.0);
    let messages = "h_realtime_compressed_messages_total";
    assert_eq!(server.metric(messages), 100.0);
    // A delete event is too short to compress.
    let delete = event("delete", json!({})).to_string();
    assert_eq!(server.publish(&delete).0, 202);
    assert!(
        clients
            .iter_mut()
            .all(|client| client.json()["options"]["action"] == "delete")
    );
    assert_eq!(server.metric(messages), 100.0);
}

/// Messages about a single user are never compressed, however long they are.
#[test]
fn messages_about_a_single_user_are_not_compressed() {
    let server = Server::start();
    let userid = format!("acct:{}@example.org", "joe".repeat(9));
    let token = server.user(&userid);
    let fields = format!("{OFFER}Authorization: Bearer {token}\r\n");
    let mut client = Client::open(server.address(), "/ws", &fields);
    assert_eq!(extensions(&client), Some(NEGOTIATED));
    client.send_compressed(OpCode::Text, br#"{"type": "whoami", "id": 1}"#);
    assert_eq!(client.json()["userid"], userid);
    let groups: Vec<_> = (0..50).map(|n| json!({"id": n, "name": "group"})).collect();
    let model = json!({"userid": userid, "groups": groups, "features": {}, "preferences": {}});
    let change =
        json!({"topic": "user", "type": "group-join", "userid": userid, "session_model": model});
    assert_eq!(server.publish(&change.to_string()).0, 202);
    let told = client.json();
    assert_eq!(told["type"], "session-change");
    assert_eq!(told["model"]["groups"].as_array().unwrap().len(), 50);
    assert_eq!(client.inflated, 0);
    client.subscribe("/uri", PAGE);
    server.publish(&annotation("A text of some length. Lorem ipsum dolor."));
    assert_eq!(client.json()["type"], "annotation-notification");
    assert_eq!(client.inflated, 1);
}

#[test]
fn disabled_compression_is_not_negotiated() {
    let server = Server::configured("[compression]\nenabled = false\n");
    let mut client = compressing(&server);
    assert_eq!(extensions(&client), None);
    client.subscribe("/uri", PAGE);
    server.publish(&annotation("A text of some length. Lorem ipsum dolor."));
    assert_eq!(client.json()["type"], "annotation-notification");
    assert_eq!(client.inflated, 0);
    assert_eq!(server.metric("h_realtime_compressions_total"), 0.0);
}

//! Messages of clients and backends, as browsers, the official client, and h send them.

use h_realtime::model::{Candidates, Field, Plan};
use h_realtime_engine::http::{Block, Head, check_upgrade, parse_head};
use h_realtime_engine::ws::{
    Deflater, OpCode, encode_client_frame, encode_compressed, encode_frame,
};
use h_realtime_test_kit::api::{page_event, term};

/// The handshake of a program, without an offer of compression.
pub const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\n\
    Host: localhost:5001\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The handshake of a browser, with an offer of compression.
pub const BROWSER_HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\n\
    Host: h.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Origin: https://h.example.org\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Sec-Fetch-Mode: websocket\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    Upgrade: websocket\r\n\r\n";

pub const PING: &str = r#"{"type":"ping","id":1}"#;
pub const PONG: &str = r#"{"type": "pong", "ok": true, "reply_to": 1}"#;
pub const WHOAMI: &str = r#"{"type":"whoami","id":1}"#;
pub const CLIENT_ID: &str =
    r#"{"messageType":"client_id","value":"6f32b1c5-6e1d-4b0a-8e7a-52b6b2b0f3d1"}"#;

/// Returns a complete message in one masked client frame.
pub fn frame(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_client_frame(true, OpCode::Text, MASK, text.as_bytes(), &mut out);
    out
}

/// Returns a client's control frame.
pub fn control(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_client_frame(true, opcode, MASK, payload, &mut out);
    out
}

/// Leaks bytes to make them `'static`.
pub fn keep(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

/// Returns the URL of a page.
pub fn page(number: usize) -> String {
    format!("https://example.org/articles/2024/03/how-tides-work-{number}.html")
}

/// Returns the message that subscribes to these pages.
pub fn filter(pages: &[String]) -> String {
    format!(r#"{{"type":"filter","filter":{},"id":1}}"#, criteria(pages))
}

/// Returns the filter itself.
pub fn criteria(pages: &[String]) -> String {
    let pages: Vec<_> = pages.iter().map(|page| format!("\"{page}\"")).collect();
    format!(
        r#"{{"match_policy":"include_any","clauses":[{{"field":"/uri","operator":"one_of","value":[{}],"case_sensitive":true}}],"actions":{{"create":true,"update":true,"delete":true}}}}"#,
        pages.join(",")
    )
}

/// Returns the message that sets a filter with these clauses.
pub fn clauses(policy: &str, clauses: &str) -> String {
    format!(
        r#"{{"type":"filter","filter":{{"match_policy":"{policy}","clauses":[{clauses}],"actions":{{"create":true,"update":true,"delete":true}}}},"id":1}}"#
    )
}

/// Returns the event of a public annotation on a page with an author and tags, as a backend produces
/// it: 600 bytes.
pub fn tagged_event(page: &str) -> Plan {
    let mut plan = event(page);
    if let Candidates::Terms(terms) = &mut plan.candidates {
        terms.push(term(Field::User, "joe.bloggs"));
        terms.push(term(Field::User, "joe.bloggs@example.org"));
        terms.push(term(Field::Tags, "moon"));
        terms.push(term(Field::Tags, "tides"));
    }
    plan
}

/// Returns the event of a public annotation on a page, without an author and tags: 600 bytes.
pub fn event(page: &str) -> Plan {
    page_event(page, "AAAAAAAAAAAAAAAAAAAAAQ", &notification())
}

/// Returns the message of an event: 600 bytes.
pub fn notification() -> String {
    let mut text = String::from(
        r#"{"type": "annotation-notification", "options": {"action": "create"}, "payload": [{"id": "AAAAAAAAAAAAAAAAAAAAAQ", "created": "2024-03-05T10:11:12.131415+00:00", "updated": "2024-03-05T10:11:12.131415+00:00", "user": "acct:joe.bloggs@example.org", "uri": "https://example.org/articles/2024/03/how-tides-work-1.html", "group": "__world__", "tags": ["tides", "moon"], "permissions": {"read": ["group:__world__"]}, "text": ""#,
    );
    let prose = "The moon pulls at the water on its own side of the earth more than at the earth, \
        and at the earth more than at the water on the far side, which is why there are two tides \
        a day rather than one.";
    let end = r#""}]}"#;
    text.push_str(&prose[..NOTIFICATION - text.len() - end.len()]);
    text.push_str(end);
    text
}

/// Returns the size of a message on the wire to a client.
pub fn sent(text: &str) -> usize {
    let mut out = Vec::new();
    encode_frame(OpCode::Text, text.as_bytes(), &mut out);
    out.len()
}

/// Returns its compressed size.
pub fn sent_compressed(text: &str) -> usize {
    let (mut deflater, mut out) = (Deflater::default(), Vec::new());
    let data = deflater.deflate(text.as_bytes(), text.len());
    encode_compressed(OpCode::Text, data.expect("compressible text"), &mut out);
    out.len()
}

/// Returns the size of an event of an event stream, with its cursor.
pub fn sent_as_block(text: &str) -> usize {
    let cursor = "c".repeat(CURSOR);
    let block = Block {
        id: Some(&cursor),
        data: Some(text),
        ..Block::default()
    };
    let mut out = Vec::new();
    block.encode(&mut out);
    out.len()
}

/// Returns the size of a message with its cursor on the wire to a client.
pub fn sent_with_cursor(text: &str) -> usize {
    sent(text) + r#","cursor":"""#.len() + CURSOR
}

/// Returns the request for an event stream about a page.
pub fn stream_request(page: &str) -> Vec<u8> {
    format!("GET /sse?uri={page} HTTP/1.1\r\nHost: localhost:5001\r\n\r\n").into_bytes()
}

/// Returns the response to a handshake.
pub fn response(handshake: &[u8]) -> Vec<u8> {
    let head = parse_head(handshake, handshake.len(), check_upgrade);
    let mut out = Vec::new();
    match head {
        Ok(Head::Complete(Ok(upgrade))) => upgrade.encode(&mut out),
        _ => panic!("invalid handshake"),
    }
    out
}

/// The size of a cursor.
const CURSOR: usize = 36;
/// The size of an event's message.
pub const NOTIFICATION: usize = 600;
/// The clients' masking key.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

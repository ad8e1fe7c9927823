//! The server side of the opening handshake (RFC 6455 §4.2).

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::Request;
use super::extensions::{Deflate, negotiate};

/// A validated handshake: the data needed for the 101 response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: [u8; ACCEPT_LEN],
    deflate: Option<Deflate>,
    /// Additional header fields of the 101 response, encoded.
    fields: Vec<u8>,
}

/// The request is not a valid WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(
    /// The violated rule, for logging.
    pub &'static str,
);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid WebSocket handshake: {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl Upgrade {
    /// Encodes the `101 Switching Protocols` response.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\n\
              Upgrade: websocket\r\n\
              Connection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        out.extend_from_slice(b"\r\n");
        if let Some(deflate) = self.deflate {
            deflate.encode(out);
        }
        out.extend_from_slice(&self.fields);
        out.extend_from_slice(b"\r\n");
    }

    /// Selects the first of the `supported` subprotocols that the client offers, and names it in the
    /// 101 response. Returns `None` if the client offers none of them; the connection then has no
    /// subprotocol, and browsers that offered one close it.
    ///
    /// RFC 6455 §4.2.2: "the value chosen MUST be derived from the client's handshake, specifically
    /// by selecting one of the values from the |Sec-WebSocket-Protocol| field".
    ///
    /// ```
    /// use h_realtime_engine::http::{Head, check_upgrade, parse_head};
    ///
    /// let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    ///     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    ///     Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n\r\n";
    /// let parsed = parse_head(head, 1024, |request| {
    ///     let mut upgrade = check_upgrade(request).unwrap();
    ///     let selected = upgrade.select_protocol(request, &["chat.v2", "chat.v1"]);
    ///     assert_eq!(selected, Some("chat.v2"));
    /// });
    /// assert!(matches!(parsed, Ok(Head::Complete(()))));
    /// ```
    pub fn select_protocol<'p>(
        &mut self,
        request: &Request<'_>,
        supported: &[&'p str],
    ) -> Option<&'p str> {
        let is_offered = |name: &&str| request.protocols().any(|offer| offer == name.as_bytes());
        let selected = *supported.iter().find(|name| is_offered(name))?;
        self.add_field("Sec-WebSocket-Protocol", selected);
        Some(selected)
    }

    /// Adds a header field to the 101 response, for example `Set-Cookie`. Control characters in the
    /// value are dropped.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.add_field(name, &value.into());
        self
    }

    fn add_field(&mut self, name: &str, value: &str) {
        let text = value.chars().filter(|c| !c.is_control());
        let line = format!("{name}: {}\r\n", text.collect::<String>());
        self.fields.extend_from_slice(line.as_bytes());
    }

    /// Returns the compression parameters of the answer, if an offer was accepted.
    pub fn deflate(&self) -> Option<Deflate> {
        self.deflate
    }

    /// Declines all compression offers.
    pub fn decline_deflate(&mut self) {
        self.deflate = None;
    }
}

/// Validates a request against RFC 6455 §4.2.1, except the field `Host`, without which
/// [`parse_head`](super::parse_head) returns no request of HTTP/1.1, and computes the accept value of §4.2.2.
///
/// # Errors
/// [`Refused`], if the request is not a valid handshake. The caller should respond with a client
/// error and close the connection, because an intermediary may take it for a tunnel.
pub fn check_upgrade(request: &Request<'_>) -> Result<Upgrade, Refused> {
    // "The method of the request MUST be GET, and the HTTP version MUST be at least 1.1."
    if request.method != "GET" || request.minor_version != 1 {
        return Err(Refused("not a GET of HTTP/1.1"));
    }
    if request.framing.has_body() {
        return Err(Refused("a handshake has no body"));
    }
    // "An |Upgrade| header field containing the value "websocket", treated as an ASCII
    // case-insensitive value." It is a list (RFC 9110 §7.8).
    if !request.list_contains("upgrade", "websocket") {
        return Err(Refused("Upgrade has no websocket"));
    }
    // "A |Connection| header field that includes the token "Upgrade"".
    if !request.list_contains("connection", "upgrade") {
        return Err(Refused("Connection has no upgrade"));
    }
    // "A |Sec-WebSocket-Version| header field, with a value of 13."
    if request.header("sec-websocket-version") != Some(b"13") {
        return Err(Refused("Sec-WebSocket-Version is not 13"));
    }
    // "A |Sec-WebSocket-Key| header field with a base64-encoded value that, when decoded, is 16
    // bytes in length." Decoding is strict, because §4.1 specifies how the client generates the
    // value.
    let key = request
        .header("sec-websocket-key")
        .filter(|key| is_key(key))
        .ok_or(Refused("Sec-WebSocket-Key is not 16 bytes in base64"))?;
    Ok(Upgrade {
        accept: accept(key),
        deflate: negotiate(request.headers("sec-websocket-extensions")),
        fields: Vec::new(),
    })
}

fn is_key(key: &[u8]) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && matches!(STANDARD.decode_slice(key, &mut nonce), Ok(16))
}

/// Computes `Sec-WebSocket-Accept`. §4.2.2: "concatenating the value of the |Sec-WebSocket-Key|
/// header field … with the string
/// …, taking the SHA-1 hash of this concatenated value to obtain a 20-byte value and
/// base64-encoding".
fn accept(key: &[u8]) -> [u8; ACCEPT_LEN] {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut out = [0; ACCEPT_LEN];
    let written = STANDARD.encode_slice(sha1.finalize(), &mut out);
    debug_assert_eq!(written, Ok(ACCEPT_LEN));
    out
}

/// 20 bytes in base64.
const ACCEPT_LEN: usize = 28;

#[cfg(test)]
mod tests {
    use super::super::{Head, parse_head};
    use super::*;

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn check(head: &str) -> Result<Upgrade, Refused> {
        match parse_head(head.as_bytes(), 8192, check_upgrade) {
            Ok(Head::Complete(result)) => result,
            _ => panic!("{head:?} is no whole head"),
        }
    }

    #[test]
    fn rfc_6455_section_1_3_example() {
        let mut out = Vec::new();
        check(GOOD).unwrap().encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    }

    #[test]
    fn deflate_is_answered_if_offered_and_not_declined() {
        let head = GOOD.replace(
            "Host: a",
            "sec-websocket-extensions: x\r\nHost: a\r\nSec-WebSocket-Extensions: permessage-deflate",
        );
        let answer = |upgrade: &Upgrade| {
            let mut out = Vec::new();
            upgrade.encode(&mut out);
            String::from_utf8(out).unwrap()
        };
        let mut upgrade = check(&head).unwrap();
        let field = "\r\nSec-WebSocket-Extensions: permessage-deflate; \
                     server_no_context_takeover; client_no_context_takeover\r\n\r\n";
        assert!(answer(&upgrade).ends_with(field));
        upgrade.decline_deflate();
        assert_eq!(answer(&upgrade), answer(&check(GOOD).unwrap()));
    }

    #[test]
    fn first_supported_protocol_that_is_offered_is_selected() {
        let head = GOOD.replace(
            "Host: a",
            "Sec-WebSocket-Protocol: v1, v2\r\nHost: a\r\nsec-websocket-protocol: V3",
        );
        let answer = |supported: &[&'static str]| {
            let result = parse_head(head.as_bytes(), 8192, |request| {
                let mut upgrade = check_upgrade(request).unwrap();
                let selected = upgrade.select_protocol(request, supported);
                let mut out = Vec::new();
                upgrade.encode(&mut out);
                (selected, String::from_utf8(out).unwrap())
            });
            let Ok(Head::Complete(answer)) = result else {
                panic!("incomplete head");
            };
            answer
        };
        let (selected, text) = answer(&["v9", "v2", "v1"]);
        assert_eq!(selected, Some("v2"));
        assert!(text.ends_with("\r\nSec-WebSocket-Protocol: v2\r\n\r\n"));
        // Names of subprotocols are case-sensitive.
        let (selected, text) = answer(&["v3"]);
        assert_eq!(selected, None);
        assert!(!text.contains("Sec-WebSocket-Protocol"));
    }

    #[test]
    fn additional_fields_cannot_split_the_response() {
        let upgrade = check(GOOD).unwrap();
        let mut out = Vec::new();
        let upgrade = upgrade.with("Set-Cookie", "a=b\r\nX: y");
        upgrade.encode(&mut out);
        assert!(out.ends_with(b"\r\nSet-Cookie: a=bX: y\r\n\r\n"));
    }

    #[test]
    fn handshake_variants_are_accepted() {
        for (from, to) in [
            ("websocket", "WebSocket"),
            ("websocket", "h2c, websocket"),
            ("Connection: Upgrade", "connection: keep-alive, upgrade"),
            ("Host: a", "Content-Length: 0\r\nHost: a"),
        ] {
            assert!(check(&GOOD.replace(from, to)).is_ok(), "{to}");
        }
    }

    #[test]
    fn invalid_handshakes_are_rejected() {
        for (from, to) in [
            ("GET", "POST"),
            ("GET", "get"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Host: a", "Content-Length: 1\r\nHost: a"),
            ("Host: a", "Transfer-Encoding: chunked\r\nHost: a"),
            ("Upgrade: websocket\r\n", ""),
            ("websocket", "websocket2"),
            ("Connection: Upgrade\r\n", ""),
            ("Connection: Upgrade", "Connection: upgraded"),
            ("Sec-WebSocket-Version: 13\r\n", ""),
            ("Version: 13", "Version: 8"),
            ("Version: 13", "Version: +13"),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
            ("dGhlIHNhbXBsZSBub25jZQ==", ""),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"),
            (
                "dGhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        ] {
            assert!(check(&GOOD.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn refusal_gives_the_reason() {
        let text = Refused("no key").to_string();
        assert_eq!(text, "invalid WebSocket handshake: no key");
    }
}

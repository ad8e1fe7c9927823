//! The client side of the opening handshake of RFC 6455: the request, and the validation of the
//! response.
//!
//! The WebSocket library's own handshake rejects lists in `Connection`, ignores extensions that
//! were not offered, and has no timeout. Must not know sockets: the input is any reader that ends a
//! read at a deadline.

use std::io::{self, Read};

use tungstenite::handshake::derive_accept_key;
use tungstenite::http::{HeaderValue, Uri};

use crate::cli::sanitize::printable;

/// The head of a response, as far as the handshake needs it.
#[derive(Debug)]
pub(in crate::cli) struct ResponseHead {
    pub status: u16,
    reason: String,
    is_http_1_1: bool,
    fields: Vec<(String, Vec<u8>)>,
}

/// An invalid response.
#[derive(Debug)]
pub(in crate::cli) enum BadResponse {
    /// The connection failed or ended, before a complete head was received.
    Io(io::Error),
    /// The server closed the connection without a complete response.
    Ended { is_empty: bool },
    /// The bytes are those of TLS.
    Tls,
    /// The bytes are not HTTP, or too many.
    NotHttp {
        problem: String,
        /// The start of the bytes. A server that repeats what it receives repeats secrets.
        excerpt: Option<String>,
    },
}

impl From<io::Error> for BadResponse {
    fn from(error: io::Error) -> Self {
        BadResponse::Io(error)
    }
}

/// Returns the request to upgrade to a WebSocket at `uri`. The token is sent unchanged.
pub(super) fn request(uri: &Uri, key: &str, token: Option<&HeaderValue>) -> Vec<u8> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    get_request(uri, target, &fields, token)
}

/// Returns a GET request for `target` on the host of `uri`. Each of `fields` ends with CRLF.
pub(super) fn get_request(
    uri: &Uri,
    target: &str,
    fields: &str,
    token: Option<&HeaderValue>,
) -> Vec<u8> {
    let host = uri
        .authority()
        .map_or("localhost", |authority| authority.as_str());
    let version = env!("CARGO_PKG_VERSION");
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}User-Agent: h-realtime/{version}\r\n"
    )
    .into_bytes();
    if let Some(token) = token {
        request.extend_from_slice(b"Authorization: ");
        request.extend_from_slice(token.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// Reads up to the end of the final response's head. Returns the head, and the bytes that follow
/// it. Interim responses (RFC 9110 section 15.2) other than 101 are skipped.
pub(in crate::cli) fn read_head(
    stream: &mut dyn Read,
) -> Result<(ResponseHead, Vec<u8>), BadResponse> {
    let mut bytes = Vec::new();
    let mut total = 0;
    loop {
        while let Some((head, length)) = parse(&bytes)? {
            bytes.drain(..length);
            if !(100..200).contains(&head.status) || head.status == 101 {
                return Ok((head, bytes));
            }
        }
        if total >= MAX_HEAD {
            return Err(BadResponse::NotHttp {
                problem: format!("the head of the response is longer than {MAX_HEAD} bytes"),
                excerpt: None,
            });
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => {
                let is_empty = bytes.is_empty();
                return Err(BadResponse::Ended { is_empty });
            }
            Ok(count) => {
                total += count;
                bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, BadResponse> {
    // A TLS record: an alert or a handshake message, followed by the version.
    if matches!(bytes, [0x15 | 0x16, 0x03, ..]) {
        return Err(BadResponse::Tls);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            let start = bytes.get(..EXCERPT).unwrap_or(bytes);
            let start = printable(&String::from_utf8_lossy(start));
            return Err(BadResponse::NotHttp {
                problem: match bytes.starts_with(b"HTTP/") {
                    true => format!("the response is not valid HTTP ({error})"),
                    false => "the response is not HTTP".to_owned(),
                },
                excerpt: Some(start),
            });
        }
    };
    let head = ResponseHead {
        status: response.code.unwrap_or_default(),
        reason: response.reason.unwrap_or_default().to_owned(),
        is_http_1_1: response.version == Some(1),
        fields: response
            .headers
            .iter()
            .map(|field| (field.name.to_owned(), field.value.to_vec()))
            .collect(),
    };
    Ok(Some((head, length)))
}

impl ResponseHead {
    /// Returns the values of all fields with a name, in order.
    pub(super) fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = move |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case(name);
        let values = self.fields.iter().filter(named);
        values.filter_map(|(_, value)| str::from_utf8(value).ok().map(str::trim))
    }

    /// Returns the value of the first field with a name.
    pub(in crate::cli) fn value(&self, name: &'static str) -> Option<&str> {
        self.values(name).next()
    }

    /// Returns the length of the body, if the connection stays open after it (RFC 9112 section 9.3)
    /// and the length is known from the head. That of other responses to a POST is not computed.
    pub(in crate::cli) fn length_if_kept(&self) -> Option<usize> {
        let mut options = self.values("Connection").flat_map(|list| list.split(','));
        let is_closed = options.any(|option| option.trim().eq_ignore_ascii_case("close"));
        let is_coded = self.values("Transfer-Encoding").next().is_some();
        if !self.is_http_1_1 || is_closed || is_coded || self.status < 200 {
            return None;
        }
        if matches!(self.status, 204 | 304) {
            return Some(0);
        }
        let mut lengths = self.values("Content-Length");
        match (lengths.next(), lengths.next()) {
            // A sign is not part of the grammar.
            (Some(length), None) if !length.starts_with('+') => length.parse().ok(),
            _ => None,
        }
    }

    /// Returns the standard reason phrase of the status code. Empty if there is none.
    pub(in crate::cli) fn standard_reason(&self) -> &'static str {
        let standard = tungstenite::http::StatusCode::from_u16(self.status).ok();
        let standard = standard.and_then(|status| status.canonical_reason());
        standard.unwrap_or_default()
    }

    /// Returns the standard reason phrase of the status code, or else the one in the status line.
    pub(super) fn reason(&self) -> &str {
        match self.standard_reason() {
            "" => &self.reason,
            standard => standard,
        }
    }

    /// Validates a response with status 101 according to RFC 6455 section 4.1. The error describes
    /// the problem.
    pub(super) fn check_upgrade(&self, key: &str) -> Result<(), String> {
        if !self.is_http_1_1 {
            return Err("the response 101 has an HTTP version below 1.1".to_owned());
        }
        // "If the response lacks an |Upgrade| header field or the |Upgrade| header field contains
        // a value that is not an ASCII case-insensitive match for the value "websocket", the
        // client MUST _Fail the WebSocket Connection_."
        let mut upgrades = self.values("Upgrade");
        let upgrade = upgrades.next().unwrap_or_default();
        if !upgrade.eq_ignore_ascii_case("websocket") || upgrades.next().is_some() {
            return Err("the response 101 lacks \"Upgrade: websocket\"".to_owned());
        }
        // "… doesn't contain a token that is an ASCII case-insensitive match for the value
        // "Upgrade" …": the field is a list.
        let mut options = self.values("Connection").flat_map(|list| list.split(','));
        if !options.any(|option| option.trim().eq_ignore_ascii_case("upgrade")) {
            return Err("the response 101 lacks \"Connection: Upgrade\"".to_owned());
        }
        let mut accepts = self.values("Sec-WebSocket-Accept");
        let expected = derive_accept_key(key.as_bytes());
        if accepts.next() != Some(&*expected) || accepts.next().is_some() {
            return Err("the Sec-WebSocket-Accept of the response 101 is wrong".to_owned());
        }
        // "… an extension that was not present in the client's handshake …": none was.
        let mut extensions = self.values("Sec-WebSocket-Extensions");
        if let Some(extension) = extensions.find(|list| !list.is_empty()) {
            let extension = printable(extension);
            return Err(format!(
                "the response 101 has an extension that was not offered: {extension}"
            ));
        }
        // The same applies to subprotocols.
        if let Some(protocol) = self.value("Sec-WebSocket-Protocol") {
            let protocol = printable(protocol);
            return Err(format!(
                "the response 101 has a subprotocol that was not offered: {protocol}"
            ));
        }
        Ok(())
    }
}

/// In bytes, including interim responses.
const MAX_HEAD: usize = 32 * 1024;
const MAX_FIELDS: usize = 100;
/// The number of bytes of a response that is not HTTP to include in an error.
const EXCERPT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    /// A reader that returns one byte per read.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn checked(answer: &str) -> Result<(), String> {
        let (head, _) = read_head(&mut answer.as_bytes()).expect("a head");
        head.check_upgrade(KEY)
    }

    #[test]
    fn every_valid_form_of_the_upgrade_is_accepted() {
        for fields in [
            GOOD.to_owned(),
            GOOD.replace("Connection: Upgrade", "Connection: keep-alive, upgrade"),
            GOOD.replace("Connection: Upgrade", "CONNECTION: UPGRADE,keep-alive"),
            GOOD.replace("Connection:", "Connection: keep-alive\r\nConnection:"),
            GOOD.replace("websocket", "WebSocket"),
            format!("{GOOD}Sec-WebSocket-Extensions:\r\n"),
            format!("{GOOD}Server: a\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n"),
        ] {
            let answer = format!("HTTP/1.1 101 Switching\r\n{fields}\r\n");
            assert_eq!(checked(&answer), Ok(()), "{fields}");
        }
    }

    #[test]
    fn every_upgrade_violation_is_reported() {
        for (fields, part) in [
            (
                GOOD.replace("Upgrade: websocket\r\n", ""),
                "Upgrade: websocket",
            ),
            (GOOD.replace("websocket", "h2c"), "Upgrade: websocket"),
            (
                GOOD.replace("Connection: Upgrade\r\n", ""),
                "Connection: Upgrade",
            ),
            (
                GOOD.replace("Connection: Upgrade", "Connection: keep-alive"),
                "Connection: Upgrade",
            ),
            (
                GOOD.replace("Connection: Upgrade", "Connection: upgrader"),
                "Connection: Upgrade",
            ),
            (GOOD.replace("s3pP", "S3pP"), "Sec-WebSocket-Accept"),
            (
                format!("{GOOD}Sec-WebSocket-Accept: x\r\n"),
                "Sec-WebSocket-Accept",
            ),
            (
                format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n"),
                "not offered: permessage-deflate",
            ),
            (
                format!("{GOOD}Sec-WebSocket-Protocol: chat\r\n"),
                "not offered: chat",
            ),
        ] {
            let answer = format!("HTTP/1.1 101 Switching\r\n{fields}\r\n");
            let error = checked(&answer).expect_err(&fields);
            assert!(error.contains(part), "{fields}: {error}");
        }
        assert!(checked(&format!("HTTP/1.0 101 Switching\r\n{GOOD}\r\n")).is_err());
    }

    #[test]
    fn head_received_bytewise_is_read_completely() {
        let answer = format!("HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 101 S\r\n{GOOD}\r\n");
        let (head, rest) = read_head(&mut Dribble(answer.as_bytes())).expect("a head");
        assert_eq!((head.status, rest.len()), (101, 0));
        let answer = format!("{answer}\u{1}more");
        let (_, rest) = read_head(&mut answer.as_bytes()).expect("a head");
        assert_eq!(rest, b"\x01more");
    }

    #[test]
    fn responses_of_other_protocols_are_distinguished() {
        let fault = |bytes: &[u8]| read_head(&mut &*bytes).expect_err("no answer");
        assert!(matches!(fault(b""), BadResponse::Ended { is_empty: true }));
        assert!(matches!(
            fault(b"HTTP/1.1 101"),
            BadResponse::Ended { is_empty: false }
        ));
        assert!(matches!(
            fault(b"\x15\x03\x03\x00\x02\x02\x46"),
            BadResponse::Tls
        ));
        let BadResponse::NotHttp { problem, excerpt } = fault(b"SSH-2.0-OpenSSH_9\r\n\r\n") else {
            panic!("not HTTP");
        };
        assert!(problem.ends_with("not HTTP"), "{problem}");
        assert_eq!(excerpt.as_deref(), Some("SSH-2.0-OpenSSH_9    "));
        let endless = "HTTP/1.1 200 OK\r\nA: ".to_owned() + &"a".repeat(MAX_HEAD);
        let fault_of = |text: String| matches!(fault(text.as_bytes()), BadResponse::NotHttp { .. });
        assert!(fault_of(endless));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD);
        assert!(fault_of(interim));
    }

    #[test]
    fn request_contains_target_and_token() {
        let uri = Uri::from_static("ws://h.example:5001/ws?a=1");
        let token = HeaderValue::from_static("Bearer t0ken");
        let request = String::from_utf8(request(&uri, KEY, Some(&token))).unwrap();
        assert!(request.starts_with("GET /ws?a=1 HTTP/1.1\r\nHost: h.example:5001\r\n"));
        assert!(request.ends_with("\r\nAuthorization: Bearer t0ken\r\n\r\n"));
    }
}

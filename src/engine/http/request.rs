//! Strict parsing of request heads.

use std::borrow::Cow;
use std::fmt;

use super::Framing;
use super::host::{check_host, is_authority};
use super::query::Params;

/// Maximum header fields of a request. Browsers send about fifteen.
pub const MAX_HEADERS: usize = 64;

/// A request, borrowed from the receive buffer.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method as sent; it is case-sensitive (RFC 9110 §9.1).
    pub method: &'a str,
    /// The authority of a target in absolute form (RFC 9112 §3.2.2), as sent to proxies.
    pub authority: Option<&'a str>,
    /// The path of the target, still percent-encoded.
    pub path: &'a str,
    /// The part of the target after the first `?`.
    pub query: Option<&'a str>,
    /// The minor version of HTTP/1.
    pub minor_version: u8,
    /// The body, once it has been requested and read.
    pub body: Option<&'a [u8]>,
    /// The length of the head in bytes, which is the offset of the body.
    pub length: usize,
    /// How the end of the body is determined.
    pub framing: Framing,
    pub(super) headers: &'a [httparse::Header<'a>],
}

/// Omits the query and the header values, because both may contain a token.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.method, self.path)
    }
}

impl<'a> Request<'a> {
    /// Returns the trimmed values of a header field in order. `name` is case-insensitive.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// Returns the value of a header field that occurs exactly once.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.headers(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// Returns the host and port of the request. RFC 9112 §3.2.2: "When an origin server receives a
    /// request with an absolute-form of request-target, the origin server MUST ignore the received
    /// Host header field (if any) and instead use the host information of the request-target."
    pub fn host(&self) -> Option<&'a str> {
        match self.authority {
            Some(authority) => Some(authority),
            None => std::str::from_utf8(self.header("host")?).ok(),
        }
    }

    /// Returns whether the header field is present.
    pub fn has_header(&self, name: &str) -> bool {
        self.headers(name).next().is_some()
    }

    /// Returns whether a header field that is a comma-separated list contains this element,
    /// ignoring case (RFC 9110 §5.6.1).
    pub fn list_contains(&self, name: &str, element: &str) -> bool {
        self.headers(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(element.as_bytes()))
    }

    /// Returns the subprotocols that the client of a handshake offers, in its order of preference
    /// (RFC 6455 §11.3.4).
    pub fn protocols(&self) -> impl Iterator<Item = &'a [u8]> {
        self.headers("sec-websocket-protocol")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty())
    }

    /// Returns the parameters of the query, form-decoded.
    pub fn params(&self) -> Params<'a> {
        Params::new(self.query.unwrap_or(""))
    }

    /// Returns the last value of a query parameter, as h does.
    pub fn last_param(&self, name: &str) -> Option<Cow<'a, str>> {
        self.params()
            .filter(|(key, _)| key == name)
            .last()
            .map(|(_, value)| value)
    }

    /// Returns whether another request may follow on the connection (RFC 9112 §9.3).
    ///
    /// A request for an upgrade that is not granted ends the connection: a proxy that took it for a
    /// tunnel must not be able to pass through another request.
    pub fn keeps_alive(&self) -> bool {
        self.minor_version == 1
            && !self.has_header("upgrade")
            && !self.list_contains("connection", "close")
    }
}

/// The result of parsing a head.
pub enum Head<T> {
    /// The head is complete; this is the visitor's result.
    Complete(T),
    /// More bytes are needed.
    Partial,
}

/// Why a head is rejected. Every rejection ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP/1, or a grammar violation.
    Malformed,
    /// More than [`MAX_HEADERS`] fields, or more bytes than allowed.
    TooLarge,
    /// The request line alone has more bytes than allowed.
    TargetTooLong,
    /// Framing that parsers could interpret differently: `Transfer-Encoding` together with
    /// `Content-Length` or in HTTP/1.0, a repeated or malformed one of these, or a repeated `Host`.
    Ambiguous,
    /// A transfer coding other than chunked.
    UnsupportedCoding,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::Malformed => "malformed request head",
            HeadError::TooLarge => "request head too large",
            HeadError::TargetTooLong => "request target too long",
            HeadError::Ambiguous => "ambiguous request framing",
            HeadError::UnsupportedCoding => "unsupported transfer coding",
        })
    }
}

impl std::error::Error for HeadError {}

/// Parses one request head at the start of `bytes`, and passes it to `visit`.
///
/// # Errors
/// [`HeadError`]. The connection must be closed, because the start of the next request is unknown.
pub fn parse_head<T>(
    bytes: &[u8],
    max_len: usize,
    visit: impl FnOnce(&Request<'_>) -> T,
) -> Result<Head<T>, HeadError> {
    // Some parsers tolerate a lone LF or a leading empty line, and others do not. Input that
    // proxies could interpret differently is rejected.
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Malformed);
    }
    let window = &bytes[..bytes.len().min(max_len)];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let len = match parsed.parse(window) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() >= max_len => return Err(too_large(window)),
        Ok(httparse::Status::Partial) => return Ok(Head::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(_) => return Err(HeadError::Malformed),
    };
    if has_bare_line_feed(&window[..len]) {
        return Err(HeadError::Malformed);
    }
    let (Some(method), Some(target), Some(minor_version)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HeadError::Malformed);
    };
    let (authority, target) = split_authority(target)?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut request = Request {
        method,
        authority,
        // RFC 9110 §4.2.3, of the absolute form: "an empty path component is equivalent to an
        // absolute path of "/"".
        path: match path.is_empty() && authority.is_some() {
            true => "/",
            false => path,
        },
        query,
        minor_version,
        length: len,
        body: None,
        framing: Framing::None,
        headers: parsed.headers,
    };
    check_host(&request)?;
    request.framing = Framing::of(&request)?;
    Ok(Head::Complete(visit(&request)))
}

/// Returns whether a request, of which only a part may have arrived, has the method `HEAD`.
pub fn is_head(bytes: &[u8]) -> bool {
    // RFC 9110 §9.1: "The method token is case-sensitive".
    bytes.starts_with(b"HEAD ")
}

/// Returns the error of a head that fills the window. RFC 9112 §3: "A server that receives a
/// request-target longer than any URI it wishes to parse MUST respond with a 414".
fn too_large(window: &[u8]) -> HeadError {
    match window.contains(&b'\n') {
        true => HeadError::TooLarge,
        false => HeadError::TargetTooLong,
    }
}

/// Splits a target in absolute form into the authority and the path with its query. Other targets
/// have no authority.
fn split_authority(target: &str) -> Result<(Option<&str>, &str), HeadError> {
    let absolute = (!target.starts_with('/')).then(|| target.split_once("://"));
    let Some((scheme, rest)) = absolute.flatten() else {
        return Ok((None, target));
    };
    let is_own = |own: &&str| scheme.eq_ignore_ascii_case(own);
    if !["http", "https", "ws", "wss"].iter().any(is_own) {
        return Ok((None, target));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    // RFC 9110 §4.2.1 and §4.2.4: an empty host and user information are invalid.
    if authority.is_empty() || authority.starts_with(':') || !is_authority(authority.as_bytes()) {
        return Err(HeadError::Malformed);
    }
    Ok((Some(authority), target))
}

/// Returns whether the head contains an LF without a preceding CR. RFC 9112 §2.2: "a recipient MAY
/// recognize a single LF as a line terminator". This server does not: a proxy in front may not
/// either, and would then parse a different request.
fn has_bare_line_feed(head: &[u8]) -> bool {
    // Branch-free, so that the compiler can vectorize the loop.
    let pairs = head.iter().zip(head.iter().skip(1));
    pairs.fold(head.first() == Some(&b'\n'), |found, (&before, &byte)| {
        found | (byte == b'\n') & (before != b'\r')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bare_line_feed_counts() {
        for head in ["\n", "\r\na\n", "a\nb\n\r\n", "\na\n", "a\n\nb"] {
            assert!(has_bare_line_feed(head.as_bytes()), "{head:?}");
        }
        assert!(!has_bare_line_feed(b"a\r\nb\r\n\r\n"));
    }

    fn parse(head: &str) -> Result<Option<String>, HeadError> {
        parse_head(head.as_bytes(), 8192, |request| {
            format!(
                "{} {} {:?} {:?} {}",
                request.method,
                request.path,
                request.query,
                request.framing,
                request.keeps_alive()
            )
        })
        .map(|head| match head {
            Head::Complete(text) => Some(text),
            Head::Partial => None,
        })
    }

    #[test]
    fn complete_heads() {
        let table = [
            (
                "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /ws None None true",
            ),
            (
                "GET /ws?a=b?c HTTP/1.1\r\nHost:\r\nConnection: x, Close\r\n\r\n",
                "GET /ws Some(\"a=b?c\") None false",
            ),
            (
                "POST / HTTP/1.0\r\nContent-Length: 12\r\n\r\n",
                "POST / None Length(12) false",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
                "GET / None None false",
            ),
        ];
        for (head, want) in table {
            assert_eq!(parse(head).unwrap().as_deref(), Some(want), "{head:?}");
        }
    }

    #[test]
    fn absolute_form_target_overrides_the_host_field() {
        let request = |target: &str| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: other:1\r\n\r\n");
            let parsed = parse_head(head.as_bytes(), 8192, |request| {
                let host = request.host().map(str::to_owned);
                (
                    host,
                    request.path.to_owned(),
                    request.query.map(str::to_owned),
                )
            });
            match parsed {
                Ok(Head::Complete((host, path, query))) => {
                    format!(
                        "{} {path} {}",
                        host.unwrap_or_default(),
                        query.unwrap_or_default()
                    )
                }
                Ok(Head::Partial) => "partial".to_owned(),
                Err(error) => format!("{error:?}"),
            }
        };
        for (target, want) in [
            ("http://host/ws", "host /ws "),
            ("HTTPS://host:8443/ws?a=b", "host:8443 /ws a=b"),
            ("ws://[::1]:5000/ws", "[::1]:5000 /ws "),
            ("wss://host?a=/b", "host / a=/b"),
            ("http://host", "host / "),
            ("http://host/http://other/", "host /http://other/ "),
            ("/ws?u=http://host/", "other:1 /ws u=http://host/"),
            ("/http://host/", "other:1 /http://host/ "),
            ("*", "other:1 * "),
            ("?a=b", "other:1  a=b"),
            ("ftp://host/ws", "other:1 ftp://host/ws "),
            ("http:///ws", "Malformed"),
            ("http://:80/ws", "Malformed"),
            ("http://user@host/ws", "Malformed"),
            ("http://host:port/ws", "Malformed"),
        ] {
            assert_eq!(request(target), want, "{target}");
        }
    }

    // CVE-2026-33247: both may contain a token.
    #[test]
    fn debug_output_omits_query_and_header_fields() {
        let head =
            "GET /ws?access_token=one HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer two\r\n\r\n";
        let shown = parse_head(head.as_bytes(), 8192, |request| format!("{request:?}"));
        let Ok(Head::Complete(shown)) = shown else {
            panic!("not a complete head");
        };
        assert_eq!(shown, "GET \"/ws\"");
    }

    // CVE-2021-45945
    #[test]
    fn every_prefix_of_a_head_is_partial() {
        let head = "GET /ws HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(parse(&head[..end]), Ok(None), "{end}");
        }
    }

    // CVE-2021-21299, CVE-2021-32714, CVE-2021-32715, CVE-2020-35863, CVE-2020-35884,
    // CVE-2021-38512
    #[test]
    fn ambiguous_heads_are_rejected() {
        use HeadError::{Ambiguous, Malformed};
        let table = [
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\nHost: a\n\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\n\tA: b\r\nHost: a\r\n\r\n", Malformed),
            ("GET / HTTP/2.0\r\n\r\n", Malformed),
            ("GET /\r\n\r\n", Malformed),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Malformed),
            ("\u{16}\u{3}\u{1}\u{2}", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Ambiguous),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
                Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                Ambiguous,
            ),
        ];
        for (head, want) in table {
            assert_eq!(parse(head), Err(want), "{head:?}");
        }
    }

    #[test]
    fn size_and_number_of_fields_are_bounded() {
        let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(8192));
        assert_eq!(parse(&long), Err(HeadError::TooLarge));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(parse(&many), Err(HeadError::TooLarge));
        let target = format!("GET /{}", "x".repeat(8192));
        assert_eq!(parse(&target), Err(HeadError::TargetTooLong));
        let whole = format!("{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(parse(&whole), Err(HeadError::TargetTooLong));
    }

    #[test]
    fn last_value_of_a_parameter_counts() {
        let bytes = b"GET /?a=1&b=2&a=%33 HTTP/1.1\r\nHost: a\r\n\r\n";
        let parsed = parse_head(bytes, 8192, |request| {
            ["a", "b", "c"].map(|name| request.last_param(name).map(Cow::into_owned))
        });
        let want = [Some("3".to_owned()), Some("2".to_owned()), None];
        assert!(matches!(parsed, Ok(Head::Complete(found)) if found == want));
    }

    #[test]
    fn error_names_the_part_of_the_head() {
        let text = HeadError::TargetTooLong.to_string();
        assert_eq!(text, "request target too long");
    }
}

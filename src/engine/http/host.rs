//! The field `Host` (RFC 9112 §3.2).

use super::{HeadError, Request};

/// Checks the field `Host`. RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status
/// code to any HTTP/1.1 request message that lacks a Host header field and to any request message
/// that contains more than one Host header field line or a Host header field with an invalid field
/// value."
pub(super) fn check_host(request: &Request<'_>) -> Result<(), HeadError> {
    if request.headers("host").count() > 1 {
        return Err(HeadError::Ambiguous);
    }
    match request.headers("host").next() {
        None if request.minor_version > 0 => Err(HeadError::Malformed),
        Some(host) if !is_authority(host) => Err(HeadError::Malformed),
        _ => Ok(()),
    }
}

/// Returns whether a text is a host with an optional port (RFC 3986 §3.2). Both may be empty.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let end = match text.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !text.ends_with(b"]") => colon,
        _ => text.len(),
    };
    let (host, port) = text.split_at(end);
    let port = port.strip_prefix(b":").unwrap_or_default();
    let (host, others) = match host {
        [b'[', address @ .., b']'] => (address, &b":"[..]),
        name => (name, &b""[..]),
    };
    let is_allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte) || others.contains(byte)
    };
    port.iter().all(u8::is_ascii_digit) && host.iter().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::super::{Head, parse_head};
    use super::*;

    fn read(head: &str) -> Result<Option<()>, HeadError> {
        parse_head(head.as_bytes(), 8192, |_| ()).map(|head| match head {
            Head::Complete(()) => Some(()),
            Head::Partial => None,
        })
    }

    #[test]
    fn host_is_required_and_valid() {
        let get = |version: &str, fields: &str| read(&format!("GET / {version}\r\n{fields}\r\n"));
        for host in [
            "",
            "a",
            "A.example.",
            "a_b:80",
            "127.0.0.1:5001",
            "a:",
            "[::1]",
            "[::1]:8443",
            "%41",
        ] {
            let field = format!("Host: {host}\r\n");
            assert!(matches!(get("HTTP/1.1", &field), Ok(Some(_))), "{host}");
        }
        for host in [
            "a b",
            "a/",
            "/run/socket",
            "a:b",
            "a:80:80",
            "user@a",
            "http://a",
            "a, b",
            "::1",
            "[::1",
            "[::1]a",
            "[a/b]",
            "\"a\"",
            "a\u{e9}",
        ] {
            let field = format!("Host: {host}\r\n");
            for version in ["HTTP/1.0", "HTTP/1.1"] {
                assert_eq!(get(version, &field), Err(HeadError::Malformed), "{host}");
            }
        }
        assert_eq!(get("HTTP/1.1", ""), Err(HeadError::Malformed));
        assert_eq!(get("HTTP/1.1", "A: b\r\n"), Err(HeadError::Malformed));
        assert!(matches!(get("HTTP/1.0", ""), Ok(Some(_))));
    }
}

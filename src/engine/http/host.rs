//! The field `Host` (RFC 9112 §3.2).

use super::{HeadError, Request};

/// Checks the field `Host`. RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status
/// code to any HTTP/1.1 request message that lacks a Host header field and to any request message
/// that contains more than one Host header field line or a Host header field with an invalid field
/// value."
pub(super) fn check_host(request: &Request<'_>) -> Result<(), HeadError> {
    let mut hosts = request.headers("host");
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(HeadError::Ambiguous),
        (None, _) if request.minor_version > 0 => Err(HeadError::Malformed),
        (Some(host), _) if !is_authority(host) => Err(HeadError::Malformed),
        _ => Ok(()),
    }
}

/// Returns whether a text is a host with an optional port (RFC 3986 §3.2). Both may be empty.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let is_name = |&byte: &u8| HOST_BYTES[usize::from(byte)];
    let port = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            if !rest[..end]
                .iter()
                .all(|byte| is_name(byte) || *byte == b':')
            {
                return false;
            }
            &rest[end + 1..]
        }
        name => &name[name.iter().take_while(|byte| is_name(byte)).count()..],
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The bytes of a registered name: unreserved characters, `%`, and sub-delimiters.
const HOST_BYTES: [bool; 256] = {
    let others = b"-._~%!$&'()*+,;=";
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        allowed[others[at] as usize] = true;
        at += 1;
    }
    allowed
};

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

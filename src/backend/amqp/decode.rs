//! Decodes the body of a message into an event according to its content type, as kombu does for h.

use serde_json::{Map, Value};

use crate::backend::DropReason;
use crate::backend::json::without_lone_surrogates;

/// Decodes the event in a message of at most `max` bytes. Only messages marked as JSON are
/// accepted.
///
/// # Errors
/// The reason for dropping the message.
pub(super) fn decode(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    body: &[u8],
    max: usize,
) -> Result<Map<String, Value>, DropReason> {
    if body.len() > max {
        return Err(DropReason::TooLarge);
    }
    // The comparison is exact: kombu treats `application/json` with a parameter as another type.
    if content_type != Some("application/json") || !is_readable(content_encoding, body) {
        return Err(DropReason::Undecodable);
    }
    match serde_json::from_slice(&without_lone_surrogates(body)) {
        Ok(Value::Object(event)) => Ok(event),
        Ok(_) | Err(_) => Err(DropReason::Undecodable),
    }
}

/// Returns whether the body can be read as UTF-8. h's publisher escapes everything beyond ASCII,
/// and ASCII is the same in every encoding that it could declare.
fn is_readable(content_encoding: Option<&str>, body: &[u8]) -> bool {
    let encoding = content_encoding.unwrap_or("").to_ascii_lowercase();
    body.is_ascii() || ["", "utf-8", "utf8", "binary"].contains(&&*encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Option<&str> = Some("application/json");
    const MAX: usize = 1 << 20;

    fn decode(
        kind: Option<&str>,
        encoding: Option<&str>,
        body: &[u8],
    ) -> Result<Map<String, Value>, DropReason> {
        super::decode(kind, encoding, body, MAX)
    }

    #[test]
    fn json_object_with_content_type_is_an_event() {
        let event = decode(JSON, Some("utf-8"), br#"{"b": 1, "a": [1e+400], "b": 2}"#).unwrap();
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"b":2,"a":[1e+400]}"#, "the last of a name wins");
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        let event = decode(JSON, Some("utf-8"), br#"{"a": "b \ud83d"}"#).unwrap();
        assert_eq!(event["a"], "b \u{fffd}");
    }

    #[test]
    fn other_content_is_undecodable() {
        for kind in [
            "",
            "text/plain",
            "application/octet-stream",
            "application/json; charset=utf-8",
            "application/vnd.x+json",
            "Application/JSON",
            "application/x-python-serialize",
        ] {
            assert_eq!(
                decode(Some(kind), Some("utf-8"), b"{}"),
                Err(DropReason::Undecodable),
                "{kind}"
            );
        }
        assert_eq!(decode(None, None, b"{}"), Err(DropReason::Undecodable));
        for body in [
            &b""[..],
            b"{",
            b"{}{}",
            b"[]",
            b"null",
            b"\"{}\"",
            b"{\"a\": NaN}",
            b"{\"\xff\": 1}",
            b"\xef\xbb\xbf{}",
            &[b'['; 100_000],
        ] {
            assert_eq!(
                decode(JSON, Some("utf-8"), body),
                Err(DropReason::Undecodable),
                "{body:?}"
            );
        }
    }

    #[test]
    fn encoding_is_ignored_for_ascii() {
        for encoding in [None, Some("utf-8"), Some("UTF8"), Some("binary"), Some("")] {
            assert!(
                decode(JSON, encoding, "{\"a\":\"ä\"}".as_bytes()).is_ok(),
                "{encoding:?}"
            );
        }
        for encoding in ["us-ascii", "latin-1", "cp1252"] {
            assert!(
                decode(JSON, Some(encoding), br#"{"a":"\u00e4"}"#).is_ok(),
                "{encoding}"
            );
            let body = "{\"a\":\"ä\"}".as_bytes();
            assert_eq!(
                decode(JSON, Some(encoding), body),
                Err(DropReason::Undecodable),
                "{encoding}"
            );
        }
        let wide: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(
            decode(JSON, Some("utf-16"), &wide),
            Err(DropReason::Undecodable)
        );
    }

    #[test]
    fn size_is_checked_before_content() {
        let mut body = vec![b' '; MAX - 2];
        body.extend(b"{}");
        assert!(decode(JSON, None, &body).is_ok());
        body.push(b' ');
        assert_eq!(decode(JSON, None, &body), Err(DropReason::TooLarge));
    }
}

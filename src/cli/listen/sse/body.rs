//! The framing of a response's body: until the end of the connection, of a known length, or in
//! chunks, as proxies send it. Must not know sockets.

use super::super::handshake::ResponseHead;
use crate::net::http::ChunkedDecoder;

/// The progress of one body.
pub(super) enum Body {
    /// The end of the connection is the end of the body.
    UntilClose,
    /// The number of bytes that follow.
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
}

impl Body {
    /// Determines the framing according to RFC 9112 section 6.3. The error describes the problem.
    pub(super) fn of(head: &ResponseHead) -> Result<Self, String> {
        let codings: Vec<_> = head.values("Transfer-Encoding").collect();
        let lengths: Vec<_> = head.values("Content-Length").collect();
        match (&*codings, &*lengths) {
            ([coding], _) if coding.eq_ignore_ascii_case("chunked") => {
                Ok(Body::Chunked(Box::new(ChunkedDecoder::new(usize::MAX))))
            }
            ([_, ..], _) => Err("the response has an unknown Transfer-Encoding".to_owned()),
            ([], []) => Ok(Body::UntilClose),
            ([], [length, others @ ..]) => {
                // A number may have a sign in Rust, but not in HTTP.
                let is_plain = length.bytes().all(|byte| byte.is_ascii_digit());
                let is_one = others.iter().all(|other| other == length);
                match length.parse() {
                    Ok(length) if is_plain && is_one => Ok(Body::Length(length)),
                    _ => Err("the response has an invalid Content-Length".to_owned()),
                }
            }
        }
    }

    /// Decodes received bytes in place. Returns the part of the body among them, and whether the body
    /// has ended. The error describes a violation of the protocol.
    pub(super) fn decode<'a>(&mut self, bytes: &'a mut [u8]) -> Result<(&'a [u8], bool), String> {
        let (length, has_ended) = match self {
            Body::UntilClose => (bytes.len(), false),
            Body::Length(left) => {
                let length =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= length as u64;
                (length, *left == 0)
            }
            Body::Chunked(decoder) => {
                let decoded = decoder.decode(bytes).map_err(|error| error.to_string())?;
                (decoded.written, decoder.is_done())
            }
        };
        Ok((bytes.get(..length).unwrap_or_default(), has_ended))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::handshake::read_head;
    use super::*;

    fn body(fields: &str) -> Result<Body, String> {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        Body::of(&read_head(&mut head.as_bytes()).expect("a head").0)
    }

    /// Returns the body of a response that arrives in pieces of `size` bytes, and whether it ended.
    fn decoded(fields: &str, bytes: &[u8], size: usize) -> (String, bool) {
        let (mut body, mut text) = (body(fields).expect("a body"), String::new());
        for piece in bytes.to_vec().chunks_mut(size) {
            let (part, has_ended) = body.decode(piece).expect("valid");
            text.push_str(str::from_utf8(part).expect("text"));
            if has_ended {
                return (text, true);
            }
        }
        (text, false)
    }

    #[test]
    fn each_framing_is_decoded_at_each_split() {
        for (fields, bytes, expected, has_ended) in [
            ("", "data: a\n\n", "data: a\n\n", false),
            ("Content-Length: 4\r\n", "datamore", "data", true),
            ("Content-Length: 9\r\n", "data", "data", false),
            (
                "Transfer-Encoding: chunked\r\n",
                "4;x=y\r\ndata\r\n3\r\n: a\r\n0\r\nT: 1\r\n\r\nmore",
                "data: a",
                true,
            ),
            (
                "Transfer-Encoding: Chunked\r\nContent-Length: 1\r\n",
                "2\r\nab\r\n",
                "ab",
                false,
            ),
        ] {
            for size in 1..=bytes.len() {
                let found = decoded(fields, bytes.as_bytes(), size);
                assert_eq!(found, (expected.to_owned(), has_ended), "{fields} {size}");
            }
        }
    }

    #[test]
    fn unknown_framings_and_malformed_chunks_are_refused() {
        for fields in [
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
        ] {
            assert!(body(fields).is_err(), "{fields}");
        }
        let mut body = body("Transfer-Encoding: chunked\r\n").expect("a body");
        assert!(body.decode(&mut b"nope".to_vec()).is_err());
    }
}

//! Message body framing, derived from the request head (RFC 9112 §6).

use super::extensions::is_token;
use super::{HeadError, Request};

/// How the end of a request body is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is no body.
    None,
    /// The body has this length, from `Content-Length`.
    Length(u64),
    /// The body ends with the last chunk of the chunked transfer coding.
    Chunked,
}

impl Framing {
    /// Returns whether body bytes follow the head. A chunked body is never empty on the wire.
    pub fn has_body(self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0))
    }

    /// Derives the framing from the header fields of a request.
    pub(super) fn of(request: &Request<'_>) -> Result<Self, HeadError> {
        if !request.has_header("transfer-encoding") {
            return content_length(request);
        }
        // RFC 9112 §6.3: "If a message is received with both a Transfer-Encoding and a
        // Content-Length header field …, such a message might indicate an attempt to perform
        // request smuggling".
        if request.has_header("content-length") {
            return Err(HeadError::Ambiguous);
        }
        // §6.1: "A server … that receives an HTTP/1.0 message containing a Transfer-Encoding
        // header field MUST treat the message as if the framing is faulty".
        if request.minor_version == 0 {
            return Err(HeadError::Ambiguous);
        }
        transfer_coding(request)
    }
}

/// Parses `Transfer-Encoding`. Only `chunked`, exactly once and with no other coding, is supported.
fn transfer_coding(request: &Request<'_>) -> Result<Framing, HeadError> {
    let fields = request.headers("transfer-encoding");
    let codings = fields.flat_map(|field| field.split(|&byte| byte == b','));
    let (mut is_chunked, mut has_others) = (false, false);
    for coding in codings.map(<[u8]>::trim_ascii) {
        let name = coding.split(|&byte| byte == b';').next();
        let name = name.unwrap_or_default().trim_ascii();
        // §6.1: "A sender MUST NOT apply the chunked transfer coding more than once", and it must
        // be the last coding.
        if is_chunked || name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(HeadError::Ambiguous);
        }
        is_chunked = name.eq_ignore_ascii_case(b"chunked");
        // §7.1: "The chunked coding does not define any parameters. Their presence SHOULD be
        // treated as an error."
        if is_chunked && name.len() != coding.len() {
            return Err(HeadError::Ambiguous);
        }
        has_others |= !is_chunked;
    }
    match (is_chunked, has_others) {
        // §6.3: "If a Transfer-Encoding header field is present in a request and the chunked
        // transfer coding is not the final encoding, … the server MUST respond with the 400 (Bad
        // Request) status code and then close the connection."
        (false, _) => Err(HeadError::Ambiguous),
        // §6.1: "A server that receives a request message with a transfer coding it does not
        // understand SHOULD respond with 501 (Not Implemented)."
        (true, true) => Err(HeadError::UnsupportedCoding),
        (true, false) => Ok(Framing::Chunked),
    }
}

fn content_length(request: &Request<'_>) -> Result<Framing, HeadError> {
    let mut values = request.headers("content-length");
    let Some(value) = values.next() else {
        return Ok(Framing::None);
    };
    // Digits only: other parsers disagree about `+5`, `0x5`, `5, 5`, and the empty value.
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    if !digits || values.next().is_some() {
        return Err(HeadError::Ambiguous);
    }
    let sum = |sum, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Ok(Framing::Length(value.iter().fold(0, sum)))
}

#[cfg(test)]
mod tests {
    use super::super::{Head, parse_head};
    use super::*;

    fn framing(version: &str, fields: &str) -> Result<Framing, HeadError> {
        let head = format!("POST / {version}\r\nHost: a\r\n{fields}\r\n");
        match parse_head(head.as_bytes(), 8192, |request| request.framing)? {
            Head::Complete(framing) => Ok(framing),
            Head::Partial => panic!("{head:?} is no whole head"),
        }
    }

    #[test]
    fn content_length_or_chunked_coding_delimits_the_body() {
        for (fields, want) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            ("Content-Length: 12\r\n", Framing::Length(12)),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("transfer-encoding:\tCHUNKED \r\n", Framing::Chunked),
        ] {
            assert_eq!(framing("HTTP/1.1", fields), Ok(want), "{fields}");
        }
    }

    // CVE-2021-21299, CVE-2021-32714, CVE-2021-32715, CVE-2020-35863, CVE-2020-35884,
    // CVE-2021-38512
    #[test]
    fn ambiguous_transfer_encoding_is_rejected() {
        for fields in [
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 0\r\nTransfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked, chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: ,chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding: chunked;\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunk ed\r\n",
            "Transfer-Encoding: chunked\u{e9}\r\n",
        ] {
            let refused = Err(HeadError::Ambiguous);
            assert_eq!(framing("HTTP/1.1", fields), refused, "{fields}");
        }
        let old = framing("HTTP/1.0", "Transfer-Encoding: chunked\r\n");
        assert_eq!(old, Err(HeadError::Ambiguous));
    }

    #[test]
    fn unsupported_transfer_codings_are_rejected() {
        for fields in [
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: a;b=c, chunked\r\n",
            "Transfer-Encoding: xchunked, chunked\r\n",
        ] {
            let refused = Err(HeadError::UnsupportedCoding);
            assert_eq!(framing("HTTP/1.1", fields), refused, "{fields}");
        }
    }
}

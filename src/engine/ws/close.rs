//! Close frames, RFC 6455 §5.5.1.

use super::error::{CloseCode, ProtocolError};
use super::frame::{MAX_CONTROL_PAYLOAD, OpCode, encode_frame};

/// The payload of a nonempty close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// The close code.
    pub code: CloseCode,
    /// The close reason.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Parses the payload of a close frame. Returns `None` if it is empty.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        // §5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
        // unsigned integer".
        let (code, reason) = match payload {
            [] => return Ok(None),
            [_] => {
                return Err(ProtocolError::new(
                    CloseCode::PROTOCOL_ERROR,
                    "close payload of one byte",
                ));
            }
            [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
        };
        if !code.may_be_sent() {
            return Err(ProtocolError::new(
                CloseCode::PROTOCOL_ERROR,
                "invalid close code",
            ));
        }
        // "Following the 2-byte integer, the body MAY contain UTF-8-encoded data".
        match std::str::from_utf8(reason) {
            Ok(reason) => Ok(Some(CloseFrame { code, reason })),
            Err(_) => Err(ProtocolError::new(
                CloseCode::INVALID_DATA,
                "close reason is not UTF-8",
            )),
        }
    }
}

/// Encodes a close frame. `None` encodes an empty one, the response to an empty one. A reason too
/// long for a control frame is truncated at a character boundary.
pub fn encode_close(close: Option<CloseFrame<'_>>, out: &mut Vec<u8>) {
    let Some(CloseFrame { code, reason }) = close else {
        encode_frame(OpCode::Close, &[], out);
        return;
    };
    let mut end = reason.len().min(MAX_CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&code.0.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    encode_frame(OpCode::Close, &payload, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        let valid = [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ];
        let invalid = [
            0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ];
        for code in valid {
            let payload = u16::to_be_bytes(code);
            let want = CloseFrame {
                code: CloseCode(code),
                reason: "",
            };
            assert_eq!(CloseFrame::parse(&payload), Ok(Some(want)), "{code}");
        }
        for code in invalid {
            let payload = u16::to_be_bytes(code);
            assert_eq!(
                CloseFrame::parse(&payload).unwrap_err().code,
                CloseCode::PROTOCOL_ERROR,
                "{code}"
            );
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(CloseFrame::parse(b""), Ok(None));
        assert_eq!(
            CloseFrame::parse(b"\x03").unwrap_err().code,
            CloseCode::PROTOCOL_ERROR
        );
        assert_eq!(
            CloseFrame::parse(b"\x03\xe8\xff").unwrap_err().code,
            CloseCode::INVALID_DATA
        );
    }

    #[test]
    fn long_reason_is_truncated_at_a_character_boundary() {
        let mut out = Vec::new();
        let reason = "é".repeat(100);
        encode_close(
            Some(CloseFrame {
                code: CloseCode::NORMAL,
                reason: &reason,
            }),
            &mut out,
        );
        assert_eq!(out[1], 2 + 122);
        let parsed = CloseFrame::parse(&out[2..]).unwrap().unwrap();
        assert_eq!(parsed.reason, "é".repeat(61));
    }
}

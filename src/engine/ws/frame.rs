//! Frame headers (RFC 6455 §5.2).

use super::error::{CloseCode, ProtocolError};
use super::mask::apply_mask;

/// §5.5: "All control frames MUST have a payload length of 125 bytes or less".
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The longest header of an unmasked frame.
pub const MAX_SERVER_HEADER: usize = 10;

/// The longest header of a masked frame.
pub(super) const MAX_CLIENT_HEADER: usize = 14;

/// Frame opcodes (§11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    /// A continuation frame.
    Continuation = 0x0,
    /// A text frame.
    Text = 0x1,
    /// A binary frame.
    Binary = 0x2,
    /// A close frame.
    Close = 0x8,
    /// A ping.
    Ping = 0x9,
    /// A pong.
    Pong = 0xA,
}

impl OpCode {
    /// Returns whether this is a control frame. §5.5: "Control frames are identified by opcodes
    /// where the most significant bit of the
    /// opcode is 1."
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => OpCode::Continuation,
            0x1 => OpCode::Text,
            0x2 => OpCode::Binary,
            0x8 => OpCode::Close,
            0x9 => OpCode::Ping,
            0xA => OpCode::Pong,
            _ => return None,
        })
    }
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub fin: bool,
    /// RSV1: the message that starts with this frame is compressed.
    pub compressed: bool,
    pub opcode: OpCode,
    pub mask: [u8; 4],
    pub len: u64,
}

impl Header {
    /// Parses the header at the start of `bytes`. Returns the header and its length, or `None` if
    /// it is incomplete. Violations in the first two bytes are detected without the rest. `deflate`
    /// says whether messages may be compressed.
    pub(super) fn parse(
        bytes: &[u8],
        deflate: bool,
    ) -> Result<Option<(Header, usize)>, ProtocolError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        // "MUST be 0 unless an extension is negotiated that defines meanings for non-zero
        // values."
        let compressed = deflate && first & RSV1 != 0;
        if first & 0x70 != 0 && !(compressed && first & 0x30 == 0) {
            return Err(violation("reserved bits are set"));
        }
        // "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket
        // Connection_."
        let opcode = OpCode::from_bits(first & 0x0F).ok_or(violation("unknown opcode"))?;
        // RFC 7692 §6.1: "An endpoint MUST NOT set the "Per-Message Compressed" bit of control
        // frames and non-first fragments of a data message."
        if compressed && !matches!(opcode, OpCode::Text | OpCode::Binary) {
            return Err(violation(
                "only a message's first frame can say it is compressed",
            ));
        }
        let fin = first & 0x80 != 0;
        // §5.1: "The server MUST close the connection upon receiving a frame that is not
        // masked."
        if second & 0x80 == 0 {
            return Err(violation("frame is not masked"));
        }
        let short = second & 0x7F;
        if opcode.is_control() {
            // §5.5: "All control frames MUST have a payload length of 125 bytes or less and
            // MUST NOT be fragmented."
            if usize::from(short) > MAX_CONTROL_PAYLOAD {
                return Err(violation("control frame is too long"));
            }
            if !fin {
                return Err(violation("control frame is fragmented"));
            }
        }
        let (len, rest) = match (short, rest) {
            (126, &[a, b, ref rest @ ..]) => {
                (minimal(u64::from(u16::from_be_bytes([a, b])), 126)?, rest)
            }
            (127, &[a, b, c, d, e, f, g, h, ref rest @ ..]) => {
                let len = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                // "the most significant bit MUST be 0"
                if len >> 63 != 0 {
                    return Err(violation("top bit of the length is set"));
                }
                (minimal(len, 1 << 16)?, rest)
            }
            (126 | 127, _) => return Ok(None),
            (len, rest) => (u64::from(len), rest),
        };
        let &[a, b, c, d, ref rest @ ..] = rest else {
            return Ok(None);
        };
        let header = Header {
            fin,
            compressed,
            opcode,
            mask: [a, b, c, d],
            len,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

/// "Note that in all cases, the minimal number of bytes MUST be used to encode the length".
fn minimal(len: u64, least: u64) -> Result<u64, ProtocolError> {
    if len < least {
        return Err(violation("length is not minimal"));
    }
    Ok(len)
}

fn violation(reason: &'static str) -> ProtocolError {
    ProtocolError::new(CloseCode::PROTOCOL_ERROR, reason)
}

/// Encodes an unmasked frame with FIN set, as sent by a server.
#[inline]
pub fn encode_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    encode_header(0x80 | opcode as u8, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

/// Encodes the first and only frame of a compressed message.
pub fn encode_compressed(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    encode_header(0x80 | RSV1 | opcode as u8, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

/// Encodes a masked frame, as sent by a client.
pub fn encode_client_frame(
    fin: bool,
    opcode: OpCode,
    mask: [u8; 4],
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let fin = if fin { 0x80 } else { 0 };
    encode_header(fin | opcode as u8, payload.len(), 0x80, out);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask, 0);
}

/// Encodes a message as a single client frame that decodes to the same message. The mask is zero,
/// which leaves the payload unchanged.
pub(super) fn encode_again(opcode: OpCode, compressed: bool, payload: &[u8], out: &mut Vec<u8>) {
    let rsv1 = if compressed { RSV1 } else { 0 };
    encode_header(0x80 | rsv1 | opcode as u8, payload.len(), 0x80, out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[inline]
fn encode_header(first: u8, len: usize, mask_bit: u8, out: &mut Vec<u8>) {
    match len {
        0..126 => out.extend_from_slice(&[first, mask_bit | len as u8]),
        126..0x1_0000 => {
            let [a, b] = (len as u16).to_be_bytes();
            out.extend_from_slice(&[first, mask_bit | 126, a, b]);
        }
        _ => {
            out.extend_from_slice(&[first, mask_bit | 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// RFC 7692 §6: "the RSV1 bit of the WebSocket header" marks a compressed message.
const RSV1: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_and_round_trip() {
        for len in [0_usize, 1, 125, 126, 65_535, 65_536, 100_000] {
            let payload = vec![7; len];
            let mut bytes = Vec::new();
            encode_client_frame(true, OpCode::Binary, [1, 2, 3, 4], &payload, &mut bytes);
            let (header, size) = Header::parse(&bytes, false).unwrap().unwrap();
            assert_eq!(header.len, len as u64);
            assert_eq!(bytes.len(), size + len);
            for end in 0..size {
                assert_eq!(Header::parse(&bytes[..end], false), Ok(None), "{len} {end}");
            }
        }
    }

    // CVE-2026-19204: regardless of the length announced with an unknown opcode.
    #[test]
    fn unknown_opcodes_are_refused_before_their_length_is_read() {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            for length in 0x80..=0xFF {
                for fin in [0, 0x80] {
                    let refused = Err(violation("unknown opcode"));
                    assert_eq!(Header::parse(&[fin | opcode, length], false), refused);
                }
            }
        }
    }

    // CVE-2020-13935
    #[test]
    fn rfc_violations_are_rejected() {
        let table: [(&[u8], &str); 12] = [
            (&[0xC1, 0x80], "reserved bits are set"),
            (&[0xA1, 0x80], "reserved bits are set"),
            (&[0x91, 0x80], "reserved bits are set"),
            (&[0x83, 0xFF], "unknown opcode"),
            (&[0x87, 0xFF], "unknown opcode"),
            (&[0x8B, 0xFF], "unknown opcode"),
            (&[0x81, 0x00], "frame is not masked"),
            (&[0x89, 0xFE], "control frame is too long"),
            (&[0x09, 0x80], "control frame is fragmented"),
            (&[0x81, 0xFE, 0, 125], "length is not minimal"),
            (
                &[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255],
                "length is not minimal",
            ),
            (
                &[0x81, 0xFF, 128, 0, 0, 0, 0, 0, 0, 0],
                "top bit of the length is set",
            ),
        ];
        for (bytes, reason) in table {
            let parsed = Header::parse(bytes, false);
            assert_eq!(parsed, Err(violation(reason)), "{bytes:x?}");
        }
    }

    #[test]
    fn reserved_bits_allowed_with_deflate() {
        for first in 0..=0xFF_u8 {
            let parsed = Header::parse(&[first, 0x80, 1, 2, 3, 4], true);
            let opcode = OpCode::from_bits(first & 0x0F);
            let is_data = matches!(opcode, Some(OpCode::Text | OpCode::Binary));
            let may_be = match first & 0x70 {
                0 => opcode.is_some_and(|opcode| !opcode.is_control() || first & 0x80 != 0),
                RSV1 => is_data,
                _ => false,
            };
            match parsed {
                Ok(Some((header, 6))) => assert_eq!(header.compressed, first & RSV1 != 0),
                other => assert!(other.is_err(), "{first:x}: {other:?}"),
            }
            assert_eq!(parsed.is_ok(), may_be, "{first:x}");
        }
    }

    #[test]
    fn control_frames_have_at_most_125_bytes() {
        for (short, is_valid) in [(125, true), (126, false), (127, false)] {
            let parsed = Header::parse(&[0x89, 0x80 | short, 1, 2, 3, 4], false);
            assert_eq!(parsed.is_ok(), is_valid, "{short}");
        }
    }
}

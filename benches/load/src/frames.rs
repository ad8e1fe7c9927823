//! Encodes and decodes frames as a client (RFC 6455, section 5.2).
//!
//! Independent of the server's implementation, so that a measurement does not use the code under
//! test.

/// A complete frame from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub fin: bool,
    pub compressed: bool,
    pub opcode: u8,
    pub payload: &'a [u8],
}

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The maximum length of a frame from a server, in bytes.
const MAX_FRAME: u64 = 64 << 20;

/// Returns a masked, final, uncompressed frame.
pub fn encode(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap_or_default()),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap_or_default().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Returns the first frame of `bytes` and its encoded length; `None` while it is incomplete.
///
/// # Errors
///
/// Returns an error for frames that a server must never send.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err("a masked frame");
    }
    if first & 0x30 != 0 {
        return Err("a reserved bit");
    }
    let (length, header) = match (second & 0x7F, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        (127, rest) if rest.len() >= 8 => {
            let digits = rest[..8].try_into().unwrap_or_default();
            (u64::from_be_bytes(digits), 10)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (u64::from(length), 2),
    };
    if length > MAX_FRAME {
        return Err("a frame over 64 MiB");
    }
    let end = header + usize::try_from(length).map_err(|_| "a frame too long")?;
    let Some(payload) = bytes.get(header..end) else {
        return Ok(None);
    };
    let frame = Frame {
        fin: first & 0x80 != 0,
        compressed: first & 0x40 != 0,
        opcode: first & 0x0F,
        payload,
    };
    Ok(Some((frame, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_encoding_round_trips() {
        for length in [0, 5, 125, 126, 65_535, 65_536] {
            let mut bytes = encode(TEXT, &vec![b'x'; length], [0; 4]);
            // As a server would send it: without a mask.
            let mask = bytes.len() - length - 4;
            bytes.drain(mask..mask + 4);
            bytes[1] &= 0x7F;
            for cut in [0, 1, 2, 9, bytes.len() - 1] {
                let cut = cut.min(bytes.len() - 1);
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{cut} of {length}");
            }
            let (frame, end) = decode(&bytes).unwrap().unwrap();
            assert_eq!((frame.payload.len(), end), (length, bytes.len()));
            assert!(frame.fin && !frame.compressed && frame.opcode == TEXT);
        }
    }

    #[test]
    fn masked_server_frames_are_rejected() {
        assert!(decode(&encode(TEXT, b"x", [1, 2, 3, 4])).is_err());
    }

    #[test]
    fn masking_xors_the_payload() {
        assert_eq!(encode(TEXT, b"ab", [1, 2, 3, 4])[6..], [b'a' ^ 1, b'b' ^ 2]);
    }
}

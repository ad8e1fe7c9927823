//! Cursors: the encoding, against a naive decoder.

use h_realtime::realtime::{Cursor, ReplayCursor};

/// Input: four numbers of eight bytes, and a text.
pub fn cursor(input: &[u8]) {
    let Some((numbers, text)) = input.split_at_checked(32) else {
        return check_text(&String::from_utf8_lossy(input));
    };
    let mut numbers = numbers.chunks_exact(8).map(number);
    let mut next = || numbers.next().unwrap_or_default();
    let cursor = Cursor {
        epoch: next(),
        position: next(),
        time: next(),
    };
    check_text(&String::from_utf8_lossy(text));
    let from = next().min(cursor.position);
    for cursor in [cursor.into(), ReplayCursor { cursor, from }] {
        let encoded = cursor.encode();
        assert_eq!(ReplayCursor::parse(&encoded), Some(cursor), "{encoded}");
        check_text(&encoded);
        // A damaged cursor: the text replaces its beginning.
        let (text, rest) = (text.get(..36).unwrap_or(text), encoded.as_bytes());
        let damaged = [text, rest.get(text.len()..).unwrap_or_default()].concat();
        check_text(&String::from_utf8_lossy(&damaged));
    }
}

/// A text is a cursor if and only if it is one for the naive decoder, and its only spelling.
fn check_text(text: &str) {
    let parsed = ReplayCursor::parse(text);
    assert_eq!(parsed, decoded(text), "{text:?}");
    if let Some(cursor) = parsed {
        assert_eq!(cursor.encode(), text);
    }
}

/// Decodes a text as its specification describes it: base64url of 27 or 35 bytes, which are the
/// version, three or four numbers, and a checksum. Bits beyond the last byte are zero.
fn decoded(text: &str) -> Option<ReplayCursor> {
    let digits: Option<Vec<u8>> = text.bytes().map(digit).collect();
    let digits = digits.filter(|digits| matches!(digits.len(), 36 | 47))?;
    let mut bits: Vec<bool> = digits
        .iter()
        .flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1))
        .collect();
    let rest = bits.split_off(bits.len() / 8 * 8);
    // The remainder of a message with its checksum is zero.
    let remainder = bits.iter().fold(0xffff_u16, |remainder, &bit| {
        let is_carried = (remainder & 0x8000 != 0) != bit;
        remainder << 1 ^ if is_carried { 0x1021 } else { 0 }
    });
    let bytes: Vec<u8> = bits
        .chunks_exact(8)
        .map(|bits| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
        .collect();
    let cursor = Cursor {
        epoch: number(&bytes[1..9]),
        position: number(&bytes[9..17]),
        time: number(&bytes[17..25]),
    };
    let from = match (bytes.len(), bytes[0]) {
        (27, 1) => cursor.position,
        (35, 2) => number(&bytes[25..33]),
        _ => return None,
    };
    let is_plain = bytes.len() == 27;
    let is_cursor = remainder == 0 && !rest.contains(&true);
    let is_cursor = is_cursor && (is_plain || from < cursor.position);
    is_cursor.then_some(ReplayCursor { cursor, from })
}

/// Returns the value of a digit in the URL-safe alphabet.
fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

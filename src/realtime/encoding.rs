//! Decodes the text of a binary message.
//!
//! h passes both kinds of message to Python's `json.loads`, which accepts JSON in UTF-8, UTF-16,
//! and UTF-32. It detects the encoding by a byte order mark, or by the positions of the first zero
//! bytes, since JSON starts with an ASCII character.

use std::borrow::Cow;

/// Returns the text without a byte order mark, or `None` if the bytes are invalid.
pub(super) fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let (encoding, content) = detect(bytes);
    match encoding {
        Encoding::Utf8 => std::str::from_utf8(content).ok().map(Cow::Borrowed),
        Encoding::Utf16(order) => utf16(content, order).map(Cow::Owned),
        Encoding::Utf32(order) => utf32(content, order).map(Cow::Owned),
    }
}

/// Removes a byte order mark.
pub(super) fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    Utf16(Order),
    Utf32(Order),
}

/// Detects the encoding, and returns it with the content after the mark. The marks of UTF-32 are
/// tested first, since its little-endian mark starts with that of UTF-16.
fn detect(bytes: &[u8]) -> (Encoding, &[u8]) {
    use Encoding::{Utf8, Utf16, Utf32};
    use Order::{Big, Little};
    match bytes {
        [0, 0, 0xfe, 0xff, content @ ..] => (Utf32(Big), content),
        [0xff, 0xfe, 0, 0, content @ ..] => (Utf32(Little), content),
        [0xfe, 0xff, content @ ..] => (Utf16(Big), content),
        [0xff, 0xfe, content @ ..] => (Utf16(Little), content),
        [0xef, 0xbb, 0xbf, content @ ..] => (Utf8, content),
        [0, 0, _, _, ..] => (Utf32(Big), bytes),
        [0, _, _, _, ..] | [0, _] => (Utf16(Big), bytes),
        [_, 0, 0, 0, ..] => (Utf32(Little), bytes),
        [_, 0, _, _, ..] | [_, 0] => (Utf16(Little), bytes),
        _ => (Utf8, bytes),
    }
}

fn utf16(bytes: &[u8], order: Order) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units = units.iter().map(|&unit| match order {
        Order::Big => u16::from_be_bytes(unit),
        Order::Little => u16::from_le_bytes(unit),
    });
    let text = char::decode_utf16(units).collect::<Result<_, _>>().ok();
    text.filter(|_| rest.is_empty())
}

fn utf32(bytes: &[u8], order: Order) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<4>();
    let units = units.iter().map(|&unit| match order {
        Order::Big => u32::from_be_bytes(unit),
        Order::Little => u32::from_le_bytes(unit),
    });
    let text = units.map(char::from_u32).collect::<Option<_>>();
    text.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide<const N: usize>(text: &str, unit: impl Fn(char) -> [u8; N]) -> Vec<u8> {
        text.chars().flat_map(unit).collect()
    }

    #[test]
    fn python_encodings_are_detected() {
        // Only characters of the basic plane, so that each is one UTF-16 unit.
        let text = "{\"a\":\"ü☃\"}";
        let utf16_be = wide(text, |c| (c as u16).to_be_bytes());
        let utf16_le = wide(text, |c| (c as u16).to_le_bytes());
        let utf32_be = wide(text, |c| (c as u32).to_be_bytes());
        let utf32_le = wide(text, |c| (c as u32).to_le_bytes());
        let with_mark = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        for bytes in [
            text.as_bytes().to_vec(),
            with_mark(b"\xef\xbb\xbf", text.as_bytes()),
            with_mark(b"\xfe\xff", &utf16_be),
            with_mark(b"\xff\xfe", &utf16_le),
            with_mark(b"\0\0\xfe\xff", &utf32_be),
            with_mark(b"\xff\xfe\0\0", &utf32_le),
            utf16_be,
            utf16_le,
            utf32_be,
            utf32_le,
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(text), "{bytes:x?}");
        }
    }

    #[test]
    fn short_texts_and_surrogate_pairs_are_decoded() {
        for (bytes, expected) in [
            (&b""[..], Some("")),
            (b"1", Some("1")),
            (b"\x001", Some("1")),
            (b"1\0", Some("1")),
            (b"\xff\xfe\x3d\xd8\x00\xde", Some("😀")),
            (b"\xff\xfe\x3d\xd8", None),
            (b"\xff\xfe1\0\0", None),
            (b"\xff\xfe\0\0\0\0\x11\0", None),
            (b"\xff\xfe\0\0\0", None),
            (b"{\"\xfc\"}", None),
        ] {
            assert_eq!(decode(bytes).as_deref(), expected, "{bytes:x?}");
        }
    }
}

//! Percent-encoding like Python's `quote` and `unquote`.
//!
//! Owns: the conversion between bytes and `%XX`. Must not know: the part of the URI to which the
//! text belongs. The caller names the safe characters.

use std::borrow::Cow;

/// The characters that a path segment keeps besides the unreserved ones.
///
/// RFC 3986, section 3.3: "pchar = unreserved / pct-encoded / sub-delims / ":" / "@"".
pub(super) const PATH_SEGMENT: &[u8] = b":@!$&'()*+,;=";

/// Decodes `%XX` as UTF-8, with U+FFFD for invalid sequences. A `%` without two hexadecimal digits
/// is kept.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('%') {
        Cow::Owned(into_text(decode_bytes(text, false)))
    } else {
        Cow::Borrowed(text)
    }
}

/// Like [`decode`], for form-encoded text, in which `+` is a space.
pub(super) fn decode_form(text: &str) -> Cow<'_, str> {
    if text.contains(['%', '+']) {
        Cow::Owned(into_text(decode_bytes(text, true)))
    } else {
        Cow::Borrowed(text)
    }
}

/// Appends `text`, with every byte as `%XX` that is neither unreserved nor in `safe`.
pub(super) fn encode(out: &mut String, text: &str, safe: &[u8]) {
    for byte in text.bytes() {
        if is_unreserved(byte) || safe.contains(&byte) {
            out.push(char::from(byte));
        } else {
            push_escape(out, byte);
        }
    }
}

/// Like [`encode`], for form-encoded text, in which a space becomes `+`.
pub(super) fn encode_form(out: &mut String, text: &str, safe: &[u8]) {
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            out.push('+');
        }
        encode(out, word, safe);
    }
}

fn decode_bytes(text: &str, plus_is_space: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, escaped(behind)) {
            (b'%', Some((decoded, behind))) => {
                out.push(decoded);
                rest = behind;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

/// Decodes the two hexadecimal digits at the start of `text`. Returns the byte and the rest.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], behind) = text.split_first_chunk()?;
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some((digit(high)? << 4 | digit(low)?, behind))
}

/// Converts bytes to text. Rust and Python agree on replacement: one U+FFFD for each maximal
/// subpart of an invalid sequence.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned())
}

/// RFC 3986, section 2.3: "unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"".
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986, section 2.1: "URI producers and normalizers should use uppercase hexadecimal digits".
fn push_escape(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 0xF] {
        out.push(char::from(if digit < 10 {
            b'0' + digit
        } else {
            b'A' + digit - 10
        }));
    }
}

//! JSON from publishers, in which strings may be truncated within a character.

use std::borrow::Cow;

/// Replaces each lone surrogate with U+FFFD, the replacement character.
///
/// RFC 8259 §8.2: "the ABNF in this specification allows member names and string values to contain
/// bit sequences that cannot encode Unicode characters; for example, "\uDEAD" (a single unpaired
/// UTF-16 surrogate). Instances of this have been observed, for example, when a library truncates a
/// UTF-16 string without checking whether the truncation split a surrogate pair." The official
/// client truncates quotes in this way. The text keeps its length, so that positions in errors stay
/// correct.
pub(super) fn without_lone_surrogates(text: &[u8]) -> Cow<'_, [u8]> {
    let mut text = Cow::Borrowed(text);
    let mut at = 0;
    while let Some(found) = text[at..].iter().position(|&byte| byte == b'\\') {
        at += found;
        let Some(unit) = escaped_unit(&text[at..]) else {
            // The escaped character may be another backslash.
            at = (at + 2).min(text.len());
            continue;
        };
        let is_pair = is_high(unit) && escaped_unit(&text[at + ESCAPE..]).is_some_and(is_low);
        match is_pair {
            true => at += ESCAPE,
            false if is_high(unit) || is_low(unit) => {
                text.to_mut()[at..at + ESCAPE].copy_from_slice(br"\ufffd");
            }
            false => {}
        }
        at += ESCAPE;
    }
    text
}

/// Returns the UTF-16 code unit of an escape sequence at the start of `text`.
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` accepts a sign.
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

fn is_high(unit: u16) -> bool {
    (0xD800..0xDC00).contains(&unit)
}

fn is_low(unit: u16) -> bool {
    (0xDC00..0xE000).contains(&unit)
}

/// The length of an escape sequence such as `\u00e9`, in bytes.
const ESCAPE: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        for (text, want) in [
            (r#""a""#, r#""a""#),
            (r#""a \ud83d""#, r#""a \ufffd""#),
            (r#""\uD83D\uDE00""#, r#""\uD83D\uDE00""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\n\ude00""#, r#""\ufffd\n\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\ud83""#, r#""\ud83""#),
            (r#""\u+d83""#, r#""\u+d83""#),
            (r#""\u00e9\ud83d"#, r#""\u00e9\ufffd"#),
            (r"\", r"\"),
        ] {
            let got = without_lone_surrogates(text.as_bytes());
            assert_eq!(std::str::from_utf8(&got), Ok(want), "{text}");
        }
    }
}

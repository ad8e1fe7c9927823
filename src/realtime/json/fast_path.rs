//! A fast path for objects without escapes and fractions, as in nearly all messages of clients: one
//! pass.
//!
//! Owns: the selection of objects for the fast path, and nothing else of JSON. Nested values are
//! left to the full parser, as is all other text, valid or not.

use serde_json::Deserializer;
use serde_json::value::RawValue;

/// Calls `visit` with each member of an object, like [`super::members`], if no key or string
/// contains an escape, and all numbers are integers. Returns `None` for any other text, valid or
/// not. Some members may have been visited by then.
pub(super) fn members<'a>(text: &'a str, visit: &mut impl FnMut(&str, &'a str)) -> Option<()> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_space();
    scanner.take(b'{')?;
    scanner.skip_space();
    if scanner.take(b'}').is_none() {
        loop {
            let key = scanner.string()?;
            scanner.skip_space();
            scanner.take(b':')?;
            scanner.skip_space();
            let value = scanner.value()?;
            visit(super::string_content(key)?, value);
            scanner.skip_space();
            if scanner.take(b'}').is_some() {
                break;
            }
            scanner.take(b',')?;
            scanner.skip_space();
        }
    }
    scanner.skip_space();
    scanner.peek().is_none().then_some(())
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_space(&mut self) {
        // RFC 8259 §2: "ws = *( %x20 / %x09 / %x0A / %x0D )"
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Option<&'a str> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' | b'[' => self.container(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.whole_number(),
        }
    }

    /// Returns a string with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'"' => break,
                // RFC 8259 §7: "characters that MUST be escaped: quotation mark, reverse solidus,
                // and the control characters (U+0000 through U+001F)"
                b'\\' | 0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at)
    }

    fn word(&mut self, word: &str) -> Option<&'a str> {
        let end = self.at + word.len();
        let found = self.text.get(self.at..end).filter(|found| *found == word);
        self.at = end;
        found
    }

    fn container(&mut self) -> Option<&'a str> {
        let rest = Deserializer::from_str(self.text.get(self.at..)?);
        let value = rest.into_iter::<&RawValue>().next()?.ok()?.get();
        self.at += value.len();
        Some(value)
    }

    fn whole_number(&mut self) -> Option<&'a str> {
        let start = self.at;
        let _ = self.take(b'-');
        // RFC 8259 §6: "Leading zeros are not allowed." The caller rejects a digit, a fraction, or
        // an exponent that follows.
        if self.take(b'0').is_none() {
            let digits = self.at;
            while let Some(b'0'..=b'9') = self.peek() {
                self.at += 1;
            }
            if self.at == digits {
                return None;
            }
        }
        self.text.get(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Members, read_members};
    use super::*;

    type Found<'a> = Vec<(String, &'a str)>;

    fn scanned(text: &str) -> Option<Found<'_>> {
        let mut found = Vec::new();
        members(text, &mut |key, value| found.push((key.to_owned(), value)))?;
        Some(found)
    }

    fn parsed(text: &str) -> Option<Found<'_>> {
        let mut found = Vec::new();
        let visit = |key: &str, value| found.push((key.to_owned(), value));
        read_members(text, Members(visit)).ok()?;
        Some(found)
    }

    #[test]
    fn common_messages_take_the_fast_path() {
        for text in [
            r#"{"type": "ping", "id": 1}"#,
            r#"{"type":"whoami","id":-0}"#,
            r#"{"messageType":"client_id","value":"5c0c6c7a"}"#,
            " {\r\n\t} ",
            r#"{"a":"ä 📝","a":null,"":true,"b":false,"c":123456789012345678901234567890}"#,
            r#"{"filter": {"clauses" : [{"a": "\n"}, 1.5 ], "b": {} } , "c":[]}"#,
        ] {
            let found = scanned(text);
            assert!(found.is_some(), "{text}");
            assert_eq!(found, parsed(text), "{text}");
        }
    }

    // Text that the fast path accepts is parsed in the same way by the full parser, even after
    // random changes.
    #[test]
    fn fast_path_agrees_with_the_parser() {
        let valid =
            r#" { "ty" : "p ä" , "id" : -120,"x":0 ,"y":true,"z":null, "w":[{"v":false}] } "#;
        let others = "\"\\{}[]:,0159-+.eEtfnul \t\r\n\u{0}\u{1f}\u{7f}ä/";
        let mut accepted = 0;
        for (at, old) in valid.char_indices() {
            let (before, after) = (&valid[..at], &valid[at + old.len_utf8()..]);
            let texts = others.chars().flat_map(|new| {
                [
                    format!("{before}{new}{after}"),
                    format!("{before}{new}{old}{after}"),
                ]
            });
            for text in texts.chain([format!("{before}{after}"), before.to_owned()]) {
                if let Some(found) = scanned(&text) {
                    assert_eq!(Some(found), parsed(&text), "{text:?}");
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 500, "{accepted}");
    }

    #[test]
    fn other_text_is_left_to_the_parser() {
        for text in [
            r#"{"a":1.5}"#,
            r#"{"a":1e2}"#,
            r#"{"a":"\n"}"#,
            r#"{"\u0061":1}"#,
        ] {
            assert_eq!(scanned(text), None, "{text}");
            assert!(parsed(text).is_some(), "{text}");
        }
    }
}

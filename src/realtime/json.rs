//! Zero-copy JSON parsing.
//!
//! Owns: the split of an object into the text of its members in one pass, and the decoding of
//! strings. Must not know: the meaning of members.

mod fast_path;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The text is not valid JSON, or not of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError;

/// Calls `visit` with each member of an object: its key, and the text of its value without
/// surrounding white space. Duplicate keys are visited in order. If a member requires the full
/// parser, all members are visited again from the first.
///
/// Values are skipped without recursion, so nesting uses no stack. A key that contains a lone
/// surrogate matches no known key, and is skipped.
///
/// # Errors
/// [`JsonError`] if the text is not a single JSON object. Some members may have been visited by
/// then.
pub(super) fn members<'a>(
    object: &'a str,
    mut visit: impl FnMut(&str, &'a str),
) -> Result<(), JsonError> {
    if fast_path::members(object, &mut visit).is_some() {
        return Ok(());
    }
    match read_members(object, Members(&mut visit)) {
        // A key can only be valid JSON and invalid Unicode if it contains escapes.
        Err(_) if object.contains("\\u") => read_members(object, RawMembers(&mut visit)),
        result => result,
    }
    .map_err(|_| JsonError)
}

fn read_members<'a>(
    object: &'a str,
    members: impl Visitor<'a, Value = ()>,
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    deserializer.deserialize_map(members)?;
    deserializer.end()
}

/// Calls `visit` with the text of each element of an array in order, until it fails. The rest is
/// not parsed then.
///
/// # Errors
/// The error of `visit`, or [`JsonError`] if the text is not a JSON array. Some elements may have
/// been visited by then.
pub(super) fn elements<'a, E: From<JsonError>>(
    array: &'a str,
    mut visit: impl FnMut(&'a str) -> Result<(), E>,
) -> Result<(), E> {
    let mut failure = None;
    let elements = Elements(|element: &'a str| {
        let result = visit(element);
        let is_ok = result.is_ok();
        failure = result.err();
        is_ok
    });
    let mut deserializer = serde_json::Deserializer::from_str(array);
    let read = deserializer
        .deserialize_seq(elements)
        .and_then(|()| deserializer.end());
    match failure {
        Some(failure) => Err(failure),
        None => read.map_err(|_| JsonError.into()),
    }
}

/// Returns whether the text is valid JSON of any type.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Decodes a JSON string. Returns `None` if the value is not a string, or contains a lone
/// surrogate, which JSON allows.
pub(super) fn string(value: &str) -> Option<Cow<'_, str>> {
    let content = string_content(value)?;
    if content.contains('\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(content))
    }
}

/// Returns the raw text between the quotes of a JSON string, or `None` if the value is not a
/// string.
pub(super) fn string_content(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// Returns whether a JSON value is a number.
pub(super) fn is_number(value: &str) -> bool {
    value.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// Returns whether a JSON value is an array or an object.
pub(super) fn is_container(value: &str) -> bool {
    value.starts_with(['[', '{'])
}

/// Visits members with keys that are valid Unicode.
struct Members<F>(F);

impl<'a, F: FnMut(&str, &'a str)> Visitor<'a> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            (self.0)(&key, map.next_value::<&RawValue>()?.get());
        }
        Ok(())
    }
}

/// Visits the elements of an array until the callback returns false.
struct Elements<F>(F);

impl<'a, F: FnMut(&'a str) -> bool> Visitor<'a> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if !(self.0)(element.get()) {
                return Err(A::Error::custom("stopped by the callback"));
            }
        }
        Ok(())
    }
}

/// A key, borrowed if it has no escapes.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Cow<'a, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// Visits members with keys that may contain lone surrogates.
struct RawMembers<F>(F);

impl<'a, F: FnMut(&str, &'a str)> Visitor<'a> for RawMembers<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if let Some(key) = string(key.get()) {
                (self.0)(&key, value.get());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(object: &str) -> Result<Vec<(String, &str)>, JsonError> {
        let mut out = Vec::new();
        members(object, |key, value| out.push((key.to_owned(), value)))?;
        Ok(out)
    }

    #[test]
    fn members_are_visited_in_order_and_verbatim() {
        let actual = all(" {\"a\" : [1, {\"b\":2}] ,\"\\u0061\":\"\\ud800\",\"\":1e400 } ");
        // Each of the two parsers visits the first member.
        let first = ("a", "[1, {\"b\":2}]");
        let expected = [first, first, ("a", "\"\\ud800\""), ("", "1e400")];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(actual, Ok(expected));
    }

    #[test]
    fn key_with_lone_surrogate_is_skipped() {
        let actual = all(r#"{"a":1,"\ud800":{"a":2},"\n\u0062":"\ud800","a":3}"#);
        // Each of the parsers visits the members before it.
        let expected = [
            ("a", "1"),
            ("a", "1"),
            ("a", "1"),
            ("\nb", r#""\ud800""#),
            ("a", "3"),
        ];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(actual, Ok(expected));
    }

    #[test]
    fn elements_are_visited_until_the_callback_fails() {
        #[derive(Debug, PartialEq)]
        enum Stop {
            JsonError,
            At(usize),
        }
        impl From<JsonError> for Stop {
            fn from(_: JsonError) -> Self {
                Stop::JsonError
            }
        }
        let read = |array, most| {
            let mut found = Vec::new();
            let result = elements(array, |element| {
                found.push(element);
                match found.len() > most {
                    true => Err(Stop::At(found.len())),
                    false => Ok(()),
                }
            });
            (result, found.len())
        };
        assert_eq!(read(r#" [1 , "a", [{}] ] "#, 3), (Ok(()), 3));
        assert_eq!(read("[1,2,3]", 1), (Err(Stop::At(2)), 2));
        // The rest of the array is not parsed.
        assert_eq!(read("[1,2,x", 1), (Err(Stop::At(2)), 2));
        for other in ["", "{}", "1", "[1] 2", "[1,]", "[x]"] {
            assert_eq!(read(other, 9).0, Err(Stop::JsonError), "{other}");
        }
    }

    #[test]
    fn other_text_is_a_mismatch() {
        for text in [
            "",
            " ",
            "1",
            "[]",
            "null",
            "{",
            "{}{}",
            "{} x",
            "{a:1}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{\"a\":NaN}",
            "{\"a\":\"\u{1}\"}",
            "{\"\u{1}\":1}",
            "{\"a\":\"\\x\"}",
        ] {
            assert_eq!(all(text), Err(JsonError), "{text}");
        }
    }

    #[test]
    fn nesting_uses_no_stack() {
        let depth = 1_000_000;
        let array = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_json(&array));
        assert_eq!(
            all(&format!("{{\"a\":{array}}}")).map(|all| all.len()),
            Ok(1)
        );
        assert!(!is_json(&"[".repeat(depth)));
    }

    #[test]
    fn strings_are_decoded() {
        for (value, expected) in [
            (r#""""#, Some("")),
            (r#""a""#, Some("a")),
            (r#""\u0061\ud83d\ude00\/""#, Some("a😀/")),
            (r#""\ud800""#, None),
            ("1", None),
            ("null", None),
            ("[]", None),
        ] {
            assert_eq!(string(value).as_deref(), expected, "{value}");
        }
    }
}

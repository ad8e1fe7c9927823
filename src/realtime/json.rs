//! JSON taken apart without being copied.
//!
//! Owns: one pass over an object that gives each member's text, and the reading of a string.
//! Must not know what the members mean.

mod scan;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The text is not JSON, or not of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch;

/// Gives each member of an object to `visit`: its key, and the text of its value, which is
/// JSON without white space around it. Repeated keys are given as often as they come, in their
/// order; and where one was hard to read all of them are given anew, from the first.
///
/// Values are skipped over without recursion, so nesting costs no stack. A key that is no
/// Unicode text (a lone surrogate) is no key that anybody here asks for, and left out.
///
/// # Errors
/// [`Mismatch`] when the whole text is not one JSON object; some members may have been given
/// by then.
pub fn members<'a>(object: &'a str, mut visit: impl FnMut(&str, &'a str)) -> Result<(), Mismatch> {
    if scan::members(object, &mut visit).is_some() {
        return Ok(());
    }
    match read_members(object, Members(&mut visit)) {
        // Only a key that is spelled with escapes can be no text, and still be JSON.
        Err(_) if object.contains("\\u") => read_members(object, RawMembers(&mut visit)),
        result => result,
    }
    .map_err(|_| Mismatch)
}

fn read_members<'a>(
    object: &'a str,
    members: impl Visitor<'a, Value = ()>,
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    deserializer.deserialize_map(members)?;
    deserializer.end()
}

/// Gives the text of each element of an array to `visit`, in order, until that fails: the rest is
/// not read then.
///
/// # Errors
/// That of `visit`, or [`Mismatch`] when the text is not a JSON array; some elements may have been
/// given by then.
pub fn elements<'a, E: From<Mismatch>>(
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
        None => read.map_err(|_| Mismatch.into()),
    }
}

/// Whether the text is JSON, of whatever kind.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// What a JSON string says; `None` when the JSON value is none, or is no Unicode text (a lone
/// surrogate, which JSON can spell).
pub fn string(value: &str) -> Option<Cow<'_, str>> {
    let content = string_content(value)?;
    if content.contains('\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(content))
    }
}

/// What is between the quotes of a JSON string, escapes and all; `None` when the JSON value is
/// no string.
pub fn string_content(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// Whether a JSON value is a number.
pub fn is_number(value: &str) -> bool {
    value.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// Whether a JSON value is an array or an object.
pub fn is_container(value: &str) -> bool {
    value.starts_with(['[', '{'])
}

/// Members whose keys are all text.
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

/// An array's elements, as long as they are wanted.
struct Elements<F>(F);

impl<'a, F: FnMut(&'a str) -> bool> Visitor<'a> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if !(self.0)(element.get()) {
                return Err(A::Error::custom("no more is wanted"));
            }
        }
        Ok(())
    }
}

/// A key, borrowed where it is spelled without escapes.
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

/// Members whose keys may be no text.
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

    fn all(object: &str) -> Result<Vec<(String, &str)>, Mismatch> {
        let mut out = Vec::new();
        members(object, |key, value| out.push((key.to_owned(), value)))?;
        Ok(out)
    }

    #[test]
    fn members_come_in_order_and_verbatim() {
        let got = all(" {\"a\" : [1, {\"b\":2}] ,\"\\u0061\":\"\\ud800\",\"\":1e400 } ");
        // The first is given by each of the two ways to read that were tried.
        let first = ("a", "[1, {\"b\":2}]");
        let want = [first, first, ("a", "\"\\ud800\""), ("", "1e400")];
        let want: Vec<_> = want.map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn a_key_that_is_no_text_is_left_out_and_hides_none() {
        let got = all(r#"{"a":1,"\ud800":{"a":2},"\n\u0062":"\ud800","a":3}"#);
        // Those before it are given by each of the ways to read that were tried.
        let want = [
            ("a", "1"),
            ("a", "1"),
            ("a", "1"),
            ("\nb", r#""\ud800""#),
            ("a", "3"),
        ];
        let want: Vec<_> = want.map(|(k, v)| (k.to_owned(), v)).into();
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn elements_are_read_until_one_is_refused() {
        #[derive(Debug, PartialEq)]
        enum Stop {
            Mismatch,
            At(usize),
        }
        impl From<Mismatch> for Stop {
            fn from(_: Mismatch) -> Self {
                Stop::Mismatch
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
        // The rest of the array is not looked at.
        assert_eq!(read("[1,2,x", 1), (Err(Stop::At(2)), 2));
        for other in ["", "{}", "1", "[1] 2", "[1,]", "[x]"] {
            assert_eq!(read(other, 9).0, Err(Stop::Mismatch), "{other}");
        }
    }

    #[test]
    fn what_is_not_an_object() {
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
            assert_eq!(all(text), Err(Mismatch), "{text}");
        }
    }

    #[test]
    fn nesting_costs_no_stack() {
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
    fn strings() {
        for (value, want) in [
            (r#""""#, Some("")),
            (r#""a""#, Some("a")),
            (r#""\u0061\ud83d\ude00\/""#, Some("a😀/")),
            (r#""\ud800""#, None),
            ("1", None),
            ("null", None),
            ("[]", None),
        ] {
            assert_eq!(string(value).as_deref(), want, "{value}");
        }
    }
}

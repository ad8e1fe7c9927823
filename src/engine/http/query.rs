//! Query parameters, decoded as `application/x-www-form-urlencoded`.

use std::borrow::Cow;

/// An iterator over the parameters of a query, in order. A name without `=` has an empty value.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    rest: Option<&'a str>,
}

impl<'a> Params<'a> {
    pub(super) fn new(query: &'a str) -> Self {
        Params { rest: Some(query) }
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest?;
            let (pair, rest) = match rest.split_once('&') {
                Some((pair, rest)) => (pair, Some(rest)),
                None => (rest, None),
            };
            self.rest = rest;
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                return Some((decode(name, true), decode(value, true)));
            }
        }
    }
}

/// Percent-decodes a path. Invalid UTF-8 is replaced by U+FFFD, and a `%` without two hex digits is
/// kept as is: such a path matches no route.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    decode(text, false)
}

fn decode(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    if !bytes
        .iter()
        .any(|&b| b == b'%' || (plus_is_space && b == b'+'))
    {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| hex_pair(bytes.get(at + 1..at + 3)))
            .flatten();
        match escaped {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if plus_is_space && byte == b'+' {
                    b' '
                } else {
                    byte
                });
                at += 1;
            }
        }
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

fn hex_pair(digits: Option<&[u8]>) -> Option<u8> {
    let &[high, low] = digits? else { return None };
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_order() {
        let got: Vec<_> = Params::new("a=1&b&&c=x%20y+z&a=2&%61=%zz&=e").collect();
        let want = [
            ("a", "1"),
            ("b", ""),
            ("c", "x y z"),
            ("a", "2"),
            ("a", "%zz"),
            ("", "e"),
        ];
        let got: Vec<_> = got.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        assert!(matches!(percent_decode("/a+b"), Cow::Borrowed("/a+b")));
        let parameter = Params::new("a=b").next();
        let is_borrowed = matches!(parameter, Some((Cow::Borrowed("a"), Cow::Borrowed("b"))));
        assert!(is_borrowed);
    }

    #[test]
    fn invalid_escapes_are_literal_text() {
        for (text, want) in [
            ("/a%20b+c", "/a b+c"),
            ("%", "%"),
            ("%4", "%4"),
            ("%ff", "\u{fffd}"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(percent_decode(text), want, "{text}");
        }
    }
}

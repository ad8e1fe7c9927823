//! Patterns for the addresses of pages: the syntax of `wildcard_uri` in h's search API, and the
//! prefixes of an address by which an index finds the patterns that may match it.
//!
//! Owns: the validity and the normal form of a pattern, and its comparison with normalized
//! addresses. Must not know: the index.
//!
//! `*` stands for any characters, `_` for a single one. The scheme and the host are literal, so that
//! every pattern has a literal prefix that consists of whole parts of an address: its *anchor*.

use std::fmt;

use super::split::{self, Parts};
use super::{UriError, normalize};

/// A normalized pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The normal form, without the wildcard of [`Tail::Any`] and the `/*` of [`Tail::Below`].
    body: Box<str>,
    tail: Tail,
}

/// What follows the body of a pattern in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing.
    End,
    /// Anything.
    Any,
    /// Nothing, or a further part of the path, or a query.
    Below,
}

/// The reason why a pattern is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// The pattern has no scheme, or a wildcard in the scheme or the host.
    Host,
    /// The pattern has no normal form.
    Uri(UriError),
    /// The pattern is longer than [`MAX_PATTERN`] bytes.
    TooLong,
}

impl Pattern {
    /// Parses and normalizes a pattern.
    ///
    /// As in h, `http://` is added if a scheme is missing, and the pattern is normalized like an
    /// address, except that its last `*` is kept. A value without wildcards is a pattern for one
    /// address. Unlike in h, a value that ends in `/*` matches whole segments of a path: in h,
    /// `/docs/*` is equal to `/docs*`, and `http://example.com/*` matches all hosts that start with
    /// `example.com`.
    ///
    /// # Errors
    /// [`PatternError`]
    pub fn parse(value: &str) -> Result<Pattern, PatternError> {
        if value.is_empty() {
            return Err(PatternError::Host);
        }
        if value.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        let with_scheme;
        let value = match has_scheme(value) {
            true => value,
            false => {
                with_scheme = ["http://", value].concat();
                &with_scheme
            }
        };
        let text = split::strip_ignored(value);
        let parts = Parts::parse(&text).map_err(PatternError::Uri)?;
        if parts.scheme.is_empty() || parts.netloc.contains(WILDCARDS) {
            return Err(PatternError::Host);
        }
        let (address, is_open) = match text.strip_suffix('*') {
            Some(address) => (address, true),
            None => (&*text, false),
        };
        let mut body = normalize(address).map_err(PatternError::Uri)?;
        let moved = match is_open {
            true => with_moved_wildcard(&text, &body)?,
            false => None,
        };
        let tail = match is_open {
            false => Tail::End,
            // Further parameters may follow those that the order has moved to the end.
            true if moved.is_some() => Tail::Any,
            // Normalization removes the slashes at the end of a path.
            true if address.ends_with('/') && !body.ends_with('/') && is_path(address) => {
                Tail::Below
            }
            // The host is literal.
            true if base_end(&body) == Some(body.len()) && !body.ends_with([':', '/']) => {
                Tail::Below
            }
            true => Tail::Any,
        };
        if let Some(moved) = moved {
            body = moved;
        }
        if body.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        Ok(Pattern {
            body: body.into(),
            tail,
        })
    }

    /// Returns whether a normalized address matches.
    pub fn matches(&self, address: &str) -> bool {
        let mut unlimited = usize::MAX;
        self.compare(address, &mut unlimited) == Some(true)
    }

    /// Returns whether a normalized address matches. Subtracts the work from `budget`, in units of a
    /// byte. Returns `None` if that is not enough: a comparison of repeated text may take many steps
    /// for each byte.
    pub fn compare(&self, address: &str, budget: &mut usize) -> Option<bool> {
        let (body, text) = (self.body.as_bytes(), address.as_bytes());
        let (mut at, mut from) = (0, 0);
        // The last `*`, and the first byte of the address after the text that it stands for.
        let mut star: Option<(usize, usize)> = None;
        loop {
            *budget = budget.checked_sub(1)?;
            let step = match body.get(at) {
                None if self.is_end(&text[from..]) => return Some(true),
                Some(b'*') => {
                    star = Some((at + 1, from));
                    at += 1;
                    continue;
                }
                Some(b'_') => text.get(from).map(|&first| char_width(first)),
                Some(literal) if text.get(from) == Some(literal) => Some(1),
                _ => None,
            };
            if let Some(width) = step {
                (at, from) = (at + 1, from + width);
                continue;
            }
            // The `*` stands for one more character.
            let Some((after, start)) = star else {
                return Some(false);
            };
            let Some(&first) = text.get(start) else {
                return Some(false);
            };
            let next = start + char_width(first);
            star = Some((after, next));
            (at, from) = (after, next);
        }
    }

    /// Returns whether the rest of an address after the body matches.
    fn is_end(&self, rest: &[u8]) -> bool {
        match self.tail {
            Tail::End => rest.is_empty(),
            Tail::Any => true,
            Tail::Below => matches!(rest.first(), None | Some(b'/' | b'?')),
        }
    }

    /// Returns the longest prefix of all matching addresses that is one of their [`prefixes`].
    pub fn anchor(&self) -> &str {
        let body = &*self.body;
        let literal = body.find(WILDCARDS).unwrap_or(body.len());
        // The text after the literal part may continue its last part.
        let is_open = literal < body.len() || self.tail == Tail::Any;
        let is_whole = |end: usize| {
            end < literal || (end == literal && !is_open) || Some(end) == base_end(body)
        };
        let end = prefixes(body).take_while(|end| is_whole(*end)).last();
        &body[..end.unwrap_or_default()]
    }

    /// Returns the size of the allocated text in bytes.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Returns whether the pattern has no text, which [`Pattern::parse`] never returns.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.body)?;
        f.write_str(match self.tail {
            Tail::End => "",
            Tail::Any => "*",
            Tail::Below => "/*",
        })
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Host => {
                f.write_str("a scheme is missing, or there are wildcards in the scheme or host")
            }
            PatternError::Uri(error) => error.fmt(f),
            PatternError::TooLong => write!(f, "longer than {MAX_PATTERN} bytes"),
        }
    }
}

impl std::error::Error for PatternError {}

/// Returns the ends of the prefixes of a normalized address, in increasing order: its scheme and
/// host, and then a further part of its path each, up to eight in total. The parts of an address
/// without a host end before colons and slashes. An address without a scheme has none.
pub fn prefixes(address: &str) -> impl Iterator<Item = usize> + '_ {
    let base = base_end(address);
    let has_host = base.is_some_and(|base| !address[..base].ends_with(':'));
    let path_end = address.find(['?', '#']).unwrap_or(address.len());
    let mut at = base;
    let ends = std::iter::from_fn(move || {
        let end = at?;
        // The character after the end separates parts, except after a scheme.
        let from = (end + 1).min(path_end);
        let separator = |byte: u8| byte == b'/' || (byte == b':' && !has_host);
        at = match end < path_end {
            false => None,
            true => {
                let rest = &address.as_bytes()[from..path_end];
                let next = rest.iter().position(|&byte| separator(byte));
                Some(next.map_or(path_end, |next| from + next))
            }
        };
        Some(end)
    });
    ends.take(MAX_PREFIXES)
}

/// Returns the address of a page, given the key that [`annotation_keys`](super::annotation_keys)
/// returns for all its versions.
pub fn page_of_key(key: &str) -> Option<&str> {
    key.strip_suffix(ALL_VERSIONS)
}

/// Returns the end of the scheme and the host.
fn base_end(address: &str) -> Option<usize> {
    let scheme = address.find(':')? + 1;
    let Some(rest) = address[scheme..].strip_prefix("//") else {
        return Some(scheme);
    };
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(scheme + 2 + host)
}

/// Returns the normal form of a pattern that ends in `*`, if the order of the query's parameters moves
/// that wildcard from the end. `body` is the normal form without it.
fn with_moved_wildcard(text: &str, body: &str) -> Result<Option<String>, PatternError> {
    if !text.contains('&') {
        return Ok(None);
    }
    let whole = normalize(text).map_err(PatternError::Uri)?;
    let wildcards = |text: &str| text.matches('*').count();
    let is_moved = !whole.ends_with('*') && wildcards(&whole) > wildcards(body);
    Ok(is_moved.then_some(whole))
}

/// Returns whether h regards the text before the first colon as a scheme, perhaps with wildcards.
fn has_scheme(value: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+,-._/*".contains(c);
    let is_first = |c: char| c.is_ascii_alphabetic() || "_/*".contains(c);
    let rest = value.trim_start_matches(is_part);
    value.starts_with(is_first) && rest.starts_with(':')
}

/// Returns whether an address has neither a query nor a fragment.
fn is_path(address: &str) -> bool {
    !address.contains(['?', '#'])
}

/// Returns the number of bytes of the UTF-8 character that starts with this byte.
fn char_width(first: u8) -> usize {
    match first {
        0..0xC0 => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
    }
}

const WILDCARDS: [char; 2] = ['*', '_'];
const ALL_VERSIONS: &str = "__vall";
/// The maximum length of a pattern, in bytes, both as written and normalized.
pub const MAX_PATTERN: usize = 1024;
/// The maximum number of prefixes of an address. Patterns with a longer literal part are found by
/// their first prefixes.
const MAX_PREFIXES: usize = 8;

#[cfg(test)]
mod tests;

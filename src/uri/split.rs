//! Splits a URI like CPython 3.11's `urlsplit` and the properties `hostname` and `port` of its
//! result.
//!
//! Owns: the grammar and its errors. Must not know: the normalization of the parts.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::UriError;

/// The parts of a URI that identify the page, as written. A missing part is empty.
///
/// The fragment is omitted: it identifies a location within the page.
pub(super) struct Parts<'a> {
    /// The part before the first `:`.
    pub scheme: &'a str,
    /// User information, host, and port: the part between `//` and the path.
    pub netloc: &'a str,
    pub path: &'a str,
    /// The part after the first `?`.
    pub query: &'a str,
}

/// The parts of a netloc.
pub(super) struct Authority<'a> {
    /// The part before the last `@`; `None` without one.
    pub userinfo: Option<&'a str>,
    /// The host without the brackets of an IP literal; empty if missing.
    pub host: &'a str,
    port: &'a str,
}

/// Removes the characters that `urlsplit` ignores: leading controls and spaces, and all tabs and
/// line breaks.
pub(super) fn strip_ignored(uri: &str) -> Cow<'_, str> {
    let uri = uri.trim_start_matches(|c: char| c <= ' ');
    // Without an early end, so that it examines many bytes at once.
    let is_ignored = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r');
    if uri.bytes().fold(false, |any, byte| any | is_ignored(byte)) {
        Cow::Owned(uri.replace(IGNORED, ""))
    } else {
        Cow::Borrowed(uri)
    }
}

impl<'a> Parts<'a> {
    /// Splits a URI that has passed [`strip_ignored`].
    pub(super) fn parse(uri: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = match uri.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => ("", uri),
        };
        let (netloc, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        check_brackets(netloc)?;
        if !netloc.is_ascii() && netloc.contains(DISGUISED_DELIMITERS) {
            return Err(UriError::DisguisedDelimiter);
        }
        let rest = rest
            .split_once('#')
            .map_or(rest, |(before, _fragment)| before);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Ok(Self {
            scheme,
            netloc,
            path,
            query,
        })
    }
}

impl<'a> Authority<'a> {
    /// Splits a netloc. As in Python, text directly before `[` or after `]` is discarded.
    pub(super) fn parse(netloc: &'a str) -> Self {
        let (userinfo, hostinfo) = match netloc.rsplit_once('@') {
            Some((userinfo, hostinfo)) => (Some(userinfo), hostinfo),
            None => (None, netloc),
        };
        let (host, port) = match hostinfo.split_once('[') {
            Some((_, bracketed)) => {
                let (host, behind) = bracketed.split_once(']').unwrap_or((bracketed, ""));
                (host, behind.split_once(':').map_or("", |(_, port)| port))
            }
            None => hostinfo.split_once(':').unwrap_or((hostinfo, "")),
        };
        Self {
            userinfo,
            host,
            port,
        }
    }

    /// Returns the port, or `None` if it is missing or empty.
    pub(super) fn port(&self) -> Result<Option<u16>, UriError> {
        if self.port.is_empty() {
            return Ok(None);
        }
        // Rust's parser accepts a sign, and Python's does not.
        if !self.port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UriError::Port);
        }
        self.port.parse().map(Some).map_err(|_| UriError::Port)
    }
}

/// RFC 3986, section 3.1: "scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )".
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Checks the brackets of a netloc.
///
/// RFC 3986, section 3.2.2: "A host identified by an Internet Protocol literal address, version 6
/// or later, is distinguished by enclosing the IP literal within square brackets".
///
/// Python considers the first pair of brackets in the whole netloc, including user information.
fn check_brackets(netloc: &str) -> Result<(), UriError> {
    match (netloc.split_once('['), netloc.contains(']')) {
        (None, false) => Ok(()),
        (Some((_, bracketed)), true) => {
            let literal = bracketed
                .split_once(']')
                .map_or(bracketed, |(literal, _)| literal);
            if is_ip_literal(literal) {
                Ok(())
            } else {
                Err(UriError::Brackets)
            }
        }
        _ => Err(UriError::Brackets),
    }
}

/// Returns whether the text is an IPv6 address, with or without a zone, or `v<hex>.<anything>` for
/// future versions.
fn is_ip_literal(literal: &str) -> bool {
    if let Some(future) = literal.strip_prefix('v') {
        return future.split_once('.').is_some_and(|(version, address)| {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
        });
    }
    let (address, zone) = match literal.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (literal, None),
    };
    zone.is_none_or(|zone| !zone.is_empty() && !zone.contains('%'))
        && address.parse::<Ipv6Addr>().is_ok()
}

/// The WHATWG URL standard removes these characters everywhere, and Python follows it.
const IGNORED: [char; 3] = ['\t', '\r', '\n'];

/// All characters whose NFKC form contains one of `/?#@:` in Unicode 14.0, the version of CPython
/// 3.11.
///
/// Python normalizes the netloc and searches the result for these delimiters. Since none of them
/// takes part in a composition, it is equivalent to search for the characters that expand to them.
const DISGUISED_DELIMITERS: [char; 19] = [
    '\u{2047}', '\u{2048}', '\u{2049}', '\u{2100}', '\u{2101}', '\u{2105}', '\u{2106}', '\u{2A74}',
    '\u{FE13}', '\u{FE16}', '\u{FE55}', '\u{FE56}', '\u{FE5F}', '\u{FE6B}', '\u{FF03}', '\u{FF0F}',
    '\u{FF1A}', '\u{FF1F}', '\u{FF20}',
];

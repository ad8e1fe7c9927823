//! The names under which a page is known: h's URI normalisation, and the scope keys made of it.
//!
//! Owns the text rules of h's `h/util/uri.py`, which lean on CPython 3.11's `urllib.parse`, so that
//! a filter and an annotation meet when their keys are equal strings. Must not know where a URI
//! comes from (a filter's JSON, a database row) nor who may see what: a key only says what was
//! asked for.
//!
//! Scope keys are plain text, as they are in h, so a page whose own address ends in `__v2` or
//! `__vall` shares its key with a version of another page. That can widen what a subscriber is told
//! about to things it did not mean to ask for, never to things it may not read.

use std::fmt;

use self::percent::{PATH_SEGMENT, decode, encode};
use self::split::{Authority, Parts};
pub use self::version::{Version, scope_key, split_key, split_versions};

mod percent;
mod query;
mod split;
mod version;

/// Why a URI has no normal form; always the fault of whoever wrote the URI.
///
/// h raises `ValueError` in these cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriError {
    /// A square bracket without its partner, or brackets around something that is no IP literal.
    Brackets,
    /// A host with a character that compatibility normalisation turns into a delimiter, like `℀`
    /// into `a/c`.
    DisguisedDelimiter,
    /// A port that is not a decimal number from 0 to 65535.
    Port,
}

/// The keys to which one `/uri` value of a client's filter subscribes: one for each version.
///
/// The keys are kept as the page and its versions because each key repeats the page's address: the
/// keys of many versions of a long address are far longer than the value that names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterKeys {
    /// The normal form of the page's address.
    pub page: String,
    /// The versions in the order written, repetitions included; never empty.
    pub versions: Vec<Version>,
}

/// Why a `/uri` value of a filter subscribes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterKeysError {
    /// The page has no normal form.
    Uri(UriError),
    /// The value names more versions than the limit.
    TooManyVersions,
}

/// The keys to which one `/uri` value of a client's filter subscribes.
///
/// `u` gives the key of the unversioned page, `u:v1:v2` those of two versions, `u:all` the key that
/// [`annotation_keys`] yields for every version. h itself builds the same key for `:all`, but no
/// annotation of h ever has it, so there `:all` matches nothing.
///
/// # Errors
/// [`FilterKeysError`]. No more than `most` versions are read.
pub fn filter_keys(uri: &str, most: usize) -> Result<FilterKeys, FilterKeysError> {
    let (page, mut versions) = split_versions(uri, most).ok_or(FilterKeysError::TooManyVersions)?;
    let page = normalize(page).map_err(FilterKeysError::Uri)?;
    if versions.is_empty() {
        versions.push(Version::Unversioned);
    }
    Ok(FilterKeys { page, versions })
}

impl FilterKeys {
    /// Builds the keys, one for each version.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = String> + '_ {
        let keys = self.versions.iter();
        keys.map(|version| scope_key(&self.page, version))
    }
}

/// The keys under which an annotation of the given version of these pages is found, sorted, without
/// duplicates.
///
/// Each page gives the key of the version and the key for which `:all` subscribers wait. A URI
/// without a normal form is left out: nobody can have subscribed to it. Normal forms may be passed
/// as well as URIs as written, for `normalize` leaves them as they are.
pub fn annotation_keys<'a>(
    uris: impl Iterator<Item = &'a str>,
    version: Option<u64>,
) -> Vec<String> {
    let version = Version::from(version.unwrap_or(0));
    let mut keys: Vec<String> = uris
        .filter_map(|uri| normalize(uri).ok())
        .flat_map(|page| [scope_key(&page, &version), scope_key(&page, &Version::All)])
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The normal form of a URI: equal for addresses that usually name the same web page.
///
/// Only `http:` and `https:` URIs with a host are changed, to the scheme `httpx`; others are
/// returned as they came. The result is at most about three times as long as `uri`, and is its own
/// normal form.
///
/// # Errors
/// [`UriError`] for what `urlsplit` of Python rejects, whatever the scheme, and for a bad port of a
/// web address.
pub fn normalize(uri: &str) -> Result<String, UriError> {
    let uri = without_proxy(uri);
    let text = split::without_ignored(uri);
    let parts = Parts::of(&text)?;
    let default_port = match parts.scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => 80,
        scheme if scheme.eq_ignore_ascii_case("https") => 443,
        _ => return Ok(uri.to_owned()),
    };
    let authority = Authority::of(parts.netloc);
    if authority.host.is_empty() {
        return Ok(uri.to_owned());
    }

    let mut out = String::with_capacity(text.len() + SCHEME.len());
    out.push_str(SCHEME);
    push_authority(&mut out, &authority, parts.netloc, default_port)?;
    push_path(&mut out, parts.path);
    let query = query::normalized(parts.query);
    if !query.is_empty() {
        out.push('?');
        out.push_str(&query);
    }
    Ok(out)
}

/// Takes off the address of h's proxy, which serves `https://example.com` at
/// `https://via.hypothes.is/https://example.com`.
fn without_proxy(uri: &str) -> &str {
    match uri.strip_prefix(PROXY) {
        Some(page) if page.starts_with("http:") || page.starts_with("https:") => page,
        _ => uri,
    }
}

fn push_authority(
    out: &mut String,
    authority: &Authority<'_>,
    netloc: &str,
    default_port: u16,
) -> Result<(), UriError> {
    let port = authority.port()?.filter(|&port| port != default_port);
    if let Some(userinfo) = authority.userinfo {
        out.push_str(userinfo);
        out.push('@');
    }
    // h looks for brackets in all of the netloc, so those of a user name put a plain host into
    // brackets too.
    let bracketed = netloc.contains('[') && netloc.contains(']');
    if bracketed {
        out.push('[');
    }
    out.push_str(&authority.host.to_lowercase());
    if bracketed {
        out.push(']');
    }
    if let Some(port) = port {
        out.push(':');
        out.push_str(&port.to_string());
    }
    Ok(())
}

fn push_path(out: &mut String, path: &str) {
    let path = path.trim_end_matches('/');
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        encode(out, &decode(segment), PATH_SEGMENT);
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brackets => "invalid bracketed host",
            Self::DisguisedDelimiter => "host with a character that stands for a delimiter",
            Self::Port => "invalid port",
        })
    }
}

impl std::error::Error for UriError {}

/// h gives `http` and `https` one name, since they usually serve the same page.
const SCHEME: &str = "httpx://";
const PROXY: &str = "https://via.hypothes.is/";

#[cfg(test)]
mod tests;

//! Identification of pages: h's URI normalization, and the scope keys derived from it.
//!
//! Owns: the text rules of h's `h/util/uri.py`, which rely on CPython 3.11's `urllib.parse`. A
//! filter matches an annotation if their keys are equal strings. Must not know: the source of a URI
//! (a filter's JSON, a database row), or permissions; a key only expresses interest.
//!
//! As in h, scope keys are plain text. A page whose own address ends in `__v2` or `__vall`
//! therefore shares its key with a version of another page. This can match annotations that a
//! subscriber did not ask for, but never any that it may not read.

use std::fmt;

use self::percent::{PATH_SEGMENT, decode, encode};
use self::split::{Authority, Parts};
pub use self::version::{Version, scope_key, split_key, split_versions};
pub use self::wildcard::{MAX_PATTERN, Pattern, PatternError, page_of_key, prefixes};

mod percent;
mod query;
mod split;
mod version;
mod wildcard;

/// The reason why a URI has no normal form. It is always an error of the URI's author.
///
/// h raises `ValueError` in these cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriError {
    /// An unbalanced square bracket, or brackets around text that is not an IP literal.
    Brackets,
    /// A host with a character that NFKC normalization turns into a delimiter, such as `℀`, which
    /// becomes `a/c`.
    DisguisedDelimiter,
    /// A port that is not a decimal number from 0 to 65535.
    Port,
}

/// The keys to which one `/uri` value of a client's filter subscribes: one for each version.
///
/// They are stored as the page and its versions, since each key repeats the page's address: the
/// keys for many versions of a long address are far longer than the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterKeys {
    /// The normal form of the page's address.
    pub page: String,
    /// The versions in the order written, including duplicates; never empty.
    pub versions: Vec<Version>,
}

/// The reason why a `/uri` value of a filter is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterKeysError {
    /// The page has no normal form.
    Uri(UriError),
    /// The value names more versions than the limit.
    TooManyVersions,
}

/// Returns the keys to which one `/uri` value of a client's filter subscribes.
///
/// `u` yields the key of the unversioned page, `u:v1:v2` those of two versions, and `u:all` the key
/// that [`annotation_keys`] returns for every version. h builds the same key for `:all`, but none
/// of its annotations has it, so that `:all` matches nothing there.
///
/// # Errors
/// [`FilterKeysError`]. At most `max` versions are parsed.
pub fn filter_keys(uri: &str, max: usize) -> Result<FilterKeys, FilterKeysError> {
    let (page, mut versions) = split_versions(uri, max).ok_or(FilterKeysError::TooManyVersions)?;
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

/// Returns the keys of an annotation of the given version of these pages, sorted and without
/// duplicates.
///
/// Each page yields the key of the version and the key of `:all`. A URI without a normal form is
/// omitted, since no filter can name it. Normalized URIs are accepted as well: `normalize` is
/// idempotent.
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

/// Returns the normal form of a URI. It is equal for addresses that usually identify the same web
/// page.
///
/// Only `http:` and `https:` URIs with a host are normalized, to the scheme `httpx`; others are
/// returned unchanged. The result is at most about three times as long as `uri`. Normalization is
/// idempotent.
///
/// # Errors
/// [`UriError`] for URIs of any scheme that Python's `urlsplit` rejects, and for an invalid port in
/// a web address.
pub fn normalize(uri: &str) -> Result<String, UriError> {
    let uri = strip_proxy(uri);
    let text = split::strip_ignored(uri);
    let parts = Parts::parse(&text)?;
    let default_port = match parts.scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => 80,
        scheme if scheme.eq_ignore_ascii_case("https") => 443,
        _ => return Ok(uri.to_owned()),
    };
    let authority = Authority::parse(parts.netloc);
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

/// Removes the address of h's proxy, which serves `https://example.com` at
/// `https://via.hypothes.is/https://example.com`.
fn strip_proxy(uri: &str) -> &str {
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
    // h searches the whole netloc for brackets, so brackets in the user information put even a
    // plain host into brackets.
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

/// h uses one scheme for `http` and `https`, since they usually serve the same page.
const SCHEME: &str = "httpx://";
const PROXY: &str = "https://via.hypothes.is/";

#[cfg(test)]
mod tests;

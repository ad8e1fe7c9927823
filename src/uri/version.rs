//! Versions of a page: the suffixes of a filter's URI, and the scope keys of a page's versions.
//!
//! Owns: the notation (`:v2`, `:all`, `__v2`). Must not know: normalization.

use std::borrow::Cow;

/// A selection of versions of a page.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// No version, or version 0, which h treats as equal.
    Unversioned,
    /// A version from 1 on, as decimal ASCII digits without leading zeros.
    ///
    /// It is text, since Python's integers are unbounded and a client may send a version of any
    /// length. Thus distinct numbers stay distinct, and nothing can overflow.
    Number(String),
    /// Every version, including the unversioned page.
    All,
}

impl Version {
    /// Returns the suffix of this version in scope keys: empty, `__v2`, or `__vall`.
    pub fn suffix(&self) -> Cow<'static, str> {
        match self {
            Self::Unversioned => Cow::Borrowed(""),
            Self::Number(number) => Cow::Owned([MARK, number].concat()),
            Self::All => Cow::Borrowed("__vall"),
        }
    }
}

impl From<u64> for Version {
    fn from(number: u64) -> Self {
        if number == 0 {
            Self::Unversioned
        } else {
            Self::Number(number.to_string())
        }
    }
}

/// Returns the scope key of a page's version, by which a subscription matches an annotation: `u`,
/// `u__v2`, or `u__vall`.
pub fn scope_key(normalized: &str, version: &Version) -> String {
    [normalized, &version.suffix()].concat()
}

/// Splits a scope key before its version. A page's own address may look like a key with a version,
/// and is split as well, so that the result depends on the text alone.
pub fn split_key(key: &str) -> (&str, &str) {
    let bytes = key.as_bytes();
    let mut end = bytes.len();
    // The setup of a substring search would take longer than this loop.
    while let Some(at) = bytes[..end].iter().rposition(|&byte| byte == b'v') {
        if bytes[..=at].ends_with(MARK.as_bytes()) {
            return key.split_at(at + 1 - MARK.len());
        }
        end = at;
    }
    (key, "")
}

/// Splits the versions off the end of a filter's URI: `u:v1:all` means version 1 of `u`, and all
/// versions. Returns `None` after parsing more than `max` versions.
///
/// The versions are returned in the order written, and may be empty. The scan runs from the right
/// and stops at the first part that is not a version. A port is therefore kept, and the URI `v1` is
/// a page.
pub fn split_versions(uri: &str, max: usize) -> Option<(&str, Vec<Version>)> {
    let mut base = uri;
    let mut versions = Vec::new();
    while let Some((before, last)) = base.rsplit_once(':')
        && let Some(version) = parse(last)
    {
        if versions.len() >= max {
            return None;
        }
        versions.push(version);
        base = before;
    }
    versions.reverse();
    Some((base, versions))
}

/// Parses `all`, or `v` and decimal digits, by h's pattern `^v(\d+)$`, which in Python accepts
/// digits of every script and a trailing line break.
fn parse(text: &str) -> Option<Version> {
    if text == "all" {
        return Some(Version::All);
    }
    let digits = text.strip_prefix('v')?;
    let digits = digits.strip_suffix('\n').unwrap_or(digits);
    if digits.is_empty() {
        return None;
    }
    let digits: String = digits.chars().map(ascii_digit).collect::<Option<_>>()?;
    let number = digits.trim_start_matches('0');
    Some(if number.is_empty() {
        Version::Unversioned
    } else {
        Version::Number(number.to_owned())
    })
}

/// Converts a decimal digit of any script to ASCII.
fn ascii_digit(c: char) -> Option<char> {
    let zeros_up_to = DECIMAL_ZEROS.partition_point(|&zero| zero <= c);
    let zero = DECIMAL_ZEROS.get(zeros_up_to.checked_sub(1)?)?;
    char::from_digit(u32::from(c) - u32::from(*zero), 10)
}

/// Separates a page and its version in a scope key.
const MARK: &str = "__v";

/// The zeros of all scripts with decimal digits (general category Nd) in Unicode 14.0, the version
/// of CPython 3.11. The digits from one to nine follow each.
const DECIMAL_ZEROS: [char; 66] = [
    '\u{0030}',
    '\u{0660}',
    '\u{06F0}',
    '\u{07C0}',
    '\u{0966}',
    '\u{09E6}',
    '\u{0A66}',
    '\u{0AE6}',
    '\u{0B66}',
    '\u{0BE6}',
    '\u{0C66}',
    '\u{0CE6}',
    '\u{0D66}',
    '\u{0DE6}',
    '\u{0E50}',
    '\u{0ED0}',
    '\u{0F20}',
    '\u{1040}',
    '\u{1090}',
    '\u{17E0}',
    '\u{1810}',
    '\u{1946}',
    '\u{19D0}',
    '\u{1A80}',
    '\u{1A90}',
    '\u{1B50}',
    '\u{1BB0}',
    '\u{1C40}',
    '\u{1C50}',
    '\u{A620}',
    '\u{A8D0}',
    '\u{A900}',
    '\u{A9D0}',
    '\u{A9F0}',
    '\u{AA50}',
    '\u{ABF0}',
    '\u{FF10}',
    '\u{104A0}',
    '\u{10D30}',
    '\u{11066}',
    '\u{110F0}',
    '\u{11136}',
    '\u{111D0}',
    '\u{112F0}',
    '\u{11450}',
    '\u{114D0}',
    '\u{11650}',
    '\u{116C0}',
    '\u{11730}',
    '\u{118E0}',
    '\u{11950}',
    '\u{11C50}',
    '\u{11D50}',
    '\u{11DA0}',
    '\u{16A60}',
    '\u{16AC0}',
    '\u{16B50}',
    '\u{1D7CE}',
    '\u{1D7D8}',
    '\u{1D7E2}',
    '\u{1D7EC}',
    '\u{1D7F6}',
    '\u{1E140}',
    '\u{1E2F0}',
    '\u{1E950}',
    '\u{1FBF0}',
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VERSIONS: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/vectors/uri_versions.json"
    ));
    const SCOPE_KEYS: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/vectors/scope_key.json"
    ));

    fn split(uri: &str) -> (&str, Vec<Version>) {
        split_versions(uri, 200).unwrap()
    }

    #[test]
    fn reads_no_more_versions_than_the_limit() {
        for (uri, max, fits) in [
            ("a:v1:v2", 2, true),
            ("a:v1:v2", 1, false),
            ("a:v1:v1", 1, false),
            ("a", 0, true),
            ("a:80", 0, true),
            ("a:all", 0, false),
        ] {
            assert_eq!(split_versions(uri, max).is_some(), fits, "{uri}");
        }
    }

    #[test]
    fn splits_a_key_before_its_version() {
        for page in ["httpx://a", "httpx://a__v1", "a__vb", "", "ü"] {
            for version in [Version::from(2), Version::All] {
                let key = scope_key(page, &version);
                assert_eq!(split_key(&key), (page, &*version.suffix()));
            }
        }
        assert_eq!(split_key("httpx://a"), ("httpx://a", ""));
    }

    /// A version in h's vectors: null, a number, or "all".
    fn version(value: &Value) -> Version {
        match value {
            Value::Null => Version::Unversioned,
            Value::String(text) if text == "all" => Version::All,
            number => Version::Number(number.to_string()),
        }
    }

    #[test]
    fn splits_versions_as_h_does() {
        let vectors: Vec<Value> = serde_json::from_str(VERSIONS).unwrap();
        assert_eq!(vectors.len(), 36);
        for vector in vectors {
            let (base, versions) = split(vector["in"].as_str().unwrap());
            assert_eq!(base, vector["ok"][0], "{vector}");
            let expected: Vec<Version> = vector["ok"][1]
                .as_array()
                .unwrap()
                .iter()
                .map(version)
                .collect();
            assert_eq!(versions, expected, "{vector}");
        }
    }

    #[test]
    fn makes_scope_keys_as_h_does() {
        let vectors: Vec<Value> = serde_json::from_str(SCOPE_KEYS).unwrap();
        assert_eq!(vectors.len(), 14);
        for vector in vectors {
            let version = match &vector["in"][1] {
                // Python's `True` and negative numbers are not versions here.
                Value::Bool(_) => continue,
                Value::Number(number) if number.as_i64() < Some(0) => continue,
                Value::Number(number) => Version::from(number.as_u64().unwrap()),
                other => version(other),
            };
            assert_eq!(
                scope_key(vector["in"][0].as_str().unwrap(), &version),
                vector["ok"],
                "{vector}"
            );
        }
    }

    #[test]
    fn reads_digits_of_every_script() {
        for zero in DECIMAL_ZEROS {
            for value in 0..10 {
                let digit = char::from_u32(u32::from(zero) + value).unwrap();
                assert_eq!(ascii_digit(digit), char::from_digit(value, 10), "{digit:?}");
            }
        }
        for other in ['/', ':', '²', '½', '〇', 'Ⅷ', '\u{0}', '\u{10FFFF}'] {
            assert_eq!(ascii_digit(other), None, "{other:?}");
        }
        assert!(DECIMAL_ZEROS.is_sorted());
        assert_eq!(split("a:v٠١٢"), ("a", vec![Version::from(12)]));
    }

    #[test]
    fn distinguishes_numbers_of_any_length() {
        let long = "9".repeat(5000);
        let uri = format!("a:v00{long}:v{long}8");
        let (base, versions) = split(&uri);
        assert_eq!(base, "a");
        assert_eq!(
            versions,
            [Version::Number(long.clone()), Version::Number(long + "8")]
        );
    }
}

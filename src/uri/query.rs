//! Normalizes the query of a web address: sorts parameters, and drops those that only track the
//! reader.
//!
//! Owns: h's rules for queries. Must not know: the rest of the URI.

use std::borrow::Cow;

use super::percent::{decode_form, encode_form};

/// Returns the normal form of a query without its `?`; empty if only tracking parameters are
/// present.
///
/// If any parameter has no `=`, h keeps the whole query as written.
pub(super) fn normalized(query: &str) -> Cow<'_, str> {
    let Some(mut parameters) = parse(query) else {
        return Cow::Borrowed(query);
    };
    parameters.retain(|(name, _)| !is_tracking(name));
    // The sort is stable: parameters with the same name may form a list, whose order matters.
    parameters.sort_by(|(one, _), (other, _)| one.cmp(other));

    let mut out = String::with_capacity(query.len());
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        // As in h, the values are decoded a second time here, so that `%252F` and `%2F` are equal.
        encode_form(&mut out, &decode_form(name), NAME);
        out.push('=');
        encode_form(&mut out, &decode_form(value), VALUE);
    }
    Cow::Owned(out)
}

/// Returns the decoded names and values in order, or `None` if a parameter has no `=`.
fn parse(query: &str) -> Option<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    query
        .split('&')
        .map(|parameter| {
            parameter
                .split_once('=')
                .map(|(name, value)| (decode_form(name), decode_form(value)))
        })
        .collect()
}

/// Returns whether the parameter is irrelevant to the page. h calls such parameters "blacklisted".
fn is_tracking(name: &str) -> bool {
    // h's patterns end with `$`, which in Python also matches before a trailing line break.
    let name = name.strip_suffix('\n').unwrap_or(name);
    TRACKING.contains(&name)
        || name
            .strip_prefix("WT.")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('\n'))
        || name.chars().map(fold_case).eq(AMAZON_TOKEN.chars())
}

/// Returns the lowercase letter of [`AMAZON_TOKEN`] that Python's case-insensitive patterns match
/// with `c`.
fn fold_case(c: char) -> char {
    match c {
        'ſ' => 's',
        'İ' | 'ı' => 'i',
        '\u{212A}' => 'k', // KELVIN SIGN
        _ => c.to_ascii_lowercase(),
    }
}

/// The characters that names keep besides the unreserved ones: those of a path segment except the
/// delimiters of a query and `+`, which means a space.
const NAME: &[u8] = b":@!$'()*,";
const VALUE: &[u8] = b":@!$'()*,=";

/// Google Ads, Google Analytics campaigns, Google Drive.
const TRACKING: [&str; 7] = [
    "gclid",
    "utm_campaign",
    "utm_content",
    "utm_medium",
    "utm_source",
    "utm_term",
    "resourcekey",
];
const AMAZON_TOKEN: &str = "x-amz-security-token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_tracking_parameters() {
        for (query, expected) in [
            ("gclid=1&utm_term=2&WT.mc=3&resourcekey=4", ""),
            ("gclid%0A=1&WT.a%0A=1", ""),
            ("gclid%0A%0A=1", "gclid%0A%0A=1"),
            ("WT.=1&WT.%0A=2", "WT.=1&WT.%0A=2"),
            ("Gclid=1&utm_id=2", "Gclid=1&utm_id=2"),
            (
                "X-AMZ-Security-Token=1&x-amz-%C5%BFecur%C4%B1ty-to%E2%84%AAen=2",
                "",
            ),
            // The first decoding determines the name.
            ("%2567clid=1", "gclid=1"),
        ] {
            assert_eq!(normalized(query), expected, "{query}");
        }
    }

    #[test]
    fn sorts_by_decoded_name_and_keeps_lists_in_order() {
        assert_eq!(normalized("b=2&%61=9&a=1&B=0"), "B=0&a=9&a=1&b=2");
        assert_eq!(
            normalized("%F0%9F%98%80=1&%EF%BF%BD=2"),
            "%EF%BF%BD=2&%F0%9F%98%80=1"
        );
    }

    #[test]
    fn keeps_a_query_without_parameters_verbatim() {
        for query in ["b&a=1", "a=1&", "&a=1", "a=%7e&&", "%zz"] {
            assert_eq!(normalized(query), query);
        }
    }

    #[test]
    fn decodes_twice() {
        assert_eq!(
            normalized("a=%252F&b=%252B&c=%2B&d=+"),
            "a=%2F&b=%2B&c=+&d=+"
        );
    }
}

//! The query of a web address in normal form: parameters sorted, those that only track the reader
//! dropped.
//!
//! Owns h's rules for queries. Must not know the rest of the URI.

use std::borrow::Cow;

use super::percent::{decode_form, encode_form};

/// The normal form of a query without its `?`; empty when nothing of it counts.
///
/// One parameter without `=` makes h keep the whole query as it was written.
pub(super) fn normalized(query: &str) -> Cow<'_, str> {
    let Some(mut parameters) = parse(query) else {
        return Cow::Borrowed(query);
    };
    parameters.retain(|(name, _)| !is_tracking(name));
    // Stable: parameters of one name may be a list, whose order counts.
    parameters.sort_by(|(one, _), (other, _)| one.cmp(other));

    let mut out = String::with_capacity(query.len());
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        // h decodes a second time here, so `%252F` and `%2F` are one.
        encode_form(&mut out, &decode_form(name), NAME);
        out.push('=');
        encode_form(&mut out, &decode_form(value), VALUE);
    }
    Cow::Owned(out)
}

/// The decoded names and values in order, `None` if a parameter has no `=`.
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

/// Whether the parameter says nothing about the page. In h's words a "blacklisted" one.
fn is_tracking(name: &str) -> bool {
    // h's patterns end in `$`, which in Python also matches before a line break at the end.
    let name = name.strip_suffix('\n').unwrap_or(name);
    TRACKING.contains(&name)
        || name
            .strip_prefix("WT.")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('\n'))
        || name.chars().map(fold_case).eq(AMAZON_TOKEN.chars())
}

/// The small letter that Python's case-insensitive patterns take `c` for, among those of
/// [`AMAZON_TOKEN`].
fn fold_case(c: char) -> char {
    match c {
        'ſ' => 's',
        'İ' | 'ı' => 'i',
        '\u{212A}' => 'k', // KELVIN SIGN
        _ => c.to_ascii_lowercase(),
    }
}

/// What names keep besides the unreserved characters: those of a path segment without the
/// delimiters of a query and without `+`, which stands for a space.
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
    fn drops_what_only_tracks_the_reader() {
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
            // Only the first decoding decides what a name is.
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
    fn keeps_a_query_that_is_no_list_of_parameters() {
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

//! Patterns, compared with a naive matcher, and their anchors.

use super::*;

fn pattern(value: &str) -> Pattern {
    Pattern::parse(value).unwrap_or_else(|error| panic!("{value}: {error}"))
}

#[test]
fn patterns_are_normalized_like_addresses() {
    for (value, expected) in [
        ("https://Example.com/*", "httpx://example.com/*"),
        ("http://example.com:80/a/*", "httpx://example.com/a/*"),
        ("http://example.com/a*", "httpx://example.com/a*"),
        ("http://example.com/a/*/b/", "httpx://example.com/a/*/b"),
        ("http://example.com/%7Ejoe/_", "httpx://example.com/~joe/_"),
        ("http://example.com/a?q=*", "httpx://example.com/a?q=*"),
        ("http://example.com/?b=_&a=1", "httpx://example.com?a=1&b=_"),
        (
            "http://example.com/?b=1&a=*",
            "httpx://example.com?a=*&b=1*",
        ),
        (
            "http://example.com/?b=1&a=2&c=*",
            "httpx://example.com?a=2&b=1&c=*",
        ),
        ("http://example.com/?b=1&*", "httpx://example.com?b=1&*"),
        (
            "http://example.com/?b=1&utm_source=*",
            "httpx://example.com?b=1*",
        ),
        ("http://example.com/a#*", "httpx://example.com/a*"),
        ("http://example.com#*", "httpx://example.com/*"),
        ("http://example.com?*", "httpx://example.com/*"),
        ("example.com/*", "httpx://example.com/*"),
        ("http://example.com/a", "httpx://example.com/a"),
        ("urn:x-pdf:*", "urn:x-pdf:*"),
        ("file:///home/*", "file:///home/*"),
        ("https://via.hypothes.is/http://a.com/*", "httpx://a.com/*"),
    ] {
        assert_eq!(pattern(value).to_string(), expected, "{value}");
    }
}

#[test]
fn wildcards_in_scheme_or_host_are_rejected() {
    for value in [
        "*",
        "*://example.com/a",
        "http*://example.com/",
        "ht_p://example.com/a",
        "http://*/a",
        "http://*.example.com/a",
        "http://exa_mple.com/a",
        "http://example.com*",
        "http://example.com:80*/a",
        "*.example.com/a",
        "",
        "/a*:b",
    ] {
        let actual = Pattern::parse(value);
        assert_eq!(actual, Err(PatternError::Host), "{value}");
    }
    assert!(matches!(
        Pattern::parse("http://[::1/*"),
        Err(PatternError::Uri(_))
    ));
}

// M7
#[test]
fn long_patterns_are_rejected() {
    let long = format!("http://a.com/{}", "a".repeat(MAX_PATTERN));
    assert_eq!(Pattern::parse(&long), Err(PatternError::TooLong));
    // Three bytes for each character.
    let encoded = format!("http://a.com/{}", "é".repeat(MAX_PATTERN / 4));
    assert_eq!(Pattern::parse(&encoded), Err(PatternError::TooLong));
}

// M7
#[test]
fn comparison_stops_at_its_budget() {
    let pattern = pattern(&format!("http://a.com/*{}b", "a".repeat(500)));
    let address = format!("httpx://a.com/{}", "a".repeat(100_000));
    let mut budget = 50_000;
    assert_eq!(pattern.compare(&address, &mut budget), None);
    assert_eq!(budget, 0);
    let mut budget = 50_000;
    let matching = format!("{}b", &address[..1000]);
    assert_eq!(pattern.compare(&matching, &mut budget), None);
    let mut budget = usize::MAX;
    assert_eq!(pattern.compare(&matching, &mut budget), Some(true));
    let mut budget = 100;
    assert_eq!(pattern.compare("httpx://b.com", &mut budget), Some(false));
    assert!(budget > 80, "{budget}");
}

#[test]
fn patterns_match_addresses() {
    for (value, address, expected) in [
        ("http://a.com/*", "httpx://a.com", true),
        ("http://a.com/*", "httpx://a.com/b/c", true),
        ("http://a.com/*", "httpx://a.com?q=1", true),
        ("http://a.com/*", "httpx://a.com.evil.org/", false),
        ("http://a.com/*", "httpx://a.com:8080/b", false),
        ("http://a.com/*", "httpx://www.a.com/b", false),
        ("http://a.com/docs/*", "httpx://a.com/docs", true),
        ("http://a.com/docs/*", "httpx://a.com/docs/a/b", true),
        ("http://a.com/docs/*", "httpx://a.com/docsearch", false),
        ("http://a.com/docs*", "httpx://a.com/docsearch", true),
        ("http://a.com/docs*", "httpx://a.com/docs/b", true),
        ("http://a.com/*/end", "httpx://a.com/b/c/end", true),
        ("http://a.com/*/end", "httpx://a.com/b/end/c", false),
        ("http://a.com/*/b/*", "httpx://a.com/x/b", true),
        ("http://a.com/*/b/*", "httpx://a.com/x/bc/b/d", true),
        ("http://a.com/*/b/*", "httpx://a.com/x/bc", false),
        ("http://a.com/_/c", "httpx://a.com/b/c", true),
        ("http://a.com/_/c", "httpx://a.com/bb/c", false),
        ("http://a.com/_", "httpx://a.com/", false),
        ("http://a.com/a?q=*", "httpx://a.com/a?q=moon", true),
        ("http://a.com/a?q=*", "httpx://a.com/a?p=moon", false),
        ("http://a.com/a?q=1&p=*", "httpx://a.com/a?p=moon&q=1", true),
        ("http://a.com/a?q=1&p=*", "httpx://a.com/a?p=&q=1&r=2", true),
        (
            "http://a.com/a?q=1&p=*",
            "httpx://a.com/a?p=moon&q=2",
            false,
        ),
        ("urn:x-pdf:*", "urn:x-pdf:1234", true),
        ("urn:x-pdf:12_4", "urn:x-pdf:1234", true),
        ("urn:x-pdf:_4", "urn:x-pdf:é4", true),
        ("urn:x-pdf:*_4", "urn:x-pdf:é4", true),
        ("urn:x-pdf:__4", "urn:x-pdf:é4", false),
        ("file:///home/*", "file:///home/a", true),
        ("file:///home/*", "file:///home", false),
        ("http://a.com/b", "httpx://a.com/b", true),
        ("http://a.com/b", "httpx://a.com/b/c", false),
        ("http://a.com/*aab", "httpx://a.com/aaab", true),
        ("http://a.com/*a*b*c", "httpx://a.com/abbac", true),
        ("http://a.com/*a*b*c", "httpx://a.com/acab", false),
    ] {
        let actual = pattern(value).matches(address);
        assert_eq!(actual, expected, "{value} and {address}");
    }
}

fn prefixes_of(address: &str) -> Vec<&str> {
    prefixes(address).map(|end| &address[..end]).collect()
}

#[test]
fn prefixes_are_whole_parts() {
    let deep = "httpx://a.com/1/2/3/4/5/6/7/8/9";
    for (address, expected) in [
        ("httpx://a.com", &["httpx://a.com"][..]),
        (
            "httpx://a.com/b/c?d=/e",
            &["httpx://a.com", "httpx://a.com/b", "httpx://a.com/b/c"],
        ),
        ("httpx://a.com?d=/e", &["httpx://a.com"]),
        ("urn:x-pdf:12", &["urn:", "urn:x-pdf", "urn:x-pdf:12"]),
        ("urn:", &["urn:"]),
        ("file:///a", &["file://", "file:///a"]),
        (
            "httpx://a.com:81/b:c",
            &["httpx://a.com:81", "httpx://a.com:81/b:c"],
        ),
        ("", &[]),
        ("page", &[]),
    ] {
        assert_eq!(prefixes_of(address), expected, "{address}");
    }
    assert_eq!(prefixes_of(deep).len(), MAX_PREFIXES);
    assert_eq!(
        prefixes_of(deep).last(),
        Some(&"httpx://a.com/1/2/3/4/5/6/7")
    );
}

#[test]
fn anchors_are_the_longest_whole_prefixes() {
    for (value, expected) in [
        ("http://a.com/*", "httpx://a.com"),
        ("http://a.com/docs/*", "httpx://a.com/docs"),
        ("http://a.com/docs*", "httpx://a.com"),
        ("http://a.com/docs/b*", "httpx://a.com/docs"),
        ("http://a.com/docs/b_/c", "httpx://a.com/docs"),
        ("http://a.com/docs/*/c", "httpx://a.com/docs"),
        ("http://a.com/docs", "httpx://a.com/docs"),
        ("http://a.com/docs?q=*", "httpx://a.com/docs"),
        ("http://a.com?q=*", "httpx://a.com"),
        ("urn:x-pdf:*", "urn:x-pdf"),
        ("urn:x*", "urn:"),
        ("urn:*", "urn:"),
        (
            "http://a.com/1/2/3/4/5/6/7/8/9/*",
            "httpx://a.com/1/2/3/4/5/6/7",
        ),
    ] {
        assert_eq!(pattern(value).anchor(), expected, "{value}");
    }
}

/// Compares with a recursive matcher, and checks that the anchor of a matching pattern is a prefix of
/// the address.
#[test]
fn agrees_with_a_naive_matcher() {
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                naive(rest, text)
                    || text
                        .split_first()
                        .is_some_and(|(_, after)| naive(pattern, after))
            }
            (Some(('_', rest)), Some((_, after))) => naive(rest, after),
            (Some((c, rest)), Some((d, after))) => c == d && naive(rest, after),
            _ => false,
        }
    }
    let mut random = 1_u64;
    let mut below = |end: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % end
    };
    let mut matching = 0;
    for _ in 0..20_000 {
        let text = |symbols: &[char], below: &mut dyn FnMut(usize) -> usize| -> String {
            (0..below(9))
                .map(|_| symbols[below(symbols.len())])
                .collect()
        };
        let value = format!(
            "urn:x{}",
            text(&['a', 'b', '/', ':', '_', '*', 'é'], &mut below)
        );
        let address = format!("urn:x{}", text(&['a', 'b', '/', ':', 'é'], &mut below));
        let pattern = pattern(&value);
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = naive(&chars(&value), &chars(&address));
        assert_eq!(pattern.matches(&address), expected, "{value} and {address}");
        if expected {
            matching += 1;
            let is_anchored = prefixes_of(&address).contains(&pattern.anchor());
            assert!(is_anchored, "{} of {value} and {address}", pattern.anchor());
        }
    }
    assert!(matching > 1000, "{matching}");
}

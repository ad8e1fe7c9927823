//! Vectors recorded from h, edge cases of Python, and properties of arbitrary text.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/vectors/uri_normalize.json"
));

#[test]
fn normalizes_as_h_does() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.len(), 1069);
    for vector in vectors {
        let result = normalize(vector["in"].as_str().unwrap());
        match vector.get("ok") {
            Some(expected) => assert_eq!(
                result.as_deref(),
                Ok(expected.as_str().unwrap()),
                "{vector}"
            ),
            None => assert!(result.is_err(), "{vector} gave {result:?}"),
        }
    }
}

/// Cases that h's vectors do not cover. The expected text is CPython 3.11's.
#[test]
fn normalizes_authorities_as_python_does() {
    for (uri, expected) in [
        ("http://a:65535", Ok("httpx://a:65535")),
        ("http://a:00443", Ok("httpx://a:443")),
        ("https://a:80:90", Err(UriError::Port)),
        ("http://a:65536", Err(UriError::Port)),
        ("http://a:99999999999999999999", Err(UriError::Port)),
        // Without a host, the port is not checked.
        ("http://:abc/", Ok("http://:abc/")),
        ("http://u@/x", Ok("http://u@/x")),
        ("http://[fe80::1%ETH0]:80/", Ok("httpx://[fe80::1%eth0]")),
        ("http://[v1F.A:b]/", Ok("httpx://[v1f.a:b]")),
        ("http://x[::1]y:8080/", Ok("httpx://[::1]:8080")),
        ("http://[::1]@Host/", Ok("httpx://[::1]@[host]")),
        ("http://[]/", Err(UriError::Brackets)),
        ("http://[1.2.3.4]/", Err(UriError::Brackets)),
        ("http://[fe80::1%]/", Err(UriError::Brackets)),
        ("http://[V1.a]/", Err(UriError::Brackets)),
        ("http://[v.a]/", Err(UriError::Brackets)),
        // Splitting does not depend on the scheme.
        ("ftp://[x/", Err(UriError::Brackets)),
        ("//a]", Err(UriError::Brackets)),
        ("1ftp://[x/", Ok("1ftp://[x/")),
        ("http://a℀b/", Err(UriError::DisguisedDelimiter)),
        ("http://a\u{FF1A}80/", Err(UriError::DisguisedDelimiter)),
        ("http://a/℀", Ok("httpx://a/%E2%84%80")),
        ("http://a½b/", Ok("httpx://a½b")),
        ("http://ΟΔΟΣ/", Ok("httpx://οδος")),
        ("http://EXA%4DPLE/", Ok("httpx://exa%4dple")),
        ("https://via.hypothes.is/http:", Ok("http:")),
    ] {
        assert_eq!(
            normalize(uri).as_deref(),
            expected.as_ref().copied(),
            "{uri}"
        );
    }
}

#[test]
fn filter_keys_match_annotation_keys() {
    let matches = |filter: &str, version| {
        let keys = annotation_keys(["http://A.example/x", "urn:x-pdf:abc"].into_iter(), version);
        let filter_keys = filter_keys(filter, 200).unwrap();
        filter_keys.iter().any(|key| keys.contains(&key))
    };
    for (filter, matched) in [
        ("https://a.example/x/", [true, true, false, false]),
        ("https://a.example/x/:v0", [true, true, false, false]),
        ("https://a.example/x/:v1", [false, false, true, false]),
        ("https://a.example/x/:v1:v02", [false, false, true, true]),
        ("https://a.example/x/:all", [true; 4]),
        ("urn:x-pdf:abc:all", [true; 4]),
        ("urn:x-pdf:abc:v3", [false; 4]),
        ("https://a.example/:all", [false; 4]),
    ] {
        assert_eq!(
            [None, Some(0), Some(1), Some(2)].map(|version| matches(filter, version)),
            matched,
            "{filter}"
        );
    }
}

#[test]
fn annotation_keys_are_distinct_and_skip_invalid_uris() {
    let uris = [
        "http://a/",
        "https://a",
        "http://[",
        "http://a:x",
        "httpx://a",
    ];
    assert_eq!(
        annotation_keys(uris.into_iter(), Some(2)),
        ["httpx://a__v2", "httpx://a__vall"]
    );
    assert_eq!(
        annotation_keys(uris.into_iter(), None),
        ["httpx://a", "httpx://a__vall"]
    );
    assert!(annotation_keys(["//["].into_iter(), None).is_empty());
}

#[test]
fn filter_keys_contain_one_key_per_version() {
    let keys = filter_keys("http://a:v2:all:v0:v02", 4).unwrap();
    assert_eq!(keys.iter().len(), 4);
    assert_eq!(
        keys.iter().collect::<Vec<_>>(),
        [
            "httpx://a__v2",
            "httpx://a__vall",
            "httpx://a",
            "httpx://a__v2"
        ]
    );
    assert_eq!(
        filter_keys("http://a:x:v1", 4),
        Err(FilterKeysError::Uri(UriError::Port))
    );
}

#[test]
fn filter_keys_are_counted_before_they_are_built() {
    // All keys together would take 800 MB.
    let uri = format!(
        "http://a/{}{}",
        "b".repeat(50_000),
        (1..16_000).map(|n| format!(":v{n}")).collect::<String>()
    );
    assert_eq!(
        filter_keys(&uri, 15_998),
        Err(FilterKeysError::TooManyVersions)
    );
    assert_eq!(filter_keys(&uri, 15_999).unwrap().versions.len(), 15_999);
}

/// Arbitrary text does not cause a panic, and results in short, normalized text.
#[test]
fn arbitrary_text_does_not_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..20_000 {
        let uri: String = (0..random(12))
            .map(|_| PIECES[random(PIECES.len())])
            .collect();
        if let Ok(normal) = normalize(&uri) {
            assert!(normal.len() <= uri.len() * 3 + SCHEME.len(), "{uri:?}");
            assert_eq!(normalize(&normal).as_ref(), Ok(&normal), "{uri:?}");
        }
        let (base, versions) = split_versions(&uri, 200).unwrap();
        assert!(uri.starts_with(base));
        assert!(versions.len() <= uri.len());
    }
}

/// A generous limit that a quadratic step over 100 KB would exceed by far.
#[test]
fn normalization_takes_linear_time() {
    let started = Instant::now();
    for piece in [
        "/", "/a", "%80", "&", "a=&", "@", ":", "[", "Σ", "\t", ":v1", "é",
    ] {
        let many = piece.repeat(100_000 / piece.len());
        for start in ["http://", "http://a/", "http://a/?x="] {
            let uri = format!("{start}{many}");
            let _ = normalize(&uri);
            let _ = split_versions(&uri, 2);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

const PIECES: [&str; 52] = [
    "http:",
    "https:",
    "HTTP://",
    "http://",
    "https://via.hypothes.is/",
    "httpx://",
    "//",
    "/",
    "?",
    "#",
    "@",
    ":",
    "[",
    "]",
    "[::1]",
    "[v1.x]",
    "%zone",
    "%",
    "%2",
    "%25",
    "%2F",
    "%C3",
    "%80",
    "%ED%A0%80",
    "%F0%9F",
    "+",
    "=",
    "&",
    "a=b&",
    ";",
    " ",
    "\t",
    "\n",
    "\r",
    "\u{0}",
    "\u{7F}",
    "é",
    "İ",
    "Σ",
    "ſ",
    "℀",
    "\u{FF0F}",
    "😀",
    "\u{10FFFF}",
    "80",
    "٣",
    ":v1",
    ":all",
    ":v99999999999999999999",
    "gclid=",
    "WT.",
    "example.com",
];

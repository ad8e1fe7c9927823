//! Properties of the URI normalizer. The vectors cover its output for specific URIs.

use h_realtime::uri::{self, Version, annotation_keys, filter_keys, normalize};

/// Input: URIs, separated by a byte that is not part of any text.
pub fn uri_normalize(input: &[u8]) {
    for uri in input.split(|&byte| byte == SEPARATOR) {
        if let Ok(uri) = std::str::from_utf8(uri) {
            check(uri);
        }
    }
}

fn check(uri: &str) {
    let Ok(page) = normalize(uri) else {
        // A URI without a normal form can neither be requested nor found.
        assert_eq!(annotation_keys([uri].into_iter(), None), [""; 0]);
        return check_filter(uri);
    };
    assert_eq!(normalize(&page).as_ref(), Ok(&page), "the form of {uri:?}");
    assert!(
        page.len() <= 3 * uri.len() + 8,
        "{} bytes of {}",
        page.len(),
        uri.len()
    );
    let keys = annotation_keys([uri].into_iter(), None);
    assert!(
        keys.contains(&page),
        "a filter for {uri:?} does not match it"
    );
    check_filter(uri);
}

/// A filter for versions of a page matches the annotations of those versions, and no annotation of
/// another page.
fn check_filter(uri: &str) {
    let (base, versions) = uri::split_versions(uri, usize::MAX).expect("within the limit");
    assert!(uri.starts_with(base));
    let Ok(keys) = filter_keys(uri, usize::MAX) else {
        assert!(normalize(base).is_err());
        return;
    };
    let keys: Vec<String> = keys.iter().collect();
    assert_eq!(keys.len(), versions.len().max(1));
    for version in versions {
        let number = match version {
            Version::Unversioned => None,
            Version::All => Some(7),
            Version::Number(digits) => match digits.parse() {
                Ok(number) => Some(number),
                Err(_) => continue,
            },
        };
        let found = annotation_keys([base].into_iter(), number);
        assert!(
            keys.iter().any(|key| found.contains(key)),
            "{keys:?} does not match {found:?}"
        );
    }
}

/// The separator of two URIs in an input.
pub const SEPARATOR: u8 = 0xFF;

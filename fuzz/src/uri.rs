//! The URI normaliser: its properties. What it makes of each URI is in the vectors.

use h_realtime::uri::{self, Version, annotation_keys, filter_keys, normalize};

/// URIs, with a byte between them that is in no text.
pub fn uri_normalize(input: &[u8]) {
    for uri in input.split(|&byte| byte == SEPARATOR) {
        if let Ok(uri) = std::str::from_utf8(uri) {
            check(uri);
        }
    }
}

fn check(uri: &str) {
    let Ok(page) = normalize(uri) else {
        // Nobody can ask for what has no normal form, or be found under it.
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
    assert!(keys.contains(&page), "{uri:?} is not found as itself");
    check_filter(uri);
}

/// A filter of versions of a page meets the annotations of those versions, and no annotation
/// of another page.
fn check_filter(uri: &str) {
    let (base, versions) = uri::split_versions(uri, usize::MAX).expect("no limit");
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
            "{keys:?} does not meet {found:?}"
        );
    }
}

/// Between two URIs of an input.
pub const SEPARATOR: u8 = 0xFF;

//! Userids: `acct:NAME@AUTHORITY`. h stores the two parts in two columns of its tables.

/// Splits a userid into name and authority by h's pattern `^acct:([^@]+)@(.*)$`, in which the dot
/// does not match a line break and `$` ignores one at the end.
pub(super) fn split(userid: &str) -> Option<(&str, &str)> {
    let (name, authority) = userid.strip_prefix("acct:")?.split_once('@')?;
    let authority = authority.strip_suffix('\n').unwrap_or(authority);
    (!name.is_empty() && !authority.contains('\n')).then_some((name, authority))
}

/// Returns the userid of a name and an authority.
pub(super) fn join(name: &str, authority: &str) -> String {
    format!("acct:{name}@{authority}")
}

/// Returns whether `userid` may be used with the embedded backend. Neither part may be empty or
/// contain white space or control characters, some of which h allows.
pub(super) fn is_userid(userid: &str) -> bool {
    is_word(userid) && split(userid).is_some_and(|(_, authority)| !authority.is_empty())
}

/// Returns whether `text` can be part of an identifier: it is nonempty and contains no white space
/// or control characters.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/vectors/split_user.json"
    ));

    #[test]
    fn userids_are_validated() {
        for good in [
            "acct:joe.bloggs@example.org",
            "acct:a@b@c",
            "acct:josé@example.org",
        ] {
            assert!(is_userid(good), "{good}");
        }
        for bad in [
            "",
            "joe",
            "acct:joe",
            "acct:@example.org",
            "acct:joe@",
            "ACCT:joe@example.org",
            "xacct:joe@example.org",
            "acct:joe bloggs@example.org",
            "acct:joe@example.org\n",
            "acct:joe@exam\u{7f}ple.org",
            "acct:joe\u{a0}@example.org",
        ] {
            assert!(!is_userid(bad), "{bad:?}");
        }
    }

    #[test]
    fn splits_userids_as_h_does() {
        let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
        assert_eq!(vectors.len(), 12);
        for vector in vectors {
            let parts = split(vector["in"].as_str().unwrap());
            let expected = vector.get("ok").map(|ok| {
                let part = |key: &str| ok[key].as_str().unwrap();
                (part("username"), part("domain"))
            });
            assert_eq!(parts, expected, "{vector}");
        }
    }

    #[test]
    fn joining_is_the_inverse() {
        let userid = join("Luis.Silva", "example.org");
        assert_eq!(split(&userid), Some(("Luis.Silva", "example.org")));
    }
}

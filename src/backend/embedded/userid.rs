//! The form of userids: `acct:NAME@AUTHORITY`.

/// Whether `userid` has that form. The name ends at the first `@`, as in h; neither part may be
/// empty or have white space or control characters in it, which h allows in places.
pub(super) fn is_userid(userid: &str) -> bool {
    let parts = userid
        .strip_prefix("acct:")
        .and_then(|rest| rest.split_once('@'));
    parts.is_some_and(|(name, authority)| is_word(name) && is_word(authority))
}

/// Whether `text` can be a part of an identifier: some characters, none of them white space or
/// control characters.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userids() {
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
}

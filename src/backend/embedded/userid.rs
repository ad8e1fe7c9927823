//! The form of userids: `acct:NAME@AUTHORITY`.

/// Returns whether `userid` has this form. As in h, the name ends at the first `@`. Neither part
/// may be empty or contain white space or control characters, some of which h allows.
pub(super) fn is_userid(userid: &str) -> bool {
    let parts = userid
        .strip_prefix("acct:")
        .and_then(|rest| rest.split_once('@'));
    parts.is_some_and(|(name, authority)| is_word(name) && is_word(authority))
}

/// Returns whether `text` can be part of an identifier: it is nonempty and contains no white space
/// or control characters.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

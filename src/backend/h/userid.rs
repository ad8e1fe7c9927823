//! Userids: `acct:NAME@AUTHORITY`, stored in two columns in h's tables.

/// Splits a userid into name and authority by h's pattern `^acct:([^@]+)@(.*)$`, in which the dot
/// does not match a line break and `$` ignores one at the end.
pub(super) fn split(userid: &str) -> Option<(&str, &str)> {
    let (name, authority) = userid.strip_prefix("acct:")?.split_once('@')?;
    let authority = authority.strip_suffix('\n').unwrap_or(authority);
    (!name.is_empty() && !authority.contains('\n')).then_some((name, authority))
}

/// Returns the userid of a user in the tables.
pub(super) fn join(name: &str, authority: &str) -> String {
    format!("acct:{name}@{authority}")
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

//! Generates secrets: tokens of users, and the publish key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Returns `prefix` followed by 32 random bytes in base64url.
///
/// # Errors
/// The system provides no randomness.
pub fn new_secret(prefix: &str) -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_need_no_escaping_in_a_url() {
        let (one, other) = (new_secret("hrt-").unwrap(), new_secret("hrt-").unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), "hrt-".len() + 43);
        assert!(
            one.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
    }
}

//! Signatures of Standard Webhooks 1.0: HMAC-SHA256 over the id, the time, and the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The secrets with which requests are signed: several during a rotation.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Parses the secrets in a file: one on each line, the newest first. The error describes the
    /// problem.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let secrets: Vec<Vec<u8>> = lines.map(secret).collect::<Result<_, _>>()?;
        match secrets.len() {
            0 => Err(format!("there is no secret: {EXPECTED}")),
            1..=MAX_SECRETS => Ok(Secrets(secrets)),
            _ => Err(format!("at most {MAX_SECRETS} secrets are supported")),
        }
    }

    /// Returns the value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let timestamp = timestamp.to_string();
        let signatures = self.0.iter().filter_map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            let signature = STANDARD.encode(mac.finalize().into_bytes());
            Some(format!("v1,{signature}"))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

fn secret(line: &str) -> Result<Vec<u8>, String> {
    let text = line
        .strip_prefix(PREFIX)
        .ok_or_else(|| format!("a secret begins with {PREFIX}: {EXPECTED}"))?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| format!("a secret is not valid base64: {EXPECTED}"))?;
    match LENGTHS.contains(&bytes.len()) {
        true => Ok(bytes),
        false => Err(format!("a secret has 24 to 64 bytes: {EXPECTED}")),
    }
}

const PREFIX: &str = "whsec_";
/// "Between 24 bytes (192 bits) and 64 bytes (512 bits)".
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// The maximum number of secrets in a file.
const MAX_SECRETS: usize = 8;
const EXPECTED: &str = "create one with: echo \"whsec_$(openssl rand -base64 32)\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_that_of_the_specification() {
        // The example of the official libraries.
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_during_a_rotation() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let sign = |text: &str| Secrets::parse(text).expect("secrets").sign("a", 1, b"b");
        let both = sign(&format!("# new\n{other}\n\n# old\n{one}\n"));
        assert_eq!(both, format!("{} {}", sign(other), sign(one)));
    }

    #[test]
    fn unusable_secrets_are_refused_without_being_shown() {
        let long = format!("whsec_{}", STANDARD.encode([0; 65]));
        for text in ["", "# none\n", "S3CRET", "whsec_!", "whsec_c2hvcnQ=", &long] {
            let error = Secrets::parse(text).err().expect("refused");
            assert!(text.is_empty() || !error.contains(text), "{error}");
            assert!(error.contains("openssl rand"), "{error}");
        }
        let many = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(MAX_SECRETS + 1);
        assert!(Secrets::parse(&many).is_err());
    }
}

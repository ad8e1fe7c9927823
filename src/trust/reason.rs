//! TLS errors as readable text. The library's own texts contain names of its variants and Unix
//! times.

use std::error::Error as StdError;
use std::io;

use rustls::{CertificateError, Error};

/// A failed TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// The problem, as a clause such as "the server's certificate expired 3 days ago".
    pub reason: String,
    /// The server's bytes are not TLS at all.
    pub is_plain: bool,
    /// The user can decide to trust this particular certificate, or its CA.
    pub can_be_trusted: bool,
}

/// Describes an error of the TLS library.
#[must_use]
pub fn tls_failure(error: &Error) -> TlsFailure {
    let (reason, can_be_trusted) = match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => {
            let alert = words(&format!("{alert:?}"));
            (
                format!("the server refused the TLS handshake: {alert}"),
                false,
            )
        }
        Error::InvalidMessage(_) => ("the server does not speak TLS".to_owned(), false),
        Error::PeerIncompatible(cause) => {
            let cause = words(&format!("{cause:?}"));
            (
                format!("the server's TLS is not compatible: {cause}"),
                false,
            )
        }
        Error::PeerMisbehaved(cause) => {
            let cause = words(&format!("{cause:?}"));
            (format!("the server violates TLS: {cause}"), false)
        }
        Error::NoCertificatesPresented => ("the server has no certificate".to_owned(), false),
        other => (other.to_string(), false),
    };
    TlsFailure {
        reason,
        is_plain: matches!(error, Error::InvalidMessage(_)),
        can_be_trusted,
    }
}

/// Describes the TLS error that is the source of another error, such as a socket or database client
/// error. `None` if there is none.
#[must_use]
pub fn tls_failure_within(error: &(dyn StdError + 'static)) -> Option<TlsFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(tls_failure(error));
        }
        // `source` of an `io::Error` skips its inner error.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn certificate(error: &CertificateError) -> (String, bool) {
    let (predicate, can_be_trusted) = match error {
        CertificateError::Expired => ("has expired".to_owned(), false),
        CertificateError::ExpiredContext { time, not_after } => {
            let past = time.as_secs().saturating_sub(not_after.as_secs());
            (format!("expired {} ago", span(past)), false)
        }
        CertificateError::NotValidYet => ("is not valid yet".to_owned(), false),
        CertificateError::NotValidYetContext { time, not_before } => {
            let ahead = not_before.as_secs().saturating_sub(time.as_secs());
            let ahead = span(ahead);
            let predicate = format!("is not valid yet, but in {ahead}; check this machine's clock");
            (predicate, false)
        }
        CertificateError::Revoked => ("has been revoked".to_owned(), false),
        CertificateError::UnknownIssuer => ("is not issued by a trusted CA".to_owned(), true),
        CertificateError::NotValidForName => ("is not valid for this host".to_owned(), false),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<&str> = presented
                .iter()
                .take(MOST_NAMES)
                .map(|name| bare(name))
                .collect();
            let names = match names.is_empty() {
                true => "no host".to_owned(),
                false => names.join(", "),
            };
            let expected = expected.to_str();
            (format!("is for {names}, not for {expected}"), false)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ("is not a server certificate".to_owned(), false)
        }
        CertificateError::BadEncoding => ("is damaged".to_owned(), false),
        // This includes a trusted CA that has the name of the issuer but another key.
        CertificateError::BadSignature => ("is not signed by the trusted CA".to_owned(), true),
        // The error of an indirect dependency, whose type cannot be named here.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            ("is self-signed, or a CA certificate".to_owned(), true)
        }
        CertificateError::Other(other) => (format!("is not accepted: {other}"), false),
        other => {
            let cause = words(&format!("{other:?}"));
            (format!("is not accepted: {cause}"), false)
        }
    };
    (
        format!("the server's certificate {predicate}"),
        can_be_trusted,
    )
}

/// Extracts `a.example` from `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    let quoted = name
        .split_once('"')
        .and_then(|(_, rest)| rest.split_once('"'));
    quoted.map_or(name, |(name, _)| name)
}

/// Formats a duration in its largest unit.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    match count {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

/// Converts the name of a variant, such as `HandshakeFailure`, to words, without its fields.
fn words(variant: &str) -> String {
    let name = variant.split(['(', '{', ' ']).next().unwrap_or(variant);
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// The maximum number of a certificate's names in a text.
const MOST_NAMES: usize = 5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn certificate_errors_are_described_in_words() {
        let name = ServerName::try_from("h.example").unwrap();
        for (error, reason) in [
            (
                CertificateError::UnknownIssuer,
                "is not issued by a trusted CA",
            ),
            (
                CertificateError::ExpiredContext {
                    time: at(10 * 86_400),
                    not_after: at(7 * 86_400),
                },
                "expired 3 days ago",
            ),
            (
                CertificateError::NotValidYetContext {
                    time: at(0),
                    not_before: at(3_600),
                },
                "is not valid yet, but in 1 hour; check this machine's clock",
            ),
            (
                CertificateError::NotValidForNameContext {
                    expected: name,
                    presented: vec!["DnsName(\"a.example\")".to_owned(), "b.example".to_owned()],
                },
                "is for a.example, b.example, not for h.example",
            ),
            (
                CertificateError::UnhandledCriticalExtension,
                "is not accepted: unhandled critical extension",
            ),
        ] {
            let failure = tls_failure(&Error::InvalidCertificate(error));
            assert_eq!(failure.reason, format!("the server's certificate {reason}"));
            assert!(!failure.is_plain);
        }
    }

    #[test]
    fn other_errors_are_described_too() {
        for (error, reason) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "the server refused the TLS handshake: handshake failure",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "the server does not speak TLS",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "the server's TLS is not compatible: no cipher suites in common",
            ),
        ] {
            let is_plain = matches!(error, Error::InvalidMessage(_));
            // As a socket returns it.
            let outer = io::Error::new(io::ErrorKind::InvalidData, error);
            let failure = tls_failure_within(&outer).unwrap();
            assert_eq!((&*failure.reason, failure.is_plain), (reason, is_plain));
        }
        assert_eq!(tls_failure_within(&io::Error::other("no")), None);
    }
}

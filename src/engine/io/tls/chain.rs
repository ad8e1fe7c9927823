//! The certificates of a chain file: names, dates, and order.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{self, Decode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::CertificateInfo;

/// A parsed certificate.
pub(super) struct Parsed(Certificate);

impl Parsed {
    pub(super) fn parse(der: &CertificateDer<'_>) -> Result<Parsed, der::Error> {
        Certificate::from_der(der).map(Parsed)
    }

    pub(super) fn info(&self) -> CertificateInfo {
        let validity = &self.0.tbs_certificate.validity;
        CertificateInfo {
            subject: self.name(),
            not_before: validity.not_before.to_unix_duration().as_secs(),
            not_after: validity.not_after.to_unix_duration().as_secs(),
        }
    }

    fn name(&self) -> String {
        let subject = self.0.tbs_certificate.subject.to_string();
        match subject.is_empty() {
            true => self.alternative_names(),
            false => subject,
        }
    }

    fn alternative_names(&self) -> String {
        let found = self.0.tbs_certificate.get::<SubjectAltName>();
        let names = found
            .ok()
            .flatten()
            .map_or(Vec::new(), |(_, names)| names.0);
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str()),
            _ => None,
        });
        let names: Vec<_> = names.take(MOST_NAMES).collect();
        match names.is_empty() {
            true => "(without a name)".to_owned(),
            false => names.join(", "),
        }
    }
}

/// Returns the index of a certificate that precedes a certificate issued by it. RFC 8446 §4.4.2:
/// "Each following certificate SHOULD directly certify the one immediately preceding it", and TLS
/// 1.2 requires it. Unrelated certificates are accepted; clients ignore them.
pub(super) fn misplaced(chain: &[Parsed]) -> Option<usize> {
    let certifies = |one: &Parsed, other: &Parsed| {
        one.0.tbs_certificate.subject == other.0.tbs_certificate.issuer
    };
    (1..chain.len()).find(|&place| {
        let one = &chain[place];
        let (before, after) = (&chain[..place], &chain[place + 1..]);
        !before.iter().any(|other| certifies(one, other))
            && after.iter().any(|other| certifies(one, other))
    })
}

/// Maximum number of alternative names to show.
const MOST_NAMES: usize = 3;

//! The certificate's files: read, watched for another certificate, and their dates watched.
//!
//! Time is an argument, in seconds since the Unix epoch.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::net::tls::TlsConfig;
use crate::net::{CertificateInfo, Validity};

/// The files of a certificate and its key.
pub(super) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    /// The chain that is in use, the server's own certificate first.
    chain: Vec<CertificateInfo>,
    /// When its dates were reported, and what they said.
    reported: Option<(u64, Vec<State>)>,
    /// How the files were when they were last read, with success or without.
    tried: Stamps,
    /// How they were when they were last looked at, and were others.
    seen: Option<Stamps>,
}

type Stamps = [Option<Stamp>; 2];

/// What the dates of a certificate mean, and whether it should have been renewed.
type State = (Validity, bool);

/// What changes when a file is written or replaced, be it by way of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Certificate {
    /// Reads the files, and remembers how they were. The dates count as reported at `now`: see
    /// [`expiry_warnings`].
    ///
    /// # Errors
    /// Why they are of no use.
    pub fn read(
        cert: &Path,
        key: &Path,
        now: u64,
    ) -> Result<(Certificate, TlsConfig), impl Display> {
        // First, so that what is written while they are read is noticed afterwards.
        let tried = stamps(cert, key);
        TlsConfig::from_pem_files(cert, key).map(|config| {
            let mut certificate = Certificate {
                cert: cert.to_owned(),
                key: key.to_owned(),
                chain: config.chain().to_vec(),
                reported: None,
                tried,
                seen: None,
            };
            certificate.reported = Some((now, certificate.states(now)));
            (certificate, config)
        })
    }

    /// Looks whether the files have changed, and are at rest: as they were the last time. Else
    /// they may be half written, or the key may have yet to follow its certificate.
    pub fn has_changed(&mut self) -> bool {
        let now = stamps(&self.cert, &self.key);
        let is_other = now != self.tried;
        let is_at_rest = self.seen == Some(now);
        self.seen = is_other.then_some(now);
        is_other && is_at_rest
    }

    /// Reads them again, once for each change. An expired certificate does not replace a valid
    /// one.
    ///
    /// # Errors
    /// Why they are of no use, or of less use than what is in use.
    pub fn read_again(&mut self, now: u64) -> Result<TlsConfig, String> {
        self.tried = stamps(&self.cert, &self.key);
        self.seen = None;
        let config = TlsConfig::from_pem_files(&self.cert, &self.key);
        let config = config.map_err(|error| error.to_string())?;
        self.may_be_replaced(config.chain(), now)?;
        self.chain = config.chain().to_vec();
        self.reported = None;
        Ok(config)
    }

    /// Whether another chain may take the place of the one in use. `next` may be read from other
    /// files.
    ///
    /// # Errors
    /// If clients accept the certificate in use, and would not accept the other one.
    pub fn may_be_replaced(&self, next: &[CertificateInfo], now: u64) -> Result<(), String> {
        let is_valid = |chain: &[CertificateInfo]| {
            let own = chain.first();
            own.is_none_or(|own| own.validity(now).is_valid())
        };
        if !is_valid(&self.chain) || is_valid(next) {
            return Ok(());
        }
        let why = next.first().and_then(|own| warning(own, now));
        let until = self
            .chain
            .first()
            .map_or(String::new(), |own| date(own.not_after));
        Err(format!(
            "{}; the certificate in use is valid until {until}",
            why.unwrap_or_default()
        ))
    }

    /// The chain that is in use, for another object of the same certificate.
    pub fn chain(&self) -> &[CertificateInfo] {
        &self.chain
    }

    /// What to log about the dates of the certificate in use: when they mean something else than
    /// before, and once a day as long as it should have been renewed.
    pub fn due_warnings(&mut self, now: u64) -> Vec<String> {
        let states = self.states(now);
        let is_due = self.reported.as_ref().is_none_or(|(at, before)| {
            *before != states || now.checked_sub(*at).is_none_or(|since| since >= DAY)
        });
        if !is_due {
            return Vec::new();
        }
        self.reported = Some((now, states));
        self.warnings(now, |certificate| certificate.is_overdue(now))
    }

    fn states(&self, now: u64) -> Vec<State> {
        let state = |certificate: &CertificateInfo| {
            (certificate.validity(now), certificate.is_overdue(now))
        };
        self.chain.iter().map(state).collect()
    }

    fn warnings(&self, now: u64, is_worth_it: impl Fn(&CertificateInfo) -> bool) -> Vec<String> {
        let chain = self
            .chain
            .iter()
            .filter(|certificate| is_worth_it(certificate));
        let warnings = chain.filter_map(|certificate| warning(certificate, now));
        let file = self.cert.display();
        warnings
            .map(|warning| format!("{file}: {warning}"))
            .collect()
    }
}

/// A line for each certificate of the chain that has expired, is not yet valid, or ends soon.
pub(super) fn expiry_warnings(certificate: &Certificate, now: u64) -> Vec<String> {
    certificate.warnings(now, |_| true)
}

fn warning(certificate: &CertificateInfo, now: u64) -> Option<String> {
    let subject = &certificate.subject;
    let (from, until) = (date(certificate.not_before), date(certificate.not_after));
    match certificate.validity(now) {
        Validity::Valid => None,
        Validity::EndsSoon => {
            let days = (certificate.not_after - now) / DAY;
            Some(format!(
                "the certificate of {subject} ends at {until}, in {days} days: renew it"
            ))
        }
        Validity::NotYetValid => Some(format!(
            "the certificate of {subject} is not valid before {from}: until then clients refuse it"
        )),
        Validity::Expired => Some(format!(
            "the certificate of {subject} has expired at {until}: clients refuse it; renew it"
        )),
    }
}

/// RFC 3339.
fn date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// It takes no descriptor to ask.
fn stamps(cert: &Path, key: &Path) -> Stamps {
    [cert, key].map(|path| {
        let file = std::fs::metadata(path).ok()?;
        Some(Stamp {
            file: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    })
}

/// How often a warning is repeated, in seconds.
const DAY: u64 = 86_400;

#[cfg(all(test, feature = "tls"))]
mod tests {
    use std::fs;

    use super::*;

    /// In 2023, when the certificates of `rcgen` are valid.
    const NOW: u64 = 1_700_000_000;

    /// A certificate with these dates, in files.
    fn write(folder: &Path, (from, until): ((i32, u8), (i32, u8))) -> (PathBuf, PathBuf) {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, 1);
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&signing_key).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&cert, made.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        (cert, key)
    }

    /// The first second of a month in 2024.
    fn month(number: u8) -> u64 {
        u64::try_from(rcgen::date_time_ymd(2024, number, 1).unix_timestamp()).unwrap()
    }

    #[test]
    fn certificate_for_a_few_days_is_mentioned_daily_only_when_it_is_overdue() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), ((2024, 1), (2024, 2)));
        let soon = month(2) - 13 * DAY;
        let (mut certificate, _) = Certificate::read(&cert, &key, soon).ok().unwrap();
        assert_eq!(expiry_warnings(&certificate, soon).len(), 1, "at the start");
        assert_eq!(certificate.due_warnings(soon + DAY).len(), 0);
        // The last third of 31 days.
        assert_eq!(certificate.due_warnings(month(2) - 10 * DAY).len(), 1);
    }

    #[test]
    fn warnings_come_at_every_change_and_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), ((2024, 2), (2024, 8)));
        let (mut certificate, _) = Certificate::read(&cert, &key, month(1)).ok().unwrap();
        let said = expiry_warnings(&certificate, month(1)).join("; ");
        assert!(said.starts_with(&format!("{}: ", cert.display())), "{said}");
        assert!(
            said.contains("is not valid before 2024-02-01T00:00:00Z"),
            "{said}"
        );
        let mut due = |now| certificate.due_warnings(now).join("; ");
        assert_eq!(due(month(1) + DAY - 1), "", "it was reported at the start");
        assert!(due(month(1) + DAY).contains("not valid before"));
        assert_eq!(due(month(2)), "");
        assert_eq!(due(month(3)), "");
        let soon = month(8) - 13 * DAY;
        let said = due(soon);
        assert!(
            said.contains("ends at 2024-08-01T00:00:00Z, in 13 days"),
            "{said}"
        );
        for second in 1..10 {
            assert_eq!(due(soon + second), "");
        }
        assert!(due(soon + DAY).contains("in 12 days"));
        assert!(due(month(8)).contains("in 0 days"));
        let said = due(month(8) + 1);
        assert!(
            said.contains("has expired at 2024-08-01T00:00:00Z"),
            "{said}"
        );
        assert_eq!(due(month(8) + DAY), "");
        assert!(due(month(8) + 1 + DAY).contains("has expired"));
        assert!(due(month(2)).is_empty(), "the clock was set back");
    }

    // D9
    #[test]
    fn expired_certificate_does_not_replace_a_valid_one() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), ((2024, 1), (2024, 8)));
        let (mut certificate, _) = Certificate::read(&cert, &key, month(2)).ok().unwrap();
        write(folder.path(), ((2023, 1), (2023, 8)));
        let said = certificate.read_again(month(2)).unwrap_err();
        assert!(said.contains("has expired at 2023-08-01"), "{said}");
        assert!(said.contains("in use is valid until 2024-08-01"), "{said}");
        write(folder.path(), ((2024, 3), (2024, 8)));
        assert!(certificate.read_again(month(2)).is_err(), "not yet valid");
        assert!(certificate.read_again(month(3)).is_ok());
        // Where clients refuse both, the newer is no worse.
        write(folder.path(), ((2023, 1), (2024, 9)));
        assert!(certificate.read_again(month(10)).is_ok());
        assert!(
            certificate
                .due_warnings(month(10))
                .join("")
                .contains("has expired")
        );
    }

    #[test]
    fn a_change_counts_when_the_files_are_at_rest_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        let write = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(&cert, made.cert.pem()).unwrap();
            made.signing_key.serialize_pem()
        };
        fs::write(&key, write()).unwrap();
        let (mut certificate, _) = Certificate::read(&cert, &key, NOW).ok().unwrap();
        assert!(!certificate.has_changed() && !certificate.has_changed());

        let new_key = write();
        assert!(!certificate.has_changed(), "it may be half written");
        assert!(certificate.has_changed());
        let said = certificate.read_again(NOW).unwrap_err();
        assert!(said.contains("does not belong"), "{said}");
        assert!(
            !certificate.has_changed() && !certificate.has_changed(),
            "told twice"
        );

        // As by certbot: a new file in the place of the old one.
        fs::write(folder.path().join("new"), new_key).unwrap();
        fs::rename(folder.path().join("new"), &key).unwrap();
        assert!(!certificate.has_changed() && certificate.has_changed());
        assert!(certificate.read_again(NOW).is_ok());

        fs::remove_file(&key).unwrap();
        assert!(!certificate.has_changed() && certificate.has_changed());
        assert!(certificate.read_again(NOW).is_err());
    }
}

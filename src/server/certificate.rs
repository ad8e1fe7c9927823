//! The certificate files: loading them, detecting changes, and monitoring their expiry.
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
    /// The chain in use, with the server's own certificate first.
    chain: Vec<CertificateInfo>,
    /// When the dates were last reported, and the state at that time.
    reported: Option<(u64, Vec<State>)>,
    /// The stamps of the files at the last attempt to load them, successful or not.
    last_loaded: Stamps,
    /// The stamps of the files at the last check, if they differed from `last_loaded`.
    last_seen: Option<Stamps>,
}

type Stamps = [Option<Stamp>; 2];

/// The validity of a certificate, and whether its renewal is overdue.
type State = (Validity, bool);

/// File attributes that change when a file is written or replaced, including through a symbolic
/// link.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Certificate {
    /// Loads the files, and records their stamps. The dates count as reported at `now`: see
    /// [`expiry_warnings`].
    ///
    /// # Errors
    /// The reason reason the files are unusable.
    pub(super) fn read(
        cert: &Path,
        key: &Path,
        now: u64,
    ) -> Result<(Certificate, TlsConfig), impl Display> {
        // Recorded before the files are read, so that a concurrent write is noticed later.
        let last_loaded = stamps(cert, key);
        TlsConfig::from_pem_files(cert, key).map(|config| {
            let mut certificate = Certificate {
                cert: cert.to_owned(),
                key: key.to_owned(),
                chain: config.chain().to_vec(),
                reported: None,
                last_loaded,
                last_seen: None,
            };
            certificate.reported = Some((now, certificate.states(now)));
            (certificate, config)
        })
    }

    /// Returns whether the files have changed and are stable, that is, the same as at the previous
    /// check. Otherwise they may be partially written, or the key may not yet match its
    /// certificate.
    pub(super) fn has_changed(&mut self) -> bool {
        let now = stamps(&self.cert, &self.key);
        let differs = now != self.last_loaded;
        let is_stable = self.last_seen == Some(now);
        self.last_seen = differs.then_some(now);
        differs && is_stable
    }

    /// Reloads the files, once for each change. An expired certificate does not replace a valid
    /// one.
    ///
    /// # Errors
    /// The reason reason the files are unusable, or worse than the certificate in use.
    pub(super) fn reload(&mut self, now: u64) -> Result<TlsConfig, String> {
        self.last_loaded = stamps(&self.cert, &self.key);
        self.last_seen = None;
        let config = TlsConfig::from_pem_files(&self.cert, &self.key);
        let config = config.map_err(|error| error.to_string())?;
        self.check_replacement(config.chain(), now)?;
        self.chain = config.chain().to_vec();
        self.reported = None;
        Ok(config)
    }

    /// Checks that `next` may replace the chain in use. `next` may come from other files.
    ///
    /// # Errors
    /// If the certificate in use is valid and the other one is not.
    pub(super) fn check_replacement(
        &self,
        next: &[CertificateInfo],
        now: u64,
    ) -> Result<(), String> {
        let is_valid = |chain: &[CertificateInfo]| {
            let own = chain.first();
            own.is_none_or(|own| own.validity(now).is_valid())
        };
        if !is_valid(&self.chain) || is_valid(next) {
            return Ok(());
        }
        let reason = next.first().and_then(|own| warning(own, now));
        let until = self
            .chain
            .first()
            .map_or(String::new(), |own| date(own.not_after));
        Err(format!(
            "{}; the certificate in use is valid until {until}",
            reason.unwrap_or_default()
        ))
    }

    /// Returns the chain in use, for another object of the same certificate.
    pub(super) fn chain(&self) -> &[CertificateInfo] {
        &self.chain
    }

    /// Returns the warnings about the dates of the certificate in use that are due: at every change
    /// of state, and once a day while a renewal is overdue.
    pub(super) fn due_warnings(&mut self, now: u64) -> Vec<String> {
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

    fn warnings(&self, now: u64, filter: impl Fn(&CertificateInfo) -> bool) -> Vec<String> {
        let chain = self.chain.iter().filter(|certificate| filter(certificate));
        let warnings = chain.filter_map(|certificate| warning(certificate, now));
        let file = self.cert.display();
        warnings
            .map(|warning| format!("{file}: {warning}"))
            .collect()
    }
}

/// Returns a line for each certificate of the chain that has expired, is not yet valid, or expires
/// soon.
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
                "certificate of {subject} expires at {until}, in {days} days: renew it"
            ))
        }
        Validity::NotYetValid => Some(format!(
            "certificate of {subject} is not valid before {from}: clients reject it until then"
        )),
        Validity::Expired => Some(format!(
            "certificate of {subject} expired at {until}: clients reject it; renew it"
        )),
    }
}

/// Formats a time as in RFC 3339.
fn date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the stamps of the files. This needs no file descriptor.
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

/// The interval at which a warning is repeated, in seconds.
const DAY: u64 = 86_400;

#[cfg(all(test, feature = "tls"))]
mod tests {
    use std::fs;

    use super::*;

    /// In 2023, when the certificates of `rcgen` are valid.
    const NOW: u64 = 1_700_000_000;

    /// Writes a certificate with these dates to files.
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

    /// Returns the first second of a month in 2024.
    fn month(number: u8) -> u64 {
        u64::try_from(rcgen::date_time_ymd(2024, number, 1).unix_timestamp()).unwrap()
    }

    #[test]
    fn short_lived_certificate_warns_daily_only_when_overdue() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), ((2024, 1), (2024, 2)));
        let soon = month(2) - 13 * DAY;
        let (mut certificate, _) = Certificate::read(&cert, &key, soon).ok().unwrap();
        assert_eq!(expiry_warnings(&certificate, soon).len(), 1, "at the start");
        assert_eq!(certificate.due_warnings(soon + DAY).len(), 0);
        // In the last third of 31 days.
        assert_eq!(certificate.due_warnings(month(2) - 10 * DAY).len(), 1);
    }

    #[test]
    fn expiry_warnings_repeat_on_change_and_daily() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), ((2024, 2), (2024, 8)));
        let (mut certificate, _) = Certificate::read(&cert, &key, month(1)).ok().unwrap();
        let text = expiry_warnings(&certificate, month(1)).join("; ");
        assert!(text.starts_with(&format!("{}: ", cert.display())), "{text}");
        assert!(
            text.contains("is not valid before 2024-02-01T00:00:00Z"),
            "{text}"
        );
        let mut due = |now| certificate.due_warnings(now).join("; ");
        assert_eq!(due(month(1) + DAY - 1), "", "it was reported at the start");
        assert!(due(month(1) + DAY).contains("not valid before"));
        assert_eq!(due(month(2)), "");
        assert_eq!(due(month(3)), "");
        let soon = month(8) - 13 * DAY;
        let text = due(soon);
        assert!(
            text.contains("expires at 2024-08-01T00:00:00Z, in 13 days"),
            "{text}"
        );
        for second in 1..10 {
            assert_eq!(due(soon + second), "");
        }
        assert!(due(soon + DAY).contains("in 12 days"));
        assert!(due(month(8)).contains("in 0 days"));
        let text = due(month(8) + 1);
        assert!(text.contains("expired at 2024-08-01T00:00:00Z"), "{text}");
        assert_eq!(due(month(8) + DAY), "");
        assert!(due(month(8) + 1 + DAY).contains("expired at"));
        assert!(due(month(2)).is_empty(), "the clock was set back");
    }

    // D9
    #[test]
    fn expired_certificate_does_not_replace_a_valid_one() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write(folder.path(), ((2024, 1), (2024, 8)));
        let (mut certificate, _) = Certificate::read(&cert, &key, month(2)).ok().unwrap();
        write(folder.path(), ((2023, 1), (2023, 8)));
        let text = certificate.reload(month(2)).unwrap_err();
        assert!(text.contains("expired at 2023-08-01"), "{text}");
        assert!(
            text.contains("the certificate in use is valid until 2024-08-01"),
            "{text}"
        );
        write(folder.path(), ((2024, 3), (2024, 8)));
        assert!(certificate.reload(month(2)).is_err(), "not yet valid");
        assert!(certificate.reload(month(3)).is_ok());
        // If clients reject both certificates, the newer one is not worse.
        write(folder.path(), ((2023, 1), (2024, 9)));
        assert!(certificate.reload(month(10)).is_ok());
        assert!(
            certificate
                .due_warnings(month(10))
                .join("")
                .contains("expired at")
        );
    }

    #[test]
    fn stable_change_is_reported_once() {
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
        let text = certificate.reload(NOW).unwrap_err();
        assert!(text.contains("does not belong"), "{text}");
        assert!(
            !certificate.has_changed() && !certificate.has_changed(),
            "reported twice"
        );

        // As certbot does: a new file replaces the old one.
        fs::write(folder.path().join("new"), new_key).unwrap();
        fs::rename(folder.path().join("new"), &key).unwrap();
        assert!(!certificate.has_changed() && certificate.has_changed());
        assert!(certificate.reload(NOW).is_ok());

        fs::remove_file(&key).unwrap();
        assert!(!certificate.has_changed() && certificate.has_changed());
        assert!(certificate.reload(NOW).is_err());
    }
}

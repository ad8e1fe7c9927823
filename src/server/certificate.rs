//! The certificate's files: read, and watched for another certificate.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::net::tls::TlsConfig;

/// The files of a certificate and its key.
pub(super) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    /// How the files were when they were last read, with success or without.
    tried: Stamps,
    /// How they were when they were last looked at, and were others.
    seen: Option<Stamps>,
}

type Stamps = [Option<Stamp>; 2];

/// What changes when a file is written or replaced, be it by way of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Certificate {
    /// Reads the files, and remembers how they were.
    ///
    /// # Errors
    /// Why they are of no use.
    pub fn read(cert: &Path, key: &Path) -> Result<(Certificate, TlsConfig), impl Display> {
        // First, so that what is written while they are read is noticed afterwards.
        let tried = stamps(cert, key);
        TlsConfig::from_pem_files(cert, key).map(|config| {
            let certificate = Certificate {
                cert: cert.to_owned(),
                key: key.to_owned(),
                tried,
                seen: None,
            };
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

    /// Reads them again, once for each change.
    ///
    /// # Errors
    /// Why they are of no use.
    pub fn read_again(&mut self) -> Result<TlsConfig, impl Display> {
        self.tried = stamps(&self.cert, &self.key);
        self.seen = None;
        TlsConfig::from_pem_files(&self.cert, &self.key)
    }
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

#[cfg(all(test, feature = "tls"))]
mod tests {
    use std::fs;

    use super::*;

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
        let (mut certificate, _) = Certificate::read(&cert, &key).ok().unwrap();
        assert!(!certificate.has_changed() && !certificate.has_changed());

        let new_key = write();
        assert!(!certificate.has_changed(), "it may be half written");
        assert!(certificate.has_changed());
        let said = certificate.read_again().err().unwrap().to_string();
        assert!(said.contains("does not belong"), "{said}");
        assert!(
            !certificate.has_changed() && !certificate.has_changed(),
            "told twice"
        );

        // As by certbot: a new file in the place of the old one.
        fs::write(folder.path().join("new"), new_key).unwrap();
        fs::rename(folder.path().join("new"), &key).unwrap();
        assert!(!certificate.has_changed() && certificate.has_changed());
        assert!(certificate.read_again().is_ok());

        fs::remove_file(&key).unwrap();
        assert!(!certificate.has_changed() && certificate.has_changed());
        assert!(certificate.read_again().is_err());
    }
}

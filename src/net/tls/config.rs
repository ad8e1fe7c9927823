//! A listener's certificate, key and TLS parameters. Read once; no connection is known here.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, InconsistentKeys, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::{self, Decode as _};

use super::suites;

/// What a listener needs to speak TLS. Clones share one certificate, key and ticket secret.
#[derive(Clone)]
pub struct TlsConfig {
    pub(super) server: Arc<ServerConfig>,
    /// When the certificate ends.
    expires: u64,
}

impl TlsConfig {
    /// Reads a certificate chain, the server's own certificate first, and its private key
    /// (PKCS#8, SEC1 or PKCS#1, not encrypted), both PEM.
    ///
    /// # Errors
    /// [`TlsConfigError`], which names the file and what is wrong with it.
    pub fn from_pem_files(cert: &Path, key: &Path) -> Result<TlsConfig, TlsConfigError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| TlsConfigError::Unreadable(origin(path), error))
        };
        Self::build(&read(cert)?, &read(key)?, &origin(cert), &origin(key))
    }

    /// The same from PEM that is in memory already.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<TlsConfig, TlsConfigError> {
        Self::build(cert, key, "the certificate", "the private key")
    }

    /// When the server's own certificate ends (RFC 5280's `notAfter`), in seconds since the Unix
    /// epoch.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    fn build(
        cert: &[u8],
        key: &[u8],
        cert_origin: &str,
        key_origin: &str,
    ) -> Result<TlsConfig, TlsConfigError> {
        let chain = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsConfigError::BadPem(cert_origin.into(), error.to_string()))?;
        if chain.is_empty() {
            return Err(TlsConfigError::NoCertificate(cert_origin.into()));
        }
        let expires = not_after(&chain[0])
            .map_err(|error| TlsConfigError::BadCertificate(cert_origin.into(), error.to_string()));
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsConfigError::NoKey(key_origin.into()),
            error => TlsConfigError::BadPem(key_origin.into(), error.to_string()),
        })?;
        let provider = Arc::new(suites::provider());
        // Loaded by itself first, to tell a bad key from a bad certificate below.
        if let Err(error) = provider.key_provider.load_private_key(key.clone_key()) {
            return Err(TlsConfigError::BadKey(key_origin.into(), error.to_string()));
        }
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| TlsConfigError::Library(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsConfigError::KeyMismatch(key_origin.into(), cert_origin.into())
                }
                error => TlsConfigError::BadCertificate(cert_origin.into(), error.to_string()),
            })?;
        // RFC 6455 is a use of HTTP/1.1; a client that would rather speak another must not.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // When all clients come back at once, resumption spares the signatures. A ticket
        // carries the session itself, so none is remembered here; its secret rotates, and ends
        // with the process. One is enough for a client that keeps one connection.
        server.ticketer =
            ring::Ticketer::new().map_err(|error| TlsConfigError::Library(error.to_string()))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 1;
        // RFC 8446 §8: "TLS does not provide inherent replay protections for 0-RTT data."
        server.max_early_data_size = 0;
        Ok(TlsConfig {
            server: Arc::new(server),
            expires: expires?,
        })
    }
}

fn not_after(cert: &CertificateDer<'_>) -> Result<u64, der::Error> {
    let cert = Certificate::from_der(cert)?;
    let not_after = cert.tbs_certificate.validity.not_after;
    Ok(not_after.to_unix_duration().as_secs())
}

impl fmt::Debug for TlsConfig {
    /// Says nothing: what it holds is secret or of no use in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

/// Why a certificate or key cannot be used. Each names the file, or which of the two it was.
#[derive(Debug)]
pub enum TlsConfigError {
    /// The file cannot be read.
    Unreadable(Box<str>, io::Error),
    /// The file is not PEM; with what is wrong.
    BadPem(Box<str>, String),
    /// The file has no certificate in it.
    NoCertificate(Box<str>),
    /// The first certificate is unusable; with the reason.
    BadCertificate(Box<str>, String),
    /// The file has no private key in it.
    NoKey(Box<str>),
    /// The key is of a kind that is not supported, or broken; with the reason.
    BadKey(Box<str>, String),
    /// The key (first) does not belong to the certificate (second).
    KeyMismatch(Box<str>, Box<str>),
    /// The TLS library cannot work here, for instance for want of random numbers.
    Library(String),
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(file, error) => write!(f, "{file}: {error}"),
            Self::BadPem(file, why) => write!(f, "{file}: not valid PEM: {why}"),
            Self::NoCertificate(file) => write!(f, "{file}: there is no certificate in it"),
            Self::BadCertificate(file, why) => {
                write!(f, "{file}: the certificate cannot be used: {why}")
            }
            Self::NoKey(file) => write!(
                f,
                "{file}: there is no private key in it (PKCS#8, SEC1 or PKCS#1, not encrypted)"
            ),
            Self::BadKey(file, why) => write!(f, "{file}: the key cannot be used: {why}"),
            Self::KeyMismatch(key, cert) => {
                write!(
                    f,
                    "{key}: the key does not belong to the certificate of {cert}"
                )
            }
            Self::Library(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for TlsConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            _ => None,
        }
    }
}

fn origin(path: &Path) -> Box<str> {
    path.display().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = ours.cert.pem();
        let key = ours.signing_key.serialize_pem();
        let foreign_key = other.signing_key.serialize_pem();
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let no_key_der = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cut = &cert[..cert.len() / 2];
        let cases = [
            ("", &*key, "the certificate: there is no certificate"),
            (&*key, &*key, "the certificate: there is no certificate"),
            (cut, &*key, "the certificate: not valid PEM"),
            (not_der, &*key, "the certificate: the certificate cannot"),
            (&*cert, "", "the private key: there is no private key"),
            (&*cert, &*cert, "the private key: there is no private key"),
            (
                &*cert,
                no_key_der,
                "the private key: the key cannot be used",
            ),
            (
                &*cert,
                &*foreign_key,
                "the private key: the key does not belong",
            ),
        ];
        for (cert, key, expected) in cases {
            let message = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(message.starts_with(expected), "{message} / {expected}");
        }
        TlsConfig::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    }

    #[test]
    fn files_are_read_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = dir.path().join("chain.pem");
        let key = dir.path().join("key.pem");
        fs::write(&cert, ours.cert.pem()).unwrap();
        let message = TlsConfig::from_pem_files(&cert, &key)
            .unwrap_err()
            .to_string();
        assert!(message.contains("key.pem: "), "{message}");
        fs::write(&key, ours.signing_key.serialize_pem()).unwrap();
        TlsConfig::from_pem_files(&cert, &key).unwrap();
    }
}

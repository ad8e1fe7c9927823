//! Certificate, key, and TLS parameters of a listener. Must not know: connections.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs, io};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, InconsistentKeys, ServerConfig};

use super::chain::{self, Parsed};
use super::suites;
use crate::CertificateInfo;

/// The TLS configuration of a listener. Clones share the certificate, key, and ticket secret.
#[derive(Clone)]
pub struct TlsConfig {
    pub(super) server: Arc<ServerConfig>,
    /// The server's own certificate, and the others that could be parsed.
    chain: Arc<[CertificateInfo]>,
}

impl TlsConfig {
    /// Reads a certificate chain, the server's own certificate first, and its private key (PKCS#8,
    /// SEC1, or PKCS#1, not encrypted), both PEM.
    ///
    /// # Errors
    /// [`TlsConfigError`], which names the file and the cause.
    pub fn from_pem_files(cert: &Path, key: &Path) -> Result<TlsConfig, TlsConfigError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| TlsConfigError::Unreadable(origin(path), error))
        };
        Self::build(&read(cert)?, &read(key)?, &origin(cert), &origin(key))
    }

    /// Like [`TlsConfig::from_pem_files`], from PEM in memory.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<TlsConfig, TlsConfigError> {
        Self::build(cert, key, "the certificate", "the private key")
    }

    /// Returns the certificates, the server's own first.
    pub fn chain(&self) -> &[CertificateInfo] {
        &self.chain
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
        if is_encrypted(key) {
            return Err(TlsConfigError::EncryptedKey(key_origin.into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsConfigError::NoKey(key_origin.into()),
            error => TlsConfigError::BadPem(key_origin.into(), error.to_string()),
        })?;
        let provider = Arc::new(suites::provider());
        // Loaded separately first, to distinguish a bad key from a bad certificate below.
        let loaded = provider.key_provider.load_private_key(key.clone_key());
        let loaded =
            loaded.map_err(|error| TlsConfigError::BadKey(key_origin.into(), error.to_string()))?;
        let infos = infos(&chain, &loaded, cert_origin)?;
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
        // RFC 6455 is based on HTTP/1.1; clients that prefer another protocol must not negotiate
        // it.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Resumption saves signatures when all clients reconnect at once. Tickets are stateless:
        // they contain the session, and their secret rotates and ends with the process. One ticket
        // is enough for a client with one connection.
        server.ticketer =
            ring::Ticketer::new().map_err(|error| TlsConfigError::Library(error.to_string()))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 1;
        // RFC 8446 §8: "TLS does not provide inherent replay protections for 0-RTT data."
        server.max_early_data_size = 0;
        Ok(TlsConfig {
            server: Arc::new(server),
            chain: infos.into(),
        })
    }
}

/// Parses the certificates, and checks their order.
fn infos(
    chain: &[CertificateDer<'static>],
    key: &Arc<dyn SigningKey>,
    origin: &str,
) -> Result<Vec<CertificateInfo>, TlsConfigError> {
    let is_for_key = |cert: &CertificateDer<'static>| {
        let pair = CertifiedKey::new(vec![cert.clone()], Arc::clone(key));
        pair.keys_match().is_ok()
    };
    if !is_for_key(&chain[0])
        && let Some(place) = chain.iter().position(is_for_key)
    {
        let reason = format!("certificate {} of the file is the server's own", place + 1);
        return Err(TlsConfigError::WrongOrder(origin.into(), reason));
    }
    let bad =
        |error: &dyn fmt::Display| TlsConfigError::BadCertificate(origin.into(), error.to_string());
    let own = Parsed::parse(&chain[0]).map_err(|error| bad(&error))?;
    // Clients may be able to use certificates that cannot be parsed here.
    let others = chain[1..]
        .iter()
        .filter_map(|cert| Parsed::parse(cert).ok());
    let all: Vec<Parsed> = std::iter::once(own).chain(others).collect();
    if let Some(place) = chain::misplaced(&all) {
        let subject = all[place].info().subject;
        let reason = format!("{subject} stands before the certificates that it certifies");
        return Err(TlsConfigError::WrongOrder(origin.into(), reason));
    }
    Ok(all.iter().map(Parsed::info).collect())
}

/// Returns whether a private key is encrypted, in the form of PKCS#8 or RFC 1421.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    let mut lines = text.lines().map(str::trim_end);
    lines.any(|line| {
        line == "-----BEGIN ENCRYPTED PRIVATE KEY-----"
            || line.starts_with("Proc-Type:") && line.ends_with("ENCRYPTED")
    })
}

impl fmt::Debug for TlsConfig {
    /// Prints no fields: they are secret, or useless in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

/// Why a certificate or key cannot be used. Each variant names the file, or which of the two it is.
#[derive(Debug)]
pub enum TlsConfigError {
    /// The file cannot be read.
    Unreadable(Box<str>, io::Error),
    /// The file is not valid PEM; with the cause.
    BadPem(Box<str>, String),
    /// The file contains no certificate.
    NoCertificate(Box<str>),
    /// The first certificate is unusable; with the cause.
    BadCertificate(Box<str>, String),
    /// The file contains no private key.
    NoKey(Box<str>),
    /// The certificates of the file are in the wrong order; with the cause.
    WrongOrder(Box<str>, String),
    /// The private key is encrypted.
    EncryptedKey(Box<str>),
    /// The key is of an unsupported kind or malformed; with the cause.
    BadKey(Box<str>, String),
    /// The key (first) does not belong to the certificate (second).
    KeyMismatch(Box<str>, Box<str>),
    /// The TLS library failed, for instance for lack of random numbers.
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
            Self::WrongOrder(file, why) => write!(
                f,
                "{file}: the certificates are in the wrong order: {why}; the server's own comes \
                 first, then each is followed by the one that certifies it"
            ),
            Self::EncryptedKey(file) => write!(
                f,
                "{file}: the private key is encrypted; decrypt it (openssl pkey -in FILE -out NEW)"
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
    fn errors_name_the_file_and_the_cause() {
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
    fn encrypted_keys_are_recognized_by_their_headers() {
        for (text, expected) in [
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\r\n", true),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
                true,
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,MIC-ONLY\n",
                false,
            ),
            (
                "a comment: not ENCRYPTED\n-----BEGIN PRIVATE KEY-----\n",
                false,
            ),
        ] {
            assert_eq!(is_encrypted(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn debug_output_has_no_secrets_and_unreadable_files_have_a_cause() {
        let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (ours.cert.pem(), ours.signing_key.serialize_pem());
        let config = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(format!("{config:?}"), "TlsConfig { .. }");
        let cause = |error: &TlsConfigError| {
            std::error::Error::source(error).map(std::string::ToString::to_string)
        };
        let missing = TlsConfigError::Unreadable("a".into(), io::ErrorKind::NotFound.into());
        assert_eq!(cause(&missing).as_deref(), Some("entity not found"));
        assert_eq!(cause(&TlsConfigError::NoKey("a".into())), None);
    }

    #[test]
    fn chains_in_the_wrong_order_and_encrypted_keys_are_explained() {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let params = |name: &str, is_ca: bool| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            if is_ca {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            params
        };
        let keys = [0; 3].map(|_| KeyPair::generate().unwrap());
        let root = params("root", true);
        let middle = params("middle", true);
        let root_issuer = Issuer::from_params(&root, &keys[0]);
        let middle_issuer = Issuer::from_params(&middle, &keys[1]);
        let own = params("own", false)
            .signed_by(&keys[2], &middle_issuer)
            .unwrap()
            .pem();
        let between = middle.signed_by(&keys[1], &root_issuer).unwrap().pem();
        let top = root.self_signed(&keys[0]).unwrap().pem();
        let stranger = rcgen::generate_simple_self_signed(["a".to_owned()])
            .unwrap()
            .cert
            .pem();
        let key = keys[2].serialize_pem();
        let read = |chain: &[&String], key: &str| {
            let pem: String = chain.iter().map(|pem| pem.as_str()).collect();
            TlsConfig::from_pem(pem.as_bytes(), key.as_bytes())
        };
        for chain in [
            &[&own][..],
            &[&own, &between],
            &[&own, &between, &top],
            &[&own, &between, &between, &top],
            &[&own, &stranger],
        ] {
            let config = read(chain, &key).unwrap();
            assert!(config.chain()[0].subject.contains("CN=own"));
            assert_eq!(config.chain().len(), chain.len());
        }
        for (chain, part) in [
            (
                &[&between, &own][..],
                "certificate 2 of the file is the server's own",
            ),
            (&[&own, &top, &between], "CN=root stands before"),
        ] {
            let error = read(chain, &key).unwrap_err().to_string();
            assert!(
                error.starts_with("the certificate: the certificates are"),
                "{error}"
            );
            assert!(error.contains(part), "{error}");
        }
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n";
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n";
        for key in [encrypted, older] {
            let error = read(&[&own], key).unwrap_err().to_string();
            assert!(
                error.starts_with("the private key: the private key is encrypted"),
                "{error}"
            );
        }
    }

    #[test]
    fn info_matches_the_certificate() {
        use rcgen::{CertificateParams, DistinguishedName, KeyPair, date_time_ymd};
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 4, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let config = TlsConfig::from_pem(cert.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let expected = CertificateInfo {
            subject: "a.example".to_owned(),
            not_before: 1_577_836_800,
            not_after: 1_585_699_200,
        };
        assert_eq!(config.chain(), [expected]);
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

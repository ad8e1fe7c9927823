//! Verification of server certificates when this program is the client: of a database, or of
//! another server of the Real Time API.
//!
//! Owns: the check of a certificate. Must not know the protocol on the connection.

mod reason;

pub use reason::{TlsFailure, tls_failure, tls_failure_within};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The verification of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// None: the connection is encrypted, but the server is not authenticated.
    Nothing,
    /// The certificate must be issued by a trusted CA.
    Chain(Roots),
    /// In addition, the certificate must be valid for the requested host.
    Name(Roots),
}

/// The trusted certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's.
    System,
    /// The certificates in this PEM file.
    File(PathBuf),
}

/// Further options of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM files of the client certificate chain and its key, if the server requests a client
    /// certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The enabled versions of TLS.
    pub versions: Versions,
    /// Whether to omit the server name (SNI).
    pub omit_sni: bool,
    /// The protocol to negotiate by ALPN.
    pub protocol: Option<&'static str>,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// The reason why no certificates could be loaded, displayable to users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// The system has no CA certificates.
    System,
    /// This file, for this reason.
    File(PathBuf, String),
    /// An error of the TLS library.
    Tls(String),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustError::System => f.write_str("the system has no CA certificates"),
            TrustError::File(file, why) => write!(f, "{}: {why}", file.display()),
            TrustError::Tls(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TrustError {}

/// Returns a TLS client configuration with the given verification.
///
/// # Errors
/// If there are no certificates to trust.
pub fn client_config(check: &Verification) -> Result<ClientConfig, TrustError> {
    client_config_with(check, &TlsOptions::default())
}

/// Like [`client_config`], with options other than the defaults.
///
/// # Errors
/// If there are no certificates to trust, or the client certificate cannot be loaded.
pub fn client_config_with(
    check: &Verification,
    options: &TlsOptions,
) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(check, &provider)?;
    let versions: &[_] = match options.versions {
        Versions::All => &[&TLS13, &TLS12],
        Versions::Tls12 => &[&TLS12],
        Versions::Tls13 => &[&TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| TrustError::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let unusable = |why: String| TrustError::File(key.clone(), why);
            let chain = read(certificate)?;
            let read = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
                pem::Error::NoItemsFound => {
                    unusable("holds no private key in PEM form that is not encrypted".to_owned())
                }
                error => unusable(error.to_string()),
            })?;
            builder
                .with_client_auth_cert(chain, read)
                .map_err(|error| {
                    unusable(format!(
                        "{error}; the certificate is {}",
                        certificate.display()
                    ))
                })?
        }
    };
    config.enable_sni = !options.omit_sni;
    config.alpn_protocols = options
        .protocol
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` accepts any certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
    /// Certificates that are accepted as they are. A file with a self-signed certificate of the
    /// server itself is common, and the rules of the web PKI do not accept a CA certificate as a
    /// server certificate.
    pinned: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(check: &Verification, provider: &Arc<CryptoProvider>) -> Result<Verifier, TrustError> {
        let (roots, checks_name) = match check {
            Verification::Nothing => (None, false),
            Verification::Chain(roots) => (Some(roots), false),
            Verification::Name(roots) => (Some(roots), true),
        };
        let mut pinned = Vec::new();
        let chain = match roots {
            None => None,
            Some(roots) => {
                let mut store = RootCertStore::empty();
                match roots {
                    Roots::System => {
                        let found = rustls_native_certs::load_native_certs();
                        store.add_parsable_certificates(found.certs);
                        if store.is_empty() {
                            return Err(TrustError::System);
                        }
                    }
                    Roots::File(file) => {
                        pinned = read(file)?;
                        for certificate in &pinned {
                            let added = store.add(certificate.clone());
                            added.map_err(|error| {
                                TrustError::File(file.clone(), error.to_string())
                            })?;
                        }
                    }
                }
                let built =
                    WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider));
                Some(
                    built
                        .build()
                        .map_err(|error| TrustError::Tls(error.to_string()))?,
                )
            }
        };
        Ok(Verifier {
            provider: Arc::clone(provider),
            chain,
            checks_name,
            pinned,
        })
    }
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let unusable = |why: String| TrustError::File(file.to_owned(), why);
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("holds no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let result =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match result {
            // The name is checked last, so everything else is valid at this point.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            // `Other` includes a CA certificate used as a server certificate. The dates have been
            // checked at this point, the name has not.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.pinned.contains(end_entity) =>
            {
                if self.checks_name {
                    let certificate = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&certificate, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;

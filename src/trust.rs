//! Which servers' certificates to trust, where this program is the client: of a database, or of
//! another server of the Real Time API.
//!
//! Owns: the check of a certificate. Must not know what is said over the connection.

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

/// What is asked of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: what is sent cannot be read on the way, but whom it is sent to is not known.
    Nothing,
    /// It must be of a CA that is trusted.
    Chain(Roots),
    /// And it must be for the host that was named.
    Name(Roots),
}

/// Which certificates to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's.
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// What else can be chosen of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// PEM files of the certificate chain to show, if the server asks for one, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The versions of TLS that are spoken.
    pub versions: Versions,
    /// Whether the name of the server is not sent (SNI).
    pub hides_name: bool,
    /// The protocol that is negotiated by ALPN.
    pub protocol: Option<&'static str>,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

/// Why there is nothing to trust; its text is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrusting {
    /// The system has no CA certificates.
    System,
    /// This file, for this reason.
    File(PathBuf, String),
    /// What TLS itself says.
    Tls(String),
}

impl fmt::Display for Untrusting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Untrusting::System => f.write_str("the system has no CA certificates"),
            Untrusting::File(file, why) => write!(f, "{}: {why}", file.display()),
            Untrusting::Tls(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Untrusting {}

/// What makes TLS connections of which this is asked.
///
/// # Errors
/// When there are no certificates to trust.
pub fn client(check: &Check) -> Result<ClientConfig, Untrusting> {
    client_on(check, &Terms::default())
}

/// The same, on terms other than the default.
///
/// # Errors
/// When there are no certificates to trust, or none to show.
pub fn client_on(check: &Check, terms: &Terms) -> Result<ClientConfig, Untrusting> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(check, &provider)?;
    let versions: &[_] = match terms.versions {
        Versions::All => &[&TLS13, &TLS12],
        Versions::Tls12 => &[&TLS12],
        Versions::Tls13 => &[&TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| Untrusting::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &terms.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let unfit = |why: String| Untrusting::File(key.clone(), why);
            let chain = read(certificate)?;
            let read = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
                pem::Error::NoItemsFound => {
                    unfit("holds no private key in PEM form that is not encrypted".to_owned())
                }
                error => unfit(error.to_string()),
            })?;
            builder
                .with_client_auth_cert(chain, read)
                .map_err(|error| {
                    unfit(format!(
                        "{error}; the certificate is {}",
                        certificate.display()
                    ))
                })?
        }
    };
    config.enable_sni = !terms.hides_name;
    config.alpn_protocols = terms
        .protocol
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` takes any certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    name_counts: bool,
    /// Certificates that are taken as they are: a file with a self-signed certificate of the
    /// server's own is common, and the web's rules do not take a CA's certificate as a server's.
    given: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(check: &Check, provider: &Arc<CryptoProvider>) -> Result<Verifier, Untrusting> {
        let (roots, name_counts) = match check {
            Check::Nothing => (None, false),
            Check::Chain(roots) => (Some(roots), false),
            Check::Name(roots) => (Some(roots), true),
        };
        let mut given = Vec::new();
        let chain = match roots {
            None => None,
            Some(roots) => {
                let mut store = RootCertStore::empty();
                match roots {
                    Roots::System => {
                        let found = rustls_native_certs::load_native_certs();
                        store.add_parsable_certificates(found.certs);
                        if store.is_empty() {
                            return Err(Untrusting::System);
                        }
                    }
                    Roots::File(file) => {
                        given = read(file)?;
                        for certificate in &given {
                            let added = store.add(certificate.clone());
                            added.map_err(|error| {
                                Untrusting::File(file.clone(), error.to_string())
                            })?;
                        }
                    }
                }
                let built =
                    WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider));
                Some(
                    built
                        .build()
                        .map_err(|error| Untrusting::Tls(error.to_string()))?,
                )
            }
        };
        Ok(Verifier {
            provider: Arc::clone(provider),
            chain,
            name_counts,
            given,
        })
    }
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, Untrusting> {
    let unfit = |why: String| Untrusting::File(file.to_owned(), why);
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unfit(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unfit("holds no certificate in PEM form".to_owned()));
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
        let verdict =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is looked at last, so all else is in order by then.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name_counts => Ok(ServerCertVerified::assertion()),
            // `Other` is how "a CA's certificate as a server's" comes. Dates have been checked by
            // then; the name has not.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.given.contains(end_entity) =>
            {
                if self.name_counts {
                    let certificate = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&certificate, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
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

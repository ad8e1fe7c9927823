//! TLS for `wss://`: which certificates to trust, and the handshake.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned,
};

use super::connect::{Stream, io_reason};
use crate::cli::exit::Exit;
use crate::cli::text::printable;

/// The certificates to trust, ready for use.
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the certificates in the PEM file `ca`, else those of the system.
    pub(super) fn load(ca: Option<&Path>) -> Result<Self, Exit> {
        let mut roots = RootCertStore::empty();
        let mut pinned = Vec::new();
        match ca {
            Some(file) => {
                pinned = read(file)?;
                for certificate in &pinned {
                    roots.add(certificate.clone()).map_err(|error| {
                        Exit::new(Exit::NO_INPUT, format!("{}: {error}", file.display()))
                    })?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    let message = "the system has no CA certificates: give one with --ca-cert";
                    return Err(Exit::new(Exit::CONFIG, message));
                }
            }
        }
        let provider = Arc::new(ring::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| Exit::new(Exit::CONFIG, error))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Exit::new(Exit::CONFIG, error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { inner, pinned }))
            .with_no_client_auth();
        Ok(Trust(Arc::new(config)))
    }

    /// Does the TLS handshake; the error is for a person.
    pub(super) fn wrap(&self, mut tcp: TcpStream, host: &str) -> Result<Box<dyn Stream>, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{} is no name of a server", printable(host)))?;
        let mut tls = ClientConnection::new(self.0.clone(), name)
            .map_err(|error| printable(&error.to_string()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(|error| reason(&error))?;
        }
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn set_patience(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.sock.set_patience(read, write)
    }
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, Exit> {
    let unfit =
        |why: &dyn fmt::Display| Exit::new(Exit::NO_INPUT, format!("{}: {why}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unfit(&error))?;
    if certificates.is_empty() {
        return Err(unfit(&"holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn reason(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "TLS: the certificate is of an unknown CA (if you trust it: --ca-cert)".to_owned()
        }
        Some(error) => printable(&format!("TLS: {error}")),
        None => io_reason(error),
    }
}

/// Verifies as the web does, and also takes a certificate that a person gave as it is.
///
/// `openssl req -x509` marks a self-signed certificate as a CA's, and a CA's certificate is no
/// server's by the web's rules. It is what people have, so it must do where it is given.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
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
        let verdict = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verdict {
            // `Other` is how "a CA's certificate as a server's" comes. Dates have been checked
            // by then; the name has not.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.pinned.contains(end_entity) =>
            {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, server_name)?;
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
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A certificate for `localhost`, self-signed unless there is an issuer, and its key.
    fn certificate(
        is_ca: IsCa,
        issuer: Option<&Issuer<'_, KeyPair>>,
    ) -> (rcgen::Certificate, KeyPair, CertificateParams) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.is_ca = is_ca;
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        (certificate.expect("a certificate"), key, params)
    }

    /// Makes one handshake with a server that has this certificate, trusting `ca`.
    fn shake(
        (own, key, _): (rcgen::Certificate, KeyPair, CertificateParams),
        ca: &str,
        host: &str,
    ) -> Result<(), String> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let mut tcp = listener.accept().expect("a connection").0;
            let mut tls = ServerConnection::new(Arc::new(config)).expect("a server");
            while tls.is_handshaking() && tls.complete_io(&mut tcp).is_ok() {}
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ca).expect("written");
        let trust = Trust::load(Some(file.path())).unwrap_or_else(|exit| panic!("{exit:?}"));
        let result = trust.wrap(TcpStream::connect(address).expect("connected"), host);
        let result = result.map(drop);
        server.join().expect("the server");
        result
    }

    #[test]
    fn the_given_certificate_decides_and_the_name_counts() {
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        let (root, root_key, root_params) = certificate(ca(), None);
        let issuer = Issuer::new(root_params, root_key);
        let plain = certificate(IsCa::NoCa, None);
        let openssl = certificate(ca(), None);
        let issued = certificate(IsCa::NoCa, Some(&issuer));
        for (name, own) in [
            ("plain", &plain),
            ("openssl", &openssl),
            ("issued", &issued),
        ] {
            let own = || {
                let key = KeyPair::from_pem(&own.1.serialize_pem()).expect("the key");
                (own.0.clone(), key, own.2.clone())
            };
            let pem = if name == "issued" {
                root.pem()
            } else {
                own().0.pem()
            };
            assert_eq!(shake(own(), &pem, "localhost"), Ok(()), "{name}");
            let error = shake(own(), &pem, "127.0.0.1").expect_err(name);
            assert!(error.contains("not valid for name"), "{name}: {error}");
            let stranger = certificate(IsCa::NoCa, None).0.pem();
            let error = shake(own(), &stranger, "localhost").expect_err(name);
            assert!(error.starts_with("TLS: "), "{name}: {error}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for path in [file.path(), Path::new("/nonexistent/ca.pem")] {
            let code = Trust::load(Some(path)).map(drop).map_err(|exit| exit.code);
            assert_eq!(code, Err(Exit::NO_INPUT));
        }
    }
}

//! A certificate for the simulated server. Separate from the simulation, which fuzz targets compile
//! without TLS.

use h_realtime_engine::tls::TlsConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// Returns the configuration of a server, and of a client that trusts its certificate.
pub fn certificate_and_client() -> (TlsConfig, ClientConfig) {
    let folder = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(&cert).unwrap();
    roots.add(trusted).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsConfig::from_pem_files(&cert, &key).unwrap(), config)
}

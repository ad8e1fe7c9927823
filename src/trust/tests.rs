//! Handshakes with various servers.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::*;

struct Own {
    certificate: rcgen::Certificate,
    key: KeyPair,
    params: CertificateParams,
}

/// Creates a certificate for `localhost`, self-signed unless an issuer is given.
fn certificate(is_ca: IsCa, issuer: Option<&Issuer<'_, KeyPair>>) -> Own {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = is_ca;
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    Own {
        certificate: certificate.unwrap(),
        key,
        params,
    }
}

/// Performs one handshake with a server that has this certificate.
fn shake(own: &Own, check: &Verification, host: &'static str) -> Result<(), String> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = thread::spawn(move || {
        let mut tcp = listener.accept().unwrap().0;
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() && tls.complete_io(&mut tcp).is_ok() {}
    });
    let name = ServerName::try_from(host).unwrap();
    let mut tls = ClientConnection::new(
        Arc::new(client_config(check).map_err(|error| error.to_string())?),
        name,
    )
    .unwrap();
    let mut result = Ok(());
    while tls.is_handshaking() && result.is_ok() {
        result = tls.complete_io(&mut tcp).map(|_| ());
    }
    server.join().unwrap();
    result.map_err(|error: io::Error| error.to_string())
}

#[test]
fn sslmode_determines_certificate_checks() {
    let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
    let root = certificate(ca(), None);
    let root_pem = root.certificate.pem();
    let issuer = Issuer::new(root.params, root.key);
    let plain = certificate(IsCa::NoCa, None);
    let openssl = certificate(ca(), None);
    let issued = certificate(IsCa::NoCa, Some(&issuer));
    let stranger = certificate(IsCa::NoCa, None).certificate.pem();
    let in_file = |pem: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        let roots = Roots::File(file.path().to_owned());
        (file, roots)
    };
    for (name, own, pem) in [
        ("plain", &plain, plain.certificate.pem()),
        ("openssl", &openssl, openssl.certificate.pem()),
        ("issued", &issued, root_pem),
    ] {
        let (_trusted_file, trusted) = in_file(&pem);
        let (_strange_file, strange) = in_file(&stranger);
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(
                shake(own, &Verification::Nothing, host),
                Ok(()),
                "{name} {host}"
            );
            let chain = Verification::Chain(trusted.clone());
            assert_eq!(shake(own, &chain, host), Ok(()), "{name} {host}");
            for check in [
                Verification::Chain(strange.clone()),
                Verification::Name(strange.clone()),
            ] {
                assert!(shake(own, &check, host).is_err(), "{name} {host}");
            }
        }
        let full = Verification::Name(trusted.clone());
        assert_eq!(shake(own, &full, "localhost"), Ok(()), "{name}");
        let error = shake(own, &full, "127.0.0.1").unwrap_err();
        assert!(error.contains("not valid for name"), "{name}: {error}");
    }
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path().to_str().unwrap(), "/nonexistent/ca.pem"] {
        let check = Verification::Chain(Roots::File(path.into()));
        let error = client_config(&check).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn invalid_client_certificate_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["one", "other"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.pem")), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(path(&format!("{name}.key")), key).unwrap();
    }
    let showing = |certificate: &str, key: &str| {
        let options = TlsOptions {
            identity: Some((path(certificate), path(key))),
            omit_sni: true,
            protocol: Some("postgresql"),
            ..TlsOptions::default()
        };
        client_config_with(&Verification::Nothing, &options).map_err(|error| error.to_string())
    };
    let config = showing("one.pem", "one.key").unwrap();
    assert!(config.client_auth_cert_resolver.has_certs());
    assert!(!config.enable_sni);
    assert_eq!(config.alpn_protocols, [b"postgresql"]);
    for (certificate, key, named) in [
        ("one.pem", "other.key", "other.key: "),
        ("none.pem", "one.key", "none.pem: "),
        ("one.pem", "none.key", "none.key: "),
        ("one.pem", "one.pem", "one.pem: holds no private key"),
    ] {
        let error = showing(certificate, key).unwrap_err();
        assert!(error.contains(named), "{certificate} {key}: {error}");
    }
    let plain = client_config(&Verification::Nothing).unwrap();
    assert!(plain.enable_sni && !plain.client_auth_cert_resolver.has_certs());
}

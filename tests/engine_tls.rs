//! TLS handshakes within a turn of the engine.
#![cfg(feature = "tls")]

mod sim;

use std::sync::Arc;

use h_realtime::net::tls::TlsConfig;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sim::World;
use tempfile::TempDir;

/// A server's certificate, and a client's first flight.
fn certificate_and_hello() -> (TlsConfig, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    let trusted = rustls::pki_types::CertificateDer::from_pem_file(&cert).unwrap();
    roots.add(trusted).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    (TlsConfig::from_pem_files(&cert, &key).unwrap(), hello)
}

// T8
#[test]
fn a_turn_makes_eight_steps_of_handshakes_and_then_serves_others() {
    let (config, hello) = certificate_and_hello();
    let mut world = World::calm();
    let witness = world.open();
    world.tls = Some(config);
    let crowd: Vec<_> = (0..50).map(|_| world.connect()).collect();
    for &client in &crowd {
        world.client(client).conduct.is_eager = false;
        world.client(client).raw(&hello);
        world.deliver(client);
    }
    let answered = |world: &World| {
        let has_flight = |&&client: &&usize| world.clients[client].wire.state().untaken() > 0;
        crowd.iter().filter(has_flight).count()
    };
    // They are accepted in this turn, and served from the next on.
    world.turn();
    let mut before = 0;
    let mut turns = 0;
    while before < crowd.len() {
        world.client(witness).text("quiet");
        world.deliver(witness);
        world.turn();
        turns += 1;
        let now = answered(&world);
        assert!((before + 1..=before + 8).contains(&now), "{before}, {now}");
        assert_eq!(world.inbox(witness), turns, "who is in does not wait");
        before = now;
    }
}

//! TLS for clients.

#[path = "../../support/certificate.rs"]
mod certificate;

use std::io::Write as _;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::peer::{Session, Tls};

/// Returns a certificate, and clients that trust it.
pub fn tls() -> Option<Tls> {
    let (server, client) = certificate::certificate_and_client();
    let client = Arc::new(client);
    Some(Tls {
        server,
        connect: Arc::new(move || {
            let name = ServerName::try_from("localhost").unwrap();
            let mut session = ClientConnection::new(Arc::clone(&client), name).unwrap();
            session.set_buffer_limit(None);
            Box::new(session)
        }),
    })
}

impl Session for ClientConnection {
    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        self.writer().write_all(plain).unwrap();
        let mut records = Vec::new();
        while self.wants_write() {
            self.write_tls(&mut records).unwrap();
        }
        records
    }

    fn receive(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            self.read_tls(&mut records).unwrap();
            self.process_new_packets().unwrap();
        }
    }

    fn is_handshaking(&self) -> bool {
        rustls::CommonState::is_handshaking(self)
    }
}

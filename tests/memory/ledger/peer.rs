//! A client: its input, complete or partial, and whether it reads.

use std::sync::Arc;

use h_realtime_engine::ConnKey;
use h_realtime_engine::tls::TlsConfig;

use super::wire::Wire;

pub struct Peer {
    pub wire: Wire,
    /// Its number in the environment.
    pub number: usize,
    /// The server's key, once it is accepted.
    pub key: Option<ConnKey>,
    pub is_open: bool,
    pub compresses: bool,
    /// Its request is deferred by the application; whether it is a handshake.
    pub deferred: Option<bool>,
    /// Bytes for which the kernel has no room yet.
    pending: Vec<u8>,
    /// The rest of a partially sent message, request, or record.
    withheld: Vec<u8>,
    tls: Option<Box<dyn Session>>,
}

/// The client's side of a TLS session.
pub trait Session {
    /// Returns records with these bytes, preceded by all outstanding records.
    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8>;
    /// Processes records of the server.
    fn receive(&mut self, records: &[u8]);
    fn is_handshaking(&self) -> bool;
}

/// A server's certificate, and clients that trust it.
#[derive(Clone)]
pub struct Tls {
    pub server: TlsConfig,
    pub connect: Arc<dyn Fn() -> Box<dyn Session>>,
}

impl Peer {
    pub fn new(wire: Wire, number: usize, tls: Option<Box<dyn Session>>) -> Self {
        let mut peer = Peer {
            wire,
            number,
            key: None,
            is_open: false,
            compresses: false,
            deferred: None,
            pending: Vec::new(),
            withheld: Vec::new(),
            tls,
        };
        peer.send(b"");
        peer
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Sends bytes after any withheld ones.
    pub fn send(&mut self, bytes: &[u8]) {
        self.pending.append(&mut self.withheld);
        match &mut self.tls {
            Some(tls) => self.pending.append(&mut tls.encrypt(bytes)),
            None => self.pending.extend_from_slice(bytes),
        }
        self.push();
    }

    /// Sends the first `count` bytes, and withholds the rest.
    pub fn send_part(&mut self, bytes: &[u8], count: usize) {
        let (first, rest) = bytes.split_at(count.min(bytes.len()));
        self.send(first);
        match &mut self.tls {
            Some(tls) => self.withheld = tls.encrypt(rest),
            None => self.withheld = rest.to_vec(),
        }
    }

    /// Sends a part of a TLS record.
    pub fn send_part_of_record(&mut self, bytes: &[u8], count: usize) {
        self.send_part(bytes, 0);
        let count = count.min(self.withheld.len().saturating_sub(1));
        self.pending.extend(self.withheld.drain(..count));
        self.push();
    }

    /// Passes the kernel as much as it has room for.
    pub fn push(&mut self) {
        let count = self.wire.state().send(&self.pending);
        self.pending.drain(..count);
    }

    /// Reads everything available.
    pub fn read(&mut self) {
        let bytes = self.wire.state().receive();
        if let Some(tls) = self.tls.as_mut().filter(|tls| tls.is_handshaking()) {
            tls.receive(&bytes);
            let records = tls.encrypt(b"");
            self.pending.extend_from_slice(&records);
            self.push();
        }
    }
}

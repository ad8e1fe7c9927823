//! A simulated wire with the library's client at its other end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    RootCertStore, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::super::{TlsConfig, TlsLink};
use crate::{Fill, Scratch, Socket};

/// The configurations of both ends.
pub(super) type Configs = (TlsConfig, Arc<ClientConfig>);

/// Creates configurations for clients of one TLS version; clients share their tickets.
pub(super) fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let (cert, key) = identity();
    let server = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    (server, Arc::new(client_config(version, None)))
}

pub(super) fn client_config(
    version: &'static SupportedProtocolVersion,
    suite: Option<SupportedCipherSuite>,
) -> ClientConfig {
    let mut provider = ring::default_provider();
    if let Some(suite) = suite {
        provider.cipher_suites = vec![suite];
    }
    let mut roots = RootCertStore::empty();
    let (cert, _) = identity();
    roots
        .add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Returns one certificate and key for all tests, as PEM.
fn identity() -> &'static (String, String) {
    static IDENTITY: OnceLock<(String, String)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    })
}

/// The wire between the two ends, with its behavior toward the server.
#[derive(Clone, Default)]
pub(super) struct Wire(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Maximum bytes per call, cycling through the list; 0 would block.
    read_limits: VecDeque<usize>,
    write_limits: VecDeque<usize>,
    has_ended: bool,
    is_shut: bool,
    is_broken: bool,
    /// Interrupts every other call.
    interrupts: Option<bool>,
}

impl Wire {
    pub(super) fn feed(&self, bytes: &[u8]) {
        self.0.borrow_mut().to_server.extend(bytes);
    }

    /// Ends the client's stream after the bytes fed so far.
    pub(super) fn end(&self) {
        self.0.borrow_mut().has_ended = true;
    }

    pub(super) fn corrupt_last_byte(&self) {
        *self.0.borrow_mut().to_server.back_mut().unwrap() ^= 1;
    }

    pub(super) fn forget_last_byte(&self) {
        self.0.borrow_mut().to_server.pop_back().unwrap();
    }

    pub(super) fn read_at_most(&self, limits: &[usize]) {
        self.0.borrow_mut().read_limits = limits.to_vec().into();
    }

    pub(super) fn write_at_most(&self, limits: &[usize]) {
        self.0.borrow_mut().write_limits = limits.to_vec().into();
    }

    pub(super) fn break_writing(&self) {
        self.0.borrow_mut().is_broken = true;
    }

    pub(super) fn interrupt(&self) {
        self.0.borrow_mut().interrupts = Some(false);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.0.borrow().is_shut
    }

    /// Returns the number of bytes that the server sent and the client has not read.
    pub(super) fn sent(&self) -> usize {
        self.0.borrow().to_client.len()
    }

    /// Frees unused memory of the buffers.
    pub(super) fn shrink(&self) {
        let mut state = self.0.borrow_mut();
        state.to_server.shrink_to_fit();
        state.to_client.shrink_to_fit();
    }

    pub(super) fn take_sent(&self) -> Vec<u8> {
        self.0.borrow_mut().to_client.drain(..).collect()
    }
}

impl State {
    fn check_interrupt(&mut self) -> io::Result<()> {
        if let Some(interrupted) = &mut self.interrupts {
            *interrupted = !*interrupted;
            if *interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
        }
        Ok(())
    }
}

fn next_limit(limits: &mut VecDeque<usize>) -> usize {
    let Some(limit) = limits.pop_front() else {
        return usize::MAX;
    };
    limits.push_back(limit);
    limit
}

impl Socket for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.check_interrupt()?;
        if state.to_server.is_empty() && state.has_ended {
            return Ok(0);
        }
        let limit = next_limit(&mut state.read_limits).min(buf.len());
        let size = limit.min(state.to_server.len());
        if size == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.to_server.read_exact(&mut buf[..size])?;
        Ok(size)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.check_interrupt()?;
        if state.is_broken || state.is_shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let size = next_limit(&mut state.write_limits).min(bytes.len());
        if size == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.to_client.extend(&bytes[..size]);
        Ok(size)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let was_shut = std::mem::replace(&mut self.0.borrow_mut().is_shut, true);
        assert!(!was_shut, "shut twice");
        Ok(())
    }
}

/// Both ends of a connection.
pub(super) struct Pair {
    pub wire: Wire,
    pub link: TlsLink<Wire>,
    pub scratch: Scratch,
    pub client: ClientConnection,
}

impl Pair {
    pub(super) fn new((server, client): &Configs) -> Self {
        let wire = Wire::default();
        let name = "localhost".try_into().unwrap();
        Pair {
            link: TlsLink::new(wire.clone(), server).unwrap(),
            wire,
            scratch: Scratch::new(64 * 1024),
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
        }
    }

    /// Takes the client's pending output.
    pub(super) fn client_flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut flight).unwrap();
        }
        flight
    }

    pub(super) fn complete_handshake(&mut self) {
        for _ in 0..10 {
            self.client_writes();
            assert_eq!(self.fill_all(), b"");
            self.link.flush().unwrap();
            assert_eq!(self.client_receives(), b"");
            if !self.client.is_handshaking() && !self.link.is_handshaking() {
                return;
            }
        }
        panic!("no end of the handshake");
    }

    pub(super) fn client_sends(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        self.client_writes();
    }

    pub(super) fn client_writes(&mut self) {
        let bytes = self.client_flight();
        self.wire.feed(&bytes);
    }

    /// Returns the plaintext that the client decrypts from all of the server's output.
    pub(super) fn client_receives(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let sent = self.wire.take_sent();
        let mut sent = &sent[..];
        while !sent.is_empty() {
            self.client.read_tls(&mut sent).unwrap();
            self.client.process_new_packets().unwrap();
            match self.client.reader().read_to_end(&mut plain) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        plain
    }

    /// Returns the error with which the client reacts to the server's last output.
    pub(super) fn client_error(&mut self) -> String {
        let sent = self.wire.take_sent();
        self.client.read_tls(&mut &sent[..]).unwrap();
        self.client.process_new_packets().unwrap_err().to_string()
    }

    pub(super) fn client_has_seen_close(&mut self) -> bool {
        self.client.process_new_packets().unwrap().peer_has_closed()
    }

    pub(super) fn fill(&mut self) -> io::Result<Fill> {
        self.link.fill(&mut self.scratch, usize::MAX)
    }

    /// Reads like the engine, until the socket is empty.
    pub(super) fn fill_all(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        // A limit of 0 blocks once; the next call has another limit.
        let mut blocked = 0;
        while blocked < 2 {
            let waiting = self.wire.0.borrow().to_server.len();
            let fill = self.fill().unwrap();
            plain.extend_from_slice(&self.scratch.input[..fill.bytes]);
            let has_read = self.wire.0.borrow().to_server.len() < waiting;
            assert!(has_read || fill.bytes == 0);
            blocked = if has_read { 0 } else { blocked + 1 };
            assert!(!fill.eof);
        }
        plain
    }

    /// Reads until the end of the peer's stream, ignoring errors, and shuts down our side.
    pub(super) fn fill_to_the_end(&mut self) {
        for _ in 0..10 {
            if self.fill().is_ok_and(|fill| fill.eof) {
                self.link.shutdown_write(&mut self.scratch).unwrap();
                assert!(self.wire.is_shut());
                return;
            }
        }
        panic!("no end");
    }

    /// Reads until a read fails, as it must.
    pub(super) fn fill_error(&mut self) -> ErrorKind {
        for _ in 0..100 {
            match self.fill() {
                Ok(fill) => assert!(!fill.eof && !fill.is_emptied, "no error"),
                Err(error) => return error.kind(),
            }
        }
        panic!("no error");
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        let slices = [IoSlice::new(bytes)];
        self.link.send(&slices, &mut self.scratch).unwrap()
    }

    pub(super) fn assert_idle(&self) {
        assert!(self.link.partial.is_none());
        assert!(self.link.out.is_none());
        assert!(!self.link.has_output());
    }
}

/// Creates records that no client of the library would send.
pub(super) struct Forger {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Forger {
    /// Takes the keys of the client, which must be limited to the given suite.
    pub(super) fn new(client: ClientConnection, suite: SupportedCipherSuite) -> Self {
        let secrets = client.dangerous_extract_secrets().unwrap();
        let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
            panic!("another suite");
        };
        Forger {
            encrypter: suite.tls13().unwrap().aead_alg.encrypter(key, iv),
            sequence,
        }
    }

    pub(super) fn handshake_record(&mut self, fragment: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(fragment),
        };
        let record = self.encrypter.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        record.encode()
    }
}

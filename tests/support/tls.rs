//! A server with TLS, and its clients.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::{Client, PATIENCE, Server};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A server with a certificate for `localhost`, and one plain listener.
pub struct TlsServer {
    pub server: Server,
    pub cert: PathBuf,
}

impl TlsServer {
    pub fn start() -> Self {
        TlsServer::configured("")
    }

    /// Starts it with this configuration file.
    pub fn configured(config: &str) -> Self {
        TlsServer::at("wss://127.0.0.1:0", config)
    }

    /// The same, with this URL of the TLS listener.
    pub fn at(url: &str, config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let args = [
            "--listen",
            url,
            "--listen",
            "ws://127.0.0.1:0",
            "--tls-cert",
            cert.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ];
        TlsServer {
            server: Server::in_folder(folder, &args, config),
            cert,
        }
    }

    /// Returns the configuration of a client for one version of TLS.
    pub fn config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.cert).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// Connects to the TLS listener without sending anything.
    pub fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Opens a WebSocket over TLS.
    pub fn connect(&self, config: &Arc<ClientConfig>, fields: &str) -> Client<TlsStream> {
        let session = ClientConnection::new(Arc::clone(config), name()).unwrap();
        let client = Client::over(StreamOwned::new(session, self.tcp()), "/ws", fields);
        assert!(client.head.starts_with("HTTP/1.1 101 "), "{}", client.head);
        client
    }

    /// Opens a WebSocket over TLS after a proxy header, sent byte by byte.
    pub fn connect_behind(&self, config: &Arc<ClientConfig>, header: &[u8]) -> Client<TlsStream> {
        let mut stream = self.tcp();
        for byte in header {
            stream.write_all(&[*byte]).unwrap();
        }
        let session = ClientConnection::new(Arc::clone(config), name()).unwrap();
        Client::over(StreamOwned::new(session, stream), "/ws", "")
    }

    /// Opens a WebSocket on the plain listener.
    pub fn plain(&self) -> Client {
        self.plain_at("/ws")
    }

    /// Opens a WebSocket on the plain listener with this target.
    pub fn plain_at(&self, target: &str) -> Client {
        let url = &self.server.listeners[1];
        let address = url.trim_start_matches("ws://").trim_end_matches("/ws");
        Client::open(address.parse().unwrap(), target, "")
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Returns a client's session and its first flight.
pub fn hello(config: &Arc<ClientConfig>) -> (ClientConnection, Vec<u8>) {
    let mut session = ClientConnection::new(Arc::clone(config), name()).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    (session, bytes)
}

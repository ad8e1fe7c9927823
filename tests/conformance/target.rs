//! The server to be checked, and the connections to it.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::client::{ByteStream, Failure};

/// A server of the API.
#[derive(Clone)]
pub struct Target {
    /// The host and the port.
    address: String,
    /// The field `Host` of requests.
    pub host: String,
    tls: bool,
    /// A file with the trusted certificates, instead of those of the system.
    pub ca_cert: Option<PathBuf>,
    /// The time within which the server must answer.
    pub patience: Duration,
}

impl Target {
    /// Returns the server at an address of this host, under the host name of the recordings.
    pub fn local(address: SocketAddr) -> Target {
        Target {
            address: address.to_string(),
            host: RECORDED_HOST.to_owned(),
            tls: false,
            ca_cert: None,
            patience: PATIENCE,
        }
    }

    /// Parses `ws://HOST[:PORT][/ws]` or `wss://…`.
    pub fn parse(url: &str) -> Result<Target, String> {
        let expected = || format!("{url}: expected ws://HOST[:PORT]/ws or wss://HOST[:PORT]/ws");
        let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
        let tls = match scheme {
            "ws" => false,
            "wss" => true,
            _ => return Err(expected()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "ws"));
        if !matches!(path, "" | "ws") {
            let message = "the recorded requests are for the paths /ws and /_status";
            return Err(format!("{}; {message}", expected()));
        }
        if authority.is_empty() || authority.contains(['@', '?', '#']) {
            return Err(expected());
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        let port = if tls { 443 } else { 80 };
        let is_name = authority.contains(|c: char| c.is_ascii_alphabetic());
        Ok(Target {
            address: match has_port {
                true => authority.to_owned(),
                false => format!("{authority}:{port}"),
            },
            // A proxy may select the server by its name.
            host: match is_name && !authority.starts_with('[') {
                true => authority.to_owned(),
                false => RECORDED_HOST.to_owned(),
            },
            tls,
            ca_cert: None,
            patience: PATIENCE,
        })
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<Box<dyn ByteStream>, Failure> {
        let failed = |error: std::io::Error| format!("cannot connect to {}: {error}", self.address);
        let tcp = TcpStream::connect(&self.address).map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        if self.tls {
            let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
            return tls::connect(tcp, host.trim_matches(['[', ']']), self.ca_cert.as_deref());
        }
        Ok(Box::new(tcp))
    }

    /// Replaces the host of a recorded request by that of the server.
    pub fn addressed(&self, request: &[u8]) -> Vec<u8> {
        let recorded = format!("\r\nHost: {RECORDED_HOST}\r\n").into_bytes();
        let at = request
            .windows(recorded.len())
            .position(|part| part == recorded);
        match at {
            Some(at) if self.host != RECORDED_HOST => {
                let host = format!("\r\nHost: {}\r\n", self.host).into_bytes();
                [&request[..at], &host, &request[at + recorded.len()..]].concat()
            }
            _ => request.to_vec(),
        }
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::net::TcpStream;
    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::{ByteStream, Failure};

    impl ByteStream for StreamOwned<ClientConnection, TcpStream> {
        fn tcp(&self) -> &TcpStream {
            self.get_ref()
        }
    }

    /// Starts TLS with the certificates in a file, or those of the system.
    pub fn connect(
        tcp: TcpStream,
        host: &str,
        ca_cert: Option<&Path>,
    ) -> Result<Box<dyn ByteStream>, Failure> {
        let mut roots = RootCertStore::empty();
        let certificates = match ca_cert {
            None => rustls_native_certs::load_native_certs().certs,
            Some(file) => {
                let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
                read.map_err(|error| format!("{}: {error}", file.display()))?
            }
        };
        roots.add_parsable_certificates(certificates);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let tls =
            ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    use std::net::TcpStream;
    use std::path::Path;

    use super::{ByteStream, Failure};

    pub fn connect(
        _: TcpStream,
        _: &str,
        _: Option<&Path>,
    ) -> Result<Box<dyn ByteStream>, Failure> {
        Err("this build does not include TLS".to_owned())
    }
}

/// The host name in the recorded requests.
const RECORDED_HOST: &str = "localhost";
/// Generous for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

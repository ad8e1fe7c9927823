//! Where the server is, and how a socket to it is made.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, Socket, Type};

use crate::{Error, Result};

/// A server, resolved.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// As in the URL, for the `Host` field.
    pub host: String,
    pub path: String,
    pub tls: Option<Tls>,
    sources: u64,
}

/// What a TLS client needs.
#[derive(Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// Who may be loaded, and from where.
pub struct Terms<'a> {
    pub allow_remote: bool,
    pub sources: u64,
    pub ca: Option<&'a Path>,
    /// Whether TLS sessions are resumed.
    pub resume: bool,
}

impl Target {
    /// Reads `ws://HOST:PORT/PATH` or `wss://…`.
    ///
    /// # Errors
    ///
    /// If it is no such URL, does not resolve, is not this machine, or has no trust anchor.
    pub fn new(url: &str, terms: &Terms<'_>) -> Result<Target> {
        let (is_tls, rest) = match url.split_once("://") {
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            _ => return Err(format!("{url}: expected ws://HOST:PORT/PATH or wss://…").into()),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let address = resolve(host, if is_tls { 443 } else { 80 }, terms.allow_remote)?;
        let tls = match is_tls {
            true => Some(Tls::new(host, terms)?),
            false => None,
        };
        Ok(Target {
            address,
            host: host.to_owned(),
            path: path.to_owned(),
            tls,
            sources: terms.sources,
        })
    }

    /// The same server at another path.
    pub fn at(&self, path: &str) -> Target {
        Target {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// Begins to connect. One source address has some 28,000 ports, and those of connections
    /// just closed are taken for a minute: so `number` chooses among several addresses.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn connect(&self, number: u64) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.address.ip().is_loopback() && self.address.is_ipv4() {
            let last = u8::try_from(1 + number % self.sources).unwrap_or(1);
            let source = SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0));
            socket.bind(&source.into())?;
        }
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(TcpStream::from_std(socket.into()))
    }
}

/// `HOST:PORT`, resolved, and refused unless it is this machine.
pub fn resolve(host: &str, port: u16, allow_remote: bool) -> Result<SocketAddr> {
    let with_port = match host.rsplit_once(':') {
        Some((_, digits)) if digits.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:{port}"),
    };
    let mut found = with_port.to_socket_addrs()?;
    let address = found.next().ok_or("the host has no address")?;
    if !address.ip().is_loopback() && !allow_remote {
        let ip: IpAddr = address.ip();
        return Err(format!("{ip} is not this machine; --allow-remote if it is yours").into());
    }
    Ok(address)
}

impl Tls {
    fn new(host: &str, terms: &Terms<'_>) -> Result<Tls> {
        let file = terms.ca.ok_or("wss:// needs --ca FILE")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file)? {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = match terms.resume {
            true => rustls::client::Resumption::in_memory_sessions(64),
            false => rustls::client::Resumption::disabled(),
        };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = ServerName::try_from(name.to_owned()).map_err(Error::from)?;
        let config = Arc::new(config);
        Ok(Tls { config, name })
    }
}

/// How long to wait for the server's process to listen.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

const EINPROGRESS: i32 = 115;

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms<'static> {
        Terms {
            allow_remote: false,
            sources: 1,
            ca: None,
            resume: false,
        }
    }

    #[test]
    fn only_loopback_is_loaded() {
        assert!(Target::new("ws://127.0.0.1:1/ws", &terms()).is_ok());
        assert!(Target::new("ws://127.9.9.9", &terms()).is_ok());
        for url in [
            "ws://192.0.2.1:80/",
            "ws://0.0.0.0:80/",
            "http://127.0.0.1/",
            "wss://127.0.0.1/",
        ] {
            assert!(Target::new(url, &terms()).is_err(), "{url}");
        }
    }

    #[test]
    fn a_url_has_host_and_path() {
        let target = Target::new("ws://127.0.0.1:81/a/b?c", &terms()).unwrap();
        assert_eq!(target.address.port(), 81);
        assert_eq!(target.host, "127.0.0.1:81");
        assert_eq!(target.path, "/a/b?c");
        assert_eq!(Target::new("ws://127.0.0.1", &terms()).unwrap().path, "/");
    }
}

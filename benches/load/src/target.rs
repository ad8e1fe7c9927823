//! The server's address, and how sockets connect to it.

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

/// A resolved server.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// As in the URL, for the `Host` field.
    pub host: String,
    pub path: String,
    pub tls: Option<Tls>,
    sources: u64,
}

/// The configuration of a TLS client.
#[derive(Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// Restrictions on the target, and the source addresses.
pub struct TargetOptions<'a> {
    pub allow_remote: bool,
    pub sources: u64,
    pub ca: Option<&'a Path>,
    /// Whether TLS sessions are resumed.
    pub resume: bool,
}

impl Target {
    /// Parses `ws://HOST:PORT/PATH` or `wss://…`.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid, does not resolve, points to another machine, or has
    /// no trust anchor.
    pub fn new(url: &str, options: &TargetOptions<'_>) -> Result<Target> {
        let (is_tls, rest) = match url.split_once("://") {
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            _ => return Err(format!("{url}: expected ws://HOST:PORT/PATH or wss://…").into()),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let address = resolve(host, if is_tls { 443 } else { 80 }, options.allow_remote)?;
        let tls = match is_tls {
            true => Some(Tls::new(host, options)?),
            false => None,
        };
        Ok(Target {
            address,
            host: host.to_owned(),
            path: path.to_owned(),
            tls,
            sources: options.sources,
        })
    }

    /// Returns the same server with another path.
    pub fn at(&self, path: &str) -> Target {
        Target {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// Begins to connect. One source address has about 28,000 ports, and ports of closed
    /// connections stay in use for a minute, so `number` selects one of several source addresses.
    ///
    /// # Errors
    ///
    /// Returns the errors of the operating system.
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

/// Resolves `HOST:PORT`, and rejects it unless it is this machine.
pub fn resolve(host: &str, port: u16, allow_remote: bool) -> Result<SocketAddr> {
    let with_port = match host.rsplit_once(':') {
        Some((_, digits)) if digits.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:{port}"),
    };
    let mut found = with_port.to_socket_addrs()?;
    let address = found.next().ok_or("the host has no address")?;
    if !address.ip().is_loopback() && !allow_remote {
        let ip: IpAddr = address.ip();
        return Err(
            format!("{ip} is not this machine; pass --allow-remote if you operate it").into(),
        );
    }
    Ok(address)
}

impl Tls {
    fn new(host: &str, options: &TargetOptions<'_>) -> Result<Tls> {
        let file = options.ca.ok_or("wss:// needs --ca FILE")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file)? {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = match options.resume {
            true => rustls::client::Resumption::in_memory_sessions(64),
            false => rustls::client::Resumption::disabled(),
        };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = ServerName::try_from(name.to_owned()).map_err(Error::from)?;
        let config = Arc::new(config);
        Ok(Tls { config, name })
    }
}

/// The time limit for the server's process to listen.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

const EINPROGRESS: i32 = 115;

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TargetOptions<'static> {
        TargetOptions {
            allow_remote: false,
            sources: 1,
            ca: None,
            resume: false,
        }
    }

    #[test]
    fn remote_hosts_are_rejected() {
        assert!(Target::new("ws://127.0.0.1:1/ws", &options()).is_ok());
        assert!(Target::new("ws://127.9.9.9", &options()).is_ok());
        for url in [
            "ws://192.0.2.1:80/",
            "ws://0.0.0.0:80/",
            "http://127.0.0.1/",
            "wss://127.0.0.1/",
        ] {
            assert!(Target::new(url, &options()).is_err(), "{url}");
        }
    }

    #[test]
    fn url_is_split_into_host_and_path() {
        let target = Target::new("ws://127.0.0.1:81/a/b?c", &options()).unwrap();
        assert_eq!(target.address.port(), 81);
        assert_eq!(target.host, "127.0.0.1:81");
        assert_eq!(target.path, "/a/b?c");
        assert_eq!(Target::new("ws://127.0.0.1", &options()).unwrap().path, "/");
    }
}

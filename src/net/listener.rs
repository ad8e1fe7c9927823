//! Listening sockets: opening them, and accepting within a budget.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Type};

use super::stream::Stream;
use super::tls::TlsConfig;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 has the system choose.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket. What connects before a reactor has it waits.
pub struct Listener {
    socket: Socket,
    pub(super) tls: Option<TlsConfig>,
    /// Connections have to begin with a header of the PROXY protocol.
    pub(super) has_preface: bool,
    /// There may be connections to accept: set by an edge, cleared by `WouldBlock`.
    pub(super) pending: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Opens a listening socket, with TLS where a certificate is given.
    ///
    /// # Errors
    /// Those of binding and listening.
    pub fn open(address: &Address, tls: Option<TlsConfig>) -> io::Result<Self> {
        Self::open_as(address, tls, false)
    }

    /// As [`Listener::open`], on a TCP port that other processes of the same user may listen on
    /// as well, if they say so too (`SO_REUSEPORT`): the system spreads connections over them.
    ///
    /// # Errors
    /// Those of binding and listening.
    pub fn open_shared(address: &Address, tls: Option<TlsConfig>) -> io::Result<Self> {
        Self::open_as(address, tls, true)
    }

    fn open_as(address: &Address, tls: Option<TlsConfig>, shared: bool) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(listen_tcp(*address, shared)?),
            Address::Unix(path) => {
                remove_stale(path)?;
                Socket::Unix(UnixListener::bind(path)?, path.clone())
            }
        };
        Ok(Listener {
            socket,
            tls,
            has_preface: false,
            pending: true,
        })
    }

    /// With a header of the PROXY protocol before all else of a connection, TLS included. Only
    /// [`Config::trusted_proxies`](super::Config::trusted_proxies) may connect then.
    #[must_use]
    pub fn with_proxy_protocol(mut self) -> Self {
        self.has_preface = true;
        self
    }

    /// Where it listens, with the port that the system chose.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Socket::Unix(listener, _) => listener.register(registry, token, Interest::READABLE),
        }
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Events are small, and each is wanted at once.
                if let Err(error) = stream.set_nodelay(true) {
                    log::debug!("TCP_NODELAY: {error}");
                }
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix(listener, _) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket
            && let Err(error) = std::fs::remove_file(path)
        {
            log::debug!("{}: {error}", path.display());
        }
    }
}

/// Whether a failed `accept` concerns one connection only, so that the next may be tried.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    // EPROTO and EPERM (a firewall's refusal) have no kind of their own on every version.
    let code = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    ) || matches!(
        code,
        Some(rustix::io::Errno::PROTO | rustix::io::Errno::PERM)
    )
}

fn listen_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // The server ends connections first (RFC 6455 §7.1.1), so their TIME_WAIT is here: without
    // this a restart could not bind.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // An IPv4 listener of the same port is then a choice of its own, on every system.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Removes the socket of a process that is gone. One that somebody still listens on is left,
/// and binding says so.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    // A2
    #[test]
    fn a_failure_of_one_connection_is_no_failure_of_the_listener() {
        let concerns_one = |errno: Errno| concerns_one_connection(&errno.into());
        for errno in [
            Errno::CONNABORTED,
            Errno::CONNRESET,
            Errno::PROTO,
            Errno::PERM,
            Errno::INTR,
        ] {
            assert!(concerns_one(errno), "{errno}");
        }
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::BADF,
        ] {
            assert!(!concerns_one(errno), "{errno}");
        }
    }
}

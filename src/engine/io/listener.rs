//! Listening sockets: opening them, and accepting connections.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Type};

use crate::engine::ListenerOptions;
use crate::io::stream::Stream;
use crate::io::tls::TlsConfig;
use crate::io::unix_socket;
use crate::io::unix_socket::{OwnFile, SocketFile};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address. With port 0, the system chooses a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
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

/// A listening socket. Connections queue in its backlog until a reactor accepts them.
pub struct Listener {
    socket: Socket,
    options: ListenerOptions,
    /// Called before the socket is closed.
    before_close: Option<Box<dyn FnOnce() + Send>>,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Removes the socket file when dropped; `None` if another process has created it.
        _file: Option<OwnFile>,
    },
}

/// The ownership of a listening socket, which decides the fate of connections in its backlog when
/// this process stops listening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketOwnership {
    /// Only this process has the socket: closing it loses the connections in the backlog.
    #[default]
    Owned,
    /// Other processes listen on the same port with sockets and backlogs of their own
    /// (`SO_REUSEPORT`).
    ReusePort,
    /// Other processes have the same socket: its backlog is left to them.
    Inherited,
}

impl Listener {
    /// Opens a listening socket, with TLS if a certificate is given.
    ///
    /// # Errors
    /// Errors of binding and listening.
    pub fn open(address: &Address, tls: Option<TlsConfig>) -> io::Result<Self> {
        Self::open_as(address, tls, false)
    }

    /// Like [`Listener::open`], on a TCP port that other processes of the same user may share if
    /// they use `SO_REUSEPORT`, too. The system distributes connections among them.
    ///
    /// # Errors
    /// Errors of binding and listening.
    pub fn open_shared(address: &Address, tls: Option<TlsConfig>) -> io::Result<Self> {
        Self::open_as(address, tls, true)
    }

    fn open_as(address: &Address, tls: Option<TlsConfig>, shared: bool) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(listen_tcp(*address, shared)?),
            Address::Unix(path) => return Self::open_unix(path, SocketFile::default(), tls),
        };
        let ownership = match (&socket, shared) {
            (Socket::Tcp(_), true) => SocketOwnership::ReusePort,
            _ => SocketOwnership::Owned,
        };
        Ok(Listener::new(socket, ownership, tls))
    }

    /// Opens a listening Unix socket. Its file has the given mode and owner before any client can
    /// connect.
    ///
    /// # Errors
    /// Errors of binding and listening, and of changing the owner.
    pub fn open_unix(path: &Path, file: SocketFile, tls: Option<TlsConfig>) -> io::Result<Self> {
        let (listener, file) = unix_socket::listen(path, file, BACKLOG)?;
        let socket = Socket::Unix {
            listener: UnixListener::from_std(listener),
            path: path.to_owned(),
            _file: Some(file),
        };
        Ok(Listener::new(socket, SocketOwnership::Owned, tls))
    }

    /// Uses a listening TCP socket that is shared with other processes. It keeps listening, and its
    /// backlog is kept, when this process stops accepting.
    ///
    /// # Errors
    /// If the socket does not listen, or if its state cannot be determined.
    pub fn from_tcp(socket: std::net::TcpListener, tls: Option<TlsConfig>) -> io::Result<Self> {
        must_listen(&socket)?;
        socket.set_nonblocking(true)?;
        let socket = Socket::Tcp(TcpListener::from_std(socket));
        Ok(Listener::new(socket, SocketOwnership::Inherited, tls))
    }

    /// Like [`Listener::from_tcp`], for a Unix socket. Its file is never removed.
    ///
    /// # Errors
    /// If the socket does not listen, or if its state cannot be determined.
    pub fn from_unix(
        socket: std::os::unix::net::UnixListener,
        tls: Option<TlsConfig>,
    ) -> io::Result<Self> {
        must_listen(&socket)?;
        socket.set_nonblocking(true)?;
        let path = unix_name(&socket.local_addr()?);
        let socket = Socket::Unix {
            listener: UnixListener::from_std(socket),
            path,
            _file: None,
        };
        Ok(Listener::new(socket, SocketOwnership::Inherited, tls))
    }

    fn new(socket: Socket, ownership: SocketOwnership, tls: Option<TlsConfig>) -> Self {
        Listener {
            socket,
            options: ListenerOptions {
                ownership,
                expects_proxy_header: false,
                is_reserved: false,
                tls,
            },
            before_close: None,
        }
    }

    /// Enables TLS if a certificate is given.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsConfig>) -> Self {
        self.options.tls = tls;
        self
    }

    /// Requires a PROXY protocol header at the start of each connection, before TLS. Only
    /// [`Config::trusted_proxies`](crate::Config::trusted_proxies) may connect then.
    #[must_use]
    pub fn with_proxy_protocol(mut self) -> Self {
        self.options.expects_proxy_header = true;
        self
    }

    /// Reserves the listener for operators: its connections have a limit of their own,
    /// [`Config::max_reserved`](crate::Config::max_reserved), and are served until all others have
    /// been closed by a shutdown. A reactor has at most one such listener.
    #[must_use]
    pub fn reserved(mut self) -> Self {
        self.options.is_reserved = true;
        self
    }

    /// Sets a callback that is called immediately before the socket is closed and its address
    /// becomes available. The callback must not block.
    #[must_use]
    pub fn before_close(mut self, call: impl FnOnce() + Send + 'static) -> Self {
        self.before_close = Some(Box::new(call));
        self
    }

    /// Returns the address of the listener, including the port chosen by the system.
    ///
    /// # Errors
    /// If the system does not report the address.
    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix { path, .. } => Ok(Address::Unix(path.clone())),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Socket::Unix { listener, .. } => listener.register(registry, token, Interest::READABLE),
        }
    }

    pub(crate) fn options(&self) -> &ListenerOptions {
        &self.options
    }

    /// Makes the kernel drop new SYN packets, so that clients retry a second later, when this
    /// socket is closed and another one accepts them. Handshakes in progress still complete:
    /// closing the socket between a client's SYN and its place in the backlog would reset the
    /// connection, and such connections are invisible to this process.
    ///
    /// # Errors
    /// If the system does not support it.
    pub(crate) fn drop_new_syns(&self) -> io::Result<()> {
        match &self.socket {
            #[cfg(target_os = "linux")]
            Socket::Tcp(listener) => socket2::SockRef::from(listener).attach_filter(&no_syn()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Accepts a connection, and returns it with the peer's IP address; `None` on a Unix socket.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                // Events are small, and must not be delayed.
                if let Err(error) = stream.set_nodelay(true) {
                    log::debug!("TCP_NODELAY: {error}");
                }
                Ok((Stream::Tcp(stream), Some(peer.ip())))
            }
            Socket::Unix { listener, .. } => Ok((Stream::Unix(listener.accept()?.0), None)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The file of a Unix socket is removed after this.
        if let Some(call) = self.before_close.take() {
            call();
        }
    }
}

/// Returns whether a failed `accept` affects only one connection, so that the next one may be
/// accepted.
pub(crate) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    // EPROTO and EPERM (rejected by a firewall) have no stable `ErrorKind`.
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
    // The server closes connections first (RFC 6455 §7.1.1), so TIME_WAIT is on this side. Without
    // this option, a restarted server could not bind.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // Makes an IPv4 listener on the same port independent on every system.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A BPF filter for a listening socket that drops SYN packets without ACK.
#[cfg(target_os = "linux")]
fn no_syn() -> [socket2::SockFilter; 5] {
    use socket2::SockFilter;
    // Classic BPF, as defined by <linux/filter.h>. The packet starts with the TCP header, whose
    // flags are in byte 13 (RFC 9293 §3.1).
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Checks that an inherited socket is a listening one.
fn must_listen(socket: &impl AsFd) -> io::Result<()> {
    match sockopt::socket_acceptconn(socket)? {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the socket does not listen",
        )),
    }
}

/// Returns the path, or the abstract name with an `@` prefix.
fn unix_name(address: &std::os::unix::net::SocketAddr) -> PathBuf {
    if let Some(path) = address.as_pathname() {
        return path.to_owned();
    }
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
        return format!("@{}", String::from_utf8_lossy(name)).into();
    }
    PathBuf::new()
}

/// The length of the accept queue; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn dropped_syn_reaches_the_next_listener() {
        use std::io::ErrorKind;
        use std::net::TcpStream;
        use std::time::Duration;

        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let first = Listener::open_shared(&any, None).unwrap();
        let Ok(Address::Tcp(address)) = first.address() else {
            panic!("no address");
        };
        let early = TcpStream::connect(address).unwrap();
        first.drop_new_syns().unwrap();
        // The SYN is dropped: neither accepted nor refused.
        let short = Duration::from_millis(200);
        let error = TcpStream::connect_timeout(&address, short).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // The connection established before is accepted and stays usable.
        let taken = first.accept().unwrap();
        drop(early);
        drop(taken);
        // A connection attempted meanwhile is accepted by the next listener when TCP retransmits
        // the SYN.
        let patient = std::thread::spawn(move || TcpStream::connect(address));
        std::thread::sleep(short);
        let next = Listener::open_shared(&Address::Tcp(address), None).unwrap();
        drop(first);
        patient.join().unwrap().unwrap();
        assert!(next.accept().is_ok());
    }

    #[test]
    fn addresses_are_displayed_as_they_are_configured() {
        let tcp = Address::Tcp("[::1]:5001".parse().unwrap());
        assert_eq!(tcp.to_string(), "[::1]:5001");
        assert_eq!(Address::Unix("/run/s".into()).to_string(), "unix:/run/s");
    }

    #[test]
    fn ownership_follows_how_the_socket_was_opened() {
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let ownership = |listener: &Listener| listener.options().ownership;
        let own = Listener::open(&any, None).unwrap();
        assert_eq!(ownership(&own), SocketOwnership::Owned);
        let shared = Listener::open_shared(&any, None).unwrap();
        assert_eq!(ownership(&shared), SocketOwnership::ReusePort);
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = Listener::from_tcp(inherited, None).unwrap();
        assert_eq!(ownership(&inherited), SocketOwnership::Inherited);
        let temp = tempfile::tempdir().unwrap();
        for opens_shared in [false, true] {
            let address = Address::Unix(temp.path().join("s"));
            let unix = Listener::open_as(&address, None, opens_shared).unwrap();
            assert_eq!(ownership(&unix), SocketOwnership::Owned);
        }
    }

    #[test]
    fn inherited_socket_that_does_not_listen_is_refused() {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let error = Listener::from_tcp(socket.into(), None).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let error = Listener::from_unix(socket.into(), None).err().unwrap();
        assert_eq!(error.to_string(), "the socket does not listen");
    }

    #[test]
    fn inherited_unix_socket_has_the_name_of_its_address_and_keeps_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let listener = Listener::from_unix(socket, None).unwrap();
        assert_eq!(listener.address().unwrap(), Address::Unix(path.clone()));
        drop(listener);
        assert!(path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_name_of_an_inherited_unix_socket_begins_with_an_at_sign() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        let name = format!("h-realtime-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixListener::bind_addr(&address).unwrap();
        let listener = Listener::from_unix(socket, None).unwrap();
        let expected = Address::Unix(format!("@{name}").into());
        assert_eq!(listener.address().unwrap(), expected);
    }

    #[test]
    fn callback_is_called_before_the_socket_is_closed() {
        use std::sync::mpsc::channel;

        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let (sender, called) = channel();
        let listener = Listener::open(&any, None).unwrap();
        let Ok(Address::Tcp(address)) = listener.address() else {
            panic!("no address");
        };
        let listener = listener.before_close(move || {
            let connected = std::net::TcpStream::connect(address);
            sender.send(connected.is_ok()).unwrap();
        });
        assert!(called.try_recv().is_err());
        drop(listener);
        assert!(called.recv().unwrap());
    }

    // A2
    #[test]
    fn accept_errors_of_one_connection_are_recognized() {
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

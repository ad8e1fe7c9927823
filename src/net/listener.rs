//! Listening sockets: opening them, and accepting within a budget.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Type};

use super::stream::Stream;
use super::tls::TlsConfig;
use super::unix_socket::{self, OwnFile, SocketFile};

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
    tenure: Tenure,
    /// Called before the socket is closed.
    before_close: Option<Box<dyn FnOnce() + Send>>,
    pub(super) tls: Option<TlsConfig>,
    /// Connections have to begin with a header of the PROXY protocol.
    pub(super) has_preface: bool,
    /// There may be connections to accept: set by an edge, cleared by `WouldBlock`.
    pub(super) pending: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Removes the file; `None` if another process has created it.
        _file: Option<OwnFile>,
    },
}

/// Who else has to do with a listening socket: that decides what becomes of those who wait in its
/// queue when it is no longer listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tenure {
    /// Nobody: with it they are lost.
    Own,
    /// Others listen on the same port with sockets of their own, and queues of their own.
    Shared,
    /// Others have the very same socket: they wait for the next who accepts.
    Lent,
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
            Address::Unix(path) => return Self::open_unix(path, SocketFile::default(), tls),
        };
        let tenure = match (&socket, shared) {
            (Socket::Tcp(_), true) => Tenure::Shared,
            _ => Tenure::Own,
        };
        Ok(Listener::new(socket, tenure, tls))
    }

    /// Opens a listening unix socket whose file has this mode and owner before anything can
    /// connect.
    ///
    /// # Errors
    /// Those of binding and listening, and of changing the owner.
    pub fn open_unix(path: &Path, file: SocketFile, tls: Option<TlsConfig>) -> io::Result<Self> {
        let (listener, file) = unix_socket::listen(path, file, BACKLOG)?;
        let socket = Socket::Unix {
            listener: UnixListener::from_std(listener),
            path: path.to_owned(),
            _file: Some(file),
        };
        Ok(Listener::new(socket, Tenure::Own, tls))
    }

    /// A TCP socket that listens already, and that others have, too: it goes on to listen, and
    /// who waits in its queue waits on, when this process stops accepting.
    ///
    /// # Errors
    /// When it does not listen, or the system does not say.
    pub fn from_tcp(socket: std::net::TcpListener, tls: Option<TlsConfig>) -> io::Result<Self> {
        must_listen(&socket)?;
        socket.set_nonblocking(true)?;
        let socket = Socket::Tcp(TcpListener::from_std(socket));
        Ok(Listener::new(socket, Tenure::Lent, tls))
    }

    /// The same for a unix socket; its path is left where it is.
    ///
    /// # Errors
    /// When it does not listen, or the system does not say.
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
        Ok(Listener::new(socket, Tenure::Lent, tls))
    }

    fn new(socket: Socket, tenure: Tenure, tls: Option<TlsConfig>) -> Self {
        Listener {
            socket,
            tenure,
            before_close: None,
            tls,
            has_preface: false,
            pending: true,
        }
    }

    /// With TLS, where a certificate is given.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsConfig>) -> Self {
        self.tls = tls;
        self
    }

    /// With a header of the PROXY protocol before all else of a connection, TLS included. Only
    /// [`Config::trusted_proxies`](super::Config::trusted_proxies) may connect then.
    #[must_use]
    pub fn with_proxy_protocol(mut self) -> Self {
        self.has_preface = true;
        self
    }

    /// With a call right before the socket is closed and its address is free for others. It must not
    /// wait.
    #[must_use]
    pub fn before_close(mut self, call: impl FnOnce() + Send + 'static) -> Self {
        self.before_close = Some(Box::new(call));
        self
    }

    /// Where it listens, with the port that the system chose.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix { path, .. } => Ok(Address::Unix(path.clone())),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Socket::Unix { listener, .. } => listener.register(registry, token, Interest::READABLE),
        }
    }

    pub(super) fn tenure(&self) -> Tenure {
        self.tenure
    }

    /// Has the system drop whoever begins to connect, so that they try again a second later, when
    /// this socket is gone and another takes them. Who is connecting already is let in: between
    /// the first packet and the queue they would be lost with the socket, and nothing shows them.
    ///
    /// # Errors
    /// Where there is no such thing.
    pub(super) fn turn_away(&self) -> io::Result<()> {
        match &self.socket {
            #[cfg(target_os = "linux")]
            Socket::Tcp(listener) => socket2::SockRef::from(listener).attach_filter(&no_syn()),
            _ => Err(io::ErrorKind::Unsupported.into()),
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
            Socket::Unix { listener, .. } => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The file of a unix socket is removed after this.
        if let Some(call) = self.before_close.take() {
            call();
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

/// A filter for the packets that a listening socket gets: SYN without ACK is dropped.
#[cfg(target_os = "linux")]
fn no_syn() -> [socket2::SockFilter; 5] {
    use socket2::SockFilter;
    // Classic BPF, as <linux/filter.h> has it; the packet begins with the header of TCP, whose
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

/// A socket that was handed over may be anything.
fn must_listen(socket: &impl AsFd) -> io::Result<()> {
    match sockopt::socket_acceptconn(socket)? {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the socket does not listen",
        )),
    }
}

/// The path, or the abstract name behind an `@`.
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

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn who_is_turned_away_gets_to_the_other_who_listens() {
        use std::io::ErrorKind;
        use std::net::TcpStream;
        use std::time::Duration;

        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let first = Listener::open_shared(&any, None).unwrap();
        let Ok(Address::Tcp(address)) = first.address() else {
            panic!("no address");
        };
        let early = TcpStream::connect(address).unwrap();
        first.turn_away().unwrap();
        // Nobody answers, neither well nor badly.
        let short = Duration::from_millis(200);
        let error = TcpStream::connect_timeout(&address, short).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // Who was there before is still there, and goes on to be heard.
        let taken = first.accept().unwrap();
        drop(early);
        drop(taken);
        // Who tries meanwhile is taken by the next, when TCP tries again.
        let patient = std::thread::spawn(move || TcpStream::connect(address));
        std::thread::sleep(short);
        let next = Listener::open_shared(&Address::Tcp(address), None).unwrap();
        drop(first);
        patient.join().unwrap().unwrap();
        assert!(next.accept().is_ok());
    }

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

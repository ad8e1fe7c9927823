//! The listening sockets: inherited ones, and ones that the server opens.

use std::io;

use crate::cli::exit::Exit;
use crate::config::{Settings, Values};
use crate::net::tls::TlsConfig;
use crate::net::{Address, Listener, SocketFile};
use crate::owner::SocketFiles;

use super::activation::Sockets;
use super::notify::Notifier;
use super::{banner, handover, tcp_address};

/// The addresses that the server listens on, with the ports that the system assigned.
pub(super) struct Bound {
    pub admin: Address,
    /// Each address, and whether it uses TLS.
    pub listeners: Vec<(Address, bool)>,
}

impl Bound {
    /// Returns the URL that the admin page suggests to connect to: the first listener that a
    /// browser can reach. Empty if there is none.
    pub fn page_url(&self) -> String {
        let mut listeners = self.listeners.iter();
        let reachable = listeners.find(|(address, _)| tcp_address(address).is_some());
        reachable.map_or_else(String::new, |(address, tls)| banner::ws_url(address, *tls))
    }
}

/// Opens the listening sockets. The admin interface comes first: the application knows it as
/// listener 0. Inherited sockets are not opened again.
///
/// If a server that is shutting down holds the admin address, clients wait in the accept queues of
/// the other sockets until that server has ended.
pub(super) fn bind(
    settings: &Settings,
    values: &Values,
    mut inherited: Sockets,
    tls: Option<TlsConfig>,
    notifier: &Notifier,
) -> Result<(Vec<Listener>, Bound), Exit> {
    let files = SocketFiles::of(settings, values)?;
    let mut open =
        |address: &Address, tls: Option<TlsConfig>, how: Opening| match inherited.find(address) {
            Some(listener) => Ok(listener.with_tls(tls)),
            None => how.open(address, tls),
        };
    let how = Opening {
        file: files.admin,
        shared: false,
    };
    let admin = match open(&settings.admin, None, how) {
        Err(error) if handover::is_held(&error, &settings.admin) => None,
        result => Some(result.map_err(|error| cannot_listen(&settings.admin, &error, ADMIN))?),
    };
    let mut sockets = Vec::new();
    let mut listeners = Vec::new();
    for listen in &settings.listen {
        let address = &listen.address;
        let how = Opening {
            file: files.listen,
            shared: settings.reuse_port,
        };
        let opened = open(address, tls.clone().filter(|_| listen.tls), how);
        let in_use = match settings.reuse_port {
            true => SHARED,
            false => ALONE,
        };
        let (listener, bound) = with_address(opened, address, in_use)?;
        sockets.push(match settings.proxy_protocol.contains(listen) {
            true => listener.with_proxy_protocol(),
            false => listener,
        });
        listeners.push((bound, listen.tls));
    }
    let admin = match admin {
        Some(admin) => Ok(admin),
        None => {
            let open = || how.open(&settings.admin, None);
            handover::open_when_free(&settings.admin, open, notifier)
        }
    };
    let (listener, admin) = with_address(admin, &settings.admin, ADMIN)?;
    sockets.insert(0, listener);
    Ok((sockets, Bound { admin, listeners }))
}

/// Returns an opened socket with the address that it is bound to.
fn with_address(
    opened: io::Result<Listener>,
    address: &Address,
    in_use: &str,
) -> Result<(Listener, Address), Exit> {
    opened
        .and_then(|listener| listener.address().map(|bound| (listener, bound)))
        .map_err(|error| cannot_listen(address, &error, in_use))
}

/// Options for opening a socket.
#[derive(Clone, Copy)]
struct Opening {
    /// Used for a Unix socket.
    file: SocketFile,
    /// Sets `SO_REUSEPORT`.
    shared: bool,
}

impl Opening {
    fn open(self, address: &Address, tls: Option<TlsConfig>) -> io::Result<Listener> {
        match address {
            Address::Unix(path) => Listener::open_unix(path, self.file, tls),
            Address::Tcp(_) if self.shared => Listener::open_shared(address, tls),
            Address::Tcp(_) => Listener::open(address, tls),
        }
    }
}

/// Returns the error with the address and the remedy. `in_use` is the remedy for a TCP address in
/// use.
pub(super) fn cannot_listen(address: &Address, error: &io::Error, in_use: &str) -> Exit {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NO_PERMISSION,
        _ => Exit::UNAVAILABLE,
    };
    let remedy = match address {
        Address::Tcp(_) if error.kind() == io::ErrorKind::AddrInUse => Some(in_use),
        Address::Tcp(_) => of_tcp(error.kind()),
        Address::Unix(_) => of_unix(error.kind()),
    };
    let message = match remedy {
        Some(remedy) => format!("cannot listen on {address}: {error}; {remedy}"),
        None => format!("cannot listen on {address}: {error}"),
    };
    Exit::new(code, message)
}

/// Remedies if another process uses a TCP port: that of `admin`, and that of `listen` with and
/// without `reuse_port`.
pub(super) const ADMIN: &str = "another process has the port (ss -ltnp): stop it, or choose another address \
                     with admin (--admin)";
const SHARED: &str = "a process without reuse_port, or of another user, has the port (ss -ltnp): \
                      stop it";
const ALONE: &str = "another process has the port (ss -ltnp): stop it, or set reuse_port = true in \
                     both if it is another h-realtime";

fn of_tcp(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::AddrNotAvailable => "no network interface of this host has the address",
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 needs a socket unit of systemd, or CAP_NET_BIND_SERVICE"
        }
        _ => return None,
    })
}

fn of_unix(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::AddrInUse => {
            "another process listens there, or the file is not a socket: stop the process, or \
             remove the file"
        }
        io::ErrorKind::NotFound => {
            "create the directory for the server's user (RuntimeDirectory= in a systemd unit)"
        }
        io::ErrorKind::NotADirectory => "what contains the socket must be a directory",
        io::ErrorKind::PermissionDenied => {
            "the server's user must be able to write to the directory; a socket can be given to a \
             group that this user is a member of (SupplementaryGroups= in a systemd unit, without \
             PrivateUsers=yes), and to another user by root alone"
        }
        io::ErrorKind::InvalidInput => "the path is too long for a socket",
        _ => return None,
    })
}

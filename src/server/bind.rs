//! The listening sockets: inherited ones, and ones that the server opens.

use std::io;

use crate::config::{ServerSettings, Values};
use crate::exit::Exit;
use crate::net::tls::TlsConfig;
use crate::net::{Address, Listener, SocketFile};
use crate::owner::SocketFiles;

use super::activation::InheritedSockets;
use super::handover;
use super::notify::Notifier;
use super::urls::{tcp_address, ws_url};

/// The addresses that the server listens on, with the ports that the system assigned.
pub(super) struct Bound {
    pub admin: Address,
    /// Each address, and whether it uses TLS.
    pub listeners: Vec<(Address, bool)>,
}

impl Bound {
    /// Returns the URL that the admin page suggests to connect to: the first listener that a
    /// browser can reach. Empty if there is none.
    pub(super) fn page_url(&self) -> String {
        let mut listeners = self.listeners.iter();
        let reachable = listeners.find(|(address, _)| tcp_address(address).is_some());
        reachable.map_or_else(String::new, |(address, tls)| ws_url(address, *tls))
    }
}

/// Opens the listening sockets. The admin interface comes first: the application knows it as
/// listener 0. Inherited sockets are not opened again.
///
/// If a server that is shutting down holds the admin address, clients wait in the accept queues of
/// the other sockets until that server has ended.
pub(super) fn bind(
    settings: &ServerSettings,
    values: &Values,
    mut inherited: InheritedSockets,
    tls: Option<TlsConfig>,
    notifier: &Notifier,
) -> Result<(Vec<Listener>, Bound), Exit> {
    let files = SocketFiles::of(settings, values)?;
    let mut open = |address: &Address, tls: Option<TlsConfig>, how: OpenOptions| match inherited
        .take_listener(address)
    {
        Some(listener) => Ok(listener.with_tls(tls)),
        None => how.open(address, tls),
    };
    let how = OpenOptions {
        file: files.admin,
        shared: false,
    };
    let admin = match open(&settings.admin, None, how) {
        Err(error) if handover::is_held_by_draining_server(&error, &settings.admin) => None,
        result => {
            Some(result.map_err(|error| cannot_listen(&settings.admin, &error, ADMIN_IN_USE))?)
        }
    };
    let mut sockets = Vec::new();
    let mut listeners = Vec::new();
    for listen in &settings.listen {
        let address = &listen.address;
        let how = OpenOptions {
            file: files.listen,
            shared: settings.reuse_port,
        };
        let opened = open(address, tls.clone().filter(|_| listen.tls), how);
        let in_use = match settings.reuse_port {
            true => SHARED_IN_USE,
            false => EXCLUSIVE_IN_USE,
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
    let (listener, admin) = with_address(admin, &settings.admin, ADMIN_IN_USE)?;
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
struct OpenOptions {
    /// Used for a Unix socket.
    file: SocketFile,
    /// Sets `SO_REUSEPORT`.
    shared: bool,
}

impl OpenOptions {
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
        Address::Tcp(_) => tcp_remedy(error.kind()),
        Address::Unix(_) => unix_remedy(error.kind()),
    };
    let message = match remedy {
        Some(remedy) => format!("cannot listen on {address}: {error}; {remedy}"),
        None => format!("cannot listen on {address}: {error}"),
    };
    Exit::new(code, message)
}

/// Remedies if another process uses a TCP port: that of `admin`, and that of `listen` with and
/// without `reuse_port`.
pub(super) const ADMIN_IN_USE: &str = "another process uses the port (ss -ltnp): stop it, or set admin (--admin) to \
                     another address";
const SHARED_IN_USE: &str = "a process without reuse_port, or of another user, uses the port (ss -ltnp): \
                      stop it";
const EXCLUSIVE_IN_USE: &str = "another process uses the port (ss -ltnp): stop it, or, if it is h-realtime, set \
                     reuse_port = true in both";

fn tcp_remedy(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::AddrNotAvailable => "no network interface of this host has this address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 require a systemd socket unit or CAP_NET_BIND_SERVICE"
        }
        _ => return None,
    })
}

fn unix_remedy(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::AddrInUse => {
            "another process listens on it, or the file is not a socket: stop the process, or \
             remove the file"
        }
        io::ErrorKind::NotFound => {
            "create the directory for the server's user (RuntimeDirectory= in a systemd unit)"
        }
        io::ErrorKind::NotADirectory => "the parent of the socket must be a directory",
        io::ErrorKind::PermissionDenied => {
            "the server's user needs write access to the directory; the socket's group can be one \
             that this user is a member of (SupplementaryGroups= in a systemd unit, without \
             PrivateUsers=yes), and only root can set another owner"
        }
        io::ErrorKind::InvalidInput => "the path is too long for a socket",
        _ => return None,
    })
}

//! Listen addresses: their types and their syntax.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::net::Address;

/// An address to serve WebSockets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: Address,
    /// `wss://` rather than `ws://`.
    pub tls: bool,
}

/// Addresses of the listening sockets that the process inherited. The server opens no others at
/// these addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InheritedAddresses {
    /// Addresses to serve WebSockets on.
    pub listen: Vec<Listen>,
    /// The address of the admin interface, if its socket is inherited.
    pub admin: Option<Address>,
}

/// Parses an address to serve WebSockets on: `ws://HOST:PORT`, `wss://HOST:PORT`, or
/// `unix:/path/to.sock`.
pub(super) fn parse_listen(url: &str) -> Option<Listen> {
    if let Some(path) = url.strip_prefix("unix:") {
        let address = Address::Unix(unix_path(path)?);
        return Some(Listen {
            address,
            tls: false,
        });
    }
    let (host, tls) = match url.strip_prefix("wss://") {
        Some(host) => (host, true),
        None => (url.strip_prefix("ws://")?, false),
    };
    // The path is always /ws. It is optional here, so that the URL that clients use is accepted.
    let host = host
        .strip_suffix("/ws")
        .or(host.strip_suffix('/'))
        .unwrap_or(host);
    let address = Address::Tcp(parse_socket(host)?);
    Some(Listen { address, tls })
}

/// Parses an address to serve the admin interface on: `HOST:PORT` or `unix:/path/to.sock`.
pub(super) fn parse_admin(text: &str) -> Option<Address> {
    match text.strip_prefix("unix:") {
        Some(path) => unix_path(path).map(Address::Unix),
        None => {
            let host = text.strip_prefix("http://").unwrap_or(text);
            parse_socket(host.trim_end_matches('/')).map(Address::Tcp)
        }
    }
}

fn unix_path(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

/// Parses an IP address and port. `localhost` is 127.0.0.1. Other names are not resolved: listen
/// addresses should not depend on a name server.
fn parse_socket(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

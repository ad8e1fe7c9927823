//! The URLs of listeners, as clients and browsers use them.

use std::net::SocketAddr;

use crate::net::Address;

/// Returns the URL that clients use.
pub(super) fn ws_url(address: &Address, tls: bool) -> String {
    match address {
        Address::Tcp(address) if tls => format!("wss://{address}/ws"),
        Address::Tcp(address) => format!("ws://{address}/ws"),
        Address::Unix(_) => address.to_string(),
    }
}

/// Returns the URL of the admin interface.
pub(super) fn admin_url(address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("http://{address}/"),
        Address::Unix(_) => address.to_string(),
    }
}

/// Returns the IP address and port, unless the address is a Unix socket.
pub(super) fn tcp_address(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

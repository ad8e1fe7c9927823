//! Admission of new connections, and their initial state.

use std::net::IpAddr;

use super::eviction::{Admitted, PoolId};
use super::{Engine, floor_tick};
use crate::conn::lifecycle::Event;
use crate::conn::pace::Pace;
use crate::conn::{Conn, Flags, Phase};
use crate::handler::{Handler, Refusal};
use crate::io::socket::Socket;
use crate::io::tls::{TlsConfig, TlsLink};
use crate::io::transport::Transport;
use crate::{ConnKey, ListenerId};

/// A connection to be accepted.
pub struct Arrival<S> {
    /// The connected socket.
    pub socket: S,
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The peer's address; `None` on a unix socket.
    pub peer: Option<IpAddr>,
    /// Whether it must start with a PROXY protocol header.
    pub expects_proxy_header: bool,
    /// The TLS configuration, on TLS listeners.
    pub tls: Option<TlsConfig>,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Accepts a new connection. Returns `None`, and drops the socket, if a limit does not even
    /// allow an error response. The engine owns the connection from now on: if registering it with
    /// the poller fails, the caller must call [`Engine::abandon`].
    pub fn accept(&mut self, arrival: Arrival<S>) -> Option<ConnKey> {
        self.counters.accepted += 1;
        if !self.admits(arrival.listener) {
            self.counters.count_refusal(Refusal::ShuttingDown);
            return None;
        }
        let pool = self.pool_of(arrival.listener);
        let is_reserved = pool == PoolId::Reserved;
        let is_proxy = !is_reserved && self.config.trusted_proxies.trust(arrival.peer);
        if arrival.expects_proxy_header && !is_proxy {
            self.counters.refused_untrusted += 1;
            return None;
        }
        let counts = arrival.peer.filter(|_| !is_reserved);
        if counts.is_some_and(|ip| !self.admit(ip)) {
            self.counters.refused_per_ip += 1;
            return None;
        }
        let place = self.find_room(pool);
        self.counters.refused_full += u64::from(place != Some(Admitted::Own));
        let place = place?;
        let transport = self.transport(arrival.socket, arrival.tls.as_ref())?;
        let mut conn = Conn::new(transport, arrival.listener, floor_tick(self.now));
        if place == Admitted::OverLimit {
            conn.flags.set(Flags::OVER_LIMIT);
        }
        if arrival.expects_proxy_header {
            conn.phase = Phase::ProxyHeader(Box::default());
        } else if is_proxy {
            conn.flags.set(Flags::PROXIED);
        }
        let key = self.arena.insert(conn);
        self.counters.connections += 1;
        self.take_place(key, pool, place);
        if let Some(ip) = counts {
            self.count_address(key, ip);
        }
        self.arm(key, self.config.handshake_timeout);
        Some(key)
    }

    /// Ends a connection that could not be registered with the poller.
    pub fn abandon(&mut self, key: ConnKey) {
        self.apply(key, Event::Lost);
    }

    /// Counts a failed `accept`.
    pub fn count_accept_failure(&mut self) {
        self.counters.accept_failures += 1;
    }

    fn transport(&mut self, socket: S, tls: Option<&TlsConfig>) -> Option<Transport<S>> {
        let Some(config) = tls else {
            return Some(Transport::Plain(socket, Pace::default()));
        };
        match TlsLink::new(socket, config) {
            Ok(link) => Some(Transport::Tls(Box::new(link), Pace::default())),
            Err(error) => {
                log::error!("a TLS connection cannot be set up: {error}");
                self.counters.tls_failures += 1;
                None
            }
        }
    }
}

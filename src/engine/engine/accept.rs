//! Admission of new connections, and their initial state.

use std::io;
use std::net::IpAddr;

use super::eviction::{Admitted, PoolId};
use super::turn::Io;
use super::{Engine, floor_tick};
use crate::conn::lifecycle::Event;
use crate::conn::pace::Pace;
use crate::conn::{Conn, Flags, Phase};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::io::tls::{TlsConfig, TlsLink};
use crate::io::transport::Transport;
use crate::{ConnKey, ListenerId};

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Adds an accepted connection, and registers its socket with the poller. Drops the socket if a
    /// limit does not even allow an error response.
    ///
    /// # Errors
    /// If the poller does not accept the socket.
    pub(super) fn accept(
        &mut self,
        listener: ListenerId,
        socket: S,
        peer: Option<IpAddr>,
        io: &mut impl Io<Socket = S>,
    ) -> io::Result<()> {
        self.counters.accepted += 1;
        let Some(key) = self.add_connection(listener, socket, peer) else {
            return Ok(());
        };
        let Some(conn) = self.arena.get_mut(key) else {
            return Ok(());
        };
        let registered = io.register(conn.transport.socket_mut(), key);
        registered.inspect_err(|_| self.apply(key, Event::Lost))
    }

    fn add_connection(
        &mut self,
        listener: ListenerId,
        socket: S,
        peer: Option<IpAddr>,
    ) -> Option<ConnKey> {
        let options = self.listeners.get(listener)?;
        let (expects_proxy_header, tls) = (options.expects_proxy_header, options.tls.clone());
        let pool = self.pool_of(listener);
        let is_reserved = pool == PoolId::Reserved;
        let is_proxy = !is_reserved && self.config.trusted_proxies.trust(peer);
        if expects_proxy_header && !is_proxy {
            self.counters.refused_untrusted += 1;
            return None;
        }
        let counts = peer.filter(|_| !is_reserved);
        if counts.is_some_and(|ip| !self.admit(ip)) {
            self.counters.refused_per_ip += 1;
            return None;
        }
        let place = self.find_room(pool);
        self.counters.refused_full += u64::from(place != Some(Admitted::Own));
        let place = place?;
        let transport = self.transport(socket, tls.as_ref())?;
        let mut conn = Conn::new(transport, listener, floor_tick(self.now));
        if place == Admitted::OverLimit {
            conn.flags.set(Flags::OVER_LIMIT);
        }
        if expects_proxy_header {
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

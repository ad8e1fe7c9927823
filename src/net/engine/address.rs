//! For whom a connection is, and how many there may be for one address.
//!
//! Owns the account of addresses. A peer is its own client, unless it is a trusted proxy: that
//! says for whom it connects, by the PROXY protocol before all else, or in its requests.

use std::net::IpAddr;

use crate::http::{Progress, Request, Source, client_address, parse_proxy};

use super::super::ConnKey;
use super::super::conn::{Flags, Phase, Preface};
use super::super::handler::{Handler, Refusal};
use super::super::socket::Socket;
use super::Engine;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Whether there may be one connection more for an address.
    pub(super) fn admits(&self, ip: IpAddr) -> bool {
        let count = self.per_ip.get(&ip.to_canonical());
        !self.is_limited(ip) || count.copied() < self.config.max_per_ip
    }

    /// Counts a connection for its client's address, if that is one to count.
    pub(super) fn count_address(&mut self, key: ConnKey, ip: IpAddr) {
        if !self.is_limited(ip) {
            return;
        }
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.raise(Flags::PER_IP)
        {
            let ip = ip.to_canonical();
            *self.per_ip.entry(ip).or_default() += 1;
            self.counted_ips.insert(key.index, ip);
        }
    }

    /// Takes a connection that ends out of the account.
    pub(super) fn uncount_address(&mut self, key: ConnKey) {
        if let Some(ip) = self.counted_ips.remove(&key.index)
            && let Some(count) = self.per_ip.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }

    fn is_limited(&self, ip: IpAddr) -> bool {
        self.config.max_per_ip.is_some()
            && !ip.to_canonical().is_loopback()
            && !self.config.trusted_proxies.trust(Some(ip))
    }

    /// Takes bytes of a header of the PROXY protocol; there are never more than belong to it.
    pub(super) fn take_preface(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let Phase::Preface(preface) = &mut conn.phase else {
            return;
        };
        preface.bytes.extend_from_slice(bytes);
        match parse_proxy(&preface.bytes) {
            Ok(Progress::Missing(_)) => {}
            Ok(Progress::Whole(source, length)) => {
                debug_assert_eq!(length, preface.bytes.len());
                conn.phase = Phase::Request(None);
                self.take_source(key, source);
            }
            Err(error) => {
                log::debug!("{key:?}: the PROXY protocol: {}", error.0);
                self.counters.proxy_failures += 1;
                self.lose(key);
            }
        }
    }

    /// What a trusted proxy says of the connection. It is dropped where it is one too many, as it
    /// would be if the client had come itself.
    fn take_source(&mut self, key: ConnKey, source: Source) {
        let client = match source {
            Source::Client(ip) => Some(ip),
            // The proxy's own, or as good as that.
            Source::Unknown | Source::Local => None,
        };
        if let Some(ip) = client {
            log::debug!("{key:?}: for {ip}, by the PROXY protocol");
        }
        match client.filter(|ip| !self.config.trusted_proxies.trust(Some(*ip))) {
            // Behind it is another proxy, whose requests may say more.
            None => {
                if let Some(conn) = self.arena.get_mut(key) {
                    conn.flags.set(Flags::PROXIED);
                }
            }
            Some(ip) if self.admits(ip) => self.count_address(key, ip),
            Some(_) => {
                self.counters.refused_per_ip += 1;
                self.lose(key);
            }
        }
    }

    /// Counts a handshake by a trusted proxy for the client that it names, or says why not. Other
    /// requests are over at once, and a proxy may send those of many clients by one connection.
    pub(super) fn refuse_address(
        &mut self,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Option<Refusal> {
        let flags = self.arena.get(key)?.flags;
        if !flags.has(Flags::PROXIED) || flags.has(Flags::PER_IP) || !request.has_header("upgrade")
        {
            return None;
        }
        let proxies = &self.config.trusted_proxies;
        let ip = client_address(request, self.config.forwarded_by, |ip| {
            proxies.trust(Some(ip))
        })?;
        log::debug!("{key:?}: for {ip}, by its request");
        if !self.admits(ip) {
            self.counters.count_refusal(Refusal::TooMany);
            return Some(Refusal::TooMany);
        }
        self.count_address(key, ip);
        None
    }
}

/// How many bytes of a header are missing, as far as can be said. What comes behind it must stay
/// in the socket: it may be TLS.
pub(super) fn missing(preface: &Preface) -> usize {
    match parse_proxy(&preface.bytes) {
        Ok(Progress::Missing(missing)) => missing,
        Ok(Progress::Whole(..)) | Err(_) => 0,
    }
}

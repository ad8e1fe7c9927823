//! Client addresses, and the limit on connections per address.
//!
//! Owns: the connection counts per address. A peer is its own client, unless it is a trusted proxy,
//! which reports the client's address in a PROXY protocol header or in its requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Engine;
use crate::ConnKey;
use crate::conn::lifecycle::Event;
use crate::conn::{Flags, Phase, ProxyHeader};
use crate::handler::{Handler, Refusal};
use crate::http::{Progress, Request, Source, client_address, parse_proxy};
use crate::io::socket::Socket;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Returns whether one more connection from an address is allowed, if necessary after evicting
    /// one that waits for a request.
    pub(super) fn admit(&mut self, ip: IpAddr) -> bool {
        self.has_room_for(ip) || (self.make_room_for(ip) && self.has_room_for(ip))
    }

    fn has_room_for(&self, ip: IpAddr) -> bool {
        let count = self.per_ip.get(&self.counted_as(ip));
        !self.is_limited(ip) || count.copied() < self.config.max_per_ip
    }

    /// Counts a connection for its client's address, unless the address is exempt.
    pub(super) fn count_address(&mut self, key: ConnKey, ip: IpAddr) {
        if !self.is_limited(ip) {
            return;
        }
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.raise(Flags::PER_IP)
        {
            *self.per_ip.entry(self.counted_as(ip)).or_default() += 1;
            self.counted_ips.insert(key.index, ip);
        }
    }

    /// Stops counting a connection.
    pub(super) fn uncount_address(&mut self, key: ConnKey) {
        let Some(ip) = self.counted_ips.remove(&key.index) else {
            return;
        };
        let ip = self.counted_as(ip);
        if let Some(count) = self.per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }

    /// Recounts all connections after a change of `ipv6_prefix`.
    pub(super) fn recount_addresses(&mut self) {
        self.per_ip.clear();
        for ip in self.counted_ips.values() {
            let ip = network(*ip, self.config.ipv6_prefix);
            *self.per_ip.entry(ip).or_default() += 1;
        }
    }

    /// Returns whether a connection is counted for the same client as `ip`.
    pub(super) fn is_counted_for(&self, key: ConnKey, ip: IpAddr) -> bool {
        let counted = self.counted_ips.get(&key.index);
        counted.is_some_and(|counted| self.counted_as(*counted) == self.counted_as(ip))
    }

    fn counted_as(&self, ip: IpAddr) -> IpAddr {
        network(ip, self.config.ipv6_prefix)
    }

    fn is_limited(&self, ip: IpAddr) -> bool {
        self.config.max_per_ip.is_some()
            && !ip.to_canonical().is_loopback()
            && !self.config.trusted_proxies.trust(Some(ip))
    }

    /// Processes bytes of a PROXY protocol header; the caller never reads past its end.
    pub(super) fn on_proxy_header(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let Phase::ProxyHeader(proxy_header) = &mut conn.phase else {
            return;
        };
        proxy_header.bytes.extend_from_slice(bytes);
        match parse_proxy(&proxy_header.bytes) {
            Ok(Progress::Missing(_)) => {}
            Ok(Progress::Whole(source, length)) => {
                debug_assert_eq!(length, proxy_header.bytes.len());
                self.apply(key, Event::HeaderRead);
                self.take_source(key, source);
            }
            Err(error) => {
                log::debug!("{key:?}: the PROXY protocol: {}", error.0);
                self.counters.proxy_failures += 1;
                self.apply(key, Event::Lost);
            }
        }
    }

    /// Applies the source reported by a trusted proxy. Drops the connection if it exceeds the
    /// client's limit, as if the client had connected directly.
    fn take_source(&mut self, key: ConnKey, source: Source) {
        let client = match source {
            Source::Client(ip) => Some(ip),
            // A connection of the proxy itself, or treated as one.
            Source::Unknown | Source::Local => None,
        };
        if let Some(ip) = client {
            log::debug!("{key:?}: for {ip}, by the PROXY protocol");
        }
        match client.filter(|ip| !self.config.trusted_proxies.trust(Some(*ip))) {
            // The source is another proxy, whose requests may identify the client.
            None => {
                if let Some(conn) = self.arena.get_mut(key) {
                    conn.flags.set(Flags::PROXIED);
                }
            }
            Some(ip) if self.admit(ip) => self.count_address(key, ip),
            Some(_) => {
                self.counters.refused_per_ip += 1;
                self.apply(key, Event::Lost);
            }
        }
    }

    /// Counts a handshake or a request for an event stream, forwarded by a trusted proxy for the
    /// reported client, or returns the reason to reject it. Other requests are not counted: they are short, and a proxy may
    /// multiplex those of many clients on one connection.
    pub(super) fn refuse_address(
        &mut self,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Option<Refusal> {
        let flags = self.arena.get(key)?.flags;
        if !flags.has(Flags::PROXIED) || flags.has(Flags::PER_IP) {
            return None;
        }
        if !request.has_header("upgrade") && !self.handler.wants_event_stream(request) {
            return None;
        }
        let proxies = &self.config.trusted_proxies;
        let ip = client_address(request, self.config.forwarded_by, |ip| {
            proxies.trust(Some(ip))
        })?;
        log::debug!("{key:?}: for {ip}, by its request");
        if !self.admit(ip) {
            self.counters.count_refusal(Refusal::TooMany);
            return Some(Refusal::TooMany);
        }
        self.count_address(key, ip);
        None
    }
}

/// Returns the key under which an address is counted: the canonical form of an IPv4 address, or the
/// network of `prefix` bits of an IPv6 address. RFC 4291 §2.5.1 reserves the last 64 bits of most
/// addresses for the interface identifier, so a host can use any of them.
fn network(ip: IpAddr, prefix: u8) -> IpAddr {
    let IpAddr::V6(address) = ip.to_canonical() else {
        return ip.to_canonical();
    };
    if let [.., a, b, c, d] = address.octets()
        && address.segments()[..6] == TRANSLATED
    {
        return Ipv4Addr::new(a, b, c, d).into();
    }
    let rest = 128_u32.saturating_sub(prefix.into());
    let kept = u128::MAX.checked_shl(rest).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & kept).into()
}

/// RFC 6052 §2.1: the "Well-Known Prefix" 64:ff9b::/96, which a translator prepends to IPv4
/// addresses.
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Returns a lower bound for the missing bytes of a header. Bytes after the header must stay in the
/// socket, because they may be TLS.
pub(super) fn missing(proxy_header: &ProxyHeader) -> usize {
    match parse_proxy(&proxy_header.bytes) {
        Ok(Progress::Missing(missing)) => missing,
        Ok(Progress::Whole(..)) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P4
    #[test]
    fn ipv6_counts_by_prefix_and_ipv4_by_full_address() {
        for (ip, prefix, counted) in [
            ("192.0.2.1", 1, "192.0.2.1"),
            ("::ffff:192.0.2.1", 1, "192.0.2.1"),
            ("::ffff:192.0.2.1", 64, "192.0.2.1"),
            ("64:ff9b::192.0.2.1", 64, "192.0.2.1"),
            ("64:ff9b:1::192.0.2.1", 64, "64:ff9b:1::"),
            ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 127, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:7", 127, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2ff:3:4:5:6", 56, "2001:db8:1:200::"),
            ("2001:db8:1:2:3:4:5:6", 1, "::"),
            ("ffff::1", 1, "8000::"),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            let counted: IpAddr = counted.parse().unwrap();
            assert_eq!(network(ip, prefix), counted, "{ip}/{prefix}");
        }
    }

    // P3
    #[test]
    fn no_byte_after_a_proxy_header_is_requested() {
        let of = |bytes: &[u8]| {
            missing(&ProxyHeader {
                bytes: bytes.to_vec(),
            })
        };
        let header = b"PROXY UNKNOWN\r\n";
        for at in 0..header.len() {
            let rest = header.len() - at;
            assert!((1..=rest).contains(&of(&header[..at])), "after {at}");
        }
        assert_eq!((of(header), of(b"GET / HTTP/1.1\r\n")), (0, 0));
    }
}

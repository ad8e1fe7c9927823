//! Trusted proxies.
//!
//! Owns: the notation of the list, and membership tests. The addresses that proxies report are
//! parsed by `forwarded` and `proxy_protocol`.

use std::net::IpAddr;

/// Peers that are trusted to report client addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<Network>,
    unix: bool,
}

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// The prefix length in bits.
    prefix: u8,
}

impl Proxies {
    /// Parses a list of IP addresses, networks such as `10.0.0.0/8`, and the word `unix`, which
    /// stands for all peers on Unix sockets.
    ///
    /// # Errors
    /// The first item that is none of these.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Proxies, &'a str> {
        let mut proxies = Proxies::default();
        for item in items {
            match item {
                "unix" => proxies.unix = true,
                _ => proxies.networks.push(Network::parse(item).ok_or(item)?),
            }
        }
        Ok(proxies)
    }

    /// Returns whether a peer is trusted. `None` is a peer on a Unix socket.
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        let Some(address) = peer else {
            return self.unix;
        };
        let address = address.to_canonical();
        let mut networks = self.networks.iter();
        networks.any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let canonical = address.to_canonical();
        let bits = bits_of(canonical).1;
        let prefix = match prefix {
            None => bits,
            // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
            Some(prefix) => {
                let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
                let prefix: u8 = is_number.then(|| prefix.parse().ok())??;
                prefix.checked_sub(bits_of(address).1 - bits)?
            }
        };
        let network = Network {
            address: canonical,
            prefix,
        };
        (prefix <= bits && network.is_whole()).then_some(network)
    }

    /// Returns whether all host bits are zero. `10.0.0.1/8` is ambiguous: it may be a typo for
    /// `10.0.0.1/32` or for `10.0.0.0/8`.
    fn is_whole(&self) -> bool {
        let (address, bits) = bits_of(self.address);
        address == head(address, bits, self.prefix)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let ((own, bits), (other, others_bits)) = (bits_of(self.address), bits_of(address));
        bits == others_bits && own == head(other, bits, self.prefix)
    }
}

/// Returns an address as a number, and its width in bits.
fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// Clears all bits after the first `prefix` ones.
fn head(number: u128, bits: u8, prefix: u8) -> u128 {
    let cleared = u32::from(bits - prefix);
    let kept = number.checked_shr(cleared).unwrap_or(0);
    kept.checked_shl(cleared).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_and_unix_sockets() {
        for (list, peer, is) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "a00::", false),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.128/25", "192.0.2.200", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("192.0.2.1 2001:db8::1/128 unix", "2001:db8::1", true),
            ("unix", "127.0.0.1", false),
        ] {
            let proxies = Proxies::parse(list.split(' ')).unwrap();
            let peer: IpAddr = peer.parse().unwrap();
            assert_eq!(proxies.trust(Some(peer)), is, "{list} {peer}");
            assert_eq!(proxies.trust(None), list.ends_with("unix"), "{list}");
        }
        assert!(!Proxies::default().trust(None));
        assert!(!Proxies::default().trust(Some(IpAddr::from([127, 0, 0, 1]))));
    }

    #[test]
    fn invalid_networks_are_rejected() {
        for item in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "10.0.0.0/8/8",
            "::/129",
            "::ffff:10.0.0.0/8",
            "2001:db8::1/64",
            "10.0.0",
            "[::1]",
            "192.0.2.1:80",
            "Unix",
        ] {
            assert_eq!(Proxies::parse([item]), Err(item));
        }
    }
}

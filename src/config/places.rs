//! Addresses that one server cannot listen on.
//!
//! Owns: which addresses exclude one another, and which can never be bound. Whether one is free is
//! only known when it is bound.

use std::os::unix::ffi::OsStrExt;

use super::problems::Problems;
use super::{Inherited, Settings};
use crate::net::Address;

/// Adds what is wrong with the addresses.
pub(super) fn check(settings: &Settings, inherited: &Inherited, problems: &mut Problems<'_>) {
    let listen: Vec<_> = settings.listen.iter().collect();
    for (index, one) in listen.iter().enumerate() {
        for other in &listen[index + 1..] {
            // What was opened already does not fail here.
            if inherited.listen.contains(one) && inherited.listen.contains(other) {
                continue;
            }
            let (one, other) = (&one.address, &other.address);
            if !overlap(one, other) {
                continue;
            }
            if one == other {
                problems.add(&["listen"], format!("{one} is in listen more than once"));
            } else if !settings.reuse_port {
                let text = format!("{one} and {other} exclude one another, without reuse_port");
                problems.add(&["listen"], text);
            }
        }
        if overlap(&one.address, &settings.admin) {
            let text = format!(
                "the API and the admin interface cannot both be at {}",
                one.address
            );
            problems.add(&["listen", "admin"], text);
        }
        if is_too_long(&one.address) {
            problems.add(&["listen"], too_long(&one.address));
        }
    }
    if is_too_long(&settings.admin) {
        problems.add(&["admin"], too_long(&settings.admin));
    }
}

/// Whether a socket at one address keeps another from the other. IPv6 sockets take no IPv4.
fn overlap(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
            let is_same = one == other || is_any && one.is_ipv4() == other.is_ipv4();
            one.port() == other.port() && one.port() != 0 && is_same
        }
        (Address::Unix(one), Address::Unix(other)) => one == other,
        _ => false,
    }
}

fn is_too_long(address: &Address) -> bool {
    match address {
        Address::Tcp(_) => false,
        Address::Unix(path) => path.as_os_str().as_bytes().len() > LONGEST_PATH,
    }
}

fn too_long(address: &Address) -> String {
    format!("{address} is too long for a unix socket, which takes {LONGEST_PATH} bytes")
}

/// Linux's `sun_path`, without the NUL at its end (unix(7)).
const LONGEST_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_exclude_the_addresses_of_their_family() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("[::]:1", "127.0.0.1:1", false),
            ("[::]:1", "0.0.0.0:1", false),
        ] {
            assert_eq!(overlap(&tcp(one), &tcp(other)), expected, "{one} {other}");
            assert_eq!(overlap(&tcp(other), &tcp(one)), expected, "{other} {one}");
        }
        let unix = |text: &str| Address::Unix(text.into());
        assert!(overlap(&unix("/a//b"), &unix("/a/./b")));
        assert!(!overlap(&unix("/a"), &unix("/b")));
        assert!(!overlap(&unix("/a"), &tcp("0.0.0.0:1")));
    }
}

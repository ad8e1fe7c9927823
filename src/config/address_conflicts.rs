//! Conflicts between listen addresses.
//!
//! Owns: which addresses exclude one another, and which can never be bound. Whether an address is
//! free is known only when the server binds it.

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::address::InheritedAddresses;
use super::conflicts::Conflicts;
use super::settings::ServerSettings;
use crate::net::Address;

/// Adds the conflicts of the addresses.
pub(super) fn check(
    settings: &ServerSettings,
    inherited: &InheritedAddresses,
    conflicts: &mut Conflicts<'_>,
) {
    let listen: Vec<_> = settings.listen.iter().collect();
    for (index, one) in listen.iter().enumerate() {
        for other in &listen[index + 1..] {
            // Inherited sockets are bound already and cannot fail here.
            if inherited.listen.contains(one) && inherited.listen.contains(other) {
                continue;
            }
            let (one, other) = (&one.address, &other.address);
            if !overlap(one, other) {
                continue;
            }
            if is_same_address(one, other) {
                conflicts.add(
                    &["listen"],
                    format!("{one} appears in listen more than once"),
                );
            } else if !settings.reuse_port {
                let text = format!("{one} and {other} cannot both be bound without reuse_port");
                conflicts.add(&["listen"], text);
            }
        }
        if overlap(&one.address, &settings.admin) {
            let text = format!(
                "the API and the admin interface cannot both listen on {}",
                one.address
            );
            conflicts.add(&["listen", "admin"], text);
        }
        check_address(&one.address, "listen", conflicts);
    }
    check_address(&settings.admin, "admin", conflicts);
}

/// Adds the conflicts of a single address.
fn check_address(address: &Address, setting: &str, conflicts: &mut Conflicts<'_>) {
    if is_too_long(address) {
        conflicts.add(&[setting], too_long(address));
    }
    if let Address::Tcp(tcp) = address
        && let IpAddr::V6(ip) = tcp.ip()
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        let port = tcp.port();
        let text =
            format!("IPv6 sockets do not accept IPv4: write {ip}:{port} instead of {address}");
        conflicts.add(&[setting], text);
    }
}

/// Returns whether sockets at the two addresses exclude each other. IPv6 sockets do not accept
/// IPv4.
fn overlap(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
            let is_same_address = one == other || is_any && one.is_ipv4() == other.is_ipv4();
            one.port() == other.port() && one.port() != 0 && is_same_address
        }
        (Address::Unix(_), Address::Unix(_)) => is_same_address(one, other),
        _ => false,
    }
}

/// Returns whether two addresses are the same in different spellings.
fn is_same_address(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Unix(one), Address::Unix(other)) => {
            one == other || normalized(one) == normalized(other)
        }
        _ => one == other,
    }
}

/// Returns the path with symbolic links resolved in its directory, if the directory exists, and
/// otherwise at least without `.` and `..`.
fn normalized(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let (Some(directory), Some(name)) = (path.parent(), path.file_name())
        && let Ok(directory) = directory.canonicalize()
    {
        return directory.join(name);
    }
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

fn is_too_long(address: &Address) -> bool {
    match address {
        Address::Tcp(_) => false,
        Address::Unix(path) => path.as_os_str().as_bytes().len() > MAX_SOCKET_PATH,
    }
}

fn too_long(address: &Address) -> String {
    format!("{address} is too long for a Unix socket: the maximum is {MAX_SOCKET_PATH} bytes")
}

/// The size of Linux's `sun_path` without the terminating NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_conflicts_with_addresses_of_its_family() {
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

    #[test]
    fn unix_socket_paths_are_compared_after_normalization() {
        let unix = |text: &str| Address::Unix(text.into());
        let here = std::env::current_dir().unwrap();
        let absolute = here.join("x.sock").display().to_string();
        for (one, other, expected) in [
            ("x.sock", "./x.sock", true),
            ("x.sock", &absolute, true),
            ("x.sock", "src/../x.sock", true),
            ("/no/such/x", "/no/other/../such/./x", true),
            ("/proc/self/cwd/x.sock", "x.sock", true),
            ("x.sock", "src/x.sock", false),
            ("x.sock", "y.sock", false),
        ] {
            assert_eq!(overlap(&unix(one), &unix(other)), expected, "{one} {other}");
            assert_eq!(
                is_same_address(&unix(other), &unix(one)),
                expected,
                "{other} {one}"
            );
        }
    }
}

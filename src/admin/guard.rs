//! Who may talk to the admin listener at all: not another site's page.

use std::net::{IpAddr, SocketAddr};

use crate::http::Request;

/// Checks `Host` and `Origin`.
///
/// The listener is on a private address, and browsers are there too. Any web page can have one
/// send requests here, and a page whose own name is made to resolve to this address (DNS
/// rebinding) can even read the answers. So a request must be for the address itself, and may
/// come from no page but the one that is served here.
///
/// No page reaches a unix socket, but a proxy that forwards to one may be reached by every page. So
/// a name has to be one of those that are listed here as well, `localhost` and addresses excepted,
/// which cannot be rebound.
#[derive(Clone, Debug)]
pub struct Guard {
    /// `None` for a unix socket.
    address: Option<SocketAddr>,
    /// Further names that the listener goes by, with a port or for any.
    names: Vec<String>,
}

impl Guard {
    /// A guard for a listener at this address. `names` are further values of `Host` that are
    /// good, for example those of a proxy in front.
    pub fn new(address: Option<SocketAddr>, names: Vec<String>) -> Self {
        Guard { address, names }
    }

    /// Refuses what a foreign page could have sent.
    ///
    /// # Errors
    /// Why, for the client to read.
    pub fn check(&self, request: &Request<'_>) -> Result<(), &'static str> {
        let host = request.host();
        if !host.is_some_and(|host| self.is_own_host(host)) {
            return Err(match self.address {
                Some(_) => "The Host is not this listener's address, nor in admin_hosts.",
                None => "The Host is not localhost or an address, nor in admin_hosts.",
            });
        }
        if !request.has_header("origin") {
            return Ok(());
        }
        let origin = request
            .header("origin")
            .and_then(|origin| std::str::from_utf8(origin).ok())
            .and_then(|origin| {
                origin
                    .strip_prefix("http://")
                    .or(origin.strip_prefix("https://"))
            });
        if origin.is_some() && origin == host {
            Ok(())
        } else {
            Err("The Origin is not this listener's own page.")
        }
    }

    fn is_own_host(&self, host: &str) -> bool {
        if self
            .names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(host))
        {
            return true;
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (host, Some(80)),
        };
        let Some(port) = port else { return false };
        // The port at a unix socket is that of a proxy, if there is one.
        if self.address.is_some_and(|own| own.port() != port) {
            return false;
        }
        let own = self.address.map(|own| own.ip());
        let is_any = own.is_none_or(|own| own.is_unspecified());
        if name.eq_ignore_ascii_case("localhost") {
            return is_any || own.is_some_and(|own| own.is_loopback());
        }
        let literal = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        // Bound to all addresses, any of them is its own; a name is not: it can be rebound.
        let ip = literal.parse::<IpAddr>();
        ip.is_ok_and(|ip| is_any || own == Some(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, parse_head};

    fn check(guard: &Guard, fields: &str) -> bool {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        match parse_head(head.as_bytes(), 8192, |request| guard.check(request)) {
            Ok(Head::Complete(result)) => result.is_ok(),
            _ => panic!("{head:?}"),
        }
    }

    // CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
    #[test]
    fn only_the_address_itself_and_its_own_page() {
        let guard = Guard::new(
            Some("127.0.0.1:5002".parse().unwrap()),
            vec!["admin.example:443".into()],
        );
        for good in [
            "Host: 127.0.0.1:5002\r\n",
            "Host: localhost:5002\r\n",
            "Host: LocalHost:5002\r\nOrigin: http://LocalHost:5002\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://127.0.0.1:5002\r\n",
            "Host: admin.example:443\r\nOrigin: https://admin.example:443\r\n",
        ] {
            assert!(check(&guard, good), "{good}");
        }
        for bad in [
            "",
            "Host: \r\n",
            "Host: 127.0.0.1\r\n",
            "Host: 127.0.0.1:5003\r\n",
            "Host: 127.0.0.1:05002x\r\n",
            "Host: 127.0.0.2:5002\r\n",
            "Host: rebound.example:5002\r\n",
            "Host: 127.0.0.1.example:5002\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: null\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://localhost:5002\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://127.0.0.1:5002.example.org\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://127.0.0.1:5001\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: https://example.org\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: \r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: 127.0.0.1:5002\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: ws://127.0.0.1:5002\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://127.0.0.1\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://evil.example/127.0.0.1:5002\r\n",
            "Host: admin.example:443\r\nOrigin: https://admin.example:443.evil.example\r\n",
            "Host: admin.example:443\r\nOrigin: https://evil-admin.example:443\r\n",
            "Host: admin.example:443.evil.example\r\n",
            "Host: 127.0.0.1:5002\r\nOrigin: http://127.0.0.1:5002\r\nOrigin: http://127.0.0.1:5002\r\n",
        ] {
            assert!(!check(&guard, bad), "{bad}");
        }
    }

    #[test]
    fn on_all_addresses_any_address_but_no_name() {
        let guard = Guard::new(Some("[::]:80".parse().unwrap()), Vec::new());
        for good in [
            "Host: 192.0.2.1\r\n",
            "Host: [2001:db8::1]:80\r\n",
            "Host: [::1]\r\n",
        ] {
            assert!(check(&guard, good), "{good}");
        }
        assert!(!check(&guard, "Host: example.org\r\n"));
    }

    #[test]
    fn the_host_of_a_target_in_absolute_form_counts() {
        let guard = Guard::new(Some("127.0.0.1:5002".parse().unwrap()), Vec::new());
        for (target, host, want) in [
            ("http://127.0.0.1:5002/", "proxy.example", true),
            ("http://rebound.example:5002/", "127.0.0.1:5002", false),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let verdict = parse_head(head.as_bytes(), 8192, |request| guard.check(request));
            let Ok(Head::Complete(verdict)) = verdict else {
                panic!("no whole head");
            };
            assert_eq!(verdict.is_ok(), want, "{target}");
        }
    }

    // CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
    #[test]
    fn names_at_a_unix_socket_have_to_be_listed() {
        let guard = Guard::new(None, vec!["admin.example.org".into()]);
        for good in [
            "Host: localhost\r\n",
            "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\n",
            "Host: 192.0.2.1:8080\r\n",
            "Host: [2001:db8::1]\r\n",
            "Host: admin.example.org\r\n",
            "Host: Admin.Example.org\r\nOrigin: https://Admin.Example.org\r\n",
        ] {
            assert!(check(&guard, good), "{good}");
        }
        for bad in [
            "",
            "Host: \r\n",
            "Host: rebound.example\r\n",
            "Host: rebound.example\r\nOrigin: http://rebound.example\r\n",
            "Host: admin.example.org:8080\r\n",
            "Host: localhost:x\r\n",
            "Host: localhost.rebound.example\r\n",
            "Host: 192.0.2.1.rebound.example\r\n",
            "Host: localhost\r\nOrigin: http://rebound.example\r\n",
            "Host: admin.example.org\r\nOrigin: http://rebound.example\r\n",
        ] {
            assert!(!check(&guard, bad), "{bad}");
        }
    }
}

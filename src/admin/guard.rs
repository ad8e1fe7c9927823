//! Who may talk to the admin listener at all: not another site's page.

use std::net::{IpAddr, SocketAddr};

use crate::http::Request;

/// Checks `Host` and `Origin`.
///
/// The listener is on a private address, and browsers are there too. Any web page can have one
/// send requests here, and a page whose own name is made to resolve to this address (DNS
/// rebinding) can even read the answers. So a request must be for the address itself, and may
/// come from no page but the one that is served here.
#[derive(Clone, Debug)]
pub struct Guard {
    /// `None` for a unix socket, which no page can reach.
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
            return Err("The Host is not this listener's address.");
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
        let Some(own) = self.address else { return true };
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
        if port != Some(own.port()) {
            return false;
        }
        if name.eq_ignore_ascii_case("localhost") {
            return own.ip().is_loopback() || own.ip().is_unspecified();
        }
        let literal = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        // Bound to all addresses, any of them is its own; a name is not: it can be rebound.
        literal
            .parse::<IpAddr>()
            .is_ok_and(|ip| own.ip() == ip || own.ip().is_unspecified())
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

    #[test]
    fn a_unix_socket_is_out_of_any_pages_reach() {
        let guard = Guard::new(None, Vec::new());
        assert!(check(&guard, "Host: anything\r\n"));
        assert!(!check(
            &guard,
            "Host: anything\r\nOrigin: http://example.org\r\n"
        ));
    }
}

//! Access control of the admin listener by `Host` and `Origin`: rejects requests from pages of
//! other sites.

use std::net::{IpAddr, SocketAddr};

use crate::http::Request;

/// Checks `Host` and `Origin`.
///
/// The listener has a private address, but browsers can reach it. Any web page can make a browser
/// send requests here, and a page whose own name resolves to this address (DNS rebinding) can even
/// read the responses. A request must therefore name the address itself, and its origin, if any,
/// must be the page that is served here.
///
/// Web pages cannot reach a Unix socket, but every page may reach a proxy that forwards to one.
/// Names must therefore be listed here as well, except `localhost` and IP addresses, which cannot
/// be rebound.
#[derive(Clone, Debug)]
pub struct HostCheck {
    /// `None` for a Unix socket.
    address: Option<SocketAddr>,
    /// Additional names of the listener, with a specific port or for any port.
    names: Vec<String>,
}

impl HostCheck {
    /// Returns a guard for a listener at this address. `names` are additional accepted values of
    /// `Host`, such as those of a reverse proxy.
    pub fn new(address: Option<SocketAddr>, names: Vec<String>) -> Self {
        HostCheck { address, names }
    }

    /// Rejects requests that a foreign page could have sent.
    ///
    /// # Errors
    /// The reason, for the response.
    pub fn check(&self, request: &Request<'_>) -> Result<(), &'static str> {
        let host = request.host();
        if !host.is_some_and(|host| self.is_own_host(host)) {
            return Err(match self.address {
                Some(_) => "The Host is neither this listener's address nor in admin_hosts.",
                None => "The Host is neither localhost nor an IP address, and not in admin_hosts.",
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
        // At a Unix socket, the port is that of a proxy.
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
        // A listener on the wildcard address accepts every IP address, but no name: names can be
        // rebound.
        let ip = literal.parse::<IpAddr>();
        ip.is_ok_and(|ip| is_any || own == Some(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, parse_head};

    fn check(host_check: &HostCheck, fields: &str) -> bool {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        match parse_head(head.as_bytes(), 8192, |request| host_check.check(request)) {
            Ok(Head::Complete(result)) => result.is_ok(),
            // Without a valid Host, it is no request.
            Err(_) => false,
            Ok(Head::Partial) => panic!("{head:?}"),
        }
    }

    // CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
    #[test]
    fn only_own_address_and_own_page_are_accepted() {
        let host_check = HostCheck::new(
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
            assert!(check(&host_check, good), "{good}");
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
            assert!(!check(&host_check, bad), "{bad}");
        }
    }

    #[test]
    fn wildcard_listener_accepts_any_address_but_no_name() {
        let host_check = HostCheck::new(Some("[::]:80".parse().unwrap()), Vec::new());
        for good in [
            "Host: 192.0.2.1\r\n",
            "Host: [2001:db8::1]:80\r\n",
            "Host: [::1]\r\n",
        ] {
            assert!(check(&host_check, good), "{good}");
        }
        assert!(!check(&host_check, "Host: example.org\r\n"));
    }

    #[test]
    fn absolute_form_target_overrides_host() {
        let host_check = HostCheck::new(Some("127.0.0.1:5002".parse().unwrap()), Vec::new());
        for (target, host, expected) in [
            ("http://127.0.0.1:5002/", "proxy.example", true),
            ("http://rebound.example:5002/", "127.0.0.1:5002", false),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let verdict = parse_head(head.as_bytes(), 8192, |request| host_check.check(request));
            let Ok(Head::Complete(verdict)) = verdict else {
                panic!("no whole head");
            };
            assert_eq!(verdict.is_ok(), expected, "{target}");
        }
    }

    // CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
    #[test]
    fn names_at_a_unix_socket_must_be_listed() {
        let host_check = HostCheck::new(None, vec!["admin.example.org".into()]);
        for good in [
            "Host: localhost\r\n",
            "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\n",
            "Host: 192.0.2.1:8080\r\n",
            "Host: [2001:db8::1]\r\n",
            "Host: admin.example.org\r\n",
            "Host: Admin.Example.org\r\nOrigin: https://Admin.Example.org\r\n",
        ] {
            assert!(check(&host_check, good), "{good}");
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
            assert!(!check(&host_check, bad), "{bad}");
        }
    }
}

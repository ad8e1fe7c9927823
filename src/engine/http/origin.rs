//! Web origins as sent by browsers (RFC 6454).

/// An origin: scheme, host, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` if the scheme has no default port, such as the schemes of browser extensions, and no
    /// port is given.
    port: Option<u16>,
}

impl Origin {
    /// Parses the serialization of RFC 6454 §6.2, `https://example.org:8443`. Anything else is
    /// rejected, including paths, user information, `null`, and lists.
    pub fn parse(text: &str) -> Option<Origin> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(parse_port(port)?)),
            _ => (rest, None),
        };
        if !is_scheme || !is_host(host) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or(match &*scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some(Origin {
            host: host.to_ascii_lowercase(),
            scheme,
            port,
        })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}

/// Returns whether `host` is a valid name or address. Browsers send internationalized names in
/// `xn--` form.
fn is_host(host: &str) -> bool {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.bytes().all(is_good)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // CSWSH (cross-site WebSocket hijacking): comparing only a part of the origin would be no
    // protection.
    #[test]
    fn origins_compare_by_scheme_host_and_port() {
        let origin = |text| Origin::parse(text).unwrap();
        let good = origin("https://good.example");
        for same in ["https://good.example:443", "HTTPS://Good.Example"] {
            assert_eq!(origin(same), good, "{same}");
        }
        assert_eq!(origin("http://a.example:80"), origin("http://a.example"));
        for other in [
            "http://good.example",
            "https://good.example:8443",
            "https://good.example.evil.example",
            "https://evil-good.example",
            "https://evilgood.example",
            "https://sub.good.example",
            "https://good.example.",
            "https://good_example",
            "wss://good.example",
        ] {
            assert_ne!(origin(other), good, "{other}");
        }
        assert_ne!(origin("https://[::1]:8443"), origin("https://[::1]"));
        assert_ne!(
            origin("chrome-extension://abc"),
            origin("moz-extension://abc")
        );
    }

    #[test]
    fn invalid_origins_are_rejected() {
        for text in [
            "",
            "*",
            "null",
            "good.example",
            "https://",
            "https://good.example/",
            "https://good.example/path",
            "https://user@good.example",
            "https://good.example?",
            "https://good.example#",
            "https://good.example:",
            "https://good.example:0443",
            "https://good.example:+443",
            "https://good.example:65536",
            "https://good.example:443:443",
            "https://good.example https://evil.example",
            "https://good.example,https://evil.example",
            " https://good.example",
            "https://g\u{f6}\u{f6}d.example",
            "https://*.example",
            "https://[good.example]",
            "file://",
            "1https://good.example",
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
    }
}

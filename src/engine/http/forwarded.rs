//! Client addresses reported by proxies.
//!
//! Owns: parsing `X-Forwarded-For` and `Forwarded` (RFC 7239). Only the configured one of the two
//! is read: a proxy writes the field that it is configured for, and passes the other through
//! unchanged from the client.

use std::net::{IpAddr, SocketAddr};

use super::Request;

/// The header field in which proxies report the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, the default of most proxies.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Neither field.
    Nothing,
}

/// Returns the client's address as reported by trusted proxies: the last hop of the chain that is
/// not a trusted proxy. Earlier hops are supplied by the client and cannot be trusted. The caller
/// must have verified that the peer is a trusted proxy.
///
/// Returns `None` if the field is absent, or if a trusted proxy does not identify the hop before
/// it. If all hops are trusted proxies, the first one is the client.
pub fn client_address(
    request: &Request<'_>,
    by: ForwardedBy,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut chain = Chain {
        is_trusted,
        first: None,
        last: None,
    };
    match by {
        ForwardedBy::XForwardedFor => {
            for value in request.headers("x-forwarded-for") {
                value
                    .split(|&byte| byte == b',')
                    .for_each(|hop| chain.add(node(hop)));
            }
        }
        ForwardedBy::Forwarded => {
            for value in request.headers("forwarded") {
                each_element(value, |element| chain.add(forwarded_for(element)));
            }
        }
        ForwardedBy::Nothing => {}
    }
    chain.last.or(chain.first)?
}

/// The hops parsed so far, starting at the client. An inner `None` is a hop without a usable
/// address.
struct Chain<F> {
    is_trusted: F,
    first: Option<Option<IpAddr>>,
    /// The last hop that is not a trusted proxy.
    last: Option<Option<IpAddr>>,
}

impl<F: Fn(IpAddr) -> bool> Chain<F> {
    fn add(&mut self, hop: Option<IpAddr>) {
        self.first.get_or_insert(hop);
        if !hop.is_some_and(&self.is_trusted) {
            self.last = Some(hop);
        }
    }
}

/// Calls `visit` for each element of a list (RFC 9110 §5.6.1). A comma inside a quoted string is
/// not a separator.
fn each_element<'a>(value: &'a [u8], mut visit: impl FnMut(&'a [u8])) {
    split_outside_quotes(value, b',', &mut visit);
}

/// Returns the address in the `for` parameter. RFC 7239 §4: `forwarded-element = [ forwarded-pair ]
/// *( ";" [ forwarded-pair ] )`. "Each parameter MUST NOT occur more than once per field-value";
/// names are case-insensitive.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let (mut address, mut count) = (None, 0);
    split_outside_quotes(element, b';', &mut |pair: &[u8]| {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
            return;
        };
        if pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for") {
            address = node(unquote(pair[equals + 1..].trim_ascii()));
            count += 1;
        }
    });
    address.filter(|_| count == 1)
}

fn split_outside_quotes<'a>(bytes: &'a [u8], at: u8, visit: &mut impl FnMut(&'a [u8])) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let pieces = bytes.split(|&byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        byte == at && !is_quoted
    });
    pieces.for_each(visit);
}

/// Strips the quotes of a quoted string. Addresses contain no characters that need escaping.
fn unquote(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// Parses an address with or without a port. Returns `None` for anything else, including the
/// `unknown` and `_hidden` identifiers of RFC 7239.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let address = text.parse().ok().or_else(bracketed).or_else(with_port);
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, Proxies, parse_head};

    /// Returns the client address derived from these header fields, with trusted proxies in
    /// 10.0.0.0/8 and at `2001:db8::1`.
    fn client(by: ForwardedBy, fields: &str) -> String {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let proxies = Proxies::parse(["10.0.0.0/8", "2001:db8::1"]).unwrap();
        let parsed = parse_head(head.as_bytes(), 8192, |request| {
            client_address(request, by, |ip| proxies.trust(Some(ip)))
        });
        match parsed {
            Ok(Head::Complete(client)) => {
                client.map_or_else(|| "-".to_owned(), |ip| ip.to_string())
            }
            _ => panic!("no whole head: {head}"),
        }
    }

    // P1
    #[test]
    fn last_untrusted_hop_is_the_client() {
        for (value, want) in [
            ("203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("203.0.113.7,10.0.0.2 , 2001:db8::1", "203.0.113.7"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("[2001:db8::2]:443", "2001:db8::2"),
            ("[2001:db8::2]", "2001:db8::2"),
            ("2001:db8::2", "2001:db8::2"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            // An unidentifiable hop is not skipped: the hops before it are supplied by the client.
            ("203.0.113.7, unknown, 10.0.0.2", "-"),
            ("203.0.113.7, , 10.0.0.2", "-"),
            ("203.0.113.7, evil", "-"),
            ("evil, 203.0.113.7", "203.0.113.7"),
            ("", "-"),
            ("203.0.113.7:", "-"),
            ("\"203.0.113.7\"", "-"),
        ] {
            let field = format!("X-Forwarded-For: {value}\r\n");
            assert_eq!(client(ForwardedBy::XForwardedFor, &field), want, "{value}");
            assert_eq!(client(ForwardedBy::Forwarded, &field), "-");
            assert_eq!(client(ForwardedBy::Nothing, &field), "-");
        }
        // RFC 9110 §5.3: repeated fields form one list.
        let fields = "X-Forwarded-For: 203.0.113.7\r\nx-forwarded-for: 10.0.0.2\r\n";
        assert_eq!(client(ForwardedBy::XForwardedFor, fields), "203.0.113.7");
        assert_eq!(client(ForwardedBy::XForwardedFor, ""), "-");
    }

    #[test]
    fn forwarded_follows_the_rfc_7239_grammar() {
        for (value, want) in [
            ("for=203.0.113.7", "203.0.113.7"),
            (
                "For=\"203.0.113.7:80\"; proto=https;by=10.0.0.1",
                "203.0.113.7",
            ),
            (
                "for=198.51.100.1, for=203.0.113.7;proto=http, for=10.0.0.2",
                "203.0.113.7",
            ),
            ("for=\"[2001:db8::2]:4711\"", "2001:db8::2"),
            ("by=\"a,for=198.51.100.1\";for=203.0.113.7", "203.0.113.7"),
            ("by=\"a\\\",for=1.2.3.4\";for=203.0.113.7", "203.0.113.7"),
            // The quoted string ends after an escaped backslash.
            ("by=\"a\\\\\";for=203.0.113.7", "203.0.113.7"),
            ("for=203.0.113.7;for=198.51.100.1", "-"),
            ("for=unknown", "-"),
            ("for=_hidden, for=10.0.0.2", "-"),
            ("for=203.0.113.7, proto=http", "-"),
            ("for=203.0.113.7, \"", "-"),
            ("for", "-"),
        ] {
            let field = format!("Forwarded: {value}\r\n");
            assert_eq!(client(ForwardedBy::Forwarded, &field), want, "{value}");
            assert_eq!(client(ForwardedBy::XForwardedFor, &field), "-");
        }
    }
}

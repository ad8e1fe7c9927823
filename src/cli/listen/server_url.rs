//! Parser of the server's URL. Must not know sockets.

use std::path::PathBuf;

use tungstenite::http::Uri;
use tungstenite::http::uri::Authority;

/// A server, and the request for it.
#[derive(Debug)]
pub(super) struct ServerUrl {
    pub address: ServerAddress,
    /// The URL of the request. For a Unix socket, it has a placeholder host.
    pub request: Uri,
    /// The name in messages. Never includes the query, which may contain a token.
    pub name: String,
    /// The query contains an `access_token`.
    pub has_token: bool,
    pub transport: Transport,
}

/// The protocol over which events are received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Transport {
    WebSocket,
    /// Server-Sent Events.
    Sse,
}

impl Transport {
    /// Returns the schemes of the request's URL, without and with TLS.
    fn schemes(self) -> [&'static str; 2] {
        match self {
            Transport::WebSocket => ["ws", "wss"],
            Transport::Sse => ["http", "https"],
        }
    }

    /// Returns the path of the request for a path in the URL. The same URLs work for both protocols:
    /// the last segment of the WebSocket's path is replaced.
    fn path(self, path: &str) -> String {
        match (self, path.trim_end_matches('/')) {
            (Transport::WebSocket, "") => "/ws".to_owned(),
            (Transport::Sse, "") => "/sse".to_owned(),
            (Transport::Sse, trimmed) if trimmed.ends_with("/ws") => {
                format!("{}/sse", trimmed.trim_end_matches("/ws"))
            }
            _ => path.to_owned(),
        }
    }
}

/// The transport to the server.
#[derive(Debug, PartialEq)]
pub(super) enum ServerAddress {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

/// Returns the port in the authority of a URL, or the default one. `None` if it is not a port.
pub(in crate::cli) fn port(authority: &Authority, is_tls: bool) -> Option<u16> {
    let port = authority.as_str().strip_prefix(authority.host())?;
    match port.strip_prefix(':') {
        Some(port) => port.parse().ok(),
        None if !port.is_empty() => None,
        None if is_tls => Some(443),
        None => Some(80),
    }
}

impl ServerUrl {
    /// Parses `url`. The error is a human-readable description of the problem.
    pub(super) fn parse(url: &str, transport: Transport) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("unix: requires the path of a socket".to_owned());
            }
            return Ok(ServerUrl {
                address: ServerAddress::Unix(PathBuf::from(path)),
                request: match transport {
                    Transport::WebSocket => Uri::from_static("ws://localhost/ws"),
                    Transport::Sse => Uri::from_static("http://localhost/sse"),
                },
                name: url.to_owned(),
                has_token: false,
                transport,
            });
        }
        let uri: Uri = url.parse().map_err(|error| format!("the URL: {error}"))?;
        let tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => false,
            Some("wss") => true,
            Some("http") if transport == Transport::Sse => false,
            Some("https") if transport == Transport::Sse => true,
            Some("http" | "https") => {
                return Err(
                    "the URL: use ws:// instead of http://, and wss:// instead of https://"
                        .to_owned(),
                );
            }
            _ => return Err(EXPECTED.to_owned()),
        };
        let authority = uri.authority().ok_or(EXPECTED)?;
        let host = authority.host();
        if authority.as_str().contains('@') {
            return Err("the URL: user names are not supported; use a token".to_owned());
        }
        let port = port(authority, tls).ok_or("the URL: the port must be a number up to 65535")?;
        if host.is_empty() {
            return Err(EXPECTED.to_owned());
        }
        let path = transport.path(uri.path());
        let [plain, secure] = transport.schemes();
        let scheme = if tls { secure } else { plain };
        let name = format!("{scheme}://{authority}{path}");
        let request = match uri.query() {
            Some(query) => format!("{name}?{query}"),
            None => name.clone(),
        };
        // An IPv6 address has brackets only in a URL.
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(ServerUrl {
            address: if tls {
                ServerAddress::Tls { host, port }
            } else {
                ServerAddress::Tcp { host, port }
            },
            request: request
                .parse()
                .map_err(|error| format!("the URL: {error}"))?,
            name,
            has_token: uri.query().is_some_and(|query| {
                query
                    .split('&')
                    .any(|pair| pair.starts_with("access_token="))
            }),
            transport,
        })
    }

    /// Returns the host and port, or the path of the socket.
    pub(super) fn endpoint(&self) -> String {
        match &self.address {
            ServerAddress::Tcp { host, port } | ServerAddress::Tls { host, port }
                if host.contains(':') =>
            {
                format!("[{host}]:{port}")
            }
            ServerAddress::Tcp { host, port } | ServerAddress::Tls { host, port } => {
                format!("{host}:{port}")
            }
            ServerAddress::Unix(path) => path.display().to_string(),
        }
    }
}

const EXPECTED: &str =
    "the URL: expected ws://HOST[:PORT]/PATH, wss://HOST[:PORT]/PATH, or unix:/path/to.sock";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<ServerUrl, String> {
        ServerUrl::parse(url, Transport::WebSocket)
    }

    fn tcp(host: &str, port: u16) -> ServerAddress {
        let host = host.to_owned();
        ServerAddress::Tcp { host, port }
    }

    fn tls(host: &str, port: u16) -> ServerAddress {
        let host = host.to_owned();
        ServerAddress::Tls { host, port }
    }

    #[test]
    fn urls_are_parsed() {
        for (url, address, request) in [
            (
                "ws://127.0.0.1:5001/ws",
                tcp("127.0.0.1", 5001),
                "ws://127.0.0.1:5001/ws",
            ),
            (
                "ws://localhost:5001",
                tcp("localhost", 5001),
                "ws://localhost:5001/ws",
            ),
            ("WS://h.example/", tcp("h.example", 80), "ws://h.example/ws"),
            ("ws://[::1]:5001/", tcp("::1", 5001), "ws://[::1]:5001/ws"),
            (
                "wss://h.example/a/b?x=1",
                tls("h.example", 443),
                "wss://h.example/a/b?x=1",
            ),
            (
                "wss://h.example?x=1",
                tls("h.example", 443),
                "wss://h.example/ws?x=1",
            ),
            (
                "unix:/run/h.sock",
                ServerAddress::Unix("/run/h.sock".into()),
                "ws://localhost/ws",
            ),
        ] {
            let target = parsed(url).expect(url);
            assert_eq!(target.address, address, "{url}");
            assert_eq!(target.request.to_string(), request, "{url}");
        }
    }

    #[test]
    fn url_of_the_websocket_serves_for_events_as_well() {
        for (url, request) in [
            ("ws://h.example", "http://h.example/sse"),
            ("ws://h.example/ws", "http://h.example/sse"),
            (
                "wss://h.example:8443/a/ws/?x=1",
                "https://h.example:8443/a/sse?x=1",
            ),
            ("http://h.example/", "http://h.example/sse"),
            (
                "https://h.example/events?uri=u",
                "https://h.example/events?uri=u",
            ),
            ("https://h.example/news", "https://h.example/news"),
            ("unix:/run/h.sock", "http://localhost/sse"),
        ] {
            let target = ServerUrl::parse(url, Transport::Sse).expect(url);
            assert_eq!(target.request.to_string(), request, "{url}");
        }
        let target = ServerUrl::parse("https://[::1]/ws", Transport::Sse).expect("a URL");
        assert_eq!(target.address, tls("::1", 443));
    }

    #[test]
    fn token_in_query_is_detected_and_never_shown() {
        let target = parsed("ws://h.example/ws?a=1&access_token=secret").expect("a URL");
        assert!(target.has_token);
        assert_eq!(target.name, "ws://h.example/ws");
        let target = parsed("ws://h.example/access_token=1?b").expect("a URL");
        assert!(!target.has_token);
    }

    #[test]
    fn unsupported_urls_are_rejected() {
        for (url, part) in [
            ("", "the URL"),
            ("127.0.0.1:5001", "expected ws://"),
            ("/ws", "expected ws://"),
            ("ftp://h.example/", "expected ws://"),
            ("http://127.0.0.1:5001/ws", "use ws://"),
            ("ws://joe:pw@h.example/", "user names"),
            ("ws://h.example:99999/", "the port"),
            ("ws://h.example:/", "the port"),
            ("ws://:80/", "the URL"),
            ("ws://h example/", "the URL"),
            ("unix:", "requires the path"),
        ] {
            let error = parsed(url).expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}

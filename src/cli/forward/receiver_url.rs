//! Parser of the receiver's URL. Must not know sockets.

use std::net::IpAddr;

use tungstenite::http::Uri;

use crate::cli::listen::port;

/// A receiver. The URL may contain secrets, so only [`ReceiverUrl::name`] is shown.
#[derive(Clone)]
pub(super) struct ReceiverUrl {
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
    /// The value of `Host`.
    pub authority: String,
    /// The path and query.
    pub target: String,
}

impl ReceiverUrl {
    /// Parses `url`. The error describes the problem, without the URL.
    pub(super) fn parse(url: &str, allow_plain: bool) -> Result<Self, String> {
        let uri: Uri = url.trim().parse().map_err(|_| EXPECTED.to_owned())?;
        let is_tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EXPECTED.to_owned()),
        };
        let authority = uri.authority().ok_or(EXPECTED)?;
        let host = authority.host();
        if authority.as_str().contains('@') {
            return Err("the receiver's URL must not contain a user name".to_owned());
        }
        let port = port(authority, is_tls)
            .ok_or("the receiver's URL: the port must be a number up to 65535")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() {
            return Err(EXPECTED.to_owned());
        }
        if !is_tls && !allow_plain && !is_loopback(bare) {
            return Err(
                "the receiver's URL begins with http://: annotations would be sent without \
                 encryption; use https://, or --insecure-http"
                    .to_owned(),
            );
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(ReceiverUrl {
            is_tls,
            host: bare.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            target: target.to_owned(),
        })
    }

    /// Returns the name in messages, which has neither the path nor the query.
    pub(super) fn name(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

const EXPECTED: &str = "the receiver's URL: expected https://HOST[:PORT]/PATH";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_shown_without_their_path() {
        for (url, is_tls, host, port, target) in [
            (
                "https://hooks.example/services/SECRET?x=1",
                true,
                "hooks.example",
                443,
                "/services/SECRET?x=1",
            ),
            ("HTTPS://h.example:8443", true, "h.example", 8443, "/"),
            (" http://[::1]:80/x\n", false, "::1", 80, "/x"),
            ("http://LOCALHOST/", false, "LOCALHOST", 80, "/"),
        ] {
            let found = ReceiverUrl::parse(url, false).expect(url);
            assert_eq!((found.is_tls, found.port), (is_tls, port), "{url}");
            assert_eq!((&*found.host, &*found.target), (host, target), "{url}");
            assert!(!found.name().contains("SECRET"));
        }
    }

    #[test]
    fn plain_http_is_refused_except_to_this_host() {
        for url in ["http://h.example/", "http://10.0.0.1/"] {
            let error = ReceiverUrl::parse(url, false).err().expect(url);
            assert!(error.contains("--insecure-http"), "{error}");
            assert!(ReceiverUrl::parse(url, true).is_ok());
        }
    }

    #[test]
    fn invalid_urls_are_refused_without_being_shown() {
        for url in [
            "",
            "h.example/SECRET",
            "ftp://h.example/SECRET",
            "https://user:SECRET@h.example/",
            "https://h.example:99999/SECRET",
            "https://:443/SECRET",
            "https://h example/SECRET",
        ] {
            let error = ReceiverUrl::parse(url, true).err().expect(url);
            assert!(error.contains("the receiver's URL"), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
    }
}

//! URLs of brokers as kombu interprets them, since h's `BROKER_URL` is written for kombu.
//!
//! Owns: the interpretation of a URL. Neither errors nor `Debug` show one, since it contains a
//! password.

use std::fmt;
use std::path::PathBuf;

use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The address of a broker and the credentials to log in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    pub(super) uri: AMQPUri,
    /// Set if the connection uses TLS.
    pub(super) tls: Option<Tls>,
}

/// TLS options besides the system's trust store. The files are read again for every connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// A PEM file of additional trusted certificate authorities: `ssl_ca_certs`.
    pub authorities: Option<PathBuf>,
    /// PEM files of the client certificate and its key: `ssl_certfile`, `ssl_keyfile`.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Describes an error in a broker URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrlError(String);

impl Broker {
    /// Parses a URL `amqp://USER:PASSWORD@HOST:PORT/VHOST`. Each part is optional and may be
    /// percent-encoded. As in kombu, an empty path and `/` both mean the virtual host `/`, which
    /// can also be written as `//` or `/%2F`. TLS is used for `amqps://` and if an option `ssl` or
    /// `ssl_…` is present.
    ///
    /// # Errors
    /// [`BrokerUrlError`], which contains no part of the URL except a scheme or the name of an
    /// option.
    pub fn parse(text: &str) -> Result<Broker, BrokerUrlError> {
        let url =
            Url::parse(text).map_err(|error| BrokerUrlError(format!("not a URL: {error}")))?;
        let is_secure = match url.scheme() {
            "amqp" | "pyamqp" | "librabbitmq" => false,
            "amqps" => true,
            other => return fault(format!("amqp:// or amqps:// is expected, not {other}://")),
        };
        if url.cannot_be_a_base() {
            return fault("amqp://HOST/VHOST is expected");
        }
        let tls = tls(&url, is_secure)?;
        let scheme = match tls {
            Some(_) => AMQPScheme::AMQPS,
            None => AMQPScheme::AMQP,
        };
        let host = match url.host() {
            None => String::new(),
            Some(Host::Domain(name)) => decoded(name, "host")?,
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
        };
        let path = url.path();
        let vhost = decoded(path.strip_prefix('/').unwrap_or(path), "virtual host")?;
        if vhost.len() > MAX_SHORT_STRING {
            return fault("the virtual host is longer than AMQP allows");
        }
        let authority = AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: or(decoded(url.username(), "user name")?, "guest"),
                password: or(decoded(url.password().unwrap_or(""), "password")?, "guest"),
            },
            host: or(host, "localhost"),
            port: url.port().unwrap_or_else(|| scheme.default_port()),
        };
        let uri = AMQPUri {
            scheme,
            authority,
            vhost: or(vhost, "/"),
            query: Default::default(),
        };
        Ok(Broker { uri, tls })
    }
}

impl Broker {
    /// Checks that the files named in the URL can be opened. They are read again for every
    /// connection.
    ///
    /// # Errors
    /// [`BrokerUrlError`], which names the option and the file.
    pub fn check_files(&self) -> Result<(), BrokerUrlError> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        let identity = tls.identity.as_ref();
        let files = [
            ("ssl_ca_certs", tls.authorities.as_ref()),
            ("ssl_certfile", identity.map(|(certificate, _)| certificate)),
            ("ssl_keyfile", identity.map(|(_, key)| key)),
        ];
        for (option, file) in files {
            if let Some(file) = file
                && let Err(error) = std::fs::File::open(file)
            {
                return fault(format!("{option}: {}: {error}", file.display()));
            }
        }
        Ok(())
    }
}

/// Returns the TLS options, or `None` if TLS is not used.
fn tls(url: &Url, is_secure: bool) -> Result<Option<Tls>, BrokerUrlError> {
    let mut tls = is_secure.then(Tls::default);
    let (mut certificate, mut key) = (None, None);
    // As in kombu, an empty option counts as absent.
    for (name, value) in url.query_pairs().filter(|(_, value)| !value.is_empty()) {
        if name == "ssl" {
            match &*value.to_ascii_lowercase() {
                "true" | "1" | "yes" | "on" => tls = Some(tls.unwrap_or_default()),
                "false" | "0" | "no" | "off" if !is_secure => {}
                _ => return fault("the option ssl must be true or false, and true for amqps://"),
            }
            continue;
        }
        if !name.starts_with("ssl_") {
            continue;
        }
        let tls = tls.get_or_insert_default();
        match (&*name, &*value.to_ascii_lowercase()) {
            ("ssl_ca_certs", _) => tls.authorities = Some(value.into_owned().into()),
            ("ssl_certfile", _) => certificate = Some(value.into_owned().into()),
            ("ssl_keyfile", _) => key = Some(value.into_owned().into()),
            ("ssl_cert_reqs", "cert_required" | "required") | ("ssl_check_hostname", "true") => {}
            ("ssl_cert_reqs" | "ssl_check_hostname", _) => {
                return fault(format!(
                    "{name}: the broker's certificate is always checked"
                ));
            }
            _ => return fault(format!("the option {name} is not known")),
        }
    }
    match (&mut tls, certificate, key) {
        (Some(tls), Some(certificate), Some(key)) => tls.identity = Some((certificate, key)),
        (_, None, None) => {}
        _ => return fault("ssl_certfile and ssl_keyfile go together"),
    }
    Ok(tls)
}

fn decoded(text: &str, what: &str) -> Result<String, BrokerUrlError> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| BrokerUrlError(format!("the {what} is not UTF-8")))?;
    Ok(text.into_owned())
}

fn or(text: String, default: &str) -> String {
    match text.is_empty() {
        true => default.to_owned(),
        false => text,
    }
}

fn fault<T>(what: impl Into<String>) -> Result<T, BrokerUrlError> {
    Err(BrokerUrlError(what.into()))
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPAuthority { host, port, .. } = &self.uri.authority;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

impl fmt::Display for BrokerUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokerUrlError {}

/// The maximum length of a `shortstr`, AMQP's type for the virtual host, in bytes.
const MAX_SHORT_STRING: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Broker {
        Broker::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn host(url: &str) -> (String, u16) {
        let authority = parsed(url).uri.authority;
        (authority.host, authority.port)
    }

    #[test]
    fn virtual_hosts_are_parsed_as_in_kombu() {
        for (path, vhost) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/%2F", "/"),
            ("/%2f", "/"),
            ("/foo", "foo"),
            ("//foo", "/foo"),
            ("/foo/", "foo/"),
            ("/a%20b", "a b"),
        ] {
            let url = format!("amqp://guest:guest@localhost:5672{path}");
            assert_eq!(parsed(&url).uri.vhost, vhost, "{url}");
        }
    }

    #[test]
    fn credentials_are_decoded_and_default_to_guest() {
        for (userinfo, user, password) in [
            ("", "guest", "guest"),
            ("joe@", "joe", "guest"),
            ("joe:pw@", "joe", "pw"),
            ("j%40e:p%2F%3A%C3%A4@", "j@e", "p/:ä"),
            (":pw@", "guest", "pw"),
        ] {
            let info = parsed(&format!("amqp://{userinfo}mq.example/"))
                .uri
                .authority
                .userinfo;
            assert_eq!(
                (&*info.username, &*info.password),
                (user, password),
                "{userinfo}"
            );
        }
    }

    #[test]
    fn hosts_and_ports_have_defaults() {
        for (url, name, port) in [
            ("amqp://", "localhost", 5672),
            ("amqp:///foo", "localhost", 5672),
            ("amqp://mq.example", "mq.example", 5672),
            ("pyamqp://mq.example:1234//", "mq.example", 1234),
            ("amqps://mq.example//", "mq.example", 5671),
            ("amqp://10.0.0.1//?ssl=true", "10.0.0.1", 5671),
            ("amqp://[::1]//", "::1", 5672),
            ("amqp://u:p@[2001:db8::1]:99/x", "2001:db8::1", 99),
        ] {
            assert_eq!(host(url), (name.to_owned(), port), "{url}");
        }
        assert_eq!(parsed("amqp://u:p@[::1]:9//").to_string(), "[::1]:9");
    }

    #[test]
    fn url_enables_tls() {
        let tls = |url: &str| parsed(url).tls;
        assert!(tls("amqp://a//").is_none());
        assert!(tls("amqp://a//?ssl=false&heartbeat=5&ssl_ca_certs=").is_none());
        for url in [
            "amqps://a//",
            "amqp://a//?ssl=True",
            "amqp://a?ssl_cert_reqs=CERT_REQUIRED",
        ] {
            assert!(tls(url) == Some(Tls::default()), "{url}");
        }
        let files = "amqp://a//?ssl_ca_certs=%2Fca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem";
        let expected = Tls {
            authorities: Some("/ca.pem".into()),
            identity: Some(("/c.pem".into(), "/k.pem".into())),
        };
        assert!(tls(files) == Some(expected));
        let message = parsed(files).check_files().unwrap_err().to_string();
        assert!(message.starts_with("ssl_ca_certs: /ca.pem: "), "{message}");
        assert!(parsed("amqps://a//").check_files().is_ok());
    }

    #[test]
    fn errors_do_not_contain_the_url() {
        for (url, part) in [
            ("", "not a URL"),
            ("mq.example", "not a URL"),
            ("amqp:secret", "amqp://HOST/VHOST"),
            ("redis://:secret@mq.example", "not redis://"),
            ("amqp://u:secret@mq.example:x/", "not a URL"),
            ("amqp://u:secret@mq.example:99999/", "not a URL"),
            ("amqp://u:secret%ff@mq.example/", "the password"),
            ("amqp://u:secret@a//?ssl=maybe", "option ssl"),
            ("amqps://u:secret@a//?ssl=false", "option ssl"),
            (
                "amqp://u:secret@a//?ssl_cert_reqs=CERT_NONE",
                "always checked",
            ),
            (
                "amqp://u:secret@a//?ssl_check_hostname=False",
                "always checked",
            ),
            (
                "amqp://u:secret@a//?ssl_crlfile=x",
                "ssl_crlfile is not known",
            ),
            ("amqp://u:secret@a//?ssl_keyfile=x", "go together"),
        ] {
            let error = Broker::parse(url).expect_err(url).to_string();
            assert!(error.contains(part), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
        let broker = parsed("amqp://u:secret@mq.example/secret");
        assert_eq!(
            format!("{broker} {broker:?}"),
            "mq.example:5672 Broker(mq.example:5672)"
        );
    }
}

//! The URL of the database, as SQLAlchemy and libpq read it.
//!
//! Owns: what of such a URL tokio-postgres does not know. Must not show a URL in any error: there
//! are passwords in them.

use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::trust::{Check, Roots};

/// How to connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub config: Config,
    /// Ways to try one after the other, until one is not refused.
    pub ways: Vec<SslMode>,
    /// What is asked of the server's certificate.
    pub check: Check,
}

impl Target {
    /// The addresses of the database server, for messages.
    pub fn server(&self) -> String {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        let addresses = self.config.get_hostaddrs();
        let names = hosts.iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let names: Vec<String> = match hosts.is_empty() {
            true => addresses.iter().map(ToString::to_string).collect(),
            false => names.collect(),
        };
        // One port is for all hosts.
        let named = names.iter().enumerate().map(|(index, name)| {
            let port = ports.get(index).or(ports.first()).unwrap_or(&DEFAULT_PORT);
            format!("{name}:{port}")
        });
        named.collect::<Vec<_>>().join(", ")
    }
}

/// Reads a URL.
///
/// # Errors
/// For a person, without any part of the URL but the names of parameters.
pub(super) fn parse(url: &str) -> Result<Target, String> {
    let rest = without_scheme(url).ok_or("it does not begin with postgresql://")?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut tls = TlsParameters::default();
    let mut others = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !tls.take(name, value)? {
            others.push(parameter);
        }
    }
    let url = format!("postgresql://{address}?{}", others.join("&"));
    let mut config = Config::from_str(&url).map_err(reason)?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        config.host(LOCAL_SOCKETS);
    }
    if config.get_application_name().is_none() {
        config.application_name(env!("CARGO_PKG_NAME"));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(TCP_TIMEOUT);
    }
    // As libpq: there is no TLS on Unix sockets.
    let is_local = |host: &Host| matches!(host, Host::Unix(_));
    if !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_local) {
        tls.mode = Some("disable".to_owned());
    }
    let (ways, check) = tls.settle()?;
    Ok(Target {
        config,
        ways,
        check,
    })
}

/// SQLAlchemy's URLs name a driver as well: `postgresql+psycopg2://`.
fn without_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let dialect = scheme.split('+').next();
    matches!(dialect, Some("postgres" | "postgresql")).then_some(rest)
}

/// What is wrong; tokio-postgres names parameters, never their values.
fn reason(error: tokio_postgres::Error) -> String {
    match error.into_source() {
        Some(source) => source.to_string(),
        None => "it cannot be read".to_owned(),
    }
}

/// libpq's parameters that tokio-postgres knows in part or not at all.
#[derive(Default)]
struct TlsParameters {
    mode: Option<String>,
    roots: Option<String>,
}

impl TlsParameters {
    /// Whether it was one of them.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            _ => return Ok(false),
        };
        let value = decoded(value).ok_or_else(|| format!("{name} is no text"))?;
        *place = Some(value).filter(|value| !value.is_empty());
        Ok(true)
    }

    /// libpq's table, <https://www.postgresql.org/docs/current/libpq-ssl.html>: where there are
    /// certificates to trust, they count in every mode that has TLS.
    fn settle(self) -> Result<(Vec<SslMode>, Check), String> {
        let is_system = self.roots.as_deref() == Some("system");
        let default = if is_system { "verify-full" } else { "prefer" };
        let mode = self.mode.as_deref().unwrap_or(default);
        let roots = match self.roots {
            Some(_) if is_system => Some(Roots::System),
            Some(file) => Some(Roots::File(file.into())),
            None => None,
        };
        if is_system && !matches!(mode, "verify-full" | "disable") {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        let chain = roots.clone().map_or(Check::Nothing, Check::Chain);
        let trusted = roots.unwrap_or(Roots::System);
        Ok(match mode {
            "disable" => (vec![SslMode::Disable], Check::Nothing),
            "allow" => (vec![SslMode::Disable, SslMode::Require], chain),
            "prefer" => (vec![SslMode::Prefer, SslMode::Disable], chain),
            "require" => (vec![SslMode::Require], chain),
            "verify-ca" => (vec![SslMode::Require], Check::Chain(trusted)),
            "verify-full" => (vec![SslMode::Require], Check::Name(trusted)),
            _ => return Err("sslmode is none of libpq's".to_owned()),
        })
    }
}

/// Takes percent-encoding off; `None` for what is no UTF-8 then.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%');
        let digits = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Where Debian's PostgreSQL has its sockets, and libpq looks for them.
const LOCAL_SOCKETS: &str = "/var/run/postgresql";
const DEFAULT_PORT: u16 = 5432;
/// For each address of the host.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(query: &str) -> (Vec<SslMode>, Check) {
        let target = parse(&format!("postgresql://u:p@db.example/h?{query}"));
        let target = target.unwrap_or_else(|error| panic!("{query}: {error}"));
        (target.ways, target.check)
    }

    #[test]
    fn urls_of_sqlalchemy_and_of_libpq_are_read() {
        for scheme in [
            "postgres",
            "postgresql",
            "postgresql+psycopg2",
            "postgresql+asyncpg",
        ] {
            let url = format!("{scheme}://us%65r:p%40ss@db.example:5433/h?connect_timeout=7");
            let Target { config, .. } = parse(&url).unwrap();
            assert_eq!(config.get_user(), Some("user"));
            assert_eq!(config.get_password(), Some(&b"p@ss"[..]));
            assert_eq!(config.get_hosts(), [Host::Tcp("db.example".into())]);
            assert_eq!(config.get_ports(), [5433]);
            assert_eq!(config.get_dbname(), Some("h"));
            assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
            assert_eq!(config.get_application_name(), Some("h-realtime"));
        }
    }

    #[test]
    fn server_is_named_without_user_and_password() {
        for (url, server) in [
            ("postgresql://joe:secret@db.example/h", "db.example:5432"),
            ("postgresql://joe@a:5433,b:5434/h", "a:5433, b:5434"),
            ("postgresql:///h?host=/tmp/pg&port=5433", "/tmp/pg:5433"),
            ("postgresql:///h?hostaddr=192.0.2.1", "192.0.2.1:5432"),
        ] {
            assert_eq!(parse(url).unwrap().server(), server);
        }
    }

    #[test]
    fn without_a_host_it_is_the_local_socket() {
        let target = parse("postgresql:///h").unwrap();
        assert_eq!(
            target.config.get_hosts(),
            [Host::Unix(LOCAL_SOCKETS.into())]
        );
        let target = parse("postgresql:///h?host=/tmp/pg&sslmode=require").unwrap();
        assert_eq!(target.config.get_hosts(), [Host::Unix("/tmp/pg".into())]);
        assert_eq!(target.ways, [SslMode::Disable]);
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        use SslMode::{Disable, Prefer, Require};
        let file = || Roots::File("/a b.pem".into());
        for (query, expected) in [
            ("", (vec![Prefer, Disable], Check::Nothing)),
            ("sslmode=disable", (vec![Disable], Check::Nothing)),
            ("sslmode=allow", (vec![Disable, Require], Check::Nothing)),
            ("sslmode=require", (vec![Require], Check::Nothing)),
            (
                "sslmode=require&sslrootcert=%2Fa%20b.pem",
                (vec![Require], Check::Chain(file())),
            ),
            (
                "sslmode=verify-ca&sslrootcert=/a%20b.pem",
                (vec![Require], Check::Chain(file())),
            ),
            (
                "sslmode=verify-full&sslrootcert=/a%20b.pem",
                (vec![Require], Check::Name(file())),
            ),
            (
                "sslmode=verify-full",
                (vec![Require], Check::Name(Roots::System)),
            ),
            (
                "sslrootcert=system",
                (vec![Require], Check::Name(Roots::System)),
            ),
        ] {
            assert_eq!(ways(query), expected, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_no_secret_is_told() {
        for (url, word) in [
            ("mysql://u:secret@h/d", "postgresql://"),
            ("u:secret@h/d", "postgresql://"),
            ("postgresql://u:secret@h/d?sslmode=some", "sslmode"),
            ("postgresql://u:secret@h/d?sslmode=%ff", "sslmode"),
            ("postgresql://u:secret@h:secret/d", "port"),
            ("postgresql://u:secret@h/d?sslcert=secret", "sslcert"),
            ("postgresql://u:secret@h/d?secret", "parameter"),
            (
                "postgresql://u:secret@h/d?sslmode=require&sslrootcert=system",
                "verify-full",
            ),
        ] {
            let error = parse(url).map(|_| ()).unwrap_err();
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}

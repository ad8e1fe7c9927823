//! Parses the URL of the database as SQLAlchemy and libpq do.
//!
//! Owns: the syntax of URLs, and their hosts. `options` handles the options. Must not show a URL in
//! any error, since URLs contain passwords.

mod options;
mod parameters;
mod passfile;

use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use self::options::Options;
use self::parameters::Parameters;
use crate::trust::{TlsOptions, Verification};

/// The connection parameters.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSpec {
    pub config: Config,
    /// The SSL modes to try in turn until the server accepts one.
    pub ssl_modes: Vec<SslMode>,
    /// The acceptable kinds of servers, in order of preference. All hosts are tried for each.
    pub server_kinds: Vec<TargetSessionAttrs>,
    /// The checks on the server's certificate.
    pub verification: Verification,
    /// The other TLS options.
    pub tls_options: TlsOptions,
    /// Options without effect, and the reasons, for the log.
    pub warnings: Vec<String>,
}

impl ConnectionSpec {
    /// Returns the addresses of the database server, for messages.
    pub(super) fn server(&self) -> String {
        let names = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let named = names
            .zip(self.config.get_ports())
            .map(|(name, port)| format!("{name}:{port}"));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Returns whether no connection uses TLS.
    pub(super) fn is_without_tls(&self) -> bool {
        self.ssl_modes == [SslMode::Disable]
    }

    /// Returns the timeout for connecting, including the preparation of statements. It is long
    /// enough to try each host even if none before it responds.
    pub(super) fn connect_timeout(&self) -> Duration {
        let hosts = u32::try_from(self.config.get_hosts().len()).unwrap_or(u32::MAX);
        let each = self.config.get_connect_timeout().copied();
        let each = each.unwrap_or(TCP_TIMEOUT).min(LONGEST_TIMEOUT);
        SET_UP_TIMEOUT.saturating_add(each.saturating_mul(hosts))
    }
}

/// The decoded parts of a URL.
#[derive(Default)]
struct Parts {
    user: Option<String>,
    password: Option<String>,
    hosts: Vec<String>,
    /// One for each host, or none. An empty one means the default port.
    ports: Vec<String>,
    dbname: Option<String>,
    parameters: Parameters,
}

/// Parses a URL.
///
/// # Errors
/// All errors in the URL. They contain no part of it except the names of options and files.
pub(super) fn parse(url: &str) -> Result<ConnectionSpec, Vec<String>> {
    let mut errors = Vec::new();
    let Some(mut parts) = split_url(url, &mut errors) else {
        return Err(errors);
    };
    // As in SQLAlchemy and libpq, a parameter takes precedence over the part before the question
    // mark.
    let mut given = |name: &str, before: Option<String>| parts.parameters.take(name).or(before);
    let user = given("user", parts.user);
    let password = given("password", parts.password);
    let dbname = given("dbname", parts.dbname);
    let endpoints = endpoints(&mut parts.parameters, parts.hosts, parts.ports);
    let endpoints = endpoints.unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let mut config = Config::new();
    for Endpoint {
        host,
        address,
        port,
    } in &endpoints
    {
        match host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(path) => config.host_path(path),
        };
        // Either all endpoints have an address, or none has.
        if let Some(address) = address {
            config.hostaddr(*address);
        }
        config.port(*port);
    }
    user.as_deref().map(|user| config.user(user));
    dbname.as_deref().map(|dbname| config.dbname(dbname));
    let options = Options::read(parts.parameters, &endpoints, &mut config, &mut errors);
    let login = passfile::Login {
        endpoints: &endpoints,
        user: user.as_deref(),
        dbname: dbname.as_deref(),
    };
    let password = match (password, &options.passfile) {
        (None, Some(file)) => passfile::password(file, &login).unwrap_or_else(|error| {
            errors.push(format!("passfile: {error}"));
            None
        }),
        (password, _) => password,
    };
    if let Some(password) = password {
        config.password(password);
    }
    match errors.is_empty() {
        true => Ok(ConnectionSpec {
            config,
            ssl_modes: options.ssl_modes,
            server_kinds: options.server_kinds,
            verification: options.verification,
            tls_options: options.tls_options,
            warnings: options.warnings,
        }),
        false => Err(errors),
    }
}

/// Returns an error for each TLS file that a URL names and that cannot be opened, with the option,
/// even if the URL is otherwise invalid.
pub(super) fn unreadable_files(url: &str) -> Vec<String> {
    let (_, query) = url.split_once('?').unwrap_or((url, ""));
    let mut parameters = Parameters::of_query(query, &mut Vec::new());
    if parameters.take("sslmode").as_deref() == Some("disable") {
        return Vec::new();
    }
    let files = ["sslcert", "sslkey", "sslrootcert"].map(|name| (name, parameters.take(name)));
    let named = files
        .into_iter()
        .filter_map(|(name, file)| Some((name, file?)));
    let named = named.filter(|(name, file)| *name != "sslrootcert" || file != "system");
    named
        .filter_map(|(name, file)| {
            let error = std::fs::File::open(&file).err()?;
            Some(format!("{name}: {file}: {error}"))
        })
        .collect()
}

/// Splits a URL into its parts. Returns `None` if it cannot be parsed any further.
fn split_url(url: &str, errors: &mut Vec<String>) -> Option<Parts> {
    let Some(rest) = without_scheme(url) else {
        errors.push("it does not begin with postgresql://".to_owned());
        return None;
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, rest) = match end_of_login(rest) {
        Some(end) => (Some(&rest[..end]), &rest[end + 1..]),
        None => (None, rest),
    };
    let (hosts, dbname) = match rest.split_once('/') {
        Some((hosts, dbname)) => (hosts, Some(dbname)),
        None => (rest, None),
    };
    let (user, password) = match login.map(|login| login.split_once(':')) {
        Some(Some((user, password))) => (Some(user), Some(password)),
        Some(None) => (login, None),
        None => (None, None),
    };
    let mut decode = |name: &str, text: Option<&str>| {
        let text = text.filter(|text| !text.is_empty())?;
        let decoded = decoded(text);
        if decoded.is_none() {
            errors.push(format!("the {name} is not UTF-8 when it is decoded"));
        }
        decoded
    };
    let mut parts = Parts {
        user: decode("user", user),
        password: decode("password", password),
        dbname: decode("database name", dbname),
        ..Parts::default()
    };
    let all = hosts.split(',').filter(|_| !hosts.is_empty());
    let all: Vec<_> = all.map(name_and_port).collect();
    let has_ports = all.iter().any(|(_, port)| port.is_some());
    for (name, port) in all {
        parts.hosts.extend(decode("host", Some(name)));
        if has_ports {
            parts.ports.push(port.unwrap_or_default().to_owned());
        }
    }
    parts.parameters = Parameters::of_query(query, errors);
    Some(parts)
}

/// SQLAlchemy's URLs may also name a driver: `postgresql+psycopg2://`.
fn without_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let dialect = scheme.split('+').next();
    matches!(dialect, Some("postgres" | "postgresql")).then_some(rest)
}

/// Returns the position of the `@` behind user and password. As in SQLAlchemy, a password may
/// contain an unencoded slash.
fn end_of_login(rest: &str) -> Option<usize> {
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rfind('@').or_else(|| {
        let end = rest.find('@')?;
        let colon = rest[..end].find(':')?;
        (!rest[..colon].contains('/')).then_some(end)
    })
}

/// Splits a host in the authority from its port. An IPv6 address is in brackets.
fn name_and_port(text: &str) -> (&str, Option<&str>) {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match bracketed {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    }
}

/// A server to connect to.
struct Endpoint {
    host: Host,
    /// The IP address, if given, in which case the name is not resolved.
    address: Option<IpAddr>,
    port: u16,
}

/// Returns the servers, in the order in which they are tried.
fn endpoints(
    parameters: &mut Parameters,
    mut hosts: Vec<String>,
    mut ports: Vec<String>,
) -> Result<Vec<Endpoint>, String> {
    let listed = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let named = parameters.take_hosts();
    if !named.is_empty() {
        hosts = named.into_iter().flat_map(listed).collect();
        // SQLAlchemy's syntax for several hosts: host=a:5433&host=b:5434.
        let split = hosts.iter().map(|host| with_port(host));
        let (names, inner): (Vec<_>, Vec<_>) = split.unzip();
        if inner.iter().any(|port: &Option<&str>| port.is_some()) {
            let inner = inner.into_iter().map(Option::unwrap_or_default);
            ports = inner.map(str::to_owned).collect();
        }
        hosts = names.into_iter().map(str::to_owned).collect();
    }
    if let Some(text) = parameters.take("port") {
        ports = listed(text);
    }
    let addresses = parameters.take("hostaddr").map(listed).unwrap_or_default();
    let addresses: Result<Vec<IpAddr>, _> = addresses.iter().map(|text| text.parse()).collect();
    let addresses = addresses.map_err(|_| "hostaddr is not a list of IP addresses".to_owned())?;
    if hosts.is_empty() {
        hosts = match addresses.is_empty() {
            true => vec![LOCAL_SOCKETS.to_owned()],
            false => addresses.iter().map(ToString::to_string).collect(),
        };
    }
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err(format!(
            "there are {} values in hostaddr for {} hosts",
            addresses.len(),
            hosts.len()
        ));
    }
    if ports.len() > 1 && ports.len() != hosts.len() {
        let (ports, hosts) = (ports.len(), hosts.len());
        return Err(format!("there are {ports} ports for {hosts} hosts"));
    }
    let mut endpoints = Vec::new();
    for (index, name) in hosts.into_iter().enumerate() {
        let port = ports.get(index).or(ports.first()).map_or("", |port| port);
        endpoints.push(Endpoint {
            host: host(name, !addresses.is_empty())?,
            address: addresses.get(index).copied(),
            port: match port {
                "" => DEFAULT_PORT,
                port => port.parse().map_err(|_| "a port is not a number")?,
            },
        });
    }
    Ok(endpoints)
}

fn host(name: String, has_address: bool) -> Result<Host, String> {
    match name.chars().next() {
        None => Err("a host is empty".to_owned()),
        Some('@') => Err("abstract Unix sockets are not supported as a host".to_owned()),
        Some('/') if has_address => Err("with hostaddr, host must be a name".to_owned()),
        Some('/') => Ok(Host::Unix(name.into())),
        Some(_) => Ok(Host::Tcp(name)),
    }
}

/// Splits a host parameter from its port, if it has one. An IPv6 address has several colons.
fn with_port(host: &str) -> (&str, Option<&str>) {
    match host.split_once(':') {
        Some((name, port)) if !host.starts_with('/') && !port.contains(':') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Decodes percent-encoding; `None` if the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let bytes = percent_encoding::percent_decode_str(text);
    Some(bytes.decode_utf8().ok()?.into_owned())
}

/// The directory of PostgreSQL's sockets on Debian, which is libpq's default there.
const LOCAL_SOCKETS: &str = "/var/run/postgresql";
const DEFAULT_PORT: u16 = 5432;
/// The default timeout for each address of a host.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum for `connect_timeout`; larger values are capped.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout for the steps after connecting, up to the last prepared statement.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;

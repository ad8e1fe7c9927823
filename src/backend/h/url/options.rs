//! libpq's options,
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>.
//!
//! Owns: the effect of each option. An option is honored; or it is ignored with a warning that
//! names it; or it is rejected, because without it the connection would be less secure, or made to
//! another server than intended. docs/replacing-h.md has the list.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};

use super::parameters::Parameters;
use super::{Endpoint, TCP_TIMEOUT};
use crate::trust::{Roots, TlsOptions, Verification, Versions};

/// The parsed options, except those stored in the [`Config`].
pub(super) struct Options {
    pub ssl_modes: Vec<SslMode>,
    pub server_kinds: Vec<TargetSessionAttrs>,
    pub verification: Verification,
    pub tls_options: TlsOptions,
    pub passfile: Option<PathBuf>,
    pub warnings: Vec<String>,
}

impl Options {
    /// Parses the remaining options, and stores those in `config` that it supports.
    pub(super) fn read(
        parameters: Parameters,
        endpoints: &[Endpoint],
        config: &mut Config,
        errors: &mut Vec<String>,
    ) -> Options {
        let mut reader = Reader {
            parameters,
            errors,
            warnings: Vec::new(),
        };
        reader.refuse();
        reader.connection(config);
        reader.sockets(config);
        let server_kinds = reader.server_kinds(config);
        let passfile = reader.parameters.take("passfile").map(PathBuf::from);
        reader.without_effect();
        let is_local = |endpoint: &Endpoint| matches!(endpoint.host, Host::Unix(_));
        // As in libpq, TLS is not used on Unix sockets.
        let all_local = !endpoints.is_empty() && endpoints.iter().all(is_local);
        let (ssl_modes, verification) = reader.security(all_local);
        let has_names = endpoints.iter().all(|endpoint| {
            let address = endpoint.address.map(|address| address.to_string());
            !matches!((&endpoint.host, address), (Host::Tcp(name), Some(ip)) if *name == ip)
        });
        if matches!(verification, Verification::Name(_)) && !has_names {
            reader.error("sslmode=verify-full needs the name of the host, besides hostaddr");
        }
        let tls_options = reader.tls_options(&ssl_modes, config);
        Options {
            ssl_modes,
            server_kinds,
            verification,
            tls_options,
            passfile,
            warnings: reader.warnings,
        }
    }
}

struct Reader<'a> {
    parameters: Parameters,
    errors: &'a mut Vec<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    /// Takes an option whose value is one of `words`.
    fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.parameters.take(name)?;
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.error(format!("{name} is none of {}", words.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let value = self.parameters.take(name)?;
        let number = value.trim().parse().ok();
        if number.is_none() {
            self.error(format!("{name} is not a whole number, or too large"));
        }
        number
    }

    /// Takes a number of seconds or milliseconds. Zero and negative values mean the default.
    fn time(&mut self, name: &str, unit: fn(u64) -> Duration) -> Option<Duration> {
        let number = self.number::<i32>(name)?;
        u64::try_from(number).ok().filter(|n| *n > 0).map(unit)
    }

    /// Rejects options without which the connection would be less secure, or made to another server
    /// than intended.
    fn refuse(&mut self) {
        for (name, why) in REFUSED {
            if self.parameters.take(name).is_some() {
                self.error(format!("{name} is not supported: {why}"));
            }
        }
        let gss = [("disable", false), ("prefer", false), ("require", true)];
        if self.choice("gssencmode", &gss) == Some(true) {
            self.error("gssencmode=require is not supported: there is no GSSAPI here");
        }
        let replication = self.parameters.take("replication");
        let is_off = |value: &String| ["false", "off", "no", "0"].contains(&&**value);
        if replication.is_some_and(|value| !is_off(&value)) {
            self.error("replication is not supported: such a connection cannot read tables");
        }
        let certificates = [
            ("disable", Some(false)),
            ("allow", None),
            ("require", Some(true)),
        ];
        match self.choice("sslcertmode", &certificates) {
            Some(Some(true)) => self.error(
                "sslcertmode=require is not supported: whether the server asks for a certificate \
                 is not checked",
            ),
            Some(Some(false)) => {
                self.parameters.take("sslcert");
                self.parameters.take("sslkey");
            }
            Some(None) | None => {}
        }
        let protocol = [("3.0", true), ("3.2", false), ("latest", false)];
        if self.choice("min_protocol_version", &protocol) == Some(false) {
            self.error("min_protocol_version is not supported above 3.0");
        }
        // All values allow the protocol version that is used here.
        self.choice("max_protocol_version", &protocol);
    }

    fn connection(&mut self, config: &mut Config) {
        let name = self.parameters.take("application_name");
        let fallback = self.parameters.take("fallback_application_name");
        let name = name.or(fallback);
        config.application_name(name.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned()));
        if let Some(options) = self.parameters.take("options") {
            config.options(options);
        }
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        if let Some(binding) = self.choice("channel_binding", &bindings) {
            config.channel_binding(binding);
        }
    }

    fn sockets(&mut self, config: &mut Config) {
        let timeout = self.time("connect_timeout", Duration::from_secs);
        config.connect_timeout(timeout.unwrap_or(TCP_TIMEOUT));
        if let Some(on) = self.number::<i64>("keepalives") {
            config.keepalives(on != 0);
        }
        if let Some(idle) = self.time("keepalives_idle", Duration::from_secs) {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = self.time("keepalives_interval", Duration::from_secs) {
            config.keepalives_interval(interval);
        }
        if let Some(count) = self.number::<u32>("keepalives_count").filter(|n| *n > 0) {
            config.keepalives_retries(count);
        }
        if let Some(timeout) = self.time("tcp_user_timeout", Duration::from_millis) {
            config.tcp_user_timeout(timeout);
        }
        let order = [
            ("disable", LoadBalanceHosts::Disable),
            ("random", LoadBalanceHosts::Random),
        ];
        if let Some(order) = self.choice("load_balance_hosts", &order) {
            config.load_balance_hosts(order);
        }
    }

    /// A primary accepts writes, and a standby does not. For these two, libpq checks for hot
    /// standby instead of writes; the results differ only if `default_transaction_read_only` is on.
    fn server_kinds(&mut self, config: &mut Config) -> Vec<TargetSessionAttrs> {
        use TargetSessionAttrs::{Any, ReadOnly, ReadWrite};
        let words: [(&str, &[TargetSessionAttrs]); 6] = [
            ("any", &[Any]),
            ("read-write", &[ReadWrite]),
            ("read-only", &[ReadOnly]),
            ("primary", &[ReadWrite]),
            ("standby", &[ReadOnly]),
            ("prefer-standby", &[ReadOnly, Any]),
        ];
        let server_kinds = self.choice("target_session_attrs", &words);
        let server_kinds = server_kinds.unwrap_or(&[Any]).to_vec();
        config.target_session_attrs(server_kinds[0]);
        server_kinds
    }

    /// Takes options that have no effect here and do not weaken security.
    fn without_effect(&mut self) {
        let encoding = self.parameters.take("client_encoding");
        let is_utf8 = |text: &String| {
            let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
            ["utf8", "unicode", "auto"].contains(&&*plain.to_ascii_lowercase())
        };
        if encoding.is_some_and(|encoding| !is_utf8(&encoding)) {
            self.warn("client_encoding", "the connection uses UTF8");
        }
        let compression = self.parameters.take("sslcompression");
        if compression.is_some_and(|value| value != "0") {
            self.warn("sslcompression", "TLS is never compressed");
        }
        for (name, why) in IGNORED {
            if self.parameters.take(name).is_some() {
                self.warn(name, why);
            }
        }
    }

    fn warn(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("{name} is ignored: {why}"));
    }

    /// Implements libpq's table, <https://www.postgresql.org/docs/current/libpq-ssl.html>: if there
    /// are trusted certificates, they are checked in every mode with TLS.
    fn security(&mut self, is_local: bool) -> (Vec<SslMode>, Verification) {
        let words = [
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ];
        let words = words.map(|word| (word, word));
        let mode = self.choice("sslmode", &words);
        let roots = self.parameters.take("sslrootcert");
        let is_system = roots.as_deref() == Some("system");
        let default = if is_system { "verify-full" } else { "prefer" };
        let mode = if is_local {
            "disable"
        } else {
            mode.unwrap_or(default)
        };
        let roots = roots.map(|file| match is_system {
            true => Roots::System,
            false => Roots::File(file.into()),
        });
        if is_system && !matches!(mode, "verify-full" | "disable") {
            self.error("sslrootcert=system needs sslmode=verify-full");
        }
        let chain = roots
            .clone()
            .map_or(Verification::Nothing, Verification::Chain);
        let trusted = roots.unwrap_or(Roots::System);
        match mode {
            "disable" => (vec![SslMode::Disable], Verification::Nothing),
            "allow" => (vec![SslMode::Disable, SslMode::Require], chain),
            "require" => (vec![SslMode::Require], chain),
            "verify-ca" => (vec![SslMode::Require], Verification::Chain(trusted)),
            "verify-full" => (vec![SslMode::Require], Verification::Name(trusted)),
            _ => (vec![SslMode::Prefer, SslMode::Disable], chain),
        }
    }

    fn tls_options(&mut self, ssl_modes: &[SslMode], config: &mut Config) -> TlsOptions {
        let mut tls_options = TlsOptions {
            versions: self.versions(),
            ..TlsOptions::default()
        };
        let certificate = self.parameters.take("sslcert");
        let key = self.parameters.take("sslkey");
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                tls_options.identity = Some((certificate.into(), key.into()))
            }
            (None, None) => {}
            _ => self.error("sslcert and sslkey go together"),
        }
        tls_options.omit_sni = self.choice("sslsni", &[("1", false), ("0", true)]) == Some(true);
        let negotiation = [("postgres", false), ("direct", true)];
        if self.choice("sslnegotiation", &negotiation) == Some(true) {
            if ssl_modes == [SslMode::Disable] || ssl_modes.len() > 1 {
                self.error("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full");
            }
            config.ssl_negotiation(SslNegotiation::Direct);
            tls_options.protocol = Some("postgresql");
        }
        // TLS options have no effect without TLS.
        match ssl_modes == [SslMode::Disable] {
            true => TlsOptions::default(),
            false => tls_options,
        }
    }

    fn versions(&mut self) -> Versions {
        let words = [
            ("TLSv1", 10),
            ("TLSv1.1", 11),
            ("TLSv1.2", 12),
            ("TLSv1.3", 13),
        ];
        let least = self
            .choice("ssl_min_protocol_version", &words)
            .unwrap_or(12);
        let most = self
            .choice("ssl_max_protocol_version", &words)
            .unwrap_or(13);
        if most < 12 || least > most {
            self.error(
                "ssl_min_protocol_version and ssl_max_protocol_version leave neither TLSv1.2 nor \
                 TLSv1.3",
            );
        }
        match (least, most) {
            (13, _) => Versions::Tls13,
            (_, 12) => Versions::Tls12,
            _ => Versions::All,
        }
    }
}

const NO_CRL: &str = "revocation lists are not checked";
const NO_SERVICE: &str = "write the options of the service in the URL";
const NO_SCRAM: &str = "give the password";
const NO_OAUTH: &str = "there is no OAuth here";

/// Options that are rejected regardless of their value, and why.
const REFUSED: &[(&str, &str)] = &[
    ("oauth_client_id", NO_OAUTH),
    ("oauth_client_secret", NO_OAUTH),
    ("oauth_issuer", NO_OAUTH),
    ("oauth_scope", NO_OAUTH),
    (
        "require_auth",
        "the server's choice of a method is not restricted",
    ),
    (
        "requirepeer",
        "the owner of the server's socket is not checked",
    ),
    ("scram_client_key", NO_SCRAM),
    ("scram_server_key", NO_SCRAM),
    ("service", NO_SERVICE),
    ("servicefile", NO_SERVICE),
    ("sslcrl", NO_CRL),
    ("sslcrldir", NO_CRL),
    ("sslpassword", "the key of sslkey must not be encrypted"),
];

/// Options that are ignored regardless of their value, and why.
const IGNORED: &[(&str, &str)] = &[
    ("gssdelegation", "there is no GSSAPI here"),
    ("gsslib", "there is no GSSAPI here"),
    ("krbsrvname", "there is no GSSAPI here"),
    ("sslkeylogfile", "keys are never written"),
];

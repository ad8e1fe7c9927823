//! Parses the query of a URL into options, as text.
//!
//! Owns: the names of libpq's options. `options` handles their meaning.

use std::collections::BTreeMap;

use super::decoded;

/// The options of a URL by name. An empty option counts as absent.
#[derive(Default)]
pub(super) struct Parameters {
    others: BTreeMap<String, String>,
    hosts: Vec<String>,
}

impl Parameters {
    /// Parses the part behind the question mark as SQLAlchemy does: a plus is a space.
    pub(super) fn of_query(query: &str, errors: &mut Vec<String>) -> Self {
        let mut parameters = Parameters::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let Some((name, value)) = parameter.split_once('=') else {
                errors.push("a parameter has no value".to_owned());
                continue;
            };
            let Some(name) = KNOWN.iter().find(|known| **known == name) else {
                errors.push(unknown(name, value));
                continue;
            };
            let Some(value) = decoded(&value.replace('+', " ")) else {
                errors.push(format!("{name} is no text"));
                continue;
            };
            match value.is_empty() {
                true => {}
                // SQLAlchemy repeats the option for each host.
                false if *name == "host" => parameters.hosts.push(value),
                false => {
                    if parameters
                        .others
                        .insert((*name).to_owned(), value)
                        .is_some()
                    {
                        errors.push(format!("{name} is there more than once"));
                    }
                }
            }
        }
        parameters
    }

    /// Removes an option, and returns its value.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.others.remove(name)
    }

    /// Removes the hosts.
    pub(super) fn take_hosts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.hosts)
    }
}

/// Describes an unknown option. Its name is shown only if it is a plain word: an unencoded question
/// mark in a password makes the rest of the password look like a parameter, which is then followed
/// by the host.
fn unknown(name: &str, value: &str) -> String {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let shown = match is_plain && !value.contains('@') {
        true => name,
        false => "a parameter",
    };
    match KNOWN.iter().find(|known| is_near(name, known)) {
        Some(near) => format!("{shown} is not an option of libpq; did you mean {near}?"),
        None => format!("{shown} is not an option of libpq"),
    }
}

/// Returns whether a name differs from a known one in case, hyphens, or one letter.
fn is_near(name: &str, known: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let prefix = name
        .bytes()
        .zip(known.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let (rest, other) = (&name.as_bytes()[prefix..], &known.as_bytes()[prefix..]);
    let after = |bytes: &[u8]| bytes.get(1..).unwrap_or_default().to_vec();
    prefix > 2
        && (rest == other
            || after(rest) == other
            || rest == after(other)
            || after(rest) == after(other))
}

/// All options of libpq.
pub(super) const KNOWN: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

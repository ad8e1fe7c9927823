//! The resolved arguments of `listen`.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tungstenite::http::HeaderValue;

use super::args::ListenArgs;
use super::messages;
use super::server_url::{ServerAddress, ServerUrl, Transport};
use super::tls::Trust;
use crate::exit::Exit;

/// The resolved arguments.
pub(in crate::cli) struct ListenOptions {
    pub(super) target: ServerUrl,
    pub(super) token: Option<HeaderValue>,
    /// Present for `wss://` only.
    pub(super) trust: Option<Trust>,
    pub(super) client_id: String,
    /// The filter of requested annotations.
    filter: Value,
    /// The server must confirm the filter: without the extended filter language, it would send other
    /// annotations.
    pub(super) needs_confirmation: bool,
    /// The filter as parameters of a URL.
    pub(super) query: String,
    /// The position to start from if there is no state file.
    pub(super) since: Option<String>,
    /// The state file.
    pub(super) state: Option<PathBuf>,
    pub(super) count: Option<u64>,
    pub(super) reconnect: bool,
    /// Warnings to print at the start.
    pub(super) warnings: Vec<&'static str>,
}

impl ListenOptions {
    /// Resolves the arguments. `variable` is the token in the environment.
    pub(in crate::cli) fn new(args: ListenArgs, variable: Option<String>) -> Result<Self, Exit> {
        let transport = match args.sse {
            true => Transport::Sse,
            false => Transport::WebSocket,
        };
        let target =
            ServerUrl::parse(&args.url, transport).map_err(|why| Exit::new(Exit::USAGE, why))?;
        let trust = match target.address {
            ServerAddress::Tls { .. } => Some(Trust::load(args.ca_cert.as_deref())?),
            ServerAddress::Tcp { .. } | ServerAddress::Unix(_) => None,
        };
        let token = token(args.token, args.token_file, variable)?;
        let client_id = match args.client_id {
            Some(id) => id,
            None => format!("{:016x}{:016x}", random()?, random()?),
        };
        let filter = args.filter.to_filter()?;
        let query = args.filter.to_query();
        if args.sse && query.is_empty() && target.request.query().is_none() {
            let message = "--sse requires --uri, --group, or another filter option";
            return Err(Exit::new(Exit::USAGE, message));
        }
        let mut warnings = Vec::new();
        if args.filter.is_empty() && !args.sse {
            warnings.push(
                "no --uri, --group, or other filter option: only session-change events will be received",
            );
        }
        if token.is_some() && target.has_token {
            warnings.push("the access_token in the URL takes precedence over the other token");
        }
        Ok(ListenOptions {
            client_id,
            filter,
            needs_confirmation: args.filter.is_extended(),
            query,
            since: args.since,
            state: args.state,
            target,
            token,
            trust,
            count: args.count,
            reconnect: !args.no_reconnect,
            warnings,
        })
    }

    /// Returns the messages to send on a new connection, in order. With `since`, the connection
    /// resumes there.
    pub(super) fn opening(&self, since: Option<&str>) -> Vec<String> {
        messages::opening(
            &self.client_id,
            &self.filter,
            since,
            self.needs_confirmation,
        )
    }

    /// Returns whether the events in the output have their cursors.
    pub(super) fn shows_cursors(&self) -> bool {
        self.since.is_some() || self.state.is_some()
    }

    /// Returns the server's name in messages.
    pub(in crate::cli) fn server_name(&self) -> &str {
        &self.target.name
    }

    /// Returns the filter of requested annotations.
    pub(in crate::cli) fn filter(&self) -> &Value {
        &self.filter
    }

    /// Returns the warnings to print at the start.
    pub(in crate::cli) fn warnings(&self) -> &[&'static str] {
        &self.warnings
    }

    /// Returns whether the client presents a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some() || self.target.has_token
    }
}

pub(super) fn token(
    argument: Option<String>,
    file: Option<PathBuf>,
    variable: Option<String>,
) -> Result<Option<HeaderValue>, Exit> {
    let token = match (argument, file) {
        (Some(token), _) => token,
        (None, Some(file)) => fs::read_to_string(&file)
            .map_err(|error| Exit::new(Exit::NO_INPUT, format!("{}: {error}", file.display())))?,
        (None, None) => match variable {
            Some(token) => token,
            None => return Ok(None),
        },
    };
    let unfit = || {
        Exit::new(
            Exit::USAGE,
            "the token is empty or contains invalid characters",
        )
    };
    let token = token.trim();
    if token.is_empty() {
        return Err(unfit());
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unfit())?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Returns a random number, for client ids and reconnection delays.
pub(in crate::cli) fn random() -> Result<u64, Exit> {
    getrandom::u64().map_err(|error| {
        Exit::new(
            Exit::OS,
            format!("cannot get random numbers from the system: {error}"),
        )
    })
}

//! `h-realtime serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::{BackendKind, EventSource, Flag, Sources, Value};
use crate::exit::Exit;

/// Arguments of `serve`. Flags take precedence over the environment, and the environment over the
/// configuration file.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {
    /// The configuration file (TOML) [default: /etc/h-realtime/h-realtime.toml, if it exists].
    /// `h-realtime config default` prints a file with all settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to serve WebSockets on: ws://HOST:PORT, wss://HOST:PORT, or unix:/path/to.sock; may
    /// be repeated
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// Address to serve the admin interface on: HOST:PORT or unix:/path/to.sock
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Origin (scheme, host, and port) of pages that may connect; may be repeated [default: all]
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// Source of users, tokens, and groups; `h` uses h's own database and message queue, given by
    /// DATABASE_URL and BROKER_URL
    #[arg(long, value_name = "KIND")]
    backend: Option<BackendKind>,
    /// Source of events for the embedded backend, besides POST /events; `amqp` is the RabbitMQ
    /// given by BROKER_URL
    #[arg(long, value_name = "SOURCE")]
    events: Option<EventSource>,
    /// The data directory, with database and publish key; created if it does not exist
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// PEM file with the certificate chain for wss://
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Log level: error, warn, info, debug, or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log format: text, journal, json, or auto
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ServeArgs {
    /// Returns the sources of the settings.
    pub(super) fn sources(self) -> Sources {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned())
        };
        let lists = [
            ("--listen", "listen", self.listen),
            ("--origin", "origins", self.origin),
        ];
        let texts = [
            ("--admin", "admin", self.admin),
            (
                "--backend",
                "backend",
                name(self.backend.and_then(|kind| kind.to_possible_value())),
            ),
            (
                "--events",
                "events",
                name(self.events.and_then(|source| source.to_possible_value())),
            ),
            ("--data", "data", self.data),
            ("--tls-cert", "tls.cert", self.tls_cert),
            ("--tls-key", "tls.key", self.tls_key),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        let mut flags = Vec::new();
        for (flag, setting, items) in lists {
            if !items.is_empty() {
                let value = Value::List(items);
                flags.push(Flag {
                    flag,
                    setting,
                    value,
                });
            }
        }
        for (flag, setting, text) in texts {
            if let Some(text) = text {
                let value = Value::Text(text);
                flags.push(Flag {
                    flag,
                    setting,
                    value,
                });
            }
        }
        Sources::of_process(flags, self.config)
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`Exit`] with the code for the cause.
pub(super) fn run(args: ServeArgs) -> Result<(), Exit> {
    crate::server::run(args.sources())
}

const AFTER_HELP: &str = "\
Defaults: --listen ws://127.0.0.1:5001 --admin 127.0.0.1:5002 --data ./h-realtime-data

Every setting of the configuration file can also be set in the environment: limits.message as
H_REALTIME_LIMITS__MESSAGE, listen as H_REALTIME_LISTEN. Passwords are set in the environment, in a
file, or in systemd credentials, never by a flag.

Examples:
  h-realtime serve
  h-realtime serve --listen ws://0.0.0.0:5001 --data /var/lib/h-realtime
  h-realtime serve --listen wss://0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem
  DATABASE_URL=postgresql://h@db/h BROKER_URL=amqp://mq// h-realtime serve --backend h

SIGTERM and Ctrl-C stop the server: it closes all connections with code 1012, and clients reconnect.
A second signal stops it immediately. SIGHUP reloads the configuration and the certificate without
closing connections.";

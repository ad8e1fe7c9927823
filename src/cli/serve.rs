//! `h-realtime serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use crate::config::{BackendKind, EventSource, Flag, Sources, Value};

/// What `serve` takes. A flag wins over the environment, and that over the configuration file.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct ServeArgs {
    /// The configuration file (TOML); else /etc/h-realtime/h-realtime.toml if it is there.
    /// `h-realtime config default` prints one with all settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to serve WebSockets: ws://HOST:PORT, wss://HOST:PORT or unix:/path/to.sock; may
    /// be given several times
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// Where to serve the admin interface: HOST:PORT, or unix:/path/to.sock
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A page that may connect, by its origin: scheme, host and port; may be given several times.
    /// Without any, all may
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// What knows users, tokens and groups: `h` takes h's own database and message queue, which
    /// DATABASE_URL and BROKER_URL name
    #[arg(long, value_name = "KIND")]
    backend: Option<BackendKind>,
    /// Where the embedded back end has events from, besides POST /events: `amqp` is the RabbitMQ
    /// that BROKER_URL names
    #[arg(long, value_name = "SOURCE")]
    events: Option<EventSource>,
    /// The data directory: database, publish key; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The certificate chain for wss://, a PEM file
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How to log: text, journal, json, or auto
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ServeArgs {
    /// Returns the sources of the settings.
    pub fn sources(self) -> Sources {
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
pub fn run(args: ServeArgs) -> Result<(), Exit> {
    serve(args.sources())
}

#[cfg(any(feature = "sqlite", feature = "h"))]
fn serve(sources: Sources) -> Result<(), Exit> {
    crate::server::run(sources)
}

#[cfg(not(any(feature = "sqlite", feature = "h")))]
fn serve(_: Sources) -> Result<(), Exit> {
    Err(no_backend())
}

#[cfg(not(any(feature = "sqlite", feature = "h")))]
pub(super) fn no_backend() -> Exit {
    Exit::new(Exit::CONFIG, "this build has no back end to serve from")
}

const AFTER_HELP: &str = "\
Defaults: --listen ws://127.0.0.1:5001 --admin 127.0.0.1:5002 --data ./h-realtime-data

Every setting of the configuration file can be given by the environment, too: limits.message by
H_REALTIME_LIMITS__MESSAGE, listen by H_REALTIME_LISTEN. Passwords are given by the environment, a
file or systemd's credentials, never by a flag.

Examples:
  h-realtime serve
  h-realtime serve --listen ws://0.0.0.0:5001 --data /var/lib/h-realtime
  h-realtime serve --listen wss://0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem
  DATABASE_URL=postgresql://h@db/h BROKER_URL=amqp://mq// h-realtime serve --backend h

SIGTERM or Ctrl-C tells everybody to come back later, and ends; a second one ends at once.
SIGHUP reads the configuration and the certificate again; nobody is disconnected.";

//! `h-realtime serve`.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use crate::config::{BackEndKind, EventSource, File};

/// What `serve` takes. A flag wins over the configuration file.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct ServeArgs {
    /// A configuration file (TOML); see the README for its settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to serve WebSockets: ws://HOST:PORT, wss://HOST:PORT or unix:/path/to.sock; may
    /// be given several times
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// Where to serve the admin interface: HOST:PORT, or unix:/path/to.sock
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// What knows users, tokens and groups: `h` takes h's own database and message queue, which
    /// DATABASE_URL and BROKER_URL name
    #[arg(long, value_name = "KIND")]
    backend: Option<BackEndKind>,
    /// Where the embedded back end has events from, besides POST /events: `amqp` is the RabbitMQ
    /// that BROKER_URL names
    #[arg(long, value_name = "SOURCE")]
    events: Option<EventSource>,
    /// The data directory: database, publish key; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The certificate chain for wss://, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl ServeArgs {
    fn over(self, mut file: File) -> File {
        if !self.listen.is_empty() {
            file.listen = self.listen;
        }
        file.admin = self.admin.or(file.admin);
        file.backend = self.backend.unwrap_or(file.backend);
        file.events = self.events.unwrap_or(file.events);
        file.data = self.data.or(file.data);
        file.tls.cert = self.tls_cert.or(file.tls.cert);
        file.tls.key = self.tls_key.or(file.tls.key);
        file
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`Exit`], with the code of what is in the way.
pub fn run(args: ServeArgs) -> Result<(), Exit> {
    let config = |error| Exit::new(Exit::CONFIG, error);
    let file = match &args.config {
        Some(path) => File::read(path).map_err(config)?,
        None => File::default(),
    };
    serve(args.over(file).settle().map_err(config)?)
}

#[cfg(any(feature = "sqlite", feature = "h"))]
fn serve(settings: crate::config::Settings) -> Result<(), Exit> {
    crate::server::run(settings)
}

#[cfg(not(any(feature = "sqlite", feature = "h")))]
fn serve(_: crate::config::Settings) -> Result<(), Exit> {
    Err(Exit::new(
        Exit::CONFIG,
        "this build has no back end to serve from",
    ))
}

const AFTER_HELP: &str = "\
Defaults: --listen ws://127.0.0.1:5001 --admin 127.0.0.1:5002 --data ./h-realtime-data

Examples:
  h-realtime serve
  h-realtime serve --listen ws://0.0.0.0:5001 --data /var/lib/h-realtime
  h-realtime serve --listen wss://0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem
  DATABASE_URL=postgresql://h@db/h BROKER_URL=amqp://mq// h-realtime serve --backend h

SIGTERM or Ctrl-C tells everybody to come back later, and ends; a second one ends at once.";

//! `h-realtime forward`: sends events to a receiver over HTTP, or keeps them as an Atom feed.
//!
//! Owns: the command. The connection to the server, with its reconnects, is that of `listen`: this
//! command is another consumer of its events. Must not know the server of this crate.
//!
//! | file | holds |
//! |---|---|
//! | `args`, `options` | the arguments, their help, and their resolution |
//! | `event`, `version` | an event, parsed from the stream, and the version of its state |
//! | `queue`, `circuit` | the state machines of requests: order, retries, position |
//! | `webhooks` | the consumer that makes requests |
//! | `sender`, `post`, `kept`, `receiver_url` | threads, one request, and idle connections |
//! | `signature` | signatures of Standard Webhooks |
//! | `format`, `chat`, `summary` | the bodies of requests |
//! | `state_file` | the position and the acknowledged events, across restarts |
//! | `feed`, `atom` | the consumer that keeps a feed, and its text |
//! | `metrics` | Prometheus metrics |
//!
//! To add a format: add a variant to `ForwardFormat` and its arm in `format::render`.

mod args;
mod atom;
mod chat;
mod circuit;
mod event;
mod feed;
mod format;
mod kept;
mod metrics;
mod options;
mod post;
mod queue;
mod receiver_url;
mod sender;
mod signature;
mod state_file;
mod summary;
mod version;
mod webhooks;

use std::sync::Arc;

use self::feed::Feed;
use self::format::ForwardFormat;
use self::metrics::ForwardMetrics;
use self::options::ForwardEnvironment;
use self::sender::Senders;
use self::state_file::ForwardState;
use self::version::VersionMemory;
use self::webhooks::Webhooks;
use super::listen::{EventConsumer as _, Interrupts, ListenOptions, Resume, random, run_stream};
use crate::config::TOKEN_VARIABLE;
use crate::exit::Exit;

pub(super) use self::args::ForwardArgs;

/// Forwards events until interrupted: see [`ForwardArgs`].
///
/// # Errors
/// As for `listen`; 68 if the receiver responds with 410; 74 and 77 if a file cannot be written.
pub(super) fn run(mut args: ForwardArgs) -> Result<(), Exit> {
    let interrupts = Interrupts::catch(0).map_err(|error| {
        Exit::new(
            Exit::OS,
            format!("cannot register signal handlers: {error}"),
        )
    })?;
    let environment = ForwardEnvironment {
        token: std::env::var(TOKEN_VARIABLE).ok(),
        credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
    };
    let stream = options::stream(&mut args, &environment)?;
    let metrics = Arc::<ForwardMetrics>::default();
    if let Some(address) = args.metrics {
        let bound = metrics::serve(address, Arc::clone(&metrics))?;
        eprintln!("metrics: http://{bound}/metrics");
    }
    match args.format {
        ForwardFormat::Atom => keep_feed(args, &stream, metrics, &interrupts),
        _ => send_requests(args, &environment, &stream, metrics, &interrupts),
    }
}

fn send_requests(
    args: ForwardArgs,
    environment: &ForwardEnvironment,
    stream: &ListenOptions,
    metrics: Arc<ForwardMetrics>,
    interrupts: &Interrupts,
) -> Result<(), Exit> {
    let since = args.since.clone().unwrap_or_else(|| "now".to_owned());
    let options = options::requests(args, environment)?;
    let (state, stored) = ForwardState::open(&options.state)?;
    let senders = Senders::start(options.receiver, options.limits.parallel)?;
    let versions = VersionMemory::new(&stored, random()?);
    let queue = options::queue(options.limits, stored);
    let mut resume = Resume::start(Some(&since), None)?;
    let mut webhooks = Webhooks::new(options.settings, (queue, versions), senders, state, metrics);
    for warning in stream.warnings() {
        webhooks.status(format_args!("warning: {warning}"));
    }
    let result = run_stream(stream, &mut webhooks, &mut resume, interrupts);
    let finished = webhooks.finish();
    result.and(finished)
}

fn keep_feed(
    args: ForwardArgs,
    stream: &ListenOptions,
    metrics: Arc<ForwardMetrics>,
    interrupts: &Interrupts,
) -> Result<(), Exit> {
    let settings = options::feed(args, stream)?;
    let mut feed = Feed::open(settings, metrics)?;
    for warning in stream.warnings() {
        feed.status(format_args!("warning: {warning}"));
    }
    let mut resume = Resume::start(feed.position().as_deref(), None)?;
    let result = run_stream(stream, &mut feed, &mut resume, interrupts);
    let finished = feed.finish();
    result.and(finished)
}

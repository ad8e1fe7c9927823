//! Resolves the arguments of `forward`: reads files and credentials, and checks combinations.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::ForwardArgs;
use super::atom::FeedHead;
use super::feed::FeedSettings;
use super::kept::KeptConnections;
use super::post::Receiver;
use super::queue::{Changes, Queue, QueueLimits};
use super::receiver_url::ReceiverUrl;
use super::signature::Secrets;
use super::webhooks::RequestSettings;
use crate::cli::listen::{ListenArgs, ListenOptions, Trust, unreadable};
use crate::exit::Exit;

/// The environment of the command.
pub(super) struct ForwardEnvironment {
    /// The token in the environment.
    pub token: Option<String>,
    /// The directory of systemd credentials.
    pub credentials: Option<PathBuf>,
}

impl ForwardEnvironment {
    /// Returns the credential with a name, if it exists. systemd adds the prefix to those in a
    /// directory, as in docs/systemd/h-realtime-forward@.service.
    fn credential(&self, name: &str) -> Option<PathBuf> {
        let folder = self.credentials.as_ref()?;
        let mut paths = [name.to_owned(), format!("forward_{name}")].into_iter();
        paths.find_map(|name| Some(folder.join(name)).filter(|path| path.exists()))
    }
}

/// Resolves the arguments of the connection to the server.
pub(super) fn stream(
    args: &mut ForwardArgs,
    environment: &ForwardEnvironment,
) -> Result<ListenOptions, Exit> {
    if args.filter.is_empty() {
        let message = "give at least one of --uri, --group, --id, --references, --user, --tag, \
                       --wildcard-uri, or --filter: otherwise, no annotations are forwarded";
        return Err(Exit::new(Exit::USAGE, message));
    }
    let token = environment.token.clone();
    let token_file = match (args.token_file.take(), &token) {
        (Some(file), _) => Some(file),
        (None, Some(_)) => None,
        (None, None) => environment.credential("token"),
    };
    let listen = ListenArgs {
        url: args.server.clone(),
        token: None,
        token_file,
        filter: std::mem::take(&mut args.filter),
        since: args.since.clone(),
        state: None,
        sse: false,
        ca_cert: args.ca_cert.clone(),
        count: None,
        client_id: None,
        no_reconnect: false,
    };
    ListenOptions::new(listen, token)
}

/// The resolved arguments for requests.
pub(super) struct RequestOptions {
    pub receiver: Receiver,
    pub settings: RequestSettings,
    pub limits: QueueLimits,
    pub state: PathBuf,
}

/// Resolves the arguments for requests.
pub(super) fn requests(
    args: ForwardArgs,
    environment: &ForwardEnvironment,
) -> Result<RequestOptions, Exit> {
    let usage = |message: String| Exit::new(Exit::USAGE, message);
    for (flag, is_given) in [
        ("--out", args.out.is_some()),
        ("--title", args.title.is_some()),
        ("--self-url", args.self_url.is_some()),
    ] {
        if is_given {
            return Err(usage(format!("{flag} requires --format atom")));
        }
    }
    let most = args.format.max_batch();
    let batch = usize::from(args.batch);
    if batch > most {
        return Err(usage(format!(
            "--batch: this format has at most {most} events"
        )));
    }
    let state = args.state.ok_or_else(|| {
        usage("--state is required: it keeps the position, so that no event is lost".to_owned())
    })?;
    let url = match (
        args.url,
        args.url_file.or_else(|| environment.credential("url")),
    ) {
        (Some(url), _) => url,
        (None, Some(file)) => read_text(&file)?,
        (None, None) => {
            return Err(usage(
                "give the receiver with --url or --url-file".to_owned(),
            ));
        }
    };
    let url = ReceiverUrl::parse(&url, args.insecure_http).map_err(usage)?;
    let secret = args.secret.or_else(|| environment.credential("secret"));
    let secrets = match secret {
        Some(file) => Some(read_secrets(&file)?),
        None => None,
    };
    let trust = match url.is_tls {
        true => Some(Trust::load(args.receiver_ca_cert.as_deref())?),
        false => None,
    };
    let parallel = args.parallel.map(usize::from);
    Ok(RequestOptions {
        settings: RequestSettings {
            format: args.format,
            is_batch: batch > 1,
            secrets,
            receiver: url.name(),
            dead_letter: args.dead_letter,
        },
        receiver: Receiver {
            url,
            trust,
            timeout: args.timeout,
            kept: KeptConnections::default(),
        },
        limits: QueueLimits {
            batch,
            batch_wait: match batch {
                1 => Duration::ZERO,
                _ => args.batch_wait,
            },
            parallel: parallel.unwrap_or(args.format.parallel()),
            retry_delay: args.retry_delay,
            give_up_after: args.give_up_after,
            pending: MAX_PENDING,
            pending_bytes: MAX_PENDING_BYTES,
            window: MAX_WINDOW,
        },
        state,
    })
}

/// Creates the queue from its stored content.
pub(super) fn queue(limits: QueueLimits, stored: Changes) -> Queue {
    Queue::new(limits, stored, Instant::now())
}

/// Resolves the arguments for a feed.
pub(super) fn feed(args: ForwardArgs, options: &ListenOptions) -> Result<FeedSettings, Exit> {
    let usage = |message: &str| Exit::new(Exit::USAGE, message);
    for (flag, is_given) in [
        ("--url", args.url.is_some() || args.url_file.is_some()),
        ("--secret", args.secret.is_some()),
        ("--batch", args.batch > 1),
        ("--parallel", args.parallel.is_some()),
        ("--dead-letter", args.dead_letter.is_some()),
    ] {
        if is_given {
            return Err(usage(&format!("{flag} does not apply to --format atom")));
        }
    }
    let out = args
        .out
        .ok_or_else(|| usage("--format atom requires --out FILE"))?;
    let state = args.state.unwrap_or_else(|| {
        let mut state = OsString::from(&out);
        state.push(".state");
        state.into()
    });
    if let Some(url) = &args.self_url
        && !["http://", "https://"]
            .iter()
            .any(|web| url.starts_with(web))
    {
        return Err(usage("--self-url: expected http://… or https://…"));
    }
    let (server, filter) = (options.server_name(), options.filter());
    Ok(FeedSettings {
        head: FeedHead::new(server, filter, args.title, args.self_url),
        entries: args.entries.into(),
        source: json!({"server": server, "filter": filter}),
        since: args.since,
        out,
        state,
    })
}

fn read_secrets(file: &Path) -> Result<Secrets, Exit> {
    let text = read_text(file)?;
    Secrets::parse(&text).map_err(|reason| {
        let message = format!("{}: {reason}", file.display());
        Exit::new(Exit::DATA, message)
    })
}

fn read_text(file: &Path) -> Result<String, Exit> {
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
    match opened.take(MAX_TEXT).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            let message = format!("{}: not a text file", file.display());
            Err(Exit::new(Exit::DATA, message))
        }
        Err(error) => Err(unreadable(file, &error)),
    }
}

/// The maximum number and size of events that are not acknowledged. Later ones stay in the server's
/// history.
const MAX_PENDING: usize = 10_000;
const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;
/// The maximum number of annotations with events behind the oldest one that is not acknowledged.
const MAX_WINDOW: usize = 65_536;
/// The maximum size of a file with a URL or secrets, in bytes.
const MAX_TEXT: u64 = 64 * 1024;

//! The arguments of `forward`, and its help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::format::ForwardFormat;
use crate::cli::filter_flags::FilterFlags;
use crate::config::parse_duration;

/// Arguments of `forward`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct ForwardArgs {
    /// The server: ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, or unix:/path/to.sock
    ///
    /// The default path is /ws. The default port is 80 for ws:// and 443 for wss://.
    #[arg(value_name = "SERVER")]
    pub(super) server: String,

    /// The receiver: https://HOST/PATH, or http:// on this host
    ///
    /// URLs of Slack and Discord are secrets, and other users of this host can see the command
    /// line: --url-file is safer. Only the host is shown in messages.
    #[arg(long, value_name = "URL", conflicts_with = "url_file")]
    pub(super) url: Option<String>,

    /// A file that contains the receiver's URL
    ///
    /// Without --url and --url-file, it is the systemd credential url.
    #[arg(long, value_name = "FILE")]
    pub(super) url_file: Option<PathBuf>,

    /// The form of the requests, or a feed
    #[arg(long, value_enum, default_value_t = ForwardFormat::Standard)]
    pub(super) format: ForwardFormat,

    /// The file that keeps the position, so that no event is lost across restarts
    ///
    /// It is required for requests. For a feed, the default is the name of --out with .state. If
    /// FILE does not exist, the command starts with --since, or now. FILE.lock keeps other
    /// processes from using FILE.
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,

    /// Sign requests with the secrets in FILE (whsec_…, one on each line)
    ///
    /// Each secret makes a signature, so that a receiver can change from one to the next. Without
    /// this option, the secrets are those of the systemd credential secret, if there is one. Create
    /// a secret with: echo "whsec_$(openssl rand -base64 32)"
    #[arg(long, value_name = "FILE")]
    pub(super) secret: Option<PathBuf>,

    /// A file that contains the access token
    ///
    /// The environment variable H_REALTIME_TOKEN and the systemd credential token may contain it
    /// instead. Without a token, the connection is anonymous.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) filter: FilterFlags,

    /// Start after this position if there is no state: now, a cursor, or a time in RFC 3339
    // A cursor may begin with a hyphen: it is base64 in its URL-safe alphabet.
    #[arg(long, value_name = "CURSOR|now|TIME", allow_hyphen_values = true)]
    pub(super) since: Option<String>,

    /// Send up to N events in one request, as an array
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) batch: u16,

    /// The time that an incomplete batch waits for more events
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(super) batch_wait: Duration,

    /// The maximum number of simultaneous requests (default: 4; for chats 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) parallel: Option<u8>,

    /// The timeout of a request
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub(super) timeout: Duration,

    /// The delay after the first failure; it doubles with each further one, up to 6 h
    ///
    /// Delays are random, between this one and twice as long. While the receiver as a whole does
    /// not work, it gets one request at a time, at least every 15 to 30 min.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(super) retry_delay: Duration,

    /// Give up an event that still fails at this time after its first failure
    #[arg(long, value_name = "DURATION", default_value = "3d", value_parser = duration)]
    pub(super) give_up_after: Duration,

    /// Append events that are given up to FILE, as lines of JSON
    #[arg(long, value_name = "FILE")]
    pub(super) dead_letter: Option<PathBuf>,

    /// Permit a receiver on another host without encryption
    #[arg(long)]
    pub(super) insecure_http: bool,

    /// Trust this CA or self-signed certificate (PEM) of the server instead of the system's CAs
    #[arg(long, value_name = "FILE")]
    pub(super) ca_cert: Option<PathBuf>,

    /// Trust this CA or self-signed certificate (PEM) of the receiver instead of the system's CAs
    #[arg(long, value_name = "FILE")]
    pub(super) receiver_ca_cert: Option<PathBuf>,

    /// Serve Prometheus metrics on this address, such as 127.0.0.1:9105
    #[arg(long, value_name = "ADDRESS")]
    pub(super) metrics: Option<SocketAddr>,

    /// With --format atom: the file of the feed, which is replaced atomically
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,

    /// With --format atom: the maximum number of entries
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) entries: u16,

    /// With --format atom: the title of the feed
    #[arg(long, value_name = "TEXT")]
    pub(super) title: Option<String>,

    /// With --format atom: the public address of the feed
    #[arg(long, value_name = "URL")]
    pub(super) self_url: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a duration such as 500ms, 20s, 5m, 2h, or 3d".to_owned()),
    }
}

const EXAMPLES: &str = "\
Examples:
  All annotations of a group to a program, with signatures:
    h-realtime forward wss://h.example.org/ws --group g1 --token-file token \\
      --url https://app.example.org/hook --secret secret --state g1.state
  To a channel of Slack, in messages of up to ten events:
    h-realtime forward ws://127.0.0.1:5001/ws --group __world__ --format slack --batch 10 \\
      --url-file slack.url --state slack.state
  The newest 50 annotations of a site as a feed:
    h-realtime forward ws://127.0.0.1:5001/ws --wildcard-uri 'https://example.org/*' \\
      --format atom --out /var/www/feed.atom

Every event is sent at least once, those of one annotation in order, and only while the user of the
token may read it: if an annotation is hidden, made private, or deleted before it was sent, its text
is not sent. Only a response with a status from 200 to 299 acknowledges a request. Others are
repeated, after --retry-delay to 6 h.

Exit codes: 0 SIGTERM, 64 usage error or filter rejected, 65 invalid filter, secret, or state file,
66 file unreadable, 68 the receiver responded with 410 Gone, 69 server unavailable or state file in
use, 74 file not writable, 76 cursor rejected, 77 permission denied, 78 no CA certificates, 130
Ctrl-C.";

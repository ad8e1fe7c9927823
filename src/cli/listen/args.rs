//! The arguments of `listen`, and its help.

use std::path::PathBuf;

use crate::cli::filter_flags::FilterFlags;

/// Arguments of `listen`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListenArgs {
    /// The server: ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, or unix:/path/to.sock
    ///
    /// The default path is /ws. The default port is 80 for ws:// and 443 for wss://. With --sse, the
    /// URL may begin with http:// or https:// instead, and the default path is /sse.
    pub(in crate::cli) url: String,

    /// The access token
    ///
    /// Other users of this host can see it in the process list: --token-file and the environment
    /// variable H_REALTIME_TOKEN are safer. Without a token, the connection is anonymous.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(in crate::cli) token: Option<String>,

    /// A file that contains the access token
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,

    #[command(flatten)]
    pub(in crate::cli) filter: FilterFlags,

    /// Start after this position: now, a cursor, or a time such as 2026-01-02T03:04:05Z
    ///
    /// Each event then has a cursor, its position in the server's history, as the member "cursor".
    /// After a reconnect, the server sends the matching events that the command has missed. A gap,
    /// if the history does not reach back far enough, is reported on standard error.
    // A cursor may begin with a hyphen: it is base64 in its URL-safe alphabet.
    #[arg(long, value_name = "CURSOR|now|TIME", allow_hyphen_values = true)]
    pub(in crate::cli) since: Option<String>,

    /// Keep the newest cursor in FILE, and continue there at the next start
    ///
    /// If FILE does not exist, the command starts with --since, or now. FILE is written after the
    /// events have been written to standard output: after a crash, some events are repeated, and
    /// none is lost. FILE.lock keeps other processes from using FILE.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) state: Option<PathBuf>,

    /// Receive Server-Sent Events over HTTP instead of using a WebSocket
    ///
    /// For networks whose proxies do not let WebSockets pass. The output is the same. The command
    /// requests /sse where the path of the URL is /ws. After a reconnect, it always continues at the
    /// last event. This requires a server with Server-Sent Events, and h has none. The filter is in the
    /// query, which has no form for --filter.
    #[arg(long, conflicts_with = "filter")]
    pub(in crate::cli) sse: bool,

    /// Trust this CA or self-signed certificate (PEM) instead of the system's CAs
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) ca_cert: Option<PathBuf>,

    /// Exit after N events, with exit code 0
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) count: Option<u64>,

    /// The client id; the server does not send events published with the same id
    ///
    /// The default is 32 random hexadecimal digits, the same for all connections of the command.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) client_id: Option<String>,

    /// Exit when the connection fails or ends
    ///
    /// The exit code is 0 after an orderly close (1000, 1001, or 1012) without --count, otherwise 69.
    #[arg(long)]
    pub(in crate::cli) no_reconnect: bool,
}

const EXAMPLES: &str = "\
Examples:
  All public annotations of one page:
    h-realtime listen ws://127.0.0.1:5001/ws --uri https://example.org/page
  As a user, the texts of annotations in two groups (with jq):
    H_REALTIME_TOKEN=… h-realtime listen wss://h.example.org/ws --group g1 --group g2 |
      jq -r '.payload[]?.text'
  All annotations of a group, without a loss across restarts of this command and of the server:
    h-realtime listen ws://127.0.0.1:5001/ws --group __world__ --state world.cursor >> world.jsonl
  The annotations of a site that have a tag, except your own:
    h-realtime listen wss://h.example.org/ws --wildcard-uri 'https://example.org/*' --tag review \\
      --all --not user=acct:me@h.example.org
  The same through a proxy that does not let WebSockets pass:
    h-realtime listen https://h.example.org/ --sse --wildcard-uri 'https://example.org/*' …
  Wait for the next reply to an annotation:
    h-realtime listen ws://127.0.0.1:5001/ws --references ID --count 1

The filter is active once the command prints \"connected as …\" or \"connected, anonymous\".

The command never continues with another identity: if the token expires or is revoked (close 3000),
or the server does not accept it, the command exits with 77. It also exits when standard output is
closed, and when the server rejects or does not understand the filter. Ctrl-C and SIGTERM close the
connection first; a second signal ends the command immediately.

Exit codes: 0 success, 64 usage error or filter rejected, 65 invalid filter file or damaged state
file, 66 file unreadable, 69 server unavailable or state file in use, 74 state file not writable, 76
cursor rejected, 77 permission denied, 78 no CA certificates, 130 Ctrl-C, 143 SIGTERM with --count
(0 without).";

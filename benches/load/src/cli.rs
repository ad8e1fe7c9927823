//! The command line. All counts and times are bounded.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::attack::Attack;

/// The maximum number of connections of one process: below a limit of 20,000 open files.
pub const MAX_CONNECTIONS: u64 = 19_000;

/// Loads a WebSocket server over loopback and reports the server's cost
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub mode: Mode,
}

#[derive(Subcommand)]
pub enum Mode {
    /// Holds idle connections: memory per connection, and CPU to keep them open
    Idle(Idle),
    /// Sends a message on each connection, waits for the response, and sends the next
    Echo(Echo),
    /// The same with several messages in one write (--depth)
    Pipelined(Echo),
    /// Publishes messages that are delivered to every connection
    FanOut(FanOut),
    /// Publishes messages that are delivered to one connection each
    Selective(FanOut),
    /// Opens connections and closes them as soon as they are open
    Handshake(Handshake),
    /// The same while an open client sends requests (--probe)
    Storm(Handshake),
    /// Sends hostile traffic and measures the service of well-behaved clients meanwhile
    Hostile(Hostile),
    /// Makes the server hold memory and compares its growth with the server's own accounting
    Hold(Hold),
    /// Holds connections and records when each numbered event arrives, until standard input ends
    Watch(Watch),
}

impl Mode {
    pub fn common(&self) -> &Common {
        match self {
            Mode::Idle(args) => &args.common,
            Mode::Echo(args) | Mode::Pipelined(args) => &args.common,
            Mode::FanOut(args) | Mode::Selective(args) => &args.common,
            Mode::Handshake(args) | Mode::Storm(args) => &args.common,
            Mode::Hostile(args) => &args.common,
            Mode::Hold(args) => &args.common,
            Mode::Watch(args) => &args.common,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Mode::Idle(_) => "idle",
            Mode::Echo(_) => "echo",
            Mode::Pipelined(_) => "pipelined",
            Mode::FanOut(_) => "fan-out",
            Mode::Selective(_) => "selective",
            Mode::Handshake(_) => "handshake",
            Mode::Storm(_) => "storm",
            Mode::Hostile(_) => "hostile",
            Mode::Hold(_) => "hold",
            Mode::Watch(_) => "watch",
        }
    }
}

#[derive(Args)]
pub struct Common {
    /// URL of the server: ws://HOST:PORT/PATH or wss://…
    pub url: String,
    /// Number of connections
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=MAX_CONNECTIONS))]
    pub connections: u64,
    /// Process id of the server, whose CPU and memory are read from /proc
    #[arg(long, conflicts_with = "server")]
    pub pid: Option<u32>,
    /// Command that runs the server (no shell; split at spaces); terminated afterwards
    #[arg(long)]
    pub server: Option<String>,
    /// Trusted certificates in PEM, required for wss://
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Maximum number of connections being opened at once
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub opening: u64,
    /// First message of each connection; {n} becomes its number, and {n%K} the remainder of its
    /// division by K, six digits. Can be repeated
    #[arg(long)]
    pub hello: Vec<String>,
    /// Number of responses to it on each connection
    #[arg(long, default_value_t = 0)]
    pub hello_answers: u32,
    /// Offer compression (permessage-deflate, without context takeover)
    #[arg(long)]
    pub deflate: bool,
    /// Busy-wait instead of sleeping, so that the server does not pay for waking this process
    #[arg(long)]
    pub spin: bool,
    /// Measure slices on command instead: each line on standard input is a duration in milliseconds
    #[arg(long, hide = true)]
    pub slices: bool,
    /// Number of source addresses to connect from for loopback targets: 127.0.1.1 and so on
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub sources: u64,
    /// Abort after this many seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=7200))]
    pub deadline: u64,
    /// Write the report as JSON to this file, or to standard output with -
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Allow a server on another machine. Only load servers that you operate
    #[arg(long)]
    pub allow_remote: bool,
}

/// An additional client that sends requests at a fixed interval and waits for each response.
#[derive(Args)]
pub struct Probe {
    /// Interval of an additional client's requests in milliseconds; 0 disables it
    #[arg(id = "probe", long = "probe", default_value_t = 0)]
    pub every_ms: u64,
    /// URL that it connects to, if different
    #[arg(id = "probe_url", long = "probe-url")]
    pub url: Option<String>,
    /// Message that it sends
    #[arg(
        id = "probe_message",
        long = "probe-message",
        default_value = "are you there?"
    )]
    pub message: String,
}

/// Additional clients that are idle except for pings, on a thread of their own.
#[derive(Args)]
pub struct Tail {
    /// Milliseconds between two pings of each additional idle client during the load; 0 for none
    #[arg(id = "tail", long = "tail", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub every_ms: u64,
    /// Number of these clients
    #[arg(id = "tail_clients", long = "tail-clients", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub clients: u64,
    /// Seconds for which they are connected before the load
    #[arg(id = "tail_calm", long = "tail-calm", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub calm: u64,
    /// URL that they connect to, if different
    #[arg(id = "tail_url", long = "tail-url")]
    pub url: Option<String>,
    /// Their ping; the server must send one message in response
    #[arg(id = "tail_message", long = "tail-message", default_value = crate::attack::PING)]
    pub message: String,
}

#[derive(Args)]
pub struct Idle {
    #[command(flatten)]
    pub common: Common,
    /// Seconds to hold them while the server's CPU is measured
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub hold: u64,
    /// Each connection first sends a message of this many bytes and waits for a response as long
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub large: u64,
    /// Close all connections at the end and read the server's memory again
    #[arg(long)]
    pub leave: bool,
    /// Seconds between closing and the last reading
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub settle: u64,
    #[command(flatten)]
    pub probe: Probe,
    #[command(flatten)]
    pub tail: Tail,
}

#[derive(Args)]
pub struct Echo {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub payload: Payload,
    /// Expected response; the message itself by default
    #[arg(long)]
    pub expect: Option<String>,
    /// Messages in one write [default: 1; pipelined: 16]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub depth: Option<u64>,
    /// Seconds to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Seconds before the measurement that are not counted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub warm_up: u64,
    /// Messages per second of all connections together; 0 sends as fast as responses arrive
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    #[command(flatten)]
    pub probe: Probe,
}

#[derive(Args)]
pub struct Payload {
    /// Text of the message
    #[arg(long)]
    pub message: Option<String>,
    /// Or its length in bytes
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=4 << 20))]
    pub size: u64,
}

impl Payload {
    /// Returns the text to send.
    pub fn text(&self) -> String {
        let size = usize::try_from(self.size).unwrap_or_default();
        let letters = ('a'..='z').cycle().take(size).collect();
        self.message.clone().unwrap_or(letters)
    }
}

#[derive(Args)]
pub struct FanOut {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub payload: Payload,
    /// Publish by POST to this URL, one event per line; otherwise a client publishes with a message
    #[arg(long)]
    pub publish: Option<String>,
    /// File with the key for `Authorization: Bearer`
    #[arg(long, requires = "publish")]
    pub key: Option<PathBuf>,
    /// The event; {n} becomes its number (selective: the number of the receiving connection)
    #[arg(long, requires = "publish")]
    pub event: Option<String>,
    /// Number of rounds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rounds: u64,
    /// Messages published at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub burst: u64,
    /// Milliseconds between rounds
    #[arg(long, default_value_t = 0)]
    pub pause: u64,
    #[command(flatten)]
    pub probe: Probe,
    #[command(flatten)]
    pub tail: Tail,
}

#[derive(Args)]
pub struct Handshake {
    #[command(flatten)]
    pub common: Common,
    /// Maximum number of handshakes in progress
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub concurrent: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Seconds before the measurement that are not counted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub warm_up: u64,
    /// Resume earlier TLS sessions
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub probe: Probe,
    #[command(flatten)]
    pub tail: Tail,
}

#[derive(Args)]
pub struct Hostile {
    #[command(flatten)]
    pub common: Common,
    /// Traffic of the connections
    #[arg(long, value_enum)]
    pub attack: Attack,
    /// Bytes per second of each connection: 100KB, 64KiB, 1MB
    #[arg(long, default_value = "100KB", value_parser = bytes)]
    pub rate: u64,
    /// Seconds to attack
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Attackers do not read the server's output
    #[arg(long)]
    pub unread: bool,
    /// Target of tls-handshakes: wss://HOST:PORT/PATH
    #[arg(long)]
    pub tls_url: Option<String>,
    #[command(flatten)]
    pub latency: LatencyArgs,
}

/// The well-behaved clients that measure latency.
#[derive(Args)]
pub struct LatencyArgs {
    /// Well-behaved clients that send pings
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub clients: u64,
    /// Milliseconds between two pings of each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub ping_every: u64,
    /// Milliseconds between two new clients
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub handshake_every: u64,
    /// Publish to the admin interface at http://HOST:PORT, whose metrics are read as well
    #[arg(long)]
    pub publish: Option<String>,
    /// File with the publish key, also used to read the metrics
    #[arg(long, requires = "publish")]
    pub key_file: Option<PathBuf>,
    /// Milliseconds between two events
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub publish_every: u64,
    /// Seconds before the load, for comparison
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub calm: u64,
    /// Seconds to wait for outstanding responses after the load
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub grace: u64,
}

#[derive(Args)]
pub struct Hold {
    #[command(flatten)]
    pub common: Common,
    /// Kind of memory that the server is made to hold
    #[arg(long, value_enum)]
    pub scenario: Scenario,
    /// events: size of each (at most 1 MiB with its request)
    #[arg(long, default_value = "900KB", value_parser = bytes)]
    pub event_size: u64,
    /// events: total number
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub events: u64,
    /// events: number published at once, before any of them has arrived everywhere
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub burst: u64,
    /// Time limit in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    #[command(flatten)]
    pub latency: LatencyArgs,
}

#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    pub common: Common,
    /// Number of the first connection, for {n} in --hello
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Text before the number of an event, which has six digits
    #[arg(long, default_value = "event-")]
    pub marker: String,
}

/// The kind of memory that the server is made to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Large public events for receivers that read promptly
    Events,
    /// Replies of which each connection leaves a small remainder unread
    UnreadReplies,
    /// TLS records that are never completed, beside clients that send large messages (wss://)
    PartialRecords,
    /// A filter with 200 different values on each connection
    Filters,
}

/// Parses a number of bytes with an optional unit: KB, KiB, MB, or MiB.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("B", 1),
    ];
    let found = units
        .iter()
        .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (digits, size) = found.unwrap_or((text, 1));
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("{text}: expected a number of bytes such as 100KB"))?;
    number
        .checked_mul(size)
        .ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_mode_parses() {
        Cli::command().debug_assert();
        for mode in [
            "idle",
            "echo",
            "pipelined",
            "fan-out",
            "selective",
            "handshake",
            "storm",
        ] {
            assert!(
                Cli::try_parse_from(["load", mode, "ws://127.0.0.1:1/"]).is_ok(),
                "{mode}"
            );
        }
        for words in [
            "hostile --attack mixed --rate 1MB",
            "hold --scenario events",
            "watch --first 19000",
        ] {
            let words = ["load"].into_iter().chain(words.split(' '));
            assert!(Cli::try_parse_from(words.chain(["ws://127.0.0.1:1/"])).is_ok());
        }
    }

    #[test]
    fn sizes_accept_units() {
        for (text, size) in [("7", 7), ("7B", 7), ("100KB", 100_000), ("2 MiB", 2 << 20)] {
            assert_eq!(bytes(text), Ok(size));
        }
        for text in ["", "KB", "1GB", "-1KB", "99999999999999MiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

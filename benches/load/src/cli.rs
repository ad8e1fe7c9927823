//! What can be asked for. Everything has a bound, in count and in time.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::attack::Attack;

/// The most connections of one process: what a limit of 20,000 open files leaves.
pub const MOST_CONNECTIONS: u64 = 19_000;

/// Loads a WebSocket server over loopback, and says what that cost it.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub mode: Mode,
}

#[derive(Subcommand)]
pub enum Mode {
    /// Holds idle connections: memory of each, and what it costs to hold them
    Idle(Idle),
    /// Sends a message on each connection, awaits the answer, and sends the next
    Echo(Echo),
    /// The same with several messages in one write (--depth)
    Pipelined(Echo),
    /// One message published, delivered to every connection
    FanOut(FanOut),
    /// Each message published is for one connection only
    Selective(FanOut),
    /// Opens connections, and ends them as soon as they are open
    Handshake(Handshake),
    /// The same, while an open client asks for answers (--probe)
    Storm(Handshake),
    /// Sends hostile traffic, and measures the service of well-behaved clients meanwhile
    Hostile(Hostile),
    /// Makes the server hold memory, and compares its growth with the server's own account
    Hold(Hold),
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
        }
    }
}

#[derive(Args)]
pub struct Common {
    /// Where the server is: ws://HOST:PORT/PATH or wss://…
    pub url: String,
    /// How many connections
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=MOST_CONNECTIONS))]
    pub connections: u64,
    /// Process id of the server, whose CPU and memory are read from /proc
    #[arg(long, conflicts_with = "server")]
    pub pid: Option<u32>,
    /// Command that runs the server (no shell; words split at spaces); ended afterwards
    #[arg(long)]
    pub server: Option<String>,
    /// Certificates that are trusted, in PEM: needed for wss://
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// How many connections are being opened at once
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub opening: u64,
    /// What each connection says first; {n} becomes its number, six digits. Can be repeated
    #[arg(long)]
    pub hello: Vec<String>,
    /// How many messages answer that, of each connection
    #[arg(long, default_value_t = 0)]
    pub hello_answers: u32,
    /// Offer compression (permessage-deflate, without context takeover)
    #[arg(long)]
    pub deflate: bool,
    /// Do not sleep while waiting, so that the server pays for no wake-up of this process
    #[arg(long)]
    pub spin: bool,
    /// Source addresses to connect from, for loopback targets: 127.0.1.1 and so on
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub sources: u64,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=7200))]
    pub deadline: u64,
    /// Write the report as JSON to this file, or to standard output with -
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Allow a server on another machine. Only load servers that are yours
    #[arg(long)]
    pub allow_remote: bool,
}

/// A client of its own that asks and awaits an answer all the while.
#[derive(Args)]
pub struct Probe {
    /// Another client asks every so many milliseconds; 0 is none
    #[arg(id = "probe", long = "probe", default_value_t = 0)]
    pub every_ms: u64,
    /// Where it connects to, if not to the same URL
    #[arg(id = "probe_url", long = "probe-url")]
    pub url: Option<String>,
    /// What it says
    #[arg(
        id = "probe_message",
        long = "probe-message",
        default_value = "are you there?"
    )]
    pub message: String,
}

#[derive(Args)]
pub struct Idle {
    #[command(flatten)]
    pub common: Common,
    /// Seconds to hold them, during which the server's CPU is measured
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub hold: u64,
    /// Each connection first sends a message of this many bytes, and awaits one as an answer
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub large: u64,
    /// In the end all connections go, and the server's memory is read again
    #[arg(long)]
    pub leave: bool,
    /// Seconds from that to the last reading
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub settle: u64,
}

#[derive(Args)]
pub struct Echo {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub payload: Payload,
    /// What must come back; the same, if not given
    #[arg(long)]
    pub expect: Option<String>,
    /// Messages in one write [default: 1; pipelined: 16]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub depth: Option<u64>,
    /// Seconds to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub warm_up: u64,
    /// Messages a second, of all connections together; 0 is as fast as answers come
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    #[command(flatten)]
    pub probe: Probe,
}

#[derive(Args)]
pub struct Payload {
    /// The message's text
    #[arg(long)]
    pub message: Option<String>,
    /// Or the length of one, in bytes
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub size: u64,
}

impl Payload {
    /// The text to send.
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
    /// Publish by POST to this URL, one event a line; else a client publishes by a message
    #[arg(long)]
    pub publish: Option<String>,
    /// File with the key for `Authorization: Bearer`
    #[arg(long, requires = "publish")]
    pub key: Option<PathBuf>,
    /// The event; {n} becomes its number (selective: that of the connection it is for)
    #[arg(long, requires = "publish")]
    pub event: Option<String>,
    /// How many times
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
}

#[derive(Args)]
pub struct Handshake {
    #[command(flatten)]
    pub common: Common,
    /// How many are under way at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub concurrent: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub warm_up: u64,
    /// Resume earlier TLS sessions
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub probe: Probe,
}

#[derive(Args)]
pub struct Hostile {
    #[command(flatten)]
    pub common: Common,
    /// Traffic of the connections
    #[arg(long, value_enum)]
    pub attack: Attack,
    /// Bytes a second of each connection: 100KB, 64KiB, 1MB
    #[arg(long, default_value = "100KB", value_parser = bytes)]
    pub rate: u64,
    /// Seconds to attack
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Attackers do not read the output of the server
    #[arg(long)]
    pub unread: bool,
    /// Where tls-handshakes connect to: wss://HOST:PORT/PATH
    #[arg(long)]
    pub tls_url: Option<String>,
    #[command(flatten)]
    pub witness: Witness,
}

/// The well-behaved clients that measure their service.
#[derive(Args)]
pub struct Witness {
    /// Well-behaved clients that ping
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
    /// File with the publish key, which the metrics need as well
    #[arg(long, requires = "publish")]
    pub key_file: Option<PathBuf>,
    /// Milliseconds between two events
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub publish_every: u64,
    /// Seconds before the load, for comparison
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub calm: u64,
    /// Seconds that answers are awaited after the load
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
    /// events: how large each is (at most 1 MiB with its request)
    #[arg(long, default_value = "900KB", value_parser = bytes)]
    pub event_size: u64,
    /// events: how many are published
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub events: u64,
    /// events: how many are published at once, before all of them have arrived
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub burst: u64,
    /// Seconds that everything may take
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    #[command(flatten)]
    pub witness: Witness,
}

/// The memory that a server is made to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Large public events for receivers that all read promptly
    Events,
    /// Replies of which each connection leaves a small rest unread
    UnreadReplies,
    /// TLS records that are never completed, beside clients that send large messages (wss://)
    PartialRecords,
    /// A filter of 200 different values on each connection
    Filters,
}

/// Reads a number of bytes, which may end in KB, KiB, MB or MiB.
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
        .map_err(|_| format!("{text}: expected a number of bytes, as 100KB"))?;
    number
        .checked_mul(size)
        .ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_mode_can_be_called() {
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
        ] {
            let words = ["load"].into_iter().chain(words.split(' '));
            assert!(Cli::try_parse_from(words.chain(["ws://127.0.0.1:1/"])).is_ok());
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in [("7", 7), ("7B", 7), ("100KB", 100_000), ("2 MiB", 2 << 20)] {
            assert_eq!(bytes(text), Ok(size));
        }
        for text in ["", "KB", "1GB", "-1KB", "99999999999999MiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

//! What can be asked for. Everything has a bound, in count and in time.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
}

impl Mode {
    pub fn common(&self) -> &Common {
        match self {
            Mode::Idle(args) => &args.common,
            Mode::Echo(args) | Mode::Pipelined(args) => &args.common,
            Mode::FanOut(args) | Mode::Selective(args) => &args.common,
            Mode::Handshake(args) | Mode::Storm(args) => &args.common,
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
    }
}

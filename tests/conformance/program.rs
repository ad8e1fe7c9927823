//! The program: plays the transcripts that a server can serve, checks the extensions, and reports.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::differences;
use super::extensions::{self, Support};
use super::player::{Message, Player, World};
use super::session::Session;
use super::tally::{Tally, Verdict};
use super::target::Target;
use super::transcript::{self, Needs, Transcript};

/// Checks whether a server of the Hypothesis Real Time API behaves like h.
///
/// The program sends the recorded input of clients of h to the server, and compares the output. It
/// then checks which extensions of h-realtime the server supports. The server is not changed, except
/// with --admin and --publish-key: then annotations are published and deleted.
#[derive(clap::Parser)]
#[command(name = "api_conformance", after_help = EXIT_CODES)]
pub struct Arguments {
    /// The server: ws://HOST:PORT/ws or wss://HOST/ws
    #[arg(value_parser = |url: &str| Target::parse(url).map(|_| url.to_owned()))]
    pub url: String,

    /// The server has the users and tokens of tests/data/h/seed.sql
    #[arg(long)]
    pub seeded: bool,

    /// An access token of any user
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: Option<String>,

    /// Trust this CA or self-signed certificate (PEM) instead of the system's CAs
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,

    /// The admin listener, where annotations are published: http://HOST:PORT/
    #[arg(long, value_name = "URL", requires = "publish_key")]
    pub admin: Option<String>,

    /// The publish key
    // A key may begin with a hyphen: it is base64 in its URL-safe alphabet.
    #[arg(
        long,
        value_name = "KEY",
        requires = "admin",
        allow_hyphen_values = true
    )]
    pub publish_key: Option<String>,

    /// The output that is expected in transcripts with an intended difference
    #[arg(long, value_enum, default_value_t = Like::Either)]
    pub like: Like,

    /// Run also the transcripts that wait for minutes
    #[arg(long)]
    pub slow: bool,

    /// Wait for so many seconds after each step, for a server without an order of its output
    #[arg(long, value_name = "SECONDS")]
    pub settle: Option<f64>,

    /// The time within which the server must answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,

    /// Print all transcripts, not only those that differ
    #[arg(long)]
    pub verbose: bool,
}

/// The expected output in transcripts with an intended difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Like {
    /// That of h
    H,
    /// That of h-realtime
    HRealtime,
    /// Either of both
    Either,
}

const EXIT_CODES: &str = "\
Examples:
  A server without data:
    cargo run --example api_conformance -- ws://127.0.0.1:5001/ws
  h-realtime with its default configuration, including delivery:
    cargo run --example api_conformance -- ws://127.0.0.1:5001/ws --admin http://127.0.0.1:5002/ \\
      --publish-key \"$(cat data/publish.key)\"

Exit codes: 0 if nothing is wrong, 1 otherwise, 2 for a usage error.";

/// Runs the program. Returns whether nothing is wrong.
///
/// # Errors
/// The output cannot be written.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> io::Result<bool> {
    let mut target = match Target::parse(&arguments.url) {
        Ok(target) => target,
        Err(problem) => {
            writeln!(out, "{problem}")?;
            return Ok(false);
        }
    };
    target.patience = Duration::from_secs(arguments.timeout);
    target.ca_cert.clone_from(&arguments.ca_cert);
    // All transcripts would fail for the same reason.
    let reachable = Session::anonymous(&target).and_then(|mut session| session.ask(&Value::Null));
    if let Err(failure) = reachable {
        writeln!(out, "not a server of the API: {failure}")?;
        return Ok(false);
    }
    let tally = play(arguments, &target, out)?;
    let mut counts = [0; 4];
    for check in extensions::all() {
        let support = check.run(arguments, &target);
        let (at, word, detail) = match &support {
            Support::Supported => (0, "supported", ""),
            Support::NotSupported => (1, "not supported", ""),
            Support::Wrong(failure) => (2, "WRONG", failure.as_str()),
            Support::Unchecked(reason) => (3, "not checked", *reason),
        };
        counts[at] += 1;
        let separator = if detail.is_empty() { "" } else { ": " };
        writeln!(out, "extension: {}: {word}{separator}{detail}", check.name)?;
    }
    let [supported, unsupported, wrong, unchecked] = counts;
    writeln!(
        out,
        "recordings of h: {} equal, {} intended differences, {} wrong, {} skipped",
        tally.same,
        tally.intended,
        tally.wrong,
        tally.left_out.len()
    )?;
    writeln!(
        out,
        "extensions: {supported} supported, {unsupported} not supported, {wrong} wrong, \
         {unchecked} not checked"
    )?;
    Ok(tally.wrong == 0 && wrong == 0)
}

/// Plays the transcripts.
fn play(arguments: &Arguments, target: &Target, out: &mut dyn Write) -> io::Result<Tally> {
    let mut tally = match arguments.like {
        Like::H => Tally::new(differences::none()),
        Like::HRealtime => Tally::new(differences::of_the_program()),
        Like::Either => Tally::lenient(differences::of_the_program()),
    };
    let settle = arguments.settle.map(Duration::from_secs_f64);
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    let mut intended: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for transcript in transcript::all() {
        let name = &transcript.name;
        if let Some(reason) = reason_to_skip(arguments, &transcript) {
            *skipped.entry(reason).or_default() += 1;
            tally.skip(&transcript, reason);
            continue;
        }
        let found = Player::new(target, &NoWorld, settle).find(&transcript);
        match tally.count(&transcript, found) {
            Verdict::Same if arguments.verbose => writeln!(out, "equal: {name}")?,
            Verdict::Same => {}
            Verdict::Intended(reason) => intended.entry(reason).or_default().push(name.clone()),
            Verdict::Wrong(text) => writeln!(out, "WRONG: {}", text.trim_end())?,
        }
    }
    for (reason, names) in intended {
        writeln!(out, "intended: {reason}\n  {}", names.join(" "))?;
    }
    for (reason, count) in skipped {
        writeln!(out, "skipped: {count}: {reason}")?;
    }
    Ok(tally)
}

fn reason_to_skip(arguments: &Arguments, transcript: &Transcript) -> Option<&'static str> {
    match transcript.needs {
        Needs::Nothing => None,
        Needs::Users if arguments.seeded => None,
        Needs::Users => Some("the users and tokens of tests/data/h/seed.sql are needed (--seeded)"),
        Needs::Database => Some(
            "h's database and message queue are needed (tests/api/conformance/mod.rs describes how)",
        ),
        Needs::Minutes if arguments.slow => None,
        Needs::Minutes => Some("they wait for minutes (--slow)"),
        Needs::OwnServer => Some("a server with other settings or an own message queue is needed"),
    }
}

/// A server whose data cannot be changed.
pub struct NoWorld;

impl World for NoWorld {
    fn publish(&self, _: &str, _: &[Message]) {
        unreachable!("transcripts with events are skipped")
    }

    fn change(&self, _: &str) {
        unreachable!("transcripts with changes are skipped")
    }

    fn restart_broker(&self) {
        unreachable!("transcripts with a broker are skipped")
    }

    fn terminate(&self) {
        unreachable!("transcripts that end the server are skipped")
    }

    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }
}

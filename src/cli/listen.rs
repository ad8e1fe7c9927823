//! `h-realtime listen`: an ordinary client that prints the events it receives, and reconnects.
//!
//! Owns: the command line, and the loop that reconnects. All decisions are pure functions in the
//! modules below: the URL, the messages, the delays. No part depends on the server of this crate:
//! the client works with any server of the Real Time API.

mod connect;
mod handshake;
mod interrupt;
mod messages;
mod meter;
mod pulse;
mod retry;
mod session;
mod target;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tungstenite::http::HeaderValue;

use self::connect::Refused;
use self::interrupt::Interrupts;
use self::messages::Wanted;
use self::retry::Retry;
use self::session::{End, Lost, Session};
use self::target::{Target, Way};
use self::tls::Trust;
use super::exit::Exit;
use crate::config::TOKEN_VARIABLE;

/// Listens to a server and prints each event as one line of JSON
///
/// Events (annotations created, updated and deleted, changes of your groups) go to standard
/// output, everything else to standard error. A lost connection is made again, with growing and
/// random delays, until the command is ended with Ctrl-C; events of the time between are lost.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ListenArgs {
    /// The server: ws://HOST:PORT/PATH, wss://HOST:PORT/PATH or unix:/path/to.sock
    ///
    /// Without a path, /ws is meant; without a port, 80 for ws:// and 443 for wss://.
    pub url: String,

    /// Who you are: an access token
    ///
    /// Other users of this machine can read it in the list of processes: --token-file or the
    /// environment variable H_REALTIME_TOKEN is safer. Without any token you are anonymous.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,

    /// A file that holds the access token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Annotations of this document (may be repeated; so may the next three)
    ///
    /// An annotation is wanted when any one of all these options fits.
    #[arg(long, value_name = "URI")]
    pub uri: Vec<String>,

    /// Annotations in this group, e.g. __world__
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,

    /// The annotation with this ID
    // An ID may begin with a hyphen: it is base64 in its URL-safe alphabet.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub id: Vec<String>,

    /// Replies to the annotation with this ID
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub references: Vec<String>,

    /// Trust this CA or self-signed certificate (PEM) instead of the system's CAs
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,

    /// End after N events, with exit code 0
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// The client ID to give; events published with the same one are not sent to you
    ///
    /// Without it, 32 random hexadecimal digits, the same for the whole run.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,

    /// End when the connection ends or cannot be made
    ///
    /// The exit code is then 0 after an orderly end (close 1000, 1001 or 1012) unless --count is
    /// given, else 69.
    #[arg(long)]
    pub no_reconnect: bool,
}

/// Prints events until interrupted: see [`ListenArgs`].
///
/// # Errors
/// 64 and 66 for unusable arguments and files, 77 and 69 for a server that rejects the client
/// permanently. With `--no-reconnect`, also for a server that is unavailable or closes the
/// connection.
pub fn run(args: ListenArgs) -> Result<(), Exit> {
    // With `--count`, a SIGTERM before the last event is a failure: the command is incomplete.
    let on_term = args.count.map_or(0, |_| Exit::TERMINATED);
    let interrupts = Interrupts::catch(on_term)
        .map_err(|error| Exit::new(Exit::OS, format!("signals: {error}")))?;
    let token = std::env::var(TOKEN_VARIABLE).ok();
    let plan = Plan::new(args, token)?;
    let stdout = io::stdout();
    let console = Console {
        events: &mut stdout.lock(),
        output: Some(stdout.as_fd()),
        status: &mut io::stderr(),
    };
    listen(&plan, console, &interrupts)
}

/// The resolved arguments.
struct Plan {
    target: Target,
    token: Option<HeaderValue>,
    /// Present for `wss://` only.
    trust: Option<Trust>,
    /// The messages to send on each new connection, in order.
    opening: Vec<String>,
    count: Option<u64>,
    reconnect: bool,
    /// Warnings to print at the start.
    warnings: Vec<&'static str>,
}

impl Plan {
    fn new(args: ListenArgs, variable: Option<String>) -> Result<Self, Exit> {
        let target = Target::parse(&args.url).map_err(|why| Exit::new(Exit::USAGE, why))?;
        let trust = match target.way {
            Way::Tls { .. } => Some(Trust::load(args.ca_cert.as_deref())?),
            Way::Tcp { .. } | Way::Unix(_) => None,
        };
        let token = token(args.token, args.token_file, variable)?;
        let client_id = match args.client_id {
            Some(id) => id,
            None => format!("{:016x}{:016x}", random()?, random()?),
        };
        let wanted = Wanted {
            uri: args.uri,
            group: args.group,
            id: args.id,
            references: args.references,
        };
        let mut warnings = Vec::new();
        if wanted.is_nothing() {
            warnings.push(
                "no --uri, --group, --id or --references: only session-change events will come",
            );
        }
        if token.is_some() && target.has_token {
            warnings.push("the access_token in the URL wins over the other token");
        }
        Ok(Plan {
            opening: messages::opening(&client_id, &wanted),
            target,
            token,
            trust,
            count: args.count,
            reconnect: !args.no_reconnect,
            warnings,
        })
    }

    /// Returns whether the client presents a token.
    fn has_token(&self) -> bool {
        self.token.is_some() || self.target.has_token
    }
}

fn token(
    argument: Option<String>,
    file: Option<PathBuf>,
    variable: Option<String>,
) -> Result<Option<HeaderValue>, Exit> {
    let token = match (argument, file) {
        (Some(token), _) => token,
        (None, Some(file)) => fs::read_to_string(&file)
            .map_err(|error| Exit::new(Exit::NO_INPUT, format!("{}: {error}", file.display())))?,
        (None, None) => match variable {
            Some(token) => token,
            None => return Ok(None),
        },
    };
    let unfit = || {
        Exit::new(
            Exit::USAGE,
            "the token is empty, or has characters that no token has",
        )
    };
    let token = token.trim();
    if token.is_empty() {
        return Err(unfit());
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unfit())?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Connects repeatedly, until an end is final.
fn listen(plan: &Plan, mut console: Console<'_>, interrupts: &Interrupts) -> Result<(), Exit> {
    for warning in &plan.warnings {
        console.say(format_args!("warning: {warning}"));
    }
    let mut left = plan.count;
    let mut retry = Retry::new();
    // A server that has accepted a connection before may do so again.
    let mut has_connected = false;
    loop {
        let (lost, lasted) = match connect::connect(plan) {
            Ok(socket) => {
                has_connected = true;
                let since = Instant::now();
                let session = Session {
                    socket,
                    plan,
                    left: &mut left,
                    console: &mut console,
                    interrupts,
                    is_open: false,
                };
                interrupts.defer();
                let end = session.run();
                interrupts.resume();
                match end? {
                    End::Done => return Ok(()),
                    End::Interrupted => return interrupts.result(),
                    End::Lost(lost) => (lost, since.elapsed()),
                }
            }
            Err(Refused::Final(exit)) => return Err(exit),
            Err(Refused::Unfit(reason)) if !has_connected => {
                let message = format!("{}: {reason}", plan.target.name);
                return Err(Exit::new(Exit::UNAVAILABLE, message));
            }
            Err(Refused::Unfit(reason)) => (Lost::broken(reason), Duration::ZERO),
            Err(Refused::ForNow { reason, after }) => {
                let lost = Lost {
                    after,
                    ..Lost::broken(reason)
                };
                (lost, Duration::ZERO)
            }
        };
        if interrupts.received() {
            return interrupts.result();
        }
        if !plan.reconnect || lost.code == Some(CREDENTIALS_ENDED) {
            return ended(lost, plan);
        }
        let delay = retry.next(lasted, lost.code, lost.after, random()?);
        console.say(format_args!(
            "reconnecting in {:.1} s: {}",
            delay.as_secs_f64(),
            lost.reason
        ));
        if !console.pause(delay) {
            return Ok(());
        }
    }
}

/// Returns the result of the command when it does not reconnect.
fn ended(lost: Lost, plan: &Plan) -> Result<(), Exit> {
    let (name, reason) = (&plan.target.name, lost.reason);
    match lost.code {
        Some(1000 | 1001 | 1012) if plan.count.is_none() => Ok(()),
        // Without the token, the next connection would be anonymous, or another user's.
        Some(CREDENTIALS_ENDED) => {
            let message = format!("{name}: {reason}. The token no longer works: get another one");
            Err(Exit::new(Exit::NO_PERMISSION, message))
        }
        _ => Err(Exit::new(Exit::UNAVAILABLE, format!("{name}: {reason}"))),
    }
}

/// The output of the command.
struct Console<'a> {
    events: &'a mut dyn Write,
    /// The descriptor of `events`, which shows when the reader has closed it.
    output: Option<BorrowedFd<'a>>,
    status: &'a mut dyn Write,
}

impl Console<'_> {
    /// Prints an event. Returns false if the reader has closed the output.
    fn event(&mut self, line: &str) -> Result<bool, Exit> {
        let written = writeln!(self.events, "{line}").and_then(|()| self.events.flush());
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Exit::new(Exit::IO, format!("standard output: {error}"))),
        }
    }

    /// Waits. Returns false as soon as the reader has closed the output.
    fn pause(&self, delay: Duration) -> bool {
        let end = Instant::now() + delay;
        let Some(output) = self.output else {
            thread::sleep(delay);
            return true;
        };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let mut fds = [PollFd::from_borrowed_fd(output, PollFlags::empty())];
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return false,
                Err(_) => {
                    thread::sleep(left);
                    return true;
                }
            }
        }
    }

    /// Prints a status message. A closed standard error does not end the command.
    fn say(&mut self, line: impl fmt::Display) {
        let _ = writeln!(self.status, "{line}");
    }
}

fn random() -> Result<u64, Exit> {
    getrandom::u64().map_err(|error| Exit::new(Exit::OS, format!("no random numbers: {error}")))
}

/// Replaces [`Trust`] in builds without TLS, as a type without values.
#[cfg(not(feature = "tls"))]
mod tls {
    use std::net::TcpStream;
    use std::path::Path;
    use std::time::Instant;

    use super::connect::{Refused, Stream};
    use crate::cli::exit::Exit;

    pub(super) enum Trust {}

    impl Trust {
        pub(super) fn load(_ca: Option<&Path>) -> Result<Self, Exit> {
            Err(Exit::new(Exit::USAGE, "this program was built without TLS"))
        }

        pub(super) fn wrap(
            &self,
            _: TcpStream,
            _: &str,
            _: &str,
            _: Instant,
        ) -> Result<Box<dyn Stream>, Refused> {
            match *self {}
        }
    }
}

/// The close code of this API for an expired or revoked token.
const CREDENTIALS_ENDED: u16 = 3000;

const EXAMPLES: &str = "\
Examples:
  Everything public on one page:
    h-realtime listen ws://127.0.0.1:5001/ws --uri https://example.org/page
  As a user, in two groups, only the texts (with jq):
    H_REALTIME_TOKEN=… h-realtime listen wss://h.example.org/ws --group g1 --group g2 |
      jq -r '.payload[]?.text'
  Wait for the next reply to an annotation, then go on:
    h-realtime listen ws://127.0.0.1:5001/ws --references ID --count 1

Once \"connected as …\" or \"connected, anonymous\" is said, the filter is in place.

The command never goes on as somebody else: when the token has ended (close 3000), or the server
takes it for none, it ends with 77. It also ends when nobody reads standard output any more, and
when the server refuses the filter. Ctrl-C and SIGTERM close the connection first; a second one
ends the command at once.

Exit codes: 0 ended as asked, 64 wrong usage or a filter that the server refuses, 66 a file cannot
be read, 69 no such server, 77 not allowed, 78 no CA certificates, 130 ended by Ctrl-C. SIGTERM
leads to 0, or with --count to 143.";

#[cfg(test)]
mod tests;

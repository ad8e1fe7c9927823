//! `h-realtime listen`: an ordinary client that prints what it hears and comes back when cut.
//!
//! This file owns the command line and the loop of connections. The parts that decide anything
//! are pure and stand in the modules below: the URL, the messages, the delays. None of this
//! knows the server of this crate: it speaks to any server of the Real Time API.

mod connect;
mod messages;
mod target;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::Message;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use self::connect::{Refused, Socket};
use self::messages::{Heard, Wanted};
use self::target::{Target, Way};
use self::tls::Trust;
use super::exit::Exit;
use super::text::printable;
use crate::backoff::Backoff;
use crate::config::TOKEN_VARIABLE;

/// Listens to a server and prints each event as one line of JSON
///
/// Events (annotations created, updated and deleted, changes of your groups) go to standard
/// output, everything else to standard error. A lost connection is made again until the command
/// is ended with Ctrl-C; events of the time between are lost.
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
    /// given, 77 when the server no longer accepts the token (close 3000), else 69.
    #[arg(long)]
    pub no_reconnect: bool,
}

/// Listens until told to end: see [`ListenArgs`].
///
/// # Errors
/// 64 and 66 for arguments and files that are no use, 77 and 69 for a server that refuses for
/// good; with `--no-reconnect` also for one that is not there or goes away.
pub fn run(args: ListenArgs) -> Result<(), Exit> {
    let token = std::env::var(TOKEN_VARIABLE).ok();
    let plan = Plan::new(args, token)?;
    let console = Console {
        events: &mut io::stdout().lock(),
        status: &mut io::stderr(),
    };
    listen(&plan, console)
}

/// What the arguments mean.
struct Plan {
    target: Target,
    token: Option<HeaderValue>,
    /// There for `wss://` only.
    trust: Option<Trust>,
    /// The messages to send on each new connection, in order.
    opening: Vec<String>,
    count: Option<u64>,
    reconnect: bool,
    /// What a person should know before it starts.
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

/// One connection after the other, until an end that is final.
fn listen(plan: &Plan, mut console: Console<'_>) -> Result<(), Exit> {
    for warning in &plan.warnings {
        console.say(format_args!("warning: {warning}"));
    }
    let mut left = plan.count;
    let mut backoff = Backoff::new(SHORTEST_DELAY, LONGEST_DELAY);
    loop {
        let (lost, lasted) = match connect::connect(plan) {
            Ok(mut socket) => {
                let since = Instant::now();
                match session(&mut socket, plan, &mut left, &mut console)? {
                    End::Done => return Ok(()),
                    End::Lost(lost) => (lost, since.elapsed()),
                }
            }
            Err(Refused::Final(exit)) => return Err(exit),
            Err(Refused::ForNow(reason)) => (Lost::broken(reason), Duration::ZERO),
        };
        if !plan.reconnect {
            return lost.into_result(plan);
        }
        let delay = backoff.next(lasted, random()?);
        console.say(format_args!(
            "reconnecting in {:.1} s: {}",
            delay.as_secs_f64(),
            lost.reason
        ));
        thread::sleep(delay);
    }
}

/// Speaks on one connection until it ends or enough was heard.
fn session(
    socket: &mut Socket,
    plan: &Plan,
    left: &mut Option<u64>,
    console: &mut Console<'_>,
) -> Result<End, Exit> {
    if let Err(error) = open(socket, plan) {
        return Ok(End::Lost(Lost::broken(reason(&error))));
    }
    loop {
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(frame)) => {
                // The answer to the close is queued by now; that it arrives is a courtesy.
                let _ = socket.flush();
                return Ok(End::Lost(Lost::closed(frame)));
            }
            Ok(Message::Binary(_)) => {
                console.say("ignored: a binary message");
                continue;
            }
            // The pong is queued by now, and the next read begins by sending it.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            // The process was stopped and goes on (Ctrl-Z, fg).
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {
                continue;
            }
            Err(error) => return Ok(End::Lost(Lost::broken(reason(&error)))),
        };
        if let Some(end) = hear(&text, plan, left, console)? {
            let code = CloseCode::Normal;
            let reason = "".into();
            let _ = socket.close(Some(CloseFrame { code, reason }));
            return Ok(end);
        }
    }
}

/// Prints or says what a message is. Returns how the session ends, if it does.
fn hear(
    text: &str,
    plan: &Plan,
    left: &mut Option<u64>,
    console: &mut Console<'_>,
) -> Result<Option<End>, Exit> {
    match messages::classify(text) {
        Heard::Event(line) => {
            if !console.event(&line)? {
                return Ok(Some(End::Done));
            }
            if let Some(left) = left {
                *left = left.saturating_sub(1);
                return Ok((*left == 0).then_some(End::Done));
            }
        }
        Heard::FilterRefused(description) => {
            let reason = format!("the server refused the filter: {description}");
            return Ok(Some(End::Lost(Lost::broken(reason))));
        }
        Heard::Identity(Some(userid)) => {
            console.say(format_args!("connected as {}", printable(&userid)));
        }
        Heard::Identity(None) => {
            console.say("connected, anonymous");
            if plan.token.is_some() || plan.target.has_token {
                console.say("warning: the server does not accept the token");
            }
        }
        Heard::Other(line) => console.say(line),
    }
    Ok(None)
}

fn open(socket: &mut Socket, plan: &Plan) -> Result<(), tungstenite::Error> {
    for message in &plan.opening {
        socket.write(Message::text(message.as_str()))?;
    }
    socket.flush()
}

/// Why a connection broke, for a person.
fn reason(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
        {
            format!("nothing heard for {} s", connect::SILENCE.as_secs())
        }
        error => printable(&error.to_string()),
    }
}

/// How a session ended.
enum End {
    /// As it should: enough events, or nobody reads them any more.
    Done,
    Lost(Lost),
}

/// A connection that is gone.
struct Lost {
    reason: String,
    /// The code of the server's close frame.
    code: Option<u16>,
}

impl Lost {
    fn broken(reason: String) -> Self {
        Lost { reason, code: None }
    }

    fn closed(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => {
                let code = u16::from(frame.code);
                Lost {
                    reason: printable(&format!("closed by the server: {code} {}", frame.reason)),
                    code: Some(code),
                }
            }
            None => Lost::broken("closed by the server".to_owned()),
        }
    }

    /// What the command ends with when it shall not connect again.
    fn into_result(self, plan: &Plan) -> Result<(), Exit> {
        match self.code {
            Some(1000 | 1001 | 1012) if plan.count.is_none() => Ok(()),
            Some(3000) => Err(Exit::new(Exit::NO_PERMISSION, self.reason)),
            _ => Err(Exit::new(
                Exit::UNAVAILABLE,
                format!("{}: {}", plan.target.name, self.reason),
            )),
        }
    }
}

/// Where the command writes to.
struct Console<'a> {
    events: &'a mut dyn Write,
    status: &'a mut dyn Write,
}

impl Console<'_> {
    /// Prints an event; false when nobody reads them any more.
    fn event(&mut self, line: &str) -> Result<bool, Exit> {
        let written = writeln!(self.events, "{line}").and_then(|()| self.events.flush());
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Exit::new(Exit::IO, format!("standard output: {error}"))),
        }
    }

    /// Says how it goes. A closed standard error is no reason to stop.
    fn say(&mut self, line: impl fmt::Display) {
        let _ = writeln!(self.status, "{line}");
    }
}

fn random() -> Result<u64, Exit> {
    getrandom::u64().map_err(|error| Exit::new(Exit::OS, format!("no random numbers: {error}")))
}

/// Stands in for [`Trust`] where TLS is not built in: there is no such thing then.
#[cfg(not(feature = "tls"))]
mod tls {
    use std::net::TcpStream;
    use std::path::Path;

    use super::connect::Stream;
    use crate::cli::exit::Exit;

    pub(super) enum Trust {}

    impl Trust {
        pub(super) fn load(_ca: Option<&Path>) -> Result<Self, Exit> {
            Err(Exit::new(Exit::USAGE, "this program was built without TLS"))
        }

        pub(super) fn wrap(&self, _: TcpStream, _: &str) -> Result<Box<dyn Stream>, String> {
            match *self {}
        }
    }
}

/// From between one and two seconds up to a minute.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  Everything public on one page:
    h-realtime listen ws://127.0.0.1:5001/ws --uri https://example.com/page
  As a user, in two groups, only the texts (with jq):
    H_REALTIME_TOKEN=… h-realtime listen wss://h.example.org/ws --group g1 --group g2 |
      jq -r '.payload[]?.text'
  Wait for the next reply to an annotation, then go on:
    h-realtime listen ws://127.0.0.1:5001/ws --references ID --count 1

Once \"connected as …\" or \"connected, anonymous\" is said, the filter is in place.

Exit codes: 0 ended as asked, 64 wrong usage, 66 a file cannot be read, 69 no such server,
77 not allowed.";

#[cfg(test)]
mod tests;

//! `h-realtime listen`: an ordinary client that prints the events it receives, and reconnects.
//!
//! Owns: the command, and the loop that reconnects. Decisions are pure functions in the modules
//! below: the URL, the messages, the delays. Must not know the server of this crate: the client
//! works with any server of the Real Time API.
//!
//! | file | holds |
//! |---|---|
//! | `args` | the arguments, and their help |
//! | `options` | the resolved arguments |
//! | `server_url` | the syntax of the server's URL |
//! | `connect`, `connect_error` | one attempt to connect, and its failures |
//! | `handshake` | the opening handshake of RFC 6455 |
//! | `consumer` | the interface to the command that uses the events: this one, or `forward` |
//! | `stream`, `tls` | byte streams, with and without TLS |
//! | `session` | one connection, from its first message to its end |
//! | `messages` | the messages sent, and the meaning of those received |
//! | `meter` | limits on the bytes that one turn reads and one message has |
//! | `liveness` | detection of dead servers |
//! | `retry` | reconnection delays |
//! | `interrupt` | SIGINT and SIGTERM |
//! | `output` | standard output and standard error |
//! | `resume`, `state_file` | the position in the server's history, and its file |
//! | `recovery` | the replies about cursors and gaps |
//!
//! To add an option to this command: add a field to `ListenArgs` in `args`, and resolve it in
//! `options`. Help, manual page, and completions follow from the field.

mod args;
mod connect;
mod connect_error;
mod consumer;
mod handshake;
mod interrupt;
mod liveness;
mod messages;
mod meter;
mod options;
mod output;
mod recovery;
mod resume;
mod retry;
mod server_url;
mod session;
mod state_file;
mod stream;
#[cfg(not(feature = "tls"))]
#[path = "listen/no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use self::connect_error::ConnectError;
use self::consumer::EventConsumer;
use self::interrupt::Interrupts;
use self::options::{ListenOptions, random};
use self::output::ListenOutput;
use self::resume::Resume;
use self::retry::Retry;
use self::session::{ClientSession, Disconnect, SessionEnd};
use crate::config::TOKEN_VARIABLE;
use crate::exit::Exit;

pub(super) use self::args::ListenArgs;

/// Prints events until interrupted: see [`ListenArgs`].
///
/// # Errors
/// 64, 65, and 66 for invalid arguments and files, 76 for an invalid cursor, 77 and 69 for a server that rejects the client
/// permanently. With `--no-reconnect`, also for a server that is unavailable or closes the
/// connection.
pub(super) fn run(args: ListenArgs) -> Result<(), Exit> {
    // With `--count`, a SIGTERM before the last event is a failure: the command is incomplete.
    let on_term = args.count.map_or(0, |_| Exit::TERMINATED);
    let interrupts = Interrupts::catch(on_term).map_err(|error| {
        Exit::new(
            Exit::OS,
            format!("cannot register signal handlers: {error}"),
        )
    })?;
    let token = std::env::var(TOKEN_VARIABLE).ok();
    let options = ListenOptions::new(args, token)?;
    let stdout = io::stdout();
    let output = ListenOutput {
        events: &mut stdout.lock(),
        output: Some(stdout.as_fd()),
        status: &mut io::stderr(),
    };
    listen(&options, output, &interrupts)
}

/// Connects repeatedly, until an end is final.
fn listen(
    options: &ListenOptions,
    mut output: ListenOutput<'_>,
    interrupts: &Interrupts,
) -> Result<(), Exit> {
    for warning in &options.warnings {
        output.status(format_args!("warning: {warning}"));
    }
    let mut resume = Resume::start(options.since.as_deref(), options.state.as_deref())?;
    run_stream(options, &mut output, &mut resume, interrupts)
}

/// Connects repeatedly, and passes the events to `output`, until an end is final.
///
/// # Errors
/// As for the command.
pub(super) fn run_stream<C: EventConsumer>(
    options: &ListenOptions,
    output: &mut C,
    resume: &mut Resume,
    interrupts: &Interrupts,
) -> Result<(), Exit> {
    let mut left = options.count;
    let mut retry = Retry::new();
    // A server that has accepted a connection before may do so again.
    let mut has_connected = false;
    loop {
        if let Some(position) = output.position() {
            resume.restart_at(position);
        }
        let opening = options.opening(resume.since());
        let (lost, lasted) = match connect::connect(options, &opening) {
            Ok(socket) => {
                has_connected = true;
                let since = Instant::now();
                let session = ClientSession {
                    socket,
                    options,
                    opening: &opening,
                    resume,
                    left: &mut left,
                    output,
                    interrupts,
                    is_open: false,
                    has_cursors: false,
                    unconfirmed: None,
                };
                interrupts.defer();
                let end = session.run();
                interrupts.resume();
                output.disconnected();
                match end? {
                    SessionEnd::Done => return Ok(()),
                    SessionEnd::Interrupted => return interrupts.result(),
                    SessionEnd::Disconnect(lost) => (lost, since.elapsed()),
                }
            }
            Err(ConnectError::Permanent(exit)) => return Err(exit),
            Err(ConnectError::Mismatch(reason)) if !has_connected => {
                let message = format!("{}: {reason}", options.target.name);
                return Err(Exit::new(Exit::UNAVAILABLE, message));
            }
            Err(ConnectError::Mismatch(reason)) => (Disconnect::broken(reason), Duration::ZERO),
            Err(ConnectError::Temporary { reason, after }) => {
                let lost = Disconnect {
                    after,
                    ..Disconnect::broken(reason)
                };
                (lost, Duration::ZERO)
            }
        };
        if interrupts.received() {
            return interrupts.result();
        }
        if !options.reconnect || lost.code == Some(CREDENTIALS_ENDED) {
            return ended(lost, options);
        }
        let delay = retry.next(lasted, lost.code, lost.after, random()?);
        output.status(format_args!(
            "reconnecting in {:.1} s: {}",
            delay.as_secs_f64(),
            lost.reason
        ));
        if !output.wait(delay)? {
            return Ok(());
        }
    }
}

/// Returns the result of the command when it does not reconnect.
fn ended(lost: Disconnect, options: &ListenOptions) -> Result<(), Exit> {
    let (name, reason) = (&options.target.name, lost.reason);
    match lost.code {
        Some(1000 | 1001 | 1012) if options.count.is_none() => Ok(()),
        // Without the token, the next connection would be anonymous, or another user's.
        Some(CREDENTIALS_ENDED) => {
            let message = format!("{name}: {reason}; the token is no longer valid: get a new one");
            Err(Exit::new(Exit::NO_PERMISSION, message))
        }
        _ => Err(Exit::new(Exit::UNAVAILABLE, format!("{name}: {reason}"))),
    }
}

/// The close code of this API for an expired or revoked token.
const CREDENTIALS_ENDED: u16 = 3000;

#[cfg(test)]
mod tests;

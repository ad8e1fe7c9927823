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
//! | `sse` | Server-Sent Events instead of a WebSocket |
//! | `wait` | the wait for the server, signals, and a closed output |
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
mod sse;
mod state_file;
mod stream;
#[cfg(not(feature = "tls"))]
#[path = "listen/no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;
mod wait;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use self::output::ListenOutput;
use self::recovery::cursor_rejected;
use self::retry::Retry;
use self::server_url::Transport;
use self::session::{ClientSession, Disconnect, SessionEnd};
use self::sse::SseSession;
use crate::config::TOKEN_VARIABLE;
use crate::exit::Exit;

pub(super) use self::args::ListenArgs;
pub(super) use self::connect_error::ConnectError;
pub(super) use self::consumer::EventConsumer;
pub(super) use self::handshake::{BadResponse, ResponseHead, read_head};
pub(super) use self::interrupt::Interrupts;
pub(super) use self::options::{ListenOptions, random};
pub(super) use self::resume::Resume;
pub(super) use self::retry::retry_after;
pub(super) use self::server_url::port;
pub(super) use self::state_file::{claim, is_acceptable, read_at_most, replace_file, unreadable};
pub(super) use self::stream::{ClientStream, DeadlineStream};
pub(super) use self::tls::Trust;

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
    let sse = options.target.transport == Transport::Sse;
    let since = options.since.as_deref().or(sse.then_some(resume::NOW));
    let mut resume = Resume::start(since, options.state.as_deref())?;
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
    let mut stream = EventStream {
        options,
        resume,
        left: options.count,
        output,
        interrupts,
        has_connected: false,
    };
    let mut retry = Retry::new();
    loop {
        if let Some(position) = stream.output.position() {
            stream.resume.restart_at(position);
        }
        let attempt = match options.target.transport {
            Transport::WebSocket => stream.over_websocket(),
            Transport::Sse => stream.over_sse(),
        };
        let (lost, lasted) = match attempt {
            Ok((end, lasted)) => match end? {
                SessionEnd::Done => return Ok(()),
                SessionEnd::Interrupted => return interrupts.result(),
                SessionEnd::Disconnect(lost) => (lost, lasted),
            },
            Err(error) => (stream.connect_failed(error)?, Duration::ZERO),
        };
        if interrupts.received() {
            return interrupts.result();
        }
        if !options.reconnect || lost.code == Some(CREDENTIALS_ENDED) {
            return ended(lost, options);
        }
        let delay = retry.next(lasted, lost.code, lost.after, random()?);
        stream.output.status(format_args!(
            "reconnecting in {:.1} s: {}",
            delay.as_secs_f64(),
            lost.reason
        ));
        if !stream.output.wait(delay)? {
            return Ok(());
        }
    }
}

/// The state of a stream across its connections.
struct EventStream<'a, C> {
    options: &'a ListenOptions,
    resume: &'a mut Resume,
    /// The number of events that are still to be received.
    left: Option<u64>,
    output: &'a mut C,
    interrupts: &'a Interrupts,
    /// A server that has accepted a connection before may do so again.
    has_connected: bool,
}

/// The end of a session, and its duration.
type Ended = (Result<SessionEnd, Exit>, Duration);

impl<C: EventConsumer> EventStream<'_, C> {
    /// Connects, and runs the session.
    fn over_websocket(&mut self) -> Result<Ended, ConnectError> {
        let opening = self.options.opening(self.resume.since());
        let socket = connect::connect(self.options, &opening)?;
        let since = self.on_connected();
        let session = ClientSession {
            socket,
            options: self.options,
            opening: &opening,
            resume: self.resume,
            left: &mut self.left,
            output: self.output,
            interrupts: self.interrupts,
            is_open: false,
            has_cursors: false,
            is_confirmed: false,
            unconfirmed: None,
        };
        let end = session.run();
        self.interrupts.resume();
        self.output.disconnected();
        Ok((end, since.elapsed()))
    }

    /// Like [`EventStream::over_websocket`], with Server-Sent Events.
    fn over_sse(&mut self) -> Result<Ended, ConnectError> {
        let connection = sse::connect(self.options, self.resume.since())?;
        let since = self.on_connected();
        let session = SseSession {
            connection,
            options: self.options,
            resume: self.resume,
            left: &mut self.left,
            output: self.output,
            interrupts: self.interrupts,
        };
        let end = session.run();
        self.interrupts.resume();
        self.output.disconnected();
        Ok((end, since.elapsed()))
    }

    /// Returns the time at which the session starts.
    fn on_connected(&mut self) -> Instant {
        self.has_connected = true;
        self.interrupts.defer();
        Instant::now()
    }

    /// Returns the reason to reconnect later after a failed attempt.
    ///
    /// # Errors
    /// Another attempt would not help.
    fn connect_failed(&self, error: ConnectError) -> Result<Disconnect, Exit> {
        match error {
            ConnectError::Permanent(exit) => Err(exit),
            ConnectError::InvalidCursor(description) => {
                Err(cursor_rejected(self.options, self.resume, &description))
            }
            ConnectError::Mismatch(reason) if !self.has_connected => {
                let message = format!("{}: {reason}", self.options.target.name);
                Err(Exit::new(Exit::UNAVAILABLE, message))
            }
            ConnectError::Mismatch(reason) => Ok(Disconnect::broken(reason)),
            ConnectError::Temporary { reason, after } => Ok(Disconnect {
                after,
                ..Disconnect::broken(reason)
            }),
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

//! One connection, from its first message to its end.
//!
//! Owns: the concurrent wait for the server, for signals, and for a closed standard output; the
//! pings that detect a dead server; and the closing handshake. The meaning of messages is in
//! `messages`, and the reconnection logic in the loop of connections.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tungstenite::error::CapacityError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use super::connect::Socket;
use super::interrupt::Interrupts;
use super::messages::{self, Heard};
use super::meter::{LONGEST_HEADERS, LONGEST_MESSAGE};
use super::pulse::{Beat, DEAD_AFTER, PING_AFTER, Pulse, UNREAD_AFTER};
use super::{Console, Plan};
use crate::cli::exit::Exit;
use crate::cli::text::printable;

/// The end of a session.
pub(super) enum End {
    /// The intended end: enough events, or a closed standard output.
    Done,
    /// Ended by a signal.
    Interrupted,
    Lost(Lost),
}

/// A lost connection.
pub(super) struct Lost {
    pub reason: String,
    /// The code of the server's close frame.
    pub code: Option<u16>,
    /// The delay that the server requests.
    pub after: Option<Duration>,
}

impl Lost {
    pub fn broken(reason: String) -> Self {
        Lost {
            reason,
            code: None,
            after: None,
        }
    }

    fn closed(frame: Option<CloseFrame>) -> Self {
        match frame {
            // The library reports these values for a code that no close frame may contain.
            Some(CloseFrame {
                code: CloseCode::Protocol,
                reason,
            }) if reason.as_str() == INVALID_CODE => {
                Lost::broken(violation("its close frame has an invalid code"))
            }
            Some(frame) => {
                let code = u16::from(frame.code);
                let text = format!("closed by the server: {code} {}", frame.reason);
                Lost {
                    code: Some(code),
                    ..Lost::broken(printable(text.trim_end()))
                }
            }
            None => Lost::broken("closed by the server".to_owned()),
        }
    }
}

/// A connection, and all event sources of its session.
pub(super) struct Session<'a, 'b> {
    pub socket: Socket,
    pub plan: &'a Plan,
    pub left: &'a mut Option<u64>,
    pub console: &'a mut Console<'b>,
    pub interrupts: &'a Interrupts,
    /// The server has answered the last opening message.
    pub is_open: bool,
}

impl Session<'_, '_> {
    /// Runs the session until the connection ends, enough events have been received, or a signal
    /// arrives.
    ///
    /// # Errors
    /// If another connection would not help: a rejected filter, an invalid token, or a failing
    /// standard output.
    pub fn run(mut self) -> Result<End, Exit> {
        let result = match self.open() {
            Ok(()) => self.serve(),
            Err(error) => Ok(End::Lost(Lost::broken(reason(&error)))),
        };
        match &result {
            Ok(End::Lost(_)) => {
                // The answer to a close frame is queued at this point. Sending it is best effort.
                let _ = self.socket.flush();
            }
            Ok(End::Interrupted) => self.close(CloseCode::Away),
            Ok(End::Done) | Err(_) => self.close(CloseCode::Normal),
        }
        result
    }

    fn open(&mut self) -> Result<(), Error> {
        for message in &self.plan.opening {
            let sent = self.socket.write(Message::text(message.as_str()));
            unless_full(sent)?;
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<End, Exit> {
        let mut pulse = Pulse::new(Instant::now());
        let mut woken = Woken::default();
        loop {
            self.socket.get_mut().begin_turn();
            if let Some(end) = self.take_all()? {
                return Ok(end);
            }
            let is_flushed = match self.keep_up(&mut pulse) {
                Ok(is_flushed) => is_flushed,
                Err(lost) => return Ok(End::Lost(lost)),
            };
            let meter = self.socket.get_ref();
            // Over TLS, no input is read while output is blocked. Polling for input would then
            // return immediately, again and again.
            let is_held_up = !is_flushed && woken.is_readable && !meter.has_read();
            let interest = match (is_flushed, is_held_up) {
                (true, _) => PollFlags::IN,
                (false, false) => PollFlags::IN | PollFlags::OUT,
                (false, true) => PollFlags::OUT,
            };
            let patience = match meter.is_cut() {
                true => Duration::ZERO,
                false => pulse.patience(Instant::now()),
            };
            let waited = self.wait(interest, patience);
            woken = waited.map_err(|error| Exit::new(Exit::OS, format!("poll: {error}")))?;
            if woken.is_readable {
                pulse.heard(Instant::now());
            }
            if woken.is_unread {
                return Ok(End::Done);
            }
        }
    }

    /// Writes queued output, and a ping if one is due. Returns whether everything has been written.
    fn keep_up(&mut self, pulse: &mut Pulse) -> Result<bool, Lost> {
        if self.socket.get_ref().is_endless() {
            return Err(Lost::broken(endless()));
        }
        let mut is_flushed = self.flush()?;
        let has_written = self.socket.get_ref().has_written();
        pulse.sent(Instant::now(), is_flushed, has_written);
        match pulse.next(Instant::now()) {
            Beat::Wait => {}
            Beat::Ping => {
                let sent = self.socket.write(Message::Ping(Vec::new().into()));
                unless_full(sent).map_err(|error| Lost::broken(reason(&error)))?;
                is_flushed = self.flush()?;
            }
            Beat::Dead => {
                let seconds = (PING_AFTER + DEAD_AFTER).as_secs();
                return Err(Lost::broken(format!(
                    "nothing heard for {seconds} s, not even an answer to a ping"
                )));
            }
            Beat::Unread => {
                let seconds = UNREAD_AFTER.as_secs();
                return Err(Lost::broken(format!(
                    "the server has read nothing for {seconds} s"
                )));
            }
        }
        Ok(is_flushed)
    }

    fn flush(&mut self) -> Result<bool, Lost> {
        match self.socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(Lost::broken(reason(&error))),
        }
    }

    /// Handles the received messages, up to the limit of one turn.
    fn take_all(&mut self) -> Result<Option<End>, Exit> {
        loop {
            if self.interrupts.received() {
                return Ok(Some(End::Interrupted));
            }
            let read = self.socket.read();
            if let Ok(message) = &read {
                self.count(message);
            }
            let end = match read {
                Ok(Message::Text(text)) => self.take(&text)?,
                Ok(Message::Close(frame)) => Some(End::Lost(self.closed(frame)?)),
                Ok(Message::Binary(_)) => {
                    self.console.say("ignored: a binary message");
                    None
                }
                // The pong is queued at this point, and is flushed before the next wait.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
                Err(error) if is_full(&error) => return Ok(None),
                // The process was suspended and resumed (Ctrl-Z, fg).
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => None,
                Err(error) => Some(End::Lost(Lost::broken(reason(&error)))),
            };
            if end.is_some() {
                return Ok(end);
            }
        }
    }

    fn count(&mut self, message: &Message) {
        let meter = self.socket.get_mut();
        match message {
            Message::Text(_) | Message::Binary(_) => meter.message_ended(),
            Message::Ping(data) | Message::Pong(data) => meter.control_frame(data.len()),
            Message::Close(_) | Message::Frame(_) => {}
        }
    }

    /// Called when the server has closed the connection. If the opening messages caused the close,
    /// a new connection would fail in the same way.
    fn closed(&self, frame: Option<CloseFrame>) -> Result<Lost, Exit> {
        let lost = Lost::closed(frame);
        match lost.code {
            Some(code) if !self.is_open && REJECTIONS.contains(&code) => {
                let (name, reason) = (&self.plan.target.name, &lost.reason);
                let message = format!(
                    "{name}: {reason}; the server rejects the client id or the filter. Ask for \
                     less"
                );
                Err(Exit::new(Exit::USAGE, message))
            }
            _ => Ok(lost),
        }
    }

    /// Handles a message. Returns the end of the session, if the message causes it.
    fn take(&mut self, text: &str) -> Result<Option<End>, Exit> {
        match messages::classify(text) {
            Heard::Event(line) => {
                if !self.console.event(&line)? {
                    return Ok(Some(End::Done));
                }
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(1);
                    return Ok((*left == 0).then_some(End::Done));
                }
            }
            Heard::FilterRefused(description) => {
                let reason = format!("the server refuses the filter: {description}");
                if description.contains(TEMPORARY) {
                    return Ok(Some(End::Lost(Lost::broken(reason))));
                }
                let message = format!("{}: {reason}", self.plan.target.name);
                return Err(Exit::new(Exit::USAGE, message));
            }
            Heard::Identity(Some(userid)) => {
                self.is_open = true;
                let userid = printable(&userid);
                self.console.say(format_args!("connected as {userid}"));
            }
            Heard::Identity(None) if self.plan.has_token() => {
                // Continuing would silently omit annotations that only the user may see.
                let message = format!(
                    "{}: the server does not accept the token: it is unknown, expired, or \
                     revoked. Without a token you are anonymous",
                    self.plan.target.name
                );
                return Err(Exit::new(Exit::NO_PERMISSION, message));
            }
            Heard::Identity(None) => {
                self.is_open = true;
                self.console.say("connected, anonymous");
            }
            Heard::Other(line) => self.console.say(line),
        }
        Ok(None)
    }

    /// Waits for the given events of the socket, for a signal, or for standard output to be closed.
    fn wait(&self, interest: PollFlags, patience: Duration) -> io::Result<Woken> {
        let socket = PollFd::from_borrowed_fd(self.socket.get_ref().descriptor(), interest);
        let mut fds = vec![socket];
        if let Some(output) = self.console.output {
            // Errors are always reported, even without requested events: the reader of a pipe has
            // closed it.
            fds.push(PollFd::from_borrowed_fd(output, PollFlags::empty()));
        }
        if let Some(signals) = self.interrupts.as_fd() {
            fds.push(PollFd::from_borrowed_fd(signals, PollFlags::IN));
        }
        let patience = Timespec::try_from(patience).ok();
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Woken::default()),
            Err(error) => return Err(error.into()),
        }
        let of = |at: usize| fds.get(at).map_or(PollFlags::empty(), PollFd::revents);
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        Ok(Woken {
            is_readable: !of(0).is_empty() && of(0) != PollFlags::OUT,
            is_unread: self.console.output.is_some() && of(1).intersects(gone),
        })
    }

    /// Closes the connection, and waits briefly for the server's answer.
    fn close(&mut self, code: CloseCode) {
        let reason = "".into();
        let closed = self.socket.close(Some(CloseFrame { code, reason }));
        if matches!(closed, Err(Error::WriteBufferFull(_))) {
            // The server does not read, so it would not answer.
            return;
        }
        let deadline = Instant::now() + GOODBYE;
        loop {
            self.socket.get_mut().begin_turn();
            let is_flushed = self.socket.flush().is_ok();
            match self.socket.read() {
                Ok(Message::Close(_)) => return,
                Ok(_) => {}
                Err(error) if is_full(&error) => {
                    let meter = self.socket.get_ref();
                    let left = match meter.is_cut() {
                        true => Duration::ZERO,
                        false => deadline.saturating_duration_since(Instant::now()),
                    };
                    let interest = match is_flushed {
                        true => PollFlags::IN,
                        false => PollFlags::IN | PollFlags::OUT,
                    };
                    let socket = self.socket.get_ref().descriptor();
                    let mut fds = [PollFd::from_borrowed_fd(socket, interest)];
                    let left = Timespec::try_from(left).ok();
                    let _ = poll(&mut fds, left.as_ref());
                }
                Err(_) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }
}

/// The reason why a wait has ended.
#[derive(Default)]
struct Woken {
    /// The socket is readable, or at its end.
    is_readable: bool,
    /// Standard output was closed.
    is_unread: bool,
}

/// Returns whether a non-blocking operation would block.
fn is_full(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Ignores a full write buffer. The library keeps output that cannot be written now. If its buffer
/// is full as well, the server is not reading, which is detected in time without another ping.
fn unless_full(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::WriteBufferFull(_)) => Ok(()),
        Err(error) if is_full(&error) => Ok(()),
        result => result,
    }
}

/// Returns a human-readable reason for a connection failure.
fn reason(error: &Error) -> String {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "the server ended the connection without a close frame".to_owned()
        }
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            "the server ended the connection without a close frame".to_owned()
        }
        Error::Io(error) => printable(&format!("the connection failed: {error}")),
        Error::Protocol(error) => violation(&error.to_string()),
        Error::Utf8(_) => violation("a text message is not UTF-8"),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            let most = LONGEST_MESSAGE / MIB;
            format!("the server sends a message of more than {most} MiB")
        }
        error => printable(&error.to_string()),
    }
}

/// Describes a protocol violation of the server. A new connection may succeed, since the server may
/// be replaced.
fn violation(what: &str) -> String {
    printable(&format!(
        "the server violates the WebSocket protocol: {what}"
    ))
}

fn endless() -> String {
    let (most, headers) = (LONGEST_MESSAGE / MIB, LONGEST_HEADERS / MIB);
    format!(
        "the server sends a message without an end: its fragments have more than {most} MiB, or \
         their headers more than {headers} MiB"
    )
}

/// The time that the server's answer to a close frame may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The library's reason text with code 1002 if a close frame has an invalid code.
const INVALID_CODE: &str = "Protocol violation";
const MIB: usize = 1024 * 1024;
/// Part of the description of a rejection that may not recur.
const TEMPORARY: &str = "try again later";
/// Close codes that reject the client's input: protocol error, unsupported data, invalid data, and
/// message too big.
const REJECTIONS: [u16; 4] = [1002, 1003, 1007, 1009];

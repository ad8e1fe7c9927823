//! One connection, from its first message to its end.
//!
//! Owns: the concurrent wait for the server, for signals, and for a closed standard output; the
//! pings that detect a dead server; and the closing handshake. The meaning of messages is in
//! `messages`, and the reconnection logic in the loop of connections.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tungstenite::error::CapacityError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use super::connect::Socket;
use super::consumer::EventConsumer;
use super::interrupt::Interrupts;
use super::liveness::{Liveness, LivenessAction, PING_INTERVAL, PONG_TIMEOUT, WRITE_TIMEOUT};
use super::messages::{self, ServerMessage};
use super::meter::{MAX_FRAME_HEADERS, MAX_MESSAGE};
use super::options::ListenOptions;
use super::recovery::{Unconfirmed, cursor_rejected, report_gap};
use super::resume::Resume;
use super::wait::{Readiness, wait};
use crate::cli::sanitize::printable;
use crate::exit::Exit;

/// The end of a session.
pub(super) enum SessionEnd {
    /// The intended end: enough events, or a closed standard output.
    Done,
    /// Ended by a signal.
    Interrupted,
    Disconnect(Disconnect),
}

/// A lost connection.
pub(super) struct Disconnect {
    pub reason: String,
    /// The code of the server's close frame.
    pub code: Option<u16>,
    /// The delay that the server requests.
    pub after: Option<Duration>,
}

impl Disconnect {
    pub(super) fn broken(reason: String) -> Self {
        Disconnect {
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
            }) if reason.as_str() == INVALID_CODE_REASON => {
                Disconnect::broken(violation("its close frame has an invalid code"))
            }
            Some(frame) => {
                let code = u16::from(frame.code);
                let text = format!("closed by the server: {code} {}", frame.reason);
                Disconnect {
                    code: Some(code),
                    ..Disconnect::broken(printable(text.trim_end()))
                }
            }
            None => Disconnect::broken("closed by the server".to_owned()),
        }
    }
}

/// A connection, and all event sources of its session.
pub(super) struct ClientSession<'a, C> {
    pub socket: Socket,
    pub options: &'a ListenOptions,
    /// The messages to send first.
    pub opening: &'a [String],
    pub resume: &'a mut Resume,
    pub left: &'a mut Option<u64>,
    pub output: &'a mut C,
    pub interrupts: &'a Interrupts,
    /// The server has answered the last opening message.
    pub is_open: bool,
    /// The server has replied to the filter: it supports cursors.
    pub has_cursors: bool,
    /// The server has confirmed the filter.
    pub is_confirmed: bool,
    /// Present while the reply to the filter is missing on an open connection.
    pub unconfirmed: Option<Unconfirmed>,
}

impl<C: EventConsumer> ClientSession<'_, C> {
    /// Runs the session until the connection ends, enough events have been received, or a signal
    /// arrives.
    ///
    /// # Errors
    /// If another connection would not help: a rejected filter or cursor, an invalid token, or a
    /// failing standard output or state file.
    pub(super) fn run(mut self) -> Result<SessionEnd, Exit> {
        let result = match self.send_opening() {
            Ok(()) => self.run_open(),
            Err(error) => Ok(SessionEnd::Disconnect(Disconnect::broken(reason(&error)))),
        };
        // Before the closing handshake, during which a second signal ends the process.
        let saved = self.resume.save(Instant::now());
        match &result {
            Ok(SessionEnd::Disconnect(_)) => {
                // The answer to a close frame is queued at this point. Sending it is best effort.
                let _ = self.socket.flush();
            }
            Ok(SessionEnd::Interrupted) => self.close(CloseCode::Away),
            Ok(SessionEnd::Done) | Err(_) => self.close(CloseCode::Normal),
        }
        result.and_then(|end| saved.map(|()| end))
    }

    fn send_opening(&mut self) -> Result<(), Error> {
        for message in self.opening {
            let sent = self.socket.write(Message::text(message.as_str()));
            ignore_full_buffer(sent)?;
        }
        Ok(())
    }

    fn run_open(&mut self) -> Result<SessionEnd, Exit> {
        let mut liveness = Liveness::new(Instant::now());
        let mut readiness = Readiness::default();
        loop {
            self.socket.get_mut().begin_turn();
            if let Some(end) = self.read_messages()? {
                return Ok(end);
            }
            self.resume.save_if_due(Instant::now())?;
            self.check_reply(Instant::now())?;
            if let Some(reason) = self.consumer_turn()? {
                return Ok(SessionEnd::Disconnect(Disconnect::broken(reason)));
            }
            let is_flushed = match self.write_output(&mut liveness) {
                Ok(is_flushed) => is_flushed,
                Err(lost) => return Ok(SessionEnd::Disconnect(lost)),
            };
            let meter = self.socket.get_ref();
            // Over TLS, no input is read while output is blocked. Polling for input would then
            // return immediately, again and again.
            let is_write_blocked = !is_flushed && readiness.is_readable && !meter.has_read();
            let interest = match (is_flushed, is_write_blocked) {
                (true, _) => PollFlags::IN,
                (false, false) => PollFlags::IN | PollFlags::OUT,
                (false, true) => PollFlags::OUT,
            };
            let timeout = match meter.is_limit_reached() {
                true => Duration::ZERO,
                false => self.timeout(&liveness, Instant::now()),
            };
            let socket = meter.descriptor();
            let waited = wait(socket, interest, timeout, self.output, self.interrupts);
            readiness = waited.map_err(|error| Exit::new(Exit::OS, format!("poll: {error}")))?;
            if readiness.is_readable {
                liveness.on_activity(Instant::now());
            }
            if readiness.is_output_closed {
                return Ok(SessionEnd::Done);
            }
        }
    }

    /// Writes queued output, and a ping if one is due. Returns whether everything has been written.
    fn write_output(&mut self, liveness: &mut Liveness) -> Result<bool, Disconnect> {
        if self.socket.get_ref().is_message_too_large() {
            return Err(Disconnect::broken(message_too_large()));
        }
        let mut is_flushed = self.flush()?;
        let has_written = self.socket.get_ref().has_written();
        liveness.on_write(Instant::now(), is_flushed, has_written);
        match liveness.next(Instant::now()) {
            LivenessAction::Wait if !self.output.wants_ping(Instant::now()) => {}
            LivenessAction::Wait | LivenessAction::Ping => {
                let sent = self.socket.write(Message::Ping(Vec::new().into()));
                ignore_full_buffer(sent).map_err(|error| Disconnect::broken(reason(&error)))?;
                is_flushed = self.flush()?;
            }
            LivenessAction::Dead => {
                let seconds = (PING_INTERVAL + PONG_TIMEOUT).as_secs();
                return Err(Disconnect::broken(format!(
                    "no data for {seconds} s, not even a pong"
                )));
            }
            LivenessAction::NotReading => {
                let seconds = WRITE_TIMEOUT.as_secs();
                return Err(Disconnect::broken(format!(
                    "the server has read nothing for {seconds} s"
                )));
            }
        }
        Ok(is_flushed)
    }

    /// Runs the consumer's turn. Returns the reason to end the connection, if it requests that.
    fn consumer_turn(&mut self) -> Result<Option<String>, Exit> {
        let meter = self.socket.get_ref();
        let is_current = meter.has_read() && !meter.is_limit_reached();
        self.output.turn(is_current, Instant::now())
    }

    fn flush(&mut self) -> Result<bool, Disconnect> {
        match self.socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(Disconnect::broken(reason(&error))),
        }
    }

    /// Handles the received messages, up to the limit of one turn.
    fn read_messages(&mut self) -> Result<Option<SessionEnd>, Exit> {
        loop {
            if self.interrupts.received() {
                return Ok(Some(SessionEnd::Interrupted));
            }
            let read = self.socket.read();
            if let Ok(message) = &read {
                self.count(message);
            }
            let end = match read {
                Ok(Message::Text(text)) => self.on_text(&text)?,
                Ok(Message::Close(frame)) => Some(SessionEnd::Disconnect(self.closed(frame)?)),
                Ok(Message::Binary(_)) => {
                    self.output.status("ignored a binary message");
                    None
                }
                // The pong is queued at this point, and is flushed before the next wait.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
                Err(error) if would_block(&error) => return Ok(None),
                // The process was suspended and resumed (Ctrl-Z, fg).
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => None,
                Err(error) => Some(SessionEnd::Disconnect(Disconnect::broken(reason(&error)))),
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
    fn closed(&self, frame: Option<CloseFrame>) -> Result<Disconnect, Exit> {
        let lost = Disconnect::closed(frame);
        match lost.code {
            Some(code) if !self.is_open && REJECTIONS.contains(&code) => {
                let (name, reason) = (&self.options.target.name, &lost.reason);
                let message = format!(
                    "{name}: {reason}; the server rejected the client id or the filter: shorten them"
                );
                Err(Exit::new(Exit::USAGE, message))
            }
            _ => Ok(lost),
        }
    }

    /// Handles a message. Returns the end of the session, if the message causes it.
    fn on_text(&mut self, text: &str) -> Result<Option<SessionEnd>, Exit> {
        match messages::classify(text) {
            ServerMessage::Event(line, cursor) => {
                // A server that confirms the filter does so before it sends annotations.
                if line.contains("annotation-notification") {
                    self.check_confirmed()?;
                }
                if !self.output.event(&line, cursor.as_deref())? {
                    return Ok(Some(SessionEnd::Done));
                }
                if let Some(cursor) = cursor {
                    self.resume.advance(&cursor, Instant::now())?;
                }
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(1);
                    return Ok((*left == 0).then_some(SessionEnd::Done));
                }
            }
            ServerMessage::Mark(cursor) => {
                self.output.mark(&cursor);
                self.resume.advance(&cursor, Instant::now())?;
            }
            ServerMessage::FilterSet(reply) => return self.on_filter_set(&reply),
            ServerMessage::Gap(oldest) => report_gap(self.output, None, oldest.as_deref()),
            ServerMessage::CursorRejected(description) => {
                return Err(cursor_rejected(self.options, self.resume, &description));
            }
            ServerMessage::FilterRejected(description) => {
                let reason = format!("the server rejected the filter: {description}");
                if description.contains(TEMPORARY) {
                    return Ok(Some(SessionEnd::Disconnect(Disconnect::broken(reason))));
                }
                let message = format!("{}: {reason}", self.options.target.name);
                return Err(Exit::new(Exit::USAGE, message));
            }
            ServerMessage::Identity(Some(userid)) => {
                self.on_open(format!("connected as {}", printable(&userid)))?;
            }
            ServerMessage::Identity(None) if self.options.has_token() => {
                // Continuing would silently omit annotations that only the user may see.
                let message = format!(
                    "{}: the server does not accept the token: it is unknown, expired, or revoked; connect \
                     without a token to be anonymous",
                    self.options.target.name
                );
                return Err(Exit::new(Exit::NO_PERMISSION, message));
            }
            ServerMessage::Identity(None) => {
                self.on_open("connected, anonymous".to_owned())?;
            }
            ServerMessage::Other(line) => self.output.status(line),
        }
        Ok(None)
    }

    /// Closes the connection, and waits briefly for the server's answer.
    fn close(&mut self, code: CloseCode) {
        let reason = "".into();
        let closed = self.socket.close(Some(CloseFrame { code, reason }));
        if matches!(closed, Err(Error::WriteBufferFull(_))) {
            // The server does not read, so it would not answer.
            return;
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            self.socket.get_mut().begin_turn();
            let is_flushed = self.socket.flush().is_ok();
            match self.socket.read() {
                Ok(Message::Close(_)) => return,
                Ok(_) => {}
                Err(error) if would_block(&error) => {
                    let meter = self.socket.get_ref();
                    let left = match meter.is_limit_reached() {
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

/// Returns whether a non-blocking operation would block.
fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Ignores a full write buffer. The library keeps output that cannot be written now. If its buffer
/// is full as well, the server is not reading, which is detected in time without another ping.
fn ignore_full_buffer(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::WriteBufferFull(_)) => Ok(()),
        Err(error) if would_block(&error) => Ok(()),
        result => result,
    }
}

/// Returns a human-readable reason for a connection failure.
fn reason(error: &Error) -> String {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "the server closed the connection without a close frame".to_owned()
        }
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            "the server closed the connection without a close frame".to_owned()
        }
        Error::Io(error) => printable(&format!("the connection failed: {error}")),
        Error::Protocol(error) => violation(&error.to_string()),
        Error::Utf8(_) => violation("a text message is not UTF-8"),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            let most = MAX_MESSAGE / MIB;
            format!("the server sent a message of more than {most} MiB")
        }
        error => printable(&error.to_string()),
    }
}

/// Describes a protocol violation of the server. A new connection may succeed, since the server may
/// be replaced.
fn violation(problem: &str) -> String {
    printable(&format!(
        "the server violated the WebSocket protocol: {problem}"
    ))
}

fn message_too_large() -> String {
    let (most, headers) = (MAX_MESSAGE / MIB, MAX_FRAME_HEADERS / MIB);
    format!(
        "the server sent an endless message: its fragments exceed {most} MiB, or their headers \
         {headers} MiB"
    )
}

/// The time that the server's answer to a close frame may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The library's reason text with code 1002 if a close frame has an invalid code.
const INVALID_CODE_REASON: &str = "Protocol violation";
const MIB: usize = 1024 * 1024;
/// Part of the description of a rejection that may not recur.
const TEMPORARY: &str = "try again later";
/// Close codes that reject the client's input: protocol error, unsupported data, invalid data, and
/// message too big.
const REJECTIONS: [u16; 4] = [1002, 1003, 1007, 1009];

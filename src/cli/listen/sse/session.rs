//! One event stream, from its first block to its end.
//!
//! Owns: the concurrent wait for the server, for signals, and for a closed standard output; and the
//! detection of dead servers. The client sends nothing after its request: a server shows that it is
//! alive by comments.

use std::borrow::Cow;
use std::io::{ErrorKind, Read as _};
use std::mem;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use serde::Deserialize;

use super::super::consumer::EventConsumer;
use super::super::interrupt::Interrupts;
use super::super::liveness::{Liveness, LivenessAction, PING_INTERVAL, PONG_TIMEOUT};
use super::super::messages::{self, ServerMessage};
use super::super::options::ListenOptions;
use super::super::recovery::report_gap;
use super::super::resume::Resume;
use super::super::session::{Disconnect, SessionEnd};
use super::super::wait::{Readiness, wait};
use super::parser::{Block, MAX_BLOCK};
use super::request::SseConnection;
use crate::cli::sanitize::printable;
use crate::exit::Exit;

/// An event stream, and all event sources of its session.
pub(in super::super) struct SseSession<'a, C> {
    pub connection: SseConnection,
    pub options: &'a ListenOptions,
    pub resume: &'a mut Resume,
    pub left: &'a mut Option<u64>,
    pub output: &'a mut C,
    pub interrupts: &'a Interrupts,
}

impl<C: EventConsumer> SseSession<'_, C> {
    /// Runs the session until the stream ends, enough events have been received, or a signal
    /// arrives.
    ///
    /// # Errors
    /// If another connection would not help: a failing standard output or state file.
    pub(in super::super) fn run(mut self) -> Result<SessionEnd, Exit> {
        let result = self.run_open();
        let saved = self.resume.save(Instant::now());
        result.and_then(|end| saved.map(|()| end))
    }

    fn run_open(&mut self) -> Result<SessionEnd, Exit> {
        let mut liveness = Liveness::new(Instant::now());
        let mut rest = mem::take(&mut self.connection.rest);
        if let Some(end) = self.on_bytes(&mut rest)? {
            return Ok(end);
        }
        let mut buffer = vec![0; READ_LIMIT];
        let mut had_read = true;
        loop {
            if self.interrupts.received() {
                return Ok(SessionEnd::Interrupted);
            }
            // With TLS, more input may be in a buffer that `poll` does not see.
            let (has_read, end) = self.read(&mut buffer)?;
            if let Some(end) = end {
                return Ok(end);
            }
            let now = Instant::now();
            if has_read {
                liveness.on_activity(now);
            }
            self.resume.save_if_due(now)?;
            let is_current = mem::replace(&mut had_read, has_read) && !has_read;
            if let Some(reason) = self.output.turn(is_current, now)? {
                return Ok(SessionEnd::Disconnect(Disconnect::broken(reason)));
            }
            // There is no ping to send: the server's comments must arrive by themselves.
            if liveness.next(now) == LivenessAction::Dead {
                let seconds = (PING_INTERVAL + PONG_TIMEOUT).as_secs();
                let reason = format!("no data for {seconds} s, not even a comment");
                return Ok(SessionEnd::Disconnect(self.disconnect(reason)));
            }
            let due = [self.resume.timeout(now), self.output.timeout(now)];
            let timeout = match has_read {
                true => Duration::ZERO,
                false => (due.into_iter().flatten()).fold(liveness.timeout(now), Duration::min),
            };
            if self.wait(timeout)?.is_output_closed {
                return Ok(SessionEnd::Done);
            }
        }
    }

    fn wait(&self, timeout: Duration) -> Result<Readiness, Exit> {
        let socket = self.connection.stream.descriptor();
        let waited = wait(socket, PollFlags::IN, timeout, self.output, self.interrupts);
        waited.map_err(|error| Exit::new(Exit::OS, format!("poll: {error}")))
    }

    /// Reads once. Returns whether there was any input, and the end of the session, if it has ended.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(bool, Option<SessionEnd>), Exit> {
        let count = match self.connection.stream.read(buffer) {
            Ok(0) => return Ok((false, Some(self.stream_ended()))),
            Ok(count) => count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return Ok((false, None)),
                // TLS without `close_notify`, or a reset.
                ErrorKind::UnexpectedEof => return Ok((false, Some(self.stream_ended()))),
                _ => {
                    let reason = printable(&format!("the connection failed: {error}"));
                    let lost = self.disconnect(reason);
                    return Ok((false, Some(SessionEnd::Disconnect(lost))));
                }
            },
        };
        let received = buffer.get_mut(..count).unwrap_or_default();
        Ok((true, self.on_bytes(received)?))
    }

    /// Handles received bytes. Returns the end of the session, if they cause it.
    fn on_bytes(&mut self, received: &mut [u8]) -> Result<Option<SessionEnd>, Exit> {
        let (mut input, has_ended) = match self.connection.body.decode(received) {
            Ok(decoded) => decoded,
            Err(problem) => {
                let reason = format!("the server violated HTTP: {problem}");
                return Ok(Some(SessionEnd::Disconnect(self.disconnect(reason))));
            }
        };
        loop {
            match self.connection.parser.next(&mut input) {
                Ok(Some(block)) => {
                    if let Some(end) = self.on_block(&block)? {
                        return Ok(Some(end));
                    }
                }
                Ok(None) if has_ended => return Ok(Some(self.stream_ended())),
                Ok(None) => return Ok(None),
                Err(_) => {
                    let most = MAX_BLOCK / (1024 * 1024);
                    let reason = format!("the server sent an event of more than {most} MiB");
                    return Ok(Some(SessionEnd::Disconnect(self.disconnect(reason))));
                }
            }
        }
    }

    /// Handles a block. Returns the end of the session, if it causes it.
    fn on_block(&mut self, block: &Block) -> Result<Option<SessionEnd>, Exit> {
        if !self.connection.is_open {
            self.connection.is_open = true;
            self.output.connected(match self.options.has_token() {
                true => "connected with a token",
                false => "connected, anonymous",
            });
        }
        let data = block.data.as_deref();
        match (block.event.as_str(), data) {
            (_, None) => {}
            ("" | "message", Some(data)) => return self.on_message(data, &block.id),
            ("recovery", Some(data)) => match messages::classify(data) {
                ServerMessage::Gap(oldest) => {
                    if let Some(reason) = self.output.gap(oldest.as_deref()) {
                        return Ok(Some(SessionEnd::Disconnect(Disconnect::broken(reason))));
                    }
                    report_gap(self.output, self.resume.since(), oldest.as_deref());
                }
                _ => self.ignored(&block.event),
            },
            ("close", Some(data)) => return Ok(Some(self.closed(data))),
            ("debug", Some(data)) => match messages::classify(data) {
                ServerMessage::Other(line) => self.output.status(line),
                _ => self.ignored(&block.event),
            },
            _ => self.ignored(&block.event),
        }
        self.on_mark(&block.id)?;
        Ok(None)
    }

    /// Called when the position has moved without an event.
    fn on_mark(&mut self, id: &str) -> Result<(), Exit> {
        if !id.is_empty() {
            self.output.mark(id);
        }
        self.resume.advance(id, Instant::now())
    }

    /// Handles an event of the default type.
    fn on_message(&mut self, data: &str, id: &str) -> Result<Option<SessionEnd>, Exit> {
        match messages::classify(data) {
            ServerMessage::Event(line, cursor) => {
                let line = match cursor {
                    None if self.options.shows_cursors() => with_cursor(line, id),
                    _ => line,
                };
                let cursor = (!id.is_empty()).then_some(id);
                if !self.output.event(&line, cursor)? {
                    return Ok(Some(SessionEnd::Done));
                }
                self.resume.advance(id, Instant::now())?;
                if let Some(left) = &mut *self.left {
                    *left = left.saturating_sub(1);
                    return Ok((*left == 0).then_some(SessionEnd::Done));
                }
            }
            ServerMessage::Other(line) => {
                self.output.status(line);
                self.on_mark(id)?;
            }
            _ => self.ignored("message"),
        }
        Ok(None)
    }

    fn ignored(&mut self, event: &str) {
        let event = printable(event);
        self.output
            .status(format_args!("ignored an unknown event of the type {event}"));
    }

    /// Returns the end of the session after the last event of a stream, which has the code and the
    /// reason of the close frame that a WebSocket would have got.
    fn closed(&self, data: &str) -> SessionEnd {
        #[derive(Deserialize)]
        struct Close {
            code: u16,
            #[serde(default)]
            reason: String,
        }
        SessionEnd::Disconnect(match serde_json::from_str(data) {
            Ok(Close { code, reason }) => {
                let text = format!("closed by the server: {code} {reason}");
                Disconnect {
                    code: Some(code),
                    ..self.disconnect(printable(text.trim_end()))
                }
            }
            Err(_) => self.disconnect("closed by the server".to_owned()),
        })
    }

    /// Returns the end of the session when the server has closed the connection.
    fn stream_ended(&self) -> SessionEnd {
        let reason = match self.connection.is_open {
            true => "the server ended the event stream",
            false => "the server ended the event stream before its first event",
        };
        SessionEnd::Disconnect(self.disconnect(reason.to_owned()))
    }

    /// Returns a disconnect after which the client waits at least for the time that the server has
    /// requested.
    fn disconnect(&self, reason: String) -> Disconnect {
        let retry = self.connection.parser.retry();
        Disconnect {
            after: retry.map(|retry| retry.min(MAX_RETRY)),
            ..Disconnect::broken(reason)
        }
    }
}

/// Adds the cursor to an event, as its last member, as a WebSocket of this API has it.
fn with_cursor<'a>(line: Cow<'a, str>, cursor: &str) -> Cow<'a, str> {
    match line.trim_end().strip_suffix('}') {
        Some(members) if !cursor.is_empty() => {
            let cursor = serde_json::Value::from(cursor);
            format!("{members},\"cursor\":{cursor}}}").into()
        }
        _ => line,
    }
}

/// The maximum number of bytes that one turn reads.
const READ_LIMIT: usize = 64 * 1024;
/// The maximum delay that a server can request with `retry`.
const MAX_RETRY: Duration = Duration::from_secs(3600);

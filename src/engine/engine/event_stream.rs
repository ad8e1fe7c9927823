//! Event streams: responses without an end, over which the server sends events (WHATWG HTML, section
//! "Server-sent events").
//!
//! An event stream is an open connection like a WebSocket, and shares its queue, its limits, and its
//! end. It differs in what this file contains: its beginning, its input, its heartbeat, and its last
//! output. A client has nothing to say after its request, and answers no heartbeat: the kernel
//! detects that it has gone.

use super::Engine;
use super::millis;
use crate::ConnKey;
use crate::conn::Flags;
use crate::conn::lifecycle::Event;
use crate::frame::Delivery;
use crate::handler::Handler;
use crate::http::EventStream;
use crate::io::socket::Socket;
use crate::ws::CloseFrame;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Returns whether a connection is an event stream, or waits for the response that makes it one.
    #[inline]
    pub(super) fn is_event_stream(&self, key: ConnKey) -> bool {
        let conn = self.arena.get(key);
        conn.is_some_and(|conn| conn.flags.has(Flags::EVENT_STREAM))
    }

    /// Sends the response to `HEAD`, and ends the connection.
    pub(super) fn send_stream_head(&mut self, key: ConnKey, stream: &EventStream) {
        let now = self.now.unix;
        self.queue_own(key, |out| stream.encode_head(now, out));
        self.apply(key, Event::Finished);
    }

    /// Starts an event stream whose head has been queued.
    pub(super) fn open_stream(&mut self, key: ConnKey, stream: &EventStream) {
        self.counters.opened_streams += 1;
        self.counters.open_streams += 1;
        let timeout = self.config.pong_timeout;
        if let Some(conn) = self.arena.get_mut(key) {
            conn.transport.socket_mut().set_user_timeout(timeout);
        }
        self.with_stream_output(key, |handler, cx| {
            handler.on_open_stream(cx, stream.request());
        });
    }

    /// Calls the handler for the current connection, which is an event stream.
    pub(super) fn with_stream_output(
        &mut self,
        key: ConnKey,
        call: impl FnOnce(&mut H, &mut crate::ConnCx<'_, H::Session>),
    ) {
        self.outbox.serves_stream = true;
        self.with_replies(key, call);
        self.outbox.serves_stream = false;
    }

    /// Discards input of an event stream. RFC 9112 §9.6: after the option "close", a server "MUST NOT
    /// process any further requests received on that connection".
    #[cold]
    pub(super) fn discard_input(&mut self, bytes: &[u8]) {
        self.outbox.work += bytes.len() as u64 / DISCARDED_BYTES;
    }

    /// Sends a heartbeat to an event stream, unless output is queued anyway, and arms its timer.
    /// Proxies end responses in which nothing has arrived for a while.
    pub(super) fn comment(&mut self, key: ConnKey) {
        let interval = millis(self.config.ping_interval);
        let next = self.spread(interval, 6, 9);
        let conn = self.arena.get(key);
        if conn.is_some_and(|conn| conn.tx.is_none() && !conn.transport.has_output()) {
            self.counters.comments_sent += 1;
            match self.with_handler(|handler, cx| handler.heartbeat(cx, key)) {
                // After everything that has been passed to the engine for it.
                Some(block) => self.fan_out.push(
                    Delivery {
                        frames: vec![block],
                        to: vec![(key, 0)],
                        since: None,
                    },
                    &mut self.counters.ledger,
                ),
                None => self.queue_own(key, |out| out.extend_from_slice(COMMENT)),
            }
        }
        self.arm_open(key, next);
    }

    /// Sends the last blocks of an event stream.
    pub(super) fn send_last_blocks(&mut self, key: ConnKey, close: Option<CloseFrame<'_>>) {
        if let Some(close) = close {
            let blocks = self.handler.last_blocks(close.code.0, close.reason);
            self.queue_own(key, |out| out.extend_from_slice(&blocks));
        }
    }
}

/// An empty comment, and the end of its block.
const COMMENT: &[u8] = b":\n\n";
/// The number of discarded bytes that cost a unit of work.
const DISCARDED_BYTES: u64 = 16;

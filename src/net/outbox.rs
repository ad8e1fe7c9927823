//! What handlers are given to act with: everything is recorded here and done afterwards.

use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::http::Response;
use crate::ws::{self, CloseCode};

use super::counters::Counters;
use super::frame::{Delivery, Frame};
use super::handler::Message;
use super::{ConnKey, Now};

/// A handler's view of the engine during one call.
pub struct Cx<'a, C> {
    pub(super) now: Now,
    pub(super) sessions: &'a mut dyn Sessions<C>,
    pub(super) outbox: &'a mut Outbox,
    pub(super) counters: &'a Counters,
}

/// Finds the session of an open connection.
pub trait Sessions<C> {
    /// `None` when the key is stale or its connection is not open.
    fn session(&mut self, key: ConnKey) -> Option<&mut C>;

    /// The address of a connection's peer, where it has one.
    fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        let _ = key;
        None
    }
}

/// How a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The code in the first close frame: 1005 where it had none, 1006 where there was no frame.
    pub code: u16,
    /// Who or what ended it, in the words of the metrics.
    pub reason: &'static str,
}

/// What handlers asked for in the calls since it was last emptied.
#[derive(Default)]
pub struct Outbox {
    /// Frames for the connection that is being served, encoded one behind the other.
    pub(crate) cork: Vec<u8>,
    /// Those that are not copied, each with how much of the cork goes before it.
    shared: Vec<(usize, Rc<Frame>)>,
    /// Bytes of the shared ones.
    shared_bytes: usize,
    /// Messages in the cork, without the shared ones.
    pub(crate) replies: u64,
    pub(crate) effects: Vec<Effect>,
    /// Units of work done for the connection that is being served.
    pub(crate) work: u64,
    /// How the WebSocket ended that the handler is being told of.
    pub(crate) ending: Option<Ending>,
    /// The connection whose call this is; `None` where there is none, and once it is to be
    /// closed.
    pub(super) serving: Option<ConnKey>,
    /// Receivers that deliveries wait for, those of this call included.
    pub(crate) backlog: usize,
}

/// What has been collected for one connection, in its order.
#[derive(Default)]
pub(super) struct Corked {
    pub own: Vec<u8>,
    pub shared: Vec<(usize, Rc<Frame>)>,
}

/// One thing to be done after a handler's call.
pub(crate) enum Effect {
    Send(ConnKey, Rc<Frame>),
    FanOut(Delivery),
    Close(ConnKey, CloseCode, Box<str>),
    Accept(ConnKey),
    MarkAuthenticated(ConnKey),
    Respond(ConnKey, Response),
}

impl Outbox {
    /// Bytes that are collected.
    pub(super) fn corked(&self) -> usize {
        self.cork.len() + self.shared_bytes
    }

    /// Collects a message for the connection that is being served. A short one is copied, which
    /// costs less than to have the kernel gather it; none that may be compressed is short.
    pub(super) fn collect(&mut self, frame: Rc<Frame>) {
        if frame.is_short() {
            self.replies += 1;
            self.cork.extend_from_slice(frame.bytes());
        } else {
            self.shared_bytes += frame.bytes().len();
            self.shared.push((self.cork.len(), frame));
        }
    }

    /// Hands over what is collected.
    pub(super) fn uncork(&mut self) -> Corked {
        self.shared_bytes = 0;
        Corked {
            own: mem::take(&mut self.cork),
            shared: mem::take(&mut self.shared),
        }
    }
}

impl<'a, C> Cx<'a, C> {
    /// A view for one call: the engine's, and that of handlers' own tests.
    pub(crate) fn new(
        now: Now,
        sessions: &'a mut dyn Sessions<C>,
        outbox: &'a mut Outbox,
        counters: &'a Counters,
    ) -> Self {
        Cx {
            now,
            sessions,
            outbox,
            counters,
        }
    }

    /// Sends a message to the connection whose `on_open` or `on_message` this is. All replies
    /// of one readiness event leave in one write. It is never compressed; what [`Cx::send`]
    /// sends may be.
    ///
    /// In other calls there is no such connection: use [`Cx::send`]. What is said here then is
    /// dropped.
    #[inline]
    pub fn reply(&mut self, message: Message<'_>) {
        self.outbox.replies += 1;
        match message {
            Message::Text(text) => {
                ws::encode_frame(ws::OpCode::Text, text.as_bytes(), &mut self.outbox.cork)
            }
            Message::Binary(data) => {
                ws::encode_frame(ws::OpCode::Binary, data, &mut self.outbox.cork)
            }
        }
    }

    /// Sends a message to one connection, if it is open when the call has returned. To the one
    /// whose `on_open` or `on_message` this is, it leaves together with the replies, in the order
    /// of the calls.
    pub fn send(&mut self, key: ConnKey, frame: Rc<Frame>) {
        match self.outbox.serving == Some(key) {
            true => self.outbox.collect(frame),
            false => self.outbox.effects.push(Effect::Send(key, frame)),
        }
    }

    /// Sends a message to many connections, a slice of them each turn.
    pub fn fan_out(&mut self, delivery: Delivery) {
        self.outbox.backlog += delivery.to.len();
        self.outbox.effects.push(Effect::FanOut(delivery));
    }

    /// Receivers that deliveries are waiting for, each delivery's counted, those of this call
    /// included. A handler that has many events to deliver should have only so many wait.
    pub fn backlog(&self) -> usize {
        self.outbox.backlog
    }

    /// Starts the closing handshake (RFC 6455 §7.1.2) behind whatever is queued already. The
    /// reason is cut to the 123 bytes that a close frame has room for.
    pub fn close(&mut self, key: ConnKey, code: CloseCode, reason: &str) {
        if self.outbox.serving == Some(key) {
            // What is sent to it after this comes too late.
            self.outbox.serving = None;
        }
        self.outbox
            .effects
            .push(Effect::Close(key, code, reason.into()));
    }

    /// Completes a handshake that was deferred with an upgrade.
    pub fn accept(&mut self, key: ConnKey) {
        self.outbox.effects.push(Effect::Accept(key));
    }

    /// Answers a request that was deferred.
    pub fn respond(&mut self, key: ConnKey, response: Response) {
        self.outbox.effects.push(Effect::Respond(key, response));
    }

    /// Notes that the client of a connection is authenticated. When places run out, connections
    /// are ended that wait for a request; such a one is ended after all others.
    pub fn mark_authenticated(&mut self, key: ConnKey) {
        self.outbox.effects.push(Effect::MarkAuthenticated(key));
    }

    /// The session of an open connection; `None` when it is not, or no longer, open.
    pub fn session(&mut self, key: ConnKey) -> Option<&mut C> {
        self.sessions.session(key)
    }

    /// The address of a connection's peer; `None` on a unix socket. It is asked of the system.
    pub fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        self.sessions.peer(key)
    }

    /// Charges the connection that is being served for work that its message causes, in units of
    /// about a nanosecond. The engine charges for bytes and calls itself; connections that have
    /// caused much work lately are served after those that have caused little.
    pub fn charge(&mut self, units: u64) {
        self.outbox.work = self.outbox.work.saturating_add(units);
    }

    /// In [`Handler::on_close`](super::Handler::on_close): how the WebSocket ended.
    pub fn ending(&self) -> Option<Ending> {
        self.outbox.ending
    }

    /// The clock, read once a turn.
    pub fn now(&self) -> Now {
        self.now
    }

    /// What the engine has counted so far.
    pub fn counters(&self) -> &Counters {
        self.counters
    }
}

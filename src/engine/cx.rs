//! The handler's interface to the engine: actions are recorded during a call and applied after it.

use std::mem;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use crate::conn_set::ConnSet;
use crate::counters::Counters;
use crate::frame::{Delivery, Frame};
use crate::handler::Message;
use crate::http::Response;
use crate::ws::{self, CloseCode};
use crate::{ConnKey, ListenerId, Now};

/// The engine's context for one handler call.
pub struct Cx<'a, C> {
    pub(crate) now: Now,
    pub(crate) sessions: &'a mut dyn Sessions<C>,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) counters: &'a Counters,
}

/// The context of a call about a request: the engine's context, and the connection.
pub struct RequestCx<'a, C> {
    pub(crate) cx: Cx<'a, C>,
    pub(crate) key: ConnKey,
    pub(crate) listener: ListenerId,
}

impl<C> RequestCx<'_, C> {
    /// Returns the key of the connection, for [`Cx::accept`] and [`Cx::respond`].
    pub fn key(&self) -> ConnKey {
        self.key
    }

    /// Returns the listener that accepted the connection.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }
}

impl<'a, C> Deref for RequestCx<'a, C> {
    type Target = Cx<'a, C>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.cx
    }
}

impl<C> DerefMut for RequestCx<'_, C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.cx
    }
}

/// The context of a call about an open connection, which can be replied to. Other calls concern no
/// connection, so a reply in them does not compile:
///
/// ```compile_fail,E0599
/// use h_realtime_engine::{Cx, Message};
///
/// fn on_tick(cx: &mut Cx<'_, ()>) {
///     cx.reply(Message::Text("tick"));
/// }
/// ```
pub struct ConnCx<'a, C> {
    pub(crate) cx: Cx<'a, C>,
    pub(crate) key: ConnKey,
}

impl<C> ConnCx<'_, C> {
    /// Returns the key of the connection.
    #[inline]
    pub fn key(&self) -> ConnKey {
        self.key
    }

    /// Returns the session of the connection.
    ///
    /// # Panics
    /// In a test of a handler that has no session for the connection. In an engine, the connection
    /// is open during the call, even if the handler closes it.
    #[inline]
    pub fn session_mut(&mut self) -> &mut C {
        let session = self.cx.sessions.session(self.key);
        session.expect("the connection of the call has a session")
    }

    /// Sends a message to the connection. All replies of one readiness event leave in one write.
    /// Replies are never compressed; messages sent with [`Cx::send`] may be.
    ///
    /// An event stream gets none: use [`Cx::send`] with [`Frame::block`].
    #[inline]
    pub fn reply(&mut self, message: Message<'_>) {
        let outbox = &mut self.cx.outbox;
        if outbox.serves_stream {
            return;
        }
        outbox.replies += 1;
        let (opcode, payload) = match message {
            Message::Text(text) => (ws::OpCode::Text, text.as_bytes()),
            Message::Binary(data) => (ws::OpCode::Binary, data),
        };
        ws::encode_frame(opcode, payload, &mut outbox.cork);
    }
}

impl<'a, C> Deref for ConnCx<'a, C> {
    type Target = Cx<'a, C>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.cx
    }
}

impl<C> DerefMut for ConnCx<'_, C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.cx
    }
}

/// Access to the sessions of open connections.
pub trait Sessions<C> {
    /// Returns `None` if the key is stale or its connection is not open.
    fn session(&mut self, key: ConnKey) -> Option<&mut C>;

    /// Returns the length of a connection's output queue in bytes.
    fn buffered(&mut self, key: ConnKey) -> usize {
        let _ = key;
        0
    }

    /// Returns the last activity of an open connection.
    fn last_activity(&mut self, key: ConnKey) -> Option<LastActivity> {
        let _ = key;
        None
    }

    /// Returns whether the connection has a deferred request for an event stream.
    fn awaits_event_stream(&mut self, key: ConnKey) -> bool {
        let _ = key;
        false
    }

    /// Returns the first open connection at or after an arena slot.
    fn next_open(&mut self, slot: u32) -> Option<ConnKey> {
        let _ = slot;
        None
    }

    /// Returns the address of a connection's peer, if it has one.
    fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        let _ = key;
        None
    }
}

/// The last activity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastActivity {
    /// The time, in monotonic milliseconds.
    pub at: u64,
    /// It was a ping to the peer, after a silence of up to the ping interval.
    pub is_ping: bool,
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseInfo {
    /// The code in the first close frame: 1005 if it had none, 1006 if there was no close frame.
    pub code: u16,
    /// The cause, with the label used in metrics.
    pub cause: &'static str,
    /// The reason in the first close frame, which is the peer's text if the cause is `client`.
    pub reason: Box<str>,
    /// See [`Cx::last_received`].
    pub last_received: u64,
}

/// Actions recorded by handler calls since the last time they were applied.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Concatenated frames for the connection being served.
    pub(crate) cork: Vec<u8>,
    /// Frames that are not copied, each with the length of the cork before it.
    shared: Vec<(usize, Rc<Frame>)>,
    /// Total bytes of the shared frames.
    shared_bytes: usize,
    /// Messages in the cork, excluding the shared frames.
    pub(crate) replies: u64,
    pub(crate) effects: Vec<Effect>,
    /// Units of work done for the connection being served.
    pub(crate) work: u64,
    /// During `on_close`: how the WebSocket ended.
    pub(crate) close_info: Option<CloseInfo>,
    /// The connection that this call concerns; `None` if there is none, or once it is to be closed.
    pub(crate) serving: Option<ConnKey>,
    /// The connection that this call concerns is an event stream.
    pub(crate) serves_stream: bool,
    /// Pending receivers of deliveries, including those of this call.
    pub(crate) backlog: usize,
    /// The handler has requested a turn.
    pub(crate) wants_turn: bool,
    /// The longest silence of a peer before it is sent a ping, in milliseconds.
    pub(crate) ping_silence: u64,
}

/// The output collected for one connection, in order.
#[derive(Default)]
pub(crate) struct Corked {
    pub own: Vec<u8>,
    pub shared: Vec<(usize, Rc<Frame>)>,
}

/// An action to be applied after a handler call.
#[non_exhaustive]
pub enum Effect {
    /// [`Cx::send`].
    Send(ConnKey, Rc<Frame>),
    /// [`Cx::fan_out`].
    FanOut(Delivery),
    /// [`Cx::close`].
    Close(ConnKey, CloseCode, Box<str>),
    /// [`Cx::mute`].
    Mute(ConnKey),
    /// [`Cx::accept`].
    Accept(ConnKey),
    /// [`Cx::mark_authenticated`].
    MarkAuthenticated(ConnKey),
    /// [`Cx::respond`].
    Respond(ConnKey, Response),
    /// [`Cx::shut_down`].
    ShutDown(Duration),
}

impl Outbox {
    /// Creates an empty outbox.
    pub(crate) fn new(ping_silence: u64) -> Self {
        Outbox {
            ping_silence,
            ..Outbox::default()
        }
    }

    /// Returns the time of the last sign of life of a peer, or an earlier one.
    pub(crate) fn last_received(&self, last: LastActivity) -> u64 {
        match last.is_ping {
            true => last.at.saturating_sub(self.ping_silence),
            false => last.at,
        }
    }

    /// Returns the number of bytes collected.
    pub(crate) fn corked(&self) -> usize {
        self.cork.len() + self.shared_bytes
    }

    /// Collects a message for the connection being served. A short one is copied, which is cheaper
    /// than a vectored write. Messages that may be compressed are never short.
    pub(crate) fn collect(&mut self, frame: Rc<Frame>) {
        if frame.is_block() != self.serves_stream {
            // It is of the other transport.
        } else if frame.is_short() {
            self.replies += 1;
            self.cork.extend_from_slice(frame.bytes());
        } else {
            self.shared_bytes += frame.bytes().len();
            self.shared.push((self.cork.len(), frame));
        }
    }

    /// Takes the collected output.
    pub(crate) fn uncork(&mut self) -> Corked {
        self.shared_bytes = 0;
        Corked {
            own: mem::take(&mut self.cork),
            shared: mem::take(&mut self.shared),
        }
    }
}

impl<'a, C> Cx<'a, C> {
    /// Creates a context for one call, in the engine and in tests of handlers.
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

    /// Sends a message to one connection, if it is still open when the call has returned. If the
    /// current `on_open` or `on_message` call concerns it, the message leaves together with the
    /// replies, in call order.
    pub fn send(&mut self, key: ConnKey, frame: Rc<Frame>) {
        match self.outbox.serving == Some(key) {
            true => self.outbox.collect(frame),
            false => self.outbox.effects.push(Effect::Send(key, frame)),
        }
    }

    /// Sends a message to many connections, a slice of them in each turn.
    pub fn fan_out(&mut self, delivery: Delivery) {
        self.outbox.backlog += delivery.to.len();
        self.outbox.effects.push(Effect::FanOut(delivery));
    }

    /// Sends a message to all connections of a set, a slice of them in each turn.
    pub fn broadcast(&mut self, to: &ConnSet, frame: Rc<Frame>) {
        self.fan_out(to.delivery(frame, None));
    }

    /// Requests a call of [`Handler::on_turn`](crate::Handler::on_turn), in this turn if it is still
    /// due, and otherwise in the next one, which then follows at once.
    pub fn request_turn(&mut self) {
        self.outbox.wants_turn = true;
    }

    /// Returns the number of pending receivers, summed over all deliveries, including those of this
    /// call. A handler with many events to deliver should limit it.
    pub fn backlog(&self) -> usize {
        self.outbox.backlog
    }

    /// Starts the closing handshake (RFC 6455 §7.1.2), after any queued output. The reason is
    /// truncated to the 123 bytes that fit a close frame. An event stream ends with
    /// [`Handler::last_blocks`](crate::Handler::last_blocks) instead.
    pub fn close(&mut self, key: ConnKey, code: CloseCode, reason: &str) {
        if self.outbox.serving == Some(key) {
            // Later messages to it are dropped.
            self.outbox.serving = None;
        }
        self.outbox
            .effects
            .push(Effect::Close(key, code, reason.into()));
    }

    /// Drops the messages queued for an open connection, except for one in progress, and all later
    /// [`send`](Cx::send)s and deliveries to it. Replies, control frames, and the closing handshake
    /// still reach it.
    pub fn mute(&mut self, key: ConnKey) {
        self.outbox.effects.push(Effect::Mute(key));
    }

    /// Completes a handshake or a request for an event stream that was deferred with its response.
    pub fn accept(&mut self, key: ConnKey) {
        self.outbox.effects.push(Effect::Accept(key));
    }

    /// Responds to a deferred request.
    pub fn respond(&mut self, key: ConnKey, response: Response) {
        self.outbox.effects.push(Effect::Respond(key, response));
    }

    /// Shuts the reactor down, as [`Mailbox::shut_down`](crate::Mailbox::shut_down) does: connections
    /// are closed over the period `over`; the second call ends the reactor immediately.
    pub fn shut_down(&mut self, over: Duration) {
        self.outbox.effects.push(Effect::ShutDown(over));
    }

    /// Returns whether a connection has a deferred request for an event stream.
    pub fn awaits_event_stream(&mut self, key: ConnKey) -> bool {
        self.sessions.awaits_event_stream(key)
    }

    /// Marks the client of a connection as authenticated. When a connection limit is reached,
    /// connections that wait for a request are evicted, authenticated ones last.
    pub fn mark_authenticated(&mut self, key: ConnKey) {
        self.outbox.effects.push(Effect::MarkAuthenticated(key));
    }

    /// Returns the session of an open connection; `None` if it is not or no longer open.
    pub fn session(&mut self, key: ConnKey) -> Option<&mut C> {
        self.sessions.session(key)
    }

    /// Returns the bytes of output that are queued for a connection because its socket is full. Output
    /// that the kernel has accepted, and that this call has recorded, does not count.
    ///
    /// [`Handler::on_drain`](crate::Handler::on_drain) is called when they have been sent. A
    /// connection over [`Config::queue_soft`](crate::Config::queue_soft) is closed after a while.
    pub fn buffered(&mut self, key: ConnKey) -> usize {
        self.sessions.buffered(key)
    }

    /// Returns the time of the last sign of life of an open connection's peer, in monotonic
    /// milliseconds, or an earlier time: messages that were sent after it may not have arrived.
    /// `None` if the connection is not open.
    pub fn last_received(&mut self, key: ConnKey) -> Option<u64> {
        let last = self.sessions.last_activity(key)?;
        Some(self.outbox.last_received(last))
    }

    /// Returns the first open connection at or after an arena slot. A search over all connections
    /// takes a time proportional to their number.
    pub fn next_open(&mut self, slot: u32) -> Option<ConnKey> {
        self.sessions.next_open(slot)
    }

    /// Returns the address of a connection's peer, with a system call; `None` on a Unix socket.
    pub fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        self.sessions.peer(key)
    }

    /// Charges the connection being served for work that its message causes, in units of about a
    /// nanosecond. The engine itself charges for bytes and system calls. Connections with much
    /// recent work are served after those with little.
    pub fn charge(&mut self, units: u64) {
        self.outbox.work = self.outbox.work.saturating_add(units);
    }

    /// In [`Handler::on_close`](crate::Handler::on_close): returns how the WebSocket ended.
    pub fn close_info(&self) -> Option<&CloseInfo> {
        self.outbox.close_info.as_ref()
    }

    /// Returns the time of the turn.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Returns the engine's counters.
    pub fn counters(&self) -> &Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;

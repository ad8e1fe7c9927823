//! The state of one connection. Its size determines the memory used by idle connections.

pub(crate) mod close_cause;
pub(crate) mod keep_alive;
pub(crate) mod lifecycle;
pub(crate) mod output;
pub(crate) mod pace;
pub(crate) mod phase;
pub(crate) mod queue;
pub(crate) mod uptake;

use std::net::SocketAddr;

use crate::conn::pace::{MAX_LAG, SHORT_LAG};
pub(crate) use crate::conn::phase::Phase;
use crate::conn::queue::TxQueue;
use crate::cx::LastActivity;
use crate::engine::RecentWork;
use crate::engine::arena::Arena;
use crate::engine::timer::{TICK_MS, Tick, Timer, Timers};
use crate::http::{ChunkedDecoder, EventStream, HeadLayout, Upgrade};
use crate::io::socket::Socket;
use crate::io::transport::Transport;
use crate::ws::Decoder;
use crate::{ConnKey, ListenerId, Sessions};

/// A connection. State that is needed only for incomplete input or queued output is boxed and
/// allocated on demand.
pub(crate) struct Conn<S, C> {
    pub transport: Transport<S>,
    pub phase: Phase<C>,
    /// The receiving side of the WebSocket.
    pub decoder: Decoder,
    pub tx: Option<Box<TxQueue>>,
    /// The only timer; its meaning depends on the phase.
    pub timer: Timer,
    /// The time of the peer's last activity.
    pub last_activity: Tick,
    pub flags: Flags,
    pub listener: ListenerId,
    /// Recent work caused by this connection, as of `last_activity`.
    pub recent: RecentWork,
}

/// A partial PROXY protocol header.
#[derive(Default)]
pub(crate) struct ProxyHeader {
    pub bytes: Vec<u8>,
}

/// A partial request.
pub(crate) struct PartialRequest {
    pub bytes: Vec<u8>,
    /// The head and the body framing, once the body has been requested.
    pub body: Option<PartialBody>,
    /// The bytes may contain complete requests that were left because the connection had used up
    /// its share of work.
    pub is_unread: bool,
}

/// A partial body, after a head that has been parsed.
pub(crate) struct PartialBody {
    pub head: HeadLayout,
    pub end: BodyEnd,
}

/// How the end of a partial body is determined.
pub(crate) enum BodyEnd {
    /// Head and body together have this length.
    At(usize),
    /// The body is chunked. Only its data is buffered.
    Chunked(ChunkedDecoder),
}

/// The state of a deferred request.
pub(crate) struct Deferred<C> {
    /// For a handshake or an event stream: the response, and the session of the connection.
    pub opening: Option<(Opening, C)>,
    pub keep_alive: bool,
    pub head_only: bool,
    /// The peer's stream has ended.
    pub has_ended: bool,
    /// Bytes received after the request.
    pub trailing: Vec<u8>,
}

/// The response that opens a connection.
pub(crate) enum Opening {
    WebSocket(Upgrade),
    EventStream(EventStream),
}

/// State bits of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    /// The socket may be readable: set by an edge, cleared by a read that emptied it.
    pub(crate) const READABLE: Flags = Flags(1);
    /// The socket may be writable: set by an edge, cleared by a write that filled it.
    pub(crate) const WRITABLE: Flags = Flags(1 << 1);
    /// The peer's FIN has arrived: read until 0, because no further edge will follow.
    pub(crate) const READ_CLOSED: Flags = Flags(1 << 2);
    /// In the run queue.
    pub(crate) const QUEUED: Flags = Flags(1 << 3);
    /// In the list of connections to flush.
    pub(crate) const DIRTY: Flags = Flags(1 << 4);
    /// See [`Heartbeat::AwaitingPong`](keep_alive::Heartbeat::AwaitingPong).
    pub(crate) const AWAITING_PONG: Flags = Flags(1 << 5);
    /// The time of the awaited pong's ping, [`Conn::last_activity`], is later than its sending by more
    /// than [`SHORT_LAG`].
    pub(crate) const SLOW_PING: Flags = Flags(1 << 6);
    /// The connection is an event stream, or waits for the response that makes it one.
    pub(crate) const EVENT_STREAM: Flags = Flags(1 << 7);
    /// Over the connection limit: accepted only to be answered with an error.
    pub(crate) const OVER_LIMIT: Flags = Flags(1 << 8);
    /// Counted for the limit of its IP address.
    pub(crate) const PER_IP: Flags = Flags(1 << 9);
    /// The client is authenticated: evicted last.
    pub(crate) const AUTHENTICATED: Flags = Flags(1 << 10);
    /// See [`Heartbeat::First`](keep_alive::Heartbeat::First).
    pub(crate) const FIRST_PING: Flags = Flags(1 << 11);
    /// Registered in the account of incomplete input.
    pub(crate) const INCOMPLETE: Flags = Flags(1 << 12);
    /// permessage-deflate was negotiated: the client may send compressed messages.
    pub(crate) const DEFLATE: Flags = Flags(1 << 13);
    /// Messages to the client may be compressed.
    pub(crate) const DEFLATE_OUT: Flags = Flags(1 << 14);
    /// The peer is a trusted proxy: client addresses in its requests are trusted.
    pub(crate) const PROXIED: Flags = Flags(1 << 15);

    pub(crate) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }

    pub(crate) fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }

    /// Sets a flag. Returns whether it was clear.
    pub(crate) fn raise(&mut self, flag: Flags) -> bool {
        let was = self.has(flag);
        self.set(flag);
        !was
    }
}

impl Flags {
    /// Sets the flags of a connection that has been opened with this response.
    pub(crate) fn set_opening(&mut self, opening: &Opening) {
        match opening {
            Opening::EventStream(_) => self.set(Flags::EVENT_STREAM),
            Opening::WebSocket(upgrade) => {
                self.clear(Flags::EVENT_STREAM);
                if let Some(deflate) = upgrade.deflate() {
                    self.set(Flags::DEFLATE);
                    if deflate.may_send() {
                        self.set(Flags::DEFLATE_OUT);
                    }
                }
            }
        }
    }
}

impl<C> Deferred<C> {
    pub(crate) fn new(opening: Option<(Opening, C)>, keep_alive: bool, head_only: bool) -> Self {
        Deferred {
            opening,
            keep_alive,
            head_only,
            has_ended: false,
            trailing: Vec::new(),
        }
    }

    /// Returns whether the request is for an event stream.
    pub(crate) fn is_event_stream(&self) -> bool {
        matches!(self.opening, Some((Opening::EventStream(_), _)))
    }

    /// Returns the memory used for input of the client, in bytes.
    fn memory(&self) -> usize {
        let request = match &self.opening {
            Some((Opening::EventStream(stream), _)) => stream.request().len(),
            _ => 0,
        };
        self.trailing.capacity() + request
    }
}

impl<S: Socket, C> Conn<S, C> {
    /// Returns the memory used for incomplete input, in bytes. Request bodies do not count: the
    /// handler has requested them and set their maximum length.
    pub(crate) fn incomplete(&self) -> usize {
        let kept = match &self.phase {
            Phase::Dead => return 0,
            Phase::ProxyHeader(proxy_header) => proxy_header.bytes.capacity(),
            Phase::Request {
                partial: Some(partial),
                ..
            } if partial.body.is_none() => partial.bytes.capacity(),
            Phase::Deferred(deferred) => deferred.memory(),
            _ => 0,
        };
        kept + self.incomplete_frames()
    }

    /// Like `incomplete`, for an open WebSocket.
    pub(crate) fn incomplete_frames(&self) -> usize {
        self.decoder.buffered() + self.transport.buffered()
    }

    /// Returns the memory used for a request body, in bytes.
    pub(crate) fn body(&self) -> usize {
        match &self.phase {
            Phase::Request {
                partial: Some(partial),
                ..
            } => partial
                .body
                .as_ref()
                .map_or(0, |body| partial.bytes.capacity() + body.head.memory()),
            _ => 0,
        }
    }
}

impl<S, C> Conn<S, C> {
    pub(crate) fn new(transport: Transport<S>, listener: ListenerId, now: Tick) -> Self {
        Conn {
            transport,
            phase: Phase::first_request(),
            decoder: Decoder::default(),
            tx: None,
            timer: Timer::unarmed(),
            last_activity: now,
            // A new socket is writable, so there is no need to wait for its first edge.
            flags: Flags::WRITABLE,
            listener,
            recent: RecentWork::NEW,
        }
    }

    /// Records activity, and brings the recent work up to that time.
    pub(crate) fn note_activity(&mut self, now: Tick) {
        self.recent = self.recent.decayed(now.saturating_sub(self.last_activity));
        self.last_activity = now;
    }

    /// Returns whether received bytes were left unprocessed because the connection had used up its
    /// share of work.
    pub(crate) fn has_unread(&self) -> bool {
        match &self.phase {
            Phase::Request {
                partial: Some(partial),
                ..
            } => partial.is_unread,
            Phase::Open(_) | Phase::Closing => self.decoder.has_unread(),
            _ => false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase.is_open()
    }

    /// Returns whether the connection is an open event stream.
    #[inline]
    pub(crate) fn is_open_stream(&self) -> bool {
        self.flags.has(Flags::EVENT_STREAM) && self.is_open()
    }

    /// Returns whether there is neither queued output nor incomplete input.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.tx.is_none() && !self.flags.has(Flags::INCOMPLETE)
    }

    /// Returns whether the output queue exceeds the soft limit.
    pub(crate) fn is_slow(&self) -> bool {
        let tx = self.tx.as_ref();
        tx.is_some_and(|tx| tx.over_soft_since.is_some())
    }

    /// Returns the length of the output queue in bytes.
    pub(crate) fn queued(&self) -> usize {
        self.tx.as_ref().map_or(0, |tx| tx.len())
    }
}

impl<S: Socket, C> Conn<S, C> {
    /// Returns the last activity, or an earlier time.
    pub(crate) fn last_activity(&self) -> LastActivity {
        let is_ping = self.flags.has(Flags::AWAITING_PONG);
        // The time of a ping includes the time that it needs to arrive over a slow link.
        let lag = match is_ping {
            true if self.flags.has(Flags::SLOW_PING) => MAX_LAG,
            true => SHORT_LAG,
            false => 0,
        };
        let at = self.last_activity.saturating_sub(lag);
        LastActivity {
            at: u64::from(at) * TICK_MS,
            is_ping,
        }
    }
}

impl<S, C> Timers for Arena<Conn<S, C>> {
    fn timer(&mut self, index: u32) -> Option<&mut Timer> {
        self.at_mut(index).map(|conn| &mut conn.timer)
    }
}

impl<S: Socket, C> Sessions<C> for Arena<Conn<S, C>> {
    fn session(&mut self, key: ConnKey) -> Option<&mut C> {
        match &mut self.get_mut(key)?.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        }
    }

    fn buffered(&mut self, key: ConnKey) -> usize {
        self.get(key).map_or(0, Conn::queued)
    }

    fn last_activity(&mut self, key: ConnKey) -> Option<LastActivity> {
        let conn = self.get(key).filter(|conn| conn.is_open())?;
        Some(conn.last_activity())
    }

    fn awaits_event_stream(&mut self, key: ConnKey) -> bool {
        let phase = self.get(key).map(|conn| &conn.phase);
        matches!(phase, Some(Phase::Deferred(deferred)) if deferred.is_event_stream())
    }

    fn next_open(&mut self, mut slot: u32) -> Option<ConnKey> {
        loop {
            let key = self.next_key(slot)?;
            if self.get(key).is_some_and(Conn::is_open) {
                return Some(key);
            }
            slot = key.slot().checked_add(1)?;
        }
    }

    fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        self.get_mut(key)?.transport.socket_mut().peer()
    }
}

#[cfg(test)]
mod tests;

//! One connection's state. Its size is what an idle connection costs.

use std::net::SocketAddr;

use crate::http::{ChunkedDecoder, Upgrade};
use crate::ws::Decoder;

use super::counters::End;
use super::engine::RecentWork;
use super::queue::TxQueue;
use super::socket::Socket;
use super::timer::{Tick, Timer, Timers};
use super::transport::Transport;
use super::{ConnKey, ListenerId, Sessions, arena::Arena};

/// A connection. Whatever is needed only while something is incomplete or queued is behind a
/// box that is not there otherwise.
pub(super) struct Conn<S, C> {
    pub transport: Transport<S>,
    pub phase: Phase<C>,
    /// The WebSocket's receiving side.
    pub decoder: Decoder,
    pub tx: Option<Box<TxQueue>>,
    /// The one timer; what it means follows from the phase.
    pub timer: Timer,
    /// When the peer last showed a sign of life.
    pub heard: Tick,
    pub flags: Flags,
    pub listener: ListenerId,
    /// Recent work for it, as of `heard`.
    pub recent: RecentWork,
}

/// Where a connection is in its life; what belongs to a phase lives in it.
pub(super) enum Phase<C> {
    /// The header of the PROXY protocol, which comes before TLS.
    Preface(Box<Preface>),
    /// TLS handshake, request head or body: at the start, or between two requests.
    Request(Option<Box<PartialRequest>>),
    /// The handler will answer later. Nothing is read meanwhile.
    Deferred(Box<Deferred>),
    /// The WebSocket is open.
    Open(C),
    /// We sent the first close frame and wait for the peer's.
    Closing,
    /// All is said: send what is queued, end our direction, and drop what still comes.
    Linger,
    /// Ended; freed at the end of the turn.
    Dead,
}

/// The bytes of a header of the PROXY protocol that is not whole.
#[derive(Default)]
pub(super) struct Preface {
    pub bytes: Vec<u8>,
}

/// The bytes of a request that is not whole.
pub(super) struct PartialRequest {
    pub bytes: Vec<u8>,
    /// Its body, once that was asked for.
    pub body: Option<PartialBody>,
    /// The bytes may contain complete requests: the connection had used its share of work.
    pub is_unread: bool,
}

/// How the end of a body is found that is arriving.
pub(super) enum PartialBody {
    /// Head and body together have this length.
    Whole(usize),
    /// It is in the chunked coding, of which only the data is kept.
    Chunked(ChunkedDecoder),
}

/// What is kept of a request that waits for its answer.
pub(super) struct Deferred {
    pub upgrade: Option<Upgrade>,
    pub keep_alive: bool,
    pub head_only: bool,
    /// Bytes that came behind the request.
    pub trailing: Vec<u8>,
}

/// Bits of state, in the order in which they matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// The socket may have bytes: set by an edge, cleared by what proved it empty.
    pub const READABLE: Flags = Flags(1);
    /// The socket may have room: set by an edge, cleared by what proved it full.
    pub const WRITABLE: Flags = Flags(1 << 1);
    /// The peer's FIN is there: read until 0, since no further edge will come.
    pub const READ_CLOSED: Flags = Flags(1 << 2);
    /// In the run queue.
    pub const QUEUED: Flags = Flags(1 << 3);
    /// In the list of those to flush.
    pub const DIRTY: Flags = Flags(1 << 4);
    /// A ping was sent, and nothing has been heard since.
    pub const PING_OUT: Flags = Flags(1 << 5);
    /// Read returned 0.
    pub const EOF: Flags = Flags(1 << 6);
    /// Our direction has been ended.
    pub const SHUT: Flags = Flags(1 << 7);
    /// Over the limit of connections: let in only to be told so.
    pub const SURPLUS: Flags = Flags(1 << 8);
    /// Counts against its IP address's limit.
    pub const PER_IP: Flags = Flags(1 << 9);
    /// Its client has authenticated itself: the last to be ended to make room.
    pub const AUTHENTICATED: Flags = Flags(1 << 10);
    /// Has yet to complete its first request; once open, its first heartbeat is still to come,
    /// sooner than the later ones.
    pub const YOUNG: Flags = Flags(1 << 11);
    /// In the account of what is unfinished.
    pub const UNFINISHED: Flags = Flags(1 << 12);
    /// permessage-deflate was negotiated: what it sends may be compressed.
    pub const DEFLATE: Flags = Flags(1 << 13);
    /// And so may be what is sent to it.
    pub const DEFLATE_OUT: Flags = Flags(1 << 14);
    /// A trusted proxy's: what its requests say of the client's address is believed.
    pub const PROXIED: Flags = Flags(1 << 15);

    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }

    pub fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }

    /// Sets the flag and says whether it was clear.
    pub fn raise(&mut self, flag: Flags) -> bool {
        let was = self.has(flag);
        self.set(flag);
        !was
    }
}

impl<S: Socket, C> Conn<S, C> {
    /// Bytes of memory that what has come and is not whole takes. A body is not counted: its
    /// handler has asked for it, and said how long it may be.
    pub fn unfinished(&self) -> usize {
        let kept = match &self.phase {
            Phase::Dead => return 0,
            Phase::Preface(preface) => preface.bytes.capacity(),
            Phase::Request(Some(partial)) if partial.body.is_none() => partial.bytes.capacity(),
            Phase::Deferred(deferred) => deferred.trailing.capacity(),
            _ => 0,
        };
        kept + self.unfinished_frames()
    }

    /// The same of an open WebSocket.
    pub fn unfinished_frames(&self) -> usize {
        self.decoder.held() + self.transport.held()
    }

    /// Bytes of memory that a request's body takes.
    pub fn body(&self) -> usize {
        match &self.phase {
            Phase::Request(Some(partial)) if partial.body.is_some() => partial.bytes.capacity(),
            _ => 0,
        }
    }
}

impl<S, C> Conn<S, C> {
    pub fn new(transport: Transport<S>, listener: ListenerId, now: Tick) -> Self {
        let mut flags = Flags::YOUNG;
        // A new socket has room; it need not wait for the edge that says so.
        flags.set(Flags::WRITABLE);
        Conn {
            transport,
            phase: Phase::Request(None),
            decoder: Decoder::default(),
            tx: None,
            timer: Timer::unarmed(),
            heard: now,
            flags,
            listener,
            recent: RecentWork::NEW,
        }
    }

    /// Notes a sign of life, and with it the time that recent work is as of.
    pub fn note_heard(&mut self, now: Tick) {
        self.recent = self.recent.decayed(now.saturating_sub(self.heard));
        self.heard = now;
    }

    /// Whether received bytes wait to be processed, because the connection had had its share.
    pub fn has_unread(&self) -> bool {
        match &self.phase {
            Phase::Request(Some(partial)) => partial.is_unread,
            Phase::Open(_) | Phase::Closing => self.decoder.has_unread(),
            _ => false,
        }
    }

    /// Whether its last request was answered, and nothing of another has come.
    pub fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Request(None)) && !self.flags.has(Flags::YOUNG)
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether it has no output that waits, and no input that is incomplete.
    pub fn is_at_rest(&self) -> bool {
        self.tx.is_none() && !self.flags.has(Flags::UNFINISHED)
    }

    /// Whether more than the soft limit waits.
    pub fn is_slow(&self) -> bool {
        let tx = self.tx.as_ref();
        tx.is_some_and(|tx| tx.over_soft_since.is_some())
    }

    /// Bytes that wait in the output queue.
    pub fn queued(&self) -> usize {
        self.tx.as_ref().map_or(0, |tx| tx.len())
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

    fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        self.get_mut(key)?.transport.socket_mut().peer()
    }
}

/// How a WebSocket's end is begun.
pub(super) struct Farewell<'a> {
    pub code: crate::ws::CloseCode,
    pub reason: &'a str,
    pub end: End,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for a descriptor and what kind of socket it is.
    type FdSized = (u32, u32);

    // M8
    #[test]
    fn a_connection_is_as_small_as_it_was_measured() {
        assert_eq!(size_of::<Conn<FdSized, ()>>(), 64);
        assert_eq!(size_of::<Option<Conn<FdSized, ()>>>(), 64);
        assert_eq!(size_of::<Conn<FdSized, [u64; 6]>>(), 104);
    }
}

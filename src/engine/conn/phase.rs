//! The phases of a connection, and their properties.
//!
//! Owns: the state of the current phase. The transitions are in [`lifecycle`](super::lifecycle).

use crate::conn::{Deferred, PartialRequest, ProxyHeader};

/// The phase of a connection, with the state that belongs to it.
///
/// The state of an open connection's heartbeat is in the connection's flags: beside a session, it
/// would take eight bytes.
pub(crate) enum Phase<C> {
    /// Expects a PROXY protocol header, which precedes TLS.
    ProxyHeader(Box<ProxyHeader>),
    /// HTTP: the TLS handshake, a request head, a request body, or the time between two requests.
    Request {
        partial: Option<Box<PartialRequest>>,
        /// The previous request, if any, was answered.
        has_answered: bool,
    },
    /// The handler has deferred its response. No input is read meanwhile.
    Deferred(Box<Deferred<C>>),
    /// The WebSocket or event stream is open.
    Open(C),
    /// We sent the first close frame and are waiting for the peer's.
    Closing,
    /// No more output will be queued: flush, shut down the write side, and discard input. Closing
    /// the socket with unread input would make the kernel reset the connection, and the reset could
    /// destroy output in flight.
    Linger {
        /// Our write side has been shut down.
        is_shut: bool,
        /// The peer's stream has ended.
        has_ended: bool,
    },
    /// Ended; freed at the end of the turn.
    Dead,
}

/// The timeout of a phase, by its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Handshake,
    Body,
    /// A deferred handshake or request for an event stream.
    Defer,
    /// Any other deferred request.
    Respond,
    Close,
    Linger,
}

/// Whether input is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Yes,
    No,
    /// No input is read, and the peer has disconnected.
    Gone,
}

/// The state of a connection that may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idleness {
    /// Waits for a later request, or for the end of the peer's stream.
    Idle,
    /// Waits for the rest of a request, or for its last output to be sent.
    Busy,
}

/// The extension of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    Linger,
    NextTick,
    /// The time lost to a pause of this server, if any.
    Pause,
}

impl<C> Phase<C> {
    pub(super) const LINGER: Self = Phase::Linger {
        is_shut: false,
        has_ended: false,
    };
    pub(super) const LINGER_ENDED: Self = Phase::Linger {
        is_shut: false,
        has_ended: true,
    };
    pub(super) const LINGER_SHUT: Self = Phase::Linger {
        is_shut: true,
        has_ended: false,
    };

    /// Returns the phase of a new connection without a PROXY protocol header.
    pub(crate) const fn first_request() -> Self {
        Phase::Request {
            partial: None,
            has_answered: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Phase::Open(_))
    }

    /// Returns whether the connection is ending, but has not ended.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self, Phase::Closing | Phase::Linger { .. })
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self, Phase::Dead)
    }

    /// Returns the timeout of any phase other than an open WebSocket.
    pub(crate) fn timeout(&self) -> Timeout {
        match self {
            Phase::Request {
                partial: Some(partial),
                ..
            } if partial.body.is_some() => Timeout::Body,
            Phase::ProxyHeader(_) | Phase::Request { .. } => Timeout::Handshake,
            Phase::Deferred(deferred) => deferred.timeout(),
            Phase::Linger { is_shut: true, .. } => Timeout::Linger,
            Phase::Open(_) | Phase::Closing | Phase::Linger { .. } | Phase::Dead => Timeout::Close,
        }
    }

    /// Returns whether input is read. `is_gone` means that the peer's stream has ended, and
    /// `is_choked` that the output queue exceeds its soft limit.
    #[inline(always)]
    pub(crate) fn reading(&self, is_gone: bool, is_choked: bool) -> Reading {
        match self {
            // The client of this handshake or event stream has disconnected. Other requests still get
            // their response.
            Phase::Deferred(deferred) if deferred.opening.is_some() && is_gone => Reading::Gone,
            Phase::Deferred(_) | Phase::Dead => Reading::No,
            // Backpressure: a client that does not read its responses is not read from.
            Phase::Open(_) | Phase::Request { .. } if is_choked => Reading::No,
            _ => Reading::Yes,
        }
    }

    /// Returns the idleness of a connection that may be evicted because it only waits for a request
    /// or for its end. Returns `None` for any other connection.
    pub(crate) fn idleness(&self, has_output: bool) -> Option<Idleness> {
        match self {
            Phase::Request {
                partial: Some(partial),
                ..
            } if partial.body.is_some() => None,
            Phase::Request {
                partial: None,
                has_answered: true,
            } if !has_output => Some(Idleness::Idle),
            Phase::ProxyHeader(_) | Phase::Request { .. } => Some(Idleness::Busy),
            Phase::Linger { is_shut: true, .. } => Some(Idleness::Idle),
            Phase::Linger { is_shut: false, .. } => Some(Idleness::Busy),
            Phase::Deferred(_) | Phase::Open(_) | Phase::Closing | Phase::Dead => None,
        }
    }

    /// Returns the extension of a passed deadline after the connection has been served once more.
    /// `was_closing` means that it was waiting for the peer's close frame before.
    pub(crate) fn extension(
        &self,
        was_closing: bool,
        has_unread: bool,
        has_progressed: bool,
    ) -> Option<Extension> {
        match self {
            // The peer's close frame had arrived.
            Phase::Linger { .. } if was_closing => Some(Extension::Linger),
            _ if has_unread => Some(Extension::NextTick),
            _ if has_progressed => Some(Extension::Pause),
            _ => None,
        }
    }
}

impl<C> Deferred<C> {
    pub(super) fn timeout(&self) -> Timeout {
        match self.opening {
            Some(_) => Timeout::Defer,
            None => Timeout::Respond,
        }
    }
}

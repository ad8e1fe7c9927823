//! The life of a connection, as a state machine.
//!
//! Owns: which phase follows on which event: requests, the closing handshake, lingering, and the end
//! ([`phase`](super::phase) has the properties of the phases, and [`keep_alive`](super::keep_alive)
//! the deadlines of open connections). Must not know: sockets, buffers, handlers, or the clock. The
//! engine reports events with [`Phase::apply`], and performs the actions it returns.
//!
//! # Transitions
//!
//! An event without an entry changes nothing. Leaving `Open` gives back the session.
//! *Close* means: send a close frame, and arm the timer. Entering `Linger` discards input, schedules
//! a flush, and arms the timer unless it runs since our close frame. Entering `Dead` frees
//! everything but the slot.
//!
//! | event | `ProxyHeader` | `Request` | `Deferred` | `Open` | `Closing` | `Linger` |
//! |---|---|---|---|---|---|---|
//! | `HeaderRead` | `Request` | | | | | |
//! | `Deferred` | | `Deferred` | | | | |
//! | `Resumed` | | | `Request` | | | |
//! | `Answered` | | `Request`, idle | | | | |
//! | `Finished` | | `Linger` | `Linger` | | | |
//! | `Unread` | | `Linger`, count | `Linger`, count | | | |
//! | `Opened` | | `Open` | | | | |
//! | `Close` | | | | `Closing`, close | | |
//! | `TooSlow` | | | | `Closing`, drop output, close | | |
//! | `StreamTooSlow` | | | | `Linger`, drop output, close | | |
//! | `StreamLeft` | | | | `Linger` | | |
//! | `Failed` | | | | `Linger`, close | `Linger` | |
//! | `PeerClosed` | | | | `Linger`, close | `Linger` | |
//! | `PeerEnded` | `Dead` | `Linger` | noted | `Linger` | `Linger` | noted, or `Dead` |
//! | `PeerGone` | | | `Dead` | | | |
//! | `Flushed` | read | read | read | read | read | shut down, or `Dead` |
//! | `Lost` | `Dead` | `Dead` | `Dead` | `Dead` | `Dead` | `Dead` |
//! | `TlsFailed` | `Dead` | `Linger`, count | `Dead` | `Dead` | `Dead` | `Dead` |
//! | `PongOverdue` | | | | `Dead`, reset | | |
//! | `Deadline` | `Dead`, count | refuse, or `Dead` | ask | | `Dead`, reset | `Dead`, or reset |
//! | `KeptWaiting` | | | wait | | | |
//! | `Restart` | check | check, or `Linger` | ask | | | |
//! | `RestartLate` | `Dead`, count | `Dead`, count | | | | |
//! | `ShedInput` | `Dead`, count | refuse, or `Dead` | refuse | `Linger`, close | `Dead` | `Dead` |
//! | `ShedOutput` | `Dead` | `Dead`, count | `Dead`, count | like `TooSlow` | `Dead` | `Dead` |
//! | `Aborted` | | | | | `Dead`, reset | `Dead`, reset |
//!
//! `Dead` is final: it ignores every event.
//!
//! An event stream has no closing handshake: its last blocks take the place of the close frame, and
//! the end of the connection is the end of the response. [`Event::on_event_stream`] replaces the events
//! for which it differs from a WebSocket.

use std::mem;

use Action::*;

use crate::conn::close_cause::{CloseCause, Limit, OpenTimeout};
use crate::conn::phase::{Phase, Timeout};
use crate::conn::{Deferred, PartialRequest, ProxyHeader};
use crate::handler::Refusal;
use crate::ws::CloseFrame;

/// An event in the life of a connection.
pub(crate) enum Event<'a, C> {
    /// The PROXY protocol header is complete.
    HeaderRead,
    /// The handler has deferred its response.
    Deferred(Box<Deferred<C>>),
    /// The handler responds to the deferred request.
    Resumed,
    /// A response was queued, after which the connection is kept alive.
    Answered,
    /// The last response was queued.
    Finished,
    /// The peer has not read the responses to its earlier requests.
    Unread,
    /// The 101 response, or the head of an event stream, was queued. The engine starts the heartbeat.
    Opened(C),
    /// This side starts the closing handshake.
    Close(CloseCause<'a>),
    /// The peer does not read its output.
    TooSlow,
    /// The WebSocket has failed (RFC 6455 §7.1.7), or this side ends an event stream.
    Failed(CloseCause<'a>),
    /// The client of an event stream does not read its output.
    StreamTooSlow,
    /// The client of an event stream has ended its side, which is its only way to leave.
    StreamLeft,
    /// The peer has sent a close frame.
    PeerClosed(Option<CloseFrame<'a>>),
    /// A read returned 0.
    PeerEnded,
    /// The peer's stream has ended while its handshake is deferred.
    PeerGone,
    /// The kernel has accepted all output.
    Flushed,
    /// A read or a write has failed, or the connection is not worth keeping.
    Lost,
    /// A read has failed during the TLS handshake.
    TlsFailed,
    /// A ping was not answered in time.
    PongOverdue,
    /// The deadline of a phase other than an open WebSocket has passed.
    Deadline { can_respond: bool },
    /// The handler is acting on the overdue request.
    KeptWaiting,
    /// The server is shutting down.
    Restart {
        /// The grace period for pending requests is over, or the peer has been silent for as long.
        is_late: bool,
        /// The grace period for pending requests is over.
        is_over: bool,
        has_output: bool,
    },
    /// The server is shutting down, and the request is still incomplete after another read.
    RestartLate,
    /// Incomplete input takes too much memory.
    ShedInput { can_respond: bool },
    /// Output takes too much memory.
    ShedOutput,
    /// The close frame cannot be sent without keeping too much output.
    Aborted,
}

impl<C> Event<'_, C> {
    /// Returns the corresponding event of an open event stream.
    #[inline(always)]
    pub(crate) fn on_event_stream(self) -> Self {
        match self {
            Event::Close(cause) => Event::Failed(cause),
            Event::TooSlow | Event::ShedOutput => Event::StreamTooSlow,
            Event::PeerEnded => Event::StreamLeft,
            other => other,
        }
    }
}

/// An action of the engine after a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Drops the output that is not in transmission.
    DropOutput,
    /// Sends the close frame, or the last blocks, for the cause for which the session ended.
    SendClose,
    /// Arms the timer.
    Arm(Timeout),
    /// Arms the timer, unless it is armed for an earlier time.
    ArmSooner(Timeout),
    /// Drops incomplete input, and schedules a flush, even of an empty queue, and a read.
    StartLinger,
    /// Schedules a read, if there may be input.
    Read,
    /// Shuts down the write side; a failure is [`Event::Lost`].
    ShutDownWrite,
    /// Makes the end a reset; output in flight may be lost.
    Reset,
    /// Releases everything but the slot.
    Free,
    /// Answers the request with an error.
    Refuse(Refusal),
    /// Asks the handler whether it is already acting on the deferred request.
    AskHandler(Refusal),
    /// Reads once more; then [`Event::RestartLate`], unless the request has progressed.
    CatchUp,
    /// Counts a connection that ends before it has become a WebSocket.
    Count(Counter),
}

/// The counters of connections that end before they have become WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    HandshakeTimeout,
    TlsFailure,
    /// The peer did not read the responses.
    Unread,
    Refused(Refusal),
}

/// The result of a transition.
pub(crate) struct Step<'a, C> {
    /// To be performed in order, until the connection is dead.
    pub actions: &'static [Action],
    /// State of the previous phase.
    pub left: Left<'a, C>,
}

/// The state that a phase leaves when it ends.
pub(crate) enum Left<'a, C> {
    Nothing,
    Session(C, CloseCause<'a>),
    Request(Box<Deferred<C>>),
}

/// The next phase, and the actions.
type Next<C> = (Phase<C>, &'static [Action]);

impl<C> Phase<C> {
    /// Makes the transition for an event.
    ///
    /// Inlined, so that each caller contains only the transitions of its event.
    #[inline(always)]
    pub(crate) fn apply<'a>(&mut self, event: Event<'a, C>) -> Step<'a, C> {
        let mut left = Left::Nothing;
        let (next, actions) = match mem::replace(self, Phase::Dead) {
            Phase::ProxyHeader(header) => of_proxy_header(header, event),
            Phase::Request {
                partial,
                has_answered,
            } => of_request(partial, has_answered, event),
            Phase::Deferred(deferred) => of_deferred(deferred, event, &mut left),
            Phase::Open(session) => of_open(session, event, &mut left),
            Phase::Closing => of_closing(&event),
            Phase::Linger { is_shut, has_ended } => of_linger(is_shut, has_ended, &event),
            Phase::Dead => (Phase::Dead, NONE),
        };
        // `Dead` has nothing to drop.
        mem::forget(mem::replace(self, next));
        Step { actions, left }
    }
}

#[inline(always)]
fn of_proxy_header<C>(header: Box<ProxyHeader>, event: Event<'_, C>) -> Next<C> {
    let actions: &'static [Action] = match event {
        Event::HeaderRead => return (Phase::first_request(), &[]),
        Event::Flushed => &[Read],
        // A TCP health check.
        Event::PeerEnded => return (Phase::Dead, &[Free]),
        Event::Lost | Event::TlsFailed | Event::ShedOutput => return (Phase::Dead, &[Free]),
        Event::Deadline { .. } => {
            return (Phase::Dead, &[Count(Counter::HandshakeTimeout), Free]);
        }
        Event::Restart { is_late: true, .. } => &[CatchUp],
        Event::RestartLate => return (Phase::Dead, &[COUNT_RESTART, Free]),
        Event::ShedInput { .. } => return (Phase::Dead, &[COUNT_OVERLOAD, Free]),
        _ => &[],
    };
    (Phase::ProxyHeader(header), actions)
}

#[inline(always)]
fn of_request<C>(
    partial: Option<Box<PartialRequest>>,
    has_answered: bool,
    event: Event<'_, C>,
) -> Next<C> {
    // The last request was answered, and nothing of another has arrived.
    let is_idle = has_answered && partial.is_none();
    let is_partial = partial.is_some();
    let stay = Phase::Request {
        partial,
        has_answered: has_answered || matches!(event, Event::Answered),
    };
    match event {
        Event::Answered => (stay, &[Arm(Timeout::Handshake)]),
        Event::Deferred(deferred) => {
            let actions: &'static [Action] = match deferred.timeout() {
                Timeout::Defer => &[Arm(Timeout::Defer)],
                _ => &[Arm(Timeout::Respond)],
            };
            (Phase::Deferred(deferred), actions)
        }
        Event::Opened(session) => (Phase::Open(session), &[]),
        Event::Flushed => (stay, &[Read]),
        Event::Finished => (Phase::LINGER, TO_LINGER),
        // A half-closed client still gets its pending output.
        Event::PeerEnded => (Phase::LINGER_ENDED, TO_LINGER),
        Event::Unread => (Phase::LINGER, UNREAD_TO_LINGER),
        // Our alert has been sent: let it arrive.
        Event::TlsFailed => (Phase::LINGER, TLS_TO_LINGER),
        Event::Restart {
            has_output: true, ..
        } => (Phase::LINGER, TO_LINGER),
        Event::Restart { is_late: true, .. } => (stay, &[CatchUp]),
        Event::RestartLate if is_idle => (Phase::Dead, &[Free]),
        Event::RestartLate => (Phase::Dead, &[COUNT_RESTART, Free]),
        // An incomplete request is answered; silence is not.
        Event::Deadline { can_respond: true } if is_partial => {
            (stay, &[Refuse(Refusal::Incomplete)])
        }
        Event::Deadline { .. } if is_idle => (Phase::Dead, &[Free]),
        Event::Deadline { .. } => (Phase::Dead, &[Count(Counter::HandshakeTimeout), Free]),
        Event::ShedInput { can_respond: true } => (stay, &[Refuse(Refusal::Overloaded)]),
        // No response can be sent before the TLS handshake.
        Event::ShedInput { can_respond: false } => (Phase::Dead, &[COUNT_OVERLOAD, Free]),
        Event::ShedOutput => (Phase::Dead, &[Count(Counter::Unread), Free]),
        Event::Lost => (Phase::Dead, &[Free]),
        _ => (stay, &[]),
    }
}

#[inline(always)]
fn of_deferred<'a, C>(
    mut deferred: Box<Deferred<C>>,
    event: Event<'a, C>,
    left: &mut Left<'a, C>,
) -> Next<C> {
    let actions: &'static [Action] = match event {
        Event::Resumed => {
            *left = Left::Request(deferred);
            return (Phase::first_request(), &[]);
        }
        Event::Flushed => &[Read],
        // A request that is not a handshake still gets its response.
        Event::PeerEnded => {
            deferred.has_ended = true;
            &[]
        }
        Event::PeerGone => return (Phase::Dead, &[Free]),
        Event::Deadline { .. } => &[AskHandler(Refusal::TimedOut)],
        Event::Restart { is_over: true, .. } => &[AskHandler(Refusal::ShuttingDown)],
        Event::KeptWaiting => match deferred.timeout() {
            Timeout::Defer => &[Arm(Timeout::Defer)],
            _ => &[Arm(Timeout::Respond)],
        },
        Event::Finished => return (Phase::LINGER, TO_LINGER),
        Event::Unread => return (Phase::LINGER, UNREAD_TO_LINGER),
        Event::ShedInput { .. } => &[Refuse(Refusal::Overloaded)],
        Event::ShedOutput => return (Phase::Dead, &[Count(Counter::Unread), Free]),
        Event::Lost | Event::TlsFailed => return (Phase::Dead, &[Free]),
        _ => &[],
    };
    (Phase::Deferred(deferred), actions)
}

#[inline(always)]
fn of_open<'a, C>(session: C, event: Event<'a, C>, left: &mut Left<'a, C>) -> Next<C> {
    let (cause, next, actions): (_, _, &'static [Action]) = match event {
        // RFC 6455 §7.1.2: "To _Start the WebSocket Closing Handshake_ with a status code … an
        // endpoint MUST send a Close control frame". Backpressure no longer applies then.
        Event::Close(cause) => (cause, Phase::Closing, CLOSE),
        Event::TooSlow | Event::ShedOutput => (
            CloseCause::Limit(Limit::Output),
            Phase::Closing,
            DROP_AND_CLOSE,
        ),
        // §7.1.7 _Fail the WebSocket Connection_: "the endpoint SHOULD send a Close frame with an
        // appropriate status code … before proceeding to _Close the WebSocket Connection_".
        Event::Failed(cause) => (cause, Phase::LINGER, CLOSE_TO_LINGER),
        Event::ShedInput { .. } => (
            CloseCause::Limit(Limit::Input),
            Phase::LINGER,
            CLOSE_TO_LINGER,
        ),
        // §5.5.1: "If an endpoint receives a Close frame and did not previously send a Close
        // frame, the endpoint MUST send a Close frame in response."
        Event::PeerClosed(frame) => (CloseCause::Peer(frame), Phase::LINGER, CLOSE_TO_LINGER),
        Event::StreamTooSlow => (
            CloseCause::Limit(Limit::Output),
            Phase::LINGER,
            DROP_AND_LINGER,
        ),
        Event::StreamLeft => (CloseCause::Peer(None), Phase::LINGER_ENDED, TO_LINGER),
        // The peer can no longer send a close frame, so none is waited for.
        Event::PeerEnded => (CloseCause::Lost, Phase::LINGER_ENDED, TO_LINGER),
        Event::Lost | Event::TlsFailed => (CloseCause::Lost, Phase::Dead, &[Free]),
        Event::PongOverdue => {
            let cause = CloseCause::Timeout(OpenTimeout::Pong);
            (cause, Phase::Dead, &[Reset, Free])
        }
        Event::Flushed => return (Phase::Open(session), &[Read]),
        _ => return (Phase::Open(session), &[]),
    };
    *left = Left::Session(session, cause);
    (next, actions)
}

/// The timeout counts from our close frame, and nothing extends it.
#[inline(always)]
fn of_closing<C>(event: &Event<'_, C>) -> Next<C> {
    match event {
        // §7.1.1: "the server MUST close the underlying TCP connection first", after both close
        // frames.
        Event::PeerClosed(_) => (Phase::LINGER, CLOSING_TO_LINGER),
        Event::Failed(_) => (Phase::LINGER, CLOSING_TO_LINGER),
        Event::PeerEnded => (Phase::LINGER_ENDED, CLOSING_TO_LINGER),
        Event::Flushed => (Phase::Closing, &[Read]),
        Event::Deadline { .. } | Event::Aborted => (Phase::Dead, &[Reset, Free]),
        Event::Lost | Event::TlsFailed | Event::ShedInput { .. } | Event::ShedOutput => {
            (Phase::Dead, &[Free])
        }
        _ => (Phase::Closing, &[]),
    }
}

#[inline(always)]
fn of_linger<C>(is_shut: bool, has_ended: bool, event: &Event<'_, C>) -> Next<C> {
    match event {
        Event::PeerEnded if is_shut => (Phase::Dead, &[Free]),
        Event::PeerEnded => (Phase::LINGER_ENDED, &[]),
        Event::Flushed if is_shut => (Phase::Linger { is_shut, has_ended }, &[]),
        Event::Flushed if has_ended => (Phase::Dead, &[ShutDownWrite, Free]),
        Event::Flushed => (
            Phase::LINGER_SHUT,
            &[ShutDownWrite, ArmSooner(Timeout::Linger)],
        ),
        // The kernel may still deliver output that it has accepted, including our FIN.
        Event::Deadline { .. } if is_shut => (Phase::Dead, &[Free]),
        // Queued output is dropped.
        Event::Deadline { .. } | Event::Aborted => (Phase::Dead, &[Reset, Free]),
        Event::Lost | Event::TlsFailed | Event::ShedInput { .. } | Event::ShedOutput => {
            (Phase::Dead, &[Free])
        }
        _ => (Phase::Linger { is_shut, has_ended }, &[]),
    }
}

const NONE: &[Action] = &[];
const CLOSE: &[Action] = &[SendClose, Arm(Timeout::Close), Read];
const DROP_AND_CLOSE: &[Action] = &[DropOutput, SendClose, Arm(Timeout::Close), Read];
const DROP_AND_LINGER: &[Action] = &[DropOutput, SendClose, Arm(Timeout::Close), StartLinger];
const CLOSE_TO_LINGER: &[Action] = &[SendClose, Arm(Timeout::Close), StartLinger];
const TO_LINGER: &[Action] = &[Arm(Timeout::Close), StartLinger];
const TLS_TO_LINGER: &[Action] = &[Count(Counter::TlsFailure), Arm(Timeout::Close), StartLinger];
const UNREAD_TO_LINGER: &[Action] = &[Count(Counter::Unread), Arm(Timeout::Close), StartLinger];
/// The timer keeps running since our close frame.
const CLOSING_TO_LINGER: &[Action] = &[StartLinger];
const COUNT_RESTART: Action = Count(Counter::Refused(Refusal::ShuttingDown));
const COUNT_OVERLOAD: Action = Count(Counter::Refused(Refusal::Overloaded));

#[cfg(test)]
mod tests;

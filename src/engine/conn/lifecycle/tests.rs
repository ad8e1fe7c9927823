//! Every event in every phase, against a table.

mod exploration;
mod phases;

use super::*;
use crate::conn::{BodyEnd, Opening, PartialBody};
use crate::http::{Head, HeadLayout, Upgrade, check_upgrade, parse_head};
use crate::ws::{CloseCode, ProtocolError};

/// A phase without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    ProxyHeader,
    Request { partial: Part, has_answered: bool },
    Deferred { is_handshake: bool, has_ended: bool },
    Open,
    Closing,
    Linger { is_shut: bool, has_ended: bool },
    Dead,
}

/// What has arrived of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Nothing,
    Head,
    Body,
}

/// An event without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Occurrence {
    HeaderRead,
    DeferredHandshake,
    DeferredRequest,
    Resumed,
    Answered,
    Finished,
    Unread,
    Opened,
    Close,
    TooSlow,
    Failed,
    StreamTooSlow,
    StreamLeft,
    PeerClosed,
    PeerEnded,
    PeerGone,
    Flushed,
    Lost,
    TlsFailed,
    PongOverdue,
    Deadline,
    SilentDeadline,
    KeptWaiting,
    Restart,
    RestartSilent,
    RestartOver,
    RestartWithOutput,
    RestartLate,
    ShedInput,
    ShedSilentInput,
    ShedOutput,
    Aborted,
}

use Occurrence as On;

const ALL: [On; 32] = [
    On::HeaderRead,
    On::DeferredHandshake,
    On::DeferredRequest,
    On::Resumed,
    On::Answered,
    On::Finished,
    On::Unread,
    On::Opened,
    On::Close,
    On::TooSlow,
    On::Failed,
    On::StreamTooSlow,
    On::StreamLeft,
    On::PeerClosed,
    On::PeerEnded,
    On::PeerGone,
    On::Flushed,
    On::Lost,
    On::TlsFailed,
    On::PongOverdue,
    On::Deadline,
    On::SilentDeadline,
    On::KeptWaiting,
    On::Restart,
    On::RestartSilent,
    On::RestartOver,
    On::RestartWithOutput,
    On::RestartLate,
    On::ShedInput,
    On::ShedSilentInput,
    On::ShedOutput,
    On::Aborted,
];

const FRESH: Kind = Kind::Request {
    partial: Part::Nothing,
    has_answered: false,
};
const IDLE: Kind = Kind::Request {
    partial: Part::Nothing,
    has_answered: true,
};
const LINGER: Kind = Kind::Linger {
    is_shut: false,
    has_ended: false,
};
const ENDED: Kind = Kind::Linger {
    is_shut: false,
    has_ended: true,
};
const SHUT: Kind = Kind::Linger {
    is_shut: true,
    has_ended: false,
};

fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::ProxyHeader, Kind::Open, Kind::Closing, Kind::Dead];
    for a in [false, true] {
        for partial in [Part::Nothing, Part::Head, Part::Body] {
            let has_answered = a;
            kinds.push(Kind::Request {
                partial,
                has_answered,
            });
        }
        for has_ended in [false, true] {
            kinds.push(deferred(a, has_ended));
        }
    }
    kinds.extend([LINGER, ENDED, SHUT]);
    kinds
}

fn deferred(is_handshake: bool, has_ended: bool) -> Kind {
    Kind::Deferred {
        is_handshake,
        has_ended,
    }
}

fn upgrade() -> Upgrade {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    match parse_head(head, 8192, check_upgrade) {
        Ok(Head::Complete(Ok(upgrade))) => upgrade,
        _ => panic!("not a handshake"),
    }
}

fn build(kind: Kind) -> Phase<()> {
    match kind {
        Kind::ProxyHeader => Phase::ProxyHeader(Box::default()),
        Kind::Request {
            partial,
            has_answered,
        } => {
            let of = |body| {
                Some(Box::new(PartialRequest {
                    bytes: Vec::new(),
                    body,
                    is_unread: false,
                }))
            };
            Phase::Request {
                partial: match partial {
                    Part::Nothing => None,
                    Part::Head => of(None),
                    Part::Body => of(Some(PartialBody {
                        head: head(),
                        end: BodyEnd::At(1),
                    })),
                },
                has_answered,
            }
        }
        Kind::Deferred {
            is_handshake,
            has_ended,
        } => {
            let opening = is_handshake.then(|| (Opening::WebSocket(upgrade()), ()));
            let mut deferred = Deferred::new(opening, true, false);
            deferred.has_ended = has_ended;
            Phase::Deferred(Box::new(deferred))
        }
        Kind::Open => Phase::Open(()),
        Kind::Closing => Phase::Closing,
        Kind::Linger { is_shut, has_ended } => Phase::Linger { is_shut, has_ended },
        Kind::Dead => Phase::Dead,
    }
}

fn kind_of(phase: &Phase<()>) -> Kind {
    match phase {
        Phase::ProxyHeader(_) => Kind::ProxyHeader,
        Phase::Request {
            partial,
            has_answered,
        } => Kind::Request {
            partial: match partial.as_ref().map(|partial| &partial.body) {
                None => Part::Nothing,
                Some(None) => Part::Head,
                Some(Some(_)) => Part::Body,
            },
            has_answered: *has_answered,
        },
        Phase::Deferred(request) => deferred(request.opening.is_some(), request.has_ended),
        Phase::Open(()) => Kind::Open,
        Phase::Closing => Kind::Closing,
        Phase::Linger { is_shut, has_ended } => Kind::Linger {
            is_shut: *is_shut,
            has_ended: *has_ended,
        },
        Phase::Dead => Kind::Dead,
    }
}

fn event(on: On) -> Event<'static, ()> {
    let bye = CloseFrame {
        code: CloseCode::NORMAL,
        reason: "bye",
    };
    let restart = |is_late, is_over, has_output| Event::Restart {
        is_late,
        is_over,
        has_output,
    };
    let request = |is_handshake| match build(deferred(is_handshake, false)) {
        Phase::Deferred(request) => Event::Deferred(request),
        _ => unreachable!(),
    };
    match on {
        On::HeaderRead => Event::HeaderRead,
        On::DeferredHandshake => request(true),
        On::DeferredRequest => request(false),
        On::Resumed => Event::Resumed,
        On::Answered => Event::Answered,
        On::Finished => Event::Finished,
        On::Unread => Event::Unread,
        On::Opened => Event::Opened(()),
        On::Close => Event::Close(CloseCause::Application(bye)),
        On::TooSlow => Event::TooSlow,
        On::Failed => {
            let error = ProtocolError::new(CloseCode::PROTOCOL_ERROR, "wrong");
            Event::Failed(CloseCause::Violation(error))
        }
        On::StreamTooSlow => Event::StreamTooSlow,
        On::StreamLeft => Event::StreamLeft,
        On::PeerClosed => Event::PeerClosed(Some(bye)),
        On::PeerEnded => Event::PeerEnded,
        On::PeerGone => Event::PeerGone,
        On::Flushed => Event::Flushed,
        On::Lost => Event::Lost,
        On::TlsFailed => Event::TlsFailed,
        On::PongOverdue => Event::PongOverdue,
        On::Deadline => Event::Deadline { can_respond: true },
        On::SilentDeadline => Event::Deadline { can_respond: false },
        On::KeptWaiting => Event::KeptWaiting,
        On::Restart => restart(false, false, false),
        On::RestartSilent => restart(true, false, false),
        On::RestartOver => restart(true, true, false),
        On::RestartWithOutput => restart(true, true, true),
        On::RestartLate => Event::RestartLate,
        On::ShedInput => Event::ShedInput { can_respond: true },
        On::ShedSilentInput => Event::ShedInput { can_respond: false },
        On::ShedOutput => Event::ShedOutput,
        On::Aborted => Event::Aborted,
    }
}

/// The table of the module's documentation: the phase before, the event, the phase after, and the
/// actions. A row without an entry of its own says nothing about other phases.
fn expected(before: Kind, on: On) -> (Kind, Vec<Action>) {
    let shed = Count(Counter::Refused(Refusal::Overloaded));
    let restart = Count(Counter::Refused(Refusal::ShuttingDown));
    let timeout = Count(Counter::HandshakeTimeout);
    let to_linger = vec![Arm(Timeout::Close), StartLinger];
    let counted = |counter| [vec![Count(counter)], to_linger.clone()].concat();
    let closing = vec![SendClose, Arm(Timeout::Close)];
    let closed = [closing.clone(), vec![StartLinger]].concat();
    let close = [closing, vec![Read]].concat();
    let dropped = [vec![DropOutput], close.clone()].concat();
    let stream_dropped = [vec![DropOutput], closed.clone()].concat();
    let dead = |actions: &[Action]| (Kind::Dead, actions.to_vec());
    match (before, on) {
        (Kind::Dead, _) => dead(&[]),
        (Kind::ProxyHeader, On::HeaderRead) => (FRESH, vec![]),
        (Kind::ProxyHeader, On::PeerEnded) => dead(&[Free]),
        (Kind::ProxyHeader, On::Deadline | On::SilentDeadline) => dead(&[timeout, Free]),
        (Kind::ProxyHeader | Kind::Request { .. }, On::RestartSilent | On::RestartOver)
        | (Kind::ProxyHeader, On::RestartWithOutput) => (before, vec![CatchUp]),
        (IDLE, On::RestartLate | On::Deadline | On::SilentDeadline) => dead(&[Free]),
        (Kind::ProxyHeader | Kind::Request { .. }, On::RestartLate) => dead(&[restart, Free]),
        (Kind::ProxyHeader, On::ShedInput | On::ShedSilentInput) => dead(&[shed, Free]),

        (Kind::Request { partial, .. }, On::Answered) => {
            let has_answered = true;
            let after = Kind::Request {
                partial,
                has_answered,
            };
            (after, vec![Arm(Timeout::Handshake)])
        }
        (Kind::Request { .. }, On::DeferredHandshake) => {
            (deferred(true, false), vec![Arm(Timeout::Defer)])
        }
        (Kind::Request { .. }, On::DeferredRequest) => {
            (deferred(false, false), vec![Arm(Timeout::Respond)])
        }
        (Kind::Request { .. }, On::Opened) => (Kind::Open, vec![]),
        (Kind::Request { .. } | Kind::Deferred { .. }, On::Finished) => (LINGER, to_linger),
        (Kind::Request { .. }, On::RestartWithOutput) => (LINGER, to_linger),
        (Kind::Request { .. } | Kind::Deferred { .. }, On::Unread) => {
            (LINGER, counted(Counter::Unread))
        }
        (Kind::Request { .. }, On::TlsFailed) => (LINGER, counted(Counter::TlsFailure)),
        (Kind::Request { .. } | Kind::Open, On::PeerEnded) => (ENDED, to_linger),
        (
            Kind::Request {
                partial: Part::Head | Part::Body,
                ..
            },
            On::Deadline,
        ) => (before, vec![Refuse(Refusal::Incomplete)]),
        (Kind::Request { .. }, On::Deadline | On::SilentDeadline) => dead(&[timeout, Free]),
        (Kind::Request { .. }, On::ShedInput) => (before, vec![Refuse(Refusal::Overloaded)]),
        (Kind::Request { .. }, On::ShedSilentInput) => dead(&[shed, Free]),
        (Kind::Request { .. } | Kind::Deferred { .. }, On::ShedOutput) => {
            dead(&[Count(Counter::Unread), Free])
        }

        (Kind::Deferred { .. }, On::Resumed) => (FRESH, vec![]),
        (Kind::Deferred { is_handshake, .. }, On::PeerEnded) => {
            (deferred(is_handshake, true), vec![])
        }
        (Kind::Deferred { .. }, On::PeerGone) => dead(&[Free]),
        (Kind::Deferred { .. }, On::Deadline | On::SilentDeadline) => {
            (before, vec![AskHandler(Refusal::TimedOut)])
        }
        (Kind::Deferred { .. }, On::RestartOver | On::RestartWithOutput) => {
            (before, vec![AskHandler(Refusal::ShuttingDown)])
        }
        (Kind::Deferred { is_handshake, .. }, On::KeptWaiting) => match is_handshake {
            true => (before, vec![Arm(Timeout::Defer)]),
            false => (before, vec![Arm(Timeout::Respond)]),
        },
        (Kind::Deferred { .. }, On::ShedInput | On::ShedSilentInput) => {
            (before, vec![Refuse(Refusal::Overloaded)])
        }

        (Kind::Open, On::Close) => (Kind::Closing, close),
        (Kind::Open, On::TooSlow | On::ShedOutput) => (Kind::Closing, dropped),
        (Kind::Open, On::Failed | On::PeerClosed | On::ShedInput | On::ShedSilentInput) => {
            (LINGER, closed)
        }
        (Kind::Open, On::StreamTooSlow) => (LINGER, stream_dropped),
        (Kind::Open, On::StreamLeft) => (ENDED, to_linger),
        (Kind::Open, On::PongOverdue) => dead(&[Reset, Free]),

        (Kind::Closing, On::PeerClosed | On::Failed) => (LINGER, vec![StartLinger]),
        (Kind::Closing, On::PeerEnded) => (ENDED, vec![StartLinger]),
        (Kind::Closing | LINGER | ENDED, On::Deadline | On::SilentDeadline) => dead(&[Reset, Free]),
        (Kind::Closing | Kind::Linger { .. }, On::Aborted) => dead(&[Reset, Free]),

        (LINGER | ENDED, On::PeerEnded) => (ENDED, vec![]),
        (Kind::Linger { .. }, On::PeerEnded) => dead(&[Free]),
        (LINGER, On::Flushed) => (SHUT, vec![ShutDownWrite, ArmSooner(Timeout::Linger)]),
        (ENDED, On::Flushed) => dead(&[ShutDownWrite, Free]),
        (Kind::Linger { .. }, On::Flushed) => (before, vec![]),
        (Kind::Linger { .. }, On::Deadline | On::SilentDeadline) => dead(&[Free]),

        (_, On::Flushed) => (before, vec![Read]),
        (_, On::Lost | On::TlsFailed) => dead(&[Free]),
        (
            Kind::ProxyHeader | Kind::Closing | Kind::Linger { .. },
            On::ShedInput | On::ShedSilentInput | On::ShedOutput,
        ) => dead(&[Free]),
        _ => (before, vec![]),
    }
}

// K2, W11, W14, T2, S6
#[test]
fn each_event_in_each_phase_is_as_in_the_table() {
    for before in kinds() {
        for on in ALL {
            let mut phase = build(before);
            let step = phase.apply(event(on));
            let got = (kind_of(&phase), step.actions.to_vec());
            assert_eq!(got, expected(before, on), "{on:?} in {before:?}");
        }
    }
}

#[test]
fn session_and_deferred_request_are_handed_over() {
    let mut phase = Phase::<u32>::first_request();
    assert!(matches!(phase.apply(Event::Opened(7)).left, Left::Nothing));
    let left = phase.apply(Event::Lost).left;
    assert!(matches!(left, Left::Session(7, CloseCause::Lost)));
    let mut phase = build(deferred(true, true));
    let Left::Request(request) = phase.apply(Event::Resumed).left else {
        panic!("no deferred request");
    };
    assert!(request.has_ended && request.opening.is_some());
}

/// An event stream ends without a closing handshake: nothing is waited for after the last blocks.
#[test]
fn open_event_stream_never_enters_closing() {
    for on in ALL {
        let mut phase = Phase::Open(());
        phase.apply(event(on).on_event_stream());
        assert_ne!(kind_of(&phase), Kind::Closing, "{on:?}");
        // Events without a counterpart are those of a WebSocket.
        let mut as_web_socket = Phase::Open(());
        as_web_socket.apply(event(on));
        if kind_of(&as_web_socket) != Kind::Closing {
            assert_eq!(kind_of(&phase), kind_of(&as_web_socket), "{on:?}");
        }
    }
}

fn head() -> HeadLayout {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n";
    match parse_head(bytes, 100, |request| HeadLayout::of(request, bytes)) {
        Ok(Head::Complete(Some(head))) => head,
        _ => panic!("the head is complete"),
    }
}

//! The properties of the phases.

use super::*;
use crate::conn::phase::{Extension, Idleness, Reading};

#[test]
fn timeouts_of_the_phases() {
    for kind in kinds() {
        let want = match kind {
            Kind::Request {
                partial: Part::Body,
                ..
            } => Timeout::Body,
            Kind::ProxyHeader | Kind::Request { .. } => Timeout::Handshake,
            Kind::Deferred { is_handshake, .. } if is_handshake => Timeout::Defer,
            Kind::Deferred { .. } => Timeout::Respond,
            SHUT => Timeout::Linger,
            _ => Timeout::Close,
        };
        assert_eq!(build(kind).timeout(), want, "{kind:?}");
    }
}

#[test]
fn reading_depends_on_the_phase() {
    for kind in kinds() {
        for (is_gone, is_choked) in [(false, false), (false, true), (true, false), (true, true)] {
            let want = match kind {
                Kind::Deferred { is_handshake, .. } if is_handshake && is_gone => Reading::Gone,
                Kind::Deferred { .. } | Kind::Dead => Reading::No,
                Kind::Open | Kind::Request { .. } if is_choked => Reading::No,
                _ => Reading::Yes,
            };
            assert_eq!(build(kind).reading(is_gone, is_choked), want, "{kind:?}");
        }
    }
}

#[test]
fn only_connections_that_wait_can_be_evicted() {
    for kind in kinds() {
        for has_output in [false, true] {
            let want = match kind {
                Kind::Request {
                    partial: Part::Body,
                    ..
                } => None,
                IDLE if !has_output => Some(Idleness::Idle),
                SHUT => Some(Idleness::Idle),
                Kind::ProxyHeader | Kind::Request { .. } | LINGER | ENDED => Some(Idleness::Busy),
                _ => None,
            };
            assert_eq!(build(kind).idleness(has_output), want, "{kind:?}");
        }
    }
}

#[test]
fn passed_deadline_is_extended_for_delays_of_this_server() {
    for kind in kinds() {
        for bits in 0..8 {
            let [was_closing, has_unread, has_progressed] = [1, 2, 4].map(|bit| bits & bit != 0);
            let want = match (was_closing, has_unread, has_progressed) {
                (true, ..) if matches!(kind, Kind::Linger { .. }) => Some(Extension::Linger),
                (_, true, _) => Some(Extension::NextTick),
                (_, _, true) => Some(Extension::Pause),
                _ => None,
            };
            let got = build(kind).extension(was_closing, has_unread, has_progressed);
            assert_eq!(got, want, "{kind:?}");
        }
    }
}

#[test]
fn open_closing_and_dead_are_phases() {
    for kind in kinds() {
        let phase = build(kind);
        let is_closing = matches!(kind, Kind::Closing | Kind::Linger { .. });
        let want = (kind == Kind::Open, is_closing, kind == Kind::Dead);
        let got = (phase.is_open(), phase.is_closing(), phase.is_dead());
        assert_eq!(got, want, "{kind:?}");
    }
}

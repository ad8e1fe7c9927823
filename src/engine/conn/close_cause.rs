//! Why WebSockets end.
//!
//! Owns: the close code, the reason text, the metrics label, and the counter of each cause.

use std::fmt;

use crate::counters::CloseCounts;
use crate::ws::{CloseCode, CloseFrame, ProtocolError};

/// The cause of a WebSocket's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCause<'a> {
    /// The peer sent the first close frame.
    Peer(Option<CloseFrame<'a>>),
    /// The application closed the connection.
    Application(CloseFrame<'a>),
    /// The peer violated the protocol, or sent a message over a limit.
    Violation(ProtocolError),
    /// A limit on memory was reached, and this connection was chosen to be closed.
    Limit(Limit),
    /// The peer did not act in time.
    Timeout(OpenTimeout),
    /// The connection broke, or ended without a close frame.
    Lost,
    /// The server is shutting down.
    Restart(CloseFrame<'a>),
}

/// A limit on the memory of open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The peer does not read its output as fast as required.
    Output,
    /// Incomplete input takes too much memory in total.
    Input,
}

/// A timeout of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenTimeout {
    /// A message was not completed in time.
    Message,
    /// A ping was not answered in time.
    Pong,
}

/// How the end of a WebSocket is reported to the peer, in the metrics, and in the log.
pub(crate) struct Ending<'a> {
    /// The close frame to send; `None` for one without a code. A lost connection gets none.
    pub frame: Option<CloseFrame<'a>>,
    /// The code of the first close frame.
    pub code: u16,
    /// The label used in metrics and logs.
    pub label: &'static str,
    pub counter: fn(&mut CloseCounts) -> &mut u64,
}

impl<'a> CloseCause<'a> {
    pub(crate) fn ending(self) -> Ending<'a> {
        let sent = |code, reason| Some(CloseFrame { code, reason });
        let (frame, label, counter): (_, _, fn(&mut CloseCounts) -> &mut u64) = match self {
            // RFC 6455 §5.5.1: "When sending a Close frame in response, the endpoint typically
            // echos the status code it received."
            CloseCause::Peer(frame) => (frame, "client", |counts| &mut counts.by_peer),
            CloseCause::Application(frame) => {
                (Some(frame), "server", |counts| &mut counts.by_application)
            }
            CloseCause::Violation(error) => {
                let frame = sent(error.code, error.reason);
                (frame, "protocol", |counts| &mut counts.protocol)
            }
            // The code tells the client that it has missed messages.
            CloseCause::Limit(Limit::Output) => {
                let frame = sent(CloseCode::TRY_AGAIN_LATER, "too slow in reading");
                (frame, "slow", |counts| &mut counts.slow)
            }
            CloseCause::Limit(Limit::Input) => {
                let frame = sent(CloseCode::TRY_AGAIN_LATER, "too much is unfinished");
                (frame, "overload", |counts| &mut counts.overload)
            }
            CloseCause::Timeout(OpenTimeout::Message) => {
                let frame = sent(CloseCode::POLICY, "message was not complete in time");
                (frame, "timeout", |counts| &mut counts.timed_out)
            }
            CloseCause::Timeout(OpenTimeout::Pong) => {
                (None, "timeout", |counts| &mut counts.timed_out)
            }
            CloseCause::Lost => (None, "lost", |counts| &mut counts.lost),
            CloseCause::Restart(frame) => (Some(frame), "shutdown", |counts| &mut counts.shutdown),
        };
        let without_code = match self {
            CloseCause::Peer(_) => NO_CODE,
            _ => ABNORMAL,
        };
        Ending {
            frame,
            code: frame.map_or(without_code, |frame| frame.code.0),
            label,
            counter,
        }
    }
}

impl fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.frame.map_or("", |frame| frame.reason);
        write!(
            f,
            "code={} cause={} reason={reason:?}",
            self.code, self.label
        )
    }
}

/// RFC 6455 §7.1.5: if the close frame has no code, "_The WebSocket Connection Close Code_ is
/// considered to be 1005".
const NO_CODE: u16 = 1005;
/// Without a close frame, it "is considered to be 1006".
const ABNORMAL: u16 = 1006;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_code_label_and_counter() {
        let bye = CloseFrame {
            code: CloseCode(4001),
            reason: "bye",
        };
        let error = ProtocolError::new(CloseCode::PROTOCOL_ERROR, "wrong");
        for (cause, code, label) in [
            (CloseCause::Peer(Some(bye)), 4001, "client"),
            (CloseCause::Peer(None), 1005, "client"),
            (CloseCause::Application(bye), 4001, "server"),
            (CloseCause::Violation(error), 1002, "protocol"),
            (CloseCause::Limit(Limit::Output), 1013, "slow"),
            (CloseCause::Limit(Limit::Input), 1013, "overload"),
            (CloseCause::Timeout(OpenTimeout::Message), 1008, "timeout"),
            (CloseCause::Timeout(OpenTimeout::Pong), 1006, "timeout"),
            (CloseCause::Lost, 1006, "lost"),
            (CloseCause::Restart(bye), 4001, "shutdown"),
        ] {
            let ending = cause.ending();
            assert_eq!((ending.code, ending.label), (code, label), "{cause:?}");
            let mut counts = CloseCounts::default();
            *(ending.counter)(&mut counts) += 1;
            let counted = [
                ("client", counts.by_peer),
                ("server", counts.by_application),
                ("protocol", counts.protocol),
                ("lost", counts.lost),
                ("timeout", counts.timed_out),
                ("slow", counts.slow),
                ("overload", counts.overload),
                ("shutdown", counts.shutdown),
            ];
            for (name, count) in counted {
                assert_eq!(count, u64::from(name == label), "{cause:?}");
            }
        }
    }

    #[test]
    fn ending_is_logged_with_its_code_cause_and_reason() {
        let bye = CloseFrame {
            code: CloseCode(4001),
            reason: "b\ny",
        };
        let ending = CloseCause::Peer(Some(bye)).ending();
        let text = r#"code=4001 cause=client reason="b\ny""#;
        assert_eq!(ending.to_string(), text);
    }
}

//! Debug messages to connections that have requested tracing by `?debug=1`.
//!
//! Owns: their content, and the decision whether to send one. A message never depends on an
//! annotation that the connection may not read: neither on its existence nor on its time. Hence only
//! these events are reported: those that the client itself causes, and withheld events on annotations
//! that the rules would send. The limits of a connection do not depend on other connections.

use serde_json::{Value, json};

use crate::http::Block;
use crate::model::{Decision, EndCause};
use crate::net::{ConnKey, Cx, Frame};

use super::delivery::Evaluation;
use super::explain::interpretation;
use super::message::MessageKind;
use super::reply::{self, Rejection};
use super::resume::{is_event_stream, send_frame};
use super::session::SessionFlag;
use super::watch::{Outcome, beginning, subject_of};
use super::{ApiSession, Realtime};

impl Realtime {
    /// Begins to record a connection that has requested tracing.
    pub(super) fn watch_traced(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        if !self.watches.insert(key, true, cx.now().unix) {
            self.counters.debug.suppressed += 1;
            let reason = "too many connections with debug=1 are open: no further debug messages";
            self.send_debug(cx, key, json!({"event": "unavailable", "reason": reason}));
        }
    }

    /// Reports the effect of a client's message.
    #[cold]
    pub(super) fn debug_message(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        kind: &MessageKind<'_>,
        rejection: Option<Rejection<'_>>,
    ) {
        if let Some(rejection) = rejection {
            return self.debug(cx, key, || {
                let mut text = String::new();
                reply::error(&mut text, rejection, "null");
                let error: Value = serde_json::from_str(&text).unwrap_or_default();
                json!({"event": "rejected", "message": kind.as_str(), "error": error["error"]})
            });
        }
        match kind {
            MessageKind::Filter { filter, .. } => self.debug_filter(cx, key, *filter),
            MessageKind::ClientId { .. } => {
                let session = cx.session(key);
                let is_set = session.is_some_and(|session| session.client().is_some());
                self.debug(cx, key, || json!({"event": "client_id", "is_set": is_set}));
            }
            MessageKind::Ping | MessageKind::Whoami | MessageKind::Unknown { .. } => {}
        }
    }

    /// Reports the meaning of a filter that has been accepted.
    pub(super) fn debug_filter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        filter: Option<&str>,
    ) {
        let limit = self.settings.max_terms;
        let filter = filter.unwrap_or_default();
        self.debug(cx, key, || {
            let mut content = json!({"event": "filter"});
            if let (Some(content), Value::Object(members)) =
                (content.as_object_mut(), interpretation(filter, limit))
            {
                content.extend(members);
            }
            content
        });
    }

    /// Reports the start of a replay.
    #[cold]
    pub(super) fn debug_replay(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        let session = cx.session(key);
        let is_cursor = session.is_some_and(|session| session.has(SessionFlag::Cursors));
        let cause = match is_cursor {
            true => "since",
            false => "client_id",
        };
        self.debug(cx, key, || json!({"event": "replay", "cause": cause}));
    }

    /// Reports the end of a connection's credentials, before the close.
    pub(super) fn debug_end(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, cause: EndCause) {
        self.debug(
            cx,
            key,
            || json!({"event": "token_ended", "reason": cause.as_str()}),
        );
    }

    /// Records, logs, and reports the outcome of an event on an observed connection.
    #[cold]
    pub(super) fn observe(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        evaluation: &Evaluation<'_>,
        outcome: Outcome,
    ) {
        let plan = evaluation.plan;
        self.watches.record(key, plan, outcome, cx.now().unix);
        if !cx.session(key).is_some_and(|session| session.is_traced()) {
            return;
        }
        self.trace_outcome(cx, key, plan.kind, outcome);
        // A client may have any client id, also that of a client whose annotations it may not read.
        let may_read = matches!(self.decision(key, evaluation), Decision::Send(_));
        if matches!(outcome, Outcome::Own | Outcome::Suppressed) && may_read {
            self.debug(cx, key, || {
                json!({
                    "event": "withheld",
                    "reason": outcome.as_str(),
                    "action": plan.kind.as_str(),
                    "id": beginning(subject_of(plan)),
                })
            });
        }
    }

    /// Reports an event whose action the filter of a connection does not select.
    #[cold]
    pub(super) fn observe_suppressed(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        evaluation: &Evaluation<'_>,
    ) {
        if cx.session(key).is_some_and(|session| session.is_observed()) {
            self.observe(cx, key, evaluation, Outcome::Suppressed);
        }
    }

    /// Logs the outcome of an event on a traced connection.
    fn trace_outcome(
        &mut self,
        cx: &Cx<'_, ApiSession>,
        key: ConnKey,
        kind: crate::model::EventKind,
        outcome: Outcome,
    ) {
        let (now, kind) = (cx.now().mono, kind.as_str());
        let mut log = |line| self.tracer.log(key, true, now, line);
        let deny = |reason: &str| format!("event kind={kind} decision=deny reason={reason}");
        match outcome {
            Outcome::Sent(variant) => log(format_args!(
                "event kind={kind} decision=send variant={variant}"
            )),
            Outcome::Denied(reason) => log(format_args!("{}", deny(reason.as_str()))),
            Outcome::Own | Outcome::Suppressed => log(format_args!("{}", deny(outcome.as_str()))),
            Outcome::Deferred | Outcome::Replayed | Outcome::Retracted => {}
        }
    }

    /// Sends a debug message to a connection that has requested tracing, within its limits.
    fn debug(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        content: impl FnOnce() -> Value,
    ) {
        let Some(watch) = self.watches.traced_mut(key) else {
            return;
        };
        if !watch.budget.take(cx.now().mono) {
            watch.budget.suppressed += 1;
            self.counters.debug.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut watch.budget.suppressed);
        let mut content = content();
        if suppressed > 0 {
            content["suppressed"] = suppressed.into();
        }
        self.send_debug(cx, key, content);
    }

    fn send_debug(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, content: Value) {
        let mut message = json!({"type": "debug"});
        if let (Some(message), Value::Object(content)) = (message.as_object_mut(), content) {
            message.extend(content);
        }
        self.counters.debug.sent += 1;
        let text = message.to_string();
        let frame = match is_event_stream(cx, key) {
            true => Frame::block(&Block {
                event: Some("debug"),
                data: Some(&text),
                ..Block::default()
            }),
            false => Frame::uncompressed(&text),
        };
        send_frame(cx, key, frame);
    }
}

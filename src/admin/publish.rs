//! Publishing over HTTP, from the request to the response.
//!
//! Owns: the publish requests in progress at the backend, and their limits. Must not know: events
//! and their delivery.

use crate::http::{Request, Response};
use crate::model::{BackendRequest, Busy, MonoMillis, PublishClaim, PublishError, RequestId};
use crate::net::{ConnKey, Cx, Overdue, Verdict};

use super::Admin;
use super::response::{error, reject};

/// A publish request in progress at the backend.
pub(super) struct PendingPublish {
    bytes: usize,
    received: MonoMillis,
    /// The publisher requested the matches of each event.
    detailed: bool,
    state: PublishState,
    claim: PublishClaim,
}

/// The progress of a publish request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PublishState {
    /// The backend has not parsed it yet.
    Waiting,
    /// Its events are being delivered.
    Delivering,
    /// The publisher was notified that nothing is published.
    Cancelled,
}

impl Admin {
    pub(super) fn publish<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Verdict<C> {
        if self.keys.is_read_only {
            let reason = "Publishing is disabled: events come from the message queue.";
            return reject(404, "not_found", reason);
        }
        if let Err(response) = self.check_key(cx, key, request) {
            return response;
        }
        let Some(body) = request.body else {
            return Verdict::ReadBody { limit: MAX_BODY };
        };
        if self.pending_bytes + body.len() > MAX_PENDING_BYTES {
            self.counters.busy += 1;
            return Verdict::Respond(busy());
        }
        let request_id = RequestId(key.to_u64());
        let claim = PublishClaim::default();
        let publish = BackendRequest::Publish {
            request_id,
            body: body.to_vec(),
            claim: claim.clone(),
        };
        match self.backend.send(publish) {
            Ok(()) => {
                let pending = PendingPublish {
                    bytes: body.len(),
                    received: MonoMillis(cx.now().mono),
                    detailed: request.last_param("each").is_some_and(|each| each == "1"),
                    state: PublishState::Waiting,
                    claim,
                };
                self.pending_bytes += pending.bytes;
                self.pending.insert(request_id, pending);
                Verdict::Defer
            }
            Err(Busy) => {
                self.counters.busy += 1;
                Verdict::Respond(busy())
            }
        }
    }

    /// Called when the backend has parsed a request and its events are about to be delivered.
    /// Returns the arrival time. `None` if the request was canceled: nothing of it may be delivered
    /// then.
    pub fn begin_delivery(&mut self, request_id: RequestId) -> Option<MonoMillis> {
        let pending = self.pending.get_mut(&request_id)?;
        if pending.state == PublishState::Cancelled {
            self.take_pending(request_id);
            return None;
        }
        pending.state = PublishState::Delivering;
        Some(pending.received)
    }

    /// Called when a deferred request is overdue. If the backend has not begun to publish the events of
    /// a publish request, it never will, so the publisher may send the request again. Otherwise the
    /// request is answered when its delivery is complete.
    pub fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        let request_id = RequestId(key.to_u64());
        let Some(pending) = self.pending.get_mut(&request_id) else {
            // The answer to a request for an explanation is ignored from now on.
            self.explaining.remove(&request_id);
            return Overdue::Refuse;
        };
        match pending.state {
            PublishState::Delivering => return Overdue::Wait,
            PublishState::Cancelled => {}
            // The backend is publishing its events.
            PublishState::Waiting if !pending.claim.cancel() => return Overdue::Wait,
            PublishState::Waiting => {
                pending.state = PublishState::Cancelled;
                self.counters.cancelled += 1;
            }
        }
        Overdue::Refuse
    }

    fn take_pending(&mut self, request_id: RequestId) -> Option<PendingPublish> {
        let pending = self.pending.remove(&request_id)?;
        self.pending_bytes -= pending.bytes;
        Some(pending).filter(|pending| pending.state != PublishState::Cancelled)
    }

    /// Responds to a publish request when the backend has parsed it and its events are queued to
    /// their receivers. `matched` holds the number of connections for each event.
    pub fn on_published<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        request_id: RequestId,
        result: Result<&[usize], &PublishError>,
    ) {
        let (Some(key), Some(pending)) = (
            ConnKey::from_u64(request_id.0),
            self.take_pending(request_id),
        ) else {
            return;
        };
        let response = match result {
            Ok(matched) => {
                self.counters.events_accepted += matched.len() as u64;
                Response::json(202, accepted_body(matched, pending.detailed))
            }
            Err(PublishError::Unavailable(reason)) => {
                self.counters.unavailable += 1;
                error(503, "unavailable", reason).with("Retry-After", "5")
            }
            Err(PublishError::StorageFull(reason)) => {
                self.counters.storage_full += 1;
                error(507, "storage_full", reason).with("Retry-After", "60")
            }
            Err(PublishError::Invalid { line, reason }) => {
                self.counters.batches_refused += 1;
                let body = serde_json::json!({
                    "ok": false,
                    "error": "invalid_event",
                    "line": line,
                    "reason": reason,
                });
                Response::json(400, body.to_string())
            }
        };
        cx.respond(key, response);
    }
}

/// Returns the body of the response to a publish request that was accepted.
pub(super) fn accepted_body(matched: &[usize], detailed: bool) -> String {
    let (count, total) = (matched.len(), matched.iter().sum::<usize>());
    if detailed {
        format!(r#"{{"accepted":{count},"matched":{total},"each":{matched:?}}}"#)
    } else {
        format!(r#"{{"accepted":{count},"matched":{total}}}"#)
    }
}

fn busy() -> Response {
    error(
        503,
        "busy",
        "The backend's request queue is full; try again later.",
    )
    .with("Retry-After", "1")
}

/// The maximum size of a publish request, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// The reason for refusing a body longer than [`MAX_BODY`].
pub const BODY_TOO_LARGE: &str = "The body of a request must not exceed 1 MiB.";

/// The maximum total size of the requests in progress at the backend, in bytes of body.
const MAX_PENDING_BYTES: usize = 16 * MAX_BODY;

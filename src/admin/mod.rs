//! The admin listener: publishing, metrics, health, recent events, and a page that shows them and
//! publishes test events.
//!
//! Owns: its routes, their access control, and the Prometheus text format. Must not know: sockets,
//! filters, SQL. The reactor that serves the WebSockets serves this listener, too. Slow work
//! (parsing events and determining their receivers) is handed to the backend.

mod exposition;
mod host_check;
mod recent_events;

use std::borrow::Cow;
use std::collections::HashMap;

use subtle::ConstantTimeEq;

use crate::http::{Request, Response};
use crate::model::{
    BackendHandle, BackendRequest, Busy, MonoMillis, Plan, PublishError, RequestId, Secret,
    UnixMillis,
};
use crate::net::{ConnKey, Counters, Cx, Overdue, Verdict};

pub use exposition::{Exposition, Histogram, MetricKind};
pub use host_check::HostCheck;

use recent_events::RecentEvents;

/// The admin interface.
pub struct Admin {
    host_check: HostCheck,
    keys: AdminKeys,
    backend: Box<dyn BackendHandle>,
    page: String,
    /// Requests in progress at the backend.
    pending: HashMap<RequestId, PendingPublish>,
    /// Total bytes of their bodies.
    pending_bytes: usize,
    recent_events: RecentEvents,
    counters: AdminCounters,
}

/// The accepted keys.
#[derive(Clone, Debug, Default)]
pub struct AdminKeys {
    /// The key for everything. `None` if events come from another source.
    pub publish: Option<Secret>,
    /// The key for all metrics.
    pub metrics: Option<Secret>,
}

/// The metrics that a request may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricScope {
    /// Metrics that do not depend on events.
    Public,
    /// All metrics.
    All,
}

/// A publish request in progress at the backend.
struct PendingPublish {
    bytes: usize,
    received: MonoMillis,
    /// The publisher requested the matches of each event.
    detailed: bool,
    state: PublishState,
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

/// Counters of the admin interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdminCounters {
    /// Accepted events.
    pub events_accepted: u64,
    /// Publish requests that were rejected as a whole because of an event in them.
    pub batches_refused: u64,
    /// Publish requests that the backend had no room for.
    pub busy: u64,
    /// Publish requests that the backend could not process because its database was unavailable.
    pub unavailable: u64,
    /// Publish requests that were canceled because the backend had not parsed them in time or
    /// before shutdown.
    pub cancelled: u64,
    /// Requests without a required key.
    pub unauthorized: u64,
    /// Requests for another host, or from a page of another site.
    pub forbidden: u64,
}

/// State of the rest of the server that responses contain.
pub struct ServerState<'a> {
    /// Returns the metrics in the Prometheus text format.
    pub metrics: &'a dyn Fn(&Counters, &AdminCounters, MetricScope) -> String,
    /// Whether the backend is working.
    pub ready: bool,
    /// Whether the server is shutting down.
    pub draining: bool,
}

impl Admin {
    /// Returns an admin interface behind `guard`. `ws_url` is the URL that the page suggests to
    /// connect to. If it is empty, the page guesses. Without a publish key, publishing is disabled.
    pub fn new(
        host_check: HostCheck,
        keys: AdminKeys,
        ws_url: &str,
        backend: Box<dyn BackendHandle>,
    ) -> Self {
        Admin {
            host_check,
            keys,
            backend,
            page: PAGE.replace("{{WS_URL}}", &escape_attribute(ws_url)),
            pending: HashMap::new(),
            pending_bytes: 0,
            recent_events: RecentEvents::default(),
            counters: AdminCounters::default(),
        }
    }

    /// Returns the counters.
    pub fn counters(&self) -> &AdminCounters {
        &self.counters
    }

    /// Handles a request on the admin listener.
    pub fn on_request<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        key: ConnKey,
        request: &Request<'_>,
        state: &ServerState<'_>,
    ) -> Verdict {
        if let Err(reason) = self.host_check.check(request) {
            self.counters.forbidden += 1;
            return Verdict::Respond(error(403, "forbidden", reason).closing());
        }
        let is_safe = matches!(request.method, "GET" | "HEAD");
        match request.path {
            "/events" if request.method == "POST" => self.publish(cx, key, request),
            "/events" => not_allowed("POST"),
            "/" | "/metrics" | "/livez" | "/readyz" | "/tail" if !is_safe => {
                not_allowed("GET, HEAD")
            }
            "/" => Verdict::Respond(self.page()),
            "/tail" => self.tail(cx, key, request),
            "/metrics" => self.metrics(cx, key, request, state),
            // A response is the whole test: a restart would fix no other problem.
            "/livez" => Verdict::Respond(uncached(Response::json(200, r#"{"status": "okay"}"#))),
            // Publishing and metrics continue until the last client is closed.
            "/readyz" if state.draining => Verdict::Respond(uncached(error(
                503,
                "draining",
                "The server is shutting down and closing its connections.",
            ))),
            "/readyz" if state.ready => {
                Verdict::Respond(uncached(Response::json(200, r#"{"status": "okay"}"#)))
            }
            "/readyz" => Verdict::Respond(uncached(error(
                503,
                "not_ready",
                "The backend is unavailable.",
            ))),
            path => match ASSETS.iter().find(|asset| asset.0 == path) {
                Some(_) if !is_safe => not_allowed("GET, HEAD"),
                Some((_, kind, text)) => Verdict::Respond(asset(kind, text.as_bytes())),
                None => reject(404, "not_found", "There is no such resource."),
            },
        }
    }

    /// Records events, with the number of connections that each matched.
    pub fn on_events(&mut self, now: UnixMillis, plans: &[Plan], matched: &[usize]) {
        self.recent_events.record(now, plans, matched);
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

    /// Called when a deferred request is overdue. If the delivery of a publish request has not
    /// begun, it never will, so the publisher may send the request again. Otherwise the request is
    /// answered when its delivery is complete.
    pub fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        let Some(pending) = self.pending.get_mut(&RequestId(key.to_u64())) else {
            return Overdue::Refuse;
        };
        match pending.state {
            PublishState::Delivering => return Overdue::Wait,
            PublishState::Cancelled => {}
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
            // No line is at fault: the backend was unable to process the request.
            Err(PublishError { line: 0, reason }) => {
                self.counters.unavailable += 1;
                error(503, "unavailable", reason).with("Retry-After", "5")
            }
            Err(refused) => {
                self.counters.batches_refused += 1;
                let body = serde_json::json!({
                    "ok": false,
                    "error": "invalid_event",
                    "line": refused.line,
                    "reason": refused.reason,
                });
                Response::json(400, body.to_string())
            }
        };
        cx.respond(key, response);
    }

    /// Rejects a request without the publish key. If no such key is configured, publishing is
    /// disabled (404).
    fn check_key<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Result<(), Verdict> {
        let Some(publish_key) = &self.keys.publish else {
            let reason = "Publishing is disabled: events come from the message queue.";
            return Err(reject(404, "not_found", reason));
        };
        if bearer(request).is_some_and(|given| matches_key(given, publish_key)) {
            cx.mark_authenticated(key);
            return Ok(());
        }
        Err(self.unauthorized("The publish key is missing or invalid."))
    }

    fn unauthorized(&mut self, reason: &str) -> Verdict {
        self.counters.unauthorized += 1;
        let response = error(401, "unauthorized", reason);
        let response = response.with("WWW-Authenticate", "Bearer").closing();
        Verdict::Respond(response)
    }

    /// Responds with the metrics. Without a key, the response contains only metrics that do not
    /// depend on events, since the others could disclose annotations that the client may not read.
    /// A wrong key is rejected, so that the mistake is noticed.
    fn metrics<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        key: ConnKey,
        request: &Request<'_>,
        state: &ServerState<'_>,
    ) -> Verdict {
        let keys = [&self.keys.publish, &self.keys.metrics];
        let scope = match bearer(request) {
            None => MetricScope::Public,
            Some(given)
                if keys
                    .into_iter()
                    .flatten()
                    .any(|key| matches_key(given, key)) =>
            {
                cx.mark_authenticated(key);
                MetricScope::All
            }
            Some(_) => {
                return self.unauthorized("The key is neither metrics_key nor the publish key.");
            }
        };
        let text = (state.metrics)(cx.counters(), &self.counters, scope);
        Verdict::Respond(uncached(Response::new(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            text.into_bytes(),
        )))
    }

    fn tail<C>(&mut self, cx: &mut Cx<'_, C>, key: ConnKey, request: &Request<'_>) -> Verdict {
        if let Err(response) = self.check_key(cx, key, request) {
            return response;
        }
        let after = request.last_param("after");
        let after = after.and_then(|number| number.parse().ok()).unwrap_or(0);
        let events = self.recent_events.after(after).to_string();
        Verdict::Respond(uncached(Response::json(200, events)))
    }

    fn publish<C>(&mut self, cx: &mut Cx<'_, C>, key: ConnKey, request: &Request<'_>) -> Verdict {
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
        let publish = BackendRequest::Publish {
            request_id,
            body: body.to_vec(),
        };
        match self.backend.send(publish) {
            Ok(()) => {
                let pending = PendingPublish {
                    bytes: body.len(),
                    received: MonoMillis(cx.now().mono),
                    detailed: request.last_param("each").is_some_and(|each| each == "1"),
                    state: PublishState::Waiting,
                };
                self.pending_bytes += pending.bytes;
                self.pending.insert(request_id, pending);
                Verdict::Defer(None)
            }
            Err(Busy) => {
                self.counters.busy += 1;
                Verdict::Respond(busy())
            }
        }
    }

    fn page(&self) -> Response {
        asset("text/html; charset=utf-8", self.page.clone().into_bytes())
            .with("Content-Security-Policy", PAGE_POLICY)
            .with("Referrer-Policy", "no-referrer")
    }
}

/// Returns a file of the page.
fn asset(kind: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Response {
    uncached(Response::new(200, kind, body)).with("X-Content-Type-Options", "nosniff")
}

fn accepted_body(matched: &[usize], detailed: bool) -> String {
    let (count, total) = (matched.len(), matched.iter().sum::<usize>());
    if detailed {
        format!(r#"{{"accepted":{count},"matched":{total},"each":{matched:?}}}"#)
    } else {
        format!(r#"{{"accepted":{count},"matched":{total}}}"#)
    }
}

fn error(status: u16, error: &str, reason: &str) -> Response {
    let body = serde_json::json!({"ok": false, "error": error, "reason": reason});
    Response::json(status, body.to_string())
}

fn busy() -> Response {
    error(
        503,
        "busy",
        "The backend's request queue is full; try again later.",
    )
    .with("Retry-After", "1")
}

/// Returns the key in a request, valid or not.
fn bearer<'a>(request: &'a Request<'_>) -> Option<&'a [u8]> {
    let (scheme, key) = request
        .header("authorization")?
        .split_at_checked("Bearer ".len())?;
    // RFC 9110 §11.1: the scheme is case-insensitive.
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    is_bearer.then(|| key.trim_ascii())
}

/// Compares in constant time.
fn matches_key(given: &[u8], key: &Secret) -> bool {
    given.ct_eq(key.0.as_bytes()).into()
}

fn reject(status: u16, name: &str, reason: &str) -> Verdict {
    Verdict::Respond(error(status, name, reason))
}

fn not_allowed(allowed: &'static str) -> Verdict {
    let response = error(
        405,
        "method_not_allowed",
        "The resource does not allow this method.",
    );
    Verdict::Respond(response.with("Allow", allowed))
}

fn uncached(response: Response) -> Response {
    response.with("Cache-Control", "no-store")
}

fn escape_attribute(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}

/// The page itself.
const PAGE: &str = include_str!("page/index.html");

/// The files of the page: path, type, and text.
const ASSETS: [(&str, &str, &str); 11] = [
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/common.js", SCRIPT, include_str!("page/common.js")),
    ("/causes.js", SCRIPT, include_str!("page/causes.js")),
    ("/connection.js", SCRIPT, include_str!("page/connection.js")),
    ("/console.js", SCRIPT, include_str!("page/console.js")),
    ("/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/history.js", SCRIPT, include_str!("page/history.js")),
    ("/log.js", SCRIPT, include_str!("page/log.js")),
    ("/metrics.js", SCRIPT, include_str!("page/metrics.js")),
    ("/tail.js", SCRIPT, include_str!("page/tail.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The maximum size of a publish request, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// The reason for refusing a body longer than [`MAX_BODY`].
pub const BODY_TOO_LARGE: &str = "The body of a request must not exceed 1 MiB.";

/// The maximum total size of the requests in progress at the backend, in bytes of body.
const MAX_PENDING_BYTES: usize = 16 * MAX_BODY;

/// Allows only what the page needs, so that text that the page displays cannot make it do anything
/// else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self' ws: wss:; img-src data:; form-action 'none'; \
    base-uri 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests;

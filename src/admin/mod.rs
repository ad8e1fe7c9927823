//! The admin listener: publishing, metrics, health, recent events, and a page that shows them and
//! publishes test events.
//!
//! Owns: its routes, their access control, and the Prometheus text format. Must not know: sockets,
//! filters, SQL. The reactor that serves the WebSockets serves this listener, too. Slow work
//! (parsing events and determining their receivers) is handed to the backend.
//!
//! The files, in reading order. The path of an event that is published over HTTP leads from
//! [`Admin::on_request`] through `publish` to the backend; the server then calls
//! [`Admin::begin_delivery`], delivers the event, and calls [`Admin::on_published`].
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | routes and keys |
//! | `host_check` | rejection of requests from pages of other sites |
//! | `publish` | publish requests in progress |
//! | `explain` | requests for explanations |
//! | `recent_events` | the last events, for display |
//! | `exposition` | the Prometheus text format |
//! | `page` | the page and its files |
//! | `response` | responses with errors |

mod explain;
mod exposition;
mod host_check;
mod page;
mod publish;
mod recent_events;
mod response;

use std::collections::HashMap;

use subtle::ConstantTimeEq;

use crate::http::{Request, Response};
use crate::model::{BackendHandle, ExplainRequest, Plan, RequestId, Secret, UnixMillis};
use crate::net::{ConnKey, Counters, Cx, Verdict};

pub use exposition::{Exposition, Histogram, MetricKind};
pub use host_check::HostCheck;
pub use publish::{BODY_TOO_LARGE, MAX_BODY};

use publish::PendingPublish;
use recent_events::RecentEvents;
use response::{error, not_allowed, reject, uncached};

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
    /// Requests for explanations in progress at the backend.
    explaining: HashMap<RequestId, ExplainRequest>,
    /// A request for an explanation that needs no facts of the backend.
    immediate: Option<(RequestId, ExplainRequest)>,
    recent_events: RecentEvents,
    counters: AdminCounters,
}

/// The accepted keys.
#[derive(Clone, Debug, Default)]
pub struct AdminKeys {
    /// The key for everything. `None` if there is none, because the data directory cannot be used.
    pub publish: Option<Secret>,
    /// Whether events come from another source, so that nobody can publish.
    pub is_read_only: bool,
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
    /// Publish requests whose events could not be stored because the disk was full.
    pub storage_full: u64,
    /// Publish requests that were canceled because the backend had not parsed them in time or
    /// before shutdown.
    pub cancelled: u64,
    /// Explanations.
    pub explanations: u64,
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
    /// Returns an admin interface behind `host_check`. `ws_url` is the URL that the page suggests to
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
            page: page::render(ws_url),
            pending: HashMap::new(),
            pending_bytes: 0,
            explaining: HashMap::new(),
            immediate: None,
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
    ) -> Verdict<C> {
        if let Err(reason) = self.host_check.check(request) {
            self.counters.forbidden += 1;
            return Verdict::Respond(error(403, "forbidden", reason).closing());
        }
        let is_safe = matches!(request.method, "GET" | "HEAD");
        match request.path {
            "/events" if request.method == "POST" => self.publish(cx, key, request),
            "/events" => not_allowed("POST"),
            "/explain" if request.method == "POST" => self.explain(cx, key, request),
            "/explain" => not_allowed("POST"),
            "/" | "/metrics" | "/livez" | "/readyz" | "/tail" | "/asyncapi.yaml" if !is_safe => {
                not_allowed("GET, HEAD")
            }
            "/" => Verdict::Respond(page::page(&self.page)),
            "/asyncapi.yaml" => Verdict::Respond(page::api_document()),
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
            path => match page::asset(path) {
                Some(_) if !is_safe => not_allowed("GET, HEAD"),
                Some(file) => Verdict::Respond(file),
                None => reject(404, "not_found", "There is no such resource."),
            },
        }
    }

    /// Records events, with the number of connections that each matched.
    pub fn record_events(&mut self, now: UnixMillis, plans: &[Plan], matched: &[usize]) {
        self.recent_events.record(now, plans, matched);
    }

    /// Rejects a request without the publish key. If there is no such key, the resource does not exist.
    fn check_key<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Result<(), Verdict<C>> {
        let Some(publish_key) = &self.keys.publish else {
            let reason = "There is no publish key, since the data directory cannot be used.";
            return Err(reject(404, "not_found", reason));
        };
        if bearer(request).is_some_and(|given| matches_key(given, publish_key)) {
            cx.mark_authenticated(key);
            return Ok(());
        }
        Err(self.unauthorized("The publish key is missing or invalid."))
    }

    fn unauthorized<C>(&mut self, reason: &str) -> Verdict<C> {
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
    ) -> Verdict<C> {
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

    fn tail<C>(&mut self, cx: &mut Cx<'_, C>, key: ConnKey, request: &Request<'_>) -> Verdict<C> {
        if let Err(response) = self.check_key(cx, key, request) {
            return response;
        }
        let after = request.last_param("after");
        let after = after.and_then(|number| number.parse().ok()).unwrap_or(0);
        let events = self.recent_events.after(after).to_string();
        Verdict::Respond(uncached(Response::json(200, events)))
    }
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

#[cfg(test)]
mod tests;

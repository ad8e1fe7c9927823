//! The application that the engine serves: the API on its listeners, and the admin interface on its
//! own.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::{Admin, ServerState};
use crate::backend::Stats;
use crate::config::InsecureSetting;
use crate::http::{Request, Response};
use crate::model::{
    AckGuard, BackendEvent, Cause, ExplainError, ExplainRequest, ExplainedConnection, Findings,
    HistoryEvent, MonoMillis, RequestId, UnixMillis,
};
use crate::net::{
    ConnCx, ConnKey, Cx, Frame, Handler, ListenerId, Message, Overdue, Refusal, RequestCx, Verdict,
};
use crate::realtime::{ApiSession, Completion, EventQueue, Realtime, TurnLimits};

use super::notify::{Heartbeat, Status};
use super::process_stats::ProcessStats;
use super::shared::SharedState;
use super::{allocator, metrics};

/// Dispatches engine and backend events to the API and the admin interface.
pub(super) struct App {
    pub realtime: Realtime,
    /// Events that wait to be delivered. Their receivers are determined at delivery. All other
    /// messages of the backend, such as a revoked token, overtake the events and take effect
    /// immediately.
    pub events: EventQueue<BatchOrigin>,
    pub admin: Admin,
    pub admin_listener: ListenerId,
    /// Whether the backend is working.
    pub ready: bool,
    /// The counters of the backend.
    pub stats: Arc<Stats>,
    /// Dangerous settings in effect.
    pub insecure_settings: Vec<InsecureSetting>,
    /// The source of reloaded settings.
    pub shared: Arc<SharedState>,
    /// Notifications to the service manager.
    pub heartbeat: Heartbeat,
    /// Process statistics from the system.
    pub process_stats: ProcessStats,
    /// The readiness at the last check. `None` before the first one.
    pub was_ready: Option<bool>,
}

/// The source of a batch of events. It is notified, or dropped, when the whole batch has been
/// queued to its receivers. Until then it holds back further events.
pub(super) enum BatchOrigin {
    /// A publisher that waits for the response to its request.
    Publisher(RequestId),
    /// A message queue, which limits the number of unacknowledged events.
    Feed { _receipt: AckGuard },
    /// The backend, because rights have changed.
    Replan,
    /// The backend, which has sent all changes up to this time. An empty batch.
    Watermark(UnixMillis),
}

/// Returns an empty queue.
pub(super) fn event_queue() -> EventQueue<BatchOrigin> {
    EventQueue::new(TurnLimits::default())
}

impl Handler for App {
    type Session = ApiSession;
    type Command = BackendEvent;

    fn on_request(
        &mut self,
        cx: &mut RequestCx<'_, ApiSession>,
        request: &Request<'_>,
    ) -> Verdict<ApiSession> {
        let (key, listener) = (cx.key(), cx.listener());
        if listener != self.admin_listener {
            return self.realtime.on_request(cx, key, request);
        }
        let ready = self.is_ready();
        let App {
            realtime,
            admin,
            events,
            stats,
            insecure_settings,
            shared,
            process_stats,
            ..
        } = self;
        let state = ServerState {
            metrics: &|engine, admin, scope| {
                let backend = metrics::BackendState {
                    ready,
                    stats,
                    events_waiting: events.len(),
                };
                let process = metrics::ProcessState {
                    insecure_settings,
                    shared,
                    process_stats,
                };
                metrics::render(
                    scope,
                    engine,
                    realtime.counters(),
                    admin,
                    &backend,
                    &process,
                )
            },
            ready,
            draining: shared.is_draining.load(Ordering::Relaxed),
        };
        let verdict = admin.on_request(cx, key, request, &state);
        let Some((request_id, explain)) = admin.take_immediate() else {
            return verdict;
        };
        log_explanation(request_id, &explain);
        let answer = realtime.explain(cx, &explain, Findings::default());
        Verdict::Respond(admin.explained(Ok(answer)))
    }

    fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        self.admin.on_overdue(key)
    }

    fn wants_event_stream(&self, request: &Request<'_>) -> bool {
        Realtime::wants_event_stream(request)
    }

    fn on_refusal(&mut self, refusal: Refusal, is_event_stream: bool) -> Response {
        let (name, reason) = match refusal {
            Refusal::Malformed => ("bad_request", "The request is not valid HTTP/1.1."),
            Refusal::HeadTooLarge => ("head_too_large", "The request's head is too large."),
            Refusal::TargetTooLong => ("uri_too_long", "The request's URI is too long."),
            Refusal::BodyTooLarge => ("too_large", crate::admin::BODY_TOO_LARGE),
            Refusal::ExtensionsTooLarge => (
                "too_large",
                "The chunk extensions of a request must not exceed 4 KiB.",
            ),
            Refusal::TrailersTooLarge => (
                "trailers_too_large",
                "The trailer section of a request must not exceed 8 KiB and 64 fields.",
            ),
            Refusal::LengthRequired => (
                "length_required",
                "The request needs a Content-Length, or a body in the chunked transfer coding.",
            ),
            Refusal::UnsupportedCoding => (
                "not_implemented",
                "No transfer coding but chunked is supported.",
            ),
            Refusal::Incomplete => ("timeout", "The request was not complete in time."),
            Refusal::TimedOut => (
                "unavailable",
                "The backend did not answer in time; try again later.",
            ),
            Refusal::TooMany => (
                "too_many",
                "There are too many connections from your address.",
            ),
            Refusal::Full => ("full", "The server takes no more connections now."),
            Refusal::Overloaded => ("overloaded", "Too many requests are incomplete now."),
            Refusal::ShuttingDown => ("shutting_down", "The server is shutting down."),
            _ => ("rejected", "The request was rejected."),
        };
        if is_event_stream && matches!(refusal.status(), 429 | 503) {
            return self.realtime.retry_later(reason);
        }
        let body = format!(r#"{{"ok": false, "error": "{name}", "reason": "{reason}"}}"#);
        let response = Response::json(refusal.status(), body);
        match refusal.status() {
            429 | 503 => response.with("Retry-After", "5"),
            _ => response,
        }
    }

    fn on_open(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        self.realtime.on_open(cx);
    }

    fn on_open_stream(&mut self, cx: &mut ConnCx<'_, ApiSession>, request: &str) {
        self.realtime.on_open_stream(cx, request);
    }

    fn heartbeat(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) -> Option<Rc<Frame>> {
        self.realtime.heartbeat(cx, key)
    }

    fn last_blocks(&mut self, code: u16, reason: &str) -> Vec<u8> {
        self.realtime.last_blocks(code, reason)
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, ApiSession>, message: Message<'_>) {
        self.realtime.on_client_message(cx, message);
    }

    fn on_close(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, session: ApiSession) {
        self.realtime.on_close(cx, key, session);
    }

    fn on_command(&mut self, cx: &mut Cx<'_, ApiSession>, event: BackendEvent) {
        match event {
            BackendEvent::Published {
                request_id,
                result: Ok(plans),
            } => {
                // The publisher may have been notified that the request was canceled.
                let Some(received) = self.admin.begin_delivery(request_id) else {
                    return;
                };
                let origin = BatchOrigin::Publisher(request_id);
                self.events.push(plans, received, origin);
            }
            BackendEvent::Published {
                request_id,
                result: Err(refused),
            } => self.admin.on_published(cx, request_id, Err(&refused)),
            BackendEvent::Found { request_id, result } => self.on_found(cx, request_id, result),
            BackendEvent::QueueEvents {
                plans,
                received,
                ack,
            } => {
                let origin = BatchOrigin::Feed { _receipt: ack };
                self.events.push(plans, received, origin);
            }
            // Takes effect when all events before it have been delivered.
            BackendEvent::History(HistoryEvent::Watermark(time)) if self.events.is_empty() => {
                self.realtime.set_watermark(time);
            }
            BackendEvent::History(HistoryEvent::Watermark(time)) => {
                let received = MonoMillis(cx.now().mono);
                let origin = BatchOrigin::Watermark(time);
                self.events.push(Vec::new(), received, origin);
            }
            BackendEvent::Replanned { plans } => {
                let received = MonoMillis(cx.now().mono);
                self.events.push(plans, received, BatchOrigin::Replan);
            }
            BackendEvent::Health { ready } => {
                self.ready = ready;
                self.log_readiness();
            }
            BackendEvent::History(HistoryEvent::Start(start)) => {
                // The positions of the waiting events are of the former history.
                self.events.forget_positions();
                let event = BackendEvent::History(HistoryEvent::Start(start));
                self.realtime.on_backend_event(cx, event);
            }
            event => self.realtime.on_backend_event(cx, event),
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        // Replays follow live events, so that they never delay one by more than a turn.
        let has_events = self.deliver_events(cx);
        let has_replays = self.realtime.replay_queued(cx);
        has_events || has_replays
    }

    fn on_drain(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        self.realtime.on_drain(cx);
    }

    fn on_reload(&mut self, cx: &mut Cx<'_, ApiSession>) {
        // A certificate change alone changes nothing here.
        if let Some(next) = self.shared.take_pending() {
            self.realtime.reconfigure(cx, next.realtime);
            self.insecure_settings = next.insecure_settings;
        }
    }

    fn on_tick(&mut self, cx: &mut Cx<'_, ApiSession>) {
        self.realtime.on_tick(cx);
        self.log_readiness();
        allocator::trigger_purge();
        let status = Status {
            open: cx.counters().open,
            is_ready: self.is_ready(),
        };
        self.heartbeat.tick(cx.now().mono, status);
    }
}

/// Logs an explanation, without its contents.
fn log_explanation(request_id: RequestId, request: &ExplainRequest) {
    let connection = match request.connection {
        ExplainedConnection::Open { .. } => "open",
        ExplainedConnection::Supposed { .. } => "supposed",
    };
    let key = ConnKey::from_u64(request_id.0);
    let key = key.map_or(String::new(), |key| format!("{key:?}: "));
    log::info!("{key}explained the notifications of a connection: kind={connection}");
}

impl App {
    /// Delivers queued events as far as the limits of a turn allow. Returns whether events remain.
    fn deliver_events(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        if self.events.is_empty() {
            return false;
        }
        let admin = &mut self.admin;
        let mut watermark = None;
        let done =
            |cx: &mut Cx<'_, ApiSession>, completion: Completion<'_, BatchOrigin>| match completion
            {
                // A change of rights is not an event.
                Completion::Event(plan, count) if plan.cause == Cause::Event => {
                    admin.record_events(cx.now().unix, std::slice::from_ref(plan), &[count]);
                }
                Completion::Event(..) => {}
                Completion::Batch(BatchOrigin::Publisher(request_id), counts) => {
                    admin.on_published(cx, request_id, Ok(counts));
                }
                Completion::Batch(BatchOrigin::Watermark(time), _) => watermark = Some(time),
                Completion::Batch(BatchOrigin::Feed { .. } | BatchOrigin::Replan, _) => {}
            };
        let has_more = self.realtime.deliver_queued(cx, &mut self.events, done);
        if let Some(time) = watermark {
            self.realtime.set_watermark(time);
        }
        has_more
    }

    /// Answers a request for an explanation.
    fn on_found(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        request_id: RequestId,
        result: Result<Box<Findings>, ExplainError>,
    ) {
        // The request may be overdue.
        let Some(request) = self.admin.take_explaining(request_id) else {
            return;
        };
        log_explanation(request_id, &request);
        let answer = result.map(|findings| self.realtime.explain(cx, &request, *findings));
        let response = self.admin.explained(answer);
        if let Some(key) = ConnKey::from_u64(request_id.0) {
            cx.respond(key, response);
        }
    }

    /// Returns whether the server can do all of its work.
    fn is_ready(&self) -> bool {
        self.ready && self.stats.is_connected()
    }

    /// Logs when the server becomes unable to do all of its work, and when it recovers.
    fn log_readiness(&mut self) {
        let is_ready = self.is_ready();
        match (self.was_ready, is_ready) {
            (None, true) => log::info!("backend ready"),
            (Some(true), false) => log::warn!("degraded: backend unavailable"),
            (Some(false), true) => log::info!("recovered: backend ready"),
            _ => return,
        }
        self.was_ready = Some(is_ready);
    }
}

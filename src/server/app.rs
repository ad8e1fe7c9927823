//! The application that the engine serves: the API on its listeners, and the admin interface on its
//! own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin::{Admin, ServerState};
use crate::backend::Stats;
use crate::config::Danger;
use crate::http::{Request, Response};
use crate::model::{AckGuard, BackendEvent, RequestId};
use crate::net::{
    ConnCx, ConnKey, Cx, Handler, ListenerId, Message, Overdue, Refusal, RequestCx, Verdict,
};
use crate::realtime::{ApiSession, Completion, EventQueue, Realtime, TurnLimits};

use super::figures::Figures;
use super::notify::{Pulse, Status};
use super::reload::Shared;
use super::{allocator, metrics};

/// Dispatches engine and back-end events to the API and the admin interface.
pub(super) struct App {
    pub realtime: Realtime,
    /// Events that wait to be delivered. Their receivers are determined at delivery. All other
    /// messages of the back end, such as a revoked token, overtake the events and take effect
    /// immediately.
    pub events: EventQueue<Origin>,
    pub admin: Admin,
    pub admin_listener: ListenerId,
    /// Whether the back end is working.
    pub ready: bool,
    /// The counters of the back end.
    pub stats: Arc<Stats>,
    /// Dangerous settings in effect.
    pub dangers: Vec<Danger>,
    /// The source of reloaded settings.
    pub shared: Arc<Shared>,
    /// Notifications to the service manager.
    pub pulse: Pulse,
    /// Process statistics from the system.
    pub figures: Figures,
    /// The readiness at the last check. `None` before the first one.
    pub was_ready: Option<bool>,
}

/// The source of a batch of events. It is notified, or dropped, when the whole batch has been
/// queued to its receivers. Until then it holds back further events.
pub(super) enum Origin {
    /// A publisher that waits for the response to its request.
    Publisher(RequestId),
    /// A message queue, which limits the number of unacknowledged events.
    Feed { _receipt: AckGuard },
}

/// Returns an empty queue. Publishers and the message queue do not wait for each other's events.
pub(super) fn event_queue() -> EventQueue<Origin> {
    EventQueue::new(2, TurnLimits::default())
}

const PUBLISHERS: usize = 0;
const FEED: usize = 1;

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
            dangers,
            shared,
            figures,
            ..
        } = self;
        let state = ServerState {
            metrics: &|engine, admin, scope| {
                let backend = metrics::Backend {
                    ready,
                    stats,
                    events_waiting: events.len(),
                };
                let process = metrics::Process {
                    dangers,
                    shared,
                    figures,
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
        admin.on_request(cx, key, request, &state)
    }

    fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        self.admin.on_overdue(key)
    }

    fn on_refusal(&mut self, refusal: Refusal) -> Response {
        let (name, reason) = match refusal {
            Refusal::Malformed => ("bad_request", "The request is not valid HTTP/1.1."),
            Refusal::HeadTooLarge => ("head_too_large", "The request's head is too large."),
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
                "The back end did not answer in time; try again later.",
            ),
            Refusal::TooMany => (
                "too_many",
                "There are too many connections from your address.",
            ),
            Refusal::Full => ("full", "The server takes no more connections now."),
            Refusal::Overloaded => ("overloaded", "Too many requests are incomplete now."),
            Refusal::ShuttingDown => ("shutting_down", "The server is shutting down."),
        };
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

    fn on_message(&mut self, cx: &mut ConnCx<'_, ApiSession>, message: Message<'_>) {
        self.realtime.on_client_message(cx, message);
    }

    fn on_close(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, session: ApiSession) {
        self.realtime.on_close(cx, key, session);
    }

    fn on_command(&mut self, cx: &mut Cx<'_, ApiSession>, tell: BackendEvent) {
        match tell {
            BackendEvent::Published {
                request_id,
                result: Ok(plans),
            } => {
                // The publisher may have been notified that the request was canceled.
                let Some(received) = self.admin.begin_delivery(request_id) else {
                    return;
                };
                let origin = Origin::Publisher(request_id);
                self.events.push(PUBLISHERS, plans, received, origin);
            }
            BackendEvent::Published {
                request_id,
                result: Err(refused),
            } => self.admin.on_published(cx, request_id, Err(&refused)),
            BackendEvent::QueueEvents {
                plans,
                received,
                ack,
            } => {
                let origin = Origin::Feed { _receipt: ack };
                self.events.push(FEED, plans, received, origin);
            }
            BackendEvent::Health { ready } => {
                self.ready = ready;
                self.note_readiness();
            }
            tell => self.realtime.on_backend_event(cx, tell),
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        if self.events.is_empty() {
            return false;
        }
        let admin = &mut self.admin;
        let done =
            |cx: &mut Cx<'_, ApiSession>, completion: Completion<'_, Origin>| match completion {
                Completion::Event(plan, count) => {
                    admin.record_events(cx.now().unix, std::slice::from_ref(plan), &[count]);
                }
                Completion::Batch(Origin::Publisher(request_id), counts) => {
                    admin.on_published(cx, request_id, Ok(counts));
                }
                Completion::Batch(Origin::Feed { .. }, _) => {}
            };
        self.realtime.deliver_queued(cx, &mut self.events, done)
    }

    fn on_reload(&mut self, cx: &mut Cx<'_, ApiSession>) {
        // A certificate change alone changes nothing here.
        if let Some(next) = self.shared.take() {
            self.realtime.reconfigure(cx, next.realtime);
            self.dangers = next.dangers;
        }
    }

    fn on_tick(&mut self, cx: &mut Cx<'_, ApiSession>) {
        self.realtime.on_tick(cx);
        self.note_readiness();
        allocator::nudge();
        let status = Status {
            open: cx.counters().open,
            is_ready: self.is_ready(),
        };
        self.pulse.beat(cx.now().mono, status);
    }
}

impl App {
    /// Returns whether the server can do all of its work.
    fn is_ready(&self) -> bool {
        self.ready && self.stats.is_connected()
    }

    /// Logs when the server becomes unable to do all of its work, and when it recovers.
    fn note_readiness(&mut self) {
        let is_ready = self.is_ready();
        match (self.was_ready, is_ready) {
            (None, true) => log::info!("the back end is ready"),
            (Some(true), false) => log::warn!("degraded: the back end is away"),
            (Some(false), true) => log::info!("recovered: the back end is ready"),
            _ => return,
        }
        self.was_ready = Some(is_ready);
    }
}

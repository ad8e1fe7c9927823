//! The whole Real Time API as the engine's handler, without a real backend: all clients are
//! anonymous, and events are injected as commands.

use std::rc::Rc;

use h_realtime::model::{
    BackendEvent, BackendHandle, BackendRequest, Busy, Candidates, Cause, Decision, EpochScope,
    EventKind, Field, HistoryEvent, HistoryStart, MonoMillis, Plan, Rule, Stamp, Subject, Term,
};
use h_realtime::realtime::{ApiSession, ApiSettings, Completion, EventQueue, Realtime, TurnLimits};
use h_realtime::uri;
use h_realtime_engine::http::{Request, Response, check_upgrade};
use h_realtime_engine::{ConnCx, ConnKey, Cx, Frame, Handler, Message, RequestCx, Verdict};

/// The API, with a fixed hash key. Beside its own paths it has `/later` and `/slow`, which defer a
/// handshake and another request, and `/body`, which reads a body.
pub struct Api {
    realtime: Realtime,
    events: EventQueue<usize>,
    /// The position of the last event in the history.
    position: u64,
    pub progress: Progress,
}

/// Progress of batches of events.
#[derive(Default)]
pub struct Progress {
    /// Total size of the batches all of whose events have become deliveries.
    pub done: usize,
    /// The largest backlog of receivers at the end of a turn.
    pub max_backlog: usize,
}

/// Inputs of the handler that do not arrive on a socket.
pub enum Command {
    /// An event.
    Event(Plan),
    /// A batch of events, and its size in units of the test.
    Batch(Vec<Plan>, usize),
    /// The response to a deferred request; whether it is a handshake.
    Answer(ConnKey, bool),
}

impl Api {
    pub fn new(settings: ApiSettings) -> Self {
        Api {
            realtime: Realtime::new(Box::new(NoBackend), settings, [1, 2, 3, 4]),
            events: EventQueue::new(TurnLimits::default()),
            position: 0,
            progress: Progress::default(),
        }
    }

    /// Starts the history before the first event, and returns a stamp for the next one.
    fn stamp(&mut self, cx: &mut Cx<'_, ApiSession>) -> Stamp {
        if self.position == 0 {
            for event in [HistoryEvent::Start(HISTORY), HistoryEvent::Ready] {
                let event = BackendEvent::History(event);
                self.realtime.on_backend_event(cx, event);
            }
        }
        self.position += 1;
        Stamp {
            position: self.position,
            time: cx.now().unix,
        }
    }

    pub fn realtime(&self) -> &Realtime {
        &self.realtime
    }
}

/// Returns an event for all clients that filter for this group.
pub fn event(group: &str, text: impl Into<Box<str>>) -> Plan {
    plan("a", vec![term(Field::Group, group)], text.into())
}

/// Returns the event of a public annotation on a page, as a backend makes it.
pub fn page_event(page: &str, annotation: &str, text: &str) -> Plan {
    let mut terms = vec![term(Field::Group, "__world__"), term(Field::Id, annotation)];
    let keys = uri::annotation_keys([page].into_iter(), None);
    terms.extend(keys.iter().map(|key| term(Field::Uri, key)));
    Plan {
        exclude_client: Some("0c9f7a52-98f7-4a46-b9f2-ec0ddc2d5b4b".into()),
        ..plan(annotation, terms, text.into())
    }
}

pub fn term(field: Field, value: &str) -> Term {
    let value = value.into();
    Term { field, value }
}

fn plan(annotation: &str, terms: Vec<Term>, text: Box<str>) -> Plan {
    let rule = Rule {
        when: Vec::new(),
        then: Decision::Send(0),
    };
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation(annotation.into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(terms),
        exclude_client: None,
        rules: vec![rule],
        variants: vec![text],
    }
}

impl Handler for Api {
    type Session = ApiSession;
    type Command = Command;

    fn on_request(
        &mut self,
        cx: &mut RequestCx<'_, ApiSession>,
        request: &Request<'_>,
    ) -> Verdict<ApiSession> {
        let key = cx.key();
        match request.path {
            "/later" => match check_upgrade(request) {
                Ok(upgrade) => Verdict::DeferUpgrade(upgrade, ApiSession::default()),
                Err(_) => Verdict::Defer,
            },
            "/slow" => Verdict::Defer,
            "/body" if request.body.is_none() => Verdict::ReadBody { limit: BODY_LIMIT },
            "/body" => Verdict::Respond(Response::new(200, "text/plain", &b"read"[..])),
            _ => self.realtime.on_request(cx, key, request),
        }
    }

    fn on_open(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        self.realtime.on_open(cx);
    }

    fn wants_event_stream(&self, request: &Request<'_>) -> bool {
        Realtime::wants_event_stream(request)
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

    fn on_command(&mut self, cx: &mut Cx<'_, ApiSession>, command: Command) {
        match command {
            Command::Event(mut plan) => {
                plan.stamp = self.stamp(cx);
                let now = MonoMillis(cx.now().mono);
                self.realtime.deliver(cx, [plan], now);
            }
            Command::Batch(mut plans, size) => {
                for plan in &mut plans {
                    plan.stamp = self.stamp(cx);
                }
                let now = MonoMillis(cx.now().mono);
                self.events.push(plans, now, size);
            }
            Command::Answer(key, true) => cx.accept(key),
            Command::Answer(key, false) => {
                cx.respond(key, Response::new(200, "text/plain", &b"late"[..]));
            }
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        let progress = &mut self.progress;
        let is_left = self
            .realtime
            .deliver_queued(cx, &mut self.events, |_, completion| {
                if let Completion::Batch(size, _) = completion {
                    progress.done += size;
                }
            });
        progress.max_backlog = progress.max_backlog.max(cx.backlog());
        let has_replays = self.realtime.replay_queued(cx);
        is_left || has_replays
    }

    fn on_drain(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        self.realtime.on_drain(cx);
    }

    fn on_tick(&mut self, cx: &mut Cx<'_, ApiSession>) {
        self.realtime.on_tick(cx);
    }
}

/// An empty history with the first epoch.
const HISTORY: HistoryStart = HistoryStart {
    epoch: 1,
    scope: EpochScope::Stored,
    floor: 0,
    floor_time: 0,
    head: 0,
};

/// A backend that receives no requests: all clients are anonymous.
struct NoBackend;

impl BackendHandle for NoBackend {
    fn send(&self, _: BackendRequest) -> Result<(), Busy> {
        Err(Busy)
    }
}

/// The longest body that is read.
const BODY_LIMIT: usize = 1 << 20;

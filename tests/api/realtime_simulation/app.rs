//! The API as the engine's handler, and its backend. Every callback is reported to the model, too.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use h_realtime::model::{
    BackendEvent, BackendHandle, BackendRequest, Busy, MonoMillis, Plan, RequestId, Secret,
};
use h_realtime::realtime::{ApiSession, ApiSettings, Completion, EventQueue, Realtime, TurnLimits};
use h_realtime_engine::http::Request;
use h_realtime_engine::{ConnCx, ConnKey, Cx, Handler, Message, RequestCx, Verdict};

use super::model::Model;

pub struct App {
    pub realtime: Realtime,
    events: EventQueue<usize>,
    limits: TurnLimits,
    /// The largest number of open connections since no receiver was queued.
    most_open: usize,
    pub model: Rc<RefCell<Model>>,
    requests: RequestQueue,
}

pub enum Command {
    BackendEvent(BackendEvent),
    Deliver(Vec<Plan>),
}

/// The backend's end of the request queue: outstanding request ids and tokens.
#[derive(Clone, Default)]
pub struct RequestQueue {
    pub questions: Rc<RefCell<Vec<(RequestId, String)>>>,
    pub is_busy: Rc<Cell<bool>>,
}

impl App {
    pub fn new(
        model: Rc<RefCell<Model>>,
        requests: RequestQueue,
        settings: ApiSettings,
        limits: TurnLimits,
        seed: u64,
    ) -> Self {
        let seed = [seed, 1, 2, 3];
        App {
            realtime: Realtime::new(Box::new(requests.clone()), settings, seed),
            events: EventQueue::new(limits),
            limits,
            most_open: 0,
            model,
            requests,
        }
    }

    /// Delivers some of the queued events; the model decides about each at the same time.
    fn deliver(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        let mut model = self.model.borrow_mut();
        let open = model.open().count();
        // Receivers that have closed since their event was queued still count.
        self.most_open = match cx.backlog() {
            0 => open,
            _ => self.most_open.max(open),
        };
        let done = |cx: &mut Cx<'_, ApiSession>, completion: Completion<'_, usize>| match completion
        {
            Completion::Event(plan, got) => {
                let want = model.deliver(plan, cx.now());
                if got != want {
                    let problem = format!("{got} deliveries, expected {want}, of {plan:?}");
                    model.breaches.push(problem);
                }
            }
            Completion::Batch(events, counts) => {
                if counts.len() != events {
                    let problem = format!("{counts:?} for a batch of {events}");
                    model.breaches.push(problem);
                }
            }
        };
        let is_left = self.realtime.deliver_queued(cx, &mut self.events, done);
        let most = self.limits.backlog + self.most_open.max(1);
        if cx.backlog() >= most {
            let problem = format!("{} receivers are queued, at most {most}", cx.backlog());
            model.breaches.push(problem);
        }
        is_left
    }
}

impl BackendHandle for RequestQueue {
    fn send(&self, request: BackendRequest) -> Result<(), Busy> {
        if self.is_busy.get() {
            return Err(Busy);
        }
        if let BackendRequest::Authenticate {
            request_id,
            token: Secret(token),
        } = request
        {
            self.questions.borrow_mut().push((request_id, token));
        }
        Ok(())
    }
}

impl Handler for App {
    type Session = ApiSession;
    type Command = Command;

    fn on_request(
        &mut self,
        cx: &mut RequestCx<'_, ApiSession>,
        request: &Request<'_>,
    ) -> Verdict<ApiSession> {
        let key = cx.key();
        let verdict = self.realtime.on_request(cx, key, request);
        let is_busy = self.requests.is_busy.get();
        self.model.borrow_mut().requested(key, &verdict, is_busy);
        verdict
    }

    fn on_open(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        let key = cx.key();
        self.model.borrow_mut().opened(key);
        self.realtime.on_open(cx);
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, ApiSession>, message: Message<'_>) {
        let key = cx.key();
        self.model.borrow_mut().on_message(key, message);
        self.realtime.on_client_message(cx, message);
    }

    fn on_close(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, session: ApiSession) {
        self.model.borrow_mut().closed(key);
        self.realtime.on_close(cx, key, session);
    }

    fn on_command(&mut self, cx: &mut Cx<'_, ApiSession>, command: Command) {
        match command {
            Command::Deliver(plans) => {
                let count = plans.len();
                self.events.push(plans, MonoMillis(cx.now().mono), count);
            }
            Command::BackendEvent(tell) => {
                let key = match &tell {
                    BackendEvent::Authenticated { request_id, .. } => {
                        ConnKey::from_u64(request_id.0)
                    }
                    _ => None,
                };
                self.model.borrow_mut().on_reply(key, &tell, cx.now());
                self.realtime.on_backend_event(cx, tell);
            }
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        self.deliver(cx)
    }

    fn on_tick(&mut self, cx: &mut Cx<'_, ApiSession>) {
        self.model.borrow_mut().ticked(cx.now());
        self.realtime.on_tick(cx);
    }
}

//! The environment of a worker in tests: simulated database, mailbox, and time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};

use super::super::*;
use super::rows::{FakeRows, notification};
use crate::backend::h::client::{TokenStatus, Unavailable};
use crate::backend::h::history::{Changes, HistoryOptions, Page, Planned, Rights};
use crate::backend::h::history_queries::{Answer, Decide, Swept};
use crate::backend::h::ids::Uuid;
use crate::backend::{RequestSender, request_queue};
use crate::model::{
    AckGuard, EventKind, FoundUser, Identity, Membership, MonoMillis, Role, UnixMillis,
};

/// The state of the simulated database.
#[derive(Default)]
pub(super) struct FakeState {
    /// Whether connecting succeeds.
    pub reachable: bool,
    /// Whether the current connection works.
    pub connected: bool,
    /// The duration of each operation.
    pub latency: Duration,
    pub people: HashMap<String, Identity>,
    pub members: HashMap<String, Vec<Membership>>,
    pub swept: VecDeque<Vec<(TokenId, TokenStatus)>>,
    /// The annotation that always breaks the connection.
    pub poison: Option<String>,
    pub asked: Vec<String>,
    pub rows: FakeRows,
}

#[derive(Clone, Default)]
pub(super) struct FakeDatabase(Arc<Mutex<FakeState>>);

impl FakeDatabase {
    pub(super) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().unwrap()
    }

    pub(super) fn has_token(&self, token: &str, identity: Identity) {
        self.state().people.insert(token.into(), identity);
    }

    pub(super) fn has_members(&self, userid: &str, groups: Vec<Membership>) {
        self.state().members.insert(userid.into(), groups);
    }

    pub(super) fn will_sweep(&self, found: Vec<(TokenId, TokenStatus)>) {
        self.state().swept.push_back(found);
    }

    pub(super) async fn ask(&self, what: String) -> Result<(), Unavailable> {
        let latency = self.state().latency;
        sleep(latency).await;
        let mut state = self.state();
        if !state.connected {
            return Err(Unavailable("cut".into()));
        }
        state.asked.push(what);
        Ok(())
    }

    /// Ends the server's connections; `reachable` tells whether connecting succeeds afterwards.
    pub(super) fn restart(&self, reachable: bool) {
        let mut state = self.state();
        state.connected = false;
        state.reachable = reachable;
    }
}

impl Queries for FakeDatabase {
    async fn connect(&mut self) -> Result<(), Unavailable> {
        let mut state = self.state();
        state.connected = state.reachable;
        match state.reachable {
            true => Ok(()),
            false => Err(Unavailable("refused".into())),
        }
    }

    fn is_connected(&self) -> bool {
        self.state().connected
    }

    async fn identities(
        &mut self,
        tokens: &[&str],
        _: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Unavailable> {
        self.ask(format!("{} tokens", tokens.len())).await?;
        let state = self.state();
        let identities = tokens.iter().map(|token| state.people.get(*token).cloned());
        Ok(identities.collect())
    }

    async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Unavailable> {
        self.ask(userid.to_owned()).await?;
        Ok(self.state().members.get(userid).cloned())
    }

    async fn user(&mut self, userid: &str) -> Result<Option<FoundUser>, Unavailable> {
        let memberships = self.memberships(userid).await?;
        Ok(memberships.map(|memberships| FoundUser {
            userid: userid.into(),
            memberships,
        }))
    }

    async fn sweep(
        &mut self,
        tokens: &[TokenId],
        _: UnixMillis,
    ) -> Result<Vec<(TokenId, TokenStatus)>, Unavailable> {
        self.ask(format!("sweep of {}", tokens.len())).await?;
        Ok(self.state().swept.pop_front().unwrap_or_default())
    }

    async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        _: &Pending,
    ) -> Result<Result<Planned, DropReason>, Unavailable> {
        self.ask(event.action.clone()).await?;
        let mut state = self.state();
        if state.poison.as_ref() == Some(&event.action) {
            state.connected = false;
            return Err(Unavailable("crashed".into()));
        }
        if event.action == "missing" {
            return Ok(Err(DropReason::Missing));
        }
        let facts = state.rows.facts(event.uuid);
        let kind = event.kind();
        if facts.state.deleted && kind != EventKind::Delete {
            return Ok(Err(DropReason::Missing));
        }
        let mut plan = notification(event.uuid, kind, &event.action);
        plan.exclude_client = event.src_client_id.as_deref().map(Into::into);
        Ok(Ok(Planned { plan, facts }))
    }

    async fn changes(&mut self, page: Page) -> Answer<Changes> {
        self.ask("changes".to_owned()).await?;
        Ok(self.state().rows.changes(page))
    }

    async fn rights(&mut self, authors: &[&str], groups: &[&str]) -> Answer<Rights> {
        self.ask("rights".to_owned()).await?;
        Ok(self.state().rows.rights(authors, groups))
    }

    async fn annotations(
        &mut self,
        ids: &[Uuid],
        _: &Pending,
        decide: Decide<'_>,
    ) -> Result<Vec<Swept>, Unavailable> {
        self.ask(format!("{} annotations", ids.len())).await?;
        let mut state = self.state();
        if ids.iter().any(|id| state.rows.poison == Some(*id)) {
            state.connected = false;
            return Err(Unavailable("crashed".into()));
        }
        Ok(state.rows.annotations(ids, decide))
    }
}

/// Constant clocks. As in a real process, they are unrelated.
pub(super) const CLOCKS: Clocks = Clocks {
    unix: || 1_700_000_000_000,
    mono: || MONO,
};
const MONO: MonoMillis = MonoMillis(1_000_000);

/// The limits on waiting events.
pub(super) const LIMITS: Limits = Limits {
    events: 4096,
    bytes: 16 << 20,
};

/// The reactor's mailbox.
pub(super) struct MailboxSink(pub SyncSender<BackendEvent>);

impl EventSink for MailboxSink {
    fn send(&self, _: BackendEvent) -> Result<(), SinkClosed> {
        panic!("the thread must not block");
    }

    fn try_send(&self, event: BackendEvent) -> Result<(), SinkError> {
        self.0.try_send(event).map_err(|error| match error {
            TrySendError::Full(event) => SinkError::Full(event),
            TrySendError::Disconnected(_) => SinkError::Closed,
        })
    }
}

/// The environment of a worker.
pub(super) struct Harness {
    pub fake: FakeDatabase,
    pub stats: Arc<Stats>,
    pub requests: RequestSender,
    pub events: Sender<Delivery>,
    pub mail: mpsc::Receiver<BackendEvent>,
    pub handled: Arc<AtomicUsize>,
}

/// Creates a worker that sends its messages to `sender`.
pub(super) fn worker(
    fake: FakeDatabase,
    history: History,
    sender: SyncSender<BackendEvent>,
    (queue, deliveries): (RequestQueue, Receiver<Delivery>),
    stats: Arc<Stats>,
) -> Worker<FakeDatabase, MailboxSink> {
    let database = Database::new(fake, || 0);
    let sink = MailboxSink(sender);
    Worker::new(
        database,
        sink,
        CLOCKS,
        (stats, LIMITS),
        history,
        queue,
        deliveries,
    )
}

/// The history is disabled.
pub(super) const WITHOUT_HISTORY: HistoryOptions = HistoryOptions {
    memory: 0,
    window: Duration::ZERO,
    sweep: Duration::from_secs(60),
};

/// Runs a worker without a history while `script` controls its environment.
pub(super) async fn run_worker(in_flight: usize, script: impl AsyncFnOnce(&mut Harness)) {
    run_worker_with(WITHOUT_HISTORY, in_flight, FakeDatabase::default(), script).await;
}

/// Runs a worker while `script` controls its environment.
pub(super) async fn run_worker_with(
    options: HistoryOptions,
    in_flight: usize,
    fake: FakeDatabase,
    script: impl AsyncFnOnce(&mut Harness),
) {
    let (requests, queue) = request_queue();
    let (events, deliveries) = channel(16);
    let (sender, mail) = mpsc::sync_channel(in_flight);
    let mut harness = Harness {
        fake,
        stats: Arc::default(),
        requests,
        events,
        mail,
        handled: Arc::default(),
    };
    harness.fake.restart(true);
    let history = History::new(options, 7, Instant::now());
    let stats = Arc::clone(&harness.stats);
    let worker = worker(
        harness.fake.clone(),
        history,
        sender,
        (queue, deliveries),
        stats,
    );
    tokio::select! {
        // Poll in a fixed order to keep the tests deterministic.
        biased;
        () = worker.run() => panic!("it ended"),
        () = script(&mut harness) => {}
    }
}

impl Harness {
    pub(super) fn ask(&self, ask: BackendRequest) {
        self.requests.try_send(ask).unwrap();
    }

    pub(super) fn log_in(&self, request_id: u64, token: &str) {
        self.ask(BackendRequest::Authenticate {
            request_id: RequestId(request_id),
            token: Secret(token.into()),
        });
    }

    pub(super) async fn event(&self, topic: Topic, event: Value) {
        self.event_of_age(0, topic, event).await;
    }

    /// Sends an event that arrived `age` milliseconds ago.
    pub(super) async fn event_of_age(&self, age: u64, topic: Topic, event: Value) {
        let Value::Object(event) = event else {
            panic!("no object");
        };
        let handled = Arc::clone(&self.handled);
        let ack = AckGuard::new(move || {
            handled.fetch_add(1, Ordering::Relaxed);
        });
        let size = 100;
        let delivery = Delivery {
            topic,
            event,
            size,
            received: MonoMillis(MONO.0 - age),
            ack,
        };
        self.events.send(delivery).await.unwrap();
    }

    pub(super) async fn annotation(&self, action: &str) {
        let id = "AAAAAREREeaAAAAAAAAAAQ";
        let event = json!({"action": action, "annotation_id": id, "src_client_id": null});
        self.event(Topic::Annotation, event).await;
    }

    pub(super) async fn user(&self, userid: &str) {
        let event = json!({"type": "group-join", "userid": userid, "session_model": {}});
        self.event(Topic::User, event).await;
    }

    /// Sends an event on a group, which h publishes before it commits.
    pub(super) async fn change(&self, kind: &str, userid: &str, group: &str) {
        let event = json!({"type": kind, "userid": userid, "group": group, "session_model": {}});
        self.event(Topic::User, event).await;
    }

    pub(super) fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }

    /// Returns the next message to the reactor.
    pub(super) async fn next(&self) -> BackendEvent {
        loop {
            match self.mail.try_recv() {
                Ok(tell) => return tell,
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Returns the messages to the reactor so far, in a short form.
    pub(super) fn reported(&self) -> Vec<String> {
        self.mail.try_iter().map(short).collect()
    }

    /// Returns the messages to the reactor within this time.
    pub(super) async fn reported_in(&self, millis: u64) -> Vec<String> {
        sleep(Duration::from_millis(millis)).await;
        self.reported()
    }
}

pub(super) fn short(tell: BackendEvent) -> String {
    match tell {
        BackendEvent::Health { ready } => format!("ready {ready}"),
        BackendEvent::Authenticated { request_id, reply } => match reply {
            AuthReply::Known(identity) => format!("{} {}", request_id.0, identity.userid),
            AuthReply::Unknown => format!("{} unknown", request_id.0),
            AuthReply::Unavailable => format!("{} unavailable", request_id.0),
        },
        BackendEvent::Published { request_id, result } => {
            format!("{} refused: {}", request_id.0, result.is_err())
        }
        BackendEvent::QueueEvents { plans, .. } => {
            let message: Value = serde_json::from_str(&plans[0].variants[0]).unwrap();
            message["action"].as_str().unwrap().to_owned()
        }
        BackendEvent::Memberships {
            userid,
            memberships,
        } => format!("{userid} in {}", memberships.len()),
        BackendEvent::UserDeleted { userid } => format!("{userid} gone"),
        BackendEvent::TokenEnded { token, .. } => format!("token {} ended", token.0),
        BackendEvent::Replanned { plans } => format!("{} replanned", plans.len()),
        BackendEvent::Found { request_id, result } => match result {
            Ok(findings) => {
                let user = findings.user.map(|user| user.userid);
                let user = user.as_deref().unwrap_or("nobody");
                let plan = findings.plan.map_or("nothing", |plan| plan.kind.as_str());
                format!("{} found {user} and {plan}", request_id.0)
            }
            Err(error) => format!("{} {error:?}", request_id.0),
        },
        BackendEvent::History(event) => format!("{event:?}"),
    }
}

pub(super) fn person(token: u64, userid: &str, groups: &[&str]) -> Identity {
    Identity {
        userid: userid.into(),
        memberships: members(groups),
        token: TokenId(token),
        expires: None,
    }
}

pub(super) fn members(groups: &[&str]) -> Vec<Membership> {
    let membership = |group: &&str| Membership {
        group: (*group).into(),
        role: Role::Member,
    };
    groups.iter().map(membership).collect()
}

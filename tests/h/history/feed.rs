//! h's backend without a reactor: its events are received by the test.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use h_realtime::backend::amqp::Broker;
use h_realtime::backend::h::{
    self, Clocks, DatabaseClient, DatabaseSettings, HistoryOptions, Limits,
};
use h_realtime::backend::{EventSink, RequestSender, SinkClosed, SinkError, Stats, request_queue};
use h_realtime::model::{
    BackendEvent, Cause, HistoryEvent, HistoryStart, MonoMillis, Plan, RestoredPlan, Subject,
    UnixMillis, unix_now,
};

use crate::support::{PATIENCE, Site, eventually};

/// A running backend.
pub struct Feed {
    pub stats: Arc<Stats>,
    pub start: HistoryStart,
    pub restored: Vec<RestoredPlan>,
    pub watermark: UnixMillis,
    events: Receiver<BackendEvent>,
    plans: VecDeque<Plan>,
    requests: Option<RequestSender>,
    thread: Option<JoinHandle<()>>,
}

struct ChannelSink(Sender<BackendEvent>);

impl EventSink for ChannelSink {
    fn send(&self, event: BackendEvent) -> Result<(), SinkClosed> {
        self.0.send(event).map_err(|_| SinkClosed)
    }

    fn try_send(&self, event: BackendEvent) -> Result<(), SinkError> {
        self.send(event).map_err(|SinkClosed| SinkError::Closed)
    }
}

impl Feed {
    /// Starts a backend with frequent sweeps, and waits for its history and the broker.
    pub fn start(site: &Site) -> Feed {
        Feed::with(site, Duration::from_millis(200))
    }

    /// Like [`Feed::start`], with this interval between sweeps.
    pub fn with(site: &Site, sweep: Duration) -> Feed {
        let stats = Arc::new(Stats::requiring(true, true));
        let settings = DatabaseSettings {
            database_url: site.database.clone(),
            authority: "localhost".to_owned(),
            app_url: "http://localhost:5000".to_owned(),
            bouncer_url: Some("http://localhost:8000".to_owned()),
        };
        let store = DatabaseClient::new(&settings, Arc::clone(&stats)).unwrap();
        let events = h::Events {
            brokers: vec![Broker::parse(&site.broker).unwrap()],
            max_event: 1 << 20,
            backlog: Limits {
                events: 4096,
                bytes: 16 << 20,
            },
            history: HistoryOptions {
                sweep,
                ..HistoryOptions::default()
            },
        };
        let clocks = Clocks {
            unix: unix_now,
            mono: || MonoMillis(0),
        };
        let (requests, queue) = request_queue();
        let (sender, received) = channel();
        let counted = Arc::clone(&stats);
        let thread = h::start(store, events, queue, counted, clocks, ChannelSink(sender)).unwrap();
        let (mut start, mut restored) = (None, Vec::new());
        let mut watermark = 0;
        loop {
            match received.recv_timeout(PATIENCE).unwrap() {
                BackendEvent::Health { .. } => {}
                BackendEvent::History(HistoryEvent::Ready) => break,
                BackendEvent::History(HistoryEvent::Start(one)) => start = Some(one),
                BackendEvent::History(HistoryEvent::Restored(more)) => restored.extend(more),
                BackendEvent::History(HistoryEvent::Watermark(time)) => watermark = time,
                other => panic!("{other:?}"),
            }
        }
        eventually(PATIENCE, || stats.broker.is_up().then_some(()));
        Feed {
            stats,
            start: start.unwrap(),
            restored,
            watermark,
            events: received,
            plans: VecDeque::new(),
            requests: Some(requests),
            thread: Some(thread),
        }
    }

    /// Returns the next plan. Positions must increase.
    pub fn plan(&mut self) -> Plan {
        let end = Instant::now() + PATIENCE;
        while self.plans.is_empty() {
            self.receive(end.saturating_duration_since(Instant::now()));
            assert!(Instant::now() < end, "no plan");
        }
        self.plans.pop_front().unwrap()
    }

    /// Returns the next plan in a short form: its kind, its id, and the excluded client. A plan
    /// that reflects changed rights is in brackets.
    pub fn line(&mut self) -> String {
        line(&self.plan())
    }

    /// Asserts that nothing is sent during this number of sweeps.
    pub fn is_quiet_for(&mut self, sweeps: u64) {
        let end = self.sweeps() + sweeps;
        while self.sweeps() < end {
            self.receive(Duration::from_millis(10));
        }
        assert!(self.plans.is_empty(), "{:?}", self.plans);
    }

    /// Waits until this number of sweeps has been completed.
    pub fn wait_for_sweeps(&mut self, sweeps: u64) {
        let end = self.sweeps() + sweeps;
        while self.sweeps() < end {
            self.receive(Duration::from_millis(10));
        }
    }

    /// Waits for the sweeps that follow the start: the last one is six seconds after it.
    pub fn settle(&mut self) {
        let (mut sweeps, mut since) = (self.sweeps(), Instant::now());
        while since.elapsed() < Duration::from_secs(8) {
            self.receive(Duration::from_millis(100));
            if self.sweeps() != sweeps {
                (sweeps, since) = (self.sweeps(), Instant::now());
            }
        }
    }

    /// Receives until nothing has arrived for a moment.
    pub fn wait_for_quiet(&mut self) {
        self.receive(Duration::from_millis(300));
        assert!(self.plans.is_empty(), "{:?}", self.plans);
    }

    pub fn sweeps(&self) -> u64 {
        self.stats.sweeps.load(Ordering::Relaxed)
    }

    fn receive(&mut self, patience: Duration) {
        let Ok(event) = self.events.recv_timeout(patience) else {
            return;
        };
        let plans = match event {
            BackendEvent::QueueEvents { plans, .. } => plans,
            BackendEvent::Replanned { plans } => {
                assert!(plans.iter().all(|plan| plan.cause == Cause::RightsChange));
                plans
            }
            BackendEvent::History(HistoryEvent::Watermark(time)) => {
                assert!(time >= self.watermark);
                self.watermark = time;
                return;
            }
            BackendEvent::Health { .. } | BackendEvent::Memberships { .. } => return,
            other => panic!("{other:?}"),
        };
        for plan in plans {
            let last = self.plans.back().map_or(0, |plan| plan.stamp.position);
            assert!(plan.stamp.position > last, "{plan:?}");
            self.plans.push_back(plan);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.requests.take();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

pub fn line(plan: &Plan) -> String {
    let id = id(plan);
    let client = plan.exclude_client.as_deref();
    let client = client.map_or(String::new(), |client| format!(" without {client}"));
    let text = format!("{} {id}{client}", plan.kind.as_str());
    match plan.cause {
        Cause::Event => text,
        Cause::RightsChange => format!("[{text}]"),
    }
}

/// Returns the id of a plan's annotation.
pub fn id(plan: &Plan) -> &str {
    match &plan.subject {
        Subject::Annotation(id) => id,
        Subject::User(userid) => panic!("an event on {userid}"),
    }
}

//! The fill of the history, and sweeps for changes without an event.

mod fill;
mod sweeps;

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::harness::{FakeDatabase, Harness, run_worker_with};
use crate::backend::Topic;
use crate::backend::h::history::HistoryOptions;
use crate::backend::h::ids::Uuid;
use crate::model::{
    BackendEvent, HistoryEvent, HistoryStart, Plan, RestoredPlan, Subject, UnixMillis,
};

/// Runs a worker with a history.
async fn run(fake: FakeDatabase, script: impl AsyncFnOnce(&mut Harness)) {
    run_worker_with(HistoryOptions::default(), 4096, fake, script).await;
}

/// The contents of a history at its start.
struct Restored {
    start: HistoryStart,
    plans: Vec<RestoredPlan>,
    watermark: UnixMillis,
}

/// A plan that was sent, in a short form.
fn line(plan: &Plan) -> String {
    let Subject::Annotation(id) = &plan.subject else {
        panic!("{plan:?}");
    };
    let number = u128::from_be_bytes(Uuid::from_url_safe(id).unwrap().0);
    let client = plan.exclude_client.as_deref();
    let client = client.map_or(String::new(), |client| format!(" without {client}"));
    format!("{} {number}{client}", plan.kind.as_str())
}

impl Harness {
    /// Receives the contents of the history.
    async fn restored(&self) -> Restored {
        assert!(matches!(
            self.next().await,
            BackendEvent::Health { ready: true }
        ));
        let BackendEvent::History(HistoryEvent::Start(start)) = self.next().await else {
            panic!("no start");
        };
        let (mut plans, mut watermark) = (Vec::new(), 0);
        loop {
            match self.next().await {
                BackendEvent::History(HistoryEvent::Restored(more)) => {
                    assert!(more.len() <= 256);
                    plans.extend(more);
                }
                BackendEvent::History(HistoryEvent::Watermark(time)) => watermark = time,
                BackendEvent::History(HistoryEvent::Ready) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(watermark > 0, "the first cursor has a watermark");
        Restored {
            start,
            plans,
            watermark,
        }
    }

    /// Waits for the sweeps that follow the start.
    async fn settled(&self) {
        self.restored().await;
        assert_eq!(self.sent_in(Duration::from_secs(10)).await, [""; 0]);
    }

    /// Returns everything that was sent in this time, in a short form: replanned annotations in
    /// brackets. Positions must increase. Watermarks are checked and left out.
    async fn sent_in(&self, time: Duration) -> Vec<String> {
        sleep(time).await;
        let (mut lines, mut position) = (Vec::new(), 0);
        let mut add = |plan: &Plan| {
            assert!(plan.stamp.position > position, "{plan:?}");
            position = plan.stamp.position;
            line(plan)
        };
        while let Ok(event) = self.mail.try_recv() {
            match event {
                BackendEvent::QueueEvents { plans, .. } => lines.extend(plans.iter().map(&mut add)),
                BackendEvent::Replanned { plans } => {
                    lines.extend(plans.iter().map(|plan| format!("[{}]", add(plan))));
                }
                BackendEvent::History(HistoryEvent::Watermark(time)) => {
                    let now = self.fake.state().rows.now().to_unix().unwrap();
                    assert!(time <= now - 30_000, "{time}");
                }
                BackendEvent::Health { ready } => lines.push(format!("ready {ready}")),
                other => panic!("{other:?}"),
            }
        }
        lines
    }

    /// Publishes an event of h on an annotation.
    async fn publish(&self, action: &str, id: Uuid, client: Option<&str>) {
        let event = json!({
            "action": action, "annotation_id": id.to_url_safe(), "src_client_id": client,
        });
        self.event(Topic::Annotation, event).await;
    }
}

fn fake() -> FakeDatabase {
    let fake = FakeDatabase::default();
    fake.restart(true);
    fake
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

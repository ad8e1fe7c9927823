//! The fill of the history, and sweeps for changes without an event.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::captured;
use super::harness::{FakeDatabase, Harness, run_worker_with};
use super::rows::{START, uuid};
use crate::backend::h::history::HistoryOptions;
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;
use crate::backend::{DropReason, Topic};
use crate::model::{
    BackendEvent, EventKind, HistoryEvent, HistoryStart, Plan, RestoredPlan, Subject, UnixMillis,
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
        let mut plans = Vec::new();
        loop {
            match self.next().await {
                BackendEvent::History(HistoryEvent::Restored(more)) => {
                    assert!(more.len() <= 256);
                    plans.extend(more);
                }
                BackendEvent::History(HistoryEvent::Ready) => break,
                other => panic!("{other:?}"),
            }
        }
        let BackendEvent::History(HistoryEvent::Watermark(watermark)) = self.next().await else {
            panic!("no watermark");
        };
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

#[tokio::test(start_paused = true)]
async fn history_is_restored_before_the_first_event() {
    let (fake, mut expected) = (fake(), Vec::new());
    {
        let rows = &mut fake.state().rows;
        for number in 1..=600 {
            rows.rows
                .create(number, minutes(601) - minutes(number as u64));
            expected.push(format!("create {number}"));
        }
        rows.create(1000, minutes(8 * 24 * 60));
        let deleted = uuid(3);
        rows.annotations.get_mut(&deleted).unwrap().deleted = true;
        expected[2] = "delete 3".to_owned();
        // Moderated later than it was created.
        rows.moderate(uuid(1), 1);
        expected.rotate_left(1);
    }
    run(fake, async |harness| {
        harness.publish("update", uuid(5), None).await;
        let restored = harness.restored().await;
        let lines: Vec<_> = restored.plans.iter().map(|one| line(&one.plan)).collect();
        assert_eq!(lines, expected);
        let stamps = restored.plans.iter().map(|one| one.plan.stamp);
        assert!(stamps.clone().map(|stamp| stamp.position).eq(1..=600));
        assert!(stamps.is_sorted_by_key(|stamp| stamp.time));
        let now = START.to_unix().unwrap();
        assert_eq!((restored.start.head, restored.start.floor), (600, 0));
        assert_eq!(restored.start.epoch, 7);
        // Rows of earlier deletions may have been removed.
        let since = restored.start.floor_time;
        assert!(since.abs_diff(now - 600_000) < 1_000, "{since}");
        assert!(restored.watermark.abs_diff(now - 30_000) < 1_000);
        assert_eq!(harness.sent_in(Duration::from_secs(1)).await, ["update 5"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn memory_limits_the_restored_plans_and_their_completeness() {
    let fake = fake();
    for number in 1..=1_500 {
        let mut state = fake.state();
        let id = state
            .rows
            .create(number, Duration::from_millis(200 * (1_501 - number as u64)));
        state.rows.annotations.get_mut(&id).unwrap().size = 10_000;
    }
    let options = HistoryOptions {
        memory: 1 << 20,
        ..HistoryOptions::default()
    };
    run_worker_with(options, 4096, fake, async |harness| {
        let restored = harness.restored().await;
        let count = restored.plans.len();
        assert!((80..=200).contains(&count), "{count}");
        assert_eq!(line(&restored.plans.last().unwrap().plan), "create 1500");
        let oldest = restored.plans[0].plan.stamp.time;
        assert_eq!(restored.start.floor_time, oldest);
        // The rows that were not restored are not mistaken for changes.
        assert_eq!(harness.sent_in(minutes(3)).await, [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn change_without_event_is_sent_by_the_next_sweep_once() {
    run(fake(), async |harness| {
        harness.settled().await;
        let created = harness.fake.state().rows.create(1, Duration::ZERO);
        assert_eq!(harness.sent_in(Duration::from_secs(50)).await, [""; 0]);
        assert_eq!(harness.sent_in(Duration::from_secs(10)).await, ["create 1"]);
        assert_eq!(harness.sent_in(minutes(3)).await, [""; 0]);
        harness.fake.state().rows.update(created);
        assert_eq!(harness.sent_in(minutes(2)).await, ["update 1"]);
        harness.fake.state().rows.delete(created);
        assert_eq!(harness.sent_in(minutes(2)).await, ["delete 1"]);
        harness.fake.state().rows.annotations.remove(&created);
        assert_eq!(harness.sent_in(minutes(20)).await, [""; 0]);
        assert_eq!(harness.stats.swept.load(Relaxed), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn delivered_changes_are_not_sent_again_by_sweeps() {
    run(fake(), async |harness| {
        harness.restored().await;
        for number in 0..400 {
            let id = harness.fake.state().rows.create(number, Duration::ZERO);
            harness.publish("create", id, Some("tab")).await;
            let sent = harness.sent_in(Duration::from_millis(500)).await;
            assert_eq!(sent, [format!("create {number} without tab")]);
        }
        assert_eq!(harness.sent_in(minutes(3)).await, [""; 0]);
        assert!(harness.stats.sweeps.load(Relaxed) >= 5);
        assert_eq!(harness.stats.swept.load(Relaxed), 0);
        // No annotation was read again.
        let state = harness.fake.state();
        assert!(
            !state
                .asked
                .iter()
                .any(|asked| asked.ends_with("annotations"))
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn recent_change_is_left_to_its_event() {
    run(fake(), async |harness| {
        harness.settled().await;
        // The next sweep is 66 seconds after the start.
        harness.sent_in(Duration::from_secs(54)).await;
        let id = harness.fake.state().rows.create(1, Duration::ZERO);
        assert_eq!(harness.sent_in(Duration::from_secs(4)).await, [""; 0]);
        harness.publish("create", id, Some("tab")).await;
        let sent = harness.sent_in(minutes(3)).await;
        assert_eq!(sent, ["create 1 without tab"]);
        // The time of a change may be ahead of the database's clock.
        let ahead = harness.fake.state().rows.create(2, Duration::ZERO);
        harness
            .fake
            .state()
            .rows
            .set_time(ahead, Duration::from_secs(3600));
        assert_eq!(harness.sent_in(minutes(3)).await, ["create 2"]);
        assert_eq!(harness.sent_in(minutes(90)).await, [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn late_event_of_a_swept_change_is_dropped_as_a_duplicate() {
    run(fake(), async |harness| {
        harness.settled().await;
        let id = harness.fake.state().rows.create(1, Duration::ZERO);
        assert_eq!(harness.sent_in(minutes(2)).await, ["create 1"]);
        harness.publish("create", id, Some("tab")).await;
        assert_eq!(harness.sent_in(Duration::from_secs(1)).await, [""; 0]);
        assert_eq!(harness.stats.dropped(DropReason::Duplicate), 1);
        harness.fake.state().rows.update(id);
        harness.publish("update", id, Some("tab")).await;
        let sent = harness.sent_in(Duration::from_secs(1)).await;
        assert_eq!(sent, ["update 1 without tab"]);
        // Repeated events of the queue are passed on.
        harness.publish("update", id, None).await;
        assert_eq!(harness.sent_in(Duration::from_secs(1)).await, ["update 1"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn change_of_rights_replans_and_excludes_the_original_client() {
    run(fake(), async |harness| {
        harness.restored().await;
        let id = harness.fake.state().rows.create(1, Duration::ZERO);
        harness.publish("create", id, Some("tab")).await;
        let other = harness.fake.state().rows.create(2, Duration::ZERO);
        harness
            .fake
            .state()
            .rows
            .annotations
            .get_mut(&other)
            .unwrap()
            .author = "acct:ann@b";
        harness.publish("create", other, None).await;
        assert_eq!(harness.sent_in(minutes(1)).await.len(), 2);
        harness.fake.state().rows.muted = vec!["acct:joe@b".to_owned()];
        let sent = harness.sent_in(minutes(1)).await;
        assert_eq!(sent, ["[create 1 without tab]"]);
        harness.fake.state().rows.muted.clear();
        assert_eq!(harness.sent_in(minutes(1)).await, sent);
        let both = ["[create 2]", "[create 1 without tab]"];
        harness.fake.state().rows.group_rights = 2;
        assert_eq!(harness.sent_in(minutes(1)).await, both);
        harness.fake.state().rows.checkpoints = vec![4];
        assert_eq!(harness.sent_in(minutes(1)).await, [""; 0]);
        harness.fake.state().rows.checkpoints = vec![4, 5];
        assert_eq!(harness.sent_in(minutes(1)).await, both);
        harness.fake.state().rows.moderate(other, 3);
        assert_eq!(harness.sent_in(minutes(2)).await, ["[create 2]"]);
        assert_eq!(harness.sent_in(minutes(5)).await, [""; 0]);
        assert_eq!(harness.stats.replanned.load(Relaxed), 7);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sweep_runs_at_once_after_an_outage_and_after_waiting_events() {
    run(fake(), async |harness| {
        harness.restored().await;
        harness.sent_in(Duration::from_secs(2)).await;
        harness.fake.restart(false);
        sleep(Duration::from_secs(2)).await;
        let lost = harness.fake.state().rows.create(1, Duration::ZERO);
        let waits = harness.fake.state().rows.create(2, Duration::ZERO);
        harness.publish("create", waits, Some("tab")).await;
        sleep(Duration::from_secs(10)).await;
        harness.fake.state().reachable = true;
        let sent = harness.sent_in(Duration::from_secs(6)).await;
        let expected = [
            "ready false",
            "ready true",
            "create 2 without tab",
            "create 1",
        ];
        assert_eq!(sent, expected);
        assert_eq!(harness.sent_in(minutes(3)).await, [""; 0]);
        // The broker's connection was remade.
        harness.fake.state().rows.update(lost);
        sleep(Duration::from_secs(6)).await;
        harness.stats.broker.connected();
        let sent = harness.sent_in(Duration::from_secs(2)).await;
        assert_eq!(sent, ["update 1"]);
        // A change right before it is found soon.
        harness.fake.state().rows.update(lost);
        harness.stats.broker.connected();
        let sent = harness.sent_in(Duration::from_secs(8)).await;
        assert_eq!(sent, ["update 1"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn watermark_follows_complete_sweeps_only() {
    run(fake(), async |harness| {
        harness.restored().await;
        let next = async || match harness.next().await {
            BackendEvent::History(HistoryEvent::Watermark(time)) => time,
            other => panic!("{other:?}"),
        };
        next().await;
        let (first, second) = (next().await, next().await);
        assert!(
            (60_000..61_000).contains(&(second - first)),
            "{}",
            second - first
        );
        harness.fake.state().rows.slow_changes = true;
        assert_eq!(harness.sent_in(minutes(5)).await, [""; 0]);
        assert!(harness.fake.state().connected);
        harness.fake.state().rows.create(1, minutes(4));
        harness.fake.state().rows.slow_changes = false;
        assert_eq!(harness.sent_in(minutes(1)).await, ["create 1"]);
        // Slow rights only defer the check of rights.
        harness.fake.state().rows.slow_rights = true;
        harness.fake.state().rows.muted = vec!["acct:joe@b".to_owned()];
        let third = next().await;
        let fourth = next().await;
        assert!(second < third && third < fourth);
        harness.fake.state().rows.slow_rights = false;
        assert_eq!(harness.sent_in(minutes(2)).await, ["[create 1]"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn annotation_that_breaks_the_database_is_skipped() {
    let fake = fake();
    for number in 1..=100 {
        fake.state().rows.create(number, minutes(1));
    }
    fake.state().rows.poison = Some(uuid(70));
    run(fake, async |harness| {
        let restored = loop {
            // Each failure is an outage.
            match harness.next().await {
                BackendEvent::History(HistoryEvent::Restored(plans)) => break plans,
                BackendEvent::Health { .. } | BackendEvent::History(HistoryEvent::Start(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(restored.len(), 99);
        sleep(minutes(2)).await;
        while harness.mail.try_recv().is_ok() {}
        for number in 101..=200 {
            harness.fake.state().rows.create(number, Duration::ZERO);
        }
        harness.fake.state().rows.poison = Some(uuid(150));
        let sent = harness.sent_in(minutes(5)).await;
        let created = sent.iter().filter(|line| line.starts_with("create"));
        assert_eq!(created.count(), 99, "{sent:?}");
        assert_eq!(harness.stats.dropped(DropReason::Unreadable), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_disappear_during_a_long_outage_are_retracted() {
    run(fake(), async |harness| {
        harness.restored().await;
        for number in 1..=3 {
            let id = harness.fake.state().rows.create(number, Duration::ZERO);
            harness.publish("create", id, None).await;
        }
        assert_eq!(harness.sent_in(minutes(2)).await.len(), 3);
        harness.fake.restart(false);
        sleep(minutes(30)).await;
        harness.fake.state().rows.annotations.remove(&uuid(2));
        harness.fake.state().reachable = true;
        let sent = harness.sent_in(minutes(2)).await;
        assert_eq!(sent, ["ready false", "ready true", "[delete 2]"]);
        assert_eq!(harness.sent_in(minutes(20)).await, [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn swept_changes_wait_for_a_full_reactor() {
    run(fake(), async |harness| {
        harness.restored().await;
        for number in 0..2_500 {
            harness.fake.state().rows.create(number, Duration::ZERO);
        }
        let (mut kept, mut received) = (VecDeque::new(), 0);
        sleep(minutes(3)).await;
        while received < 2_500 {
            for event in harness.mail.try_iter() {
                if let BackendEvent::QueueEvents { plans, .. } = &event {
                    assert_eq!(plans[0].kind, EventKind::Create);
                    received += 1;
                    kept.push_back(event);
                }
            }
            assert!(kept.len() < 256 + 64, "{}", kept.len());
            kept.drain(..kept.len().min(100));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(received, 2_500);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_and_events_are_served_during_fill_and_sweep() {
    let fake = fake();
    for number in 1..=2_000 {
        fake.state().rows.create(number, minutes(5));
    }
    fake.state().latency = Duration::from_millis(100);
    run(fake, async |harness| {
        harness.log_in(1, "x");
        sleep(Duration::from_millis(350)).await;
        let early: Vec<BackendEvent> = harness.mail.try_iter().collect();
        assert!(
            early
                .iter()
                .any(|event| matches!(event, BackendEvent::Authenticated { .. }))
        );
        assert!(
            !early
                .iter()
                .any(|event| matches!(event, BackendEvent::History(_)))
        );
        sleep(Duration::from_secs(20)).await;
        while harness.mail.try_recv().is_ok() {}
        for number in 3_000..4_000 {
            harness.fake.state().rows.create(number, Duration::ZERO);
        }
        let since = Instant::now();
        let id = uuid(1);
        while !matches!(harness.next().await, BackendEvent::QueueEvents { .. }) {}
        assert!(since.elapsed() < minutes(2));
        harness.fake.state().rows.update(id);
        harness.publish("update", id, None).await;
        let sent = harness.sent_in(Duration::from_millis(350)).await;
        assert!(sent.contains(&"update 1".to_owned()), "{sent:?}");
        assert!(sent.len() < 300, "the sweep continues");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn missing_moderation_log_is_logged_once() {
    let log = captured::capture();
    let fake = fake();
    fake.state().rows.knows_moderation = false;
    run(fake, async |harness| {
        harness.restored().await;
        let id = harness.fake.state().rows.create(1, Duration::ZERO);
        assert_eq!(harness.sent_in(minutes(2)).await, ["create 1"]);
        harness.fake.state().rows.moderate(id, 2);
        assert_eq!(harness.sent_in(minutes(5)).await, [""; 0]);
    })
    .await;
    assert_eq!(log.count("moderation_log"), 1);
}

#[tokio::test(start_paused = true)]
async fn user_events_have_positions_and_times() {
    run(fake(), async |harness| {
        harness.restored().await;
        sleep(Duration::from_secs(10)).await;
        harness.user("acct:joe@b").await;
        let plan = loop {
            if let BackendEvent::QueueEvents { plans, .. } = harness.next().await {
                break plans[0].clone();
            }
        };
        assert_eq!(plan.stamp.position, 1);
        let now = harness.fake.state().rows.now().to_unix().unwrap();
        assert!(plan.stamp.time.abs_diff(now) < 100);
    })
    .await;
}

//! The fill of the history at the start.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{fake, line, minutes, run};
use crate::backend::DropReason;
use crate::backend::h::history::HistoryOptions;
use crate::backend::h::worker::tests::captured;
use crate::backend::h::worker::tests::harness::run_worker_with;
use crate::backend::h::worker::tests::rows::{START, uuid};
use crate::model::{BackendEvent, HistoryEvent};

#[tokio::test(start_paused = true)]
async fn history_is_restored_before_the_first_event() {
    let (fake, mut expected) = (fake(), Vec::new());
    {
        let rows = &mut fake.state().rows;
        for number in 1..=600 {
            rows.create(number, minutes(601) - minutes(number as u64));
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

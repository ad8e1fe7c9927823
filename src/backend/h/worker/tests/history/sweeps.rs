//! Sweeps for changes without an event.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::sleep;

use super::{fake, minutes, run};
use crate::backend::DropReason;
use crate::backend::h::worker::tests::rows::uuid;
use crate::model::{BackendEvent, EventKind, HistoryEvent};

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

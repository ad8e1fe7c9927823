//! The order of answers, and the retention of events.

mod captured;
mod harness;
mod history;
mod lookups;
mod rows;

use std::collections::VecDeque;
use std::sync::mpsc;

use serde_json::json;
use tokio::sync::mpsc::channel;

use super::super::in_flight::MAX_PLANS;
use super::*;
use crate::model::EndCause;
use harness::{FakeDatabase, LIMITS, WITHOUT_HISTORY, members, person, run_worker, short, worker};

#[tokio::test(start_paused = true)]
async fn logins_are_answered_in_order_and_in_batches() {
    run_worker(4096, async |harness| {
        assert_eq!(harness.reported_in(2).await, ["ready true"]);
        harness.fake.has_token("t", person(1, "acct:joe@b", &[]));
        for request_id in 0..600 {
            harness.log_in(request_id, if request_id % 2 == 0 { "t" } else { "x" });
        }
        let reported = harness.reported_in(10).await;
        assert_eq!(reported.len(), 600);
        for (request_id, reported) in reported.iter().enumerate() {
            let who = ["acct:joe@b", "unknown"][request_id % 2];
            assert_eq!(*reported, format!("{request_id} {who}"));
        }
        let asked = &harness.fake.state().asked;
        assert!(asked.len() <= 4, "{asked:?}");
        assert!(asked.contains(&"256 tokens".into()), "{asked:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_and_events_do_not_starve_each_other() {
    run_worker(4096, async |harness| {
        harness.fake.state().latency = Duration::from_millis(100);
        let many = async {
            for number in 0..50 {
                harness.annotation(&number.to_string()).await;
            }
        };
        let script = async {
            sleep(Duration::from_millis(1_050)).await;
            assert_eq!(harness.reported().last().unwrap(), "9");
            for request_id in 0..600 {
                harness.log_in(1000 + request_id, "x");
            }
            // First the event in progress, then a batch of logins, then an event.
            let reported = harness.reported_in(300).await;
            assert_eq!(reported[0], "10");
            assert_eq!(reported[1], "1000 unknown");
            assert_eq!(reported[257], "11", "{reported:?}");
            let reported = harness.reported_in(10_000).await;
            assert_eq!(reported.last().unwrap(), "49");
        };
        tokio::join!(many, script);
        assert_eq!(harness.handled(), 50);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn event_is_acknowledged_when_the_reactor_drops_its_receipt() {
    run_worker(2, async |harness| {
        sleep(Duration::from_millis(2)).await;
        for number in 0..10 {
            harness.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_secs(60)).await;
        // The health report and the first event have filled the mailbox.
        assert_eq!(harness.handled(), 0);
        let mut reported = Vec::new();
        while reported.len() < 11 {
            reported.push(short(harness.mail.recv().unwrap()));
            sleep(2 * RETRY).await;
            // The health report is not an event.
            assert_eq!(harness.handled(), reported.len() - 1);
        }
        let expected = (0..10).map(|number| number.to_string());
        assert_eq!(reported[1..], expected.collect::<Vec<_>>());
        assert_eq!(harness.handled(), 10);
        assert_eq!(harness.stats.dropped(DropReason::Overflow), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_full_reactor_and_logins_do_not() {
    run_worker(4096, async |harness| {
        harness.fake.has_token("t", person(1, "acct:a@b", &[]));
        sleep(Duration::from_millis(2)).await;
        assert_eq!(harness.reported(), ["ready true"]);
        for number in 0..MAX_PLANS {
            harness.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_secs(60)).await;
        // The plans have been taken out of the mailbox, but not been delivered.
        let mut kept: VecDeque<BackendEvent> = harness.mail.try_iter().collect();
        assert_eq!(kept.len(), MAX_PLANS);
        for number in 0..5 {
            harness.annotation(&format!("late {number}")).await;
        }
        harness.log_in(1, "t");
        assert_eq!(harness.reported_in(60_000).await, ["1 acct:a@b"]);
        for number in 1..=5 {
            kept.pop_front();
            sleep(Duration::from_secs(60)).await;
            kept.extend(harness.mail.try_iter());
            assert_eq!(kept.len(), MAX_PLANS, "one for each that was dropped");
            assert_eq!(harness.handled(), number);
        }
        let last = kept.into_iter().skip(MAX_PLANS - 5).map(short);
        let late = (0..5).map(|number| format!("late {number}"));
        assert_eq!(last.collect::<Vec<_>>(), late.collect::<Vec<_>>());
        assert_eq!(harness.stats.dropped(DropReason::Overflow), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_are_refused_and_events_wait_during_an_outage() {
    run_worker(4096, async |harness| {
        assert_eq!(harness.reported_in(2).await, ["ready true"]);
        harness.fake.restart(false);
        harness.log_in(1, "t");
        assert_eq!(
            harness.reported_in(2).await,
            ["1 unavailable", "ready false"]
        );
        for number in 0..40 {
            harness.annotation(&number.to_string()).await;
        }
        harness.user("acct:joe@b").await;
        harness.annotation("last").await;
        harness.log_in(2, "t");
        harness.ask(BackendRequest::Sweep { tokens: vec![] });
        harness.ask(BackendRequest::Publish {
            request_id: RequestId(3),
            body: Vec::new(),
            claim: crate::model::PublishClaim::default(),
        });
        assert_eq!(
            harness.reported_in(2).await,
            ["2 unavailable", "3 refused: true"]
        );
        // This holds for an outage of any length.
        assert_eq!(harness.reported_in(600_000).await, [""; 0]);
        assert_eq!(harness.handled(), 0);
        harness.fake.state().reachable = true;
        let reported = harness.reported_in(31_000).await;
        assert_eq!(reported[0], "ready true");
        let numbers = (0..40).map(|number| number.to_string());
        assert_eq!(reported[1..41], numbers.collect::<Vec<_>>());
        assert_eq!(reported[41..], ["acct:joe@b gone", "group-join", "last"]);
        assert_eq!(harness.handled(), 42);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn completed_database_restart_is_transparent() {
    run_worker(4096, async |harness| {
        assert_eq!(harness.reported_in(2).await, ["ready true"]);
        harness.fake.has_token("t", person(1, "acct:joe@b", &[]));
        harness.fake.restart(true);
        harness.log_in(1, "t");
        harness.fake.restart(true);
        harness.annotation("create").await;
        assert_eq!(harness.reported_in(2).await, ["1 acct:joe@b", "create"]);
        harness.fake.restart(true);
        harness.annotation("update").await;
        assert_eq!(harness.reported_in(2).await, ["update"]);
        // The check of idle connections detects it.
        harness.fake.restart(true);
        assert_eq!(harness.reported_in(1_100).await, [""; 0]);
        assert!(harness.fake.state().connected);
        harness.fake.restart(false);
        assert_eq!(harness.reported_in(1_100).await, ["ready false"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn oldest_events_are_dropped_when_too_many_wait() {
    run_worker(2 * LIMITS.events, async |harness| {
        sleep(Duration::from_millis(2)).await;
        harness.fake.restart(false);
        harness.log_in(1, "t");
        sleep(Duration::from_millis(2)).await;
        for number in 0..LIMITS.events + 10 {
            harness.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!(harness.stats.dropped(DropReason::Overflow), 10);
        assert_eq!(harness.handled(), 10);
        harness.fake.state().reachable = true;
        let mut reported = harness.reported_in(31_000).await;
        assert_eq!(reported[3..5], ["ready true", "10"]);
        // The reactor accepts a limited number at a time.
        for more in 0..LIMITS.events.div_ceil(MAX_PLANS) {
            assert!(reported.len() <= 4 + MAX_PLANS * (more + 1));
            reported.extend(harness.reported_in(1_000).await);
        }
        assert_eq!(*reported.last().unwrap(), (LIMITS.events + 9).to_string());
        assert_eq!(harness.handled(), LIMITS.events + 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_event_dropped_during_an_outage_is_logged() {
    let log = captured::capture();
    run_worker(2 * LIMITS.events, async |harness| {
        sleep(Duration::from_millis(2)).await;
        harness.fake.restart(false);
        harness.log_in(1, "t");
        sleep(Duration::from_millis(2)).await;
        for number in 0..10_000 {
            harness.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!(harness.stats.dropped(DropReason::Overflow), 5_904);
        let counts = || log.numbers("dropped the oldest events that waited for the database");
        assert_eq!(counts(), [1]);
        // The period ends without further events.
        sleep(Duration::from_millis(11_000)).await;
        assert_eq!(counts(), [1, 5_903]);
        harness.annotation("one more").await;
        sleep(Duration::from_millis(2)).await;
        assert_eq!(counts(), [1, 5_903]);
        harness.fake.state().reachable = true;
        harness.reported_in(6_000).await;
        assert_eq!(counts(), [1, 5_903, 1], "at the end of the outage");
    })
    .await;
    run_worker(8, async |harness| {
        for _ in 0..3 {
            harness.event(Topic::Annotation, json!({})).await;
        }
        harness.reported_in(100).await;
        assert_eq!(log.numbers("dropped malformed events from the queue"), [1]);
        harness.reported_in(11_000).await;
        assert_eq!(
            log.numbers("dropped malformed events from the queue"),
            [1, 2]
        );
        harness.event(Topic::Annotation, json!({})).await;
        harness.reported_in(100).await;
        assert_eq!(
            log.numbers("dropped malformed events from the queue"),
            [1, 2]
        );
    })
    .await;
    // The worker has ended within the period.
    assert_eq!(
        log.numbers("dropped malformed events from the queue"),
        [1, 2, 1]
    );
}

#[tokio::test(start_paused = true)]
async fn memberships_are_reported_before_the_session_change() {
    run_worker(4096, async |harness| {
        harness.fake.has_members("acct:joe@b", members(&["g", "h"]));
        harness.user("acct:joe@b").await;
        harness.user("acct:nobody@b").await;
        let reported = harness.reported_in(2).await;
        let expected = ["acct:joe@b in 2", "group-join"];
        assert_eq!(reported[1..3], expected);
        assert_eq!(reported[3..], ["acct:nobody@b gone", "group-join"]);
    })
    .await;
}

// D3
#[tokio::test(start_paused = true)]
async fn leave_counts_before_its_transaction_is_committed() {
    run_worker(4096, async |harness| {
        harness
            .fake
            .has_token("t", person(1, "acct:joe@b", &["g", "h"]));
        harness.fake.has_members("acct:joe@b", members(&["g", "h"]));
        harness.log_in(1, "t");
        assert_eq!(harness.reported_in(2).await, ["ready true", "1 acct:joe@b"]);
        harness.change("group-leave", "acct:joe@b", "g").await;
        assert_eq!(
            harness.reported_in(2).await,
            ["acct:joe@b in 1", "group-leave"]
        );
        // Reads of the old state do not undo it: a login, a sweep, and an event on another group.
        harness.ask(BackendRequest::Authenticate {
            request_id: RequestId(2),
            token: Secret("t".into()),
        });
        let standing = ("acct:joe@b".into(), members(&["g", "h"]));
        harness.fake.will_sweep(vec![(TokenId(1), Ok(standing))]);
        harness.ask(BackendRequest::Sweep {
            tokens: vec![TokenId(1)],
        });
        let BackendEvent::Authenticated { reply, .. } = harness.next().await else {
            panic!("no answer to the login");
        };
        let AuthReply::Known(identity) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(identity.memberships, members(&["h"]));
        harness.change("group-join", "acct:joe@b", "i").await;
        assert_eq!(
            harness.reported_in(2).await,
            ["acct:joe@b in 2", "group-join"]
        );
        // The transactions are committed. The next check confirms both, and reports nothing.
        harness.fake.has_members("acct:joe@b", members(&["h", "i"]));
        assert_eq!(harness.reported_in(1_100).await, [""; 0]);
        let reads = harness.fake.state().asked.len();
        assert_eq!(harness.reported_in(120_000).await, [""; 0]);
        assert_eq!(harness.fake.state().asked.len(), reads);
    })
    .await;
}

// D3
#[tokio::test(start_paused = true)]
async fn change_of_an_aborted_transaction_is_undone() {
    run_worker(4096, async |harness| {
        harness.fake.has_members("acct:joe@b", members(&["g"]));
        harness.change("group-join", "acct:joe@b", "h").await;
        let reported = harness.reported_in(2).await;
        assert_eq!(reported[1..], ["acct:joe@b in 2", "group-join"]);
        assert_eq!(harness.reported_in(14_900).await, [""; 0]);
        assert_eq!(harness.reported_in(200).await, ["acct:joe@b in 1"]);
        harness.change("group-leave", "acct:joe@b", "g").await;
        let reported = harness.reported_in(2).await;
        assert_eq!(reported, ["acct:joe@b in 0", "group-leave"]);
        assert_eq!(harness.reported_in(59_900).await, [""; 0]);
        assert_eq!(harness.reported_in(200).await, ["acct:joe@b in 1"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn change_stated_long_ago_does_not_override_the_database() {
    run_worker(4096, async |harness| {
        harness.fake.has_members("acct:joe@b", vec![]);
        for (age, reported) in [(16_000, "acct:joe@b in 0"), (1_000, "acct:joe@b in 1")] {
            let event = json!({
                "type": "group-join", "userid": "acct:joe@b", "group": "g", "session_model": {},
            });
            harness.event_of_age(age, Topic::User, event).await;
            assert!(harness.reported_in(2).await.contains(&reported.to_owned()));
        }
        assert_eq!(harness.reported_in(13_900).await, [""; 0]);
        assert_eq!(harness.reported_in(200).await, ["acct:joe@b in 0"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn expired_join_is_undone_before_the_next_event_after_an_outage() {
    run_worker(4096, async |harness| {
        harness.fake.has_members("acct:joe@b", vec![]);
        harness.change("group-join", "acct:joe@b", "g").await;
        let reported = harness.reported_in(2).await;
        assert_eq!(reported[1..], ["acct:joe@b in 1", "group-join"]);
        harness.fake.restart(false);
        assert_eq!(harness.reported_in(60_000).await, ["ready false"]);
        harness.annotation("create").await;
        harness.fake.state().reachable = true;
        let reported = harness.reported_in(31_000).await;
        assert_eq!(reported, ["ready true", "acct:joe@b in 0", "create"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropped_events_are_counted() {
    run_worker(4096, async |harness| {
        harness.event(Topic::Annotation, json!({})).await;
        harness.event(Topic::User, json!({"userid": 5})).await;
        harness.annotation("missing").await;
        harness.annotation("create").await;
        assert_eq!(harness.reported_in(2).await, ["ready true", "create"]);
        assert_eq!(harness.stats.dropped(DropReason::Malformed), 2);
        assert_eq!(harness.stats.dropped(DropReason::Missing), 1);
        assert_eq!(harness.handled(), 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn event_that_always_breaks_the_database_is_dropped() {
    run_worker(4096, async |harness| {
        harness.fake.state().poison = Some("poison".into());
        harness.annotation("poison").await;
        harness.annotation("create").await;
        let reported = harness.reported_in(120_000).await;
        assert_eq!(reported.last().unwrap(), "create");
        assert_eq!(harness.stats.dropped(DropReason::Unreadable), 1);
        assert_eq!(harness.handled(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sweep_reports_changes_without_events() {
    run_worker(4096, async |harness| {
        for (token, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
            let identity = person(token, name, &["g"]);
            harness.fake.has_token(&token.to_string(), identity);
        }
        let standing = |name: &str, groups| Ok((name.into(), members(groups)));
        let found = vec![
            (TokenId(1), standing("a", &["g"])),
            (TokenId(2), Err(EndCause::Revoked)),
            (TokenId(3), standing("c", &[])),
            (TokenId(4), standing("c", &[])),
        ];
        harness.fake.will_sweep(found.clone());
        for token in 1..=4 {
            harness.log_in(token, &token.to_string());
        }
        assert_eq!(harness.reported_in(2).await.len(), 5);
        let sweep = || BackendRequest::Sweep {
            tokens: vec![TokenId(1)],
        };
        harness.ask(sweep());
        assert_eq!(harness.reported_in(2).await, ["token 2 ended", "c in 0"]);
        // The sweep fails, which must not count as an answer.
        harness.fake.restart(false);
        harness.ask(sweep());
        assert_eq!(harness.reported_in(2).await, ["ready false"]);
        harness.fake.state().reachable = true;
        assert_eq!(harness.reported_in(31_000).await, ["ready true"]);
        let mut again = found;
        drop(again.remove(1));
        harness.fake.will_sweep(again);
        harness.ask(sweep());
        assert_eq!(harness.reported_in(2).await, [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_do_not_wait_for_a_long_sweep() {
    run_worker(4096, async |harness| {
        harness.fake.state().latency = Duration::from_millis(100);
        let tokens = (0..10 * SWEEP_BATCH as u64).map(TokenId).collect();
        harness.ask(BackendRequest::Sweep { tokens });
        sleep(Duration::from_millis(350)).await;
        harness.log_in(1, "x");
        harness.annotation("create").await;
        let reported = harness.reported_in(260).await;
        assert_eq!(reported, ["ready true", "create", "1 unknown"]);
        sleep(Duration::from_secs(2)).await;
        let asked = &harness.fake.state().asked;
        let swept = asked.iter().filter(|asked| asked.starts_with("sweep"));
        assert_eq!(swept.count(), 10, "{asked:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn worker_ends_when_callers_or_receiver_are_gone() {
    for listens in [true, false] {
        let (requests, queue) = crate::backend::request_queue();
        let (_events, deliveries) = channel(1);
        let (sender, mail) = mpsc::sync_channel(8);
        let history = History::new(WITHOUT_HISTORY, 0, Instant::now());
        let worker = worker(
            FakeDatabase::default(),
            history,
            sender,
            (queue, deliveries),
            Arc::default(),
        );
        let question = BackendRequest::Publish {
            request_id: RequestId(1),
            body: Vec::new(),
            claim: crate::model::PublishClaim::default(),
        };
        match listens {
            true => drop(requests),
            false => {
                drop(mail);
                requests.try_send(question).unwrap();
            }
        }
        // It ends without even connecting.
        worker.run().await;
    }
}

//! The order of answers, and the retention of events.

mod around;
mod captured;

use std::collections::VecDeque;
use std::sync::mpsc;

use serde_json::json;
use tokio::sync::mpsc::channel;

use super::super::room::MAX_PLANS;
use super::*;
use crate::model::EndCause;
use around::{CLOCKS, Fake, LIMITS, Mail, members, person, play, short};

#[tokio::test(start_paused = true)]
async fn logins_are_answered_in_order_and_in_batches() {
    play(4096, async |around| {
        assert_eq!(around.told_in(2).await, ["ready true"]);
        let joe = person(1, "acct:joe@b", &[]);
        around.fake.has_token("t", joe);
        for request_id in 0..600 {
            around.log_in(request_id, if request_id % 2 == 0 { "t" } else { "x" });
        }
        let told = around.told_in(10).await;
        assert_eq!(told.len(), 600);
        for (request_id, told) in told.iter().enumerate() {
            let who = ["acct:joe@b", "unknown"][request_id % 2];
            assert_eq!(*told, format!("{request_id} {who}"));
        }
        let asked = &around.fake.shelf().asked;
        assert!(asked.len() <= 4, "{asked:?}");
        assert!(asked.contains(&"256 tokens".into()), "{asked:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_and_events_do_not_starve_each_other() {
    play(4096, async |around| {
        around.fake.shelf().latency = Duration::from_millis(100);
        let many = async {
            for number in 0..50 {
                around.annotation(&number.to_string()).await;
            }
        };
        let script = async {
            sleep(Duration::from_millis(1_050)).await;
            assert_eq!(around.told().last().unwrap(), "9");
            for request_id in 0..600 {
                around.log_in(1000 + request_id, "x");
            }
            // First the event in progress, then a batch of logins, then an event.
            let told = around.told_in(300).await;
            assert_eq!(told[0], "10");
            assert_eq!(told[1], "1000 unknown");
            assert_eq!(told[257], "11", "{told:?}");
            let told = around.told_in(10_000).await;
            assert_eq!(told.last().unwrap(), "49");
        };
        tokio::join!(many, script);
        assert_eq!(around.handled(), 50);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn event_is_acknowledged_when_the_reactor_drops_its_receipt() {
    play(2, async |around| {
        sleep(Duration::from_millis(2)).await;
        for number in 0..10 {
            around.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_secs(60)).await;
        // The health report and the first event have filled the mailbox.
        assert_eq!(around.handled(), 0);
        let mut told = Vec::new();
        while told.len() < 11 {
            told.push(short(around.mail.recv().unwrap()));
            sleep(2 * RETRY).await;
            // The health report is not an event.
            assert_eq!(around.handled(), told.len() - 1);
        }
        let expected = (0..10).map(|number| number.to_string());
        assert_eq!(told[1..], expected.collect::<Vec<_>>());
        assert_eq!(around.handled(), 10);
        assert_eq!(around.stats.dropped(Fate::Overflow), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_full_reactor_and_logins_do_not() {
    play(4096, async |around| {
        around.fake.has_token("t", person(1, "acct:a@b", &[]));
        sleep(Duration::from_millis(2)).await;
        assert_eq!(around.told(), ["ready true"]);
        for number in 0..MAX_PLANS {
            around.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_secs(60)).await;
        // The plans have been taken out of the mailbox, but not been delivered.
        let mut kept: VecDeque<BackendEvent> = around.mail.try_iter().collect();
        assert_eq!(kept.len(), MAX_PLANS);
        for number in 0..5 {
            around.annotation(&format!("late {number}")).await;
        }
        around.log_in(1, "t");
        assert_eq!(around.told_in(60_000).await, ["1 acct:a@b"]);
        for number in 1..=5 {
            kept.pop_front();
            sleep(Duration::from_secs(60)).await;
            kept.extend(around.mail.try_iter());
            assert_eq!(kept.len(), MAX_PLANS, "one for each that was dropped");
            assert_eq!(around.handled(), number);
        }
        let last = kept.into_iter().skip(MAX_PLANS - 5).map(short);
        let late = (0..5).map(|number| format!("late {number}"));
        assert_eq!(last.collect::<Vec<_>>(), late.collect::<Vec<_>>());
        assert_eq!(around.stats.dropped(Fate::Overflow), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_are_refused_and_events_wait_during_an_outage() {
    play(4096, async |around| {
        assert_eq!(around.told_in(2).await, ["ready true"]);
        around.fake.restart(false);
        around.log_in(1, "t");
        assert_eq!(around.told_in(2).await, ["1 unavailable", "ready false"]);
        for number in 0..40 {
            around.annotation(&number.to_string()).await;
        }
        around.user("acct:joe@b").await;
        around.annotation("last").await;
        around.log_in(2, "t");
        around.ask(BackendRequest::Sweep { tokens: vec![] });
        around.ask(BackendRequest::Publish {
            request_id: RequestId(3),
            body: Vec::new(),
        });
        assert_eq!(around.told_in(2).await, ["2 unavailable", "3 line 0"]);
        // This holds for an outage of any length.
        assert_eq!(around.told_in(600_000).await, [""; 0]);
        assert_eq!(around.handled(), 0);
        around.fake.shelf().reachable = true;
        let told = around.told_in(31_000).await;
        assert_eq!(told[0], "ready true");
        let numbers = (0..40).map(|number| number.to_string());
        assert_eq!(told[1..41], numbers.collect::<Vec<_>>());
        assert_eq!(told[41..], ["acct:joe@b gone", "group-join", "last"]);
        assert_eq!(around.handled(), 42);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn completed_database_restart_is_transparent() {
    play(4096, async |around| {
        assert_eq!(around.told_in(2).await, ["ready true"]);
        let joe = person(1, "acct:joe@b", &[]);
        around.fake.has_token("t", joe);
        around.fake.restart(true);
        around.log_in(1, "t");
        around.fake.restart(true);
        around.annotation("create").await;
        assert_eq!(around.told_in(2).await, ["1 acct:joe@b", "create"]);
        around.fake.restart(true);
        around.annotation("update").await;
        assert_eq!(around.told_in(2).await, ["update"]);
        // The check of idle connections detects it.
        around.fake.restart(true);
        assert_eq!(around.told_in(1_100).await, [""; 0]);
        assert!(around.fake.shelf().connected);
        around.fake.restart(false);
        assert_eq!(around.told_in(1_100).await, ["ready false"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn oldest_events_are_dropped_when_too_many_wait() {
    play(2 * LIMITS.events, async |around| {
        sleep(Duration::from_millis(2)).await;
        around.fake.restart(false);
        around.log_in(1, "t");
        sleep(Duration::from_millis(2)).await;
        for number in 0..LIMITS.events + 10 {
            around.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!(around.stats.dropped(Fate::Overflow), 10);
        assert_eq!(around.handled(), 10);
        around.fake.shelf().reachable = true;
        let mut told = around.told_in(31_000).await;
        assert_eq!(told[3..5], ["ready true", "10"]);
        // The reactor accepts a limited number at a time.
        for more in 0..LIMITS.events.div_ceil(MAX_PLANS) {
            assert!(told.len() <= 4 + MAX_PLANS * (more + 1));
            told.extend(around.told_in(1_000).await);
        }
        assert_eq!(*told.last().unwrap(), (LIMITS.events + 9).to_string());
        assert_eq!(around.handled(), LIMITS.events + 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_event_dropped_during_an_outage_is_logged() {
    let log = captured::capture();
    play(2 * LIMITS.events, async |around| {
        sleep(Duration::from_millis(2)).await;
        around.fake.restart(false);
        around.log_in(1, "t");
        sleep(Duration::from_millis(2)).await;
        for number in 0..10_000 {
            around.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!(around.stats.dropped(Fate::Overflow), 5_904);
        let counts = || log.numbers("dropped events that waited for the database");
        assert_eq!(counts(), [1]);
        // The period ends without further events.
        sleep(Duration::from_millis(11_000)).await;
        assert_eq!(counts(), [1, 5_903]);
        around.annotation("one more").await;
        sleep(Duration::from_millis(2)).await;
        assert_eq!(counts(), [1, 5_903]);
        around.fake.shelf().reachable = true;
        around.told_in(6_000).await;
        assert_eq!(counts(), [1, 5_903, 1], "at the end of the outage");
    })
    .await;
    play(8, async |around| {
        for _ in 0..3 {
            around.event(Topic::Annotation, json!({})).await;
        }
        around.told_in(100).await;
        assert_eq!(log.numbers("that lack required fields"), [1]);
        around.told_in(11_000).await;
        assert_eq!(log.numbers("that lack required fields"), [1, 2]);
        around.event(Topic::Annotation, json!({})).await;
        around.told_in(100).await;
        assert_eq!(log.numbers("that lack required fields"), [1, 2]);
    })
    .await;
    // The worker has ended within the period.
    assert_eq!(log.numbers("that lack required fields"), [1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn memberships_are_reported_before_the_session_change() {
    play(4096, async |around| {
        let groups = members(&["g", "h"]);
        around.fake.has_members("acct:joe@b", groups);
        around.user("acct:joe@b").await;
        around.user("acct:nobody@b").await;
        let told = around.told_in(2).await;
        let expected = ["acct:joe@b in 2", "group-join"];
        assert_eq!(told[1..3], expected);
        assert_eq!(told[3..], ["acct:nobody@b gone", "group-join"]);
    })
    .await;
}

// D3
#[tokio::test(start_paused = true)]
async fn leave_counts_before_its_transaction_is_committed() {
    play(4096, async |around| {
        around
            .fake
            .has_token("t", person(1, "acct:joe@b", &["g", "h"]));
        around.fake.has_members("acct:joe@b", members(&["g", "h"]));
        around.log_in(1, "t");
        assert_eq!(around.told_in(2).await, ["ready true", "1 acct:joe@b"]);
        around.change("group-leave", "acct:joe@b", "g").await;
        assert_eq!(around.told_in(2).await, ["acct:joe@b in 1", "group-leave"]);
        // Reads of the old state do not undo it: a login, a sweep, and an event on another group.
        around.ask(BackendRequest::Authenticate {
            request_id: RequestId(2),
            token: Secret("t".into()),
        });
        let standing = ("acct:joe@b".into(), members(&["g", "h"]));
        around.fake.will_sweep(vec![(TokenId(1), Ok(standing))]);
        around.ask(BackendRequest::Sweep {
            tokens: vec![TokenId(1)],
        });
        let BackendEvent::Authenticated { reply, .. } = around.next().await else {
            panic!("no answer to the login");
        };
        let AuthReply::Known(identity) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(identity.memberships, members(&["h"]));
        around.change("group-join", "acct:joe@b", "i").await;
        assert_eq!(around.told_in(2).await, ["acct:joe@b in 2", "group-join"]);
        // The transactions are committed. The next check confirms both, and reports nothing.
        around.fake.has_members("acct:joe@b", members(&["h", "i"]));
        assert_eq!(around.told_in(1_100).await, [""; 0]);
        let reads = around.fake.shelf().asked.len();
        assert_eq!(around.told_in(120_000).await, [""; 0]);
        assert_eq!(around.fake.shelf().asked.len(), reads);
    })
    .await;
}

// D3
#[tokio::test(start_paused = true)]
async fn change_of_an_aborted_transaction_is_undone() {
    play(4096, async |around| {
        around.fake.has_members("acct:joe@b", members(&["g"]));
        around.change("group-join", "acct:joe@b", "h").await;
        let told = around.told_in(2).await;
        assert_eq!(told[1..], ["acct:joe@b in 2", "group-join"]);
        assert_eq!(around.told_in(14_900).await, [""; 0]);
        assert_eq!(around.told_in(200).await, ["acct:joe@b in 1"]);
        around.change("group-leave", "acct:joe@b", "g").await;
        let told = around.told_in(2).await;
        assert_eq!(told, ["acct:joe@b in 0", "group-leave"]);
        assert_eq!(around.told_in(59_900).await, [""; 0]);
        assert_eq!(around.told_in(200).await, ["acct:joe@b in 1"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn change_stated_long_ago_does_not_override_the_database() {
    play(4096, async |around| {
        around.fake.has_members("acct:joe@b", vec![]);
        for (age, told) in [(16_000, "acct:joe@b in 0"), (1_000, "acct:joe@b in 1")] {
            let event = json!({
                "type": "group-join", "userid": "acct:joe@b", "group": "g", "session_model": {},
            });
            around.event_of_age(age, Topic::User, event).await;
            assert!(around.told_in(2).await.contains(&told.to_owned()));
        }
        assert_eq!(around.told_in(13_900).await, [""; 0]);
        assert_eq!(around.told_in(200).await, ["acct:joe@b in 0"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn expired_join_is_undone_before_the_next_event_after_an_outage() {
    play(4096, async |around| {
        around.fake.has_members("acct:joe@b", vec![]);
        around.change("group-join", "acct:joe@b", "g").await;
        let told = around.told_in(2).await;
        assert_eq!(told[1..], ["acct:joe@b in 1", "group-join"]);
        around.fake.restart(false);
        assert_eq!(around.told_in(60_000).await, ["ready false"]);
        around.annotation("create").await;
        around.fake.shelf().reachable = true;
        let told = around.told_in(31_000).await;
        assert_eq!(told, ["ready true", "acct:joe@b in 0", "create"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropped_events_are_counted() {
    play(4096, async |around| {
        around.event(Topic::Annotation, json!({})).await;
        around.event(Topic::User, json!({"userid": 5})).await;
        around.annotation("missing").await;
        around.annotation("create").await;
        assert_eq!(around.told_in(2).await, ["ready true", "create"]);
        assert_eq!(around.stats.dropped(Fate::Malformed), 2);
        assert_eq!(around.stats.dropped(Fate::Missing), 1);
        assert_eq!(around.handled(), 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn event_that_always_breaks_the_database_is_dropped() {
    play(4096, async |around| {
        around.fake.shelf().poison = Some("poison".into());
        around.annotation("poison").await;
        around.annotation("create").await;
        let told = around.told_in(120_000).await;
        assert_eq!(told.last().unwrap(), "create");
        assert_eq!(around.stats.dropped(Fate::Unreadable), 1);
        assert_eq!(around.handled(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sweep_reports_changes_without_events() {
    play(4096, async |around| {
        for (token, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
            let identity = person(token, name, &["g"]);
            around.fake.has_token(&token.to_string(), identity);
        }
        let standing = |name: &str, groups| Ok((name.into(), members(groups)));
        let found = vec![
            (TokenId(1), standing("a", &["g"])),
            (TokenId(2), Err(EndCause::Revoked)),
            (TokenId(3), standing("c", &[])),
            (TokenId(4), standing("c", &[])),
        ];
        around.fake.will_sweep(found.clone());
        for token in 1..=4 {
            around.log_in(token, &token.to_string());
        }
        assert_eq!(around.told_in(2).await.len(), 5);
        let sweep = || BackendRequest::Sweep {
            tokens: vec![TokenId(1)],
        };
        around.ask(sweep());
        assert_eq!(around.told_in(2).await, ["token 2 ended", "c in 0"]);
        // The sweep fails, which must not count as an answer.
        around.fake.restart(false);
        around.ask(sweep());
        assert_eq!(around.told_in(2).await, ["ready false"]);
        around.fake.shelf().reachable = true;
        assert_eq!(around.told_in(31_000).await, ["ready true"]);
        let mut again = found;
        drop(again.remove(1));
        around.fake.will_sweep(again);
        around.ask(sweep());
        assert_eq!(around.told_in(2).await, [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logins_do_not_wait_for_a_long_sweep() {
    play(4096, async |around| {
        around.fake.shelf().latency = Duration::from_millis(100);
        let tokens = (0..10 * SWEPT as u64).map(TokenId).collect();
        around.ask(BackendRequest::Sweep { tokens });
        sleep(Duration::from_millis(350)).await;
        around.log_in(1, "x");
        around.annotation("create").await;
        let told = around.told_in(260).await;
        assert_eq!(told, ["ready true", "create", "1 unknown"]);
        sleep(Duration::from_secs(2)).await;
        let asked = &around.fake.shelf().asked;
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
        let database = Database::new(Fake::default(), || 0);
        let way = Mail(sender);
        let worker = Worker::new(
            database,
            way,
            CLOCKS,
            (Arc::default(), LIMITS),
            queue,
            deliveries,
        );
        let question = BackendRequest::Publish {
            request_id: RequestId(1),
            body: Vec::new(),
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

//! Clients that do not use cursors.

use super::*;
use crate::realtime::testing::identity;

#[test]
fn unmodified_client_gets_missed_events_after_client_id_and_filter_in_either_order() {
    for filter_first in [true, false] {
        let mut server = Server::new();
        server.api.now.mono = 1_000_000;
        server.open_client(0, "tab");
        server.create("a");
        let mut tick = server.api.now;
        tick.mono = 1_100_000;
        server.api.tick(tick);
        server.api.now.mono = 2_000_000;
        server.create("b");
        server.api.lose(0, 1_500_000);
        server.create("c");
        server.api.open(1);
        if filter_first {
            server.api.filter(1, "/group", &["page"]);
            assert_eq!(server.replay(), []);
            server.set_client(1, "tab");
        } else {
            server.set_client(1, "tab");
            assert_eq!(server.replay(), []);
            server.api.filter(1, "/group", &["page"]);
        }
        assert_eq!(server.replay(), sent(1, &["create b", "create c"]));
        // The same filter, or another one, replays nothing.
        server.api.filter(1, "/group", &["page"]);
        server.api.filter(1, "/id", &["a"]);
        server.set_client(1, "tab");
        assert_eq!(server.replay(), []);
    }
}

// D14
#[test]
fn client_is_recognized_by_its_client_id_and_user_together() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.create("a");
    server.api.lose(0, 0);
    server.api.open_as(1, identity("acct:m@x", 1, &[]));
    server.set_client(1, "tab");
    server.api.filter(1, "/group", &["page"]);
    server.open_client(2, "other");
    assert_eq!(server.replay(), []);
    server.open_client(3, "tab");
    assert_eq!(server.replay(), sent(3, &["create a"]));
}

#[test]
fn client_reconnects_before_its_dead_connection_is_noticed() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.create("a");
    server.open_client(1, "tab");
    assert_eq!(server.replay(), sent(1, &["create a"]));
    // The end of the dead connection does not affect the other one.
    server.api.lose(0, 0);
    server.create("b");
    server.api.lose(1, 0);
    server.open_client(2, "tab");
    assert_eq!(server.replay(), sent(2, &["create a", "create b"]));
}

// D12
#[test]
fn own_events_are_not_replayed_to_their_client() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    for (id, client) in [("a", "tab"), ("b", "other")] {
        let plan = Plan {
            exclude_client: Some(client.into()),
            ..server.plan(EventKind::Create, id, public())
        };
        server.deliver(plan);
    }
    server.open_client(1, "tab");
    assert_eq!(server.replay(), sent(1, &["create b"]));
}

#[test]
fn unmodified_client_is_notified_of_a_gap_before_anything_else() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    let other = HistoryStart { epoch: 9, ..START };
    server
        .api
        .backend_event(BackendEvent::History(HistoryEvent::Start(other)));
    server.set_ready();
    server.create("a");
    server.api.open(1);
    server.set_client(1, "tab");
    let text = r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/group","value":"page"}],"actions":{}}}"#;
    let outputs = server.api.text(1, text);
    let [Output::Deliver(to)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert!(
        to[0]
            .1
            .starts_with(r#"{"type": "recovery", "recovered": false, "oldest": ""#)
    );
    assert_eq!(server.replay(), []);
    assert_eq!(server.create("b"), sent(1, &["create b"]));
}

#[test]
fn interrupted_replay_is_continued_after_the_next_reconnect() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    for number in 0..200 {
        server.create(&number.to_string());
    }
    server.open_client(1, "tab");
    server.api.call(|realtime, cx| realtime.replay_queued(cx));
    server.api.now.mono = 1_000_000;
    server.api.lose(1, 1_000_000);
    server.open_client(2, "tab");
    assert_eq!(server.replay().len(), 200);
}

impl Server {
    fn tick_at(&mut self, mono: u64) {
        let mut now = self.api.now;
        now.mono = mono;
        self.api.tick(now);
    }
}

/// Returns a server with a client that has missed an event for a minute, and its replay to
/// connection 1 at 1,000,000 ms.
fn server_after_a_replay() -> Server {
    let mut server = Server::new();
    server.tick_at(900_000);
    server.open_client(0, "tab");
    server.api.lose(0, 900_000);
    server.create("a");
    server.tick_at(910_000);
    server.tick_at(1_000_000);
    server.open_client(1, "tab");
    assert_eq!(server.replay(), sent(1, &["create a"]));
    server
}

// D14
#[test]
fn replay_that_may_not_have_arrived_is_repeated() {
    // The last sign of life may be long after the missed event: it must be after the replay.
    for last in [1_000_000, 1_015_000] {
        let mut server = server_after_a_replay();
        server.api.set_last_received(1, last);
        server.tick_at(1_050_000);
        server.api.lose(1, last);
        server.open_client(2, "tab");
        assert_eq!(server.replay(), sent(2, &["create a"]), "{last}");
    }
}

// D14
#[test]
fn replay_is_not_repeated_after_a_later_sign_of_life() {
    let mut server = server_after_a_replay();
    server.tick_at(1_001_000);
    server.api.set_last_received(1, 1_030_000);
    server.tick_at(1_031_000);
    server.create("b");
    server.tick_at(1_032_000);
    server.api.lose(1, 1_030_000);
    server.open_client(2, "tab");
    assert_eq!(server.replay(), sent(2, &["create b"]));
}

#[test]
fn receipt_of_an_earlier_replay_does_not_confirm_a_later_one() {
    let mut server = server_after_a_replay();
    // The client has another connection, which gets the same replay.
    server.tick_at(1_029_000);
    server.open_client(2, "tab");
    assert_eq!(server.replay(), sent(2, &["create a"]));
    server.api.set_last_received(1, 1_030_000);
    server.api.set_last_received(2, 1_030_000);
    server.tick_at(1_031_000);
    server.api.lose(2, 1_030_000);
    server.open_client(3, "tab");
    assert_eq!(server.replay(), sent(3, &["create a"]));
}

#[test]
fn client_that_closes_right_after_the_start_has_the_position_of_the_start() {
    let start = HistoryStart {
        floor: 1_000_000,
        head: 1_000_000,
        ..START
    };
    for connects_first in [false, true] {
        let mut server = Server {
            api: TestApi::new(ApiSettings::default()),
            position: start.head,
        };
        if connects_first {
            server.open_client(0, "tab");
        }
        let event = BackendEvent::History(HistoryEvent::Start(start));
        server.api.backend_event(event);
        server.set_ready();
        if !connects_first {
            server.open_client(0, "tab");
        }
        assert_eq!(server.create("a"), sent(0, &["create a"]));
        // The last sign of life is less than the time ago that a message may be in flight.
        server.api.lose(0, 1000);
        server.open_client(1, "tab");
        assert_eq!(server.replay(), sent(1, &["create a"]));
    }
}

/// Lets time pass, with a tick at the end.
fn wait(server: &mut Server, millis: u64) -> Vec<Output> {
    let mut now = server.api.now;
    now.mono += millis;
    server.api.tick(now)
}

// D14
#[test]
fn replay_to_a_dead_connection_does_not_count() {
    let mut server = Server::new();
    server.api.realtime.replays.set_max_entries(1);
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    for id in ["a", "b"] {
        server.create(id);
    }
    server.open_client(1, "tab");
    server.api.call(|realtime, cx| realtime.replay_queued(cx));
    server.open_client(2, "tab");
    // Both replays end. The client has received neither.
    server.replay();
    server
        .api
        .set_last_received(1, server.api.now.mono + 25_000);
    wait(&mut server, 30_000);
    server.api.lose(2, 0);
    server.open_client(3, "tab");
    assert_eq!(server.replay(), sent(3, &["create a", "create b"]));
}

#[test]
fn gap_is_reported_until_the_report_has_been_received() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    let start = HistoryStart { epoch: 9, ..START };
    let start = HistoryEvent::Start(start);
    server.api.backend_event(BackendEvent::History(start));
    server.set_ready();
    for index in 1..4 {
        server.api.open(index);
        server.api.filter(index, "/group", &["page"]);
        let text = r#"{"messageType":"client_id","value":"tab"}"#;
        let outputs = server.api.text(index, text);
        assert_eq!(outputs.len(), 1, "{index}: {outputs:?}");
        server.replay();
        server.api.lose(index, server.api.now.mono);
    }
}

// D14
#[test]
fn history_that_begins_anew_is_a_gap_for_events_in_flight() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.create("a");
    let start = HistoryStart { epoch: 9, ..START };
    let start = HistoryEvent::Start(start);
    server.api.backend_event(BackendEvent::History(start));
    server.set_ready();
    server.api.lose(0, server.api.now.mono);
    server.api.open(1);
    server.set_client(1, "tab");
    let text = r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/group","value":"page"}],"actions":{}}}"#;
    let outputs = server.api.text(1, text);
    assert_eq!(outputs.len(), 1, "{outputs:?}");
}

// D14
#[test]
fn events_that_ended_credentials_withheld_are_sent_with_new_ones() {
    use crate::model::{EndCause, TokenId};
    let mut server = Server::new();
    server.api.realtime.settings.expiry_spread = 60_000;
    server.api.now.mono = 1_000_000;
    for (index, client) in [(0, Some("tab")), (1, None)] {
        server.api.open_as(index, identity("acct:m@x", 1, &[]));
        match client {
            Some(client) => {
                server.set_client(index, client);
                server.api.filter(index, "/group", &["page"]);
            }
            None => drop(server.since(index, "now")),
        }
    }
    server.replay();
    server.api.backend_event(BackendEvent::TokenEnded {
        token: TokenId(1),
        cause: EndCause::Revoked,
    });
    assert_eq!(server.create("a"), []);
    for _ in 0..12 {
        let outputs = wait(&mut server, 5_000);
        let is_close = |output: &Output| matches!(output, Output::Close(..));
        assert!(outputs.iter().all(is_close), "a cursor: {outputs:?}");
    }
    server.api.lose(0, 1_060_000);
    server.api.open_as(2, identity("acct:m@x", 2, &[]));
    server.set_client(2, "tab");
    server.api.filter(2, "/group", &["page"]);
    assert_eq!(server.replay(), sent(2, &["create a"]));
}

// D14
#[test]
fn client_that_begins_to_use_cursors_is_not_recognized_any_more() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.create("a");
    server.since(0, "now");
    wait(&mut server, 500_000);
    wait(&mut server, 500_000);
    server.api.lose(0, server.api.now.mono);
    server.open_client(1, "tab");
    assert_eq!(server.replay(), sent(1, &["create a"]));
}

// D14
#[test]
fn message_shortly_before_the_last_sign_of_life_is_sent_again() {
    for (last, is_repeated) in [(1_110_000, true), (1_130_000, false)] {
        let mut server = Server::new();
        server.api.now.mono = 1_000_000;
        server.open_client(0, "tab");
        server.api.now.mono = 1_100_000;
        server.create("a");
        server.tick_at(1_105_000);
        server.tick_at(1_140_000);
        server.api.lose(0, last);
        server.open_client(1, "tab");
        let expected = sent(1, if is_repeated { &["create a"] } else { &[] });
        assert_eq!(server.replay(), expected, "{last}");
    }
}

#[test]
fn gap_is_reported_before_the_effects_of_a_change_of_memberships() {
    use crate::model::{Membership, RestoredPlan, Role};
    let mut server = Server::new();
    server.api.open_as(0, identity("acct:m@x", 1, &[]));
    server.set_client(0, "tab");
    server.api.filter(0, "/group", &["page"]);
    server.api.lose(0, 0);
    let start = HistoryStart { epoch: 9, ..START };
    let start = HistoryEvent::Start(start);
    server.api.backend_event(BackendEvent::History(start));
    let plan = server.plan(EventKind::Create, "a", members("g"));
    let restored = RestoredPlan {
        event_position: plan.stamp.position,
        plan,
        past: Vec::new(),
    };
    let restored = HistoryEvent::Restored(vec![restored]);
    server.api.backend_event(BackendEvent::History(restored));
    server.api.open_as(1, identity("acct:m@x", 1, &[]));
    server.set_client(1, "tab");
    server.api.filter(1, "/group", &["page"]);
    let membership = Membership {
        group: "g".into(),
        role: Role::Member,
    };
    server.api.backend_event(BackendEvent::Memberships {
        userid: "acct:m@x".into(),
        memberships: vec![membership],
    });
    assert_eq!(server.replay(), []);
    assert_eq!(server.set_ready().len(), 1, "the gap");
}

/// A log that is rewritten in every turn.
#[derive(Clone, Default)]
struct RewrittenLog(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl crate::realtime::ClientLog for RewrittenLog {
    fn append(&mut self, _: &[u8]) {}

    fn wants_rewrite(&self) -> bool {
        true
    }

    fn replace(&mut self, log: Vec<u8>) {
        *self.0.borrow_mut() = log;
    }

    fn position_elsewhere(&self, _: crate::realtime::Digest) -> Option<crate::realtime::Cursor> {
        None
    }
}

// D14
#[test]
fn rewritten_log_has_the_position_before_a_replay() {
    let log = RewrittenLog::default();
    let mut server = Server::new();
    let storage = Box::new(log.clone());
    server
        .api
        .realtime
        .restore_clients(Vec::new(), Some(storage));
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    server.create("a");
    wait(&mut server, 1_000_000);
    server.open_client(1, "tab");
    wait(&mut server, 1_000_000);
    let loaded = crate::realtime::client_log::decode(&log.0.borrow(), 10);
    let positions: Vec<u64> = loaded.clients.iter().map(|(_, at)| at.position).collect();
    assert_eq!(positions, [0]);
}

// M15
#[test]
fn connection_with_many_client_ids_is_remembered_once() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    for number in 0..100 {
        server.set_client(0, &format!("tab {number}"));
    }
    server.api.lose(0, 0);
    assert_eq!(server.api.realtime.counters().remembered_clients, 1);
}

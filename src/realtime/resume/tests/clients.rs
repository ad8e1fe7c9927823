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

//! Changes of memberships while a connection is in a replay, or waits for one.

use super::*;
use crate::net::Now;
use crate::realtime::testing::identity;

use super::rights::{open_member, set_groups};

// D13
#[test]
fn annotation_that_a_replay_sent_during_a_reconciliation_is_retracted() {
    for (entries, earlier) in [(1, 3), (64, 200)] {
        let mut server = Server::new();
        server.api.realtime.replays.set_max_entries(entries);
        open_member(&mut server, &[]);
        for number in 0..earlier {
            server.create(&number.to_string());
        }
        server.event(EventKind::Create, "d", members("g"));
        set_groups(&mut server, &["g"]);
        server.since(0, &cursor(earlier));
        assert_eq!(server.turn().1, sent(0, &["create d"]));
        set_groups(&mut server, &[]);
        assert_eq!(server.replay(), sent(0, &["delete d"]));
    }
}

// D13
#[test]
fn membership_that_ends_while_a_cursor_is_ahead_retracts_annotations() {
    let mut server = Server::new();
    open_member(&mut server, &["g"]);
    assert_eq!(
        server.event(EventKind::Create, "a", members("g")),
        sent(0, &["create a"])
    );
    let text = page_since(&cursor(2));
    assert_eq!(server.api.text(0, &text), []);
    set_groups(&mut server, &[]);
    server.create("b");
    let now = server.api.now;
    server.api.tick(Now {
        mono: now.mono + 3000,
        unix: now.unix + 3000,
    });
    let outputs = server.replay();
    assert!(outputs.contains(&(0, "delete a".to_owned())), "{outputs:?}");
}

// D13
#[test]
fn annotation_appears_during_a_replay_even_if_its_update_is_not_selected() {
    for is_replay in [false, true] {
        let mut server = Server::new();
        server.api.realtime.replays.set_max_entries(1);
        server.event(EventKind::Create, "m", members("g")); // 1
        let filter = |since: &str| {
            format!(
                r#"{{"type":"filter","id":3,"since":"{since}","filter":{{"match_policy":"include_any","clauses":[{{"field":"/group","value":"page"}}],"actions":{{"create":true,"update":false,"delete":false}}}}}}"#
            )
        };
        if !is_replay {
            server.api.open_as(0, identity("acct:m@x", 1, &[]));
            server.api.text(0, &filter(&cursor(1)));
            server.replay();
        }
        server.create("z"); // 2
        server.event(EventKind::Update, "m", members("g")); // 3
        if is_replay {
            server.api.open_as(0, identity("acct:m@x", 1, &[]));
            server.api.text(0, &filter(&cursor(1)));
        }
        set_groups(&mut server, &["g"]);
        let outputs = server.replay();
        assert!(
            outputs.contains(&(0, "create m".to_owned())),
            "{is_replay} {outputs:?}"
        );
    }
}

#[test]
fn blocked_connections_take_no_work_until_their_output_has_been_sent() {
    let mut server = Server::new();
    server.event(EventKind::Create, "a", members("g"));
    for index in 0..3 {
        server.api.open_as(index, identity("acct:m@x", 1, &[]));
        server.api.filter(index, "/group", &["page"]);
        server.api.set_blocked(index, true);
    }
    set_groups(&mut server, &["g"]);
    assert_eq!(server.turn().1, []);
    assert_eq!(server.api.realtime.reconciles.queued(), 0);
    server.api.set_blocked(1, false);
    assert_eq!(server.replay(), sent(1, &["create a"]));
    server.api.lose(2, 0);
    server.api.set_blocked(0, false);
    assert_eq!(server.replay(), sent(0, &["create a"]));
    assert_eq!(server.api.realtime.reconciles.len(), 0);
}

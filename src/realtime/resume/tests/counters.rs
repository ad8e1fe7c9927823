//! The counters of resumptions.

use super::*;
use crate::model::{Membership, Role};
use crate::realtime::RecoveryCounters;
use crate::realtime::testing::identity;

/// Returns the totals since the start.
fn totals(server: &Server) -> RecoveryCounters {
    RecoveryCounters {
        replays: 0,
        entries: 0,
        bytes: 0,
        oldest: 0,
        ..server.api.realtime.counters().recovery
    }
}

#[test]
fn resumptions_are_counted_by_their_result() {
    let mut server = Server::new();
    server.create("a");
    let mut expected = RecoveryCounters::default();
    server.api.open(0);
    server.since(0, "now");
    assert_eq!(server.replay(), []);
    expected.recovered += 1;
    assert_eq!(totals(&server), expected);
    let other_epoch = Cursor {
        epoch: 8,
        position: 0,
        time: 0,
    };
    server.since(0, &other_epoch.encode());
    assert_eq!(server.replay(), []);
    expected.gaps += 1;
    assert_eq!(totals(&server), expected);
    // A client without cursors.
    server.open_client(1, "tab");
    server.api.lose(1, 0);
    server.open_client(2, "tab");
    assert_eq!(server.replay(), sent(2, &["create a"]));
    expected.recovered += 1;
    expected.replayed += 1;
    assert_eq!(totals(&server), expected);
}

#[test]
fn replayed_events_and_retractions_are_counted_for_each_receiver() {
    let mut server = Server::new();
    server.event(EventKind::Create, "a", members("g"));
    server.create("b");
    let before = server.api.realtime.counters().sent;
    for index in [0, 1] {
        let member = identity("acct:m@x", 1, &[("g", Role::Member)]);
        server.api.open_as(index, member);
        server.since(index, &cursor(0));
    }
    assert_eq!(server.replay().len(), 4);
    let counters = totals(&server);
    assert_eq!((counters.replayed, counters.retractions), (4, 0));
    let outputs = server.api.backend_event(BackendEvent::Memberships {
        userid: "acct:m@x".into(),
        memberships: Vec::<Membership>::new(),
    });
    assert_eq!(outputs, []);
    let mut retractions = server.replay();
    retractions.sort();
    let expected = [(0, "delete a".to_owned()), (1, "delete a".to_owned())];
    assert_eq!(retractions, expected);
    let counters = totals(&server);
    assert_eq!((counters.replayed, counters.retractions), (4, 2));
    assert_eq!(server.api.realtime.counters().sent, before + 6);
}

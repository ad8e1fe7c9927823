//! Rights at the time of a replay, and the effects of changed rights.

use super::*;
use crate::model::{Membership, Role};
use crate::realtime::testing::identity;

// D1
#[test]
fn replay_respects_the_rights_at_the_time_of_sending() {
    let mut server = Server::new();
    for id in ["a", "b", "c"] {
        server.event(EventKind::Create, id, members("g"));
    }
    server.event(EventKind::Update, "b", nobody());
    server
        .api
        .open_as(0, identity("acct:m@x", 1, &[("g", Role::Member)]));
    server.api.open_as(1, identity("acct:n@x", 2, &[]));
    for index in [0, 1] {
        server.since(index, &cursor(0));
    }
    server.api.open(2);
    server.since(2, &cursor(0));
    // The member could read "b". The others could read nothing, and get nothing.
    let expected = sent(0, &["create a", "create c", "delete b"]);
    assert_eq!(server.replay(), expected);
}

#[test]
fn former_readers_of_an_unreadable_annotation_get_a_deletion() {
    let mut server = Server::new();
    server.open_with_filter(0);
    server
        .api
        .open_as(1, identity("acct:m@x", 1, &[("g", Role::Member)]));
    server.api.filter(1, "/id", &["a"]);
    server.create("a");
    assert_eq!(
        server.event(EventKind::Update, "a", members("g")),
        [(0, "delete a".to_owned()), (1, "update a".to_owned())]
    );
    assert_eq!(
        server.event(EventKind::Update, "a", nobody()),
        sent(1, &["delete a"])
    );
    assert_eq!(server.event(EventKind::Update, "a", nobody()), []);
    assert_eq!(
        server.event(EventKind::Update, "a", public()),
        [(0, "update a".to_owned()), (1, "update a".to_owned())]
    );
}

#[test]
fn changed_rights_notify_only_new_and_former_readers() {
    let mut server = Server::new();
    server.open_with_filter(0);
    server
        .api
        .open_as(1, identity("acct:m@x", 1, &[("g", Role::Member)]));
    server.api.filter(1, "/group", &["page"]);
    server.create("a");
    assert_eq!(
        server.change_rights("a", members("g")),
        sent(0, &["delete a"])
    );
    assert_eq!(server.change_rights("a", public()), sent(0, &["create a"]));
    // A subject that the history does not have.
    assert_eq!(server.change_rights("z", public()), []);
}

#[test]
fn changed_rights_are_replayed_as_far_as_they_change_anything() {
    let mut server = Server::new();
    server.create("a"); // 1
    server.event(EventKind::Create, "b", nobody()); // 2
    server.create("c"); // 3
    server.change_rights("a", nobody()); // 4
    server.change_rights("b", public()); // 5
    server.change_rights(
        "c",
        vec![
            rule(vec![], Decision::Send(0)),
            rule(vec![], Decision::Send(0)),
        ],
    ); // 6
    for (index, since, expected) in [
        (0, 3, &["delete a", "create b"][..]),
        (1, 4, &["create b"]),
        (2, 5, &[]),
        // It has not been sent "c".
        (3, 2, &["delete a", "create b", "create c"]),
        (4, 0, &["delete a", "create b", "create c"]),
    ] {
        server.api.open(index);
        server.since(index, &cursor(since));
        assert_eq!(server.replay(), sent(index, expected), "since {since}");
    }
}

#[test]
fn membership_changes_reconcile_open_connections() {
    let mut server = Server::new();
    server.api.open_as(0, identity("acct:m@x", 1, &[]));
    server.api.filter(0, "/group", &["page"]);
    server.event(EventKind::Update, "a", members("g"));
    server.event(EventKind::Create, "b", members("h"));
    server.create("c");
    let mut join = |groups: &[&str]| {
        let membership = |group: &&str| Membership {
            group: (*group).into(),
            role: Role::Member,
        };
        let memberships = groups.iter().map(membership).collect();
        let userid = "acct:m@x".into();
        let changed = BackendEvent::Memberships {
            userid,
            memberships,
        };
        assert_eq!(server.api.backend_event(changed), []);
        short(server.api.replay())
    };
    assert_eq!(join(&["g"]), sent(0, &["create a"]));
    assert_eq!(join(&["g"]), []);
    assert_eq!(join(&["h"]), sent(0, &["delete a", "create b"]));
    assert_eq!(join(&[]), sent(0, &["delete b"]));
}

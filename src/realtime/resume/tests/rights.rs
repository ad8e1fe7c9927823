//! Rights at the time of a replay, and the effects of changed rights.

use super::*;
use crate::model::{Membership, Role};
use crate::realtime::testing::identity;

// D1, D13
#[test]
fn replay_respects_the_rights_at_the_time_of_sending() {
    let mut server = Server::new();
    for id in ["a", "b", "c"] {
        server.event(EventKind::Create, id, members("g"));
    }
    server.event(EventKind::Update, "b", unreadable());
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

// D13
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
        server.event(EventKind::Update, "a", unreadable()),
        sent(1, &["delete a"])
    );
    assert_eq!(server.event(EventKind::Update, "a", unreadable()), []);
    assert_eq!(
        server.event(EventKind::Update, "a", public()),
        [(0, "update a".to_owned()), (1, "update a".to_owned())]
    );
}

// D13
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

// D13
#[test]
fn changed_rights_are_replayed_as_far_as_they_change_anything() {
    let mut server = Server::new();
    server.create("a"); // 1
    server.event(EventKind::Create, "b", unreadable()); // 2
    server.create("c"); // 3
    server.change_rights("a", unreadable()); // 4
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

// D13
#[test]
fn membership_changes_reconcile_open_connections() {
    let mut server = Server::new();
    server.api.open_as(0, identity("acct:m@x", 1, &[]));
    server.api.filter(0, "/group", &["page"]);
    server.event(EventKind::Update, "a", members("g"));
    server.event(EventKind::Create, "b", members("h"));
    server.create("c");
    let mut join = |groups: &[&str]| {
        set_groups(&mut server, groups);
        server.replay()
    };
    assert_eq!(join(&["g"]), sent(0, &["create a"]));
    assert_eq!(join(&["g"]), []);
    assert_eq!(join(&["h"]), sent(0, &["delete a", "create b"]));
    assert_eq!(join(&[]), sent(0, &["delete b"]));
}

// D13
#[test]
fn login_with_newer_memberships_reconciles_the_other_connections() {
    let mut server = Server::new();
    server.api.open_as(0, identity("acct:m@x", 1, &[]));
    server.api.filter(0, "/group", &["page"]);
    server.event(EventKind::Create, "a", members("g"));
    let member = identity("acct:m@x", 1, &[("g", Role::Member)]);
    server.api.open_as(1, member);
    server.api.filter(1, "/group", &["page"]);
    assert_eq!(server.replay(), sent(0, &["create a"]));
}

// D13
#[test]
fn deletion_between_two_changes_of_memberships_is_sent() {
    let mut server = Server::new();
    open_member(&mut server, &["g"]);
    server.event(EventKind::Create, "a", members("g"));
    set_groups(&mut server, &[]);
    assert_eq!(server.event(EventKind::Delete, "a", members("g")), []);
    set_groups(&mut server, &["g"]);
    assert_eq!(server.replay(), sent(0, &["delete a"]));
}

// M14
#[test]
fn memberships_that_change_too_often_for_a_slow_reader_end_the_connection() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    server.create("a");
    server.api.set_blocked(0, true);
    let mut closed = Vec::new();
    for number in 0..100 {
        let outputs = change_groups(&mut server, &[&format!("group {number}")]);
        closed.extend(outputs);
        server.create("b");
    }
    assert!(
        matches!(closed[..], [Output::Close(0, ..), ..]),
        "{closed:?}"
    );
}

// M14
#[test]
fn reconciliation_waits_for_a_slow_reader_and_keeps_the_order_of_changes() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    for id in ["a", "b"] {
        server.event(EventKind::Create, id, members(id));
    }
    server.api.set_blocked(0, true);
    set_groups(&mut server, &["a"]);
    assert_eq!(server.replay(), []);
    server.create("c");
    set_groups(&mut server, &["b"]);
    assert_eq!(server.replay(), []);
    server.api.set_blocked(0, false);
    let outputs = server.replay();
    assert_eq!(
        outputs.last(),
        Some(&(0, "create b".to_owned())),
        "{outputs:?}"
    );
    assert!(
        !outputs.contains(&(0, "create a".to_owned())),
        "{outputs:?}"
    );
    assert_eq!(server.replay(), []);
}

/// Changes the groups of the user.
pub(super) fn set_groups(server: &mut Server, groups: &[&str]) {
    assert_eq!(change_groups(server, groups), []);
}

fn change_groups(server: &mut Server, groups: &[&str]) -> Vec<Output> {
    let membership = |group: &&str| Membership {
        group: (*group).into(),
        role: Role::Member,
    };
    let changed = BackendEvent::Memberships {
        userid: "acct:m@x".into(),
        memberships: groups.iter().map(membership).collect(),
    };
    server.api.backend_event(changed)
}

/// Opens a connection of the user, who is a member of these groups.
pub(super) fn open_member(server: &mut Server, groups: &[&str]) {
    let groups: Vec<_> = groups.iter().map(|group| (*group, Role::Member)).collect();
    server.api.open_as(0, identity("acct:m@x", 1, &groups));
    server.api.filter(0, "/group", &["page"]);
}

// D1, D13
#[test]
fn former_member_does_not_learn_of_later_annotations() {
    let mut server = Server::new();
    open_member(&mut server, &["g"]);
    server.create("a");
    set_groups(&mut server, &[]);
    assert_eq!(server.event(EventKind::Create, "b", members("g")), []);
    server.event(EventKind::Create, "c", unreadable());
    server.event(EventKind::Update, "c", members("g"));
    assert_eq!(server.replay(), []);
    // Between two changes of memberships, too.
    set_groups(&mut server, &["g"]);
    set_groups(&mut server, &[]);
    assert_eq!(server.event(EventKind::Create, "d", members("g")), []);
    set_groups(&mut server, &["h"]);
    assert_eq!(server.replay(), []);
}

// D13
#[test]
fn rights_that_change_before_the_reconciliation_change_nothing_about_its_result() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    server.event(EventKind::Create, "a", members("g"));
    set_groups(&mut server, &["g"]);
    let others = vec![
        rule(vec![Condition::Member("x".into())], Decision::Send(0)),
        rule(vec![Condition::Member("g".into())], Decision::Send(0)),
    ];
    assert_eq!(server.change_rights("a", others), []);
    assert_eq!(server.replay(), sent(0, &["create a"]));
    set_groups(&mut server, &[]);
    assert_eq!(server.event(EventKind::Update, "a", unreadable()), []);
    assert_eq!(server.replay(), sent(0, &["delete a"]));
}

// D13
#[test]
fn annotation_that_was_sent_between_two_changes_of_memberships_is_retracted() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    server.create("a");
    set_groups(&mut server, &["g"]);
    assert_eq!(
        server.event(EventKind::Create, "b", members("g")),
        sent(0, &["create b"])
    );
    set_groups(&mut server, &[]);
    assert_eq!(server.replay(), sent(0, &["delete b"]));
}

// D13
#[test]
fn membership_that_ends_during_a_replay_retracts_earlier_annotations() {
    let mut server = Server::new();
    server.event(EventKind::Create, "a", members("g"));
    server.event(EventKind::Update, "a", unreadable());
    server
        .api
        .open_as(0, identity("acct:m@x", 1, &[("g", Role::Member)]));
    server.since(0, &cursor(1));
    set_groups(&mut server, &[]);
    assert_eq!(server.replay(), sent(0, &["delete a"]));
}

// D13
#[test]
fn deleted_annotation_does_not_appear_to_a_new_member() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    server.event(EventKind::Create, "a", members("g"));
    server.event(EventKind::Delete, "a", members("g"));
    set_groups(&mut server, &["g"]);
    assert_eq!(server.replay(), []);
}

// D13
#[test]
fn annotation_appears_after_more_changes_of_rights_than_are_remembered() {
    let mut server = Server::new();
    server.event(EventKind::Create, "a", unreadable()); // 1
    for _ in 0..3 {
        server.change_rights("a", public());
        server.change_rights("a", unreadable());
    }
    server.change_rights("a", public());
    server.api.open(0);
    server.since(0, &cursor(1));
    assert_eq!(server.replay(), sent(0, &["create a"]));
}

// D13
#[test]
fn own_event_is_not_replayed_after_its_rights_have_changed() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    let plan = Plan {
        exclude_client: Some("tab".into()),
        ..server.plan(EventKind::Create, "a", public())
    };
    server.deliver(plan);
    let rules = vec![
        rule(vec![], Decision::Send(0)),
        rule(vec![], Decision::Send(0)),
    ];
    server.change_rights("a", rules);
    server.open_client(1, "tab");
    server.open_client(2, "other");
    assert_eq!(server.replay(), []);
    server.change_rights("a", unreadable());
    server.open_client(3, "tab");
    assert_eq!(server.replay(), sent(3, &["delete a"]));
}

// D13
#[test]
fn annotation_that_was_retracted_during_the_replay_appears_again() {
    let mut server = Server::new();
    server.api.realtime.replays.set_max_entries(1);
    server.create("a"); // 1
    server.api.open(0);
    server.since(0, &cursor(1));
    server.change_rights("a", unreadable());
    let (_, outputs) = server.api.call(|realtime, cx| realtime.replay_queued(cx));
    assert_eq!(outputs.len(), 1, "the deletion");
    server.change_rights("a", public());
    assert_eq!(server.replay(), sent(0, &["create a"]));
}

// D13
#[test]
fn membership_that_begins_during_a_replay_hides_no_public_annotation() {
    let mut server = Server::new();
    server.event(EventKind::Create, "a", members("g")); // 1
    server.api.open_as(0, identity("acct:m@x", 1, &[]));
    server.since(0, &cursor(1));
    assert_eq!(server.change_rights("a", public()), []);
    set_groups(&mut server, &["g"]);
    assert_eq!(server.replay(), sent(0, &["create a"]));
}

// D13
#[test]
fn event_after_a_change_of_memberships_is_delivered_once() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    assert_eq!(server.event(EventKind::Create, "a", members("g")), []);
    set_groups(&mut server, &["g"]);
    for (kind, id, expected) in [
        (EventKind::Create, "b", "create b"),
        (EventKind::Update, "a", "update a"),
    ] {
        assert_eq!(server.event(kind, id, members("g")), sent(0, &[expected]));
    }
    assert_eq!(server.replay(), []);
}

// D13
#[test]
fn changed_rights_of_an_unknown_annotation_are_not_replayed() {
    let mut server = Server::new();
    server.change_rights("a", public());
    server.api.open(0);
    server.since(0, &cursor(0));
    assert_eq!(server.replay(), []);
}

// D13
#[test]
fn annotation_on_another_page_does_not_appear_to_a_new_member() {
    let mut server = Server::new();
    open_member(&mut server, &[]);
    server.event(EventKind::Create, "a", members("g"));
    let moved = Plan {
        candidates: Candidates::Terms(vec![term(Field::Group, "elsewhere")]),
        ..server.plan(EventKind::Update, "a", members("g"))
    };
    assert_eq!(server.deliver(moved), []);
    set_groups(&mut server, &["g"]);
    assert_eq!(server.replay(), []);
}

// D1, D14
#[test]
fn replay_and_reconciliation_end_with_the_credentials() {
    use crate::model::{EndCause, TokenId};
    let mut server = Server::new();
    server.api.realtime.settings.expiry_spread = 60_000;
    server.create("a");
    server.event(EventKind::Create, "b", members("g"));
    server.api.open_as(0, identity("acct:m@x", 1, &[]));
    server.since(0, &cursor(0));
    open_another(&mut server);
    server.api.backend_event(BackendEvent::TokenEnded {
        token: TokenId(1),
        cause: EndCause::Revoked,
    });
    set_groups(&mut server, &["g"]);
    assert_eq!(server.replay(), []);
}

/// Opens another connection of the user, with the same token and without a replay.
fn open_another(server: &mut Server) {
    server.api.open_as(1, identity("acct:m@x", 1, &[]));
    server.api.filter(1, "/group", &["page"]);
}

#[test]
fn own_event_that_made_an_annotation_readable_is_not_replayed() {
    let mut server = Server::new();
    server.open_client(0, "tab");
    server.api.lose(0, 0);
    server.event(EventKind::Create, "a", unreadable());
    let plan = Plan {
        exclude_client: Some("tab".into()),
        ..server.plan(EventKind::Update, "a", public())
    };
    server.deliver(plan);
    let rules = vec![
        rule(vec![], Decision::Send(0)),
        rule(vec![], Decision::Send(0)),
    ];
    server.change_rights("a", rules);
    server.open_client(1, "tab");
    assert_eq!(server.replay(), []);
}

#[test]
fn own_annotation_appears_again_with_the_membership_and_is_not_replayed() {
    let mut server = Server::new();
    server.event(EventKind::Create, "a", unreadable()); // 1
    let plan = Plan {
        exclude_client: Some("tab".into()),
        ..server.plan(EventKind::Update, "a", members("g"))
    };
    server.deliver(plan); // 2
    server
        .api
        .open_as(0, identity("acct:m@x", 1, &[("g", Role::Member)]));
    server.set_client(0, "tab");
    server.since(0, &cursor(0));
    let mut join = |groups: &[&str]| {
        set_groups(&mut server, groups);
        server.replay()
    };
    assert_eq!(join(&["g", "h"]), []);
    assert_eq!(join(&[]), sent(0, &["delete a"]));
    assert_eq!(join(&["g"]), sent(0, &["create a"]));
}

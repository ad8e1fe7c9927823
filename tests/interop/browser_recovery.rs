//! The official client, unmodified, in Chromium: its sidebar is exactly right after interruptions,
//! without a reload of the page.

mod link;
mod random;
mod service;
mod sidebar;
mod world;

use std::time::Duration;

use h_realtime_test_kit::seeds;

use crate::support::{PATIENCE, eventually};
use sidebar::Sidebar;
use world::{CLUB, FENCE, FIRST, Notification, World, in_club};

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn sidebar_is_right_after_the_network_was_cut() {
    let mut world = World::start("");
    world.publish_first();
    let token = world.user(ALICE);
    let sidebar = Sidebar::open_as(&world.service, &token, "__world__");
    sidebar.shows(&FIRST);
    world.fence(&sidebar, 0);

    world.link.stall();
    world.change();
    world.change_more();
    // The browser notices the end, and the server does not.
    world.link.cut();
    world.link.restore();
    world.wait_for_connection(1);
    world.link.close_server_sides();
    world.fence(&sidebar, 1);
    world.assert_result(&sidebar);
    world.assert_replay(1);
    sidebar.screenshot("recovery-cut");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn sidebar_is_right_after_a_replay_was_lost() {
    let mut world = World::start("");
    world.publish_first();
    let sidebar = Sidebar::open(&world.service);
    sidebar.shows(&FIRST);
    world.fence(&sidebar, 0);

    world.link.stall();
    world.change();
    world.link.cut();
    world.change_more();
    // The network fails again before anything has arrived.
    world.link.lose_output();
    eventually(PATIENCE, || {
        let sent = world.server.metric("h_realtime_replayed_messages_total");
        (sent > 0.0).then_some(())
    });
    world.link.cut();
    world.link.restore();
    world.fence(&sidebar, 2);
    world.assert_result(&sidebar);
    world.assert_replay(2);
    sidebar.screenshot("recovery-lost-replay");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn sidebar_is_right_after_its_tab_has_slept() {
    let mut world = World::start("[timeouts]\nping = \"1s\"\npong = \"3s\"");
    world.publish_first();
    let sidebar = Sidebar::open(&world.service);
    sidebar.shows(&FIRST);
    world.fence(&sidebar, 0);

    world.link.stall();
    // The server writes these into the socket of the sleeping tab.
    world.change();
    eventually(PATIENCE, || {
        let remembered = world.server.metric("h_realtime_remembered_clients");
        (remembered > 0.0).then_some(())
    });
    world.change_more();
    world.link.restore();
    world.fence(&sidebar, 1);
    world.assert_result(&sidebar);
    world.assert_replay(1);
    let late = world.notifications();
    let is_late = |one: &Notification| one.connection == 0 && one.id == "kilo";
    assert!(
        late.iter().any(is_late),
        "the tab received the stalled bytes"
    );
    sidebar.screenshot("recovery-sleep");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn sidebar_is_right_after_a_restart_of_the_server() {
    let mut world = World::start("[timeouts]\ndrain = \"100ms\"");
    world.publish_first();
    let sidebar = Sidebar::open(&world.service);
    sidebar.shows(&FIRST);
    world.fence(&sidebar, 0);

    world.change();
    world.stop();
    // Not before all changes have been made.
    world.link.stall();
    world.server = world.server.successor();
    world.change_more();
    world.link.restore();
    world.fence(&sidebar, 1);
    world.assert_result(&sidebar);
    world.assert_replay(1);
    sidebar.screenshot("recovery-restart");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn sidebar_is_right_after_a_crash_of_the_server() {
    let mut world = World::start("");
    world.publish_first();
    let sidebar = Sidebar::open(&world.service);
    sidebar.shows(&FIRST);
    world.fence(&sidebar, 0);

    // Accepted, and lost in the buffers of a dead connection.
    world.link.stall();
    world.change();
    world.server.restart();
    world.link.cut();
    world.link.stall();
    world.change_more();
    world.link.restore();
    world.fence(&sidebar, 1);
    world.assert_result(&sidebar);
    world.assert_replay(1);
    sidebar.screenshot("recovery-crash");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn own_edits_do_not_return_as_updates() {
    let mut world = World::start("");
    let token = world.user(ALICE);
    let own = [
        world.annotation_by(ALICE, "alpha", 1),
        world.annotation_by(ALICE, "bravo", 1),
    ];
    own.iter().for_each(|one| world.publish("create", one));
    world.service.set_annotations(&own);
    let sidebar = Sidebar::open_as(&world.service, &token, "__world__");
    sidebar.shows(&["alpha v1", "bravo v1"]);
    world.fence(&sidebar, 0);

    // One edit before, and one during the interruption of the WebSocket.
    sidebar.edit("alpha v1", "alpha v2");
    world.publish_edit();
    world.send_fence(0);
    world.link.stall();
    sidebar.edit("bravo v1", "bravo v2");
    world.publish_edit();
    world.link.cut();
    world.link.restore();
    world.fence(&sidebar, 1);
    sidebar.shows(&["alpha v2", "bravo v2", "papa v3"]);
    let sent = world.notifications();
    let is_fence = |one: &Notification| one.id == FENCE;
    assert!(sent.iter().all(is_fence), "{sent:#?}");
    sidebar.screenshot("recovery-own-edits");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn annotations_of_a_group_follow_the_membership() {
    let mut world = World::start("");
    let token = world.user(ALICE);
    world.join(ALICE);
    let first = in_club(world.annotation("alpha", 1));
    world.publish("create", &first);
    world.service.set_annotations(&[first]);
    let member = Sidebar::open_as(&world.service, &token, CLUB);
    member.shows(&["alpha v1"]);
    world.send_fence(0);
    let other = Sidebar::open(&world.service);
    world.wait_for_connection(1);
    world.send_fence(1);
    world.publish("create", &in_club(world.annotation("bravo", 1)));
    member.has_updates(1);
    member.apply();
    member.shows(&["alpha v1", "bravo v1"]);

    world.leave(ALICE);
    member.has_updates(2);
    member.apply_with_key();
    member.shows(&[]);
    member.highlights(&[]);
    world.publish("create", &in_club(world.annotation("charlie", 1)));
    world.publish("update", &in_club(world.annotation("alpha", 2)));
    world.join(ALICE);
    member.has_updates(3);
    member.apply_with_key();
    member.shows(&["alpha v2", "bravo v1", "charlie v1"]);
    member.screenshot("recovery-member");

    let expected = [
        "create bravo v1",
        "delete alpha",
        "delete bravo",
        "create bravo v1",
        "create charlie v1",
        "create alpha v2",
    ];
    let mut sent = world.sent_since(0);
    sent.retain(|one| !one.contains(FENCE));
    assert_eq!(sent, expected, "to the member only");
    world.fence(&other, 1);
    other.shows(&["papa v3"]);
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn group_left_during_an_interruption_disappears() {
    let mut world = World::start("");
    let token = world.user(ALICE);
    world.join(ALICE);
    let first = [
        in_club(world.annotation("alpha", 1)),
        world.annotation("bravo", 1),
    ];
    first.iter().for_each(|one| world.publish("create", one));
    world.service.set_annotations(&first);
    let sidebar = Sidebar::open_as(&world.service, &token, CLUB);
    sidebar.shows(&["alpha v1"]);
    world.send_fence(0);

    world.link.stall();
    world.leave(ALICE);
    world.publish_leave(ALICE);
    world.publish("create", &in_club(world.annotation("charlie", 1)));
    world.link.cut();
    world.link.restore();
    // The event of the user lets the client load its groups, and select another one.
    sidebar.shows(&["bravo v1"]);
    let is_club = |text: &String| text.contains("alpha") || text.contains("charlie");
    assert!(!world.sent_since(0).iter().any(is_club));
    sidebar.screenshot("recovery-left");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn reconnect_repeats_nothing_that_was_received_long_before() {
    let mut world = World::start("[timeouts]\nping = \"1s\"\npong = \"19s\"\ndrain = \"100ms\"");
    world.publish_first();
    let sidebar = Sidebar::open(&world.service);
    sidebar.shows(&FIRST);
    world.fence(&sidebar, 0);

    std::thread::sleep(OVERLAP);
    world.link.cut();
    world.link.restore();
    world.wait_for_connection(1);
    world.restart();
    world.wait_for_connection(2);
    world.send_fence(2);
    assert_eq!(world.sent_since(1), ["update papa v2"]);
    sidebar.has_updates(1);
    sidebar.screenshot("recovery-quiet");
}

#[test]
#[ignore = "needs chromium, chromedriver, and hypothesis: run tests/run"]
fn sidebar_is_right_after_random_changes_and_interruptions() {
    let name = "interop random_changes -- --ignored";
    seeds::run_all(name, 2, 5, random::play);
}

/// The time after which events are not repeated: a ping that is answered, and messages in flight.
const OVERLAP: Duration = Duration::from_secs(26);
const ALICE: &str = "acct:alice@example.org";

//! Restarts: the same events with the same positions, compacted to the newest of each subject.

use super::*;

#[test]
fn restart_restores_published_events_with_their_positions() {
    let site = Site::new();
    let (mut server, first) = site.started();
    assert!(first.plans.is_empty());
    assert_eq!(first.start.floor, first.start.head);
    assert_eq!(first.start.floor_time, NOW);
    let mut expected = server.publish(&[create("a"), create("b")].join("\n"));
    expected.extend(server.publish_at(&create("c"), NOW + 5));
    assert!(expected[0].stamp.position > first.start.head);
    assert_eq!(expected[2].stamp.time, NOW + 5);
    drop(server);

    let (_, second) = site.started();
    assert_eq!(second.start.epoch, first.start.epoch);
    assert_eq!(second.start.floor, first.start.floor);
    assert!(second.start.head > expected[2].stamp.position);
    let plans: Vec<Plan> = second.plans.iter().map(|one| one.plan.clone()).collect();
    assert_eq!(plans, expected);
    assert!(second.plans.iter().all(|one| one.past.is_empty()));
}

#[test]
fn positions_and_times_increase_across_turns_restarts_and_clock_jumps() {
    let site = Site::new();
    let mut last = (0, 0);
    for now in [NOW, NOW + 10, NOW + 5, NOW - 1000, NOW + 20] {
        let mut server = site.server();
        for at in 0..3 {
            let plans = server.publish_at(&[create("a"), create("b")].join("\n"), now + at);
            for stamp in plans.iter().map(|plan| plan.stamp) {
                assert!(
                    stamp.position > last.0 && stamp.time >= last.1,
                    "{stamp:?} {last:?}"
                );
                last = (stamp.position, stamp.time);
            }
        }
    }
}

#[test]
fn clock_that_was_years_ahead_is_not_followed() {
    let site = Site::new();
    let mut server = site.server();
    server.publish_at(&create("a"), NOW + (1 << 40));
    let plans = server.publish_at(&create("b"), NOW);
    assert_eq!(plans[0].stamp.time, NOW);
}

/// A power failure may undo the commits after the last sync, which is that of the start.
#[test]
fn positions_that_were_lost_are_not_assigned_again() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let copies = ["history.db", "history.db-wal"].map(|name| {
        let path = site.path().with_file_name(name);
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    let lost = server.publish(&create("a"))[0].stamp.position;
    drop(server);
    for (path, bytes) in copies {
        fs::write(path, bytes).unwrap();
    }
    let (mut server, restored) = site.started();
    assert!(restored.plans.is_empty());
    assert!(server.publish(&create("b"))[0].stamp.position > lost);
}

#[test]
fn positions_continue_after_the_clock_in_an_older_copy() {
    let site = Site::new();
    drop(site.started());
    let copy = fs::read(site.path()).unwrap();
    let mut lost = 0;
    for _ in 0..3 {
        lost = site.server().publish(&create("a"))[0].stamp.position;
    }
    fs::write(site.path(), copy).unwrap();
    let hour = 3_600_000;
    let mut server = site.server_at(NOW + hour);
    assert!(
        server.publish_at(&create("b"), NOW + hour)[0]
            .stamp
            .position
            > lost
    );
}

#[test]
fn newest_event_replaces_earlier_ones_with_equal_receivers() {
    let site = Site::new();
    let mut server = site.server();
    server.publish(&create("a"));
    server.publish(&create("b"));
    let last = server.publish(&event("update", "a", &["group:__world__"], "new"));
    drop(server);
    let (_, restored) = site.started();
    assert_eq!(restored.ids(), ["b", "a"]);
    assert_eq!(restored.plans[1].plan, last[0]);
    assert!(restored.plans[1].past.is_empty());
}

#[test]
fn earlier_receivers_are_restored_with_the_position_of_their_end() {
    let site = Site::new();
    let mut server = site.server();
    let public = server.publish(&create("a"));
    let private = server.publish(&event("update", "a", &[JOE], ""));
    let deleted = server.publish(&event("delete", "a", &[JOE], ""));
    drop(server);
    let (_, restored) = site.started();
    let [only] = &restored.plans[..] else {
        panic!("{restored:?}");
    };
    assert_eq!(only.plan, deleted[0]);
    let past: Vec<_> = only
        .past
        .iter()
        .map(|past| (past.until, &past.rules))
        .collect();
    assert_eq!(past[0], (private[0].stamp.position, &public[0].rules));
    // The author gets the deletion by the same rules.
    assert!(past.len() <= 2);
    assert_eq!(only.past[0].candidates, public[0].candidates);
}

#[test]
fn equal_past_states_are_stored_once_and_their_number_is_limited() {
    let site = Site::new();
    let mut server = site.server();
    for _ in 0..5 {
        server.publish(&create("a"));
        server.publish(&event("update", "a", &[JOE], ""));
    }
    let count =
        |query: &str| -> i64 { site.file().query_row(query, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM event"), 1);
    assert_eq!(count("SELECT count(*) FROM past"), 2);
    for number in 0..9 {
        let reader = format!("acct:user{number}@example.org");
        server.publish(&event("update", "a", &[&reader], ""));
    }
    assert_eq!(count("SELECT count(*) FROM past"), 4);
    drop(server);
    let (_, restored) = site.started();
    assert_eq!(restored.plans[0].past.len(), 4);
}

#[test]
fn membership_changes_are_restored() {
    let site = Site::new();
    let mut server = site.server();
    let join = json!({
        "topic": "user", "type": "group-join", "userid": JOE, "group": "g",
        "session_model": {"userid": JOE, "groups": [], "features": {}, "preferences": {}},
    });
    let plans = server.publish(&join.to_string());
    drop(server);
    let (_, restored) = site.started();
    assert_eq!(restored.plans[0].plan, plans[0]);
    assert_eq!(plans[0].subject, Subject::User(JOE.into()));
}

#[test]
fn rejected_and_undecodable_events_are_not_stored() {
    let site = Site::new();
    let mut server = site.server();
    let messages = server.turn(
        vec![publish("{}"), queue_event("["), publish(&create("a"))],
        NOW,
    );
    let accepted = |message: &&BackendEvent| matches!(message, BackendEvent::Published { result: Ok(plans), .. } if plans.len() == 1);
    assert_eq!(messages.iter().filter(accepted).count(), 1);
    drop(server);
    assert_eq!(site.started().1.ids(), ["a"]);
}

#[test]
fn events_of_a_message_queue_are_stored() {
    let site = Site::new();
    let mut server = site.server();
    let sent = plans(server.turn(vec![queue_event(&create("a"))], NOW));
    drop(server);
    let (_, restored) = site.started();
    assert_eq!(restored.plans[0].plan, sent[0]);
}

#[test]
fn disabled_history_counts_positions_and_writes_no_file() {
    for (memory, disk) in [(0, 64 << 20), (16 << 20, 0)] {
        let mut site = Site::new();
        site.options.memory = memory;
        site.options.disk = disk;
        let (mut server, first) = site.started();
        let plans = server.publish(&[create("a"), create("a")].join("\n"));
        let positions: Vec<u64> = plans.iter().map(|plan| plan.stamp.position).collect();
        assert_eq!(positions, [first.start.head + 1, first.start.head + 2]);
        drop(server);
        assert!(!site.path().exists());
        assert_ne!(site.started().1.start.epoch, first.start.epoch);
    }
}

#[test]
fn history_files_are_private_to_the_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    let mut server = site.server();
    server.publish(&create("a"));
    let names = ["history.db", "history.db-wal", "history.db-shm"];
    for name in names {
        let mode = fs::metadata(site.path().with_file_name(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn restored_events_have_current_display_names() {
    let site = Site::new();
    let mut server = site.server();
    server.publish(&create("a"));
    drop(server);
    let rename = "UPDATE user SET display_name = 'Joseph' WHERE userid = ?1";
    site.users().db().execute(rename, [JOE]).unwrap();
    let (_, restored) = site.started();
    assert!(restored.plans[0].plan.variants[0].contains("Joseph"));
    assert_eq!(restored.plans[0].plan.cause, Cause::Event);
    assert_eq!(restored.plans[0].plan.kind, EventKind::Create);
}

fn boot(site: &Site) -> String {
    let query = "SELECT boot FROM meta";
    site.file().query_row(query, [], |row| row.get(0)).unwrap()
}

#[test]
fn power_failure_after_unsynced_events_is_a_gap() {
    let site = Site::new();
    let (mut server, first) = site.started();
    server.publish(&create("a"));
    assert_ne!(boot(&site), "");
    drop(server);
    site.file()
        .execute("UPDATE meta SET boot = 'another'", [])
        .unwrap();
    let (mut server, second) = site.started();
    assert_eq!(second.start.epoch, first.start.epoch);
    assert_eq!(second.start.floor, second.start.head);
    assert!(second.plans.is_empty());
    let plans = server.publish(&create("b"));
    drop(server);
    // It is reported once.
    let (_, third) = site.started();
    assert_eq!(third.start.floor, second.start.floor);
    assert_eq!(third.positions(), [plans[0].stamp.position]);
}

#[test]
fn power_failure_after_a_quiet_period_or_a_shutdown_is_no_gap() {
    let site = Site::new();
    let (mut server, _) = site.started();
    for round in 1..3 {
        server.publish_at(&create("a"), NOW + round * 60_000);
        assert_ne!(boot(&site), "");
        server.turn(Vec::new(), NOW + round * 60_000 + 2000);
        assert_ne!(boot(&site), "");
        server.turn(Vec::new(), NOW + round * 60_000 + 20_000);
        assert_eq!(boot(&site), "");
    }
    server.publish_at(&create("b"), NOW + 300_000);
    drop(server);
    assert_eq!(boot(&site), "");
    assert_eq!(site.started().1.ids(), ["a", "b"]);
}

#[test]
fn fully_durable_events_are_always_synced() {
    let mut site = Site::new();
    site.options.durability = Durability::Full;
    let (mut server, _) = site.started();
    server.publish(&create("a"));
    assert_eq!(boot(&site), "");
    let History::Stored(stored) = &server.0.history else {
        panic!("no file");
    };
    const FULL: i64 = 2;
    assert_eq!(stored.synchronous(), FULL);
}

#[test]
fn first_event_after_a_quiet_period_is_synced() {
    let site = Site::new();
    let (mut server, _) = site.started();
    server.turn(Vec::new(), NOW + 20_000);
    assert_eq!(boot(&site), "");
    let synchronous = |server: &mut Server| {
        let History::Stored(stored) = &mut server.0.history else {
            panic!("no file");
        };
        stored.begin(true);
        let mode = stored.synchronous();
        stored.end();
        mode
    };
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    assert_eq!(synchronous(&mut server), FULL);
    server.publish_at(&create("a"), NOW + 20_001);
    assert_eq!(synchronous(&mut server), NORMAL);
}

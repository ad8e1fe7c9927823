//! Tests of versions.

use super::*;
use crate::cli::forward::event::batch_id;

const EPOCH: u64 = 0x0123_4567_89ab_cdef;
const TIME: u64 = 1_800_000_000_000;
use Action::{Create, Delete, Update};

fn cursor_of(epoch: u64, position: u64, time: u64) -> String {
    let cursor = Cursor {
        epoch,
        position,
        time,
    };
    cursor.encode()
}

fn event_at(cursor: &str, id: &str, action: Action) -> ForwardEvent {
    ForwardEvent {
        id: id.to_owned(),
        cursor: cursor.to_owned(),
        version: version(cursor, action),
        action,
        line: String::new(),
        received: 0,
    }
}

/// Receives an event at a position. Returns it.
fn receive(
    memory: &mut VersionMemory,
    id: &str,
    (position, action): (u64, Action),
) -> ForwardEvent {
    let mut event = event_at(&cursor_of(EPOCH, position, TIME), id, action);
    memory.distinguish(&mut event);
    event
}

fn receive_id(memory: &mut VersionMemory, id: &str, state: (u64, Action)) -> String {
    receive(memory, id, state).webhook_id()
}

fn plain_id(id: &str, (position, action): (u64, Action)) -> String {
    event_at(&cursor_of(EPOCH, position, TIME), id, action).webhook_id()
}

fn empty() -> VersionMemory {
    VersionMemory::new(&Changes::default(), 7)
}

/// Returns a state file's content at a position.
fn stored(position: u64, acknowledged: &[&ForwardEvent], failing: &[&ForwardEvent]) -> Changes {
    let name = |event: &&ForwardEvent| (event.id.clone(), event.version.clone());
    let failing = failing.iter().map(name);
    Changes {
        position: Some(cursor_of(EPOCH, position, TIME)),
        acknowledged: acknowledged.iter().map(name).collect(),
        failing: failing.map(|(id, version)| (id, version, 5)).collect(),
    }
}

#[test]
fn time_and_replay_of_a_cursor_are_not_part_of_the_version() {
    let live = version(&cursor_of(EPOCH, 7, TIME), Create);
    let again = version(&cursor_of(EPOCH, 7, TIME + 60_000), Update);
    for other in [cursor_of(EPOCH, 8, TIME), cursor_of(EPOCH + 1, 7, TIME)] {
        assert_ne!(live, version(&other, Create));
    }
    assert_eq!(live, again);
    let in_replay = ReplayCursor {
        cursor: Cursor {
            epoch: EPOCH,
            position: 7,
            time: 0,
        },
        from: 3,
    };
    assert_eq!(live, version(&in_replay.encode(), Create));
    assert_ne!(live, version(&cursor_of(EPOCH, 7, TIME), Delete));
}

#[test]
fn each_state_after_another_one_at_the_same_place_has_an_id_of_its_own() {
    for first in [5, 7] {
        let mut memory = empty();
        // The place of the annotation's own event may be the newest one or not.
        let mut ids = vec![receive_id(&mut memory, "A", (first, Create))];
        for action in [Delete, Create, Delete, Create] {
            ids.push(receive_id(&mut memory, "A", (7, action)));
        }
        let count = ids.len();
        assert_eq!(ids[0], plain_id("A", (first, Create)));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}

#[test]
fn repeated_state_keeps_its_id() {
    let mut memory = empty();
    for action in [Create, Delete, Create, Delete] {
        let id = receive_id(&mut memory, "A", (7, action));
        receive(&mut memory, "B", (7, action));
        assert_eq!(receive_id(&mut memory, "A", (7, action)), id);
    }
    let updated = receive_id(&mut memory, "A", (8, Update));
    assert_eq!(updated, plain_id("A", (8, Update)));
    assert_eq!(receive_id(&mut memory, "A", (8, Create)), updated);
}

#[test]
fn events_in_order_have_ids_without_numbers() {
    let mut memory = empty();
    for state in [(1, Create), (2, Update), (5, Delete), (9, Create)] {
        assert_eq!(receive_id(&mut memory, "A", state), plain_id("A", state));
        assert_eq!(receive_id(&mut memory, "B", state), plain_id("B", state));
    }
    // A replay that begins earlier repeats the newest state of each annotation.
    receive(&mut memory, "C", (10, Create));
    assert_eq!(
        receive_id(&mut memory, "A", (9, Create)),
        plain_id("A", (9, Create))
    );
}

#[test]
fn earlier_state_after_a_later_one_is_new() {
    let mut memory = empty();
    receive(&mut memory, "A", (3, Create));
    receive(&mut memory, "A", (7, Delete));
    // The user has joined the group again while the connection was lost.
    let again = receive_id(&mut memory, "A", (3, Create));
    assert_ne!(again, plain_id("A", (3, Create)));
    // And leaves it.
    assert_ne!(
        receive_id(&mut memory, "A", (7, Delete)),
        plain_id("A", (7, Delete))
    );
}

#[test]
fn state_at_the_stored_place_is_new_after_a_restart() {
    let memory = |random| VersionMemory::new(&stored(7, &[], &[]), random);
    let id = receive_id(&mut memory(7), "A", (7, Delete));
    assert_ne!(id, plain_id("A", (7, Delete)));
    assert_ne!(receive_id(&mut memory(1 << 40), "A", (7, Delete)), id);
    let later = receive_id(&mut memory(7), "A", (8, Delete));
    assert_eq!(later, plain_id("A", (8, Delete)));
}

#[test]
fn stored_events_are_recognized_after_a_restart() {
    let mut memory = empty();
    receive(&mut memory, "A", (7, Delete));
    receive(&mut memory, "A", (7, Create));
    let second = receive(&mut memory, "A", (7, Delete));
    let failed = receive(&mut memory, "B", (8, Create));
    let mut restarted = VersionMemory::new(&stored(3, &[&second], &[&failed]), 1 << 40);
    let again = receive(&mut restarted, "A", (7, Delete));
    assert_eq!(again.version, second.version);
    assert_eq!(
        receive(&mut restarted, "B", (8, Create)).version,
        failed.version
    );
    assert_ne!(
        receive_id(&mut restarted, "A", (7, Create)),
        plain_id("A", (7, Create))
    );
}

#[test]
fn stored_events_that_contradict_each_other_are_not_recognized() {
    let mut memory = empty();
    let created = receive(&mut memory, "A", (7, Create));
    let deleted = receive(&mut memory, "A", (7, Delete));
    for action in [Create, Delete] {
        let mut restarted = VersionMemory::new(&stored(3, &[&created], &[&deleted]), 1 << 40);
        let again = receive(&mut restarted, "A", (7, action)).version;
        assert!(![&created.version, &deleted.version].contains(&&again));
    }
    // A failed event from before does not concern the newer one.
    let newer = receive(&mut memory, "A", (9, Create));
    let mut restarted = VersionMemory::new(&stored(3, &[&newer], &[&deleted]), 1 << 40);
    assert_eq!(
        receive(&mut restarted, "A", (9, Create)).version,
        newer.version
    );
}

#[test]
fn stored_states_up_to_the_stored_place_are_not_the_last_ones() {
    let mut memory = empty();
    let created = receive(&mut memory, "A", (7, Create));
    let first = receive(&mut memory, "A", (9, Delete));
    let again = receive(&mut memory, "A", (9, Create));
    // Events that are acknowledged while no older one is pending are not in the file.
    for acknowledged in [&[&created][..], &[&created, &first], &[&created, &again]] {
        let mut restarted = VersionMemory::new(&stored(9, acknowledged, &[]), 1 << 40);
        for action in [Delete, Create, Delete] {
            let id = receive_id(&mut restarted, "A", (9, action));
            assert!(![first.webhook_id(), again.webhook_id()].contains(&id));
            assert_ne!(id, plain_id("A", (9, action)));
        }
    }
}

#[test]
fn forgotten_annotations_get_new_ids() {
    let mut memory = VersionMemory::with_max(&Changes::default(), 7, 4);
    for (position, id) in [(1, "A"), (2, "B"), (3, "C"), (4, "D"), (5, "E")] {
        let state = (position, Create);
        assert_eq!(receive_id(&mut memory, id, state), plain_id(id, state));
    }
    assert_eq!(memory.known.len(), 2);
    // That of the newer ones is known.
    assert_eq!(
        receive_id(&mut memory, "D", (4, Create)),
        plain_id("D", (4, Create))
    );
    let repeated = receive_id(&mut memory, "A", (1, Create));
    assert_ne!(repeated, plain_id("A", (1, Create)));
    assert_eq!(receive_id(&mut memory, "A", (1, Create)), repeated);
    // A change of memberships concerns more annotations than there is room for.
    let mut ids = Vec::new();
    for action in [Delete, Create, Delete, Create] {
        for number in 0..20 {
            ids.push(receive_id(&mut memory, &format!("F{number}"), (9, action)));
            assert!(memory.known.len() <= 4);
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 80);
    assert_eq!(
        receive_id(&mut memory, "G", (10, Create)),
        plain_id("G", (10, Create))
    );
}

#[test]
fn positions_of_another_epoch_are_not_compared() {
    let mut memory = VersionMemory::new(&stored(7, &[], &[]), 7);
    let mut event = event_at(&cursor_of(EPOCH + 1, 2, TIME), "A", Create);
    memory.distinguish(&mut event);
    assert_eq!(event.version, version(&event.cursor, Create));
}

#[test]
fn places_in_an_earlier_epoch_are_known_when_it_returns() {
    let mut memory = empty();
    let mut receive_in = |epoch, position, action| {
        let mut event = event_at(&cursor_of(epoch, position, TIME), "A", action);
        memory.distinguish(&mut event);
        event.version
    };
    receive_in(EPOCH, 3, Create);
    let first = receive_in(EPOCH, 7, Delete);
    receive_in(EPOCH, 7, Create);
    // The client reconnects to another process of the server, and then to the first one.
    receive_in(EPOCH + 1, 2, Create);
    assert_ne!(receive_in(EPOCH, 7, Delete), first);
    let later = receive_in(EPOCH, 8, Create);
    assert_eq!(later, version(&cursor_of(EPOCH, 8, TIME), Create));
    let other = cursor_of(EPOCH + 1, 2, TIME);
    assert_ne!(receive_in(EPOCH + 1, 2, Create), version(&other, Create));
}

#[test]
fn cursors_of_other_servers_are_versions() {
    let mut memory = empty();
    for action in [Create, Delete, Create] {
        let mut event = event_at("c1", "A", action);
        memory.distinguish(&mut event);
        assert_eq!(event.version, version("c1", action));
    }
}

#[test]
fn batch_with_a_new_state_has_another_id() {
    let mut memory = empty();
    let mut batch = |action| {
        let ids = ["A", "B"].map(|id| receive_id(&mut memory, id, (7, action)));
        batch_id(&ids)
    };
    let first = batch(Delete);
    assert_eq!(batch(Delete), first);
    batch(Create);
    assert_ne!(batch(Delete), first);
}

#[test]
fn versions_are_parsed_as_they_are_written() {
    for position in [0, 7, u64::MAX] {
        let cursor = Cursor {
            epoch: EPOCH,
            position,
            time: u64::MAX,
        };
        for (is_deleted, number) in [(false, 0), (true, 0), (false, 1), (true, u64::MAX)] {
            let text = text(&place(cursor), is_deleted, number);
            let (epoch, state) = parse(&text).expect("a version");
            assert_eq!((epoch, state.position), (EPOCH, position));
            assert_eq!((state.is_deleted, state.number), (is_deleted, number));
        }
    }
    for invalid in ["", "c1", "ÄÄÄÄÄÄÄÄÄÄÄÄÄ", &format!("{}x", "A".repeat(23))] {
        assert!(parse(invalid).is_none(), "{invalid}");
    }
}

//! A key permanently identifies one connection; late events and commands for it do not affect
//! another connection.

use h_realtime_engine::{ConnKey, Readiness};

use crate::sim::{Command, End, World};

const EVERYTHING: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: true,
};

fn slot(key: ConnKey) -> u32 {
    key.to_u64() as u32
}

// RUSTSEC-2024-0019
// K1
#[test]
fn event_for_stale_key_does_not_reach_reused_slot() {
    let mut world = World::calm();
    let old = world.open();
    let old_key = world.key(old);
    // Within one batch: the reset, and further events of the same connection.
    world.client(old).reset();
    let new = world.connect();
    world.client(new).send_handshake("/ws");
    world.turn_with(vec![(old_key, EVERYTHING); 3]);
    assert_eq!(world.interest(old), None);
    assert_ne!(
        slot(world.key(new)),
        slot(old_key),
        "nothing is freed within a turn"
    );
    world.flow();
    // A new connection reuses the slot while events of the old one are still pending.
    let newest = world.open();
    assert_eq!(slot(world.key(newest)), slot(old_key));
    world.turn_with(vec![(old_key, EVERYTHING)]);
    world.flow();
    assert!(
        world
            .interest(newest)
            .is_some_and(|interest| interest.is_open)
    );
    assert_eq!(world.engine.counters().open, 2);
    // With a deferred request, the end would be mistaken for its client's.
    world.client(newest).reset();
    world.flow();
    let waiting = world.connect();
    world.client(waiting).send_handshake("/later");
    world.flow();
    assert_eq!(slot(world.key(waiting)), slot(old_key));
    world.turn_with(vec![(old_key, EVERYTHING)]);
    world.flow();
    assert!(
        world
            .interest(waiting)
            .is_some_and(|interest| interest.is_deferred)
    );
}

// K1: deliveries and closes by key.
#[test]
fn send_to_stale_key_does_not_reach_reused_slot() {
    let mut world = World::calm();
    let old = world.open();
    let key = world.key(old);
    world.client(old).reset();
    world.flow();
    let new = world.open();
    assert_eq!(slot(world.key(new)), slot(key));
    let before = world.clients[new].events.len();
    let keys = vec![key];
    world.command(Command::FanOutTo { keys, size: 10 });
    world.command(Command::CloseOne { key, code: 4000 });
    world.flow();
    assert_eq!(world.clients[new].events.len(), before);
    assert_eq!(world.engine.counters().undelivered, 1);
}

// OSV-2020-1695, OSV-2020-1694, OSV-2021-414 K2: the model application fails on a second on_close.
#[test]
fn simultaneous_ends_close_once() {
    let mut world = World::calm();
    for how in 0..4 {
        let client = world.open();
        let key = world.key(client);
        world.client(client).text("bye");
        if how & 1 != 0 {
            world.client(client).finish();
        }
        world.deliver(client);
        if how & 2 != 0 {
            world.client(client).reset();
        }
        world.command(Command::CloseOne { key, code: 4000 });
        world.command(Command::CloseOne { key, code: 4001 });
        world.turn_with(vec![(key, EVERYTHING); 2]);
        world.flow();
        assert_eq!(world.interest(client), None, "{how}");
        assert_ne!(world.clients[client].end(), End::Open);
    }
    let closed = &world.engine.counters().closed;
    assert_eq!(closed.by_application, 4);
    assert_eq!(world.engine.counters().connections, 0);
}

// K4
#[test]
fn deadline_of_stale_key_does_not_affect_reused_slot() {
    let mut world = World::calm();
    let old = world.connect();
    world.wait(9_000);
    let key = world.key(old);
    world.client(old).reset();
    world.flow();
    let new = world.connect();
    world.flow();
    assert_eq!(slot(world.key(new)), slot(key));
    world.wait(9_500);
    assert!(
        world.interest(new).is_some(),
        "the first connection's 10 s have passed"
    );
    world.wait(1_000);
    assert!(world.interest(new).is_none(), "its own 10 s have passed");
}

// A7, K2, OSV-2020-1695, OSV-2020-1694, OSV-2021-414
#[test]
fn unregistered_connection_leaves_no_state() {
    let mut world = World::calm();
    world.environment.unregistered = 100;
    let client = world.connect();
    world.turn();
    let key = world.key(client);
    assert_eq!(world.interest(client), None);
    // Its own edge may still be reported.
    let readiness = Readiness {
        readable: true,
        writable: true,
        read_closed: true,
    };
    world.turn_with(vec![(key, readiness)]);
    assert_eq!(world.interest(client), None);
    assert_eq!(world.engine.counters().connections, 0);
    assert_eq!(world.engine.counters().accept_failures, 1);
    world.environment.unregistered = 0;
    world.engine.check_invariants().unwrap();
    let next = world.open();
    assert!(world.interest(next).is_some());
}

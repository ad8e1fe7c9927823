//! The policies of a turn: accepting, the mailbox, and the order of a shutdown.

use std::io;
use std::time::Duration;

use h_realtime_engine::{Config, ConnKey, ListenerId, ListenerOptions, Mail, SocketOwnership};

use crate::sim::environment::EMFILE;
use crate::sim::{Command, World};

const PUBLIC: ListenerId = ListenerId(0);

fn failure(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn is_there(world: &World, client: usize) -> bool {
    world.interest(client).is_some()
}

/// A world whose clients connect to a listener of this ownership.
fn listening_as(ownership: SocketOwnership) -> World {
    let mut world = World::calm();
    world.listen_with(ListenerOptions {
        ownership,
        ..ListenerOptions::default()
    });
    world
}

// A1
#[test]
fn accept_failure_is_retried_after_a_delay() {
    let mut world = World::calm();
    world.environment.fail_accept(PUBLIC, [failure(EMFILE)]);
    let client = world.connect();
    world.turn();
    assert_eq!(world.engine.counters().accept_failures, 1);
    assert_eq!(world.timeout(), 100);
    world.clock += 99;
    world.turn();
    assert!(!is_there(&world, client));
    assert_eq!(world.timeout(), 1);
    world.clock += 1;
    world.turn();
    assert!(is_there(&world, client));
    assert_eq!(world.engine.counters().accept_failures, 1);
}

// A1
#[test]
fn accept_is_retried_at_once_when_a_connection_has_ended() {
    let mut world = World::calm();
    world.environment.descriptors = 1;
    let first = world.open();
    let second = world.connect();
    world.flow();
    assert!(!is_there(&world, second));
    assert_eq!(world.engine.counters().accept_failures, 1);
    let clock = world.clock;
    world.client(first).reset();
    world.flow();
    assert!(is_there(&world, second));
    assert_eq!(world.clock, clock);
}

// A2
#[test]
fn failed_connection_does_not_keep_the_next_from_being_accepted() {
    let mut world = World::calm();
    let errors = [ECONNABORTED, EPROTO, EPERM, EINTR].map(failure);
    world.environment.fail_accept(PUBLIC, errors);
    let client = world.connect();
    world.turn();
    assert!(is_there(&world, client));
    assert_eq!(world.engine.counters().accept_failures, 0);
}

// A4
#[test]
fn each_listener_has_an_accept_budget_of_its_own() {
    let mut world = World::calm();
    for _ in 0..150 {
        world.connect();
    }
    world.listener = ListenerId(1);
    for _ in 0..10 {
        world.connect();
    }
    for accepted in [64 + 10, 128 + 10, 150 + 10] {
        world.turn();
        assert_eq!(world.engine.counters().accepted, accepted);
    }
    assert!(world.timeout() > 0);
}

#[test]
fn a_turn_handles_a_limited_number_of_messages() {
    let mut world = World::calm();
    (0..150).for_each(|_| world.command(Command::Noop));
    for left in [86, 22, 0] {
        assert_eq!(world.timeout(), 0);
        world.turn();
        assert_eq!(world.environment.mail(), left);
    }
    assert!(world.timeout() > 0);
}

#[test]
fn timers_that_an_earlier_tick_left_have_a_larger_budget() {
    let mut world = World::calm();
    for _ in 0..1600 {
        let client = world.connect();
        world.client(client).send_handshake("/ws");
    }
    world.flow();
    let mut pings = vec![world.engine.counters().pings_sent];
    // Pings are due to all of them, and the handshake of another client is, ten seconds later.
    world.clock += 40_000;
    world.connect();
    for wait in [0, 10_000] {
        world.clock += wait;
        world.turn();
        pings.push(world.engine.counters().pings_sent);
    }
    assert_eq!(pings, [0, 128, 128 + 1024]);
}

#[test]
fn messages_stay_in_the_mailbox_while_too_many_deliveries_are_pending() {
    let mut world = World::calm();
    // Nothing is sent to them: their connections are gone.
    let keys = (0..1_100_000).map(|slot| ConnKey::new(slot, 1)).collect();
    world.command(Command::FanOutTo { keys, size: 10 });
    world.command(Command::Noop);
    world.turn();
    let mut turns = 0;
    while world.environment.mail() == 1 {
        assert_eq!(world.timeout(), 0, "there is work left");
        world.turn();
        turns += 1;
    }
    assert!(turns > 1, "{turns}");
}

// W6
#[test]
fn a_turn_sends_a_limited_number_of_bytes_of_long_deliveries() {
    let size = 1 << 20;
    let mut world = World::calm();
    world.limits.send = 2 * size;
    let clients: Vec<usize> = (0..20).map(|_| world.open()).collect();
    let keys = clients.iter().map(|&client| world.key(client)).collect();
    world.command(Command::FanOutTo { keys, size });
    let (mut sent, mut turns) = (world.engine.counters().bytes_out, 0);
    while turns == 0 || world.timeout() == 0 {
        world.turn();
        let before = std::mem::replace(&mut sent, world.engine.counters().bytes_out);
        // Of messages of a megabyte, one reaches the limit; the kernel accepts all of it.
        assert!(sent - before <= (1 << 20) + 1000, "{}", sent - before);
        turns += 1;
    }
    assert!(turns >= 20, "{turns}");
    assert!(sent >= 20 << 20, "{sent}");
}

#[test]
fn handshakes_in_progress_on_a_shared_port_complete_before_a_shutdown() {
    let mut world = listening_as(SocketOwnership::ReusePort);
    let listener = world.listener;
    let early = world.open();
    world.shut_down(Duration::ZERO);
    assert!(!world.environment.is_listening(PUBLIC));
    assert!(world.environment.is_listening(listener) && world.environment.drops_syns(listener));
    assert_eq!(world.timeout(), 500);
    // Its SYN was dropped.
    let refused = world.connect();
    world.environment.completes_handshakes = true;
    world.wait(400);
    let late = world.open();
    assert_eq!(world.clients[early].closed_with(), None);
    world.wait(99);
    assert!(world.environment.is_listening(listener));
    let last = world.connect();
    world.clock += 1;
    world.turn();
    assert!(!world.environment.is_listening(listener));
    assert!(is_there(&world, last), "it was in the accept queue");
    world.wait(2000);
    for client in [early, late] {
        assert_eq!(world.clients[client].closed_with(), Some(1012));
    }
    assert_eq!(world.clients[refused].key, None);
    assert!(world.has_ended());
}

#[test]
fn accept_queue_of_an_inherited_socket_is_left_to_others() {
    let mut world = listening_as(SocketOwnership::Inherited);
    let client = world.connect();
    world.shut_down(Duration::ZERO);
    assert!(!world.environment.is_listening(world.listener));
    world.turn();
    assert_eq!(world.clients[client].key, None);
    assert!(world.has_ended());
    assert_eq!(world.engine.counters().accepted, 0);
}

#[test]
fn second_shutdown_is_immediate() {
    for ownership in [SocketOwnership::Owned, SocketOwnership::ReusePort] {
        let mut world = listening_as(ownership);
        let client = world.open();
        world.shut_down(Duration::from_secs(60));
        assert!(!world.has_ended());
        world.shut_down(Duration::from_secs(60));
        assert!(world.has_ended());
        assert!(is_there(&world, client));
    }
}

#[test]
fn messages_before_a_second_shutdown_are_handled() {
    let mut world = World::calm();
    let client = world.open();
    world.environment.send(Mail::Shutdown(Duration::ZERO));
    let config = Config::default().ping_interval(Duration::from_secs(1));
    world.reload(config);
    world.environment.send(Mail::Shutdown(Duration::ZERO));
    world.command(Command::Noop);
    world.turn();
    assert!(world.has_ended() && is_there(&world, client));
    assert_eq!(world.environment.mail(), 1);
}

const EPERM: i32 = 1;
const EINTR: i32 = 4;
const EPROTO: i32 = 71;
const ECONNABORTED: i32 = 103;

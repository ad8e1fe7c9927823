//! Deadlines after a standstill of the server, and in late turns: input that has arrived in time
//! counts, although it has not been read yet.

use std::time::Duration;

use h_realtime_engine::Config;

use crate::sim::{Behavior, Command, End, World, client_frame, handshake};

const KIB: usize = 1024;

fn is_open(world: &World, client: usize) -> bool {
    world
        .interest(client)
        .is_some_and(|interest| interest.is_open)
}

fn is_gone(world: &World, client: usize) -> bool {
    world.interest(client).is_none()
}

/// Advances the clock until every open client has been sent a ping that it has not read yet.
fn ping_all(world: &mut World) {
    let before = world.engine.counters().pings_sent;
    let open = world.engine.counters().open;
    for _ in 0..400 {
        if world.engine.counters().pings_sent >= before + open {
            return;
        }
        world.clock += 100;
        world.turn();
    }
    panic!("not all clients were pinged");
}

// R12
#[test]
fn unread_pongs_count_after_a_standstill() {
    let config = Config::default().pong_timeout(Duration::from_secs(40));
    let mut world = World::new(config, 1);
    let clients: Vec<_> = (0..1500).map(|_| world.connect()).collect();
    for &client in &clients {
        world.client(client).send_handshake("/ws");
    }
    world.flow();
    let vanished = clients[7];
    world.client(vanished).vanish();
    ping_all(&mut world);
    world.stand_still(60_000);
    // The poller delivers a part of the events in each turn; here it delays all of them.
    for _ in 0..20 {
        world.turn_without_events();
    }
    assert_eq!(world.engine.counters().open, 1499);
    assert!(is_gone(&world, vanished));
    world.wait(100);
    assert_eq!(world.engine.counters().closed.timed_out, 1);
}

#[test]
fn a_late_turn_reads_before_it_enforces_a_deadline() {
    let mut world = World::calm();
    let client = world.open();
    ping_all(&mut world);
    // Not a standstill: turns continue, without the event of the pong.
    while world.exchange() {}
    for _ in 0..300 {
        world.clock += 100;
        world.turn_without_events();
    }
    assert!(is_open(&world, client));
}

// R12
#[test]
fn unread_heads_and_bodies_are_answered_after_a_standstill() {
    let mut world = World::calm();
    let (whole, half, silent) = (world.connect(), world.connect(), world.connect());
    let (body, pipelined) = (world.connect(), world.connect());
    let head = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    world.client(body).request(head, &[200]);
    world.flow();
    world.client(whole).send_handshake("/ws");
    world.client(half).raw(&handshake("/ws")[..40]);
    world.client(body).raw("x".repeat(100));
    for _ in 0..2 {
        let request = "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
        world.client(pipelined).request(request, &[200]);
    }
    world.stand_still(60_000);
    world.turn_without_events();
    assert!(is_open(&world, whole));
    assert!(is_gone(&world, silent), "no input had arrived");
    // The part that has arrived was read: the lost time is added once.
    world.wait(9_500);
    assert!(world.clients[half].statuses().is_empty());
    world.wait(600);
    assert_eq!(world.clients[half].statuses(), [408]);
    assert_eq!(world.clients[body].statuses(), [200]);
    assert_eq!(world.clients[pipelined].statuses(), [200, 200]);
    assert!(is_open(&world, whole));
}

#[test]
fn unread_complete_message_counts_after_a_standstill() {
    let mut world = World::calm();
    let (whole, part) = (world.open(), world.open());
    let frame = client_frame(0x82, &vec![7; 60 * KIB], [9; 4]);
    for client in [whole, part] {
        world.client(client).has_begun = true;
        world.client(client).raw(&frame[..10]);
    }
    world.flow();
    let payload = crate::sim::Payload::Binary(vec![7; 60 * KIB]);
    world.client(whole).sent_messages.push(payload);
    world.client(whole).raw(&frame[10..]);
    world.client(part).behavior.is_wrong = true;
    world.client(part).raw(&frame[10..20]);
    world.stand_still(60_000);
    world.turn_without_events();
    assert_eq!(world.inbox(whole), 1);
    world.wait(9_500);
    assert!(is_open(&world, part), "the lost time is added");
    world.wait(600);
    assert_eq!(world.clients[part].closed_with(), Some(1008));
    assert!(is_open(&world, whole));
}

#[test]
fn late_turns_do_not_extend_a_slow_message() {
    let mut world = World::calm();
    let client = world.open();
    world.client(client).behavior.is_wrong = true;
    world.client(client).has_begun = true;
    world.client(client).raw(b"\x01\x81\0\0\0\0x");
    world.flow();
    for _ in 0..105 {
        world.client(client).raw(b"\x00\x81\0\0\0\0x");
        world.deliver(client);
        world.clock += 100;
        world.turn_without_events();
    }
    world.flow();
    assert_eq!(world.clients[client].closed_with(), Some(1008));
}

#[test]
fn unread_close_frame_ends_the_connection_cleanly() {
    let mut world = World::calm();
    let client = world.open();
    let key = world.key(client);
    world.command(Command::CloseOne { key, code: 4003 });
    world.turn();
    world.stand_still(60_000);
    world.turn_without_events();
    world.turn_without_events();
    assert!(!world.clients[client].wire.state().is_aborted);
    world.flow();
    assert_eq!(world.clients[client].end(), End::Eof);
    assert!(is_gone(&world, client));
}

#[test]
fn a_client_that_made_room_during_a_standstill_is_not_slow() {
    let mut world = World::calm();
    world.limits.send = 100 * KIB;
    let client = world.open_lazy();
    for _ in 0..25 {
        let keys = vec![world.key(client)];
        world.command(Command::FanOutTo {
            keys,
            size: 10 * KIB,
        });
        world.turn();
    }
    assert!(world.engine.counters().slow == 1);
    world.client(client).behavior.is_eager = true;
    world.stand_still(60_000);
    world.turn_without_events();
    assert!(is_open(&world, client));
    world.wait(1000);
    assert_eq!(world.engine.counters().slow, 0);
    assert_eq!(world.engine.counters().closed.slow, 0);
}

// M6
#[test]
fn a_client_that_made_room_during_a_standstill_is_not_closed_for_memory() {
    let config = Config::default().queue_total(220 * KIB);
    let mut world = World::new(config, 1);
    world.limits.send = 50 * KIB;
    let (reader, idler) = (world.open_lazy(), world.open_lazy());
    // Together they hold slightly less than half of the total at first.
    for client in [idler, reader].repeat(9) {
        let keys = vec![world.key(client)];
        let size = 10 * KIB;
        world.command(Command::FanOutTo { keys, size });
        world.turn();
    }
    let held = world.engine.counters().ledger.output();
    assert!(
        (80 * KIB as u64..110 * KIB as u64).contains(&held),
        "{held}"
    );
    world.client(reader).behavior.is_eager = true;
    world.stand_still(5_000);
    for _ in 0..5 {
        let keys = vec![world.key(reader)];
        let size = 10 * KIB;
        world.command(Command::FanOutTo { keys, size });
    }
    world.turn_without_events();
    assert!(is_open(&world, reader));
    world.wait(1000);
    assert!(is_open(&world, reader));
}

#[test]
fn room_in_the_socket_is_used_before_the_hard_limit_is_enforced() {
    let mut world = World::calm();
    world.limits.send = 100 * KIB;
    let client = world.open_lazy();
    let publish = |world: &mut World| {
        let keys = vec![world.key(client)];
        world.command(Command::FanOutTo {
            keys,
            size: 10 * KIB,
        });
        world.turn_without_events();
    };
    while world.interest(client).is_some_and(|i| i.queued < 245 * KIB) {
        publish(&mut world);
    }
    world.listen(client, usize::MAX);
    // Its queue may have this length for a second.
    world.clock += 1_200;
    for _ in 0..5 {
        publish(&mut world);
    }
    assert!(is_open(&world, client));
    assert!(world.interest(client).is_some_and(|i| i.queued < 256 * KIB));
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert!(is_open(&world, client));
}

// R12
#[test]
fn deferred_request_regains_the_time_of_a_standstill() {
    let mut world = World::calm();
    let (answered, forgotten) = (world.connect(), world.connect());
    for client in [answered, forgotten] {
        world.client(client).send_handshake("/later");
    }
    world.flow();
    world.stand_still(60_000);
    world.turn_without_events();
    let key = world.key(answered);
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert!(is_open(&world, answered));
    world.wait(9_500);
    assert!(world.clients[forgotten].statuses().is_empty());
    world.wait(600);
    assert_eq!(world.clients[forgotten].statuses(), [503]);
}

#[test]
fn handshake_in_progress_at_shutdown_survives_a_standstill() {
    let mut world = World::calm();
    let (whole, half) = (world.connect(), world.connect());
    world.client(half).raw(&handshake("/ws")[..40]);
    world.flow();
    world.shut_down(Duration::from_secs(60));
    world.turn();
    world.client(whole).send_handshake("/ws");
    world.stand_still(5_000);
    world.turn_without_events();
    world.wait(20_000);
    assert_eq!(world.clients[whole].statuses(), [101]);
    assert_eq!(world.clients[whole].closed_with(), Some(1012));
    assert!(is_gone(&world, half));
}

/// A client is not read while its output is queued, so its silence proves nothing.
#[test]
fn throttled_client_is_not_considered_dead() {
    let config = Config::default().slow_timeout(Duration::from_secs(120));
    let mut world = World::new(config, 1);
    world.limits.send = 20 * KIB;
    let client = world.open_lazy();
    ping_all(&mut world);
    for _ in 0..15 {
        let keys = vec![world.key(client)];
        world.command(Command::FanOutTo {
            keys,
            size: 10 * KIB,
        });
        world.turn();
    }
    // It answers the ping, and continues to read too little to raise an edge.
    world.listen(client, 1000);
    world.deliver(client);
    world.client(client).has_begun = true;
    world
        .client(client)
        .raw(&client_frame(0x82, b"ab", [9; 4])[..3]);
    world.deliver(client);
    world.wait(60_000);
    assert!(is_open(&world, client));
    assert_eq!(world.engine.counters().closed.timed_out, 0);
}

// R12
#[test]
fn a_client_that_sends_no_more_than_before_a_standstill_is_cut_at_once() {
    let mut world = World::calm();
    let silent = world.connect_from(None, Behavior::default());
    let vanished = world.open();
    ping_all(&mut world);
    world.client(vanished).vanish();
    world.stand_still(3_600_000);
    world.turn_without_events();
    assert!(is_gone(&world, silent));
    assert!(is_gone(&world, vanished));
}

//! Output arrives complete and in order, however much the kernel accepts, and with few system
//! calls.

use std::time::Duration;

use h_realtime_engine::{Config, Readiness};

use crate::sim::{Calls, ClientEvent, Command, Faults, World, pad};

fn with_send_buffer(size: usize) -> World {
    let mut world = World::calm();
    world.limits.send = size;
    world
}

/// Connects a client that does not read, with a partially sent event.
fn blocked(world: &mut World) -> usize {
    let client = world.open_lazy();
    let keys = vec![world.key(client)];
    world.command(Command::FanOutTo { keys, size: 3000 });
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.queued > 0)
    );
    client
}

fn pongs(world: &World, client: usize) -> Vec<&ClientEvent> {
    let events = world.clients[client].events.iter();
    events
        .filter(|event| matches!(event, ClientEvent::Pong(_)))
        .collect()
}

// W2, W3: the oracle compares every message, and the decoder every byte of a header.
#[test]
fn one_byte_writes_arrive_complete_and_in_order() {
    for send in [1, 2, 3, 7, 100] {
        let mut world = with_send_buffer(send);
        let client = world.open();
        let keys = vec![world.key(client); 2];
        for number in 0..10 {
            world
                .client(client)
                .text(&format!("twice {number} {}", pad(number * 20)));
            world.client(client).ping();
            world.client(client).text("self");
            let keys = keys.clone();
            world.command(Command::FanOutTo { keys, size: 150 });
            world.exchange();
            world.turn();
        }
        world.client(client).text("bye");
        world.flow();
        assert_eq!(world.clients[client].closed_with(), Some(4001), "{send}");
    }
}

// W2
#[test]
fn partial_writes_lose_no_data() {
    let mut world = World::calm();
    let clients = [world.open(), world.open(), world.open()];
    for client in clients {
        world.clients[client].wire.state().faults = Faults {
            short_write: 90,
            would_block: 20,
            ..Faults::default()
        };
    }
    for number in 0..50 {
        for client in clients {
            world
                .client(client)
                .text(&format!("all {number} {}", pad(number * 40)));
        }
        world.flow();
    }
}

// W3, W4
#[test]
fn pong_follows_the_frame_in_progress_and_precedes_queued_ones() {
    let mut world = with_send_buffer(1000);
    let client = blocked(&mut world);
    let keys = vec![world.key(client)];
    world.command(Command::FanOutTo { keys, size: 3000 });
    world.settle();
    world.client(client).ping();
    world.deliver(client);
    world.settle();
    world.client(client).behavior.is_eager = true;
    let before = world.clients[client].events.len();
    world.flow();
    let events = &world.clients[client].events[before..];
    assert!(
        matches!(
            events,
            [
                ClientEvent::Text(_),
                ClientEvent::Pong(_),
                ClientEvent::Text(_)
            ]
        ),
        "{events:.60?}"
    );
}

// W5
#[test]
fn pings_of_client_that_does_not_read_leave_one_queued_pong() {
    let mut world = with_send_buffer(1000);
    let client = blocked(&mut world);
    let before = world.interest(client).unwrap().queued;
    for _ in 0..100 {
        for _ in 0..1000 {
            world.client(client).ping();
        }
        world.deliver(client);
        world.settle();
    }
    let queued = world.interest(client).unwrap().queued;
    assert_eq!(queued, before + 2 + "ping 100000".len());
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(
        pongs(&world, client),
        [&ClientEvent::Pong(b"ping 100000".to_vec())]
    );
}

// W5
#[test]
fn edges_without_room_do_not_accumulate_pongs() {
    let mut world = with_send_buffer(1000);
    let client = world.open_lazy();
    // Two events of 2500 bytes, of which the first and no byte of the second is sent.
    for _ in 0..2 {
        let keys = vec![world.key(client)];
        world.command(Command::FanOutTo { keys, size: 2486 });
    }
    world.settle();
    for _ in 0..3 {
        world.listen(client, 500);
        world.settle();
    }
    let before = world.interest(client).unwrap().queued;
    assert_eq!(before, 2500);
    let key = world.key(client);
    for _ in 0..50 {
        world.client(client).ping();
        world.deliver(client);
        let readiness = Readiness {
            readable: true,
            writable: true,
            read_closed: false,
        };
        world.turn_with(vec![(key, readiness)]);
    }
    let queued = world.interest(client).unwrap().queued;
    assert_eq!(queued, before + 2 + "ping 50".len());
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(
        pongs(&world, client),
        [&ClientEvent::Pong(b"ping 50".to_vec())]
    );
}

// W7
#[test]
fn zero_length_write_breaks_the_connection() {
    let mut world = World::calm();
    let client = world.open_lazy();
    world.clients[client].wire.state().faults.zero_writes = true;
    world.client(client).text("echo");
    world.deliver(client);
    world.settle();
    assert_eq!(world.interest(client), None);
    assert_eq!(world.engine.counters().closed.lost, 1);
}

// R1, W6: a connection has its share of a turn, and room that already existed raises no edge.
#[test]
fn long_queue_is_written_over_several_turns_without_edges() {
    let config = Config::default().queue_soft(1 << 20).queue_hard(1 << 20);
    let mut world = World::new(config, 1);
    world.limits.send = 1000;
    let client = world.open_lazy();
    for _ in 0..150 {
        let keys = vec![world.key(client)];
        world.command(Command::FanOutTo { keys, size: 5000 });
    }
    world.settle();
    // Now there is room for everything.
    world.clients[client].wire.state().limits.send = 2 << 20;
    world.listen(client, 500);
    world.turn();
    let queued = world.interest(client).unwrap().queued;
    assert!((400_000..700_000).contains(&queued), "{queued}");
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_idle)
    );
}

#[test]
fn full_socket_is_not_written_again() {
    let mut world = with_send_buffer(1000);
    let client = world.open_lazy();
    world.calls(client);
    for _ in 0..3 {
        let keys = vec![world.key(client)];
        world.command(Command::FanOutTo { keys, size: 3000 });
        world.settle();
    }
    assert_eq!(
        world.calls(client),
        Calls {
            reads: 0,
            writes: 1
        }
    );
}

// Short and long, from callbacks and to their own connection: the oracle knows the order.
#[test]
fn sends_to_the_current_connection_are_written_with_its_replies() {
    let mut world = World::calm();
    for client in [world.open(), world.open_compressing()] {
        world.calls(client);
        let before = world.engine.counters().messages_out;
        for word in ["echo", "self", "mixed", "self", "twice"] {
            world.client(client).text(word);
        }
        world.flow();
        let calls = world.calls(client);
        assert_eq!((calls.reads, calls.writes), (1, 1));
        assert_eq!(world.engine.counters().messages_out, before + 11);
    }
    assert_eq!(world.engine.counters().undelivered, 0);
}

#[test]
fn send_after_close_is_not_delivered() {
    let mut world = World::calm();
    let client = world.open();
    world.client(client).text("mixed");
    world.client(client).text("late");
    world.flow();
    assert_eq!(world.clients[client].closed_with(), Some(4001));
    assert_eq!(world.engine.counters().messages_out, 6);
    assert_eq!(world.engine.counters().undelivered, 1);
}

// The kernel accepts a prefix of any length.
#[test]
fn gathered_write_may_be_partial_anywhere() {
    for send in (1..1200).step_by(7) {
        let mut world = with_send_buffer(send);
        let client = world.open_lazy();
        world.client(client).text("mixed");
        world.client(client).text("mixed");
        world.deliver(client);
        world.settle();
        world.client(client).behavior.is_eager = true;
        world.flow();
        assert_eq!(world.engine.counters().messages_out, 12, "{send}");
    }
}

// The same for several events and several connections: some receive the same events, and some do
// not.
#[test]
fn batched_events_may_be_written_partially_anywhere() {
    for send in (1..1200).step_by(7) {
        let mut world = with_send_buffer(send);
        let clients = [(); 4].map(|()| world.open_lazy());
        let keys = clients.map(|client| world.key(client));
        let before = world.engine.counters().messages_out;
        for receivers in [&keys[..], &keys[..3], &keys[1..]] {
            let keys = receivers.to_vec();
            world.command(Command::FanOutTo { keys, size: 300 });
        }
        world.settle();
        for client in clients {
            world.client(client).behavior.is_eager = true;
        }
        world.flow();
        let sent = world.engine.counters().messages_out - before;
        assert_eq!(sent, 10, "{send}");
    }
}

// A client that does not wait for its 101 receives it all the same, before anything else.
#[test]
fn no_frame_precedes_the_handshake_response() {
    for path in ["/ws", "/later"] {
        let mut world = World::calm();
        let client = world.connect();
        world.client(client).behavior.is_eager = false;
        world.turn();
        // The response to the first request is not sent, so neither is the 101.
        world
            .client(client)
            .request("GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]);
        world.deliver(client);
        world.client(client).wire.state().limits.send = 0;
        world.turn();
        world.client(client).send_handshake(path);
        world.client(client).ping();
        world.client(client).text("echo");
        world.deliver(client);
        world.turn();
        let key = world.key(client);
        world.command(Command::AnswerTo { key, accept: true });
        world.turn();
        world.client(client).behavior.is_eager = true;
        world.client(client).wire.state().limits.send = 1000;
        let readiness = Readiness {
            writable: true,
            ..Readiness::default()
        };
        world.turn_with(vec![(key, readiness)]);
        world.flow();
        assert_eq!(world.clients[client].statuses(), [200, 101], "{path}");
        assert_eq!(pongs(&world, client).len(), 1, "{path}");
    }
}

#[test]
fn delivery_latency_is_recorded_at_the_end_of_the_turn() {
    let mut world = World::calm();
    let keys = [world.open(), world.open()].map(|client| world.key(client));
    let keys = keys.to_vec();
    world.command(Command::FanOutTo { keys, size: 100 });
    let turns = world.engine.counters().turns.count();
    assert_eq!(world.engine.counters().latency.count(), 0);
    world.environment.elapsed = Duration::from_millis(30);
    world.turn();
    let counters = world.engine.counters();
    assert_eq!(counters.latency.count(), 2);
    assert!((counters.latency.sum() - 0.06).abs() < 1e-9);
    assert_eq!(
        (counters.turns.count(), counters.turns.sum()),
        (turns + 1, 0.03)
    );
    // Each is counted once.
    world.turn();
    assert_eq!(world.engine.counters().latency.count(), 2);
}

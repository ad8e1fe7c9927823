//! Edges are reported once: unread input and unwritten output are resumed without another edge.

use std::time::Duration;

use h_realtime_engine::{Config, Readiness};

use crate::sim::{Command, End, Faults, World, pad};

/// Returns a world in which a client that does not read soon stops being read.
fn throttled_world() -> World {
    let config = Config::default().queue_soft(2000);
    let mut world = World::new(config, 1);
    world.limits.send = 4000;
    world
}

/// Runs turns without events until the engine would sleep.
fn run_until_idle(world: &mut World) {
    world.turn_with(Vec::new());
    while world.timeout() == 0 {
        world.turn_with(Vec::new());
    }
}

// R1, R8
#[test]
fn one_edge_is_enough_for_more_than_one_read() {
    let mut world = World::calm();
    let client = world.open();
    for _ in 0..300 {
        world.client(client).text(&format!("quiet {}", pad(1000)));
    }
    world.deliver(client);
    world.turn();
    let first = world.inbox(client);
    assert!(
        (1..100).contains(&first),
        "a connection exceeded its share: {first}"
    );
    run_until_idle(&mut world);
    assert_eq!(world.inbox(client), 300);
}

// R1, R7
#[test]
fn batch_of_edges_may_exceed_the_connections_of_a_turn() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..600).map(|_| world.connect()).collect();
    clients
        .iter()
        .for_each(|&client| world.client(client).send_handshake("/ws"));
    world.flow();
    for &client in &clients {
        world.client(client).text("quiet");
        world.deliver(client);
    }
    world.turn();
    let served = clients
        .iter()
        .filter(|&&client| world.inbox(client) == 1)
        .count();
    assert!((1..=256).contains(&served), "a turn serves {served}");
    run_until_idle(&mut world);
    assert!(clients.iter().all(|&client| world.inbox(client) == 1));
}

// R8 R1, R7: many small messages cost more than their bytes, and all of them can arrive in one
// read.
#[test]
fn read_full_of_small_messages_takes_several_turns() {
    let mut world = World::calm();
    let clients = [world.open(), world.open()];
    for client in clients {
        let mut messages = Vec::new();
        for _ in 0..8000 {
            messages.extend(crate::sim::client_frame(0x89, b"", [0; 4]));
        }
        world.client(client).behavior.is_eager = false;
        world.client(client).raw(messages);
        world.client(client).text("quiet");
        world.deliver(client);
    }
    for _ in 0..5 {
        world.turn();
        assert_eq!(clients.map(|client| world.inbox(client)), [0, 0]);
    }
    run_until_idle(&mut world);
    assert_eq!(clients.map(|client| world.inbox(client)), [1, 1]);
}

// R8
#[test]
fn turn_processes_a_limited_number_of_messages() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..200).map(|_| world.open_lazy()).collect();
    for &client in &clients {
        for _ in 0..100 {
            world.client(client).text("quiet");
        }
        world.deliver(client);
    }
    let handled = |world: &World| -> usize {
        let inboxes = clients.iter().map(|&client| world.inbox(client));
        inboxes.sum()
    };
    let mut before = handled(&world);
    for turn in 0..5 {
        world.turn();
        let now = handled(&world);
        // The number that takes 1 ms, and one connection's share of work.
        assert!(now - before <= 3400, "{} in turn {turn}", now - before);
        before = now;
    }
    assert!(before > 10_000, "{before}");
}

// R8
#[test]
fn busy_connections_get_equal_shares_of_work() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..20).map(|_| world.open_lazy()).collect();
    for (number, &client) in clients.iter().enumerate() {
        // Some in many small messages, some in few large ones.
        let message = format!("quiet {}", pad([0, 100, 1000, 10_000][number % 4]));
        for _ in 0..900_000 / message.len() {
            world.client(client).text(&message);
        }
        world.deliver(client);
    }
    // A message costs about as much as 150 bytes of payload.
    let cost = |number: usize| 150 + 7 + [0, 100, 1000, 10_000][number % 4];
    for turns in 1..=40 {
        world.turn();
        let served = clients.iter().enumerate();
        let served: Vec<_> = served
            .map(|(number, &client)| world.inbox(client) * cost(number))
            .collect();
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        // One connection may have used its share before another's turn.
        assert!(most / 4 <= *least + 65_536, "{served:?} after {turns}");
        if turns == 40 {
            assert!(most / 4 <= *least, "{served:?}");
            assert!(
                clients
                    .iter()
                    .all(|&client| world.inbox(client) < 900_000 / 7)
            );
        }
    }
}

// R1
#[test]
fn input_during_deferred_handshake_is_served_afterwards() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    world.client(client).send_handshake("/later");
    // After the handshake in the same read, and in the socket afterwards.
    world.client(client).text("echo 1");
    world.deliver(client);
    world.settle();
    world.client(client).text("echo 2");
    world.deliver(client);
    world.settle();
    let key = world.key(client);
    world.command(Command::AnswerTo { key, accept: true });
    run_until_idle(&mut world);
    world.listen(client, usize::MAX);
    let texts = world.clients[client].texts();
    assert!(
        texts.iter().any(|text| text.ends_with("echo 1")),
        "{texts:?}"
    );
    assert!(
        texts.iter().any(|text| text.ends_with("echo 2")),
        "{texts:?}"
    );
}

// R1: bytes queued while reading.
#[test]
fn queued_output_is_written_when_there_is_room() {
    let mut world = throttled_world();
    let client = world.open_lazy();
    for number in 0..20 {
        world
            .client(client)
            .text(&format!("echo {number} {}", pad(900)));
    }
    world.deliver(client);
    world.settle();
    let interest = world.interest(client).unwrap();
    assert!(interest.queued > 2000, "{interest:?}");
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_idle)
    );
}

// R1
#[test]
fn throttled_client_is_read_again_after_it_reads() {
    let mut world = throttled_world();
    let client = world.open_lazy();
    for number in 0..200 {
        world
            .client(client)
            .text(&format!("echo {number} {}", pad(900)));
    }
    world.deliver(client);
    world.settle();
    let served = world.inbox(client);
    assert!(
        served < 200,
        "a client that reads no replies is no longer read"
    );
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(world.inbox(client), 200);
}

// R1
#[test]
fn throttled_client_is_read_again_when_closing_begins() {
    let mut world = throttled_world();
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    let request = "GET /big HTTP/1.1\r\nHost: sim\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.client(client).raw("GET /big HTT");
    world.deliver(client);
    world.settle();
    // After that it sends more and closes its direction: all of these edges occur now.
    world.client(client).raw("P/1.1");
    world.client(client).finish();
    world.deliver(client);
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_choked)
    );
    // The deadline of the request has passed.
    world.wait(10_100);
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200, 408]);
    assert_eq!(world.clients[client].end(), End::Eof);
    assert_eq!(
        world.interest(client),
        None,
        "the connection is closed once both sides have ended"
    );
}

// R1
#[test]
fn throttled_client_is_read_again_when_it_is_closed() {
    let mut world = throttled_world();
    let client = world.open_lazy();
    world.client(client).text(&format!("echo {}", pad(9000)));
    world.deliver(client);
    world.settle();
    world.client(client).close(1000);
    world.deliver(client);
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_choked)
    );
    let key = world.key(client);
    world.command(Command::CloseOne { key, code: 4000 });
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_to_be_shut)
    );
}

// R2
#[test]
fn bytes_and_end_of_stream_on_one_edge_are_both_processed() {
    let mut world = World::calm();
    let client = world.open_lazy();
    world.client(client).text("echo last words");
    world.client(client).finish();
    world.deliver(client);
    world.settle();
    world.listen(client, usize::MAX);
    let texts = world.clients[client].texts();
    assert!(
        texts.iter().any(|text| text.ends_with("last words")),
        "{texts:?}"
    );
    assert_eq!(world.clients[client].end(), End::Eof);
    assert_eq!(world.interest(client), None);
}

// R3
#[test]
fn spurious_readiness_has_no_effect() {
    let mut world = World::calm();
    let open = world.open();
    let waiting = world.connect();
    world.client(waiting).send_handshake("/later");
    let silent = world.connect();
    world.flow();
    for client in [open, waiting, silent] {
        let (key, before) = (world.key(client), world.interest(client));
        for bits in 1..4 {
            let readiness = Readiness {
                readable: bits & 1 != 0,
                writable: bits & 2 != 0,
                read_closed: false,
            };
            world.turn_with(vec![(key, readiness)]);
            assert_eq!(world.interest(client), before, "{readiness:?}");
        }
    }
    world.client(open).text("echo still here");
    world.flow();
    assert_eq!(world.inbox(open), 1);
}

// R4
#[test]
fn interrupted_calls_are_retried() {
    let mut world = World::calm();
    let client = world.open();
    world.clients[client].wire.state().faults = Faults {
        interrupted: 70,
        ..Faults::default()
    };
    for number in 0..20 {
        world.client(client).text(&format!("echo {number}"));
        world.flow();
    }
    assert_eq!(world.inbox(client), 20);
}

// R5, W14
#[test]
fn half_closed_client_gets_its_deferred_response() {
    let mut world = World::calm();
    let client = world.connect();
    let request = "GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.client(client).finish();
    world.flow();
    assert_eq!(world.clients[client].statuses(), [0; 0]);
    assert!(world.timeout() > 0, "the engine does not spin");
    let key = world.key(client);
    world.command(Command::AnswerTo { key, accept: false });
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
    assert_eq!(world.interest(client), None);
}

// R10: the clock is checked again at least once per second, however far the next deadline is.
#[test]
fn no_sleep_is_longer_than_a_second() {
    let config = Config::default().ping_interval(Duration::from_secs(60 * 60 * 24 * 40));
    let mut world = World::new(config, 1);
    for _ in 0..2 {
        world.wait(1);
        let timeout = world.timeout();
        assert!((1..=1000).contains(&timeout), "{timeout}");
        world.open();
    }
}

//! Edges come once: whatever is left unread or unwritten is taken up again without one.

use std::time::Duration;

use h_realtime_engine::{Config, Readiness};

use crate::sim::{Command, End, Faults, World, pad};

/// A world in which a client that does not read is soon not read from either.
fn soon_choked() -> World {
    let config = Config {
        queue_soft: 2000,
        ..Config::default()
    };
    let mut world = World::new(config, 1);
    world.limits.send = 4000;
    world
}

/// Turns without any event, until the engine would sleep.
fn work_on(world: &mut World) {
    world.turn_with(Vec::new());
    while world.engine.timeout() == Duration::ZERO {
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
        "a connection has its share only: {first}"
    );
    work_on(&mut world);
    assert_eq!(world.inbox(client), 300);
}

// R1, R7
#[test]
fn one_batch_of_edges_may_be_of_more_connections_than_a_turn_serves() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..600).map(|_| world.connect()).collect();
    clients
        .iter()
        .for_each(|&client| world.client(client).shake("/ws"));
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
    work_on(&mut world);
    assert!(clients.iter().all(|&client| world.inbox(client) == 1));
}

// R8
// R1, R7: many small messages cost more than their bytes, and all of them can come in one read.
#[test]
fn a_read_full_of_small_messages_is_handled_in_several_turns() {
    let mut world = World::calm();
    let clients = [world.open(), world.open()];
    for client in clients {
        let mut messages = Vec::new();
        for _ in 0..8000 {
            messages.extend(crate::sim::client_frame(0x89, b"", [0; 4]));
        }
        world.client(client).conduct.is_eager = false;
        world.client(client).raw(messages);
        world.client(client).text("quiet");
        world.deliver(client);
    }
    for _ in 0..5 {
        world.turn();
        assert_eq!(clients.map(|client| world.inbox(client)), [0, 0]);
    }
    work_on(&mut world);
    assert_eq!(clients.map(|client| world.inbox(client)), [1, 1]);
}

// R8
#[test]
fn a_turn_handles_a_limited_number_of_messages() {
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
        // As many as take 1 ms, and a share of work of one connection.
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
    // A message costs about as much as 150 bytes of another.
    let cost = |number: usize| 150 + 7 + [0, 100, 1000, 10_000][number % 4];
    for turns in 1..=40 {
        world.turn();
        let served = clients.iter().enumerate();
        let served: Vec<_> = served
            .map(|(number, &client)| world.inbox(client) * cost(number))
            .collect();
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        // One may have had its share where another has its own still to come.
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
fn what_comes_while_a_handshake_waits_is_served_when_it_goes_on() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).conduct.is_eager = false;
    world.client(client).shake("/later");
    // Behind the handshake in the same read, and in the socket afterwards.
    world.client(client).text("echo 1");
    world.deliver(client);
    world.settle();
    world.client(client).text("echo 2");
    world.deliver(client);
    world.settle();
    let key = world.key(client);
    world.command(Command::AnswerTo { key, accept: true });
    work_on(&mut world);
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

// R1: bytes queued from the read path.
#[test]
fn what_the_kernel_had_no_room_for_leaves_when_there_is_room() {
    let mut world = soon_choked();
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
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_idle)
    );
}

// R1
#[test]
fn one_who_was_not_read_from_is_read_from_when_it_has_read() {
    let mut world = soon_choked();
    let client = world.open_lazy();
    for number in 0..200 {
        world
            .client(client)
            .text(&format!("echo {number} {}", pad(900)));
    }
    world.deliver(client);
    world.settle();
    let served = world.inbox(client);
    assert!(served < 200, "who takes no answers gets to ask no more");
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert_eq!(world.inbox(client), 200);
}

// R1
#[test]
fn one_who_was_not_read_from_is_read_from_when_its_end_begins() {
    let mut world = soon_choked();
    let client = world.connect();
    world.client(client).conduct.is_eager = false;
    let request = "GET /big HTTP/1.1\r\nHost: sim\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.client(client).raw("GET /big HTT");
    world.deliver(client);
    world.settle();
    // Behind that it sends more, and ends its side: all on edges that come and go now.
    world.client(client).raw("P/1.1");
    world.client(client).finish();
    world.deliver(client);
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.is_choked)
    );
    // Its time for a whole request is up.
    world.wait(10_100);
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200, 408]);
    assert_eq!(world.clients[client].end(), End::Eof);
    assert_eq!(
        world.interest(client),
        None,
        "it is gone as soon as both have ended"
    );
}

// R1
#[test]
fn one_who_was_not_read_from_is_read_from_when_it_is_closed() {
    let mut world = soon_choked();
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
fn bytes_and_the_end_on_one_edge_are_both_noticed() {
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
fn readiness_of_nothing_changes_nothing() {
    let mut world = World::calm();
    let open = world.open();
    let waiting = world.connect();
    world.client(waiting).shake("/later");
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
fn calls_that_are_interrupted_are_made_again() {
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
fn one_who_ends_its_side_still_gets_what_it_asked_for() {
    let mut world = World::calm();
    let client = world.connect();
    let request = "GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.client(client).finish();
    world.flow();
    assert_eq!(world.clients[client].statuses(), [0; 0]);
    assert!(world.engine.timeout() > Duration::ZERO, "it does not spin");
    let key = world.key(client);
    world.command(Command::AnswerTo { key, accept: false });
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
    assert_eq!(world.interest(client), None);
}

// R10: however far the next deadline is, the clock is looked at again before.
#[test]
fn no_sleep_is_longer_than_a_second() {
    let config = Config {
        ping_interval: Duration::from_secs(60 * 60 * 24 * 40),
        ..Config::default()
    };
    let mut world = World::new(config, 1);
    for _ in 0..2 {
        world.wait(1);
        let timeout = world.engine.timeout();
        assert!(
            timeout > Duration::ZERO && timeout <= Duration::from_secs(1),
            "{timeout:?}"
        );
        world.open();
    }
}

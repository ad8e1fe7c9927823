//! Scheduling: connections that cause much work yield to those that cause little.

use h_realtime_engine::Config;

use crate::sim::{World, client_frame, pad};

/// Milliseconds of a turn with the maximum work.
const TURN: u64 = 1;

/// Returns the number of processed messages of these clients.
fn processed(world: &World, clients: &[usize]) -> usize {
    clients.iter().map(|&client| world.inbox(client)).sum()
}

/// Connects clients that send as many messages as their sockets accept.
fn busy_clients(world: &mut World, size: usize, message: &str, count: usize) -> Vec<usize> {
    let busy_clients: Vec<_> = (0..size).map(|_| world.open_lazy()).collect();
    for &client in &busy_clients {
        for _ in 0..count {
            world.client(client).text(message);
        }
        world.deliver(client);
    }
    busy_clients
}

/// Returns the number of turns until a message that a client sends now is processed.
fn turns_until_processed(world: &mut World, client: usize) -> usize {
    let before = world.inbox(client);
    world.client(client).text("quiet");
    world.deliver(client);
    for turns in 1.. {
        world.turn();
        if world.inbox(client) > before {
            return turns;
        }
        assert!(turns < 100, "the message is not processed");
    }
    unreachable!()
}

// A ping takes no longer than the current turn and the next one, and the work of a turn is bounded,
// independent of the cost of a message. R11
#[test]
fn expensive_messages_of_a_thousand_connections_do_not_delay_a_ping() {
    let mut world = World::calm();
    let probe = world.open();
    world.wait(2_000);
    let busy_clients = busy_clients(&mut world, 1000, "costly", 50);
    let mut before = 0;
    for turn in 0..2000 {
        world.clock += TURN;
        // Twenty times per second.
        match turn % 50 {
            0 => assert_eq!(turns_until_processed(&mut world, probe), 1, "{turn}"),
            _ => world.turn(),
        }
        let now = processed(&world, &busy_clients);
        // 100 µs each: at most 1 ms, plus one visit for each class of connections.
        assert!(now - before <= 15, "{} in turn {turn}", now - before);
        before = now;
    }
    assert!(before > 1000, "the others are served as well: {before}");
}

// New connections have no history: all of them send a first message at once. R11
#[test]
fn every_fragment_counts_as_work() {
    let mut world = World::calm();
    let busy_clients: Vec<_> = (0..300).map(|_| world.open_lazy()).collect();
    let text = format!("quiet {}", pad(94));
    let bytes = text.as_bytes();
    let mut message = client_frame(0x01, &bytes[..1], [0; 4]);
    for byte in &bytes[1..99] {
        message.extend(client_frame(0x00, &[*byte], [0; 4]));
    }
    message.extend(client_frame(0x80, &bytes[99..], [0; 4]));
    for &client in &busy_clients {
        for _ in 0..10 {
            world.client(client).raw(&message);
            let payload = crate::sim::Payload::Text(text.clone());
            world.client(client).sent_messages.push(payload);
        }
        world.deliver(client);
    }
    let mut before = 0;
    for turn in 0..20 {
        world.turn();
        let now = processed(&world, &busy_clients);
        // A hundred fragments cost 30 µs.
        assert!(now - before <= 100, "{} in turn {turn}", now - before);
        before = now;
    }
    assert!(before > 400, "{before}");
}

// Clients that return after a restart send their filters within the first second. R11
#[test]
fn first_messages_of_a_crowd_do_not_delay_a_ping() {
    let mut world = World::calm();
    let probe = world.open();
    world.wait(2_000);
    let crowd: Vec<_> = (0..600).map(|_| world.open_lazy()).collect();
    world.wait(300);
    for &client in &crowd {
        world.client(client).text("costly");
        world.deliver(client);
    }
    assert_eq!(turns_until_processed(&mut world, probe), 1);
    assert!(processed(&world, &crowd) <= 20, "they wait");
}

// R11
#[test]
fn first_large_messages_wait_for_small_ones() {
    // One message that is read in parts, and one that is read at once.
    for (size, in_a_turn, in_all) in [(60_000, 17, 150), (4_000, 150, 150)] {
        let mut world = World::calm();
        let busy_clients: Vec<_> = (0..600).map(|_| world.open_lazy()).collect();
        let probe = world.open();
        let message = format!("quiet {}", pad(size));
        for &client in &busy_clients {
            world.client(client).text(&message);
            world.deliver(client);
        }
        world.client(probe).text("quiet");
        world.deliver(probe);
        let mut turns = 0;
        while world.inbox(probe) == 0 {
            world.turn();
            turns += 1;
            // 120 µs each, or 8.
            let large = processed(&world, &busy_clients);
            assert!(large <= in_a_turn * turns, "{large} in {turns} turns");
            assert!(large <= in_all, "{large} of {size} bytes in {turns} turns");
        }
        assert!(turns * TURN as usize <= 16, "{turns}");
    }
}

// R11
#[test]
fn large_message_of_idle_client_precedes_messages_of_busy_clients() {
    let mut world = World::calm();
    let probe = world.open_lazy();
    world.wait(2_000);
    let message = format!("quiet {}", pad(10_000));
    let busy_clients = busy_clients(&mut world, 100, &message, 60);
    for _ in 0..80 {
        world.clock += TURN;
        world.turn();
    }
    world.client(probe).text(&message);
    world.deliver(probe);
    let before = processed(&world, &busy_clients);
    while world.inbox(probe) == 0 {
        world.clock += TURN;
        world.turn();
        let processed = processed(&world, &busy_clients) - before;
        assert!(
            processed < 150,
            "{processed} messages of busy clients were processed first"
        );
    }
    assert!(
        before + 1000 < 100 * 60,
        "the others are still busy: {before}"
    );
}

#[test]
fn handshakes_are_served_during_expensive_messages() {
    let mut world = World::calm();
    busy_clients(&mut world, 300, "costly", 150);
    // The others have no history at first.
    for _ in 0..1200 {
        world.clock += TURN;
        world.turn();
    }
    for number in 0..20 {
        let client = world.connect();
        world.client(client).send_handshake("/ws");
        world.deliver(client);
        let mut turns = 0;
        while !is_open(&world, client) {
            world.clock += TURN;
            world.turn();
            turns += 1;
            assert!(turns * TURN <= 8, "handshake {number}: {turns} turns");
        }
    }
}

fn is_open(world: &World, client: usize) -> bool {
    let interest = world.interest(client);
    interest.is_some_and(|interest| interest.is_open)
}

// Input that was received before a deadline and has not been processed is this server's delay. R12
#[test]
fn buffered_input_is_not_overdue() {
    let mut world = World::new(Config::default(), 1);
    let slow = world.open_lazy();
    let busy_clients = busy_clients(&mut world, 40, "costly", 200);
    // An incomplete message after expensive ones, which are not all processed before a ping is
    // overdue.
    for _ in 0..600 {
        world.client(slow).text("costly");
    }
    let frame = client_frame(0x81, b"quiet", [1, 2, 3, 4]);
    world.client(slow).has_begun = true;
    world.client(slow).raw(&frame[..4]);
    world.deliver(slow);
    // Shorter steps than a standstill, which would extend deadlines.
    for _ in 0..80 {
        world.turn();
        world.clock += 900;
    }
    assert!(is_open(&world, slow));
    assert!(processed(&world, &busy_clients) < 40 * 200);
}

// The same for a message whose last fragment is buffered behind control frames. R12
#[test]
fn buffered_fragments_are_not_overdue() {
    let mut world = World::new(Config::default(), 1);
    let slow = world.open_lazy();
    world.client(slow).has_begun = true;
    world
        .client(slow)
        .raw(client_frame(0x01, b"qui", [1, 2, 3, 4]));
    world.deliver(slow);
    world.turn();
    let busy_clients = busy_clients(&mut world, 300, "costly", 100);
    for _ in 0..1200 {
        world.client(slow).raw(client_frame(0x89, b"", [0; 4]));
    }
    world
        .client(slow)
        .raw(client_frame(0x80, b"et", [1, 2, 3, 4]));
    world.deliver(slow);
    // Longer than the deadline of a message.
    for _ in 0..20 {
        world.turn();
        world.clock += 900;
    }
    assert!(is_open(&world, slow));
    assert!(processed(&world, &busy_clients) < 300 * 100);
}

// A deferred connection keeps the order of its messages.
#[test]
fn messages_of_one_connection_keep_their_order() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..50).map(|_| world.open()).collect();
    for &client in &clients {
        for size in [10, 30_000, 10, 600, 5_000, 10, 60_000, 1] {
            world.client(client).text(&format!("echo {}", pad(size)));
        }
        world.deliver(client);
    }
    // The oracle compares messages and replies.
    world.flow();
    assert_eq!(processed(&world, &clients), 50 * 8);
}

// A connection that is closing may still send any amount. R11
#[test]
fn turn_reads_a_limited_amount_of_discarded_input() {
    let mut world = World::calm();
    let busy_clients: Vec<_> = (0..40).map(|_| world.connect()).collect();
    for &client in &busy_clients {
        world.client(client).behavior.is_eager = false;
        world.client(client).request("not HTTP\r\n\r\n", &[400]);
        world.deliver(client);
    }
    world.settle();
    for &client in &busy_clients {
        world.client(client).raw(vec![b'x'; 300_000]);
        world.deliver(client);
    }
    let bytes_in = |world: &World| world.engine.counters().bytes_in;
    for _ in 0..3 {
        let before = bytes_in(&world);
        world.turn();
        // 8 KiB take 3.5 µs.
        let read = bytes_in(&world) - before;
        assert!((1..3_000_000).contains(&read), "{read} bytes");
    }
}

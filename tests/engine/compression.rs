//! Compressed messages in the engine: their memory and work.
#![cfg(feature = "deflate")]

use h_realtime_engine::Config;

use crate::sim::{Client, Command, End, Payload, World, client_frame, deflate, pad};

/// Returns a masked frame with compressed text.
fn compressed(data: &[u8]) -> Vec<u8> {
    client_frame(0xC1, data, [1, 2, 3, 4])
}

#[test]
fn compressing_connection_holds_no_memory_between_messages() {
    let mut world = World::calm();
    let number = world.open_compressing();
    for n in 0..20 {
        world.client(number).text(&format!("echo {n} {}", pad(500)));
        world.flow();
        let interest = world.interest(number).unwrap();
        assert!(interest.is_idle && interest.queued == 0, "{interest:?}");
    }
    let compression = &world.engine.counters().compression;
    assert!(compression.inflated > 0 && compression.inflated < 20);
    assert!(compression.inflated_to > compression.inflated_from);
    // Replies are not compressed.
    assert_eq!((compression.sent, world.clients[number].inflated()), (0, 0));
}

#[test]
fn event_is_compressed_once_for_all_receivers() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..100)
        .map(|n| match n % 10 {
            0 => world.open(),
            _ => world.open_compressing(),
        })
        .collect();
    let all_clients = |size| Command::FanOut { percent: 100, size };
    world.command(all_clients(2000));
    world.flow();
    let compression = &world.engine.counters().compression;
    // There are two variants of the event.
    assert_eq!((compression.deflated, compression.sent), (2, 90));
    assert!((1..compression.deflated_from / 2).contains(&compression.deflated_to));
    for number in clients {
        let client = &world.clients[number];
        assert_eq!(client.inflated(), usize::from(client.compresses));
    }
    // A short message is not worth compressing.
    world.command(all_clients(10));
    world.flow();
    assert_eq!(world.engine.counters().compression.deflated, 2);
}

#[test]
fn disabled_compression_is_not_negotiated() {
    let config = Config::default().deflate(false);
    let mut world = World::new(config, 1);
    let number = world.open_compressing();
    world.command(Command::FanOut {
        percent: 100,
        size: 2000,
    });
    world.flow();
    assert_eq!(world.clients[number].texts().len(), 1);
    assert_eq!(world.clients[number].inflated(), 0);
    fail_with(world.client(number), &compressed(&deflate(b"x")));
    world.flow();
    assert_eq!(world.clients[number].closed_with(), Some(1002));
}

#[test]
fn invalid_compressed_data_ends_the_connection() {
    let limit = Config::default().max_message;
    for (data, code) in [
        (vec![0x06], 1007),
        (deflate(b"\xff"), 1007),
        (deflate(&vec![b'x'; limit + 1]), 1009),
        (deflate(&vec![0; 1 << 20]), 1009),
        (vec![0xff; limit + 1], 1009),
    ] {
        let mut world = World::calm();
        let number = world.open_compressing();
        let is_whole = data.len() <= limit;
        fail_with(world.client(number), &compressed(&data));
        world.flow();
        assert_eq!(world.clients[number].closed_with(), Some(code));
        assert_eq!(world.clients[number].end(), End::Eof);
        let failures = world.engine.counters().compression.failures;
        assert_eq!(failures, u64::from(is_whole));
    }
}

/// Decompressed output counts as work like input: a client that sends little input with large
/// output gets its share of a turn, and others theirs.
#[test]
fn decompression_bombs_do_not_delay_others() {
    let mut world = World::calm();
    let bombers: Vec<_> = (0..8).map(|_| world.open_compressing()).collect();
    let other = world.open();
    let text = " ".repeat(Config::default().max_message);
    let bomb = compressed(&deflate(text.as_bytes()));
    assert!(bomb.len() < 100);
    for &number in &bombers {
        let client = world.client(number);
        client.raw(bomb.repeat(100));
        client
            .sent_messages
            .extend((0..100).map(|_| Payload::Text(text.clone())));
        world.deliver(number);
    }
    world.client(other).text("echo hello");
    world.deliver(other);
    let mut turns = 0;
    while world.inbox(other) == 0 {
        let before = world.engine.counters().compression.inflated_to;
        world.turn();
        let inflated = world.engine.counters().compression.inflated_to - before;
        // At most one read of bombs more than a turn's limit.
        assert!(
            inflated < (1 << 20) + 4096 * 1100,
            "{inflated} bytes in a turn"
        );
        turns += 1;
    }
    assert!(turns <= bombers.len() + 1, "{turns} turns");
    world.flow();
    assert_eq!(world.engine.counters().compression.inflated, 800);
}

/// Sends input that the model client does not track.
fn fail_with(client: &mut Client, bytes: &[u8]) {
    client.behavior.is_wrong = true;
    client.raw(bytes);
}

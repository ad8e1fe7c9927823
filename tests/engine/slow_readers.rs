//! Slow readers are closed without affecting others.

use h_realtime_engine::Config;

use crate::sim::{Command, World, pad};

const KIB: usize = 1024;

/// Returns a world with small kernel buffers, so that output waits in the engine's queues.
fn world(config: Config) -> World {
    let mut world = World::new(config, 1);
    world.limits.send = 1000;
    world
}

/// Publishes one event for each client.
fn publish(world: &mut World, clients: &[usize], size: usize) {
    let keys = clients.iter().map(|&client| world.key(client)).collect();
    world.command(Command::FanOutTo { keys, size });
    world.flow();
}

fn queued(world: &World, client: usize) -> usize {
    world.interest(client).map_or(0, |interest| interest.queued)
}

fn is_open(world: &World, client: usize) -> bool {
    world
        .interest(client)
        .is_some_and(|interest| interest.is_open)
}

/// Returns the close code that a client receives once it reads again.
fn code(world: &mut World, client: usize) -> Option<u16> {
    world.client(client).behavior.is_eager = true;
    world.flow();
    world.clients[client].closed_with()
}

// CVE-2026-79677
#[test]
fn queue_over_the_soft_limit_is_closed_after_ten_seconds() {
    let mut world = world(Config::default());
    let (slow, quick) = (world.open_lazy(), world.open());
    for _ in 0..10 {
        publish(&mut world, &[slow, quick], 10 * KIB);
    }
    assert!((64 * KIB..256 * KIB).contains(&queued(&world, slow)));
    world.wait(9_500);
    assert!(is_open(&world, slow));
    world.wait(800);
    assert!(!is_open(&world, slow));
    // The message in progress is completed, followed by the close frame: the oracle checks the
    // prefix.
    assert_eq!(code(&mut world, slow), Some(1013));
    assert_eq!(world.engine.counters().closed.slow, 1);
    // The other client has received everything, which the oracle checks as well.
    assert!(is_open(&world, quick));
    assert!(
        world
            .interest(quick)
            .is_some_and(|interest| interest.is_idle)
    );
}

/// Responses queued when the WebSocket opens have the same deadline as messages.
#[test]
fn output_queued_before_the_handshake_counts_from_the_handshake() {
    let mut world = world(Config::default());
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    let request = "GET /big HTTP/1.1\r\nHost: a\r\n\r\n";
    while queued(&world, client) < 40 * KIB {
        world.client(client).request(request, &[200]);
        world.deliver(client);
        world.settle();
    }
    world.client(client).request(request, &[200]);
    world.client(client).send_handshake("/ws");
    world.deliver(client);
    world.settle();
    assert!(is_open(&world, client) && queued(&world, client) > 64 * KIB);
    world.wait(9_500);
    assert!(is_open(&world, client));
    world.wait(800);
    assert_eq!(world.engine.counters().closed.slow, 1);
}

#[test]
fn client_that_reads_in_time_is_not_slow() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    for _ in 0..10 {
        for _ in 0..10 {
            publish(&mut world, &[client], 10 * KIB);
        }
        assert!(queued(&world, client) > 64 * KIB);
        world.wait(9_000);
        // Just below the limit again.
        while queued(&world, client) > 60 * KIB {
            world.listen(client, 1000);
            world.settle();
        }
        world.client(client).text("quiet still here");
        world.deliver(client);
        world.wait(2_000);
    }
    assert!(is_open(&world, client));
}

#[test]
fn queue_below_the_soft_limit_is_never_closed() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    for _ in 0..6 {
        publish(&mut world, &[client], 10 * KIB);
    }
    for _ in 0..20 {
        world.wait(10_000);
        world.client(client).text("quiet still here");
        world.deliver(client);
    }
    assert!(is_open(&world, client));
    world.client(client).behavior.is_eager = true;
    world.flow();
}

// CVE-2020-35896
#[test]
fn stalled_client_over_the_hard_limit_is_closed_after_a_second() {
    let mut world = world(Config::default());
    let (slow, quick) = (world.open_lazy(), world.open());
    while queued(&world, slow) <= 256 * KIB {
        publish(&mut world, &[slow, quick], 10 * KIB);
    }
    // Its link may have a long delay: the kernel has to find its capacity.
    world.wait(900);
    publish(&mut world, &[slow, quick], 10 * KIB);
    assert!(is_open(&world, slow));
    world.wait(300);
    publish(&mut world, &[slow, quick], 10 * KIB);
    assert!(!is_open(&world, slow));
    assert!(
        queued(&world, slow) < 12 * KIB,
        "unsent messages were dropped"
    );
    assert_eq!(code(&mut world, slow), Some(1013));
    assert!(is_open(&world, quick));
    assert_eq!(world.engine.counters().closed.slow, 1);
}

// CVE-2020-35896
#[test]
fn burst_over_the_hard_limit_reaches_a_reading_client() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    for _ in 0..200 {
        publish(&mut world, &[client], 10 * KIB);
    }
    // 200 KB per second: it lags by up to ten seconds.
    for _ in 0..90 {
        world.wait(100);
        for _ in 0..20 {
            world.listen(client, 1024);
            world.settle();
        }
        assert!(is_open(&world, client), "{} left", queued(&world, client));
    }
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert!(is_open(&world, client));
    assert_eq!(world.engine.counters().unsent, 0);
}

// A shared message takes memory once, so the sum over its receivers is irrelevant. M6
#[test]
fn a_large_event_reaches_all_clients_that_read() {
    let mut world = world(Config::default());
    world.limits.send = 60_000;
    let clients: Vec<_> = (0..100).map(|_| world.open()).collect();
    publish(&mut world, &clients, 900 * KIB);
    assert!(clients.iter().all(|&client| is_open(&world, client)));
    assert_eq!(world.engine.counters().closed.slow, 0);
    assert_eq!(world.engine.counters().undelivered, 0);
}

// M6
#[test]
fn clients_that_read_survive_events_that_fill_the_memory_of_clients_that_do_not() {
    let config = Config::default().queue_total(8 << 20);
    let mut world = world(config);
    world.limits.send = 60_000;
    let readers: Vec<_> = (0..10).map(|_| world.open()).collect();
    let stalled: Vec<_> = (0..10).map(|_| world.open_lazy()).collect();
    let all: Vec<_> = readers.iter().chain(&stalled).copied().collect();
    for _ in 0..40 {
        publish(&mut world, &all, 500 * KIB);
        world.wait(300);
        let held = world.engine.counters().ledger.output();
        assert!(held <= 12 << 20, "{held}");
    }
    assert!(readers.iter().all(|&client| is_open(&world, client)));
    assert!(!stalled.iter().any(|&client| is_open(&world, client)));
}

#[test]
fn replies_count_like_events() {
    let config = Config::default().queue_soft(30_000).queue_hard(35_000);
    let mut world = world(config);
    let client = world.open_lazy();
    // Within one share of work, before the client can be throttled.
    for number in 0..6 {
        world
            .client(client)
            .text(&format!("twice {number} {}", pad(20_000)));
    }
    world.deliver(client);
    world.settle();
    assert!(
        !is_open(&world, client),
        "{} queued",
        queued(&world, client)
    );
    assert!(queued(&world, client) <= 35_000);
    assert_eq!(code(&mut world, client), Some(1013));
}

#[test]
fn pipelined_requests_wait_until_their_responses_are_read() {
    let mut world = world(Config::default());
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    for _ in 0..100 {
        world
            .client(client)
            .request("GET /big HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    }
    world.deliver(client);
    world.settle();
    let queued = queued(&world, client);
    assert!(queued <= 256 * KIB + 40_000, "{queued}");
    let answered = world.clients[client].statuses().len();
    assert!(answered < 30, "{answered}");
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200; 100]);
}

#[test]
fn one_message_always_fits_an_empty_queue() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    publish(&mut world, &[client], 1000 * KIB);
    assert!(is_open(&world, client));
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert!(is_open(&world, client));
}

#[test]
fn client_that_never_reads_is_cut_five_seconds_after_close() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    for _ in 0..6 {
        publish(&mut world, &[client], 50 * KIB);
    }
    world.wait(1_200);
    publish(&mut world, &[client], 50 * KIB);
    assert!(!is_open(&world, client));
    world.wait(4_800);
    assert!(world.interest(client).is_some());
    world.wait(400);
    assert!(world.interest(client).is_none());
    assert!(world.clients[client].wire.state().is_aborted);
    assert_eq!(world.engine.counters().queued_bytes, 0);
}

// M6
#[test]
fn stalled_connections_are_closed_to_hold_all_output_under_its_limit() {
    let config = Config::default().queue_total(2000 * KIB);
    let mut world = world(config);
    let large: Vec<_> = (0..20).map(|_| world.open_lazy()).collect();
    let lean: Vec<_> = (0..20).map(|_| world.open_lazy()).collect();
    let quick = world.open();
    let all: Vec<_> = large.iter().chain(&lean).copied().chain([quick]).collect();
    publish(&mut world, &all, 5 * KIB);
    world.wait(2_500);
    for _ in 0..25 {
        // Each has its own messages: shared ones are held once.
        for &client in &large {
            publish(&mut world, &[client], 5 * KIB);
        }
        assert!(world.engine.counters().ledger.output() <= 2000 * KIB as u64);
    }
    assert!(world.engine.counters().closed.slow >= 5);
    assert!(lean.iter().all(|&client| is_open(&world, client)));
    assert!(is_open(&world, quick));
    let closed = large.iter().find(|&&client| !is_open(&world, client));
    let closed = *closed.expect("some of the largest holders");
    assert_eq!(code(&mut world, closed), Some(1013));
}

/// Lets clients read the given number of bytes every 100 ms until events may be delivered again.
/// Returns the elapsed milliseconds.
fn time_until_room(world: &mut World, readers: &[(usize, usize)], total: usize) -> u64 {
    let start = world.clock;
    while world.engine.counters().ledger.output() >= total as u64 / 2 {
        for &(client, rate) in readers {
            world.listen(client, rate);
            world.deliver(client);
        }
        world.wait(100);
        assert!(
            world.clock < start + 300_000,
            "events are held back for minutes"
        );
    }
    world.clock - start
}

// M6
#[test]
fn slow_server_does_not_close_reading_clients() {
    let mut world = world(Config::default());
    world.limits.send = 60_000;
    let clients: Vec<_> = (0..300).map(|_| world.open()).collect();
    let keys = clients.iter().map(|&client| world.key(client)).collect();
    let size = 600 * KIB;
    world.command(Command::FanOutTo { keys, size });
    let start = world.clock;
    // Each of them immediately reads all output of a turn.
    while start == world.clock || world.engine.counters().ledger.output() > 0 {
        world.turn();
        world.exchange();
        world.clock += 500;
    }
    assert!(world.clock - start > 20_000, "the server was not slow");
    assert!(clients.iter().all(|&client| is_open(&world, client)));
}

// M6
#[test]
fn slow_readers_of_large_messages_hold_back_further_events_for_seconds_only() {
    let mut world = world(Config::default());
    world.limits.send = 60_000;
    let mut readers: Vec<_> = (0..8).map(|_| (world.open_lazy(), 7_000)).collect();
    let steady = world.open_lazy();
    readers.push((steady, 110_000));
    for &(client, _) in &readers {
        publish(&mut world, &[client], 4 << 20);
    }
    let time = time_until_room(&mut world, &readers, 64 << 20);
    assert!(time <= 10_000, "{time} ms");
    assert!(is_open(&world, steady));
    let closed = world.engine.counters().closed.slow;
    assert!((1..=8).contains(&closed), "{closed}");
}

// M6
#[test]
fn several_large_messages_do_not_extend_the_deadline() {
    let config = Config::default().queue_total(16 << 20);
    let mut world = world(config);
    world.limits.send = 60_000;
    let client = world.open_lazy();
    // Each of them is read within a second and a half.
    for _ in 0..40 {
        publish(&mut world, &[client], 300 * KIB);
    }
    let time = time_until_room(&mut world, &[(client, 20 * KIB)], 16 << 20);
    assert!(time <= 10_000, "{time} ms");
}

// M6
#[test]
fn slow_reader_of_a_large_message_stays_while_memory_suffices() {
    let mut world = world(Config::default());
    world.limits.send = 60_000;
    let client = world.open_lazy();
    publish(&mut world, &[client], 4 << 20);
    for _ in 0..620 {
        world.listen(client, 7_000);
        world.deliver(client);
        world.wait(100);
    }
    assert!(is_open(&world, client));
    assert_eq!(queued(&world, client), 0);
}

//! Who does not read what is sent to it is closed, and nobody else notices.

use h_realtime_engine::Config;

use crate::sim::{Command, World, pad};

const KIB: usize = 1024;

/// A world with small buffers in the kernel, so that what waits does so in the queues.
fn world(config: Config) -> World {
    let mut world = World::new(config, 1);
    world.limits.send = 1000;
    world
}

/// One event for each of these.
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

/// What a client is closed with once it reads again.
fn code(world: &mut World, client: usize) -> Option<u16> {
    world.client(client).conduct.is_eager = true;
    world.flow();
    world.clients[client].closed_with()
}

// CVE-2026-79677
#[test]
fn more_than_the_soft_limit_may_wait_for_ten_seconds() {
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
    // What was begun is finished, and then it is told why: the oracle checks the prefix.
    assert_eq!(code(&mut world, slow), Some(1013));
    assert_eq!(world.engine.counters().closed.slow, 1);
    // The other one has had everything, which the oracle checks as well.
    assert!(is_open(&world, quick));
    assert!(
        world
            .interest(quick)
            .is_some_and(|interest| interest.is_idle)
    );
}

/// Answers that waited when the WebSocket opened wait no longer than what is said on it.
#[test]
fn what_waited_before_the_handshake_counts_from_then_on() {
    let mut world = world(Config::default());
    let client = world.connect();
    world.client(client).conduct.is_eager = false;
    let request = "GET /big HTTP/1.1\r\n\r\n";
    while queued(&world, client) < 40 * KIB {
        world.client(client).request(request, &[200]);
        world.deliver(client);
        world.settle();
    }
    world.client(client).request(request, &[200]);
    world.client(client).shake("/ws");
    world.deliver(client);
    world.settle();
    assert!(is_open(&world, client) && queued(&world, client) > 64 * KIB);
    world.wait(9_500);
    assert!(is_open(&world, client));
    world.wait(800);
    assert_eq!(world.engine.counters().closed.slow, 1);
}

#[test]
fn one_who_reads_in_time_is_not_slow() {
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
fn less_than_the_soft_limit_may_wait_as_long_as_its_reader_lives() {
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
    world.client(client).conduct.is_eager = true;
    world.flow();
}

// CVE-2020-35896
#[test]
fn a_client_that_takes_nothing_is_closed_beyond_the_hard_limit_after_a_second() {
    let mut world = world(Config::default());
    let (slow, quick) = (world.open_lazy(), world.open());
    while queued(&world, slow) <= 256 * KIB {
        publish(&mut world, &[slow, quick], 10 * KIB);
    }
    // Its way may be long: the kernel has to find out how much it carries.
    world.wait(900);
    publish(&mut world, &[slow, quick], 10 * KIB);
    assert!(is_open(&world, slow));
    world.wait(300);
    publish(&mut world, &[slow, quick], 10 * KIB);
    assert!(!is_open(&world, slow));
    assert!(
        queued(&world, slow) < 12 * KIB,
        "what was not begun was dropped"
    );
    assert_eq!(code(&mut world, slow), Some(1013));
    assert!(is_open(&world, quick));
    assert_eq!(world.engine.counters().closed.slow, 1);
}

// CVE-2020-35896
#[test]
fn a_burst_beyond_the_hard_limit_reaches_a_client_that_reads() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    for _ in 0..200 {
        publish(&mut world, &[client], 10 * KIB);
    }
    // 200 KB a second: it is behind by up to ten seconds.
    for _ in 0..90 {
        world.wait(100);
        for _ in 0..20 {
            world.listen(client, 1024);
            world.settle();
        }
        assert!(is_open(&world, client), "{} left", queued(&world, client));
    }
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert!(is_open(&world, client));
    assert_eq!(world.engine.counters().unsent, 0);
}

// A shared message takes memory once: the sum over its receivers is not held by anything.
// M6
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
    let config = Config {
        queue_total: 8 << 20,
        ..Config::default()
    };
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
fn replies_count_as_events_do() {
    let config = Config {
        queue_soft: 30_000,
        queue_hard: 35_000,
        ..Config::default()
    };
    let mut world = world(config);
    let client = world.open_lazy();
    // Within one share of work, before anything can keep it from being read from.
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
    world.client(client).conduct.is_eager = false;
    for _ in 0..100 {
        world
            .client(client)
            .request("GET /big HTTP/1.1\r\n\r\n", &[200]);
    }
    world.deliver(client);
    world.settle();
    let queued = queued(&world, client);
    assert!(queued <= 256 * KIB + 40_000, "{queued}");
    let answered = world.clients[client].statuses().len();
    assert!(answered < 30, "{answered}");
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200; 100]);
}

#[test]
fn one_message_always_fits_an_empty_queue() {
    let mut world = world(Config::default());
    let client = world.open_lazy();
    publish(&mut world, &[client], 1000 * KIB);
    assert!(is_open(&world, client));
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert!(is_open(&world, client));
}

#[test]
fn one_who_never_reads_is_cut_five_seconds_after_it_was_closed() {
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
    let config = Config {
        queue_total: 2000 * KIB,
        ..Config::default()
    };
    let mut world = world(config);
    let fat: Vec<_> = (0..20).map(|_| world.open_lazy()).collect();
    let lean: Vec<_> = (0..20).map(|_| world.open_lazy()).collect();
    let quick = world.open();
    let all: Vec<_> = fat.iter().chain(&lean).copied().chain([quick]).collect();
    publish(&mut world, &all, 5 * KIB);
    world.wait(2_500);
    for _ in 0..25 {
        // Each has messages of its own: shared ones are held once.
        for &client in &fat {
            publish(&mut world, &[client], 5 * KIB);
        }
        assert!(world.engine.counters().ledger.output() <= 2000 * KIB as u64);
    }
    assert!(world.engine.counters().closed.slow >= 5);
    assert!(lean.iter().all(|&client| is_open(&world, client)));
    assert!(is_open(&world, quick));
    let closed = fat.iter().find(|&&client| !is_open(&world, client));
    let closed = *closed.expect("some of the fat ones");
    assert_eq!(code(&mut world, closed), Some(1013));
}

/// Lets clients read so many bytes every 100 ms, until events may be delivered again. Returns how
/// many milliseconds that took.
fn time_until_room(world: &mut World, readers: &[(usize, usize)], total: usize) -> u64 {
    let start = world.clock;
    while world.engine.counters().ledger.output() >= total as u64 / 2 {
        for &(client, rate) in readers {
            world.listen(client, rate);
            world.deliver(client);
        }
        world.wait(100);
        assert!(world.clock < start + 300_000, "events wait for minutes");
    }
    world.clock - start
}

// M6
#[test]
fn a_busy_server_does_not_take_clients_that_read_for_slow_ones() {
    let mut world = world(Config::default());
    world.limits.send = 60_000;
    let clients: Vec<_> = (0..300).map(|_| world.open()).collect();
    let keys = clients.iter().map(|&client| world.key(client)).collect();
    let size = 600 * KIB;
    world.command(Command::FanOutTo { keys, size });
    let start = world.clock;
    // Each of them reads at once whatever a turn sends to it.
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
fn many_large_messages_give_a_slow_reader_no_more_time_than_one() {
    let config = Config {
        queue_total: 16 << 20,
        ..Config::default()
    };
    let mut world = world(config);
    world.limits.send = 60_000;
    let client = world.open_lazy();
    // Each of them is taken within a second and a half.
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

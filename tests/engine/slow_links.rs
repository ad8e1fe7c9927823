//! A client behind a slow link reads a ping only after all output queued before it.

use crate::sim::{Command, World};

const KIB: usize = 1024;

fn is_open(world: &World, client: usize) -> bool {
    world
        .interest(client)
        .is_some_and(|interest| interest.is_open)
}

fn publish(world: &mut World, client: usize, size: usize) {
    let keys = vec![world.key(client)];
    world.command(Command::FanOutTo { keys, size });
    world.turn();
}

/// Returns the seconds until a client is cut; it reads `rate` bytes in each of them.
fn cut_after(world: &mut World, client: usize, rate: usize, most: u64) -> Option<u64> {
    for second in 0..most {
        if !is_open(world, client) {
            return Some(second);
        }
        world.listen(client, rate);
        world.deliver(client);
        world.wait(1000);
    }
    None
}

// W17
#[test]
fn client_reading_two_kilobytes_per_second_is_not_cut() {
    for size in [10, 40, 120, 240] {
        for send in [16, 60, 1000] {
            let mut world = World::calm();
            world.limits.send = send * KIB;
            let client = world.open_lazy();
            // Below the soft limit, everything beyond the kernel's buffer.
            for _ in 0..size.min(send + 50) / 10 {
                publish(&mut world, client, 10 * KIB);
            }
            let cut = cut_after(&mut world, client, 2000, 400);
            assert_eq!(cut, None, "{size} KiB, {send} KiB in the kernel");
            assert!(world.engine.counters().pings_sent > 5);
        }
    }
}

#[test]
fn client_reading_at_the_documented_rate_is_not_cut() {
    let mut world = World::calm();
    let client = world.open_lazy();
    for _ in 0..28 {
        publish(&mut world, client, 10 * KIB);
    }
    assert_eq!(cut_after(&mut world, client, KIB, 600), None);
}

// W17
#[test]
fn dead_client_times_out_in_the_time_its_output_would_take() {
    for (size, least, most) in [(0, 30, 56), (40, 60, 100), (120, 130, 180), (900, 310, 360)] {
        let mut world = World::calm();
        let client = world.open_lazy();
        for _ in 0..size / 10 {
            publish(&mut world, client, 10 * KIB);
        }
        let cut = cut_after(&mut world, client, 0, 400).expect("the client is cut");
        assert!((least..=most).contains(&cut), "{size} KiB: {cut} s");
        assert_eq!(world.engine.counters().closed.timed_out, 1);
    }
}

/// Each pong tells how far the client has read.
// W17
#[test]
fn dead_client_without_unread_output_times_out_like_an_idle_one() {
    let mut world = World::calm();
    let client = world.open();
    for _ in 0..300 {
        publish(&mut world, client, 4 * KIB);
        world.wait(1000);
    }
    world.wait(35_000);
    world.client(client).vanish();
    let cut = cut_after(&mut world, client, 0, 400).expect("the client is cut");
    assert!(cut <= 56, "{cut} s");
    assert_eq!(world.engine.counters().closed.timed_out, 1);
}

/// Returns how long before its actual last sign of life a client was seen last, after it has been
/// dropped because it did not answer a ping.
fn lateness(world: &mut World, client: usize) -> u64 {
    let key = world.key(client);
    let heard = world.clock;
    world.client(client).vanish();
    for _ in 0..40 {
        publish(world, client, 100);
        world.wait(10_000);
    }
    assert_eq!(world.engine.counters().closed.timed_out, 1);
    let last = world.log().get().lives[&key].last_received.unwrap();
    assert!(last <= heard, "{last} {heard}");
    heard - last
}

#[test]
fn last_sign_of_life_of_a_dead_client_is_known_up_to_the_ping_interval() {
    let mut world = World::calm();
    world.wait(1_000_000);
    let client = world.open();
    let late = lateness(&mut world, client);
    assert!(late <= 40_000, "{late} ms");
    // Output of up to a second is ahead of the ping.
    let mut world = World::calm();
    world.wait(1_000_000);
    let client = world.open();
    for _ in 0..100 {
        publish(&mut world, client, 200);
        world.wait(200);
    }
    let late = lateness(&mut world, client);
    assert!(late <= 70_000, "{late} ms");
}

#[test]
fn last_sign_of_life_is_never_late_if_the_ping_follows_much_output() {
    for size in [2, 40, 120, 240] {
        let mut world = World::calm();
        world.wait(1_000_000);
        let client = world.open_lazy();
        for _ in 0..size / 2 {
            publish(&mut world, client, 2 * KIB);
        }
        lateness(&mut world, client);
    }
}

//! Changed limits of a running engine: connections and requests in progress continue under the new
//! limits. Each step checks the engine's accounts.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use h_realtime_engine::Config;

use crate::sim::{Behavior, Command, World};

const KIB: usize = 1024;

fn ip(last: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(192, 0, 2, last).into())
}

fn change(world: &mut World, change: impl FnOnce(&mut Config)) {
    let mut config = Config::default();
    change(&mut config);
    world.reload(config);
    world.flow();
}

#[test]
fn lowered_limits_apply_to_partial_heads_and_messages() {
    let mut world = World::calm();
    let asking = world.connect();
    let half = format!("GET /ws HTTP/1.1\r\nHost: sim\r\nX: {}", "x".repeat(1000));
    world.client(asking).request(half, &[431]);
    world.client(asking).has_begun = true;
    let telling = world.open();
    world.client(telling).has_begun = true;
    world.client(telling).frame(0x01, &[b'x'; 1000]);
    let other = world.open();
    world.flow();
    change(&mut world, |config| {
        config.max_head = 500;
        config.max_message = 500;
    });
    // No connection is closed by the change; the next byte exceeds the limit.
    assert_eq!(world.engine.counters().connections, 3);
    world.client(asking).raw("x");
    world.client(telling).behavior.is_wrong = true;
    world.client(telling).frame(0x00, b"x");
    world.flow();
    assert_eq!(world.clients[asking].statuses(), [431]);
    assert_eq!(world.clients[telling].closed_with(), Some(1009));
    world.client(other).text("short");
    world.flow();
    assert!(
        world
            .interest(other)
            .is_some_and(|interest| interest.is_open)
    );
}

#[test]
fn address_limit_only_counts_connections_accepted_under_it() {
    let mut world = World::calm();
    let connect_client = |world: &mut World| {
        let client = world.connect_from(ip(1), Behavior::EAGER);
        world.flow();
        client
    };
    let is_in = |world: &World, client: usize| world.clients[client].key.is_some();
    let before: Vec<_> = (0..3).map(|_| connect_client(&mut world)).collect();
    change(&mut world, |config| config.max_per_ip = Some(1));
    let (first, second) = (connect_client(&mut world), connect_client(&mut world));
    assert!(is_in(&world, first) && !is_in(&world, second));
    // A connection that was not counted makes no room when it ends.
    world.client(before[0]).finish();
    world.flow();
    let third = connect_client(&mut world);
    assert!(!is_in(&world, third));
    change(&mut world, |_| {});
    let fourth = connect_client(&mut world);
    assert!(is_in(&world, fourth));
    world.client(first).finish();
    world.flow();
    change(&mut world, |config| config.max_per_ip = Some(1));
    let fifth = connect_client(&mut world);
    assert!(is_in(&world, fifth));
    world.finish();
}

// P4
#[test]
fn a_changed_ipv6_prefix_counts_open_connections_again() {
    let config = Config::default().max_per_ip(Some(2));
    let mut world = World::new(config, 1);
    let connect_client = |world: &mut World, peer: &str| {
        let client = world.connect_from(Some(peer.parse().unwrap()), Behavior::EAGER);
        world.client(client).send_handshake("/ws");
        world.flow();
        world.clients[client].key.map(|_| client)
    };
    let first = connect_client(&mut world, "2001:db8:0:1::1").unwrap();
    let second = connect_client(&mut world, "2001:db8:0:2::1").unwrap();
    let prefix = |world: &mut World, prefix| {
        change(world, |config| {
            config.max_per_ip = Some(2);
            config.ipv6_prefix = prefix;
        });
    };
    prefix(&mut world, 56);
    assert_eq!(connect_client(&mut world, "2001:db8:0:3::1"), None);
    // A connection counted under the old prefix makes room under the new one.
    world.client(first).close(1000);
    world.flow();
    assert!(connect_client(&mut world, "2001:db8:0:3::1").is_some());
    assert_eq!(connect_client(&mut world, "2001:db8:0:4::1"), None);
    prefix(&mut world, 64);
    assert!(connect_client(&mut world, "2001:db8:0:2::2").is_some());
    assert_eq!(connect_client(&mut world, "2001:db8:0:2::3"), None);
    world.client(second).close(1000);
    world.flow();
    assert!(connect_client(&mut world, "2001:db8:0:2::3").is_some());
    world.finish();
}

#[test]
fn raised_limit_keeps_a_slow_reader() {
    let mut world = World::calm();
    world.limits.send = 1000;
    let slow = world.open_lazy();
    for _ in 0..10 {
        let keys = vec![world.key(slow)];
        let size = 10 * KIB;
        world.command(Command::FanOutTo { keys, size });
        world.flow();
    }
    let is_open = |world: &World| {
        world
            .interest(slow)
            .is_some_and(|interest| interest.is_open)
    };
    world.wait(9_000);
    change(&mut world, |config| config.queue_soft = 200 * KIB);
    world.wait(3_000);
    assert!(is_open(&world));
    // With a lower limit it is too slow, without any further output.
    change(&mut world, |config| {
        config.queue_soft = 10 * KIB;
        config.slow_timeout = Duration::from_secs(1);
    });
    world.wait(1_300);
    assert!(!is_open(&world));
}

#[test]
fn changed_message_timeout_applies_at_once() {
    let mut world = World::calm();
    let client = world.open();
    world.client(client).has_begun = true;
    world.client(client).frame(0x01, b"x");
    world.flow();
    world.wait(500);
    change(&mut world, |config| {
        config.message_timeout = Duration::from_secs(1);
    });
    world.wait(300);
    assert_eq!(world.clients[client].closed_with(), None);
    world.wait(400);
    assert_eq!(world.clients[client].closed_with(), Some(1008));
}

#[test]
fn lowered_connection_limit_closes_no_connection() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..5).map(|_| world.open()).collect();
    change(&mut world, |config| config.max_connections = 2);
    assert_eq!(world.engine.counters().open, 5);
    let surplus = world.connect();
    world.client(surplus).send_handshake("/ws");
    world.flow();
    assert_eq!(world.clients[surplus].statuses(), [503]);
    for &client in &clients[..4] {
        world.client(client).close(1000);
    }
    world.flow();
    world.open();
    assert_eq!(world.engine.counters().open, 2);
}

/// Returns the number of pings to these clients in each of the following tenths of a second.
fn pings_per_tenth(world: &mut World, tenths: usize) -> Vec<u64> {
    let mut before = world.engine.counters().pings_sent;
    let sent = (0..tenths).map(|_| {
        world.wait(100);
        let sent = world.engine.counters().pings_sent;
        sent - std::mem::replace(&mut before, sent)
    });
    sent.collect()
}

#[test]
fn shorter_ping_interval_is_spread_over_idle_connections() {
    let config = Config::default().ping_interval(Duration::from_secs(300));
    let mut world = World::new(config, 1);
    let clients: Vec<_> = (0..1000).map(|_| world.connect()).collect();
    for &client in &clients {
        world.client(client).send_handshake("/ws");
    }
    world.wait(10_000);
    let vanished = clients[7];
    world.client(vanished).vanish();
    change(&mut world, |config| {
        config.ping_interval = Duration::from_secs(2);
        config.pong_timeout = Duration::from_secs(3);
    });
    let sent = pings_per_tenth(&mut world, 21);
    assert!(sent.iter().sum::<u64>() >= 1000, "{sent:?}");
    assert!(sent.iter().all(|&sent| sent < 250), "{sent:?}");
    world.wait(3_200);
    assert!(world.interest(vanished).is_none());
    assert_eq!(world.engine.counters().open, 999);
    // The same for a longer interval.
    change(&mut world, |_| {});
    world.wait(3_000);
    let sent = pings_per_tenth(&mut world, 200);
    assert_eq!(sent.iter().sum::<u64>(), 0);
}

#[test]
fn shorter_pong_timeout_counts_from_the_reload() {
    let mut world = World::calm();
    let client = world.open_lazy();
    while world.engine.counters().pings_sent == 0 {
        world.wait(1000);
    }
    world.wait(10_000);
    change(&mut world, |config| {
        config.pong_timeout = Duration::from_secs(2);
    });
    world.wait(1_800);
    assert!(world.interest(client).is_some());
    world.wait(400);
    assert!(world.interest(client).is_none());
}

#[test]
fn last_sign_of_life_is_never_late_if_the_pong_timeout_was_shortened() {
    for seed in 0..100 {
        let mut world = World::new(Config::default(), seed);
        let client = world.open();
        world.wait(40_000);
        world.client(client).text("echo");
        world.settle();
        let (key, heard) = (world.key(client), world.clock);
        let pings = world.engine.counters().pings_sent;
        world.client(client).vanish();
        while world.engine.counters().pings_sent == pings {
            world.wait(1000);
        }
        world.wait(18_900);
        change(&mut world, |config| {
            config.pong_timeout = Duration::from_secs(10);
        });
        world.wait(30_000);
        let last = world.log().get().lives[&key].last_received.unwrap();
        assert!(last <= heard, "{last} {heard}");
    }
}

#[test]
fn shorter_timeouts_apply_to_requests_and_closes_in_progress() {
    let mut world = World::calm();
    let silent = world.connect();
    let body = world.connect();
    let head = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    world.client(body).request(head, &[200]);
    let deferred = world.connect();
    world.client(deferred).send_handshake("/later");
    let closing = world.open_lazy();
    let lingering = world.open_lazy();
    let key = world.key(closing);
    world.command(Command::CloseOne { key, code: 4003 });
    world.client(lingering).close(1000);
    world.deliver(lingering);
    world.flow();
    let all = [silent, body, deferred, closing, lingering];
    assert!(all.iter().all(|&client| world.interest(client).is_some()));
    change(&mut world, |config| {
        let short = Duration::from_millis(500);
        config.handshake_timeout = short;
        config.body_timeout = short;
        config.defer_timeout = short;
        config.close_timeout = short;
        config.linger_timeout = short;
    });
    world.wait(400);
    assert!(all.iter().all(|&client| world.interest(client).is_some()));
    world.wait(300);
    assert!(all.iter().all(|&client| world.interest(client).is_none()));
    assert_eq!(world.clients[body].statuses(), [408]);
    assert_eq!(world.clients[deferred].statuses(), [503]);
}

#[test]
fn reload_of_many_connections_takes_several_turns() {
    let config = Config::default().ping_interval(Duration::from_secs(300));
    let mut world = World::new(config, 1);
    for _ in 0..9000 {
        let client = world.connect();
        world.client(client).send_handshake("/ws");
    }
    world.flow();
    world.reload(Config::default().ping_interval(Duration::from_secs(20)));
    world.turn();
    let timeout = world.timeout();
    assert_eq!(timeout, 0, "some connections are left for later turns");
    world.turn();
    assert!(world.timeout() > 0);
    for _ in 0..40 {
        world.clock += 500;
        world.turn_without_events();
        // A turn handles a limited number of timers.
        while world.timeout() == 0 {
            world.turn_without_events();
        }
    }
    assert_eq!(world.engine.counters().pings_sent, 9000);
}

#[test]
fn reload_keeps_the_deadline_of_a_deferred_request_without_upgrade() {
    let mut world = World::calm();
    let client = world.connect();
    let request = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.flow();
    let key = world.key(client);
    change(&mut world, |config| {
        config.defer_timeout = Duration::from_secs(5);
    });
    world.wait(20_000);
    assert_eq!(world.clients[client].events, []);
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
}

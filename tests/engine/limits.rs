//! Limits on connections, and the pace of a shutdown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use h_realtime_engine::Config;
use h_realtime_engine::http::Proxies;

use crate::sim::{Behavior, End, Payload, World};

fn ip(last: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(192, 0, 2, last).into())
}

#[test]
fn connections_over_the_limit_get_503() {
    let config = Config::default().max_connections(5);
    let mut world = World::new(config, 1);
    let first: Vec<_> = (0..5).map(|_| world.open()).collect();
    let surplus = world.connect();
    world.client(surplus).send_handshake("/ws");
    world.flow();
    assert_eq!(world.clients[surplus].statuses(), [503]);
    assert_eq!(world.clients[surplus].end(), End::Eof);
    // Connections are accepted to send a 503, up to a limit.
    let clients: Vec<_> = (0..100).map(|_| world.connect()).collect();
    world.flow();
    assert_eq!(world.engine.counters().connections, 5 + 32);
    assert!(
        clients[32..]
            .iter()
            .all(|&client| world.clients[client].key.is_none())
    );
    assert_eq!(world.engine.counters().refused_full, 101);
    // A closed connection makes room for a new one.
    clients
        .iter()
        .for_each(|&client| world.client(client).finish());
    world.client(first[0]).close(1000);
    world.flow();
    world.open();
    assert_eq!(world.engine.counters().open, 5);
}

// A4
#[test]
fn addresses_are_limited_individually() {
    let config = Config::default()
        .max_per_ip(Some(2))
        .trusted_proxies(Proxies::parse(["192.0.2.9"]).unwrap());
    let mut world = World::new(config, 1);
    let clients: Vec<_> = (0..3)
        .map(|_| world.connect_from(ip(1), Behavior::EAGER))
        .collect();
    world.connect_from(ip(2), Behavior::EAGER);
    world.flow();
    let is_in = |world: &World, client: usize| world.clients[client].key.is_some();
    assert!(is_in(&world, clients[0]) && is_in(&world, clients[1]));
    assert!(!is_in(&world, clients[2]));
    assert_eq!(world.engine.counters().refused_per_ip, 1);
    // A closed connection makes room for a new one.
    world.client(clients[0]).finish();
    world.flow();
    let next = world.connect_from(ip(1), Behavior::EAGER);
    world.flow();
    assert!(is_in(&world, next));
    // Loopback, Unix sockets, and proxies are not limited by address.
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for peer in [
        None,
        ip(9),
        Some(Ipv4Addr::LOCALHOST.into()),
        Some(Ipv6Addr::LOCALHOST.into()),
        Some(mapped.into()),
    ] {
        let clients: Vec<_> = (0..10)
            .map(|_| world.connect_from(peer, Behavior::EAGER))
            .collect();
        world.flow();
        assert!(
            clients.iter().all(|&client| is_in(&world, client)),
            "{peer:?}"
        );
    }
    world.finish();
}

fn v6(text: &str) -> Option<IpAddr> {
    Some(text.parse::<Ipv6Addr>().unwrap().into())
}

// P4
#[test]
fn ipv6_networks_are_limited_individually() {
    for (prefix, same, other) in [
        (64, "2001:db8:0:1:ffff::9", "2001:db8:0:2::1"),
        (56, "2001:db8:0:ff::1", "2001:db8:0:100::1"),
        (128, "2001:db8:0:1::1", "2001:db8:0:1::2"),
    ] {
        let config = Config::default()
            .max_per_ip(Some(2))
            .ipv6_prefix(prefix)
            .trusted_proxies(Proxies::parse(["2001:db8:0:1::53"]).unwrap());
        let mut world = World::new(config, 1);
        let mut connect_client = |peer| {
            let client = world.connect_from(peer, Behavior::EAGER);
            world.flow();
            world.clients[client].key.is_some()
        };
        let first = v6("2001:db8:0:1::1");
        assert!(
            connect_client(first) && connect_client(v6(same)),
            "{prefix}"
        );
        assert!(
            !connect_client(first) && !connect_client(v6(same)),
            "{prefix}"
        );
        assert!(
            connect_client(v6(other)) && connect_client(v6(other)),
            "{prefix}"
        );
        assert!(!connect_client(v6(other)), "{prefix}");
        // A trusted proxy in the network is not counted.
        assert!((0..5).all(|_| connect_client(v6("2001:db8:0:1::53"))));
        // IPv4 addresses count individually, in any notation.
        assert!(
            connect_client(ip(1)) && connect_client(v6("::ffff:192.0.2.1")),
            "{prefix}"
        );
        assert!(
            !connect_client(ip(1)) && !connect_client(v6("64:ff9b::192.0.2.1")),
            "{prefix}"
        );
        assert!(connect_client(v6("::ffff:192.0.2.2")), "{prefix}");
        // A closed connection makes room for a new one.
        world.client(0).finish();
        world.flow();
        let next = world.connect_from(v6(same), Behavior::EAGER);
        world.flow();
        assert!(world.clients[next].key.is_some());
        world.finish();
    }
}

#[test]
fn shutdown_closes_all_with_1012_at_a_limited_rate() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..1200).map(|_| world.connect()).collect();
    clients
        .iter()
        .for_each(|&client| world.client(client).send_handshake("/ws"));
    world.flow();
    assert_eq!(world.engine.counters().open, 1200);
    world.shut_down(Duration::from_secs(4));
    world.flow();
    let at_once = world.engine.counters().closed.shutdown;
    assert!((1..=20).contains(&at_once), "{at_once}");
    for second in 1..4 {
        world.wait(1000);
        let closed = world.engine.counters().closed.shutdown;
        let want = 300 * second;
        assert!(
            (want - 40..=want + 40).contains(&closed),
            "{closed} after {second} s"
        );
    }
    assert!(!world.has_ended());
    world.wait(1100);
    assert!(world.has_ended());
    let told = |&client: &usize| world.clients[client].closed_with() == Some(1012);
    assert!(clients.iter().all(told));
}

#[test]
fn shutdown_of_few_connections_does_not_use_all_the_time() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..40).map(|_| world.open()).collect();
    world.shut_down(Duration::from_secs(10));
    world.wait(500);
    assert!(world.has_ended());
    assert!(
        clients
            .iter()
            .all(|&client| world.clients[client].closed_with() == Some(1012))
    );
}

#[test]
fn shutdown_accepts_no_connection_and_leaves_none_waiting() {
    let mut world = World::calm();
    let waiting = world.connect();
    world.client(waiting).send_handshake("/later");
    let silent = world.connect();
    let deaf = world.open_lazy();
    world.flow();
    world.shut_down(Duration::from_secs(1));
    let late = world.connect();
    world.wait(1100);
    assert_eq!(world.clients[late].key, None);
    assert_eq!(world.clients[waiting].statuses(), [503]);
    assert!(world.interest(silent).is_none());
    // It does not reply to our close frame.
    assert!(world.interest(deaf).is_some());
    world.wait(5000);
    assert!(world.has_ended());
}

#[test]
fn handshake_during_shutdown_is_completed_and_closed_with_1012() {
    let mut world = World::calm();
    let others: Vec<_> = (0..400).map(|_| world.connect()).collect();
    for &client in &others {
        world.client(client).send_handshake("/ws");
    }
    let late = world.connect();
    world.flow();
    // It has the first slot, and slots are visited in order.
    world.client(others[0]).close(1000);
    world.flow();
    let later = world.connect();
    world.flow();
    world.shut_down(Duration::from_secs(4));
    world.wait(100);
    world.client(late).send_handshake("/ws");
    world.client(later).send_handshake("/ws");
    world.flow();
    assert_eq!(world.clients[later].statuses(), [101]);
    world.wait(4000);
    for client in [late, later] {
        assert_eq!(world.clients[client].closed_with(), Some(1012));
    }
    assert!(world.has_ended());
}

#[test]
fn silent_connection_does_not_delay_shutdown() {
    let mut world = World::calm();
    let silent = world.connect();
    world.wait(1500);
    assert!(world.interest(silent).is_some());
    world.shut_down(Duration::from_secs(10));
    world.wait(100);
    assert!(world.has_ended());
}

#[test]
fn shutdown_completes_responses_in_progress() {
    let mut world = World::calm();
    world.limits.send = 1000;
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    world
        .client(client)
        .request("GET /big HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    world.deliver(client);
    world.settle();
    world.shut_down(Duration::ZERO);
    world.settle();
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
    assert!(world.has_ended());
}

// CVE-2026-15565: one limit applies to all connections together, authenticated or not, and the
// largest holders are shed first.
#[test]
fn incomplete_input_has_one_limit_for_all_connections() {
    let config = Config::default().unfinished_total(1 << 20);
    let mut world = World::new(config, 1);
    let modest = world.open();
    world.client(modest).has_begun = true;
    let frame = crate::sim::client_frame(0x82, b"ab", [9; 4]);
    world.client(modest).raw(&frame[..5]);
    let asker = world.connect();
    world.client(asker).has_begun = true;
    world.client(asker).raw("GET /ws HTTP/1.1\r\nHost: a\r\n");
    for number in 0..40 {
        let client = world.open();
        world.client(client).behavior.is_wrong = true;
        world.client(client).has_begun = true;
        // 60,000 of the 65,535 bytes that the header announces.
        world.client(client).raw(b"\x82\xfe\xff\xff\0\0\0\0");
        world.client(client).raw(vec![0; 60_000]);
        world.flow();
        let held = world.engine.counters().incomplete_bytes;
        assert!(held <= 1 << 20, "{held} after {number}");
    }
    let closed = |client: usize| world.clients[client].closed_with();
    let given_up = (0..world.clients.len()).filter(|&client| closed(client) == Some(1013));
    assert!(given_up.count() > 20);
    assert_eq!(closed(modest), None);
    world.client(modest).raw(&frame[5..]);
    world
        .client(modest)
        .sent_messages
        .push(Payload::Binary(b"ab".to_vec()));
    world.client(asker).raw("Host: a\r\n\r\n");
    world.client(asker).expected.push_back(&[400]);
    world.flow();
    assert_eq!(world.inbox(modest), 1);
    assert_eq!(world.clients[asker].statuses(), [400]);
}

/// A client that sends at no reasonable pace has to make room before one that has just begun.
#[test]
fn input_of_slow_senders_is_dropped_before_newer_input() {
    let mut world = World::new(Config::default().unfinished_total(1 << 20), 1);
    let begin = |world: &mut World, size: usize| {
        let client = world.open();
        world.client(client).behavior.is_wrong = true;
        world.client(client).has_begun = true;
        // A part of the 65,535 bytes that the header announces.
        world.client(client).raw(b"\x82\xfe\xff\xff\0\0\0\0");
        world.client(client).raw(vec![0; size]);
        world.flow();
        client
    };
    let slow = begin(&mut world, 1000);
    world.wait(5_000);
    let modest = begin(&mut world, 1000);
    while world
        .engine
        .counters()
        .closed
        .iter()
        .all(|(_, count)| count == 0)
    {
        begin(&mut world, 60_000);
    }
    assert_eq!(world.clients[slow].closed_with(), Some(1013));
    assert_eq!(world.clients[modest].closed_with(), None);
}

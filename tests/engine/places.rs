//! Which connection is ended when places run out: one that waits for a request, never one that
//! has a request or a WebSocket.

use std::net::{IpAddr, Ipv4Addr};

use h_realtime_engine::http::Proxies;
use h_realtime_engine::{Config, ListenerId};

use crate::sim::{Command, Conduct, End, World, handshake_with};

const RESERVED: ListenerId = ListenerId(1);
const OK: &str = "GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n";
const KEY: &str = "GET /key HTTP/1.1\r\nHost: sim\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n";

fn with_places(max_connections: usize) -> World {
    let config = Config {
        max_connections,
        ..Config::default()
    };
    World::new(config, 1)
}

/// A world in which clients connect to the reserved listener.
fn reserved(max_reserved: usize) -> World {
    let config = Config {
        max_connections: 1,
        reserved_listener: Some(RESERVED),
        max_reserved,
        ..Config::default()
    };
    let mut world = World::new(config, 1);
    world.listener = RESERVED;
    world
}

/// A client that sends a request, and waits for its answer.
fn ask(world: &mut World, request: &str) -> usize {
    let client = world.connect();
    world.client(client).request(request, &[200]);
    world.flow();
    client
}

/// A client that sends a part of a head, or nothing.
fn begin(world: &mut World, bytes: &str) -> usize {
    let client = world.connect();
    world.client(client).conduct.is_wrong = true;
    world.client(client).has_begun = !bytes.is_empty();
    world.client(client).request(bytes, &[200]);
    client
}

fn shake(world: &mut World) -> usize {
    let client = world.connect();
    world.client(client).shake("/ws");
    world.flow();
    client
}

fn is_there(world: &World, client: usize) -> bool {
    world.interest(client).is_some()
}

// A8
#[test]
fn idle_http_connections_yield_their_places_the_longest_idle_first() {
    let mut world = with_places(5);
    let sockets = [world.open(), world.open()];
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(ask(&mut world, OK));
        world.wait(500);
    }
    // One that is used again is the last.
    world.client(idle[0]).request(OK, &[200]);
    world.flow();
    for (count, victim) in [idle[1], idle[2], idle[0]].into_iter().enumerate() {
        assert!(is_there(&world, victim), "{count}");
        let client = shake(&mut world);
        assert_eq!(world.clients[client].statuses(), [101], "{count}");
        assert_eq!(world.clients[victim].end(), End::Eof, "{count}");
    }
    assert_eq!(world.engine.counters().evicted.connections, 3);
    // Nothing is left but WebSockets, and those stay.
    let client = shake(&mut world);
    assert_eq!(world.clients[client].statuses(), [503]);
    assert_eq!(world.engine.counters().evicted.connections, 3);
    assert!(sockets.into_iter().all(|client| is_there(&world, client)));
    world.finish();
}

#[test]
fn a_handshake_under_way_keeps_its_place_for_two_seconds() {
    for begun in ["", "GET /ws HTTP/1.1\r\nHost: s"] {
        let mut world = with_places(1);
        let slow = begin(&mut world, begun);
        world.flow();
        world.wait(1_500);
        // No byte makes the time longer.
        world.client(slow).raw("G");
        world.flow();
        let early = shake(&mut world);
        assert_eq!(world.clients[early].statuses(), [503]);
        assert!(is_there(&world, slow));
        world.wait(700);
        let late = shake(&mut world);
        assert_eq!(world.clients[late].statuses(), [101]);
        assert!(!is_there(&world, slow));
        world.finish();
    }
}

#[test]
fn requests_with_the_handler_and_bodies_under_way_keep_their_places() {
    let mut world = with_places(3);
    let asker = world.connect();
    world.client(asker).request(SLOW, &[200]);
    let later = world.connect();
    world.client(later).shake("/later");
    let sender = world.connect();
    let head = "POST /body HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\n\r\n";
    world.client(sender).request(head, &[200]);
    world.flow();
    world.wait(5_000);
    let client = shake(&mut world);
    assert_eq!(world.clients[client].statuses(), [503]);
    world.client(sender).raw("12345");
    for number in [asker, later] {
        let key = world.key(number);
        world.command(Command::AnswerTo { key, accept: true });
    }
    world.flow();
    let statuses = |client: usize| world.clients[client].statuses();
    assert_eq!([statuses(asker), statuses(sender)], [[200], [200]]);
    assert_eq!(statuses(later), [101]);
    assert_eq!(world.engine.counters().evicted.connections, 0);
    world.finish();
}

#[test]
fn a_sample_of_many_idle_connections_is_enough_to_find_one() {
    let mut world = with_places(1_000);
    let sockets: Vec<_> = (0..400).map(|_| world.connect()).collect();
    for &client in &sockets {
        world.client(client).shake("/ws");
    }
    for _ in 0..600 {
        let client = world.connect();
        world.client(client).request(OK, &[200]);
    }
    world.flow();
    // As many as are accepted in a turn.
    for _ in 0..10 {
        for _ in 0..60 {
            let client = world.connect();
            world.client(client).shake("/ws");
        }
        world.flow();
    }
    assert_eq!(world.engine.counters().open, 1_000);
    assert_eq!(world.engine.counters().evicted.connections, 600);
    world.finish();
}

#[test]
fn a_lowered_limit_ends_one_idle_connection_for_each_newcomer() {
    let mut world = with_places(5);
    for _ in 0..5 {
        ask(&mut world, OK);
    }
    world.reload(Config {
        max_connections: 3,
        ..Config::default()
    });
    assert_eq!(world.engine.counters().connections, 5);
    let statuses: Vec<_> = (0..3)
        .map(|_| {
            let client = shake(&mut world);
            world.clients[client].statuses()[0]
        })
        .collect();
    assert_eq!(statuses, [503, 503, 101]);
    world.finish();
}

fn ip(last: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(192, 0, 2, last).into())
}

#[test]
fn an_idle_connection_yields_to_another_of_the_same_address() {
    let config = Config {
        max_per_ip: Some(2),
        trusted_proxies: Proxies::parse(["192.0.2.9"]).unwrap(),
        ..Config::default()
    };
    let header = "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n";
    let forwarded = handshake_with("/ws", "X-Forwarded-For: 192.0.2.1\r\n");
    // By itself, by the PROXY protocol, and by a field of its handshake.
    for (peer, before, last) in [
        (ip(1), "", handshake_with("/ws", "")),
        (ip(9), header, handshake_with("/ws", "")),
        (ip(9), "", forwarded),
    ] {
        let mut world = World::new(config.clone(), 1);
        let other = world.connect_from(ip(2), Conduct::EAGER);
        world.client(other).request(OK, &[200]);
        let idle = world.connect_from(ip(1), Conduct::EAGER);
        world.client(idle).request(OK, &[200]);
        let socket = world.connect_from(ip(1), Conduct::EAGER);
        world.client(socket).shake("/ws");
        world.flow();
        world.expects_proxy_header = !before.is_empty();
        let next = world.connect_from(peer, Conduct::EAGER);
        world.client(next).raw(before);
        world.client(next).request(&last, &[101]);
        world.flow();
        assert_eq!(world.clients[next].statuses(), [101], "{peer:?} {before}");
        assert!(!is_there(&world, idle) && is_there(&world, other));
        let counters = world.engine.counters();
        assert_eq!((counters.evicted.per_ip, counters.refused_per_ip), (1, 0));
        // WebSockets yield to nothing.
        world.expects_proxy_header = false;
        let more = world.connect_from(ip(1), Conduct::EAGER);
        world.flow();
        assert_eq!(world.clients[more].key, None);
        assert_eq!(world.engine.counters().refused_per_ip, 1);
        world.finish();
    }
}

// A8
#[test]
fn reserved_listener_serves_requests_while_idle_connections_hold_its_places() {
    for (begun, count) in [(OK, 300), (OK, 8), ("GET /", 300), ("", 300)] {
        let mut world = reserved(8);
        for _ in 0..count {
            begin(&mut world, begun);
        }
        world.flow();
        assert_eq!(world.engine.counters().connections, 8);
        for _ in 0..20 {
            let client = ask(&mut world, OK);
            assert_eq!(world.clients[client].statuses(), [200], "{begun:?}");
        }
        assert_eq!(world.engine.counters().evicted.reserved, count + 20 - 8);
        assert_eq!(world.engine.counters().refused_full, 0);
        world.finish();
    }
}

// A8
/// Each turn brings as many new connections as are accepted in one, and a byte of each that is
/// there; the request comes behind half of them.
#[test]
fn a_flood_of_incomplete_requests_does_not_displace_a_request() {
    let mut world = reserved(256);
    let mut drips = Vec::new();
    for round in 0..50 {
        drips.extend((0..32).map(|_| begin(&mut world, "GET /")));
        let client = world.connect();
        drips.extend((0..32).map(|_| begin(&mut world, "GET /")));
        world.turn();
        // It takes another turn until its request comes.
        world.client(client).request(OK, &[200]);
        for &drip in &drips {
            world.client(drip).raw("x");
        }
        world.exchange();
        world.turn();
        world.exchange();
        assert_eq!(world.clients[client].statuses(), [200], "{round}");
        assert!(world.engine.counters().connections <= 256);
    }
    assert_eq!(world.engine.counters().refused_full, 0);
    world.finish();
}

// A8
/// More requests arrive than are served in one turn, and other clients connect in that turn.
#[test]
fn requests_that_wait_to_be_served_keep_their_places() {
    let mut world = reserved(400);
    let clients: Vec<_> = (0..400).map(|_| world.connect()).collect();
    for newcomers in [0, 10] {
        for &client in &clients {
            world.client(client).request(OK, &[200]);
        }
        world.exchange();
        for _ in 0..newcomers {
            world.connect();
        }
        world.turn();
        world.flow();
        world.wait(300);
    }
    let has_both = |&client: &usize| world.clients[client].statuses() == [200, 200];
    assert!(clients.iter().all(has_both));
    assert_eq!(world.engine.counters().evicted.reserved, 10);
    world.finish();
}

#[test]
fn answered_connections_yield_before_one_without_a_first_request() {
    let mut world = reserved(8);
    let busy: Vec<_> = (0..7).map(|_| ask(&mut world, OK)).collect();
    let slow = begin(&mut world, "GET /ok HTTP/1.1\r\n");
    world.flow();
    world.wait(300);
    // All others are used again and again, and more come.
    for &client in &busy {
        world.client(client).request(OK, &[200]);
    }
    world.flow();
    for _ in 0..6 {
        ask(&mut world, OK);
    }
    assert!(is_there(&world, slow));
    world.client(slow).raw("Host: sim\r\n\r\n");
    world.flow();
    assert_eq!(world.clients[slow].statuses(), [200]);
    world.finish();
}

// A8
#[test]
fn connections_that_have_authenticated_are_ended_last() {
    let mut world = reserved(256);
    let pool: Vec<_> = (0..100).map(|_| ask(&mut world, KEY)).collect();
    world.wait(4_000);
    for _ in 0..20 {
        for begun in ["GET /", "", OK].repeat(20) {
            begin(&mut world, begun);
        }
        world.flow();
    }
    assert!(pool.iter().all(|&client| is_there(&world, client)));
    for &client in &pool {
        world.client(client).request(KEY, &[200]);
    }
    world.flow();
    let has_both = |&client: &usize| world.clients[client].statuses() == [200, 200];
    assert!(pool.iter().all(has_both));
    world.finish();
}

#[test]
fn authenticated_connections_leave_a_quarter_of_the_reserved_places_to_others() {
    let mut world = reserved(16);
    for _ in 0..16 {
        ask(&mut world, KEY);
    }
    // They connect together, and send their requests a little later.
    let others: Vec<_> = (0..4).map(|_| world.connect()).collect();
    world.flow();
    for &client in &others {
        world.client(client).request(OK, &[200]);
    }
    world.flow();
    let is_answered = |&client: &usize| world.clients[client].statuses() == [200];
    assert!(others.iter().all(is_answered));
    assert_eq!(world.engine.counters().evicted.reserved, 4);
    world.finish();
}

#[test]
fn with_a_request_under_way_in_all_reserved_places_one_more_is_told_503() {
    let mut world = reserved(4);
    let askers: Vec<_> = (0..4).map(|_| world.connect()).collect();
    for &client in &askers {
        world.client(client).request(SLOW, &[200]);
    }
    world.flow();
    let one_more = world.connect();
    world.client(one_more).request(OK, &[503]);
    world.flow();
    assert_eq!(world.clients[one_more].statuses(), [503]);
    for &client in &askers {
        let key = world.key(client);
        world.command(Command::AnswerTo { key, accept: true });
    }
    world.flow();
    assert_eq!(world.clients[askers[0]].statuses(), [200]);
    let next = ask(&mut world, OK);
    assert_eq!(world.clients[next].statuses(), [200]);
    assert_eq!(world.engine.counters().evicted.reserved, 1);
    world.finish();
}

/// Answers that are not taken, and connections that linger, hold no place either.
#[test]
fn untaken_answers_do_not_hold_reserved_places() {
    for request in [
        "GET /big HTTP/1.1\r\nHost: sim\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\nHost: sim\n\n",
    ] {
        let mut world = reserved(8);
        world.limits.send = 1000;
        for _ in 0..300 {
            let client = world.connect();
            world.client(client).conduct.is_eager = false;
            world.client(client).conduct.is_wrong = true;
            world.client(client).request(request, &[200]);
            world.deliver(client);
        }
        world.flow();
        for _ in 0..20 {
            let client = ask(&mut world, OK);
            assert_eq!(world.clients[client].statuses(), [200], "{request:?}");
        }
        assert_eq!(world.engine.counters().refused_full, 0);
        world.finish();
    }
}

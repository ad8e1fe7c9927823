//! Which connection is evicted when slots run out: one without a request, never one with a request
//! or a WebSocket.

use std::net::{IpAddr, Ipv4Addr};

use h_realtime_engine::http::Proxies;
use h_realtime_engine::{Config, ListenerId};

use crate::sim::{Behavior, Command, End, World, handshake_with};

const RESERVED: ListenerId = ListenerId(1);
const OK: &str = "GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n";
const KEY: &str = "GET /key HTTP/1.1\r\nHost: sim\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n";

fn with_slots(max_connections: usize) -> World {
    let config = Config::default().max_connections(max_connections);
    World::new(config, 1)
}

/// Returns a world in which clients connect to the reserved listener.
fn reserved(max_reserved: usize) -> World {
    let config = Config::default()
        .max_connections(1)
        .reserved_listener(Some(RESERVED))
        .max_reserved(max_reserved);
    let mut world = World::new(config, 1);
    world.listener = RESERVED;
    world
}

/// Connects a client that sends a request and gets the response.
fn ask(world: &mut World, request: &str) -> usize {
    let client = world.connect();
    world.client(client).request(request, &[200]);
    world.flow();
    client
}

/// Connects a client that sends a partial head, or nothing.
fn begin(world: &mut World, bytes: &str) -> usize {
    let client = world.connect();
    world.client(client).behavior.is_wrong = true;
    world.client(client).has_begun = !bytes.is_empty();
    world.client(client).request(bytes, &[200]);
    client
}

fn send_handshake(world: &mut World) -> usize {
    let client = world.connect();
    world.client(client).send_handshake("/ws");
    world.flow();
    client
}

fn is_open(world: &World, client: usize) -> bool {
    world.interest(client).is_some()
}

// A8
#[test]
fn idle_http_connections_are_evicted_longest_idle_first() {
    let mut world = with_slots(5);
    let sockets = [world.open(), world.open()];
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(ask(&mut world, OK));
        world.wait(500);
    }
    // A connection that is used again becomes the last candidate.
    world.client(idle[0]).request(OK, &[200]);
    world.flow();
    for (count, victim) in [idle[1], idle[2], idle[0]].into_iter().enumerate() {
        assert!(is_open(&world, victim), "{count}");
        let client = send_handshake(&mut world);
        assert_eq!(world.clients[client].statuses(), [101], "{count}");
        assert_eq!(world.clients[victim].end(), End::Eof, "{count}");
    }
    assert_eq!(world.engine.counters().evicted.connections, 3);
    // Only WebSockets are left, which are never evicted.
    let client = send_handshake(&mut world);
    assert_eq!(world.clients[client].statuses(), [503]);
    assert_eq!(world.engine.counters().evicted.connections, 3);
    assert!(sockets.into_iter().all(|client| is_open(&world, client)));
    world.finish();
}

#[test]
fn handshake_in_progress_is_not_evicted_for_two_seconds() {
    for begun in ["", "GET /ws HTTP/1.1\r\nHost: s"] {
        let mut world = with_slots(1);
        let slow = begin(&mut world, begun);
        world.flow();
        world.wait(1_500);
        // No byte extends the time.
        world.client(slow).raw("G");
        world.flow();
        let early = send_handshake(&mut world);
        assert_eq!(world.clients[early].statuses(), [503]);
        assert!(is_open(&world, slow));
        world.wait(700);
        let late = send_handshake(&mut world);
        assert_eq!(world.clients[late].statuses(), [101]);
        assert!(!is_open(&world, slow));
        world.finish();
    }
}

#[test]
fn deferred_requests_and_bodies_in_progress_are_not_evicted() {
    let mut world = with_slots(3);
    let asker = world.connect();
    world.client(asker).request(SLOW, &[200]);
    let later = world.connect();
    world.client(later).send_handshake("/later");
    let sender = world.connect();
    let head = "POST /body HTTP/1.1\r\nHost: sim\r\nContent-Length: 5\r\n\r\n";
    world.client(sender).request(head, &[200]);
    world.flow();
    world.wait(5_000);
    let client = send_handshake(&mut world);
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
    let mut world = with_slots(1_000);
    let sockets: Vec<_> = (0..400).map(|_| world.connect()).collect();
    for &client in &sockets {
        world.client(client).send_handshake("/ws");
    }
    for _ in 0..600 {
        let client = world.connect();
        world.client(client).request(OK, &[200]);
    }
    world.flow();
    // The maximum accepted in one turn.
    for _ in 0..10 {
        for _ in 0..60 {
            let client = world.connect();
            world.client(client).send_handshake("/ws");
        }
        world.flow();
    }
    assert_eq!(world.engine.counters().open, 1_000);
    assert_eq!(world.engine.counters().evicted.connections, 600);
    world.finish();
}

#[test]
fn lowered_limit_evicts_one_idle_connection_per_new_one() {
    let mut world = with_slots(5);
    for _ in 0..5 {
        ask(&mut world, OK);
    }
    world.reload(Config::default().max_connections(3));
    assert_eq!(world.engine.counters().connections, 5);
    let statuses: Vec<_> = (0..3)
        .map(|_| {
            let client = send_handshake(&mut world);
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
fn lowered_limit_of_an_address_evicts_one_idle_connection_per_new_one() {
    let mut world = World::new(Config::default().max_per_ip(Some(4)), 1);
    for _ in 0..4 {
        let idle = world.connect_from(ip(1), Behavior::EAGER);
        world.client(idle).request(OK, &[200]);
    }
    world.flow();
    world.reload(Config::default().max_per_ip(Some(2)));
    let is_accepted = [(); 3].map(|()| {
        let next = world.connect_from(ip(1), Behavior::EAGER);
        world.flow();
        world.clients[next].key.is_some()
    });
    assert_eq!(is_accepted, [false, false, true]);
    let counters = world.engine.counters();
    assert_eq!((counters.evicted.per_ip, counters.refused_per_ip), (3, 2));
    world.finish();
}

#[test]
fn an_idle_connection_yields_to_another_of_the_same_address() {
    let config = Config::default()
        .max_per_ip(Some(2))
        .trusted_proxies(Proxies::parse(["192.0.2.9"]).unwrap());
    let header = "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n";
    let forwarded = handshake_with("/ws", "X-Forwarded-For: 192.0.2.1\r\n");
    // By its peer address, by the PROXY protocol, and by a header field of its handshake.
    for (peer, before, last) in [
        (ip(1), "", handshake_with("/ws", "")),
        (ip(9), header, handshake_with("/ws", "")),
        (ip(9), "", forwarded),
    ] {
        let mut world = World::new(config.clone(), 1);
        let other = world.connect_from(ip(2), Behavior::EAGER);
        world.client(other).request(OK, &[200]);
        let idle = world.connect_from(ip(1), Behavior::EAGER);
        world.client(idle).request(OK, &[200]);
        let socket = world.connect_from(ip(1), Behavior::EAGER);
        world.client(socket).send_handshake("/ws");
        world.flow();
        if !before.is_empty() {
            world.listen_proxied();
        }
        let next = world.connect_from(peer, Behavior::EAGER);
        world.client(next).raw(before);
        world.client(next).request(&last, &[101]);
        world.flow();
        assert_eq!(world.clients[next].statuses(), [101], "{peer:?} {before}");
        assert!(!is_open(&world, idle) && is_open(&world, other));
        let counters = world.engine.counters();
        assert_eq!((counters.evicted.per_ip, counters.refused_per_ip), (1, 0));
        // WebSockets are never evicted.
        world.listener = ListenerId(0);
        let more = world.connect_from(ip(1), Behavior::EAGER);
        world.flow();
        assert_eq!(world.clients[more].key, None);
        assert_eq!(world.engine.counters().refused_per_ip, 1);
        world.finish();
    }
}

// A8
#[test]
fn reserved_listener_serves_requests_while_idle_connections_fill_its_slots() {
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
/// Each turn brings the maximum of new connections, each with one byte; the request arrives after
/// half of them.
#[test]
fn a_flood_of_incomplete_requests_does_not_displace_a_request() {
    let mut world = reserved(256);
    let mut drips = Vec::new();
    for round in 0..50 {
        drips.extend((0..32).map(|_| begin(&mut world, "GET /")));
        let client = world.connect();
        drips.extend((0..32).map(|_| begin(&mut world, "GET /")));
        world.turn();
        // Its request arrives one turn later.
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
fn queued_requests_are_not_evicted() {
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
fn answered_connections_are_evicted_before_one_without_a_first_request() {
    let mut world = reserved(8);
    let busy: Vec<_> = (0..7).map(|_| ask(&mut world, OK)).collect();
    let slow = begin(&mut world, "GET /ok HTTP/1.1\r\n");
    world.flow();
    world.wait(300);
    // All others are used repeatedly, and more connect.
    for &client in &busy {
        world.client(client).request(OK, &[200]);
    }
    world.flow();
    for _ in 0..6 {
        ask(&mut world, OK);
    }
    assert!(is_open(&world, slow));
    world.client(slow).raw("Host: sim\r\n\r\n");
    world.flow();
    assert_eq!(world.clients[slow].statuses(), [200]);
    world.finish();
}

// A8
#[test]
fn authenticated_connections_are_evicted_last() {
    let mut world = reserved(256);
    let pool: Vec<_> = (0..100).map(|_| ask(&mut world, KEY)).collect();
    world.wait(4_000);
    for _ in 0..20 {
        for begun in ["GET /", "", OK].repeat(20) {
            begin(&mut world, begun);
        }
        world.flow();
    }
    assert!(pool.iter().all(|&client| is_open(&world, client)));
    for &client in &pool {
        world.client(client).request(KEY, &[200]);
    }
    world.flow();
    let has_both = |&client: &usize| world.clients[client].statuses() == [200, 200];
    assert!(pool.iter().all(has_both));
    world.finish();
}

#[test]
fn authenticated_connections_leave_a_quarter_of_reserved_slots() {
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

// A8
#[test]
fn unread_responses_to_authenticated_clients_are_not_lost_by_eviction() {
    let mut world = reserved(8);
    world.limits.send = 1000;
    let clients = [(); 8].map(|()| ask(&mut world, KEY));
    for client in clients {
        world.client(client).behavior.is_eager = false;
        let request = "GET /big HTTP/1.1\r\nHost: sim\r\n\r\n";
        world.client(client).request(request, &[200]);
        world.deliver(client);
    }
    world.flow();
    for _ in 0..4 {
        begin(&mut world, OK);
        world.flow();
    }
    for client in clients {
        assert!(is_open(&world, client));
        world.client(client).behavior.is_eager = true;
    }
    world.flow();
    for client in clients {
        assert_eq!(world.clients[client].statuses(), [200, 200]);
    }
    world.finish();
}

// A8
#[test]
fn websockets_and_event_streams_are_not_evicted_while_they_end() {
    for is_stream in [false, true] {
        let mut world = reserved(1);
        world.limits.send = 1000;
        let client = match is_stream {
            false => world.open(),
            true => world.open_stream(),
        };
        world.client(client).behavior.is_eager = false;
        let key = world.key(client);
        let keys = vec![key];
        world.command(Command::FanOutTo { keys, size: 5_000 });
        world.settle();
        world.command(Command::CloseOne { key, code: 4003 });
        world.settle();
        if !is_stream {
            // It waits for the close frame of the peer no more.
            world.client(client).finish();
            world.deliver(client);
        }
        world.wait(2_500);
        let asker = world.connect();
        world.client(asker).request(OK, &[503]);
        world.flow();
        assert_eq!(world.clients[asker].statuses(), [503]);
        world.client(client).behavior.is_eager = true;
        world.flow();
        assert_eq!(world.clients[client].closed_with(), Some(4003));
        world.finish();
    }
}

#[test]
fn request_beyond_all_reserved_slots_gets_503() {
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

/// Unread responses and lingering connections do not occupy slots either.
#[test]
fn unread_responses_do_not_hold_reserved_slots() {
    for request in [
        "GET /big HTTP/1.1\r\nHost: sim\r\n\r\n",
        "GET /big HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\nHost: sim\n\n",
    ] {
        let mut world = reserved(8);
        world.limits.send = 1000;
        for _ in 0..300 {
            let client = world.connect();
            world.client(client).behavior.is_eager = false;
            world.client(client).behavior.is_wrong = true;
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

//! Clients behind proxies: only the information of trusted proxies is used.

use std::net::{IpAddr, Ipv4Addr};

use h_realtime_engine::http::{ForwardedBy, Proxies};
use h_realtime_engine::{Config, ListenerId};

use crate::sim::{Behavior, World, handshake_with};

fn ip(last: u8) -> Option<IpAddr> {
    Some(Ipv4Addr::new(192, 0, 2, last).into())
}

/// Returns a world with one slot per address, and the proxy 192.0.2.9.
fn world() -> World {
    let config = Config::default()
        .max_per_ip(Some(1))
        .trusted_proxies(Proxies::parse(["192.0.2.9"]).unwrap());
    World::new(config, 1)
}

/// Connects from an address and requests a WebSocket with these header fields.
fn connect_client(
    world: &mut World,
    peer: Option<IpAddr>,
    before: &[u8],
    fields: &str,
    right: &'static [u16],
) -> usize {
    let client = world.connect_from(peer, Behavior::EAGER);
    world.client(client).raw(before);
    let head = handshake_with("/ws", fields);
    world.client(client).request(head, right);
    world.flow();
    client
}

fn is_open(world: &World, client: usize) -> bool {
    world.clients[client].progress.is_open
}

fn for_client(last: u8) -> String {
    format!("X-Forwarded-For: 198.51.100.77, 192.0.2.{last}\r\n")
}

// P1
#[test]
fn client_named_by_trusted_proxy_is_counted() {
    let mut world = world();
    let first = connect_client(&mut world, ip(9), b"", &for_client(1), &[101]);
    // The same client through the proxy and directly; the start of the chain is forged.
    let again = connect_client(&mut world, ip(9), b"", &for_client(1), &[429]);
    assert_eq!(world.clients[again].statuses(), [429]);
    let itself = world.connect_from(ip(1), Behavior::default());
    world.flow();
    assert!(world.clients[itself].key.is_none());
    assert_eq!(world.engine.counters().refused_per_ip, 2);
    let other = connect_client(&mut world, ip(9), b"", &for_client(2), &[101]);
    assert!(is_open(&world, first) && is_open(&world, other));
    // A closed connection makes room for a new one.
    world.client(first).finish();
    world.flow();
    let next = connect_client(&mut world, ip(9), b"", &for_client(1), &[101]);
    assert!(is_open(&world, next));
    // Connections without client information count for the proxy.
    for _ in 0..3 {
        let own = connect_client(
            &mut world,
            ip(9),
            b"",
            "X-Forwarded-For: unknown\r\n",
            &[101],
        );
        assert!(is_open(&world, own));
    }
    world.finish();
}

// P4
#[test]
fn forwarded_ipv6_clients_are_counted_by_network() {
    let line = |host: u8| format!("PROXY TCP6 2001:db8:0:1::{host} 2001:db8::9 1 2\r\n");
    let field = |host: u8| format!("X-Forwarded-For: 2001:db8:0:1::{host}\r\n");
    let mut world = world();
    world.listen_proxied();
    let first = connect_client(&mut world, ip(9), line(1).as_bytes(), "", &[101]);
    assert!(is_open(&world, first));
    let second = connect_client(&mut world, ip(9), line(2).as_bytes(), "", &[]);
    assert_eq!(world.interest(second), None);
    world.listener = ListenerId(0);
    connect_client(&mut world, ip(9), b"", &field(3), &[429]);
    let itself = world.connect_from(
        Some("2001:db8:0:1::4".parse().unwrap()),
        Behavior::default(),
    );
    world.flow();
    assert!(world.clients[itself].key.is_none());
    assert_eq!(world.engine.counters().refused_per_ip, 3);
    let other = "X-Forwarded-For: 2001:db8:0:2::1\r\n";
    let other = connect_client(&mut world, ip(9), b"", other, &[101]);
    assert!(is_open(&world, other));
    world.finish();
}

// P1
#[test]
fn forwarding_fields_of_untrusted_peers_are_ignored() {
    let mut world = world();
    let first = connect_client(&mut world, ip(1), b"", &for_client(2), &[101]);
    let second = connect_client(&mut world, ip(2), b"", &for_client(2), &[101]);
    assert!(is_open(&world, first) && is_open(&world, second));
    let again = world.connect_from(ip(1), Behavior::default());
    world.flow();
    assert!(world.clients[again].key.is_none());
    // A field that the proxies do not write is ignored, too.
    let field = "Forwarded: for=192.0.2.3\r\n";
    for _ in 0..2 {
        let client = connect_client(&mut world, ip(9), b"", field, &[101]);
        assert!(is_open(&world, client));
    }
    world.reload(
        Config::default()
            .max_per_ip(Some(1))
            .trusted_proxies(Proxies::parse(["192.0.2.9"]).unwrap())
            .forwarded_by(ForwardedBy::Forwarded),
    );
    connect_client(&mut world, ip(9), b"", field, &[101]);
    connect_client(&mut world, ip(9), b"", field, &[429]);
    assert_eq!(world.engine.counters().refused_per_ip, 2);
    world.finish();
}

// P2
#[test]
fn proxy_header_names_the_client_in_any_fragmentation() {
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n";
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    binary.extend([192, 0, 2, 1, 192, 0, 2, 9, 0, 1, 0, 2]);
    for header in [&line[..], &binary] {
        let mut world = world();
        world.listen_proxied();
        let first = connect_client(&mut world, ip(9), header, "", &[101]);
        assert!(is_open(&world, first));
        // A peer that is not a trusted proxy cannot set its own address.
        for (peer, before) in [
            (ip(9), header),
            (ip(1), header),
            (ip(9), b"PROXY TCP4 1\r\n"),
        ] {
            let client = world.connect_from(
                peer,
                Behavior {
                    is_eager: true,
                    is_wrong: true,
                    ..Behavior::default()
                },
            );
            world.client(client).raw(before);
            world.flow();
            assert_eq!(world.interest(client), None);
        }
        let counters = world.engine.counters();
        let refused = (counters.refused_per_ip, counters.refused_untrusted);
        assert_eq!((refused, counters.proxy_failures), ((1, 1), 1));
        // The header may be split anywhere.
        world.client(first).finish();
        world.flow();
        for cut in 1..header.len() {
            let client = world.connect_from(ip(9), Behavior::EAGER);
            world.client(client).raw(&header[..cut]);
            world.flow();
            assert!(world.interest(client).is_some(), "{cut}");
            world.client(client).raw(&header[cut..]);
            world.client(client).send_handshake("/ws");
            world.flow();
            assert!(is_open(&world, client), "{cut}");
            world.client(client).finish();
            world.flow();
        }
        world.finish();
    }
}

// P3
#[test]
fn missing_proxy_header_times_out_with_the_handshake() {
    let mut world = world();
    world.listen_proxied();
    let silent = world.connect_from(ip(9), Behavior::default());
    let slow = world.connect_from(ip(9), Behavior::default());
    world.client(slow).raw("PROXY TCP4 ");
    world.deliver(slow);
    world.wait(9_000);
    assert!(world.interest(silent).is_some() && world.interest(slow).is_some());
    world.client(silent).behavior.is_wrong = true;
    world.client(slow).behavior.is_wrong = true;
    world.wait(2_000);
    assert!(world.interest(silent).is_none() && world.interest(slow).is_none());
    assert_eq!(world.engine.counters().handshake_timeouts, 2);
    assert_eq!(world.engine.counters().incomplete_bytes, 0);
    world.finish();
}

// P3
#[test]
fn shutdown_leaves_no_connection_without_proxy_header() {
    let mut world = world();
    world.listen_proxied();
    let client = world.connect_from(
        ip(9),
        Behavior {
            is_eager: true,
            is_wrong: true,
            ..Behavior::default()
        },
    );
    world.client(client).raw("PROXY ");
    world.flow();
    world.shut_down(std::time::Duration::ZERO);
    world.flow();
    world.wait(2_000);
    assert_eq!(world.interest(client), None);
    assert!(world.has_ended());
}

/// The header of a proxy may say that the connection is its own. The requests name the client then.
#[test]
fn connection_of_the_proxy_itself_is_counted_by_its_requests() {
    let mut world = world();
    world.listen_proxied();
    let unknown = b"PROXY UNKNOWN\r\n";
    let first = connect_client(&mut world, ip(9), unknown, &for_client(1), &[101]);
    let again = connect_client(&mut world, ip(9), unknown, &for_client(1), &[429]);
    assert!(is_open(&world, first));
    assert_eq!(world.clients[again].statuses(), [429]);
    // Other requests are not counted.
    let check = world.connect_from(ip(9), Behavior::EAGER);
    world.client(check).raw(unknown);
    let request = "GET /ok HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    world.client(check).request(request, &[200]);
    world.flow();
    assert_eq!(world.clients[check].statuses(), [200]);
}

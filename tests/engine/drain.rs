//! The reserved listener during a shutdown: it is served until all other connections have ended.

use std::time::Duration;

use h_realtime_engine::{Config, ListenerId};

use crate::sim::{End, World};

const RESERVED: ListenerId = ListenerId(1);
const OK: &str = "GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n";

/// Returns a world with a WebSocket client that does not reply to the close frame.
fn draining() -> (World, usize) {
    let config = Config::default()
        .reserved_listener(Some(RESERVED))
        .close_timeout(Duration::from_secs(60));
    let mut world = World::new(config, 1);
    let client = world.open();
    world.client(client).behavior.is_mute = true;
    (world, client)
}

fn is_open(world: &World, client: usize) -> bool {
    world.interest(client).is_some()
}

#[test]
fn the_reserved_listener_is_served_until_the_last_client_is_closed() {
    let (mut world, client) = draining();
    world.listener = RESERVED;
    let [early, silent] = [world.connect(), world.connect()];
    world.client(early).request(OK, &[200]);
    world.flow();
    world.shut_down(Duration::ZERO);
    world.wait(5000);
    assert_eq!(world.clients[client].closed_with(), Some(1012));
    // Both an earlier connection and a new one are served.
    world.client(early).request(OK, &[200]);
    let late = world.connect();
    world.client(late).request(OK, &[200]);
    world.flow();
    assert_eq!(world.clients[early].statuses(), [200, 200]);
    assert_eq!(world.clients[late].statuses(), [200]);
    // Neither is kept alive for another request, which could be lost.
    for served in [early, late] {
        assert_eq!(world.clients[served].end(), End::Eof);
    }
    assert!(is_open(&world, silent));
    assert!(world.environment.is_listening(RESERVED) && !world.has_ended());
    // Connections on other listeners are not accepted.
    world.listener = ListenerId(0);
    let public = world.connect();
    world.flow();
    assert!(!world.environment.is_listening(ListenerId(0)));
    assert_eq!(world.clients[public].end(), End::Eof);

    world.client(client).close(1012);
    world.flow();
    world.turn();
    assert!(!world.environment.is_listening(RESERVED));
    world.listener = RESERVED;
    let refused = world.connect();
    world.wait(1500);
    assert!(!is_open(&world, refused) && !is_open(&world, silent));
    assert!(world.has_ended());
}

#[test]
fn requests_in_progress_at_the_end_of_a_shutdown_have_a_second() {
    let (mut world, client) = draining();
    world.shut_down(Duration::ZERO);
    world.wait(2000);
    world.listener = RESERVED;
    let [quick, late] = [world.connect(), world.connect()];
    for number in [quick, late] {
        world.client(number).has_begun = true;
        world.client(number).raw(&OK[..20]);
    }
    world.client(quick).expected.push_back(&[200]);
    world.client(client).close(1012);
    world.flow();
    world.turn();
    assert!(!world.environment.is_listening(RESERVED));
    world.wait(500);
    world.client(quick).raw(&OK[20..]);
    world.flow();
    assert_eq!(world.clients[quick].statuses(), [200]);
    assert!(is_open(&world, late));
    world.wait(1000);
    assert!(world.has_ended());
}

#[test]
fn second_request_to_shut_down_ends_the_server_at_once() {
    let mut world = World::calm();
    world.open();
    world.shut_down(Duration::from_secs(60));
    assert!(!world.has_ended());
    world.shut_down(Duration::from_secs(60));
    assert!(world.has_ended());
}

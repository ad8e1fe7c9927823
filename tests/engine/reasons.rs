//! Every end of a connection is counted under exactly one reason.

use std::time::Duration;

use h_realtime_engine::Config;

use crate::sim::World;

/// Returns the non-zero counters of closed WebSockets.
fn ends(world: &World) -> Vec<(&'static str, u64)> {
    let counts = world.engine.counters().closed.iter();
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Returns the non-zero counters of connections that never became a WebSocket.
fn failures(world: &World) -> Vec<(&'static str, u64)> {
    let counters = world.engine.counters();
    let others = [
        ("timeout", counters.handshake_timeouts),
        ("full", counters.refused_full),
        ("per_ip", counters.refused_per_ip),
    ];
    let counts = counters.refusals.iter().chain(others);
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn incomplete_message_is_counted_as_timeout() {
    let mut world = World::calm();
    let client = world.open();
    world.client(client).behavior.is_wrong = true;
    world.client(client).has_begun = true;
    world.client(client).raw(b"\x01\x81\0\0\0\0x");
    world.wait(11_000);
    assert_eq!(world.clients[client].closed_with(), Some(1008));
    assert_eq!(ends(&world), [("timeout", 1)]);
    assert_eq!(failures(&world), []);
}

#[test]
fn refused_bodies_are_counted_by_reason() {
    let chunked = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, status, reason) in [
        (
            "POST /body HTTP/1.1\r\nHost: a\r\n\r\n",
            &[411][..],
            "no_length",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            &[501],
            "coding",
        ),
        (&format!("{chunked}fffffff\r\n"), &[413], "too_large"),
        (
            &format!("{chunked}0;{}\r\n", crate::sim::pad(5000)),
            &[413],
            "too_large",
        ),
        (
            &format!("{chunked}0\r\nA:{}\r\n", crate::sim::pad(9000)),
            &[431],
            "too_large",
        ),
        (&format!("{chunked}x"), &[400], "malformed"),
    ] {
        let mut world = World::calm();
        let client = world.connect();
        world.client(client).request(request, status);
        world.flow();
        assert_eq!(failures(&world), [(reason, 1)], "{request:.60}");
    }
}

#[test]
fn shed_input_is_counted_as_overload_in_every_phase() {
    let config = Config::default().unfinished_total(3000);
    let mut world = World::new(config, 1);
    let asker = world.connect();
    world.client(asker).behavior.is_wrong = true;
    world
        .client(asker)
        .raw("GET /ws HTTP/1.1\r\nHost: a\r\nA: ");
    world.client(asker).raw(vec![b'x'; 4000]);
    world.flow();
    assert_eq!(world.clients[asker].statuses(), [503]);
    assert_eq!(failures(&world), [("overload", 1)]);

    let talker = world.open();
    world.client(talker).behavior.is_wrong = true;
    world.client(talker).has_begun = true;
    world.client(talker).raw(b"\x82\xfe\xff\xff\0\0\0\0");
    world.client(talker).raw(vec![0; 4000]);
    world.flow();
    assert_eq!(world.clients[talker].closed_with(), Some(1013));
    assert_eq!(ends(&world), [("overload", 1)]);
    assert_eq!(failures(&world), [("overload", 1)]);
}

#[test]
fn connections_cut_by_shutdown_are_counted_as_shutdown() {
    let mut world = World::calm();
    let waiting = world.connect();
    world.client(waiting).send_handshake("/later");
    world.connect();
    let answered = world.connect();
    world
        .client(answered)
        .request("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    let open = world.open();
    world.flow();
    let queued = world.connect();
    world.shut_down(Duration::from_secs(1));
    assert!(world.interest(queued).is_some());
    let refused = world.connect();
    world.wait(2000);
    assert_eq!(world.clients[refused].key, None);
    assert_eq!(world.clients[open].closed_with(), Some(1012));
    assert_eq!(ends(&world), [("shutdown", 1)]);
    // The deferred, the silent, and the late connection.
    assert_eq!(failures(&world), [("shutdown", 3)]);
}

#[test]
fn idle_connection_after_a_response_is_not_a_failed_handshake() {
    let mut world = World::calm();
    let answered = world.connect();
    world
        .client(answered)
        .request("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    world.wait(11_000);
    assert!(world.interest(answered).is_none());
    assert_eq!(failures(&world), []);
    let silent = world.connect();
    world.wait(11_000);
    assert!(world.interest(silent).is_none());
    assert_eq!(failures(&world), [("timeout", 1)]);
}

#[test]
fn partial_request_after_a_response_is_incomplete() {
    let mut world = World::calm();
    let client = world.connect();
    world
        .client(client)
        .request("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    world.flow();
    world.client(client).behavior.is_wrong = true;
    world.client(client).raw("GET /ok HT");
    world.wait(11_000);
    assert_eq!(world.clients[client].statuses(), [200, 408]);
    assert_eq!(failures(&world), [("incomplete", 1)]);
}

#[test]
fn client_that_does_not_read_its_responses_is_counted_as_slow() {
    let config = Config::default().queue_soft(50_000).queue_hard(60_000);
    let mut world = World::new(config, 1);
    world.limits.send = 1000;
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    world.client(client).behavior.is_wrong = true;
    for _ in 0..40 {
        world
            .client(client)
            .raw("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    world.deliver(client);
    world.settle();
    assert_eq!(failures(&world), [("slow", 1)]);
}

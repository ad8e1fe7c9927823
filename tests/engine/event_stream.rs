//! Event streams: the same queue, limits, and end as a WebSocket, in another format.

use std::time::Duration;

use h_realtime_engine::Config;
use h_realtime_engine::http::{ForwardedBy, Proxies};

use crate::sim::{Behavior, ClientEvent, Command, End, Limits, World, pad};

/// Returns the non-zero counters of closed connections.
fn ends(world: &World) -> Vec<(&'static str, u64)> {
    let counts = world.engine.counters().closed.iter();
    counts.filter(|(_, count)| *count > 0).collect()
}

fn fan_out(world: &mut World, clients: &[usize], size: usize) {
    let keys = clients.iter().map(|client| world.key(*client)).collect();
    world.command(Command::FanOutTo { keys, size });
    world.flow();
}

#[test]
fn stream_and_web_socket_receive_the_same_events() {
    let mut world = World::calm();
    let (stream, socket) = (world.open_stream(), world.open());
    for size in [0, 10, 5000] {
        fan_out(&mut world, &[stream, socket], size);
    }
    let events = |client: usize| {
        let texts = world.clients[client].texts().into_iter();
        let events = texts.filter(|text| text.starts_with("event "));
        events.map(|text| text.len()).collect::<Vec<_>>()
    };
    assert_eq!(events(stream), events(socket));
    assert_eq!(events(stream).len(), 3);
    let counters = world.engine.counters();
    assert_eq!((counters.open, counters.open_streams), (2, 1));
    assert_eq!((counters.opened, counters.opened_streams), (2, 1));
    world.finish();
    assert_eq!(world.engine.counters().open_streams, 0);
}

// S2
/// The application of the tests sends frames of the other transport, too.
#[test]
fn frames_of_the_other_transport_are_never_written() {
    let mut world = World::calm();
    let (stream, socket) = (world.open_stream(), world.open());
    for _ in 0..16 {
        fan_out(&mut world, &[stream, socket], 300);
        for client in [stream, socket] {
            let (key, text) = (world.key(client), "short".to_owned());
            world.command(Command::SendTo { key, text });
            world.flow();
        }
    }
    // Of each delivery to one client, every eighth had a frame of the other transport.
    assert_eq!(world.engine.counters().undelivered, 2 * 2 + 2 * 16);
    assert_eq!(world.clients[stream].texts().len(), 1 + 2 * 16);
}

// S9
#[test]
fn request_reaches_the_handler_when_the_stream_opens() {
    let mut world = World::calm();
    let now = world.open_stream();
    let later = world.connect();
    world.client(later).request_stream("/stream-later");
    world.flow();
    let input = world.engine.counters().incomplete_bytes;
    assert!(input >= 300, "the request counts as input: {input}");
    let key = world.key(later);
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert_eq!(world.engine.counters().incomplete_bytes, 0);
    for (client, request) in [(now, "at once".to_owned()), (later, pad(300))] {
        let log = world.log().get();
        assert_eq!(log.lives[&world.key(client)].request, request);
    }
}

#[test]
fn refused_stream_keeps_no_state() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).request_stream("/stream-later");
    world.flow();
    let key = world.key(client);
    world.command(Command::AnswerTo { key, accept: false });
    world.flow();
    assert_eq!(world.clients[client].statuses(), [403]);
    // The connection is an ordinary one again.
    world.client(client).has_requested_stream = false;
    world.client(client).send_handshake("/ws");
    world.flow();
    world.client(client).text("echo hello");
    world.flow();
    assert!(
        world.clients[client]
            .texts()
            .contains(&"reply 0 echo hello")
    );
}

// S10
#[test]
fn unanswered_stream_is_refused_as_a_stream() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).request_stream("/stream-later");
    world.wait(11_000);
    assert_eq!(world.clients[client].statuses(), [200]);
    assert!(!world.clients[client].progress.is_open);
    assert_eq!(world.engine.counters().refusals.unanswered, 1);
}

// S10
#[test]
fn stream_over_the_connection_limit_is_refused_as_a_stream() {
    let mut world = World::new(Config::default().max_connections(1), 1);
    world.open();
    let (stream, socket) = (world.connect(), world.connect());
    world.client(stream).request_stream("/stream");
    world.client(socket).send_handshake("/ws");
    world.flow();
    assert_eq!(world.clients[stream].statuses(), [200]);
    assert_eq!(world.clients[socket].statuses(), [503]);
    assert_eq!(world.engine.counters().open, 1);
}

// S3
#[test]
fn streams_through_a_proxy_count_for_the_limit_per_address() {
    let proxy = "10.0.0.1".parse().unwrap();
    let config = Config::default()
        .max_per_ip(Some(2))
        .trusted_proxies(Proxies::parse(["10.0.0.1"]).unwrap())
        .forwarded_by(ForwardedBy::XForwardedFor);
    let mut world = World::new(config, 1);
    for (host, is_open) in [(7, true), (7, true), (7, false), (8, true)] {
        let client = world.connect_from(Some(proxy), Behavior::EAGER);
        let request =
            format!("GET /stream HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{host}\r\n\r\n");
        world.client(client).has_requested_stream = true;
        world.client(client).request(request, &[200]);
        world.flow();
        assert_eq!(world.clients[client].progress.is_open, is_open);
    }
    assert_eq!(world.engine.counters().refused_per_ip, 1);
}

#[test]
fn silent_stream_is_sent_a_comment_every_half_minute() {
    let mut world = World::calm();
    let client = world.open_stream();
    let comments = |world: &World| {
        let events = world.clients[client].events.iter();
        events
            .filter(|event| **event == ClientEvent::Comment)
            .count()
    };
    for count in 1..20 {
        // At most one interval without a comment.
        world.wait(30_000);
        assert!(comments(&world) >= count);
    }
    assert!(comments(&world) <= 40);
    assert_eq!(world.engine.counters().pings_sent, 0);
    let key = world.key(client);
    let interest = world.engine.interest(key).unwrap();
    assert!(interest.is_idle && interest.is_open);
}

#[test]
fn comment_never_joins_queued_output() {
    let mut world = World::calm();
    world.limits = Limits {
        receive: 1 << 20,
        send: 1000,
    };
    let client = world.open_stream();
    world.client(client).behavior.is_eager = false;
    fan_out(&mut world, &[client], 5000);
    let queued = world.interest(client).unwrap().queued;
    assert!(queued > 0);
    world.wait(120_000);
    assert_eq!(world.interest(client).unwrap().queued, queued);
    assert_eq!(world.engine.counters().comments_sent, 0);
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].texts().len(), 2);
}

// S4
#[test]
fn input_of_a_stream_is_discarded() {
    let mut world = World::calm();
    let client = world.open_stream();
    for input in [
        "GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n".to_owned(),
        pad(100_000),
        "\u{1}\u{2}".to_owned(),
    ] {
        world.client(client).raw(input);
        world.flow();
    }
    assert_eq!(world.engine.counters().incomplete_bytes, 0);
    assert_eq!(world.engine.counters().messages_in, 0);
    fan_out(&mut world, &[client], 10);
    assert_eq!(world.clients[client].texts().len(), 2);
    assert_eq!(world.clients[client].statuses(), [200]);
}

#[test]
fn client_that_ends_its_side_has_left() {
    let mut world = World::calm();
    let (fin, reset) = (world.open_stream(), world.open_stream());
    world.client(fin).finish();
    world.flow();
    world.client(reset).reset();
    world.flow();
    assert_eq!(ends(&world), [("client", 1), ("lost", 1)]);
    assert_eq!(world.engine.counters().connections, 0);
    assert_eq!(world.clients[fin].closed_with(), None);
}

// S5
#[test]
fn vanished_client_is_noticed_by_the_kernel() {
    let mut world = World::calm();
    let client = world.open_stream();
    let timeout = Config::default().pong_timeout.as_millis() as u64;
    assert_eq!(
        world.clients[client].wire.state().user_timeout,
        Some(timeout)
    );
    world.client(client).vanish();
    world.wait(30_000 + timeout + 1000);
    assert_eq!(ends(&world), [("lost", 1)]);
}

#[test]
fn last_blocks_precede_the_end_which_is_not_waited_for() {
    let mut world = World::calm();
    let client = world.open_stream();
    fan_out(&mut world, &[client], 100);
    let key = world.key(client);
    world.command(Command::CloseOne { key, code: 4001 });
    fan_out(&mut world, &[client], 100);
    let events = &world.clients[client].events;
    let close = ClientEvent::Block {
        event: Some("close".to_owned()),
        data: "4001".to_owned(),
    };
    assert_eq!(events.last(), Some(&close));
    assert_eq!(world.clients[client].texts().len(), 2);
    assert_eq!(world.clients[client].end(), End::Eof);
    assert_eq!(ends(&world), [("server", 1)]);
    assert_eq!(world.engine.counters().connections, 0);
}

#[test]
fn shutdown_ends_streams_at_its_pace() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..1000).map(|_| world.open_stream()).collect();
    world.shut_down(Duration::from_secs(4));
    world.wait(1000);
    let open = world.engine.counters().open_streams;
    assert!((600..900).contains(&open), "{open}");
    world.wait(4000);
    for client in clients {
        assert_eq!(world.clients[client].closed_with(), Some(1012));
    }
    assert_eq!(ends(&world), [("shutdown", 1000)]);
}

// S6
#[test]
fn slow_reader_is_ended_between_two_blocks() {
    let mut world = World::calm();
    world.limits = Limits {
        receive: 1 << 20,
        send: 2500,
    };
    let client = world.open_stream();
    world.client(client).behavior.is_eager = false;
    for _ in 0..100 {
        fan_out(&mut world, &[client], 1000);
    }
    let queued = world.interest(client).unwrap().queued;
    assert!(queued > 64 * 1024);
    world.wait(10_500);
    assert_eq!(ends(&world), [("slow", 1)]);
    let left = world.interest(client).unwrap().queued;
    assert!(left < 2000, "the rest of a block and the last one: {left}");
    world.client(client).behavior.is_eager = true;
    world.flow();
    // The reader of the tests has accepted each block.
    assert_eq!(world.clients[client].closed_with(), Some(1013));
    assert_eq!(world.clients[client].end(), End::Eof);
    assert!(!world.clients[client].has_partial_input());
}

#[test]
fn head_request_is_answered_by_the_head_alone() {
    for path in ["/stream", "/stream-later"] {
        let mut world = World::calm();
        let client = world.connect();
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: sim\r\n\r\n");
        world.client(client).request(request, &[200]);
        world.flow();
        let key = world.key(client);
        world.command(Command::AnswerTo { key, accept: true });
        world.flow();
        assert_eq!(world.clients[client].events, [ClientEvent::StreamOpen]);
        assert_eq!(world.clients[client].end(), End::Eof);
        assert_eq!(world.engine.counters().opened, 0);
    }
}

#[test]
fn client_of_http_1_0_gets_a_stream() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).has_requested_stream = true;
    let request = "GET /stream HTTP/1.0\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.flow();
    fan_out(&mut world, &[client], 10);
    assert_eq!(world.clients[client].texts().len(), 2);
}

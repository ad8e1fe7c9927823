//! The end of connections: queued output is not lost, and a peer cannot delay the end.

use crate::sim::{ClientEvent, Command, End, World, client_frame, pad};

fn close(world: &mut World, client: usize, code: u16) {
    let key = world.key(client);
    world.command(Command::CloseOne { key, code });
    world.settle();
}

fn is_gone(world: &World, client: usize) -> bool {
    world.interest(client).is_none()
}

// W8: closing a socket with unread input makes the kernel reset the connection, and the peer loses
// unread output; the simulated kernel does so at once.
#[test]
fn response_arrives_although_the_client_keeps_sending() {
    let mut world = World::calm();
    world.limits.receive = 60_000;
    let client = world.connect();
    let request = "GET /ws HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n\r\n";
    world.client(client).request(request, &[400]);
    world.client(client).raw(vec![b'x'; 1_000_000]);
    world.flow();
    assert_eq!(world.clients[client].statuses(), [400]);
    assert_eq!(world.clients[client].end(), End::Eof);
    assert!(is_gone(&world, client));
}

// W8
#[test]
fn close_frame_arrives_although_the_client_keeps_sending() {
    let mut world = World::calm();
    world.limits.receive = 60_000;
    let client = world.open();
    world.client(client).behavior.is_wrong = true;
    world.client(client).frame(0xF1, b"all reserved bits");
    for _ in 0..20 {
        world.client(client).raw(vec![b'x'; 50_000]);
        world.flow();
    }
    assert_eq!(world.clients[client].closed_with(), Some(1002));
    assert_eq!(world.clients[client].end(), End::Eof);
}

// W8, W10
#[test]
fn output_accepted_by_the_kernel_is_not_discarded() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    let request = "GET /big HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.deliver(client);
    world.wait(3_000);
    assert!(is_gone(&world, client), "the limit is 2 s");
    assert!(!world.clients[client].wire.state().is_aborted);
    world.listen(client, usize::MAX);
    assert_eq!(world.clients[client].statuses(), [200]);
}

// CVE-2024-23672
// W11
#[test]
fn unanswered_close_frame_times_out_after_five_seconds() {
    let mut world = World::calm();
    let client = world.open_lazy();
    close(&mut world, client, 4000);
    world.wait(4_900);
    assert!(!is_gone(&world, client));
    world.wait(300);
    assert!(is_gone(&world, client));
    assert!(world.clients[client].wire.state().is_aborted);
}

// W11
#[test]
fn input_does_not_extend_the_close_deadline() {
    let mut world = World::calm();
    let client = world.open_lazy();
    close(&mut world, client, 4000);
    for _ in 0..52 {
        world.client(client).frame(0x81, b"quiet still talking");
        world.deliver(client);
        world.wait(100);
    }
    assert!(is_gone(&world, client));
}

// W11: its close frame arrives, but the end of its stream does not.
#[test]
fn late_close_frame_does_not_extend_the_close_deadline() {
    for (late, gone_after) in [(0, 2_200), (4_800, 5_200)] {
        let mut world = World::calm();
        let client = world.open_lazy();
        close(&mut world, client, 4000);
        world.wait(late);
        world.client(client).close(4000);
        world.deliver(client);
        world.wait(gone_after - late);
        assert!(is_gone(&world, client), "{late}");
    }
}

// W11: RFC 6455 §7.1.1 requires the server to close the TCP connection first.
#[test]
fn server_closes_tcp_after_both_close_frames() {
    let mut world = World::calm();
    let client = world.open_lazy();
    world.client(client).close(1000);
    world.deliver(client);
    world.settle();
    world.listen(client, usize::MAX);
    assert_eq!(world.clients[client].closed_with(), Some(1000));
    assert_eq!(world.clients[client].end(), End::Eof);
    assert!(
        !is_gone(&world, client),
        "the server waits for the peer's end"
    );
    world.client(client).finish();
    world.deliver(client);
    world.settle();
    assert!(is_gone(&world, client));
    assert!(!world.clients[client].wire.state().is_aborted);
}

// W12: the oracle fails if anything is received after a close frame.
#[test]
fn after_our_close_frame_only_a_close_frame_is_processed() {
    let mut world = World::calm();
    let client = world.open_lazy();
    world.client(client).behavior.is_mute = true;
    close(&mut world, client, 4000);
    world.client(client).frame(0x89, b"ping");
    world.client(client).frame(0x81, b"echo too late");
    // In fragments, one of which is incomplete when the close frame is sent.
    world.client(client).frame(0x01, b"echo too");
    world.client(client).frame(0x88, &4000_u16.to_be_bytes());
    world.client(client).frame(0x80, b"late");
    world.client(client).behavior.is_eager = true;
    world.flow();
    let events = world.clients[client].events.iter();
    let late = events.filter(|event| matches!(event, ClientEvent::Pong(_) | ClientEvent::Text(_)));
    assert!(late.count() <= 1, "{:?}", world.clients[client].events);
    assert_eq!(world.inbox(client), 0);
    assert!(is_gone(&world, client));
}

// W13
#[test]
fn close_frames_are_echoed() {
    let table: [(&[u8], u16); 8] = [
        (b"", 1005),
        (&[3, 0xE8], 1000),
        (&[3, 0xE9, b'b', b'y', b'e'], 1001),
        (&[15, 160], 4000),
        (&[3], 1002),
        (&[3, 0xED], 1002),
        (&[3, 0xE8, 0xFF], 1007),
        (&[0xFF, 0xFF], 1002),
    ];
    for (payload, code) in table {
        let mut world = World::calm();
        let client = world.open();
        world.client(client).behavior.is_wrong = true;
        world.client(client).behavior.has_sent_close = true;
        world.client(client).frame(0x88, payload);
        world.flow();
        assert_eq!(
            world.clients[client].closed_with(),
            Some(code),
            "{payload:?}"
        );
        assert!(is_gone(&world, client), "{payload:?}");
    }
}

// CVE-2017-2670, R5, T2, W14: `settle` fails if the engine spins.
#[test]
fn half_closed_client_gets_pipelined_responses_and_is_closed() {
    let mut world = World::calm();
    world.limits.send = 1000;
    let client = world.open_lazy();
    for number in 0..50 {
        world
            .client(client)
            .text(&format!("echo {number} {}", pad(500)));
    }
    world.client(client).finish();
    world.deliver(client);
    world.settle();
    assert!(
        world
            .interest(client)
            .is_some_and(|interest| interest.queued > 10_000)
    );
    assert_eq!(world.engine.counters().open, 0);
    while world.clients[client].end() == End::Open {
        world.listen(client, 800);
        world.settle();
    }
    let texts = world.clients[client].texts();
    assert_eq!(
        texts.iter().filter(|text| text.contains("echo ")).count(),
        50
    );
    assert!(is_gone(&world, client));
    assert_eq!(
        world.engine.counters().closed.lost,
        1,
        "no close frame was sent"
    );
}

// W15
#[test]
fn reset_during_deferred_handshake_closes_at_once() {
    let mut world = World::calm();
    let ends: [fn(&mut crate::sim::Client); 2] =
        [|client| client.finish(), |client| client.reset()];
    for end in ends {
        let client = world.connect();
        world.client(client).send_handshake("/later");
        world.flow();
        end(world.client(client));
        world.flow();
        assert!(is_gone(&world, client));
    }
    assert_eq!(world.engine.counters().opened, 0);
}

// An incomplete request followed by the end of the stream: the previous request is answered.
#[test]
fn incomplete_request_does_not_discard_the_previous_response() {
    let mut world = World::calm();
    world.limits.send = 1000;
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    world
        .client(client)
        .request("GET /big HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    world.client(client).raw("GET /b");
    world.client(client).finish();
    world.deliver(client);
    world.settle();
    world.client(client).behavior.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
    assert!(is_gone(&world, client));
}

// A message and a close frame in one read: the reply comes first.
#[test]
fn requests_before_the_end_are_answered_before_closing() {
    let mut world = World::calm();
    let client = world.open();
    let mut bytes = client_frame(0x81, b"echo 1", [1, 2, 3, 4]);
    bytes.extend(client_frame(0x88, &[3, 0xE8], [5, 6, 7, 8]));
    world
        .client(client)
        .sent_messages
        .push(crate::sim::Payload::Text("echo 1".to_owned()));
    world.client(client).behavior.has_sent_close = true;
    world.client(client).raw(bytes);
    world.flow();
    let [.., ClientEvent::Text(text), ClientEvent::Close(_)] = &world.clients[client].events[..]
    else {
        panic!("{:?}", world.clients[client].events);
    };
    assert!(text.ends_with("echo 1"));
}

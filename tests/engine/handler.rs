//! When the handler is called, and the effects of its calls.

use std::time::Duration;

use h_realtime_engine::{Config, Readiness};

use crate::sim::{ClientEvent, Command, End, World};

// K3: a response that comes too late.
#[test]
fn response_to_a_closed_connection_has_no_effect() {
    let mut world = World::calm();
    let gone = world.connect();
    world.client(gone).send_handshake("/later");
    world.flow();
    let key = world.key(gone);
    world.client(gone).finish();
    world.flow();
    assert_eq!(world.interest(gone), None);
    // Its slot has a new connection, which is deferred as well.
    let next = world.connect();
    world.client(next).send_handshake("/later");
    world.flow();
    assert_eq!(
        world.key(next).to_u64() as u32,
        key.to_u64() as u32,
        "the same slot"
    );
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert!(
        world
            .interest(next)
            .is_some_and(|interest| interest.is_deferred)
    );
    let key = world.key(next);
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert_eq!(world.clients[next].statuses(), [101]);
}

// K2, K3: writing the response detects that the connection is broken.
#[test]
fn deferred_request_on_broken_socket_ends_once() {
    for (path, accept) in [("/later", true), ("/later", false), ("/slow", false)] {
        let mut world = World::calm();
        let client = world.connect();
        match path {
            "/later" => world.client(client).send_handshake(path),
            _ => world
                .client(client)
                .request("GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]),
        }
        world.flow();
        let key = world.key(client);
        world.client(client).reset();
        world.command(Command::AnswerTo { key, accept });
        // The edge of the reset arrives after the response.
        world.turn_with(Vec::new());
        assert_eq!(world.interest(client), None, "{path} {accept}");
        assert_eq!(world.engine.counters().connections, 0, "{path} {accept}");
        assert_eq!(world.engine.counters().opened, 0, "{path} {accept}");
        world.flow();
    }
}

// K2: the same with unread input.
#[test]
fn response_does_not_resume_a_broken_connection() {
    let mut world = World::calm();
    let client = world.connect();
    let request = "GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.flow();
    let key = world.key(client);
    let readiness = Readiness {
        readable: true,
        ..Readiness::default()
    };
    world.turn_with(vec![(key, readiness)]);
    world.client(client).reset();
    world.command(Command::AnswerTo { key, accept: false });
    world.turn_with(Vec::new());
    assert_eq!(world.engine.counters().connections, 0);
}

#[test]
fn request_may_be_split_anywhere() {
    let mut world = World::calm();
    let head = crate::sim::handshake("/ws");
    for at in 1..head.len() {
        let client = world.connect();
        world.client(client).expected.push_back(&[101]);
        world.client(client).raw(&head[..at]);
        world.flow();
        world.client(client).raw(&head[at..]);
        // A message right after the handshake.
        world.client(client).text("echo");
        world.flow();
        assert_eq!(world.clients[client].statuses(), [101], "{at}");
        assert_eq!(world.inbox(client), 1, "{at}");
    }
}

// CVE-2023-43669: parsing the head again with each byte would take quadratic time.
#[test]
fn parsing_a_growing_head_takes_linear_time() {
    const PARTS: usize = 4;
    let mut world = World::new(Config::default().max_head(64 * 1024), 1);
    let client = world.connect();
    let filler = format!("A: {}\r\n", "x".repeat(48 * 1024));
    let head = crate::sim::handshake_with("/ws", &filler);
    world.client(client).expected.push_back(&[101]);
    let mut costs = Vec::new();
    for part in head.chunks(head.len().div_ceil(PARTS)) {
        let before = cpu_time();
        for byte in part {
            world.client(client).raw([*byte]);
            world.deliver(client);
            world.turn();
        }
        costs.push(cpu_time() - before);
    }
    world.flow();
    assert_eq!(world.clients[client].statuses(), [101]);
    assert!(costs[PARTS - 1] < 3 * costs[0], "{costs:?}");
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn body_may_be_split_anywhere_and_pipelined() {
    let mut world = World::calm();
    let requests = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
    for size in 1..requests.len() {
        let client = world.connect();
        world.client(client).expected.extend([&[200][..], &[200]]);
        for piece in requests.chunks(size) {
            world.client(client).raw(piece);
            world.flow();
        }
        let bodies = world.clients[client]
            .events
            .iter()
            .map(|event| match event {
                ClientEvent::Response { body, .. } => body.as_slice(),
                _ => b"?",
            });
        assert_eq!(bodies.collect::<Vec<_>>(), [&b"5"[..], b"ok"], "{size}");
    }
}

// RFC 9110 §9.3.2
#[test]
fn refused_head_request_gets_no_content() {
    let long = "x".repeat(5_000);
    let partial = "HEAD /ok HTTP/1.1\r\nHost: a\r\nA: ".to_owned();
    let body = "HEAD /body HTTP/1.1\r\nHost: a\r\n";
    let sized = |length: u64| format!("{body}Content-Length: {length}\r\n\r\n");
    let chunked = format!("{body}Transfer-Encoding: chunked\r\n\r\n");
    for (request, status) in [
        // Incomplete when their deadlines end.
        (partial.clone(), 408),
        (sized(100), 408),
        (format!("{chunked}5\r\nabc"), 408),
        // Of which the memory is needed.
        (format!("{partial}{long}"), 503),
        (format!("HEAD /slow HTTP/1.1\r\nHost: a\r\n\r\n{long}"), 503),
        // With a body that is rejected.
        (format!("{body}\r\n"), 411),
        (sized(1 << 40), 413),
        (format!("{chunked}?\r\n"), 400),
        (format!("{partial}a\nb\r\n\r\n"), 400),
        (format!("HEAD /{}", "x".repeat(20_000)), 414),
    ] {
        let mut world = World::new(Config::default().unfinished_total(4_000), 1);
        let client = world.connect();
        world.client(client).behavior.is_wrong = true;
        world.client(client).expect_no_content();
        world.client(client).raw(&request);
        world.flow();
        world.wait(11_000);
        let what = &request[..request.len().min(80)];
        let refused = ClientEvent::Response {
            status,
            body: Vec::new(),
        };
        assert_eq!(world.clients[client].events, [refused], "{what}");
        assert!(!world.clients[client].has_partial_input(), "{what}");
    }
}

#[test]
fn half_closed_client_gets_the_response_to_its_deferred_request() {
    let mut world = World::calm();
    let client = world.connect();
    let request = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.flow();
    world.client(client).finish();
    world.flow();
    let key = world.key(client);
    assert!(world.interest(client).is_some_and(|it| it.is_deferred));
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
    assert_eq!(world.clients[client].end(), End::Eof);
    assert_eq!(world.interest(client), None);
}

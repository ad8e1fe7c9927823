//! When handlers are called, and what becomes of what they say.

use std::time::Duration;

use h_realtime_engine::{Config, Readiness};

use crate::sim::{Command, Heard, World};

// K3: an answer that comes too late.
#[test]
fn an_answer_for_one_that_has_gone_does_nothing() {
    let mut world = World::calm();
    let gone = world.connect();
    world.client(gone).shake("/later");
    world.flow();
    let key = world.key(gone);
    world.client(gone).finish();
    world.flow();
    assert_eq!(world.interest(gone), None);
    // Its slot has a new owner, which waits as well.
    let next = world.connect();
    world.client(next).shake("/later");
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

// K2, K3: the answer is what finds out that the connection is broken.
#[test]
fn a_deferred_request_whose_socket_is_broken_ends_once_and_never_opens() {
    for (path, accept) in [("/later", true), ("/later", false), ("/slow", false)] {
        let mut world = World::calm();
        let client = world.connect();
        match path {
            "/later" => world.client(client).shake(path),
            _ => world
                .client(client)
                .request("GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n", &[200]),
        }
        world.flow();
        let key = world.key(client);
        world.client(client).reset();
        world.command(Command::AnswerTo { key, accept });
        // The edge that tells of the reset comes later than the answer.
        world.turn_with(Vec::new());
        assert_eq!(world.interest(client), None, "{path} {accept}");
        assert_eq!(world.engine.counters().connections, 0, "{path} {accept}");
        assert_eq!(world.engine.counters().opened, 0, "{path} {accept}");
        world.flow();
    }
}

// K2: the same, and there may be something to read.
#[test]
fn a_broken_connection_is_not_taken_up_again_by_its_answer() {
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
fn a_request_may_come_in_any_two_pieces() {
    let mut world = World::calm();
    let head = crate::sim::handshake("/ws");
    for at in 1..head.len() {
        let client = world.connect();
        world.client(client).expected.push_back(&[101]);
        world.client(client).raw(&head[..at]);
        world.flow();
        world.client(client).raw(&head[at..]);
        // A message behind it, in the same bytes.
        world.client(client).text("echo");
        world.flow();
        assert_eq!(world.clients[client].statuses(), [101], "{at}");
        assert_eq!(world.inbox(client), 1, "{at}");
    }
}

// CVE-2023-43669: parsing the head anew with each byte would cost its square.
#[test]
fn each_byte_of_a_growing_head_costs_the_same() {
    const PARTS: usize = 4;
    let mut world = World::new(
        Config {
            max_head: 64 * 1024,
            ..Config::default()
        },
        1,
    );
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

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_body_may_come_in_any_pieces_and_the_next_request_behind_it() {
    let mut world = World::calm();
    let requests = b"POST /body HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /ok HTTP/1.1\r\n\r\n";
    for size in 1..requests.len() {
        let client = world.connect();
        world.client(client).expected.extend([&[200][..], &[200]]);
        for piece in requests.chunks(size) {
            world.client(client).raw(piece);
            world.flow();
        }
        let bodies = world.clients[client].heard.iter().map(|heard| match heard {
            Heard::Response { body, .. } => body.as_slice(),
            _ => b"?",
        });
        assert_eq!(bodies.collect::<Vec<_>>(), [&b"5"[..], b"ok"], "{size}");
    }
}

//! Bodies in the chunked transfer coding, from the socket to the handler.

use h_realtime_engine::Config;
use h_realtime_engine::http::{MAX_CHUNK_EXTENSIONS, MAX_TRAILERS};

use crate::sim::{ClientEvent, World, pad};

const HEAD: &str = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Returns the bodies of all responses to a client; `/body` responds with the length of the
/// request's body.
fn responses(world: &World, client: usize) -> Vec<String> {
    let body = |event: &ClientEvent| match event {
        ClientEvent::Response { body, .. } => String::from_utf8(body.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    world.clients[client].events.iter().map(body).collect()
}

/// Sends a request and another one in one piece, and returns the statuses of the responses.
fn statuses(request: &str) -> Vec<u16> {
    let mut world = World::calm();
    let client = world.connect();
    // The test compares the exact statuses.
    let right = &[200, 400, 404, 411, 413, 431, 501];
    world.client(client).expected.extend([&right[..]; 2]);
    let both = format!("{request}GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
    world.client(client).raw(both);
    world.flow();
    world.clients[client].statuses()
}

#[test]
fn chunked_body_may_be_split_anywhere_and_pipelined() {
    let requests = format!(
        "{HEAD}3;a=\"b\"\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\n\r\n{HEAD}0\r\n\r\n"
    );
    let want = ["5", "ok", "0"];
    let mut world = World::calm();
    for size in 1..requests.len() {
        let client = world.connect();
        world.client(client).expected.extend([&[200][..]; 3]);
        for piece in requests.as_bytes().chunks(size) {
            world.client(client).raw(piece);
            world.flow();
        }
        assert_eq!(responses(&world, client), want, "{size}");
    }
    for at in 1..requests.len() {
        let client = world.connect();
        world.client(client).expected.extend([&[200][..]; 3]);
        for piece in [&requests[..at], &requests[at..]] {
            world.client(client).raw(piece);
            world.flow();
        }
        assert_eq!(responses(&world, client), want, "{at}");
    }
}

#[test]
fn handler_receives_only_the_data() {
    // The handler counts bytes, so lengths around the digits of chunk sizes are used.
    let mut world = World::calm();
    let client = world.connect();
    for length in [1, 9, 10, 15, 16, 255, 256, 999, 1000] {
        world.client(client).expected.push_back(&[200]);
        let body = format!("{length:x}\r\n{}\r\n0\r\n\r\n", pad(length));
        world.client(client).raw(format!("{HEAD}{body}"));
        world.flow();
        let last = responses(&world, client).pop();
        assert_eq!(last, Some(length.to_string()));
    }
}

#[test]
fn expect_100_continue_with_chunks_gets_100() {
    let mut world = World::calm();
    let client = world.connect();
    let head = HEAD.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    world.client(client).expected.push_back(&[200]);
    world.client(client).raw(head);
    world.flow();
    assert_eq!(world.clients[client].events, [ClientEvent::Continue]);
    world.client(client).raw("5\r\nhello\r\n0\r\n\r\n");
    world.flow();
    let body = b"5".to_vec();
    let answer = ClientEvent::Response { status: 200, body };
    assert_eq!(
        world.clients[client].events,
        [ClientEvent::Continue, answer]
    );
}

#[test]
fn refused_bodies_end_the_connection() {
    let extension = pad(MAX_CHUNK_EXTENSIONS);
    let trailer = pad(MAX_TRAILERS);
    for (request, want) in [
        (format!("{HEAD}0\r\n\r\n"), &[200, 200][..]),
        (format!("{HEAD}1\r\nxx\r\n0\r\n\r\n"), &[400]),
        (format!("{HEAD}1\nx\r\n0\r\n\r\n"), &[400]),
        (format!("{HEAD}ffffffffffffffff\r\n"), &[413]),
        (format!("{HEAD}100001\r\n"), &[413]),
        (format!("{HEAD}0;{extension}\r\n\r\n"), &[413]),
        (format!("{HEAD}0\r\nA: {trailer}\r\n\r\n"), &[431]),
        // The handler wants a body, and the request does not announce one.
        ("POST /body HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), &[411]),
        (
            "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into(),
            &[200, 200],
        ),
        (
            HEAD.replace("chunked", "gzip, chunked") + "0\r\n\r\n",
            &[501],
        ),
        (HEAD.replace("HTTP/1.1", "HTTP/1.0") + "0\r\n\r\n", &[400]),
        // An unwanted body is not skipped.
        (HEAD.replace("/body", "/ok") + "0\r\n\r\n", &[200]),
        (HEAD.replace("/body", "/none") + "0\r\n\r\n", &[404]),
    ] {
        assert_eq!(
            statuses(&request),
            want,
            "{:?}",
            &request[..request.len().min(99)]
        );
    }
}

#[test]
fn chunked_body_has_a_fixed_deadline() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).expected.push_back(&[408]);
    world.client(client).raw(HEAD);
    world.flow();
    for _ in 0..10 {
        assert_eq!(world.clients[client].events, []);
        world.client(client).raw("1\r\nx\r\n");
        world.wait(1000);
    }
    assert_eq!(world.clients[client].statuses(), [408]);
}

/// The memory for the position of the only header field, in bytes.
const FIELD: usize = 16;

#[test]
fn one_byte_chunks_only_use_the_memory_of_the_data() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).expected.push_back(&[200]);
    let head = format!("{HEAD}1;{}\r\nx\r\n", pad(1000));
    world.client(client).raw(head);
    world.flow();
    for data in 2..1000 {
        world.client(client).raw("01;ab\r\nx\r\n");
        world.flow();
        let held = world.engine.counters().ledger;
        let most = (2 * (HEAD.len() + data) + 2 * FIELD) as u64;
        assert!(held.bodies <= most, "{} of {data} bytes", held.bodies);
        assert_eq!(held.input, 0);
    }
    world.client(client).raw("0\r\n\r\n");
    world.flow();
    assert_eq!(responses(&world, client), ["999"]);
    assert_eq!(world.engine.counters().ledger.bodies, 0);
}

// R11
#[test]
fn every_chunk_counts_as_work() {
    const CHUNKS: usize = 1000;
    let mut world = World::new(Config::default(), 1);
    let clients: Vec<_> = (0..300).map(|_| world.connect()).collect();
    for &client in &clients {
        world.client(client).behavior.is_eager = false;
        world.client(client).expected.push_back(&[200]);
        world.client(client).raw(HEAD);
        world.deliver(client);
    }
    world.settle();
    let chunks = "1\r\nx\r\n".repeat(CHUNKS);
    for &client in &clients {
        world.client(client).raw(&chunks);
        world.deliver(client);
    }
    let bytes_in = |world: &World| world.engine.counters().bytes_in;
    for _ in 0..3 {
        let before = bytes_in(&world);
        world.turn();
        // A thousand chunks cost 20 µs, and a turn has 1 ms and one more share for each class.
        let read = (bytes_in(&world) - before) as usize / chunks.len();
        assert!((1..100).contains(&read), "bodies of {read} clients");
    }
}

//! TLS in the engine: handshakes within a turn, and incomplete records.
#![cfg(feature = "tls")]

#[path = "../support/certificate.rs"]
mod certificate;
use std::io::Write as _;
use std::sync::Arc;

use certificate::certificate_and_client;
use h_realtime_engine::{Config, Mail, Reload};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::sim::{Command, Payload, World, client_frame, handshake, pad};

fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// Opens a WebSocket over TLS whose client stops reading.
fn open(world: &mut World, config: &Arc<ClientConfig>) -> usize {
    open_session(world, config).0
}

fn open_session(world: &mut World, config: &Arc<ClientConfig>) -> (usize, ClientConnection) {
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    world.client(client).behavior.is_wrong = true;
    world.client(client).has_begun = true;
    let mut session = session(config);
    session.writer().write_all(&handshake("/ws")).unwrap();
    while session.is_handshaking() || session.wants_write() {
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).unwrap();
        }
        world.client(client).raw(&records);
        world.deliver(client);
        (0..4).for_each(|_| world.turn());
        let answer = world.client(client).wire.state().peer_take(usize::MAX);
        session.read_tls(&mut answer.as_slice()).unwrap();
        session.process_new_packets().unwrap();
    }
    assert!(is_open(world, client));
    (client, session)
}

fn records(session: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records).unwrap();
    }
    records
}

fn is_open(world: &World, client: usize) -> bool {
    let interest = world.interest(client);
    interest.is_some_and(|interest| interest.is_open)
}

// T8
#[test]
fn turn_limits_tls_handshake_steps_to_eight() {
    let (config, client) = certificate_and_client();
    let mut hello = Vec::new();
    session(&Arc::new(client)).write_tls(&mut hello).unwrap();
    let mut world = World::calm();
    let probe = world.open();
    world.listen_tls(config);
    let clients: Vec<_> = (0..50).map(|_| world.connect()).collect();
    for &client in &clients {
        world.client(client).behavior.is_eager = false;
        world.client(client).raw(&hello);
        world.deliver(client);
    }
    let answered = |world: &World| {
        let has_flight = |&&client: &&usize| world.clients[client].wire.state().unread_output() > 0;
        clients.iter().filter(has_flight).count()
    };
    // They are accepted in this turn, and served from the next on.
    world.turn();
    let mut before = 0;
    let mut turns = 0;
    while before < clients.len() {
        world.client(probe).text("quiet");
        world.deliver(probe);
        world.turn();
        turns += 1;
        let now = answered(&world);
        assert!((before + 1..=before + 8).contains(&now), "{before}, {now}");
        assert_eq!(
            world.inbox(probe),
            turns,
            "open connections are not delayed"
        );
        before = now;
    }
}

// CVE-2026-15565: a partial TLS record is held until its connection has ended, some seconds after
// it was closed. It must not be counted a second time, or connections that hold almost nothing
// would be closed as well.
#[test]
fn connections_that_are_ending_do_not_count_twice_in_the_limit_on_incomplete_input() {
    let limit = 256 * 1024;
    let config = Config::default().unfinished_total(limit);
    let mut world = World::new(config, 1);
    let modest: Vec<_> = (0..20).map(|_| world.open()).collect();
    let frame = client_frame(0x82, &[0; 100], [9; 4]);
    for &client in &modest {
        world.client(client).has_begun = true;
        world.client(client).raw(&frame[..50]);
        world.deliver(client);
    }
    world.settle();
    let (tls, client) = certificate_and_client();
    let client = Arc::new(client);
    world.listen_tls(tls);
    let mut record = vec![0; 16_000];
    record[..5].copy_from_slice(b"\x17\x03\x03\x40\x00");
    let mut greedy = Vec::new();
    for _ in 0..50 {
        let client = open(&mut world, &client);
        world.client(client).raw(&record);
        world.deliver(client);
        (0..4).for_each(|_| world.turn());
        greedy.push(client);
        let held = world.engine.counters().incomplete_bytes;
        assert!(held <= limit as u64 / 2 * 3, "{held}");
    }
    assert!(greedy.iter().any(|&client| !is_open(&world, client)));
    let open = greedy.iter().filter(|&&client| is_open(&world, client));
    assert!(open.count() * record.len() > limit / 2);
    assert!(modest.iter().all(|&client| is_open(&world, client)));
}

// A message in progress may hold more memory than a partial record, but connections without
// progress are closed first. CVE-2026-15565
#[test]
fn prompt_large_messages_are_not_shed_for_partial_tls_records() {
    let config = Config::default().unfinished_total(4 << 20);
    let mut world = World::new(config, 1);
    let senders: Vec<_> = (0..20).map(|_| world.open()).collect();
    world.listen_tls(certificate_and_client().0);
    // A handshake record of maximum length without its end.
    let mut record = vec![1; 16_000];
    record[..5].copy_from_slice(b"\x16\x03\x01\x40\x00");
    let frame = client_frame(0x82, &[7; 60_000], [9; 4]);
    for round in 0..16 {
        let parts = frame.chunks(10_000);
        let last = parts.len() - 1;
        for (number, part) in parts.enumerate() {
            for _ in 0..4 {
                let client = world.connect();
                world.client(client).behavior.is_wrong = true;
                world.client(client).has_begun = true;
                world.client(client).raw(&record);
            }
            for &client in &senders {
                world.client(client).has_begun = true;
                world.client(client).raw(part);
                if number == last {
                    let payload = Payload::Binary(vec![7; 60_000]);
                    world.client(client).sent_messages.push(payload);
                }
            }
            world.wait(50);
            let held = world.engine.counters().incomplete_bytes;
            assert!(held <= 4 << 20, "{held}");
        }
        for &client in &senders {
            assert!(is_open(&world, client), "closed in round {round}");
            assert_eq!(world.inbox(client), round + 1);
        }
    }
    assert!(world.engine.counters().refusals.overload > 0);
}

// For a record with a single byte, decrypting costs far more than reading. R11
#[test]
fn a_turn_decrypts_a_limited_number_of_short_records() {
    let mut world = World::calm();
    let (tls, config) = certificate_and_client();
    let config = Arc::new(config);
    world.listen_tls(tls);
    let mut clients: Vec<_> = (0..20).map(|_| open_session(&mut world, &config)).collect();
    let pongs = client_frame(0x8A, b"", [9; 4]).repeat(400);
    for (client, session) in &mut clients {
        let mut sent = Vec::new();
        for byte in &pongs {
            session.writer().write_all(&[*byte]).unwrap();
            sent.extend(records(session));
        }
        assert!(sent.len() > 50_000);
        world.client(*client).raw(&sent);
        world.deliver(*client);
        world.calls(*client);
    }
    let mut all = 0;
    for _ in 0..60 {
        world.turn();
        // 8 KiB each.
        let reads: usize = clients
            .iter()
            .map(|(client, _)| world.calls(*client).reads)
            .sum();
        assert!(reads <= 10, "{reads} reads");
        all += reads;
    }
    assert!(all > 100, "{all}");
}

// Encrypted records are queued in the session, not in the connection's queue. M6
#[test]
fn connections_that_read_no_records_are_closed_to_free_memory() {
    let limit = 64 * 1024;
    let config = Config::default().queue_total(limit);
    let mut world = World::new(config, 1);
    let (tls, client) = certificate_and_client();
    let client = Arc::new(client);
    world.listen_tls(tls);
    let clients: Vec<_> = (0..60).map(|_| open(&mut world, &client)).collect();
    let reader = clients[0];
    for &client in &clients {
        world.clients[client].wire.state().limits.send = 100;
        let (key, text) = (world.key(client), pad(900));
        world.command(Command::SendTo { key, text });
    }
    (0..4).for_each(|_| world.turn());
    let held = |world: &World| world.engine.counters().ledger;
    assert!(held(&world).records > limit as u64 / 2);
    assert_eq!(held(&world).queues, 0);
    for tick in 0..100 {
        world.clock += 100;
        // Events follow when the others are closed.
        let count = if tick < 33 { 10 } else { usize::MAX };
        world.clients[reader].wire.state().peer_take(count);
        (0..2).for_each(|_| world.turn());
    }
    assert!(
        held(&world).output() < limit as u64 / 2,
        "{:?}",
        held(&world)
    );
    assert!(is_open(&world, reader));
    assert!(world.engine.counters().closed.slow > 0);
}

#[test]
fn reloaded_certificate_is_used_for_new_handshakes() {
    let (old, old_client) = certificate_and_client();
    let (new, new_client) = certificate_and_client();
    let mut world = World::calm();
    world.listen_tls(old);
    let before = open(&mut world, &Arc::new(old_client));
    let reload = Reload {
        config: Config::default(),
        tls: Some(new),
    };
    world.environment.send(Mail::Reload(Box::new(reload)));
    world.turn();
    // The client trusts only the new certificate.
    open(&mut world, &Arc::new(new_client));
    assert!(is_open(&world, before));
}

#[test]
fn handshake_that_is_not_tls_is_counted_as_failed() {
    let (config, _) = certificate_and_client();
    let mut world = World::calm();
    world.listen_tls(config);
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    world.client(client).behavior.is_wrong = true;
    world.client(client).raw(b"GET / HTTP/1.1\r\n\r\n");
    world.deliver(client);
    (0..4).for_each(|_| world.turn());
    assert_eq!(world.engine.counters().tls_failures, 1);
}

//! Those who send too much: fragments without number, pings and pongs, filters, and connections.

mod support;

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use h_realtime::ws::{OpCode, encode_client_frame};
use serde_json::{Value, json};
use support::{
    Client, PATIENCE, PROGRAM, Received, Server, Siege, connect, event, eventually, reset,
};
use tempfile::TempDir;

/// A masked frame with this first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_client_frame(true, OpCode::Text, [1, 2, 3, 4], payload, &mut frame);
    frame[0] = first;
    frame
}

fn message(message: &Value) -> Vec<u8> {
    frame(0x81, message.to_string().as_bytes())
}

// CVE-2026-48779 and CVE-2026-62389: what counts is what is kept of fragments, and empty ones
// are fragments, too.
#[test]
fn a_million_fragments_that_never_end_a_message_cost_no_memory() {
    let mut siege = Siege::new("");
    for payload in [&b""[..], b"x"] {
        let part = [frame(0x02, payload), frame(0x00, payload).repeat(999)].concat();
        let mut peers = Vec::new();
        for number in 0..1000 {
            let mut peer = siege.server.anonymous();
            peer.send_raw(&part);
            peers.push(peer);
            if number % 100 == 0 {
                siege.answer();
            }
        }
        siege.answer();
        assert!(siege.growth() < 16 << 20, "{}", siege.growth());
        // Nobody has done anything wrong yet; 24 more are one message of 1,024 fragments.
        peers[0].send_raw(&frame(0x00, payload).repeat(24));
        peers[0].send_frame(true, OpCode::Ping, b"?");
        assert_eq!(peers[0].receive(), Received::Pong(b"?".to_vec()));
        peers[0].send_raw(&frame(0x00, payload));
        let too_many = Some((1009, "too many fragments".to_owned()));
        assert_eq!(peers[0].receive(), Received::Close(too_many));
        drop(peers);
        siege.wait_until_alone();
    }
    siege.lift();
}

// CVE-2014-0193
#[test]
fn a_million_fragments_of_one_message_end_at_the_limit() {
    let mut siege = Siege::new("");
    for payload in [&b""[..], b"x"] {
        let mut peer = siege.server.anonymous();
        let part = frame(0x00, payload).repeat(10_000);
        peer.send_raw(&frame(0x02, payload));
        for _ in 0..100 {
            // The server need not take what comes behind its close frame.
            if peer.stream.write_all(&part).is_err() {
                break;
            }
            siege.answer();
        }
        assert!(siege.growth() < 8 << 20, "{}", siege.growth());
    }
    siege.lift();
}

// W5
// CVE-2021-3690 is about pongs that nobody asked for, which were kept.
#[test]
fn a_million_pings_and_pongs_of_one_who_does_not_read_pile_up_nowhere() {
    for (first, count) in [(0x89, 300_000), (0x8A, 1_000_000)] {
        let mut siege = Siege::new("");
        let mut peer = siege.server.anonymous();
        peer.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let part = frame(first, b"0123456789").repeat(count / 100);
        for _ in 0..100 {
            peer.send_raw(&part);
            siege.answer();
            let queued = siege.server.metric("h_realtime_queued_bytes");
            assert!(queued <= 64.0 * 1024.0, "{queued}");
        }
        assert!(siege.growth() < 8 << 20, "{}", siege.growth());
        assert_eq!(siege.server.metric("h_realtime_disconnects_total"), 0.0);
        drop(peer);
        siege.lift();
    }
}

// M7
/// Filters of the largest kind there is, again and again, from several clients at once.
#[test]
fn filters_that_are_large_or_many_or_change_all_the_time_stay_within_bounds() {
    let mut siege = Siege::new("");
    let filter = |values: Vec<String>| {
        let clause = json!({"field": "/uri", "operator": "one_of", "value": values});
        json!({"id": 1, "filter": {"match_policy": "include_any", "clauses": [clause], "actions": {}}})
    };
    let urls = |count: usize, round: usize, size: usize| -> Vec<String> {
        let pad = "p".repeat(size);
        let url = |number| format!("https://{round}.example.org/{number}/{pad}");
        (0..count).map(url).collect()
    };
    let mut peers: Vec<Client> = (0..20).map(|_| siege.server.anonymous()).collect();
    for round in 0..10 {
        for peer in &mut peers {
            peer.send_raw(&message(&filter(urls(100, round, 500))));
            // Too many, too long, and too deep.
            peer.send_raw(&message(&filter(urls(1000, round, 0))));
            peer.send_raw(&message(&filter(vec![
                "https://".to_owned() + &"a/../".repeat(12_000),
            ])));
            let deep = format!(r#"{{"id":1,"filter":{}"#, "[".repeat(60_000));
            if round == 9 {
                peer.send_raw(&frame(0x81, deep.as_bytes()));
            }
        }
        siege.answer();
    }
    assert!(siege.growth() < 32 << 20, "{}", siege.growth());
    let subscriptions = siege.server.metric("h_realtime_subscriptions");
    assert!(subscriptions <= 20.0 * 200.0, "{subscriptions}");
    assert_eq!(
        siege
            .server
            .publish(&event("create", json!({})).to_string())
            .0,
        202
    );
    siege.answer();
    drop(peers);
    siege.lift();
}

// M2
// CVE-2024-23672 and its like: what leaves must leave nothing behind, however it leaves.
#[test]
fn five_thousand_that_come_and_go_leave_nothing_behind() {
    let mut siege = Siege::new("[timeouts]\nclose = \"1s\"\nlinger = \"1s\"\n");
    for _ in 0..10 {
        let mut wave: Vec<Client> = (0..500).map(|_| siege.server.anonymous()).collect();
        siege.answer();
        for (number, mut client) in wave.drain(..).enumerate() {
            match number % 4 {
                0 => drop(client),
                1 => client.close(1000, ""),
                2 => reset(client.stream),
                _ => client.half_close(),
            }
        }
        siege.answer();
    }
    siege.wait_until_alone();
    let ended = siege.server.metric("h_realtime_disconnects_total");
    assert_eq!(ended, 5000.0);
    siege.lift();
}

// CVE-2017-2670 and traps A1 and A5: out of descriptors, the server neither spins nor falls silent, and
// goes on by itself when its deadlines have freed some.
#[test]
fn all_descriptors_taken_by_those_who_say_nothing_are_won_back() {
    let folder = TempDir::new().unwrap();
    let config = "[timeouts]\nhandshake = \"300ms\"\n";
    fs::write(folder.path().join("config.toml"), config).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 40 && exec "$0" "$@""#, PROGRAM]);
    let server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    let mut witness = server.anonymous();
    witness.drain();
    let peers: Vec<_> = (0..300).map(|_| connect(server.address())).collect();
    eventually(PATIENCE, || {
        let log = server.log();
        log.contains("no connection can be accepted").then_some(())
    });
    let (before, since) = (support::cpu(&server), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        assert_eq!(witness.drain(), []);
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = support::cpu(&server) - before;
    assert!(used < Duration::from_millis(500), "{used:?} of a second");
    // There is room for one. Those who attack stay; their time is over before its patience.
    drop(witness);
    eventually(PATIENCE, || {
        let mut client = Client::try_open(server.address(), "/ws", "");
        let is_in = client.head.starts_with("HTTP/1.1 101 ");
        is_in.then(|| assert_eq!(client.drain(), []))
    });
    drop(peers);
}

//! Those who send too much: fragments without number, pings and pongs, filters, and connections.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use h_realtime_engine::ws::{OpCode, encode_client_frame};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Client, Delay, PATIENCE, PROGRAM, Received, Server, Siege, connect, event, eventually, reset,
};

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
    for (number, payload) in [&b""[..], b"x"].into_iter().enumerate() {
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
        let too_big = siege
            .server
            .metric(r#"h_realtime_close_codes_total{code="1009"}"#);
        assert_eq!(too_big, (number + 1) as f64);
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
/// A proxy in front is restarted, and all come back in the same moment.
#[test]
fn five_thousand_reconnect_at_once() {
    let mut siege = Siege::new("");
    let mut crowd: Vec<Client> = (0..5000).map(|_| siege.server.anonymous()).collect();
    for how in 0..3 {
        for mut client in crowd.drain(..) {
            match how {
                0 => drop(client),
                1 => reset(client.stream),
                _ => client.close(1000, ""),
            }
        }
        for number in 0..5000 {
            let mut client = Client::raw(connect(siege.server.address()));
            client.ask_for_websocket("/ws", "");
            crowd.push(client);
            if number % 500 == 0 {
                siege.answer();
            }
        }
        for client in &mut crowd {
            assert_eq!(client.answer(false).unwrap().status(), 101);
        }
        assert!(siege.growth() < 32 << 20, "{}", siege.growth());
    }
    assert_eq!(siege.server.metric("h_realtime_connects_total"), 20_001.0);
    drop(crowd);
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

// M2
/// Nothing is sent afterwards, so that only the server itself can have the memory returned.
#[test]
fn memory_of_a_burst_is_returned_while_the_server_is_idle() {
    let siege = Siege::new("[timeouts]\nmessage = \"60s\"\n");
    // The start of a message of 64 KiB.
    let head = [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let start = [&head[..], &[0; 60_000]].concat();
    let peers = (0..500).map(|_| {
        let mut peer = siege.server.anonymous();
        peer.send_raw(&start);
        peer
    });
    let peers: Vec<Client> = peers.collect();
    eventually(PATIENCE, || (siege.growth() > 24 << 20).then_some(()));
    drop(peers);
    eventually(PATIENCE, || (siege.growth() < 12 << 20).then_some(()));
    siege.lift();
}

/// CVE-2017-2670 and trap A1: out of descriptors, the server neither spins nor falls silent, and
/// goes on by itself when its deadlines have freed some.
#[test]
fn all_descriptors_taken_by_those_who_say_nothing_are_won_back() {
    // With 64 there is one for each place.
    for limit in [40, 56] {
        let folder = TempDir::new().unwrap();
        let config = "[timeouts]\nhandshake = \"1s\"\n";
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = Command::new("sh");
        let script = format!(r#"ulimit -n {limit} && exec "$0" "$@""#);
        command.args(["-c", &script, PROGRAM]);
        let server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
        let witness = server.anonymous();
        let mut siege = Siege::of(server, witness);
        let addresses = [siege.server.address(), siege.server.admin];
        let peers: Vec<_> = (0..400)
            .map(|number| connect(addresses[number % 2]))
            .collect();
        siege.server.log_with("no connection can be accepted");
        let (before, since) = (crate::support::cpu(&siege.server), Instant::now());
        while since.elapsed() < Duration::from_secs(2) {
            siege.answer();
            std::thread::sleep(Duration::from_millis(100));
        }
        let used = crate::support::cpu(&siege.server) - before;
        assert!(used < Duration::from_millis(100), "{used:?} of 2 s");
        // There is room for one. Those who attack stay; their time is over before its patience.
        siege.relieve();
        drop(peers);
        siege.lift();
    }
}

// A5
/// While the server is held up the kernel keeps those who connect, and none has to try again.
#[test]
fn a_thousand_may_connect_before_the_first_is_accepted() {
    let mut siege = Siege::new("");
    let kernel = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = kernel.trim().parse::<usize>().unwrap().min(1000);
    siege.server.signal(Signal::STOP);
    let address = siege.server.address();
    let peers = (0..count).map(|_| {
        // A SYN that is dropped is sent again after a second.
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Client::raw(stream);
        peer.ask_for_websocket("/ws", "");
        peer
    });
    let mut peers: Vec<Client> = peers.collect();
    siege.server.signal(Signal::CONT);
    siege.answer();
    for peer in &mut peers {
        assert_eq!(peer.answer(false).unwrap().status(), 101);
    }
    drop(peers);
    siege.lift();
}

// R7
#[test]
fn a_thousand_who_all_talk_at_once_hold_nobody_up() {
    let mut siege = Siege::new("");
    let mut peers: Vec<Client> = (0..1000).map(|_| siege.server.anonymous()).collect();
    let pings = frame(0x89, b"").repeat(250);
    let mut delays = Vec::new();
    for _ in 0..8 {
        for some in peers.chunks_mut(100) {
            some.iter_mut().for_each(|peer| peer.send_raw(&pings));
            delays.push(siege.answer());
        }
    }
    assert_prompt(delays);
    // Whatever came of it, nobody was cut off, and all are still served.
    for peer in &mut peers {
        peer.send(r#"{"type":"ping","id":1}"#);
        while matches!(peer.receive(), Received::Pong(_)) {}
    }
    assert_eq!(siege.server.metric("h_realtime_disconnects_total"), 0.0);
    drop(peers);
    siege.lift();
}

// T8
#[cfg(feature = "tls")]
#[test]
fn a_storm_of_tls_handshakes_holds_nobody_up() {
    let tls = crate::support::TlsServer::start();
    let hello = crate::support::hello(&tls.config(&rustls::version::TLS13)).1;
    let address = tls.server.address();
    let witness = tls.plain();
    let mut siege = Siege::of(tls.server, witness);
    let mut delays = Vec::new();
    for _ in 0..5 {
        let mut peers: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
        for peer in &mut peers {
            peer.write_all(&hello).unwrap();
        }
        delays.extend((0..20).map(|_| siege.answer()));
        for peer in &mut peers {
            // A server's flight begins with a handshake record.
            let mut first = [0];
            peer.read_exact(&mut first).unwrap();
            assert_eq!(first, [0x16]);
        }
    }
    assert_prompt(delays);
    siege.lift();
}

// M5, CVE-2018-1000518, CVE-2026-27571, CVE-2026-39804
/// Of 60 MiB in what may be sent by default, and of a gigabyte where more may.
#[cfg(feature = "deflate")]
#[test]
fn bombs_are_stopped_at_the_limit() {
    let part = [
        &crate::support::deflate(&vec![0; 1 << 20])[..],
        b"\0\0\xff\xff",
    ]
    .concat();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    // The reactor's own buffers keep the size that the limit has let them grow to.
    for (limit, parts, kept) in [("64KiB", 60, 12 << 20), ("2MiB", 1024, 32 << 20)] {
        let mut siege = Siege::new(&format!("[limits]\nmessage = \"{limit}\"\n"));
        let bomb = part.repeat(parts);
        for _ in 0..5 {
            let peers = (0..20).map(|_| Client::open(siege.server.address(), "/ws", offer));
            let mut peers: Vec<Client> = peers.collect();
            for peer in &mut peers {
                peer.send_rsv1(OpCode::Binary, &bomb);
                siege.answer();
            }
            for peer in &mut peers {
                let too_big = Some((1009, "message is too big".to_owned()));
                assert_eq!(peer.receive(), Received::Close(too_big));
            }
            assert!(siege.growth() < 64 << 20, "{}", siege.growth());
        }
        let failures = "h_realtime_decompression_failures_total";
        assert_eq!(siege.server.metric(failures), 100.0, "{limit}");
        siege.lift_but_for(kept);
    }
}

/// Before nine in ten answers the server worked for less than 50 ms, and none took long.
fn assert_prompt(mut delays: Vec<Delay>) {
    delays.sort_unstable();
    let most = delays[delays.len() * 9 / 10];
    assert!(most.work < Duration::from_millis(50), "{delays:?}");
    let longest = delays.iter().map(|delay| delay.total).max();
    assert!(longest < Some(Duration::from_secs(2)), "{delays:?}");
}

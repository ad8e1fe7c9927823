//! Floods: unlimited fragments, pings and pongs, filters, and connections.

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
    Client, Delay, LoadTest, PATIENCE, PROGRAM, Received, Server, connect, event, eventually, reset,
};

/// Returns a masked frame with this first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_client_frame(true, OpCode::Text, [1, 2, 3, 4], payload, &mut frame);
    frame[0] = first;
    frame
}

fn message(message: &Value) -> Vec<u8> {
    frame(0x81, message.to_string().as_bytes())
}

// CVE-2026-48779 and CVE-2026-62389: the memory of buffered fragments counts, and empty fragments
// have a cost, too.
#[test]
fn endless_fragments_use_bounded_memory() {
    let mut load = LoadTest::new("");
    for payload in [&b""[..], b"x"] {
        let part = [frame(0x02, payload), frame(0x00, payload).repeat(999)].concat();
        let mut peers = Vec::new();
        for number in 0..1000 {
            let mut peer = load.server.anonymous();
            peer.send_raw(&part);
            peers.push(peer);
            if number % 100 == 0 {
                load.ping();
            }
        }
        load.ping();
        assert!(load.growth() < 16 << 20, "{}", load.growth());
        // No limit is exceeded yet; 24 more complete a message of 1,024 fragments.
        peers[0].send_raw(&frame(0x00, payload).repeat(24));
        peers[0].send_frame(true, OpCode::Ping, b"?");
        assert_eq!(peers[0].receive(), Received::Pong(b"?".to_vec()));
        peers[0].send_raw(&frame(0x00, payload));
        let too_many = Some((1009, "too many fragments".to_owned()));
        assert_eq!(peers[0].receive(), Received::Close(too_many));
        drop(peers);
        load.wait_for_disconnects();
    }
    load.check_recovery();
}

// CVE-2014-0193
#[test]
fn fragment_limit_ends_the_connection() {
    let mut load = LoadTest::new("");
    for (number, payload) in [&b""[..], b"x"].into_iter().enumerate() {
        let mut peer = load.server.anonymous();
        let part = frame(0x00, payload).repeat(10_000);
        peer.send_raw(&frame(0x02, payload));
        for _ in 0..100 {
            // The server may stop reading after its close frame.
            if peer.stream.write_all(&part).is_err() {
                break;
            }
            load.ping();
        }
        assert!(load.growth() < 8 << 20, "{}", load.growth());
        let too_big = load
            .server
            .metric(r#"h_realtime_close_codes_total{code="1009"}"#);
        assert_eq!(too_big, (number + 1) as f64);
    }
    load.check_recovery();
}

// W5 CVE-2021-3690 is about unsolicited pongs that were queued.
#[test]
fn pings_of_client_that_does_not_read_do_not_accumulate() {
    for (first, count) in [(0x89, 300_000), (0x8A, 1_000_000)] {
        let mut load = LoadTest::new("");
        let mut peer = load.server.anonymous();
        peer.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let part = frame(first, b"0123456789").repeat(count / 100);
        for _ in 0..100 {
            peer.send_raw(&part);
            load.ping();
            let queued = load.server.metric("h_realtime_queued_bytes");
            assert!(queued <= 64.0 * 1024.0, "{queued}");
        }
        assert!(load.growth() < 8 << 20, "{}", load.growth());
        assert_eq!(load.server.metric("h_realtime_disconnects_total"), 0.0);
        drop(peer);
        load.check_recovery();
    }
}

// M7
/// Filters of maximum size, replaced continuously by several clients.
#[test]
fn large_and_changing_filters_stay_within_limits() {
    let mut load = LoadTest::new("");
    let filter = |values: Vec<String>| {
        let clause = json!({"field": "/uri", "operator": "one_of", "value": values});
        json!({"id": 1, "filter": {"match_policy": "include_any", "clauses": [clause], "actions": {}}})
    };
    let urls = |count: usize, round: usize, size: usize| -> Vec<String> {
        let pad = "p".repeat(size);
        let url = |number| format!("https://{round}.example.org/{number}/{pad}");
        (0..count).map(url).collect()
    };
    let mut peers: Vec<Client> = (0..20).map(|_| load.server.anonymous()).collect();
    for round in 0..10 {
        for peer in &mut peers {
            peer.send_raw(&message(&filter(urls(100, round, 500))));
            // Too many values, too long, and too deeply nested.
            peer.send_raw(&message(&filter(urls(1000, round, 0))));
            peer.send_raw(&message(&filter(vec![
                "https://".to_owned() + &"a/../".repeat(12_000),
            ])));
            let deep = format!(r#"{{"id":1,"filter":{}"#, "[".repeat(60_000));
            if round == 9 {
                peer.send_raw(&frame(0x81, deep.as_bytes()));
            }
        }
        load.ping();
    }
    assert!(load.growth() < 32 << 20, "{}", load.growth());
    let subscriptions = load.server.metric("h_realtime_subscriptions");
    assert!(subscriptions <= 20.0 * 200.0, "{subscriptions}");
    assert_eq!(
        load.server
            .publish(&event("create", json!({})).to_string())
            .0,
        202
    );
    load.ping();
    drop(peers);
    load.check_recovery();
}

// M2
/// A proxy in front restarts, and all clients reconnect at the same time.
#[test]
fn five_thousand_reconnect_at_once() {
    let mut load = LoadTest::new("");
    let mut clients: Vec<Client> = (0..5000).map(|_| load.server.anonymous()).collect();
    for how in 0..3 {
        for mut client in clients.drain(..) {
            match how {
                0 => drop(client),
                1 => reset(client.stream),
                _ => client.close(1000, ""),
            }
        }
        for number in 0..5000 {
            let mut client = Client::raw(connect(load.server.address()));
            client.request_websocket("/ws", "");
            clients.push(client);
            if number % 500 == 0 {
                load.ping();
            }
        }
        for client in &mut clients {
            assert_eq!(client.answer(false).unwrap().status(), 101);
        }
        assert!(load.growth() < 32 << 20, "{}", load.growth());
    }
    assert_eq!(load.server.metric("h_realtime_connects_total"), 20_001.0);
    drop(clients);
    load.check_recovery();
}

// M2 CVE-2024-23672 and similar: a connection leaves no state behind, however it ends.
#[test]
fn five_thousand_closed_connections_leave_no_state() {
    let mut load = LoadTest::new("[timeouts]\nclose = \"1s\"\nlinger = \"1s\"\n");
    for _ in 0..10 {
        let mut batch: Vec<Client> = (0..500).map(|_| load.server.anonymous()).collect();
        load.ping();
        for (number, mut client) in batch.drain(..).enumerate() {
            match number % 4 {
                0 => drop(client),
                1 => client.close(1000, ""),
                2 => reset(client.stream),
                _ => client.half_close(),
            }
        }
        load.ping();
    }
    load.wait_for_disconnects();
    let ended = load.server.metric("h_realtime_disconnects_total");
    assert_eq!(ended, 5000.0);
    load.check_recovery();
}

// M2
/// Nothing is sent afterwards, so the server must release the memory by itself.
#[test]
fn memory_of_a_burst_is_returned_while_the_server_is_idle() {
    let load = LoadTest::new("[timeouts]\nmessage = \"60s\"\n");
    // The beginning of a message of 64 KiB.
    let head = [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let start = [&head[..], &[0; 60_000]].concat();
    let peers = (0..500).map(|_| {
        let mut peer = load.server.anonymous();
        peer.send_raw(&start);
        peer
    });
    let peers: Vec<Client> = peers.collect();
    eventually(PATIENCE, || (load.growth() > 24 << 20).then_some(()));
    drop(peers);
    eventually(PATIENCE, || (load.growth() < 12 << 20).then_some(()));
    load.check_recovery();
}

/// CVE-2017-2670 and trap A1: without descriptors, the server neither spins nor stops responding,
/// and recovers when its deadlines free some.
#[test]
fn descriptors_held_by_silent_clients_are_recovered() {
    // With 64 there is one for each slot.
    for limit in [40, 56] {
        let folder = TempDir::new().unwrap();
        let config = "[timeouts]\nhandshake = \"1s\"\n";
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = Command::new("sh");
        let script = format!(r#"ulimit -n {limit} && exec "$0" "$@""#);
        command.args(["-c", &script, PROGRAM]);
        let server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
        let probe = server.anonymous();
        let mut load = LoadTest::of(server, probe);
        let addresses = [load.server.address(), load.server.admin];
        let peers: Vec<_> = (0..400)
            .map(|number| connect(addresses[number % 2]))
            .collect();
        load.server.log_with("no connection can be accepted");
        let (before, since) = (crate::support::cpu(&load.server), Instant::now());
        while since.elapsed() < Duration::from_secs(2) {
            load.ping();
            std::thread::sleep(Duration::from_millis(100));
        }
        let used = crate::support::cpu(&load.server) - before;
        assert!(used < Duration::from_millis(100), "{used:?} of 2 s");
        // One connection fits. The attackers stay, and reach their deadline before the new client's
        // timeout.
        load.replace_probe();
        drop(peers);
        load.check_recovery();
    }
}

// A5
/// While the server is suspended, the kernel queues new connections, and none has to retry.
#[test]
fn backlog_holds_a_thousand_connections() {
    let mut load = LoadTest::new("");
    let kernel = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = kernel.trim().parse::<usize>().unwrap().min(1000);
    load.server.signal(Signal::STOP);
    let address = load.server.address();
    let peers = (0..count).map(|_| {
        // A dropped SYN is retransmitted after one second.
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Client::raw(stream);
        peer.request_websocket("/ws", "");
        peer
    });
    let mut peers: Vec<Client> = peers.collect();
    load.server.signal(Signal::CONT);
    load.ping();
    for peer in &mut peers {
        assert_eq!(peer.answer(false).unwrap().status(), 101);
    }
    drop(peers);
    load.check_recovery();
}

// R7
#[test]
fn a_thousand_busy_clients_do_not_delay_others() {
    let mut load = LoadTest::new("");
    let mut peers: Vec<Client> = (0..1000).map(|_| load.server.anonymous()).collect();
    let pings = frame(0x89, b"").repeat(250);
    let mut delays = Vec::new();
    for _ in 0..8 {
        for some in peers.chunks_mut(100) {
            some.iter_mut().for_each(|peer| peer.send_raw(&pings));
            delays.push(load.ping());
        }
    }
    assert_prompt(delays);
    // Whatever the responses, no connection was cut, and all are still served.
    for peer in &mut peers {
        peer.send(r#"{"type":"ping","id":1}"#);
        while matches!(peer.receive(), Received::Pong(_)) {}
    }
    assert_eq!(load.server.metric("h_realtime_disconnects_total"), 0.0);
    drop(peers);
    load.check_recovery();
}

// T8
#[cfg(feature = "tls")]
#[test]
fn tls_handshake_storm_does_not_delay_others() {
    let tls = crate::support::TlsServer::start();
    let hello = crate::support::hello(&tls.config(&rustls::version::TLS13)).1;
    let address = tls.server.address();
    let probe = tls.plain();
    let mut load = LoadTest::of(tls.server, probe);
    let mut delays = Vec::new();
    for _ in 0..5 {
        let mut peers: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
        for peer in &mut peers {
            peer.write_all(&hello).unwrap();
        }
        delays.extend((0..20).map(|_| load.ping()));
        for peer in &mut peers {
            // A server's flight begins with a handshake record.
            let mut first = [0];
            peer.read_exact(&mut first).unwrap();
            assert_eq!(first, [0x16]);
        }
    }
    assert_prompt(delays);
    load.check_recovery();
}

// M5, CVE-2018-1000518, CVE-2026-27571, CVE-2026-39804
/// 60 MiB within the default limit, and 1 GiB within a larger one.
#[cfg(feature = "deflate")]
#[test]
fn bombs_are_stopped_at_the_limit() {
    let part = [
        &crate::support::deflate(&vec![0; 1 << 20])[..],
        b"\0\0\xff\xff",
    ]
    .concat();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    // The reactor's own buffers keep the size that the limit permits.
    for (limit, parts, kept) in [("64KiB", 60, 12 << 20), ("2MiB", 1024, 32 << 20)] {
        let mut load = LoadTest::new(&format!("[limits]\nmessage = \"{limit}\"\n"));
        let bomb = part.repeat(parts);
        for _ in 0..5 {
            let peers = (0..20).map(|_| Client::open(load.server.address(), "/ws", offer));
            let mut peers: Vec<Client> = peers.collect();
            for peer in &mut peers {
                peer.send_rsv1(OpCode::Binary, &bomb);
                load.ping();
            }
            for peer in &mut peers {
                let too_big = Some((1009, "message is too big".to_owned()));
                assert_eq!(peer.receive(), Received::Close(too_big));
            }
            assert!(load.growth() < 64 << 20, "{}", load.growth());
        }
        let failures = "h_realtime_decompression_failures_total";
        assert_eq!(load.server.metric(failures), 100.0, "{limit}");
        load.check_recovery_with(kept);
    }
}

/// Asserts that nine in ten responses took less than 50 ms of CPU time, and none took long.
fn assert_prompt(mut delays: Vec<Delay>) {
    delays.sort_unstable();
    let most = delays[delays.len() * 9 / 10];
    assert!(most.work < Duration::from_millis(50), "{delays:?}");
    let longest = delays.iter().map(|delay| delay.total).max();
    assert!(longest < Some(Duration::from_secs(2)), "{delays:?}");
}

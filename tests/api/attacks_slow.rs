//! Slow clients: slow-loris in TLS, in heads, and in frames; heads that arrive byte by byte; and
//! peers that hold the maximum of incomplete input.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{
    Client, LoadTest, PATIENCE, Received, Server, Stopwatch, connect, cpu, eventually,
};

/// Sends one byte to each connection repeatedly until the server has ended all, and returns the
/// elapsed time.
fn drip(load: &mut LoadTest, mut peers: Vec<TcpStream>, byte: u8) -> Duration {
    let since = Instant::now();
    for peer in &peers {
        peer.set_nonblocking(true).unwrap();
    }
    while !peers.is_empty() {
        peers.retain_mut(|peer| peer.write(&[byte]).is_ok() && !has_ended(peer));
        load.ping();
        assert!(since.elapsed() < PATIENCE, "{} are left", peers.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    since.elapsed()
}

/// Returns whether the stream has ended or was reset; earlier input is discarded.
fn has_ended(peer: &mut TcpStream) -> bool {
    let mut answer = [0; 1024];
    loop {
        match peer.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

// A4
#[test]
fn slow_heads_end_at_their_deadline() {
    let mut load = LoadTest::new(SHORT);
    let address = load.server.address();
    let peers = (0..500).map(|number| {
        let mut peer = connect(address);
        let begun = ["", "GET /ws HTTP/1.1\r\nHost: a\r\nA: "][number % 2];
        peer.write_all(begun.as_bytes()).unwrap();
        peer
    });
    let peers = peers.collect();
    let lasted = drip(&mut load, peers, b'x');
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
    load.check_recovery();
}

/// Stops the threads of a scope even if an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// A8
/// The admin listener has few slots, which are reserved for requests.
#[test]
fn slow_heads_on_the_admin_listener_do_not_block_requests() {
    let load = LoadTest::new("");
    load.server.wait_until_ready();
    let (admin, stop) = (load.server.admin, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _guard = StopOnDrop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut peers = VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut peer = connect(admin);
                    let _ = peer.write_all(b"GET /livez HTTP/1.1\r\nA: ");
                    peers.push_back(peer);
                    if peers.len() > 400 {
                        peers.pop_front();
                    }
                    for peer in peers.iter_mut().step_by(50) {
                        let _ = peer.write(b"x");
                    }
                }
            });
        }
        for round in 0..100 {
            for path in ["livez", "readyz"] {
                let request =
                    format!("GET /{path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
                let answer = crate::support::http(admin, request.as_bytes());
                assert_eq!(answer.0, 200, "{path}, round {round}");
            }
        }
        let ended = load
            .server
            .metric("h_realtime_evictions_total{limit=\"admin\"}");
        assert!(ended > 100.0, "{ended}");
    });
    load.check_recovery();
}

#[test]
fn slow_frames_end_at_their_deadline() {
    let mut load = LoadTest::new(SHORT);
    let address = load.server.address();
    let peers = (0..300).map(|number| {
        let mut peer = Client::open(address, "/ws", "").stream;
        // An incomplete header, a frame, and an incomplete message with the next frame.
        let begun: [&[u8]; 3] = [
            b"\x82",
            b"\x82\xfe\x80\0\0\0\0\0",
            b"\x02\x81\0\0\0\0x\0\xfe\x80\0\0\0\0\0",
        ];
        peer.write_all(begun[number % 3]).unwrap();
        peer
    });
    let peers = peers.collect();
    let lasted = drip(&mut load, peers, 0xFE);
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
    load.check_recovery();
}

// T4
#[cfg(feature = "tls")]
#[test]
fn slow_tls_handshakes_end_at_their_deadline() {
    let tls = crate::support::TlsServer::configured(SHORT);
    let hello = crate::support::hello(&tls.config(&rustls::version::TLS13)).1;
    let peers = (0..300).map(|number| {
        let mut peer = tls.tcp();
        // Nothing, a partial hello, and one that announces more than it contains.
        let begun = [
            &[][..],
            &hello[..hello.len() / 2],
            b"\x16\x03\x01\x3f\xff\x01\0\x3f\xfb",
        ];
        peer.write_all(begun[number % 3]).unwrap();
        peer
    });
    let (peers, probe) = (peers.collect(), tls.plain());
    let mut load = LoadTest::of(tls.server, probe);
    // The type byte of a record, for connections that have sent nothing.
    let lasted = drip(&mut load, peers, 0x16);
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
    load.check_recovery();
}

// CVE-2023-43669: a head must not be parsed again from its start with each byte.
#[test]
fn byte_by_byte_heads_are_cheap() {
    let mut load = LoadTest::new("");
    let filler = "x".repeat(8192 - 165);
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nA: {filler}\r\n\r\n"
    );
    assert!((8100..=8192).contains(&head.len()), "{}", head.len());
    let address = load.server.address();
    let mut peers: Vec<Client> = (0..5).map(|_| Client::raw(connect(address))).collect();
    let before = cpu(&load.server);
    for byte in head.as_bytes() {
        for peer in &mut peers {
            peer.send_raw(&[*byte]);
        }
    }
    load.ping();
    for peer in &mut peers {
        assert_eq!(peer.answer(false).unwrap().status(), 101);
    }
    // Parsed again with each byte, it would be 170 million bytes.
    let used = cpu(&load.server) - before;
    assert!(used < Duration::from_secs(4), "{used:?}");
    drop(peers);
    load.check_recovery();
}

// CVE-2026-15565, CVE-2026-27889, CVE-2026-33219: the memory of unauthenticated connections is
// bounded for all together, and is released.
#[test]
fn incomplete_input_of_2000_clients_stays_under_its_total() {
    let mut load = LoadTest::new(&format!(
        "[limits]\nunfinished_total = \"16MiB\"\n{}",
        SHORT.replace("\"1s\"", "\"4s\"")
    ));
    let address = load.server.address();
    let head = [&b"GET /ws HTTP/1.1\r\nA: "[..], &vec![b'x'; 8000]].concat();
    let frame = [&b"\x82\xff\0\0\0\0\0\x01\0\0\0\0\0\0"[..], &vec![0; 65_000]].concat();
    let mut peers = Vec::new();
    let mut most = 0;
    for number in 0..2000 {
        let mut peer = match number % 2 {
            0 => connect(address),
            _ => Client::open(address, "/ws", "").stream,
        };
        // A shed connection may be reset before all is sent.
        let _ = peer.write_all([&head, &frame][number % 2]);
        peers.push(peer);
        if number % 100 == 0 {
            load.ping();
            most = most.max(load.growth());
            let held = load.server.metric("h_realtime_unfinished_bytes");
            assert!(held <= (16 << 20) as f64, "{held}");
        }
    }
    most = most.max(load.growth());
    // All of it would be 73 MB or more; buffers grow by doubling, and allocators round up.
    assert!(most < 48 << 20, "{most}");
    load.wait_for_disconnects();
    drop(peers);
    load.check_recovery();
}

// W6
/// Clients that do not read do not delay others: CVE-2020-35896, CVE-2026-79677.
#[test]
fn two_thousand_slow_readers_do_not_delay_others() {
    let timeouts = "[timeouts]\nslow = \"2s\"\nclose = \"1s\"\nlinger = \"1s\"\n";
    let folder = TempDir::new().unwrap();
    // A Unix socket's buffer in the kernel is 200 KB rather than some MB.
    let socket = folder.path().join("socket");
    let url = format!("unix:{}", socket.display());
    let args = ["--listen", "ws://127.0.0.1:0", "--listen", &url];
    let server = Server::in_folder(folder, &args, timeouts);
    let probe = server.anonymous();
    let mut load = LoadTest::of(server, probe);
    let mut stalled: Vec<Client<UnixStream>> = (0..2000)
        .map(|_| {
            let mut client = Client::over(UnixStream::connect(&socket).unwrap(), "/ws", "");
            client.subscribe("/group", "__world__");
            client
        })
        .collect();
    let mut reader = load.server.anonymous();
    reader.subscribe("/group", "__world__");
    let text = "x".repeat(20_000);
    let event = crate::support::event("create", serde_json::json!({"text": text})).to_string();
    let (mut delays, mut most) = (Vec::new(), 0.0);
    for _ in 0..20 {
        let stopwatch = Stopwatch::start(&load.server);
        assert_eq!(load.server.publish(&event).0, 202);
        assert!(matches!(reader.receive(), Received::Text(_)));
        delays.push(stopwatch.read(&load.server));
        for _ in 0..5 {
            delays.push(load.ping());
        }
        let held = load.server.metric("h_realtime_held_bytes");
        assert!(held <= (64 << 20) as f64, "{held}");
        most = f64::max(most, load.server.metric("h_realtime_queued_bytes"));
    }
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    assert!(median.work < Duration::from_millis(50), "{delays:?}");
    assert!(most > (16 << 20) as f64, "no client was slow: {most}");
    // The events are shared: queued references are not copies.
    assert!(load.growth() < 32 << 20, "{}", load.growth());
    eventually(PATIENCE, || {
        load.ping();
        let open = load.server.metric("h_realtime_connections{state=\"open\"}");
        (open == 2.0).then_some(())
    });
    stalled.clear();
    drop(reader);
    load.check_recovery();
}

/// Deadlines that a test can wait for.
const SHORT: &str =
    "[timeouts]\nhandshake = \"1s\"\nmessage = \"1s\"\nclose = \"1s\"\nlinger = \"1s\"\n";

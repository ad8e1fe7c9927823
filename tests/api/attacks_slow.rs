//! Those who take their time: slow-loris in TLS, in a head and in a frame, heads that come a
//! byte at a time, and peers that hold all they may without ever being done.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{
    Client, PATIENCE, Received, Server, Siege, Stopwatch, connect, cpu, eventually,
};

/// One byte to each, again and again, until the server has ended them all; how long that was.
fn drip(siege: &mut Siege, mut peers: Vec<TcpStream>, byte: u8) -> Duration {
    let since = Instant::now();
    for peer in &peers {
        peer.set_nonblocking(true).unwrap();
    }
    while !peers.is_empty() {
        peers.retain_mut(|peer| peer.write(&[byte]).is_ok() && !has_ended(peer));
        siege.answer();
        assert!(since.elapsed() < PATIENCE, "{} are left", peers.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    since.elapsed()
}

/// Whether the stream is at its end, or was reset; what comes before the end is dropped.
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
fn heads_that_drip_are_gone_at_their_deadline() {
    let mut siege = Siege::new(SHORT);
    let address = siege.server.address();
    let peers = (0..500).map(|number| {
        let mut peer = connect(address);
        let begun = ["", "GET /ws HTTP/1.1\r\nHost: a\r\nA: "][number % 2];
        peer.write_all(begun.as_bytes()).unwrap();
        peer
    });
    let peers = peers.collect();
    let lasted = drip(&mut siege, peers, b'x');
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
    siege.lift();
}

/// Ends the threads of a scope also where an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// A8
/// The admin listener has few places, and they go to requests.
#[test]
fn heads_that_drip_on_the_admin_listener_do_not_keep_requests_from_being_served() {
    let siege = Siege::new("");
    siege.server.wait_until_ready();
    let (admin, stop) = (siege.server.admin, AtomicBool::new(false));
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
        let ended = siege
            .server
            .metric("h_realtime_evictions_total{limit=\"admin\"}");
        assert!(ended > 100.0, "{ended}");
    });
    siege.lift();
}

#[test]
fn frames_that_drip_are_gone_at_their_deadline() {
    let mut siege = Siege::new(SHORT);
    let address = siege.server.address();
    let peers = (0..300).map(|number| {
        let mut peer = Client::open(address, "/ws", "").stream;
        // A header that is not whole, a frame, and an unfinished message with the next frame.
        let begun: [&[u8]; 3] = [
            b"\x82",
            b"\x82\xfe\x80\0\0\0\0\0",
            b"\x02\x81\0\0\0\0x\0\xfe\x80\0\0\0\0\0",
        ];
        peer.write_all(begun[number % 3]).unwrap();
        peer
    });
    let peers = peers.collect();
    let lasted = drip(&mut siege, peers, 0xFE);
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
    siege.lift();
}

// T4
#[cfg(feature = "tls")]
#[test]
fn tls_handshakes_that_drip_are_gone_at_their_deadline() {
    let tls = crate::support::TlsServer::configured(SHORT);
    let hello = crate::support::hello(&tls.config(&rustls::version::TLS13)).1;
    let peers = (0..300).map(|number| {
        let mut peer = tls.tcp();
        // Nothing, a part of a hello, and one that promises more than it has.
        let begun = [
            &[][..],
            &hello[..hello.len() / 2],
            b"\x16\x03\x01\x3f\xff\x01\0\x3f\xfb",
        ];
        peer.write_all(begun[number % 3]).unwrap();
        peer
    });
    let (peers, witness) = (peers.collect(), tls.plain());
    let mut siege = Siege::of(tls.server, witness);
    // A record's type, to those who have said nothing.
    let lasted = drip(&mut siege, peers, 0x16);
    assert!(lasted < Duration::from_secs(6), "{lasted:?}");
    siege.lift();
}

// CVE-2023-43669: a head must not be parsed anew from its start with each byte.
#[test]
fn heads_of_8_kib_that_come_byte_by_byte_cost_little() {
    let mut siege = Siege::new("");
    let filler = "x".repeat(8192 - 165);
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nA: {filler}\r\n\r\n"
    );
    assert!((8100..=8192).contains(&head.len()), "{}", head.len());
    let address = siege.server.address();
    let mut peers: Vec<Client> = (0..5).map(|_| Client::raw(connect(address))).collect();
    let before = cpu(&siege.server);
    for byte in head.as_bytes() {
        for peer in &mut peers {
            peer.send_raw(&[*byte]);
        }
    }
    siege.answer();
    for peer in &mut peers {
        assert_eq!(peer.answer(false).unwrap().status(), 101);
    }
    // Parsed anew with each byte, it would be 170 million bytes.
    let used = cpu(&siege.server) - before;
    assert!(used < Duration::from_secs(4), "{used:?}");
    drop(peers);
    siege.lift();
}

// CVE-2026-15565, CVE-2026-27889, CVE-2026-33219: what those take who have not even logged in
// is bounded for all of them together, and they do not keep it.
#[test]
fn two_thousand_that_hold_all_they_may_take_no_more_than_they_may() {
    let mut siege = Siege::new(&format!(
        "[limits]\nunfinished_total = \"16MiB\"\n{}",
        SHORT.replace("\"1s\"", "\"4s\"")
    ));
    let address = siege.server.address();
    let head = [&b"GET /ws HTTP/1.1\r\nA: "[..], &vec![b'x'; 8000]].concat();
    let frame = [&b"\x82\xff\0\0\0\0\0\x01\0\0\0\0\0\0"[..], &vec![0; 65_000]].concat();
    let mut peers = Vec::new();
    let mut most = 0;
    for number in 0..2000 {
        let mut peer = match number % 2 {
            0 => connect(address),
            _ => Client::open(address, "/ws", "").stream,
        };
        // One that has been given up may be reset before it has said all.
        let _ = peer.write_all([&head, &frame][number % 2]);
        peers.push(peer);
        if number % 100 == 0 {
            siege.answer();
            most = most.max(siege.growth());
            let held = siege.server.metric("h_realtime_unfinished_bytes");
            assert!(held <= (16 << 20) as f64, "{held}");
        }
    }
    most = most.max(siege.growth());
    // All of it would be 73 MB and more; buffers grow by doubling, and allocators round.
    assert!(most < 48 << 20, "{most}");
    siege.wait_until_alone();
    drop(peers);
    siege.lift();
}

// W6
/// Those who read nothing hold nobody else up: CVE-2020-35896, CVE-2026-79677.
#[test]
fn two_thousand_who_read_nothing_hold_nobody_up() {
    let timeouts = "[timeouts]\nslow = \"2s\"\nclose = \"1s\"\nlinger = \"1s\"\n";
    let folder = TempDir::new().unwrap();
    // Of a unix socket the kernel takes 200 KB for each, and not some MB before it is full.
    let socket = folder.path().join("socket");
    let url = format!("unix:{}", socket.display());
    let args = ["--listen", "ws://127.0.0.1:0", "--listen", &url];
    let server = Server::in_folder(folder, &args, timeouts);
    let witness = server.anonymous();
    let mut siege = Siege::of(server, witness);
    let mut stalled: Vec<Client<UnixStream>> = (0..2000)
        .map(|_| {
            let mut client = Client::over(UnixStream::connect(&socket).unwrap(), "/ws", "");
            client.subscribe("/group", "__world__");
            client
        })
        .collect();
    let mut reader = siege.server.anonymous();
    reader.subscribe("/group", "__world__");
    let text = "x".repeat(20_000);
    let event = crate::support::event("create", serde_json::json!({"text": text})).to_string();
    let (mut delays, mut most) = (Vec::new(), 0.0);
    for _ in 0..20 {
        let stopwatch = Stopwatch::start(&siege.server);
        assert_eq!(siege.server.publish(&event).0, 202);
        assert!(matches!(reader.receive(), Received::Text(_)));
        delays.push(stopwatch.read(&siege.server));
        for _ in 0..5 {
            delays.push(siege.answer());
        }
        let held = siege.server.metric("h_realtime_held_bytes");
        assert!(held <= (64 << 20) as f64, "{held}");
        most = f64::max(most, siege.server.metric("h_realtime_queued_bytes"));
    }
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    assert!(median.work < Duration::from_millis(50), "{delays:?}");
    assert!(most > (16 << 20) as f64, "nobody was slow: {most}");
    // The events are shared: what is queued of them is no copy.
    assert!(siege.growth() < 32 << 20, "{}", siege.growth());
    eventually(PATIENCE, || {
        siege.answer();
        let open = siege
            .server
            .metric("h_realtime_connections{state=\"open\"}");
        (open == 2.0).then_some(())
    });
    stalled.clear();
    drop(reader);
    siege.lift();
}

/// Deadlines that a test can wait for.
const SHORT: &str =
    "[timeouts]\nhandshake = \"1s\"\nmessage = \"1s\"\nclose = \"1s\"\nlinger = \"1s\"\n";

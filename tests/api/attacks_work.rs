//! Messages that are expensive for their size: other clients are still served promptly.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use h_realtime_engine::ws::{OpCode, encode_client_frame};
use serde_json::json;

use crate::support::{Client, LoadTest, connect, deflate, reset};

/// Bytes that a connection sends repeatedly at a fixed rate.
struct Attacker {
    stream: TcpStream,
    at: usize,
}

impl Attacker {
    /// Sends as many of the bytes as the kernel accepts, at most `most`.
    fn send(&mut self, bytes: &[u8], mut most: usize) {
        while most > 0 {
            let rest = &bytes[self.at..];
            match self.stream.write(&rest[..rest.len().min(most)]) {
                Ok(sent) => {
                    self.at = (self.at + sent) % bytes.len();
                    most -= sent;
                }
                // The socket is full, or the server has ended the connection.
                Err(_) => return,
            }
        }
    }
}

/// Returns a message of one compressed frame.
fn compressed(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let payload = deflate(text.as_bytes());
    encode_client_frame(true, OpCode::Text, [0; 4], &payload, &mut frame);
    frame[0] |= 0x40;
    frame
}

fn filter(values: &[String]) -> Vec<u8> {
    let clause = json!({"field": "/uri", "operator": "one_of", "value": values});
    let filter = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
    compressed(&json!({"filter": filter}).to_string())
}

/// Sends pings for three seconds while the connections send these bytes at 100 KB/s each. Returns
/// the median CPU time of the server before a reply.
fn median_ping(load: &mut LoadTest, peers: Vec<TcpStream>, unit: &[u8]) -> Duration {
    let bytes = unit.repeat(8192_usize.div_ceil(unit.len()));
    let attackers = peers.into_iter().map(|stream| {
        stream.set_nonblocking(true).unwrap();
        Attacker { stream, at: 0 }
    });
    let mut attackers: Vec<Attacker> = attackers.collect();
    let end = Instant::now() + Duration::from_secs(3);
    let attack = thread::spawn(move || {
        while Instant::now() < end {
            let next = Instant::now() + Duration::from_millis(40);
            attackers.iter_mut().for_each(|one| one.send(&bytes, 4096));
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        attackers.into_iter().for_each(|one| reset(one.stream));
    });
    let mut delays = Vec::new();
    while Instant::now() < end {
        delays.push(load.ping());
        thread::sleep(Duration::from_millis(20));
    }
    attack.join().unwrap();
    delays.sort_unstable();
    delays[delays.len() / 2].work
}

#[cfg(feature = "deflate")]
#[test]
fn pings_stay_fast_while_connections_send_expensive_messages() {
    let uri = format!("https://example.org/{}", "path/".repeat(58));
    let versions: Vec<String> = (0..200).map(|n| format!("{uri}:v{n}")).collect();
    let unknown = json!({"id": 1, "type": "\u{7f}".repeat(65_000)}).to_string();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(32_000), "]".repeat(32_000));
    let members = format!("{{{}}}", vec![r#""\u0061b":1"#; 5_400].join(","));
    let mut slow = Vec::new();
    for (what, message) in [
        ("nested arrays", compressed(&deep)),
        ("members with escaped keys", compressed(&members)),
        ("16,000 equal values", filter(&vec!["a".to_owned(); 16_000])),
        ("200 versions of one URI", filter(&versions)),
        ("an unknown type", compressed(&unknown)),
    ] {
        let mut load = LoadTest::new("");
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let peers = (0..150).map(|_| Client::open(load.server.address(), "/ws", offer).stream);
        let peers = peers.collect();
        let median = median_ping(&mut load, peers, &message);
        if median >= BOUND {
            slow.push((what, median));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn pings_stay_fast_while_connections_pipeline_requests() {
    let mut load = LoadTest::new("");
    let request = b"GET /_status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let peers = (0..300).map(|_| connect(load.server.address()));
    let peers = peers.collect();
    let median = median_ping(&mut load, peers, request);
    assert!(median < BOUND, "{median:?}");
}

/// The maximum median of the work before a reply: far above the needs of an optimized build on an
/// idle machine, and far below the seconds that pings take if the work of a turn is unbounded.
const BOUND: Duration = Duration::from_millis(500);

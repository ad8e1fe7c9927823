//! A server under attack, and a well-behaved client that must be served meanwhile.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use h_realtime_engine::raise_open_files;
use socket2::SockRef;

use super::{Client, PATIENCE, Server, eventually};

/// A server, a client that must be served all the time, and the server's memory before the attack.
pub struct LoadTest {
    pub server: Server,
    probe: Client,
    resident: u64,
}

impl LoadTest {
    /// Starts a server with this configuration.
    pub fn new(config: &str) -> LoadTest {
        let server = Server::configured(config);
        let probe = server.anonymous();
        LoadTest::of(server, probe)
    }

    /// Wraps this server, with `probe` as the well-behaved client.
    pub fn of(server: Server, mut probe: Client) -> LoadTest {
        raise_open_files();
        probe.drain();
        server.metric("h_realtime_accepts_total");
        let resident = server.resident();
        LoadTest {
            server,
            probe,
            resident,
        }
    }

    /// Asserts that the well-behaved client is answered, and measures the delay.
    pub fn ping(&mut self) -> Delay {
        let stopwatch = Stopwatch::start(&self.server);
        assert_eq!(self.probe.drain(), []);
        stopwatch.read(&self.server)
    }

    /// Replaces the well-behaved client: a new one must be accepted.
    pub fn replace_probe(&mut self) {
        self.probe.stream.shutdown(Shutdown::Both).unwrap();
        self.probe = eventually(PATIENCE, || {
            let client = Client::try_open(self.server.address(), "/ws", "");
            client.head.starts_with("HTTP/1.1 101 ").then_some(client)
        });
        self.ping();
    }

    /// Returns the growth of the server's memory in bytes.
    pub fn growth(&self) -> u64 {
        self.server.resident().saturating_sub(self.resident)
    }

    /// Waits until only the well-behaved client is connected.
    pub fn wait_for_disconnects(&mut self) {
        eventually(PATIENCE, || {
            self.ping();
            // The metrics request is a connection, too.
            (self.server.metric("h_realtime_connections") <= 2.0).then_some(())
        });
    }

    /// Checks after the attack that all attackers are disconnected, the well-behaved client is
    /// still served, memory is released, and the server is idle.
    pub fn check_recovery(self) {
        self.check_recovery_with(SLACK);
    }

    /// The same, with `allowed` bytes of growth allowed.
    pub fn check_recovery_with(mut self, allowed: u64) {
        self.wait_for_disconnects();
        assert_eq!(self.server.metric("h_realtime_queued_bytes"), 0.0);
        assert_eq!(self.server.metric("h_realtime_unfinished_bytes"), 0.0);
        eventually(PATIENCE, || {
            self.ping();
            (self.growth() < allowed).then_some(())
        });
        eventually(PATIENCE, || {
            let before = cpu(&self.server);
            std::thread::sleep(Duration::from_millis(300));
            (cpu(&self.server) - before < Duration::from_millis(100)).then_some(())
        });
        self.ping();
    }
}

/// The delay of a reply. `work` is the CPU time that the server used, which does not depend on
/// other processes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delay {
    pub work: Duration,
    pub total: Duration,
}

/// Measures a [`Delay`].
pub struct Stopwatch {
    work: Duration,
    since: Instant,
}

impl Stopwatch {
    pub fn start(server: &Server) -> Stopwatch {
        Stopwatch {
            work: scheduled(server),
            since: Instant::now(),
        }
    }

    pub fn read(&self, server: &Server) -> Delay {
        Delay {
            total: self.since.elapsed(),
            work: scheduled(server).saturating_sub(self.work),
        }
    }
}

/// Returns the CPU time of a server's reactor, with the scheduler's precision.
fn scheduled(server: &Server) -> Duration {
    let path = format!("/proc/{}/schedstat", server.child.id());
    let text = fs::read_to_string(path).unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

/// Returns the CPU time of a server.
pub fn cpu(server: &Server) -> Duration {
    let path = format!("/proc/{}/stat", server.child.id());
    let text = fs::read_to_string(path).unwrap();
    // The name in parentheses may contain spaces. Fields 14 and 15 are ticks of 10 ms.
    let fields = text.rsplit(')').next().unwrap().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Closes a connection with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// The growth that is allowed after an attack: the reactor's own buffers, and pages of the
/// allocator.
const SLACK: u64 = 12 << 20;

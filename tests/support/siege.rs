//! A server under attack, and somebody who goes on using it.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use h_realtime_engine::raise_open_files;
use socket2::SockRef;

use super::{Client, PATIENCE, Server, eventually};

/// A server, a client that must be answered all the time, and what the server took before.
pub struct Siege {
    pub server: Server,
    witness: Client,
    resident: u64,
}

impl Siege {
    /// A siege of a server with this configuration.
    pub fn new(config: &str) -> Siege {
        let server = Server::configured(config);
        let witness = server.anonymous();
        Siege::of(server, witness)
    }

    /// A siege of this server, with this client to go on using it.
    pub fn of(server: Server, mut witness: Client) -> Siege {
        raise_open_files();
        witness.drain();
        server.metric("h_realtime_accepts_total");
        let resident = server.resident();
        Siege {
            server,
            witness,
            resident,
        }
    }

    /// Asserts that the witness is answered, and measures the delay.
    pub fn answer(&mut self) -> Delay {
        let stopwatch = Stopwatch::start(&self.server);
        assert_eq!(self.witness.drain(), []);
        stopwatch.read(&self.server)
    }

    /// The witness goes, and another must be let in.
    pub fn relieve(&mut self) {
        self.witness.stream.shutdown(Shutdown::Both).unwrap();
        self.witness = eventually(PATIENCE, || {
            let client = Client::try_open(self.server.address(), "/ws", "");
            client.head.starts_with("HTTP/1.1 101 ").then_some(client)
        });
        self.answer();
    }

    /// What the server takes now beyond what it took before, in bytes.
    pub fn growth(&self) -> u64 {
        self.server.resident().saturating_sub(self.resident)
    }

    /// Waits until the server has only the witness left.
    pub fn wait_until_alone(&mut self) {
        eventually(PATIENCE, || {
            self.answer();
            // The one that asks is a connection, too.
            (self.server.metric("h_realtime_connections") <= 2.0).then_some(())
        });
    }

    /// The attack is over: everybody else is gone, the witness has never been let down, what it
    /// took is given back, and nothing is left to do.
    pub fn lift(self) {
        self.lift_but_for(SLACK);
    }

    /// The same where so many bytes may be kept.
    pub fn lift_but_for(mut self, kept: u64) {
        self.wait_until_alone();
        assert_eq!(self.server.metric("h_realtime_queued_bytes"), 0.0);
        assert_eq!(self.server.metric("h_realtime_unfinished_bytes"), 0.0);
        eventually(PATIENCE, || {
            self.answer();
            (self.growth() < kept).then_some(())
        });
        eventually(PATIENCE, || {
            let before = cpu(&self.server);
            std::thread::sleep(Duration::from_millis(300));
            (cpu(&self.server) - before < Duration::from_millis(100)).then_some(())
        });
        self.answer();
    }
}

/// A delay that a client has had, in which `work` is the processor time that the server used: that
/// does not depend on the other processes of the machine.
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

/// Processor time of a server's reactor, as exactly as the scheduler knows it.
fn scheduled(server: &Server) -> Duration {
    let path = format!("/proc/{}/schedstat", server.child.id());
    let text = fs::read_to_string(path).unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

/// Processor time that a server has used.
pub fn cpu(server: &Server) -> Duration {
    let path = format!("/proc/{}/stat", server.child.id());
    let text = fs::read_to_string(path).unwrap();
    // The name, in parentheses, may hold spaces. Fields 14 and 15 are ticks of 10 ms.
    let fields = text.rsplit(')').next().unwrap().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Has the kernel reset the connection instead of ending it.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// What may be kept of an attack: buffers of the reactor's own, and pages of the allocator.
const SLACK: u64 = 12 << 20;

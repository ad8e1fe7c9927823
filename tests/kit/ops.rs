//! Random operations: generated from a seed, or given as a list, and executed in a [`World`].

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use h_realtime_engine::ws::CAN_DEFLATE;
use h_realtime_engine::{Config, ListenerId, ListenerOptions, Mail, SocketOwnership};

use crate::acts::{ask, begin, say, violate};
use crate::app::{Command, Payload, pad};
use crate::client::Behavior;
use crate::environment::EMFILE;
use crate::rng::Rng;
use crate::sim::PollerFaults;
use crate::socket::{Faults, Limits};
use crate::world::World;

/// One operation. Numbers select among the existing choices with a modulo, so that any sequence of
/// operations is valid.
#[derive(Clone, Debug)]
pub enum Op {
    /// A client connects; the kind selects its first bytes.
    Connect {
        kind: u8,
        eager: bool,
        address: u8,
    },
    /// The network delivers bytes to the server.
    Deliver {
        client: u8,
        bytes: u16,
    },
    /// A client reads.
    Listen {
        client: u8,
        bytes: u16,
    },
    /// A client sends a message; the verb selects the command for the application.
    Say {
        client: u8,
        verb: u8,
        size: u16,
    },
    /// A client sends more messages at once than the engine processes in one turn.
    Burst {
        client: u8,
    },
    /// A client sends a fragment of a message.
    Fragment {
        client: u8,
        size: u16,
    },
    Ping {
        client: u8,
    },
    /// A client violates the protocol.
    Violate {
        client: u8,
        how: u8,
    },
    Close {
        client: u8,
    },
    Finish {
        client: u8,
    },
    Reset {
        client: u8,
    },
    Vanish {
        client: u8,
    },
    Command(Command),
    /// More events at once than a connection is sent in one turn.
    Flood,
    Turn,
    /// Runs turns until the engine is idle, without network activity.
    Settle,
    Wait {
        ms: u16,
    },
    /// The machine is suspended for an hour.
    Jump,
    /// The server stalls for long enough that pings are due, and again while they are answered;
    /// afterwards the poller delays events.
    Standstill {
        ms: u16,
    },
    Drain {
        ms: u16,
    },
    /// `accept` fails, for one connection only or so that it is retried later.
    FailAccept {
        listener: u8,
        is_serious: bool,
    },
    /// Reloads with other limits and deadlines, derived from the seed.
    Reload {
        seed: u16,
    },
}

/// Runs operations, then disconnects all clients and checks that no state is left.
pub fn run(seed: u64, ops: impl IntoIterator<Item = Op>) {
    play(seed, ops).finish();
}

/// The same with a check of liveness before the end.
pub fn run_to_liveness(seed: u64, ops: impl IntoIterator<Item = Op>) {
    let mut world = play(seed, ops);
    world.check_liveness();
    world.finish();
}

fn play(seed: u64, ops: impl IntoIterator<Item = Op>) -> World {
    let mut rng = Rng::new(seed);
    let mut world = World::new(config(&mut rng), rng.next_u64());
    world.poller_faults = PollerFaults {
        delayed: rng.below(60) as u32,
        spurious: 10,
        repeated: 5,
        shuffled: true,
    };
    // Without a random choice, so that seeds keep their meaning.
    world.listen_with(ListenerOptions {
        ownership: OWNERSHIPS[seed as usize % OWNERSHIPS.len()],
        ..ListenerOptions::default()
    });
    let faults = faults(&mut rng);
    if rng.chance(30) {
        world.environment.descriptors = 3 + rng.below(20);
    }
    world.environment.unregistered = if rng.chance(30) { 10 } else { 0 };
    let is_verbose = std::env::var_os("TELL").is_some();
    for op in ops {
        if is_verbose {
            eprintln!("{op:?}");
        }
        world.play(&op, &mut rng, faults);
    }
    world
}

/// Returns the operations of a seed.
pub fn random(seed: u64, count: usize) -> impl Iterator<Item = Op> {
    let mut rng = Rng::new(seed ^ 0x0905);
    (0..count).map(move |_| Op::random(&mut rng))
}

/// Mostly small limits, so that they are reached; sometimes the real ones.
fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default()
        .max_connections(12 + rng.below(24))
        .max_per_ip(rng.chance(30).then_some(3))
        .reserved_listener(rng.chance(50).then_some(ListenerId(1)))
        .max_reserved(2 + rng.below(6))
        .max_message(16 * 1024);
    if rng.chance(60) {
        config.queue_soft = 1 << (9 + rng.below(6));
        config.queue_hard = config.queue_soft * (2 + rng.below(4));
        if rng.chance(30) {
            config.queue_total = config.queue_hard * (2 + rng.below(8));
        }
    }
    config
}

fn faults(rng: &mut Rng) -> Faults {
    let mut some = |percent: u32| match rng.chance(50) {
        true => percent,
        false => 0,
    };
    Faults {
        interrupted: some(10),
        would_block: some(20),
        short_read: some(30),
        short_write: some(50),
        broken: some(20),
        zero_writes: false,
    }
}

impl Op {
    fn random(rng: &mut Rng) -> Op {
        let client = rng.below(256) as u8;
        let bytes = match rng.below(4) {
            0 => 1 + rng.below(8) as u16,
            1 => 1 + rng.below(200) as u16,
            _ => u16::MAX,
        };
        // Most messages are small.
        let size = match rng.below(12) {
            0 => rng.below(12_000) as u16,
            1..4 => rng.below(1000) as u16,
            _ => rng.below(60) as u16,
        };
        match rng.below(1000) {
            0..40 => Op::Connect {
                kind: rng.below(16) as u8,
                eager: rng.chance(50),
                address: rng.below(6) as u8,
            },
            40..180 => Op::Deliver { client, bytes },
            180..320 => Op::Listen { client, bytes },
            320..325 => Op::Burst { client },
            325..500 => Op::Say {
                client,
                verb: rng.below(16) as u8,
                size,
            },
            500..530 => Op::Fragment { client, size },
            530..560 => Op::Ping { client },
            560..566 => Op::Violate {
                client,
                how: rng.below(16) as u8,
            },
            566..574 => Op::Close { client },
            574..580 => Op::Finish { client },
            580..586 => Op::Reset { client },
            586..588 => Op::Vanish { client },
            588 => Op::Flood,
            589 => Op::Reload {
                seed: rng.below(1 << 16) as u16,
            },
            590..680 => Op::Command(Op::command(rng, size)),
            680..895 => Op::Turn,
            895..898 => Op::FailAccept {
                listener: rng.below(3) as u8,
                is_serious: rng.chance(50),
            },
            898..900 => Op::Standstill {
                ms: rng.below(1 << 16) as u16,
            },
            900..950 => Op::Settle,
            950..999 => Op::Wait {
                ms: rng.below(1500) as u16,
            },
            _ if rng.chance(70) => Op::Jump,
            _ => Op::Drain {
                ms: rng.below(5000) as u16,
            },
        }
    }

    fn command(rng: &mut Rng, size: u16) -> Command {
        let (pick, size) = (rng.below(1000), usize::from(size));
        match rng.below(20) {
            0..6 => Command::Answer {
                pick,
                accept: rng.chance(70),
            },
            6..13 => Command::FanOut {
                percent: rng.below(101) as u32,
                size,
            },
            13..18 => Command::Send { pick, size },
            18 => Command::Close { pick, code: 4003 },
            _ => Command::Noop,
        }
    }
}

impl World {
    fn play(&mut self, op: &Op, rng: &mut Rng, faults: Faults) {
        match op {
            Op::Connect {
                kind,
                eager,
                address,
            } => self.run_connect(*kind, *eager, *address, rng, faults),
            Op::Command(command) => self.command(command.clone()),
            Op::Flood => {
                let (percent, size) = (80, 1000);
                (0..300).for_each(|_| self.command(Command::FanOut { percent, size }));
            }
            Op::Turn => {
                self.exchange();
                self.turn();
            }
            Op::Settle => self.settle(),
            Op::Wait { ms } => self.wait(u64::from(*ms)),
            Op::Jump => {
                self.flow();
                self.clock += 3_600_000;
                self.flow();
            }
            Op::Standstill { ms } => self.run_standstill(u64::from(*ms)),
            // The second time, it would end at once.
            Op::Drain { .. } if self.is_draining => {}
            Op::Drain { ms } => {
                self.is_draining = true;
                let over = Duration::from_millis(u64::from(*ms));
                self.environment.send(Mail::Shutdown(over));
            }
            Op::FailAccept {
                listener,
                is_serious,
            } => {
                let listener = ListenerId(listener % 3);
                if self.environment.is_listening(listener) {
                    let code = if *is_serious { EMFILE } else { ECONNABORTED };
                    let error = io::Error::from_raw_os_error(code);
                    self.environment.fail_accept(listener, [error]);
                }
            }
            Op::Reload { seed } => {
                let mut rng = Rng::new(u64::from(*seed));
                let mut config = config(&mut rng);
                let mut some = || Duration::from_millis(500 + rng.below(10_000) as u64);
                (config.slow_timeout, config.message_timeout) = (some(), some());
                (config.ping_interval, config.pong_timeout) = (3 * some(), some());
                (config.handshake_timeout, config.close_timeout) = (some(), some());
                // A server that stands still for less than a second does not extend it.
                config.close_timeout += Duration::from_secs(2);
                self.reload(config);
            }
            Op::Listen { client, bytes } => {
                if let Some(number) = self.choose(*client) {
                    self.listen(number, usize::from(*bytes));
                }
            }
            _ => self.run_client_op(op, rng),
        }
    }

    /// Faults that withhold input are postponed: they stand for input that arrives later.
    fn run_standstill(&mut self, ms: u64) {
        let faults: Vec<_> = self.clients.iter().map(|c| c.wire.state().faults).collect();
        for client in &self.clients {
            let mut state = client.wire.state();
            (state.faults.would_block, state.faults.short_read) = (0, 0);
        }
        for _ in 0..2 {
            self.stand_still(ms);
            for _ in 0..3 {
                let events = self.poll(80);
                self.turn_with(events);
            }
        }
        for (client, faults) in self.clients.iter().zip(faults) {
            client.wire.state().faults = faults;
        }
    }

    /// Selects an active client.
    fn choose(&self, client: u8) -> Option<usize> {
        let count = self.active.len().max(1);
        self.active.get(usize::from(client) % count).copied()
    }

    fn run_connect(&mut self, kind: u8, eager: bool, address: u8, rng: &mut Rng, faults: Faults) {
        let peer = match address {
            0 => None,
            1 => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))),
        };
        let sizes = [300, 2000, 10_000, 200_000];
        self.limits = Limits {
            receive: sizes[rng.below(4)],
            send: sizes[rng.below(4)],
        };
        self.listener = match address {
            5 => ListenerId(1),
            4 => ListenerId(2),
            _ => ListenerId(0),
        };
        let behavior = Behavior {
            is_eager: eager,
            ..Behavior::default()
        };
        let number = self.connect_from(peer, behavior);
        self.client(number).compresses = CAN_DEFLATE && rng.chance(30);
        let client = &mut self.clients[number];
        client.wire.state().faults = Faults {
            // Only for clients without expectations.
            broken: if eager { 0 } else { faults.broken },
            ..faults
        };
        begin(client, kind);
    }

    fn run_client_op(&mut self, op: &Op, rng: &mut Rng) {
        let (Op::Deliver { client, .. }
        | Op::Say { client, .. }
        | Op::Burst { client }
        | Op::Fragment { client, .. }
        | Op::Ping { client }
        | Op::Violate { client, .. }
        | Op::Close { client }
        | Op::Finish { client }
        | Op::Reset { client }
        | Op::Vanish { client }) = op
        else {
            return;
        };
        let Some(number) = self.choose(*client) else {
            return;
        };
        let client = &mut self.clients[number];
        let may_speak = client.progress.is_open
            && !client.has_requested_stream
            && !client.behavior.has_sent_close
            && !client.behavior.has_finished
            && !client.behavior.is_wrong;
        match op {
            Op::Deliver { bytes, .. } => drop(client.wire.state().deliver(usize::from(*bytes))),
            Op::Finish { .. } => client.finish(),
            Op::Reset { .. } => client.reset(),
            Op::Vanish { .. } => client.vanish(),
            Op::Violate { how, .. } if may_speak => violate(client, *how),
            Op::Ping { .. } if may_speak => client.ping(),
            Op::Close { .. } if may_speak => client.close(1000),
            Op::Fragment { size, .. } if may_speak => {
                let text = rng.chance(50);
                let message = || match text {
                    true => Payload::Text(format!("echo é{}", pad(usize::from(*size)))),
                    false => Payload::Binary(vec![7; usize::from(*size)]),
                };
                client.fragment(message, 1 + usize::from(*size) / 3);
            }
            Op::Burst { .. } if may_speak => {
                (0..100).for_each(|_| client.text(&format!("quiet {}", pad(1000))));
                client.wire.state().deliver(usize::MAX);
            }
            Op::Say { verb, size, .. } if may_speak => say(client, *verb, usize::from(*size)),
            // Input of an event stream is discarded.
            Op::Say { .. } | Op::Ping { .. }
                if client.progress.is_open && client.has_requested_stream =>
            {
                client.raw("GET /ok HTTP/1.1\r\nHost: sim\r\n\r\n");
            }
            Op::Say { verb, .. } if !client.progress.is_open => ask(client, *verb),
            _ => {}
        }
    }
}

/// The ownership of the third listener, by the seed.
const OWNERSHIPS: [SocketOwnership; 3] = [
    SocketOwnership::Owned,
    SocketOwnership::ReusePort,
    SocketOwnership::Inherited,
];
const ECONNABORTED: i32 = 103;

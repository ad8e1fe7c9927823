//! The operations whose instructions are counted: each sets up a harness and then runs any number
//! of rounds on it.

mod connections;
mod events;
mod messages;

use h_realtime_engine::Config;

use crate::harness::Harness;

/// A kind of operation of the server.
pub struct Operation {
    /// Its name in the baseline.
    pub name: &'static str,
    /// A short description.
    pub description: &'static str,
    /// The number of rounds needed for a stable cost.
    pub rounds: u64,
    /// Sets up the state that up to `rounds` rounds need.
    pub prepare: fn(rounds: u64) -> Workload,
}

/// A harness that is ready for its rounds.
pub struct Workload {
    harness: Harness,
    /// Runs one round and returns the number of operations in it.
    round: Box<dyn FnMut(&mut Harness) -> u64>,
    /// The bytes sent to peers per operation, to verify that it was done.
    bytes: usize,
}

/// The work done in some rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub operations: u64,
    pub reads: u64,
    pub writes: u64,
    bytes: u64,
}

/// All operations.
pub const OPERATIONS: &[Operation] = &[
    messages::PING,
    messages::PING_OF_100,
    messages::PIPELINED,
    messages::FILTER,
    connections::UPGRADE,
    connections::VISIT,
    connections::HEARTBEAT,
    connections::IDLE,
    connections::COMMENT,
    events::TO_ONE,
    events::TO_1000,
    events::TO_1000_STREAMS,
    events::TO_1000_CURSORS,
    events::BURST,
    events::COMPRESSED,
    events::TAGGED,
    events::BESIDE_OTHER_SITES,
    events::BESIDE_OTHER_PATHS,
    events::BESIDE_ALL,
];

impl Workload {
    fn new(
        harness: Harness,
        bytes: usize,
        round: impl FnMut(&mut Harness) -> u64 + 'static,
    ) -> Workload {
        let round = Box::new(round);
        Workload {
            harness,
            round,
            bytes,
        }
    }

    /// Runs rounds.
    ///
    /// # Panics
    ///
    /// Panics if clients were not sent the expected bytes.
    pub fn run(&mut self, rounds: u64) -> Work {
        let before = self.done();
        let mut operations = 0;
        for _ in 0..rounds {
            operations += (self.round)(&mut self.harness);
        }
        let after = self.done();
        let bytes = after.bytes - before.bytes;
        assert_eq!(bytes, operations * self.bytes as u64, "bytes sent");
        Work {
            operations,
            reads: after.reads - before.reads,
            writes: after.writes - before.writes,
            bytes,
        }
    }

    fn done(&self) -> Work {
        let counters = self.harness.counters();
        Work {
            operations: 0,
            reads: counters.reads.get(),
            writes: counters.writes.get(),
            bytes: counters.bytes.get(),
        }
    }
}

/// A server without a limit on connections that matters here.
fn harness() -> Harness {
    Harness::new(config())
}

fn config() -> Config {
    Config::default().max_connections(1_000_000)
}

//! What instructions are counted of: each a stage that is set up, and a round that is played on
//! it as often as one likes.

mod connections;
mod events;
mod messages;

use h_realtime_engine::Config;

use crate::stage::Stage;

/// One kind of thing that a server does.
pub struct Operation {
    /// How it is called in the baseline.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// After so many rounds it is known what one costs.
    pub rounds: u64,
    /// Sets up what so many rounds need, at the most.
    pub prepare: fn(rounds: u64) -> Scene,
}

/// A stage that is ready for its rounds.
pub struct Scene {
    stage: Stage,
    /// Plays one round, and says how often the operation was done in it.
    round: Box<dyn FnMut(&mut Stage) -> u64>,
    /// What peers are sent for each operation, in bytes: that it was really done shows here.
    bytes: usize,
}

/// What was done in some rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
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
    events::TO_ONE,
    events::TO_1000,
    events::BURST,
    events::COMPRESSED,
];

impl Scene {
    fn new(stage: Stage, bytes: usize, round: impl FnMut(&mut Stage) -> u64 + 'static) -> Scene {
        let round = Box::new(round);
        Scene {
            stage,
            round,
            bytes,
        }
    }

    /// Plays rounds.
    ///
    /// # Panics
    /// When clients were not sent what they must be.
    pub fn play(&mut self, rounds: u64) -> Done {
        let before = self.done();
        let mut operations = 0;
        for _ in 0..rounds {
            operations += (self.round)(&mut self.stage);
        }
        let after = self.done();
        let bytes = after.bytes - before.bytes;
        assert_eq!(bytes, operations * self.bytes as u64, "bytes sent");
        Done {
            operations,
            reads: after.reads - before.reads,
            writes: after.writes - before.writes,
            bytes,
        }
    }

    fn done(&self) -> Done {
        let tally = self.stage.tally();
        Done {
            operations: 0,
            reads: tally.reads.get(),
            writes: tally.writes.get(),
            bytes: tally.bytes.get(),
        }
    }
}

/// A server that has room for everybody.
fn stage() -> Stage {
    Stage::new(config())
}

fn config() -> Config {
    Config {
        max_connections: 1_000_000,
        ..Config::default()
    }
}

//! The engine under random operations: `SEED=…` runs one seed, `SEEDS=…` that many, `STEPS=…`
//! operations of each, and `TELL=1` prints each operation.

use crate::sim::{ops, seeds};

// OSV-2020-1695, OSV-2020-1694, OSV-2021-414, R1, K6, S2
#[test]
fn nothing_is_lost_reordered_or_left_behind() {
    seeds::run_all("engine simulation", SEEDS, STEPS, |seed, steps| {
        ops::run(seed, ops::random(seed, steps));
    });
}

/// Once peers read and the network delivers, all output is sent, open connections answer, and timers
/// fire. See `tests/kit/liveness.rs`.
#[test]
fn everything_progresses_when_peers_read_again() {
    let test = "engine everything_progresses";
    seeds::run_all(test, LIVENESS_SEEDS, LIVENESS_STEPS, |seed, steps| {
        ops::run_to_liveness(seed, ops::random(seed, steps));
    });
}

const SEEDS: u64 = 256;
const STEPS: u64 = 1500;
const LIVENESS_SEEDS: u64 = 64;
/// Fewer, so that most of the time is spent on the check.
const LIVENESS_STEPS: u64 = 300;

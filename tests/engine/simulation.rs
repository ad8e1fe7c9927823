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

const SEEDS: u64 = 256;
const STEPS: u64 = 1500;

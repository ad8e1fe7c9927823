//! The engine under random operations: `SEED=…` plays one seed, `SEEDS=…` so many, `STEPS=…`
//! operations of each, and `TELL=1` tells each operation.

mod sim;

use std::panic::catch_unwind;
use std::thread;

use sim::ops;

#[test]
fn nothing_is_lost_reordered_or_left_behind() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let steps = number("STEPS").unwrap_or(STEPS) as usize;
    let play = move |seed| ops::run(seed, ops::random(seed, steps));
    if let Some(seed) = number("SEED") {
        return play(seed);
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let workers = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let play_some = |first| {
        let mut seeds = (first..seeds).step_by(workers as usize);
        seeds.find(|&seed| catch_unwind(move || play(seed)).is_err())
    };
    let failed = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|first| scope.spawn(move || play_some(first)))
            .collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().ok().flatten());
        results.flatten().min()
    });
    if let Some(seed) = failed {
        panic!("seed {seed} failed: SEED={seed} cargo test --test engine_simulation");
    }
}

const SEEDS: u64 = 256;
const STEPS: u64 = 1500;

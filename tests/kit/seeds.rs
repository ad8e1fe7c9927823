//! Runs many seeds on all cores; reports a failing seed so that it can be reproduced.

use std::panic::catch_unwind;
use std::thread;

/// Runs `SEED`, or `SEEDS` seeds starting at `FROM` (or 0), of `STEPS` operations each; the
/// arguments are the defaults.
pub fn run_all(test: &str, seeds: u64, steps: u64, play: fn(u64, usize)) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let steps = number("STEPS").unwrap_or(steps) as usize;
    if let Some(seed) = number("SEED") {
        return play(seed, steps);
    }
    let from = number("FROM").unwrap_or(0);
    let end = from + number("SEEDS").unwrap_or(seeds);
    let workers = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let play_some = |first| {
        let mut seeds = (from + first..end).step_by(workers as usize);
        seeds.find(|&seed| catch_unwind(move || play(seed, steps)).is_err())
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
        panic!("seed {seed} failed: SEED={seed} STEPS={steps} cargo test --test {test}");
    }
}

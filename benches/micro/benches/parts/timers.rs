//! The timer wheel, with as many entries as there are connections.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use micro::timers::Timers;

pub fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel of 10,000");
    let mut timers = crowd();
    let mut numbers = (0..CROWD).cycle();
    let mut next = move || numbers.next().expect("it has no end");
    group.bench_function("arm again", |b| {
        b.iter(|| {
            let number = next();
            timers.arm(number, black_box(PERIOD + number % PERIOD));
        });
    });
    let mut numbers = (0..CROWD).cycle();
    group.bench_function("disarm and arm", |b| {
        b.iter(|| {
            let number = numbers.next().expect("it has no end");
            timers.disarm(number);
            timers.arm(number, black_box(1 + number % PERIOD));
            timers.tidy();
        });
    });
    group.bench_function("advance by 300 ticks, in which all come due", |b| {
        b.iter_batched_ref(
            crowd,
            |timers| {
                for now in 1..=PERIOD {
                    black_box(timers.advance(now));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// All armed, spread over the ticks of a heartbeat.
fn crowd() -> Timers {
    let mut timers = Timers::new(CROWD as usize);
    for number in 0..CROWD {
        timers.arm(number, 1 + number % PERIOD);
    }
    timers
}

const CROWD: u32 = 10_000;
/// Ticks in 30 s.
const PERIOD: u32 = 300;

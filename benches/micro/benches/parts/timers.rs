//! The timer wheel with one entry per connection.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use micro::timers::Timers;

pub fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel of 10,000");
    let mut timers = armed_timers();
    let mut numbers = (0..TIMERS).cycle();
    let mut next = move || numbers.next().expect("an infinite iterator");
    group.bench_function("arm again", |b| {
        b.iter(|| {
            let number = next();
            timers.arm(number, black_box(PERIOD + number % PERIOD));
        });
    });
    let mut numbers = (0..TIMERS).cycle();
    group.bench_function("disarm and arm", |b| {
        b.iter(|| {
            let number = numbers.next().expect("an infinite iterator");
            timers.disarm(number);
            timers.arm(number, black_box(1 + number % PERIOD));
            timers.tidy();
        });
    });
    group.bench_function("advance by 300 ticks, in which all come due", |b| {
        b.iter_batched_ref(
            armed_timers,
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

/// All timers armed, spread over the ticks of the ping interval.
fn armed_timers() -> Timers {
    let mut timers = Timers::new(TIMERS as usize);
    for number in 0..TIMERS {
        timers.arm(number, 1 + number % PERIOD);
    }
    timers
}

const TIMERS: u32 = 10_000;
/// Ticks in 30 s.
const PERIOD: u32 = 300;

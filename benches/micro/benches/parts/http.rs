//! From a request's head to the 101.

use std::hint::black_box;

use criterion::Criterion;
use micro::words::{BROWSER_HANDSHAKE, HANDSHAKE, answer};

pub fn upgrade(c: &mut Criterion) {
    let mut group = c.benchmark_group("upgrade");
    for (name, head) in [("plain", HANDSHAKE), ("browser", BROWSER_HANDSHAKE)] {
        group.bench_function(name, |b| b.iter(|| answer(black_box(head))));
    }
    group.finish();
}

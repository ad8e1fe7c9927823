//! From a request head to the 101 response.

use std::hint::black_box;

use criterion::Criterion;
use micro::messages::{BROWSER_HANDSHAKE, HANDSHAKE, response};

pub fn upgrade(c: &mut Criterion) {
    let mut group = c.benchmark_group("upgrade");
    for (name, head) in [("plain", HANDSHAKE), ("browser", BROWSER_HANDSHAKE)] {
        group.bench_function(name, |b| b.iter(|| response(black_box(head))));
    }
    group.finish();
}

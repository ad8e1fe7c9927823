//! Time of individual parts of the server: `cargo bench` in `benches/micro`, optionally with a part
//! of a benchmark's name. Times depend on the machine and its load; compare times of one session
//! only. Criterion reports changes since its last run.

mod api;
mod http;
mod timers;
mod ws;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    parts,
    ws::mask,
    ws::decode,
    ws::encode,
    ws::deflate,
    http::upgrade,
    api::dispatch,
    api::filter,
    api::uri,
    api::index,
    timers::wheel
);
criterion_main!(parts);

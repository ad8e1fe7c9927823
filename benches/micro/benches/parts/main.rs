//! What the parts of the server cost in time, each alone: `cargo bench` in `benches/micro`, with
//! a part of a name for only some. Times depend on the machine and on what else it does; compare
//! those of one sitting. What criterion says has changed is since the last run.

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

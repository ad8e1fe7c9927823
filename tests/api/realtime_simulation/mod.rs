//! The whole API over simulated sockets, against a model that asks every connection about every
//! event. `SEED=…` plays one seed, `SEEDS=…` so many, `STEPS=…` steps of each, and `TELL=1`
//! tells each step.
//!
//! | file | holds |
//! |---|---|
//! | `says` | what clients say, with what it means |
//! | `plans` | users, and random events for them |
//! | `matcher` | the model: who is who, who must hear what |
//! | `app` | the API, and the back end that it asks; every call is told to the model |
//! | `oracle` | what a client hears, held against the model |
//! | `world` | the engine, its clients and the clock |
//! | `play` | what happens by chance |

mod app;
mod matcher;
mod oracle;
mod plans;
mod play;
mod says;
mod world;

#[test]
fn everybody_hears_what_is_for_them_and_nothing_else() {
    crate::sim::seeds::play_all("api realtime_simulation", SEEDS, STEPS, play::run);
}

const SEEDS: u64 = 256;
const STEPS: u64 = 400;

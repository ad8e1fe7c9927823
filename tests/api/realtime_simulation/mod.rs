//! The whole API over simulated sockets, compared with a model that evaluates every event for every
//! connection. `SEED=…` runs one seed, `SEEDS=…` that many, with `STEPS=…` steps each, and `TELL=1`
//! prints each step.
//!
//! | file | contents |
//! |---|---|
//! | `client_messages` | messages of clients, with their meaning |
//! | `plans` | users, and random events for them |
//! | `model` | the model: identities, filters, and the expected receivers |
//! | `app` | the API and its backend; every callback is reported to the model |
//! | `oracle` | compares the messages that a client receives with the model |
//! | `world` | the simulation of the API, and its checks |
//! | `steps` | the random steps |

mod app;
mod client_messages;
mod model;
mod oracle;
mod plans;
mod steps;
mod world;

#[test]
fn clients_receive_exactly_the_expected_messages() {
    crate::sim::seeds::run_all("api realtime_simulation", SEEDS, STEPS, steps::run);
}

/// Once peers read and the network delivers, all output is sent, open connections answer, and timers
/// fire.
#[test]
fn everything_progresses_when_peers_read_again() {
    let test = "api realtime_simulation::everything_progresses";
    crate::sim::seeds::run_all(test, LIVENESS_SEEDS, LIVENESS_STEPS, steps::run_to_liveness);
}

const SEEDS: u64 = 256;
const STEPS: u64 = 400;
const LIVENESS_SEEDS: u64 = 64;
/// Fewer, so that most of the time is spent on the check.
const LIVENESS_STEPS: u64 = 150;

//! The cost of the server's parts, without a network.
//!
//! The engine and the Real Time API run as in the server; only the sockets and the clock are
//! simulated. Everything else is the same in every run: hash keys, bytes, and time. Two runs
//! therefore differ only in the code that was built.
//!
//! | file | contents |
//! |---|---|
//! | `socket` | a simulated socket with a scripted peer, which counts its output |
//! | `harness` | the engine, its connections, and the clock |
//! | `messages` | messages of clients and backends |
//! | `timers` | the engine's timer wheel alone |
//! | `operations` | the counted operations |

pub mod harness;
pub mod messages;
pub mod operations;
pub mod socket;
pub mod timers;

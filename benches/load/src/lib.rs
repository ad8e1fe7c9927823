//! Loads a WebSocket server over loopback and reports the server's cost.
//!
//! One thread, one epoll. The main figures are the CPU time and the memory of the server's process,
//! as accounted by the kernel; latencies are measured with the client's clock.
//!
//! The main path: `main → modes::run → ConnPool::open → ConnPool::turn → Conn::ready → the
//! mode`. `suite` is a second program that starts servers, runs this one against each, and compares
//! the figures.

pub mod attack;
pub mod attackers;
pub mod cli;
pub mod conn;
pub mod frames;
pub mod latency_clients;
pub mod modes;
pub mod pool;
pub mod poster;
pub mod probe;
pub mod process;
pub mod publish;
pub mod report;
pub mod sampler;
pub mod server;
pub mod target;

/// The error that ends a run.
pub type Error = Box<dyn std::error::Error>;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! Loads a WebSocket server over loopback, and says what that cost it.
//!
//! One thread, one epoll. What is measured is above all the processor time and the memory of
//! the server's process, as the kernel accounts them; latencies are the client's own clock.
//!
//! The main path: `main → modes::run → Crowd::open → Crowd::turn → Conn::ready → the mode`.
//! `suite` is the program beside it that starts servers, runs this one against each, and puts
//! the figures side by side.

pub mod attack;
pub mod attackers;
pub mod cli;
pub mod conn;
pub mod crowd;
pub mod frames;
pub mod modes;
pub mod poster;
pub mod process;
pub mod publish;
pub mod report;
pub mod sampler;
pub mod server;
pub mod target;
pub mod watch;
pub mod witness;

/// What ends a run.
pub type Error = Box<dyn std::error::Error>;

/// A result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! The WebSocket engine: a mio reactor with its connections, timers, queues, and TLS.
//!
//! Owns: all sockets, all buffered bytes, and the order of events. Must not know: JSON, filters,
//! users, or backends. An application is a [`Handler`].

mod arena;
mod certificate;
mod config;
mod conn;
mod counters;
mod engine;
mod frame;
mod handler;
mod held;
mod histogram;
mod key;
mod listener;
mod mailbox;
mod nofile;
mod outbox;
mod pace;
mod queue;
mod reactor;
mod scratch;
mod socket;
mod stream;
mod timer;
mod transport;
mod unix_socket;
mod uptake;

#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
pub mod tls;

pub use certificate::{CertificateInfo, EXPIRY_WARNING, Validity};
pub use config::{Config, RESERVED_CONNECTIONS, Reload};
pub use counters::{CloseCodes, Compression, Counters, Ends, Evictions, Refusals};
#[doc(hidden)]
pub use engine::Interest;
pub use engine::{Arrival, Engine, Readiness};
pub use frame::{Delivery, Frame};
pub use handler::{Handler, Message, Overdue, Refusal, Verdict};
pub use held::Held;
pub use histogram::Histogram;
pub use key::ConnKey;
pub use listener::{Address, Listener};
pub use mailbox::{Closed, Mailbox, Undelivered};
pub use nofile::{most_connections, raise_open_files, reserved_connections};
pub use outbox::{Cx, Ending, Sessions};
#[cfg(test)]
pub(crate) use outbox::{Effect, Outbox};
pub use reactor::{Reactor, monotonic};
pub use scratch::Scratch;
pub use socket::{Fill, Socket};
pub use stream::Stream;
pub use unix_socket::SocketFile;

/// The current time, read once per turn of the reactor and passed to everything that needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a monotonic clock.
    pub mono: u64,
    /// Milliseconds since the Unix epoch; may jump.
    pub unix: u64,
}

/// Identifies the listener that accepted a connection, as returned when the listener was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// The interval between calls of [`Handler::on_tick`], in milliseconds.
pub const TICK_PERIOD: u64 = 500;

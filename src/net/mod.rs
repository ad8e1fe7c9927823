//! The WebSocket engine: one mio reactor, its connections, timers, queues and TLS.
//!
//! Owns: every socket, every byte that waits, and the order in which things happen. Must not
//! know: JSON, filters, users, back ends. An application is a [`Handler`].

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

/// The clock, read once a turn of the reactor and handed to everything that needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some fixed moment; never runs backwards.
    pub mono: u64,
    /// Milliseconds since the Unix epoch; may jump.
    pub unix: u64,
}

/// Which listener a connection came in on: the number that adding the listener gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// How often [`Handler::on_tick`] is called, in milliseconds.
pub const TICK_PERIOD: u64 = 500;

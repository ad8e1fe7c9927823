//! The WebSocket engine: one mio reactor, its connections, timers, queues and TLS.
//!
//! Owns: every socket, every byte that waits, and the order in which things happen. Must not
//! know: JSON, filters, users, back ends. An application is a [`Handler`].

mod counters;
mod frame;
mod handler;
mod key;
mod outbox;
mod scratch;
mod socket;

pub use counters::Counters;
pub use frame::{Delivery, Frame};
pub use handler::{Handler, Message, Verdict};
pub use key::ConnKey;
pub use outbox::{Cx, Sessions};
#[cfg(test)]
pub(crate) use outbox::{Effect, Outbox};
pub use scratch::Scratch;
pub use socket::{Fill, Socket};

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

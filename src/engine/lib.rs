#![doc = include_str!("README.md")]

mod config;
mod conn;
mod conn_set;
mod counters;
mod cx;
mod engine;
mod frame;
mod handler;
mod histogram;
pub mod http;
mod io;
mod key;
mod ledger;
pub mod log_throttle;
pub mod testing;
pub mod ws;

pub use config::{Config, RESERVED_CONNECTIONS, Reload};
pub use conn_set::ConnSet;
pub use counters::{CloseCodes, CloseCounts, Compression, Counters, Evictions, Refusals};
pub use cx::{CloseInfo, ConnCx, Cx, LastActivity, RequestCx, Sessions};
#[doc(hidden)]
pub use engine::Interest;
pub use engine::scratch::Scratch;
pub use engine::{Engine, Io, IoEvent, ListenerOptions, Readiness};
pub use frame::{Delivery, Frame};
pub use handler::{Handler, Message, Overdue, Refusal, Verdict};
pub use histogram::Histogram;
pub use io::certificate::{CertificateInfo, EXPIRY_WARNING, Validity};
pub use io::listener::{Address, Listener, SocketOwnership};
pub use io::mailbox::{Closed, Mail, Mailbox, Undelivered};
pub use io::nofile::{most_connections, raise_open_files, reserved_connections};
pub use io::reactor::{Reactor, monotonic};
pub use io::socket::{Fill, Socket};
pub use io::stream::Stream;
pub use io::tls;
pub use io::unix_socket::SocketFile;
pub use key::ConnKey;
pub use ledger::Ledger;

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

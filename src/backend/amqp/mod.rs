//! Events from RabbitMQ, in the format that h publishes.
//!
//! Owns: brokers and their URLs, the connection, and the decoding of messages into events. Must not
//! know: users, groups, annotations, or the receivers of events.
//!
//! Each process declares its own queues and therefore receives every event. The queues are deleted
//! when the connection closes, so events published while it is down are lost.
//! [`Link::losses`](super::Link::losses) counts these interruptions.

pub(in crate::backend) mod connect_error;
mod connection;
mod decode;
mod feed;
mod source;
mod url;

pub use feed::{Feed, PREFETCH};
pub use source::{Delivery, Source};
pub use url::{Broker, BrokerUrlError};

#[cfg(feature = "h")]
pub(super) use source::{LONGEST_DELAY, SHORTEST_DELAY};

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Creates a single-threaded runtime.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Returns a random number for retry delays and unique queue names.
pub(super) fn random() -> u64 {
    // The process cannot start without randomness. Should it fail later, the clock is sufficient.
    getrandom::u64().unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| since.as_nanos() as u64)
    })
}

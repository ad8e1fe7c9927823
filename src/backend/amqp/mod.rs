//! Events from RabbitMQ, as h publishes them.
//!
//! Owns: brokers and their URLs, the connection, and what of a message is an event. Must not
//! know: users, groups, annotations, or who hears of them.
//!
//! Each process has queues of its own, so that each hears of everything; the queues are gone with
//! the connection. So whatever happens while there is none is missed, and counted by
//! [`Link::losses`](super::Link::losses).

mod decode;
mod feed;
pub(in crate::backend) mod reach;
mod session;
mod source;
mod url;

pub use feed::{Feed, PREFETCH};
pub use source::{Delivery, Source};
pub use url::{Broker, BrokerUrlError};

#[cfg(feature = "h")]
pub(super) use source::{LONGEST_DELAY, SHORTEST_DELAY};

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime for one thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A random number, for delays and for names that no other process has.
pub(super) fn random() -> u64 {
    // Without randomness the process would not have started; the clock will do then.
    getrandom::u64().unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| since.as_nanos() as u64)
    })
}

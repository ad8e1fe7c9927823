//! Input and output: sockets, listeners, TLS, the mailbox, and the reactor that polls them.
//!
//! Owns: every system call of the engine. Must not know: what a connection does with its bytes.

mod alarm;
pub(crate) mod certificate;
pub(crate) mod listener;
pub(crate) mod mailbox;
pub(crate) mod nofile;
pub(crate) mod reactor;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod transport;
pub(crate) mod unix_socket;
mod wake_flag;

#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
pub mod tls;

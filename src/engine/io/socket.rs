//! The socket interface of the engine, which a simulated socket can implement.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

/// A connected, non-blocking byte stream with edge-triggered readiness.
///
/// `WouldBlock` means that the kernel's buffer is empty (read) or full (write), and that an edge
/// will follow. `Interrupted` is retried by the engine. Any other error ends the connection.
pub trait Socket {
    /// Reads at most `buf.len()` bytes; 0 is the end of the peer's stream.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes a prefix of the concatenated slices, and returns its length.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Shuts down the write side; output written before still arrives.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Makes dropping the socket reset the connection instead of lingering. Called only for peers
    /// that miss a deadline or must be dropped at once.
    fn abort_on_drop(&mut self) {}

    /// Makes the connection fail if the peer acknowledges nothing of its output for this long. For
    /// protocols in which the peer never sends.
    fn set_user_timeout(&mut self, timeout: std::time::Duration) {
        let _ = timeout;
    }

    /// Returns the peer's address, if it has one.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

/// The result of one read through a transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of plaintext at the start of the scratch input.
    pub bytes: usize,
    /// Bytes received; with TLS, bytes of records.
    pub received: usize,
    /// The read was short: with edge triggering, the socket is empty now, unless the peer has
    /// already shut down its write side.
    pub is_emptied: bool,
    /// The peer's stream has ended.
    pub eof: bool,
}

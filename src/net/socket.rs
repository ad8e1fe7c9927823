//! What the engine asks of a socket, so that a simulated one can stand in.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

/// A connected, non-blocking byte stream under edge-triggered readiness.
///
/// `WouldBlock` says that the kernel's side is empty (read) or full (write) and that an edge
/// will come. `Interrupted` is retried by the engine. Any other error ends the connection.
pub trait Socket {
    /// Reads at most `buf.len()` bytes; 0 is the end of the peer's stream.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes a prefix of the slices taken together and says how long it was.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our own direction; what was written before still arrives.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Makes the coming drop reset the connection rather than linger. Asked only for a peer
    /// that let its close deadline pass.
    fn abort_on_drop(&mut self) {}

    /// The peer's address, where it has one.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

/// What one fill of a transport brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of plaintext now at the start of the scratch input.
    pub bytes: usize,
    /// Bytes that were received, which with TLS are those of records.
    pub received: usize,
    /// The socket had less than was asked for: under edge triggering it is empty now, unless
    /// the peer has already ended its side.
    pub drained: bool,
    /// The peer's stream has ended.
    pub eof: bool,
}

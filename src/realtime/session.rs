//! What the Real Time API keeps in a connection's own slot.

use super::term::Digest;

/// A connection's state: 24 bytes, nothing on the heap.
///
/// What is searched by something else than the connection lives elsewhere: its filter in the
/// index, who it is among the principals.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Stands for the client id that the connection gave. It is only ever compared, so 16
    /// bytes do for whatever a client may send.
    pub(super) client: Option<Digest>,
}

const _: () = assert!(size_of::<Session>() <= 24);

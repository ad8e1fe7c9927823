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
    client: Digest,
    /// Whether it gave one: beside it, and not around it, so that there is room for the next.
    has_client: bool,
    /// What it does is logged, as it asked for.
    pub(super) is_watched: bool,
}

impl Session {
    /// Stands for its client id, if it has given one.
    pub(super) fn client(&self) -> Option<Digest> {
        self.has_client.then_some(self.client)
    }

    pub(super) fn set_client(&mut self, client: Option<Digest>) {
        self.has_client = client.is_some();
        self.client = client.unwrap_or_default();
    }
}

const _: () = assert!(size_of::<Session>() <= 24);

//! The part of the Real Time API's state that is stored in a connection's own slot.

use super::digest::Digest;

/// A connection's state: 24 bytes, without heap allocations.
///
/// State that is searched by another key is stored elsewhere: the filter in the index, and the
/// identity in the principals.
#[derive(Clone, Debug, Default)]
pub struct ApiSession {
    /// The digest of the connection's client id. Client ids are only compared, so 16 bytes suffice
    /// for any length.
    client: Digest,
    /// Whether the client id is set. A flag rather than an `Option`, so that the next field needs
    /// no further space.
    has_client: bool,
    /// Whether the connection asked for tracing.
    pub(super) is_traced: bool,
}

impl ApiSession {
    /// Returns the digest of the client id, if it is set.
    pub(super) fn client(&self) -> Option<Digest> {
        self.has_client.then_some(self.client)
    }

    pub(super) fn set_client(&mut self, client: Option<Digest>) {
        self.has_client = client.is_some();
        self.client = client.unwrap_or_default();
    }
}

const _: () = assert!(size_of::<ApiSession>() <= 24);

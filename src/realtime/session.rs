//! The part of the Real Time API's state that is stored in a connection's own slot.

use super::digest::Digest;
use super::outgoing::Encoding;

/// A connection's state: 24 bytes, without heap allocations.
///
/// State that is searched by another key is stored elsewhere: the filter in the index, and the
/// identity in the principals.
#[derive(Clone, Debug, Default)]
pub struct ApiSession {
    /// The digest of the connection's client id. Client ids are only compared, so 16 bytes suffice
    /// for any length.
    client: Digest,
    flags: u8,
    /// Whether outcomes of events are recorded. Not a flag, because the engine's enum around sessions
    /// needs no space of its own if a field has invalid values.
    pub(super) observation: Observation,
}

/// Whether the outcomes of events on a connection are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Observation {
    /// They are not.
    #[default]
    None,
    /// An operator has requested an explanation of the connection.
    Watched,
    /// The connection has requested tracing.
    Traced,
}

/// A property of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SessionFlag {
    /// The client id is set.
    Client = 1,
    /// The connection is an event stream.
    EventStream = 1 << 1,
    /// A filter has been set.
    Filter = 1 << 2,
    /// The client id and a filter have been set, so that the client can be recognized when it
    /// reconnects.
    Registered = 1 << 3,
    /// The connection uses cursors.
    Cursors = 1 << 4,
    /// A replay is in progress: the connection receives events from the history only.
    Replaying = 1 << 5,
    /// A message with a cursor has been sent since the last cursor mark.
    Marked = 1 << 6,
    /// The client has been sent all events up to now, and is recorded as connected.
    Connected = 1 << 7,
}

impl ApiSession {
    /// Returns the digest of the client id, if it is set.
    pub(super) fn client(&self) -> Option<Digest> {
        self.has(SessionFlag::Client).then_some(self.client)
    }

    pub(super) fn set_client(&mut self, client: Option<Digest>) {
        self.set(SessionFlag::Client, client.is_some());
        self.client = client.unwrap_or_default();
    }

    #[inline]
    pub(super) fn has(&self, flag: SessionFlag) -> bool {
        self.flags & flag as u8 != 0
    }

    /// Returns whether messages to the connection need no special treatment.
    #[inline]
    pub(super) fn is_ordinary(&self) -> bool {
        const SPECIAL: u8 = SessionFlag::Cursors as u8
            | SessionFlag::Replaying as u8
            | SessionFlag::EventStream as u8;
        self.flags & SPECIAL == 0 && !self.is_observed()
    }

    /// Returns whether the outcomes of events are recorded.
    #[inline]
    pub(super) fn is_observed(&self) -> bool {
        self.observation != Observation::None
    }

    /// Returns whether the connection has requested tracing.
    pub(super) fn is_traced(&self) -> bool {
        self.observation == Observation::Traced
    }

    /// Returns the encoding of messages to the connection.
    #[inline]
    pub(super) fn encoding(&self) -> Encoding {
        if self.has(SessionFlag::EventStream) {
            Encoding::EventStream
        } else if self.has(SessionFlag::Cursors) {
            Encoding::WithCursor
        } else {
            Encoding::Plain
        }
    }

    /// Returns all flags, for tests.
    #[cfg(test)]
    pub(super) fn flags(&self) -> u8 {
        self.flags
    }

    pub(super) fn set(&mut self, flag: SessionFlag, value: bool) {
        match value {
            true => self.flags |= flag as u8,
            false => self.flags &= !(flag as u8),
        }
    }
}

const _: () = assert!(size_of::<Option<ApiSession>>() <= 24);

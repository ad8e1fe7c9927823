//! What the Real Time API counts.

use crate::model::{EventKind, Reason};

/// Figures since the start, except where "now" is said. They only ever grow, except those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages by type.
    pub messages: Messages,
    /// Messages that were refused.
    pub errors: Errors,
    /// Messages without a numeric `id`, which get no reply.
    pub without_id: u64,
    /// Events that were to be delivered, by kind.
    pub events: Events,
    /// Connections that events were for, before anybody was passed over.
    pub matched: u64,
    /// Notifications handed to the engine, each receiver counted.
    pub sent: u64,
    /// Connections that an event was for and that were passed over.
    pub withheld: Withheld,
    /// What came of handshakes, by who it was.
    pub auth: Auth,
    /// Requests that were refused.
    pub refused: Refused,
    /// Connections closed because their token or user ended.
    pub credentials_ended: u64,
    /// Subscriptions now: connections times their filter's terms.
    pub subscriptions: u64,
    /// Distinct terms that somebody asks for now.
    pub terms: u64,
    /// Connections with an identity now.
    pub logins: u64,
    /// Distinct users connected now.
    pub principals: u64,
    /// Bytes that subscriptions take now.
    pub index_bytes: u64,
    /// Bytes that filters count for now, of [`Settings::filters_total`](super::Settings).
    pub filter_bytes: u64,
    /// Lines about single connections that were kept out of the log, being too many.
    pub lines_left_out: u64,
}

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// `ping`
    pub ping: u64,
    /// `whoami`
    pub whoami: u64,
    /// `client_id`, old form or new.
    pub client_id: u64,
    /// `filter`, old form or new.
    pub filter: u64,
    /// Any other type, or none.
    pub unknown: u64,
}

/// Messages that were refused, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Not JSON; the connection is closed.
    pub not_json: u64,
    /// JSON that is no object.
    pub not_object: u64,
    /// No such type.
    pub invalid_type: u64,
    /// `value` or `filter` is missing, or a client id is no string.
    pub invalid_data: u64,
    /// A filter that is not built as one.
    pub invalid_filter: u64,
    /// A filter with too many terms.
    pub too_many_terms: u64,
    /// A filter for which there was no memory.
    pub filters_full: u64,
    /// An `id` with too many digits.
    pub long_id: u64,
}

/// Events by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// A new annotation.
    pub create: u64,
    /// A change of one.
    pub update: u64,
    /// An annotation's end.
    pub delete: u64,
    /// A user's groups or profile have changed.
    pub session_change: u64,
}

/// Connections that were passed over, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// It was their own action.
    pub own: u64,
    /// They may not read it.
    pub permission: u64,
    /// Its author is muted.
    pub muted: u64,
    /// It is hidden.
    pub hidden: u64,
    /// It is hidden from students, until it is revealed.
    pub checkpoint: u64,
}

/// What came of handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// No token.
    pub anonymous: u64,
    /// A token that is somebody's.
    pub known: u64,
    /// A token that is nobody's (any more).
    pub unknown: u64,
    /// The back end was overloaded or away.
    pub unavailable: u64,
}

/// Requests that were refused, by why; for those whose token could not be checked,
/// [`Auth::unavailable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// For the WebSocket, but no handshake.
    pub handshake: u64,
    /// For something that there is not.
    pub path: u64,
    /// From a page that may not connect.
    pub origin: u64,
    /// With a token that is nobody's, where that is refused.
    pub token: u64,
}

impl Refused {
    /// Counts an answer that was clear from the request alone.
    pub(super) fn count(&mut self, status: u16) {
        self.handshake += u64::from(status == 400);
        self.path += u64::from(status == 404);
    }
}

impl Events {
    pub(super) fn count(&mut self, kind: EventKind) {
        *match kind {
            EventKind::Create => &mut self.create,
            EventKind::Update => &mut self.update,
            EventKind::Delete => &mut self.delete,
            EventKind::SessionChange => &mut self.session_change,
        } += 1;
    }
}

impl Withheld {
    pub(super) fn count(&mut self, reason: Reason) {
        *match reason {
            Reason::Permission => &mut self.permission,
            Reason::Muted => &mut self.muted,
            Reason::Hidden => &mut self.hidden,
            Reason::Checkpoint => &mut self.checkpoint,
        } += 1;
    }
}

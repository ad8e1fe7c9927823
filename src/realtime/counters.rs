//! Counters of the Real Time API.

use crate::model::{DenyReason, EventKind};

use super::outgoing::Form;

/// Totals since the start, and current values ("now"). Totals never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCounters {
    /// Messages by type.
    pub messages: MessageCounters,
    /// Rejected messages.
    pub errors: ErrorCounters,
    /// Messages without a numeric `id`, which get no reply.
    pub without_id: u64,
    /// Processed events by kind.
    pub events: EventCounters,
    /// Candidate connections of events, including those from which the event was withheld.
    pub matched: u64,
    /// Notifications passed to the engine, one per receiver.
    pub sent: u64,
    /// Candidate connections from which an event was withheld.
    pub withheld: WithheldCounters,
    /// Results of authentication.
    pub auth: AuthCounters,
    /// Rejected requests.
    pub rejected: RejectedCounters,
    /// Resumptions, and the messages that they caused.
    pub recovery: RecoveryCounters,
    /// Connections closed because their token or user ended.
    pub credentials_ended: u64,
    /// Subscriptions now: the sum of the terms of all filters.
    pub subscriptions: u64,
    /// Distinct terms in filters now.
    pub terms: u64,
    /// Filters now that are more than a list of terms.
    pub conditional_filters: u64,
    /// Comparisons of an event with such a filter, which had one of its terms and did not match.
    pub filter_mismatches: u64,
    /// Logged-in connections now.
    pub logins: u64,
    /// Distinct users connected now.
    pub principals: u64,
    /// Bytes allocated for subscriptions now.
    pub index_bytes: u64,
    /// The footprint of filters now, which [`ApiSettings::filters_total`](super::ApiSettings) limits.
    pub filter_bytes: u64,
    /// Disconnected clients that are remembered now.
    pub remembered_clients: u64,
    /// Bytes allocated for remembered clients now.
    pub remembered_bytes: u64,
    /// Log lines about single connections that were suppressed by the rate limit.
    pub suppressed_lines: u64,
    /// Connections with recorded outcomes now.
    pub watched: u64,
    /// Debug messages.
    pub debug: DebugCounters,
}

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounters {
    /// `ping`
    pub ping: u64,
    /// `whoami`
    pub whoami: u64,
    /// `client_id`, typed or untyped.
    pub client_id: u64,
    /// `filter`, typed or untyped.
    pub filter: u64,
    /// Any other type, or none.
    pub unknown: u64,
}

/// Rejected messages by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounters {
    /// Not JSON; the connection is closed.
    pub not_json: u64,
    /// JSON that is not an object.
    pub not_object: u64,
    /// Unknown type.
    pub invalid_type: u64,
    /// `value` or `filter` is missing, or a client id is not a string.
    pub invalid_data: u64,
    /// A malformed filter.
    pub invalid_filter: u64,
    /// A filter with too many terms.
    pub too_many_terms: u64,
    /// A filter that exceeds the memory limit of all filters.
    pub filters_full: u64,
    /// An `id` with too many digits.
    pub long_id: u64,
    /// An invalid cursor.
    pub invalid_cursor: u64,
}

/// Resumptions, and the messages that they and changes of rights caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCounters {
    /// Connections that resumed without missing events.
    pub recovered: u64,
    /// Connections that could not resume, and were notified of it.
    pub gaps: u64,
    /// Replays that ended because the history no longer contained the next event.
    pub overruns: u64,
    /// Replayed events, one per receiver.
    pub replayed: u64,
    /// Deletions sent because an annotation became unreadable for the receiver.
    pub retractions: u64,
    /// Replays in progress now, including those that wait for the history.
    pub replays: u64,
    /// Events in the history now.
    pub entries: u64,
    /// Accounted bytes of the history now.
    pub bytes: u64,
    /// The time of the oldest event in the history, in UNIX milliseconds; 0 if it is empty.
    pub oldest: u64,
}

impl RecoveryCounters {
    pub(super) fn count_resume(&mut self, recovered: bool) {
        match recovered {
            true => self.recovered += 1,
            false => self.gaps += 1,
        }
    }

    pub(super) fn count(&mut self, form: Form) {
        match form {
            Form::Variant(_) | Form::Appearance(_) => self.replayed += 1,
            Form::Retraction => self.retractions += 1,
        }
    }
}

/// Events by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounters {
    /// A creation of an annotation.
    pub create: u64,
    /// A change of an annotation.
    pub update: u64,
    /// A deletion of an annotation.
    pub delete: u64,
    /// A change of a user's memberships or profile.
    pub session_change: u64,
}

/// Connections from which events were withheld, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithheldCounters {
    /// The client caused the event itself.
    pub own: u64,
    /// The receiver may not read the annotation.
    pub permission: u64,
    /// The author is muted.
    pub muted: u64,
    /// The annotation is hidden.
    pub hidden: u64,
    /// The annotation is hidden from students until it is revealed.
    pub checkpoint: u64,
}

/// Debug messages to connections that have requested tracing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugCounters {
    /// Sent messages.
    pub sent: u64,
    /// Messages beyond the limits, which were not sent.
    pub suppressed: u64,
}

/// Results of authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthCounters {
    /// No token.
    pub anonymous: u64,
    /// A valid token.
    pub known: u64,
    /// An invalid token.
    pub unknown: u64,
    /// The backend was overloaded or unavailable.
    pub unavailable: u64,
}

/// Rejected requests by reason. [`AuthCounters::unavailable`] counts those whose token could not be
/// checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RejectedCounters {
    /// A request for the WebSocket that is not a valid handshake.
    pub handshake: u64,
    /// A request for an event stream with invalid parameters.
    pub stream: u64,
    /// A request for an unknown path.
    pub path: u64,
    /// A request from an origin that is not allowed.
    pub origin: u64,
    /// An invalid token, if these are rejected.
    pub token: u64,
}

impl RejectedCounters {
    /// Counts an immediate response.
    pub(super) fn count(&mut self, status: u16) {
        self.handshake += u64::from(status == 400);
        self.path += u64::from(status == 404);
    }
}

impl EventCounters {
    pub(super) fn count(&mut self, kind: EventKind) {
        *match kind {
            EventKind::Create => &mut self.create,
            EventKind::Update => &mut self.update,
            EventKind::Delete => &mut self.delete,
            EventKind::SessionChange => &mut self.session_change,
        } += 1;
    }
}

impl WithheldCounters {
    pub(super) fn count(&mut self, reason: DenyReason) {
        *match reason {
            DenyReason::Permission => &mut self.permission,
            DenyReason::Muted => &mut self.muted,
            DenyReason::Hidden => &mut self.hidden,
            DenyReason::Checkpoint => &mut self.checkpoint,
        } += 1;
    }
}

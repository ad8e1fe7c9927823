//! What the clients measured.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::conn::CloseReason;
use crate::report;

/// Results of a measurement.
#[derive(Clone)]
pub struct Outcome {
    pub pings: Histogram<u64>,
    /// Pings without a response at the end. They count in `pings` with their age.
    pub pings_unanswered: u64,
    pub handshakes: Histogram<u64>,
    /// Connections that were closed by the server or the network, by reason.
    pub closed: BTreeMap<CloseReason, u64>,
    /// Failed handshakes, by reason.
    pub handshakes_failed: BTreeMap<CloseReason, u64>,
    /// From sending an event to its 202.
    pub accepted: Histogram<u64>,
    /// From sending an event to its arrival at the subscribed client.
    pub arrivals: Histogram<u64>,
    pub events_published: u64,
    /// Events that were refused, or without a response or notification at the end.
    pub events_failed: u64,
    /// The delay of this thread each time it had something to send.
    pub own_delay: Histogram<u64>,
}

impl Outcome {
    pub(super) fn new() -> Outcome {
        Outcome {
            pings: report::histogram(),
            pings_unanswered: 0,
            handshakes: report::histogram(),
            closed: BTreeMap::new(),
            handshakes_failed: BTreeMap::new(),
            accepted: report::histogram(),
            arrivals: report::histogram(),
            events_published: 0,
            events_failed: 0,
            own_delay: report::histogram(),
        }
    }
}

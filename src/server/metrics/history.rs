//! Metrics of the history, and of the clients that resume from it.

use crate::admin::{Exposition, MetricKind};
use crate::model::UnixMillis;
use crate::realtime::ApiCounters;

/// Writes the metrics of the history.
pub(super) fn history(out: &mut Exposition, api: &ApiCounters, now: UnixMillis) {
    let recovery = &api.recovery;
    out.gauge(
        "h_realtime_history_entries",
        "Current events in the history: the newest one of each annotation.",
        recovery.entries as f64,
    );
    out.gauge(
        "h_realtime_history_bytes",
        "Current memory of the history, limited by history.memory.",
        recovery.bytes as f64,
    );
    let age = match recovery.oldest {
        0 => 0,
        oldest => now.saturating_sub(oldest),
    };
    out.gauge(
        "h_realtime_history_age_seconds",
        "Age of the oldest event in the history, limited by history.window.",
        age as f64 / 1000.0,
    );
    out.family(
        "h_realtime_resumes_total",
        MetricKind::Counter,
        "Connections that resumed after an interruption, by result: a gap means that events are \
         missing.",
        [
            (r#"result="recovered""#, recovery.recovered as f64),
            (r#"result="gap""#, recovery.gaps as f64),
            (r#"result="overrun""#, recovery.overruns as f64),
        ],
    );
    out.counter(
        "h_realtime_replayed_messages_total",
        "Events sent from the history, one for each connection.",
        recovery.replayed,
    );
    out.counter(
        "h_realtime_retractions_total",
        "Deletions sent because an annotation became unreadable for the connection.",
        recovery.retractions,
    );
    out.gauge(
        "h_realtime_replays",
        "Current connections that are sent events from the history.",
        recovery.replays as f64,
    );
}

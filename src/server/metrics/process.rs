//! Metrics of the back end, the process, and its settings.

use std::sync::atomic::Ordering;

use crate::admin::{Exposition, MetricKind};
use crate::backend::{Fate, Topic};
use crate::config::Danger;
use crate::logging;
use crate::net;

use super::{Backend, Process, counts};

pub(super) fn backend(out: &mut Exposition, backend: &Backend<'_>) {
    let Backend { ready, stats, .. } = backend;
    let flag = |is: bool| f64::from(u8::from(is));
    out.gauge(
        "h_realtime_backend_ready",
        "Whether the back end does its work.",
        flag(*ready),
    );
    let links = [
        (r#"server="broker""#, &stats.broker),
        (r#"server="database""#, &stats.database),
    ];
    out.family(
        "h_realtime_backend_connected",
        MetricKind::Gauge,
        "Whether the connection to a server that the back end needs is up.",
        links.map(|(labels, link)| (labels, flag(link.is_up()))),
    );
    out.family(
        "h_realtime_backend_connects_total",
        MetricKind::Counter,
        "Connections made to servers that the back end needs.",
        links.map(|(labels, link)| (labels, link.connects() as f64)),
    );
    out.family(
        "h_realtime_backend_losses_total",
        MetricKind::Counter,
        "Connections lost to servers that the back end needs; events may have been missed.",
        links.map(|(labels, link)| (labels, link.losses() as f64)),
    );
    out.counter(
        "h_realtime_database_statements_total",
        "Statements sent to the database server.",
        stats.statements.load(Ordering::Relaxed),
    );
    out.family(
        "h_realtime_queue_events_total",
        MetricKind::Counter,
        "Events that have come from the message queue, by topic.",
        [
            (
                r#"topic="annotation""#,
                stats.received(Topic::Annotation) as f64,
            ),
            (r#"topic="user""#, stats.received(Topic::User) as f64),
        ],
    );
    let dropped = |fate: Fate| stats.dropped(fate) as f64;
    out.family(
        "h_realtime_queue_events_dropped_total",
        MetricKind::Counter,
        "Events from the message queue that have led to nothing, by reason.",
        [
            (r#"reason="undecodable""#, dropped(Fate::Undecodable)),
            (r#"reason="malformed""#, dropped(Fate::Malformed)),
            (r#"reason="missing""#, dropped(Fate::Missing)),
            (r#"reason="unreadable""#, dropped(Fate::Unreadable)),
            (r#"reason="too_large""#, dropped(Fate::TooLarge)),
            (r#"reason="overflow""#, dropped(Fate::Overflow)),
        ],
    );
}

/// Writes the metrics of settings and reloads.
pub(super) fn settings(out: &mut Exposition, process: &Process<'_>, suppressed_lines: u64) {
    let shared = process.shared;
    out.family(
        "h_realtime_reloads_total",
        MetricKind::Counter,
        "Times another configuration or certificate was to be taken over.",
        counts(&[
            (r#"result="ok""#, shared.succeeded.load(Ordering::Relaxed)),
            (r#"result="error""#, shared.failed.load(Ordering::Relaxed)),
        ]),
    );
    let labels = Danger::ALL.map(|danger| format!("setting=\"{}\"", danger.setting()));
    let is_there = Danger::ALL.map(|danger| process.dangers.contains(&danger));
    let samples = labels.iter().zip(is_there);
    out.family(
        "h_realtime_dangerous_setting",
        MetricKind::Gauge,
        "Whether a setting takes a protection away.",
        samples.map(|(label, is_there)| (&**label, f64::from(u8::from(is_there)))),
    );
    let expiry = shared.certificate_expires.load(Ordering::Relaxed);
    out.family(
        "h_realtime_certificate_expiry_timestamp_seconds",
        MetricKind::Gauge,
        "When the certificate in use for wss:// ends, since the Unix epoch; not there without one.",
        (expiry > 0).then_some(("", expiry as f64)),
    );
    out.counter(
        "h_realtime_log_lines_dropped_total",
        "Lines of the log that were dropped because nobody took them.",
        logging::dropped(),
    );
    out.counter(
        "h_realtime_connection_lines_left_out_total",
        "Lines about single connections (?debug=1) that were kept out of the log, being too many.",
        suppressed_lines,
    );
}

/// Writes the standard process metrics, under the names of the official Prometheus client
/// libraries.
pub(super) fn figures(out: &mut Exposition, process: &Process<'_>, engine: &net::Counters) {
    let figures = process.figures;
    out.family(
        "process_cpu_seconds_total",
        MetricKind::Counter,
        "Processor time that the process has taken.",
        [("", figures.cpu_seconds())],
    );
    out.gauge(
        "process_start_time_seconds",
        "When the process was started, since the Unix epoch.",
        figures.started(),
    );
    let memory = figures.memory();
    for (name, help, value) in [
        (
            "process_virtual_memory_bytes",
            "Address space.",
            memory.map(|memory| memory.total),
        ),
        (
            "process_resident_memory_bytes",
            "Memory in use.",
            memory.map(|memory| memory.resident),
        ),
        (
            "process_open_fds",
            "Open files, connections among them.",
            figures.open_files(engine.connections),
        ),
        (
            "process_max_fds",
            "Open files that there may be.",
            figures.max_files(),
        ),
    ] {
        let samples = value.map(|value| ("", value as f64));
        out.family(name, MetricKind::Gauge, help, samples);
    }
}

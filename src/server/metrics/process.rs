//! Metrics of the backend, the process, and its settings.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::admin::{Exposition, MetricKind};
use crate::backend::{DropReason, Topic};
use crate::config::InsecureSetting;
use crate::logging;
use crate::net;

use super::{BackendState, ProcessState, counts};

pub(super) fn backend(out: &mut Exposition, backend: &BackendState<'_>) {
    let BackendState { ready, stats, .. } = backend;
    let flag = |is: bool| f64::from(u8::from(is));
    out.gauge(
        "h_realtime_backend_ready",
        "Whether the backend is working.",
        flag(*ready),
    );
    let links = [
        (r#"server="broker""#, &stats.broker),
        (r#"server="database""#, &stats.database),
    ];
    out.family(
        "h_realtime_backend_connected",
        MetricKind::Gauge,
        "Whether the connection to a server that the backend requires is up.",
        links.map(|(labels, link)| (labels, flag(link.is_up()))),
    );
    out.family(
        "h_realtime_backend_connects_total",
        MetricKind::Counter,
        "Connections made to servers that the backend requires.",
        links.map(|(labels, link)| (labels, link.connects() as f64)),
    );
    out.family(
        "h_realtime_backend_losses_total",
        MetricKind::Counter,
        "Lost connections to servers that the backend requires; events may have been missed.",
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
        "Events received from the message queue, by topic.",
        [
            (
                r#"topic="annotation""#,
                stats.received(Topic::Annotation) as f64,
            ),
            (r#"topic="user""#, stats.received(Topic::User) as f64),
        ],
    );
    let dropped = |reason: DropReason| stats.dropped(reason) as f64;
    out.family(
        "h_realtime_queue_events_dropped_total",
        MetricKind::Counter,
        "Events from the message queue that were dropped, by reason.",
        [
            (r#"reason="undecodable""#, dropped(DropReason::Undecodable)),
            (r#"reason="malformed""#, dropped(DropReason::Malformed)),
            (r#"reason="missing""#, dropped(DropReason::Missing)),
            (r#"reason="unreadable""#, dropped(DropReason::Unreadable)),
            (r#"reason="too_large""#, dropped(DropReason::TooLarge)),
            (r#"reason="overflow""#, dropped(DropReason::Overflow)),
            (r#"reason="duplicate""#, dropped(DropReason::Duplicate)),
        ],
    );
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    out.counter(
        "h_realtime_sweeps_total",
        "Completed sweeps of changes in h's database.",
        count(&stats.sweeps),
    );
    out.counter(
        "h_realtime_swept_events_total",
        "Changes in h's database that no event from the queue reported, found by sweeps.",
        count(&stats.swept),
    );
    out.counter(
        "h_realtime_replanned_total",
        "Changes of the receivers of annotations without an event, found by sweeps.",
        count(&stats.replanned),
    );
}

/// Writes the metrics of the log of clients.
pub(super) fn client_log(out: &mut Exposition, process: &ProcessState<'_>) {
    out.counter(
        "h_realtime_client_log_dropped_records_total",
        "Records about clients that were not written to the data directory.",
        process
            .shared
            .dropped_client_records
            .load(Ordering::Relaxed),
    );
}

/// Writes the metrics of settings and reloads.
pub(super) fn settings(out: &mut Exposition, process: &ProcessState<'_>, suppressed_lines: u64) {
    let shared = process.shared;
    out.family(
        "h_realtime_reloads_total",
        MetricKind::Counter,
        "Reloads of the configuration or certificate, by result.",
        counts(&[
            (r#"result="ok""#, shared.succeeded.load(Ordering::Relaxed)),
            (r#"result="error""#, shared.failed.load(Ordering::Relaxed)),
        ]),
    );
    let labels = InsecureSetting::ALL.map(|setting| format!("setting=\"{}\"", setting.setting()));
    let is_there = InsecureSetting::ALL.map(|setting| process.insecure_settings.contains(&setting));
    let samples = labels.iter().zip(is_there);
    out.family(
        "h_realtime_dangerous_setting",
        MetricKind::Gauge,
        "Whether a setting disables a protection.",
        samples.map(|(label, is_there)| (&**label, f64::from(u8::from(is_there)))),
    );
    let expiry = shared.certificate_expires.load(Ordering::Relaxed);
    out.family(
        "h_realtime_certificate_expiry_timestamp_seconds",
        MetricKind::Gauge,
        "Expiry of the certificate in use for wss://, since the Unix epoch; absent without one.",
        (expiry > 0).then_some(("", expiry as f64)),
    );
    out.counter(
        "h_realtime_log_lines_dropped_total",
        "Log lines dropped because standard error was not read.",
        logging::dropped(),
    );
    out.counter(
        "h_realtime_connection_lines_left_out_total",
        "Log lines about single connections (?debug=1) that were suppressed by the rate limit.",
        suppressed_lines,
    );
}

/// Writes the standard process metrics, under the names of the official Prometheus client
/// libraries.
pub(super) fn process_stats(
    out: &mut Exposition,
    process: &ProcessState<'_>,
    engine: &net::Counters,
) {
    let process_stats = process.process_stats;
    out.family(
        "process_cpu_seconds_total",
        MetricKind::Counter,
        "Processor time of the process.",
        [("", process_stats.cpu_seconds())],
    );
    out.gauge(
        "process_start_time_seconds",
        "Start time of the process, since the Unix epoch.",
        process_stats.started(),
    );
    let memory = process_stats.memory();
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
            "Open files, including connections.",
            process_stats.open_files(engine.connections),
        ),
        (
            "process_max_fds",
            "Limit on open files.",
            process_stats.max_files(),
        ),
    ] {
        let samples = value.map(|value| ("", value as f64));
        out.family(name, MetricKind::Gauge, help, samples);
    }
}

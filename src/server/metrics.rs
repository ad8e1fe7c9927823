//! The counters of all layers, under their Prometheus names.
//!
//! Owns: the names and help texts. Must not know how a value is counted. The metrics of connections
//! and traffic are here, those of messages and events in `events`, those of the history in `history`,
//! and those of the backend and the process in `process`. `public` lists the metrics that require no key.
//!
//! To add a metric: write it in one of these files, and describe it in docs/operating.md. Add it to
//! `public` only if it does not depend on events.

mod events;
mod history;
mod process;
mod public;

use crate::admin::{AdminCounters, Exposition, Histogram, MetricKind, MetricScope};
use crate::backend::Stats;
use crate::config::InsecureSetting;
use crate::model::unix_now;
use crate::net;
use crate::realtime;

use self::public::PUBLIC;
use super::process_stats::ProcessStats;
use super::shared::SharedState;

/// The state of the backend.
pub(super) struct BackendState<'a> {
    pub ready: bool,
    pub stats: &'a Stats,
    /// The number of its events that have not been delivered yet.
    pub events_waiting: usize,
}

/// The state of the process.
pub(super) struct ProcessState<'a> {
    pub insecure_settings: &'a [InsecureSetting],
    pub shared: &'a SharedState,
    pub process_stats: &'a ProcessStats,
}

/// Returns the metrics of a scope in the Prometheus text format.
pub(super) fn render(
    scope: MetricScope,
    engine: &net::Counters,
    api: realtime::ApiCounters,
    admin: &AdminCounters,
    backend: &BackendState<'_>,
    process: &ProcessState<'_>,
) -> String {
    let mut out = match scope {
        MetricScope::All => Exposition::default(),
        MetricScope::Public => Exposition::only(PUBLIC),
    };
    out.gauge(
        "h_realtime_metrics_complete",
        "Whether all metrics are included; 0 without a key.",
        f64::from(u8::from(scope == MetricScope::All)),
    );
    connections(&mut out, engine, &api);
    handshakes_and_ends(&mut out, engine, &api);
    traffic(&mut out, engine);
    reactor(&mut out, engine);
    compression(&mut out, &engine.compression);
    events::messages(&mut out, &api);
    events::events(&mut out, engine, &api, admin);
    history::history(&mut out, &api, unix_now());
    out.gauge(
        "h_realtime_events_waiting",
        "Events currently queued for delivery.",
        backend.events_waiting as f64,
    );
    process::backend(&mut out, backend);
    process::client_log(&mut out, process);
    process::settings(&mut out, process, api.suppressed_lines);
    process::process_stats(&mut out, process, engine);
    out.family(
        "h_realtime_build_info",
        MetricKind::Gauge,
        "The running version; always 1.",
        [(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1.0)],
    );
    out.finish()
}

fn connections(out: &mut Exposition, engine: &net::Counters, api: &realtime::ApiCounters) {
    out.family(
        "h_realtime_connections",
        MetricKind::Gauge,
        "Current connections: with a request or handshake in progress, with an open WebSocket or \
         event stream, or closing.",
        counts(&[
            (
                r#"state="request""#,
                engine.connections - engine.open - engine.closing,
            ),
            (r#"state="open""#, engine.open),
            (r#"state="closing""#, engine.closing),
        ]),
    );
    out.gauge(
        "h_realtime_connections_tls",
        "Currently open WebSockets and event streams over TLS.",
        engine.open_tls as f64,
    );
    out.gauge(
        "h_realtime_event_streams",
        "Currently open event streams.",
        engine.open_streams as f64,
    );
    out.gauge(
        "h_realtime_connections_logged_in",
        "Current connections with an identity.",
        api.logins as f64,
    );
    out.gauge(
        "h_realtime_users",
        "Distinct users currently connected.",
        api.principals as f64,
    );
    out.counter(
        "h_realtime_accepts_total",
        "Connections accepted.",
        engine.accepted,
    );
    out.family(
        "h_realtime_evictions_total",
        MetricKind::Counter,
        "Idle connections evicted to make room for others, by the limit that was reached.",
        counts(&[
            (r#"limit="connections""#, engine.evicted.connections),
            (r#"limit="connections_per_ip""#, engine.evicted.per_ip),
            (r#"limit="admin""#, engine.evicted.reserved),
        ]),
    );
    out.counter(
        "h_realtime_connects_total",
        "WebSockets and event streams opened.",
        engine.opened,
    );
    out.counter(
        "h_realtime_event_stream_connects_total",
        "Event streams opened.",
        engine.opened_streams,
    );
}

fn handshakes_and_ends(out: &mut Exposition, engine: &net::Counters, api: &realtime::ApiCounters) {
    let by_reason = |(reason, count)| (format!("reason=\"{reason}\""), count as f64);
    let ends: Vec<_> = engine.closed.iter().map(by_reason).collect();
    out.family(
        "h_realtime_disconnects_total",
        MetricKind::Counter,
        "WebSockets and event streams closed, by reason.",
        ends.iter().map(|(label, count)| (&**label, *count)),
    );
    let codes = engine.close_codes.iter().map(|(code, count)| {
        let code = code.map_or("other".to_owned(), |code| code.to_string());
        (format!("code=\"{code}\""), count as f64)
    });
    let codes: Vec<_> = codes.collect();
    out.family(
        "h_realtime_close_codes_total",
        MetricKind::Counter,
        "WebSockets and event streams closed, by the code of the first close frame; 1005 is a frame \
         without a code, or the client of an event stream has left, 1006 is no frame.",
        codes.iter().map(|(label, count)| (&**label, *count)),
    );
    let refusals: Vec<_> = engine.refusals.iter().map(by_reason).collect();
    let refusals = refusals.iter().map(|(label, count)| (&**label, *count));
    let others = counts(&[
        (r#"reason="timeout""#, engine.handshake_timeouts),
        (r#"reason="tls""#, engine.tls_failures),
        (r#"reason="full""#, engine.refused_full),
        (r#"reason="per_ip""#, engine.refused_per_ip),
        (r#"reason="proxy_peer""#, engine.refused_untrusted),
        (r#"reason="proxy_header""#, engine.proxy_failures),
        (r#"reason="no_descriptors""#, engine.accept_failures),
        (r#"reason="no_handshake""#, api.rejected.handshake),
        (r#"reason="parameters""#, api.rejected.stream),
        (r#"reason="path""#, api.rejected.path),
        (r#"reason="origin""#, api.rejected.origin),
        (r#"reason="token""#, api.rejected.token),
        (r#"reason="unavailable""#, api.auth.unavailable),
    ]);
    let failures = refusals.chain(others);
    out.family(
        "h_realtime_handshake_failures_total",
        MetricKind::Counter,
        "Connections and requests that did not result in a WebSocket or event stream, by reason.",
        failures,
    );
    out.family(
        "h_realtime_authentications_total",
        MetricKind::Counter,
        "Handshakes by result of token authentication.",
        counts(&[
            (r#"result="none""#, api.auth.anonymous),
            (r#"result="known""#, api.auth.known),
            (r#"result="unknown""#, api.auth.unknown),
            (r#"result="unavailable""#, api.auth.unavailable),
        ]),
    );
    out.counter(
        "h_realtime_credentials_ended_total",
        "Connections closed because their token expired or was revoked, or their user was deleted.",
        api.credentials_ended,
    );
    out.counter(
        "h_realtime_tls_handshakes_total",
        "TLS handshakes completed.",
        engine.tls_handshakes,
    );
}

fn traffic(out: &mut Exposition, engine: &net::Counters) {
    out.counter(
        "h_realtime_received_bytes_total",
        "Bytes read from sockets, before TLS.",
        engine.bytes_in,
    );
    out.counter(
        "h_realtime_sent_bytes_total",
        "Bytes written to sockets, before TLS.",
        engine.bytes_out,
    );
    out.gauge(
        "h_realtime_queued_bytes",
        "Bytes currently in output queues.",
        engine.queued_bytes as f64,
    );
    out.gauge(
        "h_realtime_slow_readers",
        "Connections that currently have more output queued than limits.queue_soft.",
        engine.slow as f64,
    );
    out.gauge(
        "h_realtime_unfinished_bytes",
        "Bytes of input that is currently incomplete or unprocessed.",
        engine.incomplete_bytes as f64,
    );
    let held = &engine.ledger;
    out.family(
        "h_realtime_held_bytes",
        MetricKind::Gauge,
        "Memory that the engine currently holds for peers and publishers, each allocation counted once.",
        [
            (r#"kind="queues""#, held.queues as f64),
            (r#"kind="frames""#, held.frames as f64),
            (r#"kind="records""#, held.records as f64),
            (r#"kind="receivers""#, held.receivers as f64),
            (r#"kind="input""#, held.input as f64),
            (r#"kind="bodies""#, held.bodies as f64),
        ],
    );
    out.counter(
        "h_realtime_messages_received_total",
        "Messages received.",
        engine.messages_in,
    );
    out.counter(
        "h_realtime_messages_sent_total",
        "Messages sent or queued, including events of event streams.",
        engine.messages_out,
    );
    out.counter(
        "h_realtime_pings_sent_total",
        "Heartbeat pings sent.",
        engine.pings_sent,
    );
    out.counter(
        "h_realtime_comments_sent_total",
        "Heartbeat comments sent to event streams.",
        engine.comments_sent,
    );
}

fn reactor(out: &mut Exposition, engine: &net::Counters) {
    out.histogram(
        "h_realtime_turn_seconds",
        "Duration of turns of the reactor, from the return of the poll to the end of the work.",
        Histogram {
            buckets: engine.turns.buckets(),
            sum: engine.turns.sum(),
            count: engine.turns.count(),
        },
    );
    out.histogram(
        "h_realtime_loop_lag_seconds",
        "Delay of the reactor's periodic work, which is due every half second.",
        milliseconds(&engine.lag),
    );
}

/// Converts a histogram with millisecond resolution. Finer buckets would suggest a precision that
/// the data does not have.
fn milliseconds(histogram: &net::Histogram) -> Histogram<impl Iterator<Item = (f64, u64)>> {
    Histogram {
        buckets: histogram.buckets().filter(|(bound, _)| *bound >= 0.001),
        sum: histogram.sum(),
        count: histogram.count(),
    }
}

fn compression(out: &mut Exposition, compression: &net::Compression) {
    out.family(
        "h_realtime_compressed_messages_total",
        MetricKind::Counter,
        "Compressed messages, received or sent.",
        [
            (r#"direction="in""#, compression.inflated as f64),
            (r#"direction="out""#, compression.sent as f64),
        ],
    );
    out.counter(
        "h_realtime_compressions_total",
        "Messages compressed, each once for all receivers.",
        compression.deflated,
    );
    out.family(
        "h_realtime_compression_bytes_total",
        MetricKind::Counter,
        "Bytes of compressed and decompressed messages.",
        [
            (
                r#"direction="in",form="compressed""#,
                compression.inflated_from as f64,
            ),
            (
                r#"direction="in",form="plain""#,
                compression.inflated_to as f64,
            ),
            (
                r#"direction="out",form="compressed""#,
                compression.deflated_to as f64,
            ),
            (
                r#"direction="out",form="plain""#,
                compression.deflated_from as f64,
            ),
        ],
    );
    out.counter(
        "h_realtime_decompression_failures_total",
        "Compressed messages that were corrupt or too large.",
        compression.failures,
    );
}

/// Converts counts with their labels.
fn counts(pairs: &[(&'static str, u64)]) -> Vec<(&'static str, f64)> {
    pairs
        .iter()
        .map(|(labels, count)| (*labels, *count as f64))
        .collect()
}

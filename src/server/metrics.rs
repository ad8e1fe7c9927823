//! What each layer has counted, under the names that operators see.

use std::sync::atomic::Ordering;

use crate::admin::{AdminCounters, Exposition, Kind};
use crate::backend::{Fate, Stats, Topic};
use crate::config::Danger;
use crate::logging;
use crate::net;
use crate::realtime;

use super::reload::Shared;

/// How the back end is.
pub(super) struct BackEnd<'a> {
    pub ready: bool,
    pub stats: &'a Stats,
}

/// How the process is.
pub(super) struct Process<'a> {
    pub dangers: &'a [Danger],
    pub shared: &'a Shared,
}

/// All metrics, as Prometheus text.
pub(super) fn render(
    engine: &net::Counters,
    api: realtime::Counters,
    admin: &AdminCounters,
    back_end: &BackEnd<'_>,
    process: &Process<'_>,
) -> String {
    let mut out = Exposition::default();
    connections(&mut out, engine, &api);
    handshakes_and_ends(&mut out, engine, &api);
    traffic(&mut out, engine);
    compression(&mut out, &engine.compression);
    messages(&mut out, &api);
    events(&mut out, engine, &api, admin);
    back_end_state(&mut out, back_end);
    process_state(&mut out, process);
    out.family(
        "h_realtime_build_info",
        Kind::Gauge,
        "The version that runs; always 1.",
        [(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1.0)],
    );
    out.finish()
}

fn process_state(out: &mut Exposition, process: &Process<'_>) {
    let shared = process.shared;
    out.family(
        "h_realtime_reloads_total",
        Kind::Counter,
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
        Kind::Gauge,
        "Whether a setting takes a protection away.",
        samples.map(|(label, is_there)| (&**label, f64::from(u8::from(is_there)))),
    );
    out.counter(
        "h_realtime_log_lines_dropped_total",
        "Lines of the log that were dropped because nobody took them.",
        logging::dropped(),
    );
}

fn connections(out: &mut Exposition, engine: &net::Counters, api: &realtime::Counters) {
    out.family(
        "h_realtime_connections",
        Kind::Gauge,
        "Connections now: with an open WebSocket, or in any other phase.",
        counts(&[
            (r#"state="open""#, engine.open),
            (r#"state="other""#, engine.connections - engine.open),
        ]),
    );
    out.gauge(
        "h_realtime_connections_tls",
        "Open WebSockets over TLS now.",
        engine.open_tls as f64,
    );
    out.gauge(
        "h_realtime_connections_logged_in",
        "Connections with an identity now.",
        api.logins as f64,
    );
    out.gauge(
        "h_realtime_users",
        "Distinct users connected now.",
        api.principals as f64,
    );
    out.counter(
        "h_realtime_accepts_total",
        "Connections accepted.",
        engine.accepted,
    );
    out.counter(
        "h_realtime_connects_total",
        "WebSockets opened.",
        engine.opened,
    );
}

fn handshakes_and_ends(out: &mut Exposition, engine: &net::Counters, api: &realtime::Counters) {
    let ends = &engine.closed;
    out.family(
        "h_realtime_disconnects_total",
        Kind::Counter,
        "WebSockets ended, by reason.",
        counts(&[
            (r#"reason="client""#, ends.by_peer),
            (r#"reason="server""#, ends.by_application),
            (r#"reason="protocol""#, ends.protocol),
            (r#"reason="lost""#, ends.lost),
            (r#"reason="timeout""#, ends.timed_out),
            (r#"reason="slow""#, ends.slow),
            (r#"reason="shutdown""#, ends.shutdown),
        ]),
    );
    out.family(
        "h_realtime_handshake_failures_total",
        Kind::Counter,
        "Connections or requests that led nowhere, by reason.",
        counts(&[
            (r#"reason="request""#, engine.bad_requests),
            (r#"reason="timeout""#, engine.handshake_timeouts),
            (r#"reason="tls""#, engine.tls_failures),
            (r#"reason="full""#, engine.refused_full),
            (r#"reason="per_ip""#, engine.refused_per_ip),
            (r#"reason="proxy_peer""#, engine.refused_untrusted),
            (r#"reason="proxy_header""#, engine.proxy_failures),
            (r#"reason="no_descriptors""#, engine.accept_failures),
            (r#"reason="origin""#, api.refused_origins),
        ]),
    );
    out.family(
        "h_realtime_authentications_total",
        Kind::Counter,
        "Handshakes by what their token was worth.",
        counts(&[
            (r#"result="none""#, api.auth.anonymous),
            (r#"result="known""#, api.auth.known),
            (r#"result="unknown""#, api.auth.unknown),
            (r#"result="unavailable""#, api.auth.unavailable),
        ]),
    );
    out.counter(
        "h_realtime_credentials_ended_total",
        "Connections closed because their token or user had ended.",
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
        "Bytes that wait in output queues now.",
        engine.queued_bytes as f64,
    );
    out.gauge(
        "h_realtime_unfinished_bytes",
        "Bytes that hold requests and messages that are not whole now.",
        engine.unfinished_bytes as f64,
    );
    out.counter(
        "h_realtime_messages_received_total",
        "Messages received.",
        engine.messages_in,
    );
    out.counter(
        "h_realtime_messages_sent_total",
        "Messages sent, or queued to be.",
        engine.messages_out,
    );
    out.counter(
        "h_realtime_pings_sent_total",
        "Heartbeat pings sent.",
        engine.pings_sent,
    );
}

fn compression(out: &mut Exposition, compression: &net::Compression) {
    out.family(
        "h_realtime_compressed_messages_total",
        Kind::Counter,
        "Compressed messages, received or sent.",
        [
            (r#"direction="in""#, compression.inflated as f64),
            (r#"direction="out""#, compression.sent as f64),
        ],
    );
    out.counter(
        "h_realtime_compressions_total",
        "Messages compressed, each once for all its receivers.",
        compression.deflated,
    );
    out.family(
        "h_realtime_compression_bytes_total",
        Kind::Counter,
        "Bytes of messages that were compressed or decompressed here.",
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
        "Compressed messages that were corrupt or too big.",
        compression.failures,
    );
}

fn messages(out: &mut Exposition, api: &realtime::Counters) {
    let (messages, errors) = (&api.messages, &api.errors);
    out.family(
        "h_realtime_client_messages_total",
        Kind::Counter,
        "Messages by type.",
        [
            (r#"type="ping""#, messages.ping as f64),
            (r#"type="whoami""#, messages.whoami as f64),
            (r#"type="client_id""#, messages.client_id as f64),
            (r#"type="filter""#, messages.filter as f64),
            (r#"type="unknown""#, messages.unknown as f64),
        ],
    );
    out.family(
        "h_realtime_client_errors_total",
        Kind::Counter,
        "Messages that were refused or passed over, by reason.",
        [
            (r#"reason="not_json""#, errors.not_json as f64),
            (r#"reason="not_object""#, errors.not_object as f64),
            (r#"reason="invalid_type""#, errors.invalid_type as f64),
            (r#"reason="invalid_data""#, errors.invalid_data as f64),
            (r#"reason="invalid_filter""#, errors.invalid_filter as f64),
            (r#"reason="too_many_terms""#, errors.too_many_terms as f64),
        ],
    );
    out.counter(
        "h_realtime_messages_without_id_total",
        "Messages without a numeric id, which are not answered.",
        api.without_id,
    );
    out.gauge(
        "h_realtime_subscriptions",
        "Filter terms of all connections now.",
        api.subscriptions as f64,
    );
    out.gauge(
        "h_realtime_terms",
        "Distinct filter terms now.",
        api.terms as f64,
    );
    out.gauge(
        "h_realtime_index_bytes",
        "Memory of the subscriptions now.",
        api.index_bytes as f64,
    );
}

fn events(
    out: &mut Exposition,
    engine: &net::Counters,
    api: &realtime::Counters,
    admin: &AdminCounters,
) {
    out.family(
        "h_realtime_events_received_total",
        Kind::Counter,
        "Events taken, by kind.",
        [
            (r#"kind="create""#, api.events.create as f64),
            (r#"kind="update""#, api.events.update as f64),
            (r#"kind="delete""#, api.events.delete as f64),
            (r#"kind="session-change""#, api.events.session_change as f64),
        ],
    );
    out.family(
        "h_realtime_publish_refusals_total",
        Kind::Counter,
        "Publish requests that were refused, by reason.",
        [
            (r#"reason="event""#, admin.batches_refused as f64),
            (r#"reason="key""#, admin.unauthorized as f64),
            (r#"reason="origin""#, admin.forbidden as f64),
        ],
    );
    out.counter(
        "h_realtime_events_matched_total",
        "Connections whose filter an event matched, or whose user it was about.",
        api.matched,
    );
    out.counter(
        "h_realtime_notifications_sent_total",
        "Notifications on their way to a connection.",
        api.sent,
    );
    out.family(
        "h_realtime_notifications_suppressed_total",
        Kind::Counter,
        "Connections that an event matched and that were not told, by rule.",
        [
            (r#"rule="own_event""#, api.withheld.own as f64),
            (r#"rule="permission""#, api.withheld.permission as f64),
            (r#"rule="muted_author""#, api.withheld.muted as f64),
            (r#"rule="hidden""#, api.withheld.hidden as f64),
            (r#"rule="checkpoint""#, api.withheld.checkpoint as f64),
        ],
    );
    out.counter(
        "h_realtime_notifications_dropped_total",
        "Notifications whose connection had ended by the time they were to be sent.",
        engine.undelivered,
    );
}

fn back_end_state(out: &mut Exposition, back_end: &BackEnd<'_>) {
    let BackEnd { ready, stats } = back_end;
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
        Kind::Gauge,
        "Whether the connection to a server that the back end needs is up.",
        links.map(|(labels, link)| (labels, flag(link.is_up()))),
    );
    out.family(
        "h_realtime_backend_connects_total",
        Kind::Counter,
        "Connections made to servers that the back end needs.",
        links.map(|(labels, link)| (labels, link.connects() as f64)),
    );
    out.family(
        "h_realtime_backend_losses_total",
        Kind::Counter,
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
        Kind::Counter,
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
        Kind::Counter,
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

/// Counts, by their labels.
fn counts(pairs: &[(&'static str, u64)]) -> Vec<(&'static str, f64)> {
    pairs
        .iter()
        .map(|(labels, count)| (*labels, *count as f64))
        .collect()
}

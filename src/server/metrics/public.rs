//! The metrics for requests without a key.
//!
//! Owns: the list. A client can watch a page or a group, and compare metrics before and after. The
//! list must therefore contain no metric that depends on events: neither their number, nor their
//! receivers, nor the bytes, queues, statements, and time that they cost. A metric that is not on
//! the list needs a key, so new metrics are protected by default. Connections that end because the
//! client does not read its output are counted here, as all ends are. Their output is not.

/// Metrics of connections, client messages, and the server.
pub(super) const PUBLIC: &[&str] = &[
    "h_realtime_metrics_complete",
    "h_realtime_connections",
    "h_realtime_connections_tls",
    "h_realtime_event_streams",
    "h_realtime_connections_logged_in",
    "h_realtime_users",
    "h_realtime_accepts_total",
    "h_realtime_connects_total",
    "h_realtime_event_stream_connects_total",
    "h_realtime_disconnects_total",
    "h_realtime_close_codes_total",
    "h_realtime_handshake_failures_total",
    "h_realtime_authentications_total",
    "h_realtime_credentials_ended_total",
    "h_realtime_evictions_total",
    "h_realtime_tls_handshakes_total",
    "h_realtime_messages_received_total",
    "h_realtime_pings_sent_total",
    "h_realtime_decompression_failures_total",
    "h_realtime_client_messages_total",
    "h_realtime_client_errors_total",
    "h_realtime_messages_without_id_total",
    "h_realtime_subscriptions",
    "h_realtime_terms",
    "h_realtime_index_bytes",
    "h_realtime_filter_bytes",
    "h_realtime_conditional_filters",
    "h_realtime_remembered_clients",
    "h_realtime_remembered_clients_bytes",
    "h_realtime_client_log_dropped_records_total",
    "h_realtime_publish_refusals_total",
    "h_realtime_loop_lag_seconds",
    "h_realtime_backend_ready",
    "h_realtime_backend_connected",
    "h_realtime_backend_connects_total",
    "h_realtime_backend_losses_total",
    "h_realtime_reloads_total",
    "h_realtime_dangerous_setting",
    "h_realtime_certificate_expiry_timestamp_seconds",
    "h_realtime_build_info",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
];

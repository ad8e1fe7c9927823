//! Metrics of client messages and of the delivery of events.

use crate::admin::{AdminCounters, Exposition, MetricKind};
use crate::net;
use crate::realtime;

use super::milliseconds;

pub(super) fn messages(out: &mut Exposition, api: &realtime::ApiCounters) {
    let (messages, errors) = (&api.messages, &api.errors);
    out.family(
        "h_realtime_client_messages_total",
        MetricKind::Counter,
        "Client messages by type.",
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
        MetricKind::Counter,
        "Client messages that were rejected or ignored, by reason.",
        [
            (r#"reason="not_json""#, errors.not_json as f64),
            (r#"reason="not_object""#, errors.not_object as f64),
            (r#"reason="invalid_type""#, errors.invalid_type as f64),
            (r#"reason="invalid_data""#, errors.invalid_data as f64),
            (r#"reason="invalid_filter""#, errors.invalid_filter as f64),
            (r#"reason="too_many_terms""#, errors.too_many_terms as f64),
            (r#"reason="filters_full""#, errors.filters_full as f64),
            (r#"reason="long_id""#, errors.long_id as f64),
            (r#"reason="invalid_cursor""#, errors.invalid_cursor as f64),
        ],
    );
    out.counter(
        "h_realtime_messages_without_id_total",
        "Messages without a numeric id, which get no reply.",
        api.without_id,
    );
    out.gauge(
        "h_realtime_subscriptions",
        "Current filter terms of all connections.",
        api.subscriptions as f64,
    );
    out.gauge(
        "h_realtime_terms",
        "Current distinct filter terms.",
        api.terms as f64,
    );
    out.gauge(
        "h_realtime_index_bytes",
        "Current memory of the subscriptions.",
        api.index_bytes as f64,
    );
    out.gauge(
        "h_realtime_filter_bytes",
        "Current size of all filters, limited by limits.filters_total.",
        api.filter_bytes as f64,
    );
    out.gauge(
        "h_realtime_conditional_filters",
        "Current filters that are more than a list of values of which any matches.",
        api.conditional_filters as f64,
    );
    out.counter(
        "h_realtime_filter_mismatches_total",
        "Comparisons of events with such filters that did not match.",
        api.filter_mismatches,
    );
    out.gauge(
        "h_realtime_remembered_clients",
        "Current disconnected clients that are sent missed events when they return.",
        api.remembered_clients as f64,
    );
    out.gauge(
        "h_realtime_remembered_clients_bytes",
        "Current memory of these clients.",
        api.remembered_bytes as f64,
    );
}

pub(super) fn events(
    out: &mut Exposition,
    engine: &net::Counters,
    api: &realtime::ApiCounters,
    admin: &AdminCounters,
) {
    out.family(
        "h_realtime_events_received_total",
        MetricKind::Counter,
        "Events received, by kind.",
        [
            (r#"kind="create""#, api.events.create as f64),
            (r#"kind="update""#, api.events.update as f64),
            (r#"kind="delete""#, api.events.delete as f64),
            (r#"kind="session-change""#, api.events.session_change as f64),
        ],
    );
    out.family(
        "h_realtime_publish_refusals_total",
        MetricKind::Counter,
        "Rejected requests to publish, to read recent events, or for explanations, by reason.",
        [
            (r#"reason="event""#, admin.batches_refused as f64),
            (r#"reason="key""#, admin.unauthorized as f64),
            (r#"reason="origin""#, admin.forbidden as f64),
            (r#"reason="busy""#, admin.busy as f64),
            (r#"reason="unavailable""#, admin.unavailable as f64),
            (r#"reason="storage_full""#, admin.storage_full as f64),
            (r#"reason="cancelled""#, admin.cancelled as f64),
        ],
    );
    out.counter(
        "h_realtime_events_matched_total",
        "Connections that events matched, by their filter or their user.",
        api.matched,
    );
    out.counter(
        "h_realtime_notifications_sent_total",
        "Notifications sent or queued to connections.",
        api.sent,
    );
    out.family(
        "h_realtime_notifications_suppressed_total",
        MetricKind::Counter,
        "Connections that an event matched but that were not notified, by rule.",
        [
            (r#"rule="own_event""#, api.withheld.own as f64),
            (r#"rule="permission""#, api.withheld.permission as f64),
            (r#"rule="muted_author""#, api.withheld.muted as f64),
            (r#"rule="hidden""#, api.withheld.hidden as f64),
            (r#"rule="checkpoint""#, api.withheld.checkpoint as f64),
        ],
    );
    out.family(
        "h_realtime_notifications_dropped_total",
        MetricKind::Counter,
        "Notifications not delivered because the connection ended before they were sent, or while \
         they were queued.",
        [
            (r#"reason="ended""#, engine.undelivered as f64),
            (r#"reason="queued""#, engine.unsent as f64),
        ],
    );
    out.counter(
        "h_realtime_explanations_total",
        "Explanations given to operators.",
        admin.explanations,
    );
    out.gauge(
        "h_realtime_recorded_connections",
        "Current connections for which the outcomes of events are recorded.",
        api.watched as f64,
    );
    out.family(
        "h_realtime_debug_messages_total",
        MetricKind::Counter,
        "Debug messages to connections with ?debug=1, by result.",
        [
            (r#"result="sent""#, api.debug.sent as f64),
            (r#"result="suppressed""#, api.debug.suppressed as f64),
        ],
    );
    out.histogram(
        "h_realtime_event_latency_seconds",
        "Latency of notifications, from the arrival of the event to the write to the socket or its \
         queue.",
        milliseconds(&engine.latency),
    );
}

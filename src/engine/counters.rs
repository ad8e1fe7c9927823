//! Counters of the engine.

use crate::handler::Refusal;
use crate::histogram::Histogram;
use crate::ledger::Ledger;

/// Counters since the start, which never decrease, and gauges, which are described as "current".
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Current connections, in any phase.
    pub connections: u64,
    /// Current connections with an open WebSocket or event stream.
    pub open: u64,
    /// Current connections with an open WebSocket or event stream over TLS.
    pub open_tls: u64,
    /// Current connections with an open event stream.
    pub open_streams: u64,
    /// Current connections being closed, by either side.
    pub closing: u64,
    /// Current bytes in the output queues of all connections.
    pub queued_bytes: u64,
    /// Current memory held on behalf of peers and publishers.
    pub ledger: Ledger,
    /// Current connections with output above the soft limit.
    pub slow: u64,
    /// Current memory used for incomplete requests and messages, in bytes.
    pub incomplete_bytes: u64,
    /// Connections accepted from a listener.
    pub accepted: u64,
    /// WebSockets and event streams opened.
    pub opened: u64,
    /// Event streams opened.
    pub opened_streams: u64,
    /// Closed WebSockets and event streams, by cause.
    pub closed: CloseCounts,
    /// Closed WebSockets and event streams, by the code in the first close frame or the last blocks.
    pub close_codes: CloseCodes,
    /// Requests answered with an error, by the engine or its handler.
    pub bad_requests: u64,
    /// Requests rejected by the engine itself, by reason.
    pub refusals: Refusals,
    /// Connections rejected because of the connection limit.
    pub refused_full: u64,
    /// Connections evicted while waiting for a request, to make room for others.
    pub evicted: Evictions,
    /// Connections rejected because of the limit per IP address, including handshakes that a
    /// trusted proxy forwarded for such a client.
    pub refused_per_ip: u64,
    /// Connections to PROXY protocol listeners rejected because the peer is not a trusted proxy.
    pub refused_untrusted: u64,
    /// Connections dropped because of an invalid PROXY protocol header.
    pub proxy_failures: u64,
    /// Failures of `accept` for lack of descriptors or memory.
    pub accept_failures: u64,
    /// Connections dropped at their deadline before sending any part of a request, or before
    /// completing the TLS handshake. Idle connections whose last request was answered do not count.
    pub handshake_timeouts: u64,
    /// Completed TLS handshakes.
    pub tls_handshakes: u64,
    /// Failed TLS handshakes.
    pub tls_failures: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued or written, counted once per receiver.
    pub messages_out: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Heartbeat pings sent.
    pub pings_sent: u64,
    /// Heartbeat comments sent to event streams.
    pub comments_sent: u64,
    /// Messages of deliveries that were not queued because the connection was closing or gone, or of
    /// the other transport.
    pub undelivered: u64,
    /// Messages of deliveries that were queued, but dropped when the connection ended.
    pub unsent: u64,
    /// Compression statistics.
    pub compression: Compression,
    /// The duration of turns, from the poller's return to the end of the turn.
    pub turns: Histogram,
    /// The delay of periodic work behind its schedule, measured every
    /// [`TICK_PERIOD`](crate::TICK_PERIOD), in whole milliseconds.
    pub lag: Histogram,
    /// The latency of delivered messages, from [`Delivery::since`] to the end of the turn in which
    /// they were written or queued.
    ///
    /// [`Delivery::since`]: crate::Delivery::since
    pub latency: Histogram,
}

/// Evicted connections, by the limit that was reached.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Evictions {
    /// [`Config::max_connections`](crate::Config::max_connections).
    pub connections: u64,
    /// [`Config::max_per_ip`](crate::Config::max_per_ip).
    pub per_ip: u64,
    /// [`Config::max_reserved`](crate::Config::max_reserved).
    pub reserved: u64,
}

/// Requests rejected by the engine, and connections dropped before they became WebSockets, by
/// reason.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Refusals {
    /// Not HTTP/1.1, or ambiguous.
    pub malformed: u64,
    /// The head, body, chunk extensions, or trailer section is too large.
    pub too_large: u64,
    /// A body was required, but the request has neither a length nor chunks.
    pub no_length: u64,
    /// A transfer coding other than chunked.
    pub coding: u64,
    /// Not completed within the deadline.
    pub incomplete: u64,
    /// The handler did not respond within the deadline.
    pub unanswered: u64,
    /// The peer did not read the responses to its requests.
    pub slow: u64,
    /// Incomplete input took too much memory in total, and this connection was chosen to be
    /// dropped.
    pub overload: u64,
    /// The server was shutting down.
    pub shutdown: u64,
}

/// Closed WebSockets by close code. Codes without an entry of their own share one.
#[derive(Clone, Debug, Default)]
pub struct CloseCodes([u64; CLOSE_CODES.len() + 1]);

/// Compression statistics of both directions. Sizes are those of payloads, in bytes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Compression {
    /// Messages compressed, each once for all its receivers.
    pub deflated: u64,
    /// Their size before compression.
    pub deflated_from: u64,
    /// Their size after compression.
    pub deflated_to: u64,
    /// Compressed messages queued or written, counted once per receiver.
    pub sent: u64,
    /// Compressed messages received.
    pub inflated: u64,
    /// Their size as received.
    pub inflated_from: u64,
    /// Their size after decompression.
    pub inflated_to: u64,
    /// Failed decompressions: corrupt data, invalid UTF-8, or a message over the limit.
    pub failures: u64,
}

/// Closed WebSockets, by cause.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloseCounts {
    /// The peer started the closing handshake.
    pub by_peer: u64,
    /// The application closed the connection.
    pub by_application: u64,
    /// The peer violated the protocol or exceeded a limit.
    pub protocol: u64,
    /// A reset, a socket or TLS error, or an end of the stream without a close frame.
    pub lost: u64,
    /// No activity within the deadline, or a message that was not completed within its own.
    pub timed_out: u64,
    /// The peer did not read its output.
    pub slow: u64,
    /// Incomplete input took too much memory in total, and this connection was chosen to be closed.
    pub overload: u64,
    /// The server was shutting down.
    pub shutdown: u64,
}

impl Counters {
    pub(crate) fn count_refusal(&mut self, refusal: Refusal) {
        let refusals = &mut self.refusals;
        *match refusal {
            Refusal::Malformed => &mut refusals.malformed,
            Refusal::HeadTooLarge
            | Refusal::TargetTooLong
            | Refusal::BodyTooLarge
            | Refusal::ExtensionsTooLarge
            | Refusal::TrailersTooLarge => &mut refusals.too_large,
            Refusal::LengthRequired => &mut refusals.no_length,
            Refusal::UnsupportedCoding => &mut refusals.coding,
            Refusal::Incomplete => &mut refusals.incomplete,
            Refusal::TimedOut => &mut refusals.unanswered,
            Refusal::TooMany => &mut self.refused_per_ip,
            Refusal::Full => &mut self.refused_full,
            Refusal::Overloaded => &mut refusals.overload,
            Refusal::ShuttingDown => &mut refusals.shutdown,
        } += 1;
    }
}

impl CloseCounts {
    /// Returns each count with the label of its cause, as in [`CloseInfo`](crate::CloseInfo).
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let CloseCounts {
            by_peer,
            by_application,
            protocol,
            lost,
            timed_out,
            slow,
            overload,
            shutdown,
        } = *self;
        let counts = [
            ("client", by_peer),
            ("server", by_application),
            ("protocol", protocol),
            ("lost", lost),
            ("timeout", timed_out),
            ("slow", slow),
            ("overload", overload),
            ("shutdown", shutdown),
        ];
        counts.into_iter()
    }
}

impl Refusals {
    /// Returns each count with its label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Refusals {
            malformed,
            too_large,
            no_length,
            coding,
            incomplete,
            unanswered,
            slow,
            overload,
            shutdown,
        } = *self;
        let counts = [
            ("malformed", malformed),
            ("too_large", too_large),
            ("no_length", no_length),
            ("coding", coding),
            ("incomplete", incomplete),
            ("no_answer", unanswered),
            ("slow", slow),
            ("overload", overload),
            ("shutdown", shutdown),
        ];
        counts.into_iter()
    }
}

impl CloseCodes {
    pub(crate) fn count(&mut self, code: u16) {
        let known = CLOSE_CODES.iter().position(|known| *known == code);
        self.0[known.unwrap_or(CLOSE_CODES.len())] += 1;
    }

    /// Returns the count for each known code, and for all others with `None`.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let codes = CLOSE_CODES.into_iter().map(Some).chain([None]);
        codes.zip(self.0)
    }
}

/// Codes with a counter of their own. Peers can choose among thousands of codes, so the others
/// share one counter. RFC 6455 §7.4.1 assigns 1005 to a close frame without a code, and 1006 to the
/// absence of a close frame.
const CLOSE_CODES: [u16; 13] = [
    1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 3000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_close_codes_share_a_counter() {
        let mut codes = CloseCodes::default();
        for code in [1000, 4999, 3000, 3001, 1000] {
            codes.count(code);
        }
        let counted: Vec<_> = codes.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Some(1000), 2), (Some(3000), 1), (None, 2)]);
    }

    #[test]
    fn each_refusal_is_counted_once_under_a_label() {
        for (refusal, label) in [
            (Refusal::Malformed, Some("malformed")),
            (Refusal::HeadTooLarge, Some("too_large")),
            (Refusal::TrailersTooLarge, Some("too_large")),
            (Refusal::LengthRequired, Some("no_length")),
            (Refusal::UnsupportedCoding, Some("coding")),
            (Refusal::Incomplete, Some("incomplete")),
            (Refusal::TimedOut, Some("no_answer")),
            (Refusal::Overloaded, Some("overload")),
            (Refusal::ShuttingDown, Some("shutdown")),
            (Refusal::TooMany, None),
            (Refusal::Full, None),
        ] {
            let mut counters = Counters::default();
            counters.count_refusal(refusal);
            let counted = counters.refusals.iter().filter(|(_, count)| *count > 0);
            let labels: Vec<_> = counted.collect();
            assert_eq!(
                labels,
                label
                    .map(|label| (label, 1))
                    .into_iter()
                    .collect::<Vec<_>>()
            );
            let others = (counters.refused_per_ip, counters.refused_full);
            let of = |other| u64::from(refusal == other);
            assert_eq!(others, (of(Refusal::TooMany), of(Refusal::Full)));
        }
    }

    #[test]
    fn closed_connections_are_counted_under_the_label_of_the_cause() {
        let counts = CloseCounts {
            by_peer: 1,
            lost: 2,
            shutdown: 3,
            ..CloseCounts::default()
        };
        let counted: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("client", 1), ("lost", 2), ("shutdown", 3)]);
    }
}

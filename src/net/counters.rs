//! What the engine counts.

use super::handler::Refusal;
use super::held::Held;
use super::histogram::Histogram;

/// Figures since the start, except where "now" is said. They only ever grow, except those.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Connections that exist now, in any phase.
    pub connections: u64,
    /// Connections with an open WebSocket now.
    pub open: u64,
    /// Of the open ones, those over TLS.
    pub open_tls: u64,
    /// Connections that are being closed now, by either side.
    pub closing: u64,
    /// Bytes that wait in the connections' output queues now.
    pub queued_bytes: u64,
    /// Memory that peers and publishers make the engine hold now.
    pub held: Held,
    /// Connections for which more than the soft limit waits now.
    pub slow: u64,
    /// Bytes that hold what has come of requests and messages that are not whole now.
    pub unfinished_bytes: u64,
    /// Connections accepted from a listener.
    pub accepted: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// WebSockets that ended, by how.
    pub closed: Ends,
    /// The same, by the code in the first close frame.
    pub close_codes: CloseCodes,
    /// Requests that were answered with an error, by the engine or by its handler.
    pub bad_requests: u64,
    /// Those of them that the engine itself refused, by why.
    pub refusals: Refusals,
    /// Connections refused because of the limit on connections.
    pub refused_full: u64,
    /// Connections that were ended while they waited for a request, to make room for others.
    pub evicted: Evictions,
    /// Connections refused because of the limit per IP address, and handshakes by a trusted proxy
    /// for such a client.
    pub refused_per_ip: u64,
    /// Connections refused on a listener of the PROXY protocol, from others than trusted proxies.
    pub refused_untrusted: u64,
    /// Connections cut because what they began with was no header of the PROXY protocol.
    pub proxy_failures: u64,
    /// Times `accept` failed for want of descriptors or memory.
    pub accept_failures: u64,
    /// Connections that sent nothing of a request within their deadline, or did not complete a
    /// TLS handshake, and were cut. A connection whose last request was answered is not counted.
    pub handshake_timeouts: u64,
    /// TLS handshakes completed.
    pub tls_handshakes: u64,
    /// TLS handshakes that failed.
    pub tls_failures: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued or written, each receiver of a delivery counted.
    pub messages_out: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Heartbeat pings sent.
    pub pings_sent: u64,
    /// Messages of a delivery that were not queued, because the connection was gone or
    /// closing by then.
    pub undelivered: u64,
    /// Messages of a delivery that were queued, and dropped when their connection ended.
    pub unsent: u64,
    /// What was compressed.
    pub compression: Compression,
    /// How long turns took, from the poller's return to the end of their work.
    pub turns: Histogram,
    /// How much later than it was due the clock's own work was begun, every
    /// [`TICK_PERIOD`](super::TICK_PERIOD), to the millisecond.
    pub lag: Histogram,
    /// How long messages of deliveries were on their way: from [`Delivery::since`] to the end of
    /// the turn in which they were written or queued.
    ///
    /// [`Delivery::since`]: super::Delivery::since
    pub latency: Histogram,
}

/// Connections that were ended to make room, by the limit that had been reached.
#[derive(Clone, Debug, Default)]
pub struct Evictions {
    /// [`Config::max_connections`](super::Config::max_connections).
    pub connections: u64,
    /// [`Config::max_per_ip`](super::Config::max_per_ip).
    pub per_ip: u64,
    /// [`Config::max_reserved`](super::Config::max_reserved).
    pub reserved: u64,
}

/// Requests that the engine refused, and connections that it cut before they had a WebSocket, by
/// why.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Not HTTP/1.1, or ambiguous.
    pub malformed: u64,
    /// A head, a body, its chunk extensions, or its trailer section that is too large.
    pub too_large: u64,
    /// A body was wanted, and the request had neither a length nor chunks.
    pub no_length: u64,
    /// A transfer coding besides chunked.
    pub coding: u64,
    /// Not whole within the deadline.
    pub incomplete: u64,
    /// The handler did not answer within the deadline.
    pub unanswered: u64,
    /// The peer did not read the responses to its requests.
    pub slow: u64,
    /// Incomplete input took too much memory in all, and this connection's took the most.
    pub overload: u64,
    /// The server was shutting down.
    pub shutdown: u64,
}

/// WebSockets that ended, by close code: those that there are names for, and all others.
#[derive(Clone, Debug, Default)]
pub struct CloseCodes([u64; CLOSE_CODES.len() + 1]);

/// Compressed messages, both ways; bytes are those of payloads.
#[derive(Clone, Debug, Default)]
pub struct Compression {
    /// Messages compressed, each once for all its receivers.
    pub deflated: u64,
    /// Their bytes before.
    pub deflated_from: u64,
    /// Their bytes after.
    pub deflated_to: u64,
    /// Compressed messages queued or written, each receiver counted.
    pub sent: u64,
    /// Compressed messages received.
    pub inflated: u64,
    /// Their bytes as received.
    pub inflated_from: u64,
    /// Their bytes once decompressed.
    pub inflated_to: u64,
    /// Compressed messages that broke off: corrupt, no text where they should be, or too big.
    pub failures: u64,
}

/// How WebSockets ended.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// The peer began the closing handshake.
    pub by_peer: u64,
    /// The application closed it.
    pub by_application: u64,
    /// The peer broke the protocol or a limit.
    pub protocol: u64,
    /// A reset, an error of the socket or of TLS, or an end without a close frame.
    pub lost: u64,
    /// No sign of life within the deadline, or a message that was not complete within its own.
    pub timed_out: u64,
    /// The peer did not read what was sent to it.
    pub slow: u64,
    /// Incomplete input took too much memory in all, and this connection's took the most.
    pub overload: u64,
    /// The server was shutting down.
    pub shutdown: u64,
}

/// Why a WebSocket ends, as the engine counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    ByPeer,
    ByApplication,
    Protocol,
    Lost,
    TimedOut,
    Slow,
    Overload,
    Shutdown,
}

impl End {
    /// The word for it in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            End::ByPeer => "client",
            End::ByApplication => "server",
            End::Protocol => "protocol",
            End::Lost => "lost",
            End::TimedOut => "timeout",
            End::Slow => "slow",
            End::Overload => "overload",
            End::Shutdown => "shutdown",
        }
    }
}

impl Ends {
    pub(super) fn count(&mut self, end: End) {
        *match end {
            End::ByPeer => &mut self.by_peer,
            End::ByApplication => &mut self.by_application,
            End::Protocol => &mut self.protocol,
            End::Lost => &mut self.lost,
            End::TimedOut => &mut self.timed_out,
            End::Slow => &mut self.slow,
            End::Overload => &mut self.overload,
            End::Shutdown => &mut self.shutdown,
        } += 1;
    }
}

impl Counters {
    pub(super) fn count_refusal(&mut self, refusal: Refusal) {
        let refusals = &mut self.refusals;
        *match refusal {
            Refusal::Malformed => &mut refusals.malformed,
            Refusal::HeadTooLarge
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

impl CloseCodes {
    pub(super) fn count(&mut self, code: u16) {
        let known = CLOSE_CODES.iter().position(|known| *known == code);
        self.0[known.unwrap_or(CLOSE_CODES.len())] += 1;
    }

    /// Each code that there is a name for, and `None` for all others, with how often it was.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let codes = CLOSE_CODES.into_iter().map(Some).chain([None]);
        codes.zip(self.0)
    }
}

/// The codes that are told apart: a peer may choose among thousands. RFC 6455 §7.4.1 has 1005
/// stand for a close frame without a code, and 1006 for none at all.
const CLOSE_CODES: [u16; 13] = [
    1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 3000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_anybody_may_choose_are_counted_together() {
        let mut codes = CloseCodes::default();
        for code in [1000, 4999, 3000, 3001, 1000] {
            codes.count(code);
        }
        let counted: Vec<_> = codes.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Some(1000), 2), (Some(3000), 1), (None, 2)]);
    }
}

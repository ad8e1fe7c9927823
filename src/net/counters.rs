//! What the engine counts.

/// Figures since the start, except where "now" is said. They only ever grow, except those.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Connections that exist now, in any phase.
    pub connections: u64,
    /// Connections with an open WebSocket now.
    pub open: u64,
    /// Of the open ones, those over TLS.
    pub open_tls: u64,
    /// Bytes that wait in the connections' output queues now.
    pub queued_bytes: u64,
    /// Bytes that hold what has come of requests and messages that are not whole now.
    pub unfinished_bytes: u64,
    /// Connections accepted from a listener.
    pub accepted: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// WebSockets that ended, by how.
    pub closed: Ends,
    /// Requests refused for their head or body, by the status they got.
    pub bad_requests: u64,
    /// Connections refused because of the limit on connections.
    pub refused_full: u64,
    /// Connections refused because of the limit per IP address, and handshakes by a trusted proxy
    /// for such a client.
    pub refused_per_ip: u64,
    /// Connections refused on a listener of the PROXY protocol, from others than trusted proxies.
    pub refused_untrusted: u64,
    /// Connections cut because what they began with was no header of the PROXY protocol.
    pub proxy_failures: u64,
    /// Times `accept` failed for want of descriptors or memory.
    pub accept_failures: u64,
    /// Connections that sent no whole request head within their deadline, and were cut.
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
    /// What was compressed.
    pub compression: Compression,
}

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
    /// No sign of life within the deadline.
    pub timed_out: u64,
    /// The peer did not read what was sent to it.
    pub slow: u64,
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
    Shutdown,
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
            End::Shutdown => &mut self.shutdown,
        } += 1;
    }
}

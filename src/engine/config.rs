//! Limits and timeouts of the engine.

use std::time::Duration;

use crate::ListenerId;
use crate::http::{ForwardedBy, Proxies};
use crate::io::tls::TlsConfig;
use crate::ws::CloseCode;

/// Limits and timeouts. The defaults suit many idle clients on a small host.
///
/// ```
/// use std::time::Duration;
///
/// use h_realtime_engine::Config;
///
/// let config = Config::default()
///     .max_message(1 << 20)
///     .ping_interval(Duration::from_secs(60));
/// assert_eq!(config.max_message, 1 << 20);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Maximum connections, in any phase. A connection over the limit replaces the HTTP connection
    /// that has been idle longest; if there is none, it is answered with 503.
    pub max_connections: usize,
    /// A listener that does not share the connection limits of the others, so that operators can
    /// connect when the server is full. It has a limit of its own, `max_reserved`.
    pub reserved_listener: Option<ListenerId>,
    /// Maximum connections of the reserved listener. If it is reached, idle and incomplete
    /// connections are evicted to make room: see
    /// [`Cx::mark_authenticated`](crate::Cx::mark_authenticated).
    pub max_reserved: usize,
    /// Maximum connections from one IP address, or from one IPv6 network of `ipv6_prefix` bits;
    /// `None` is unlimited. Loopback addresses, Unix sockets, and `trusted_proxies` are exempt.
    pub max_per_ip: Option<u32>,
    /// Prefix length that identifies a client's IPv6 network, from 1 to 128 bits: `max_per_ip`
    /// counts all addresses with the same prefix as one.
    pub ipv6_prefix: u8,
    /// Trusted proxies. Client addresses reported by other peers are ignored.
    pub trusted_proxies: Proxies,
    /// The header field in which proxies report the client's address.
    pub forwarded_by: ForwardedBy,
    /// Maximum length of a request head, in bytes.
    pub max_head: usize,
    /// Maximum length of a message from a client, in bytes.
    pub max_message: usize,
    /// Maximum fragments of a message.
    pub max_fragments: u32,
    /// Whether to accept compression (permessage-deflate, RFC 7692) if a client offers it. Has no
    /// effect in builds without the feature `deflate`.
    pub deflate: bool,
    /// Timeout from accept to the end of the request head, including the TLS handshake. It starts
    /// anew for each further request on the connection.
    pub handshake_timeout: Duration,
    /// Timeout from the end of a request head to the end of the request body.
    pub body_timeout: Duration,
    /// Timeout from the first byte of a message to its last, regardless of frames in between.
    pub message_timeout: Duration,
    /// How long a deferred handshake waits for its response.
    pub defer_timeout: Duration,
    /// How long any other deferred request waits for its response.
    pub respond_timeout: Duration,
    /// Timeout from our close frame to the end of the connection.
    pub close_timeout: Duration,
    /// The close code with which a shutdown closes connections. Not 1001 by default: some clients
    /// treat it like 1000 and do not reconnect.
    pub restart_code: CloseCode,
    /// The close reason of a shutdown, at most 123 bytes.
    pub restart_reason: &'static str,
    /// How long input is read and discarded after our last output. Closing a socket with unread
    /// input makes the kernel reset the connection, and the reset can destroy output in flight.
    pub linger_timeout: Duration,
    /// Approximate idle time after which a ping is sent.
    pub ping_interval: Duration,
    /// Timeout for any activity after a ping, before the connection is dropped. It is extended by
    /// one second for each KiB of output that may be queued ahead of the ping, by at most five
    /// minutes.
    pub pong_timeout: Duration,
    /// Output queue length in bytes that a connection may exceed for at most `slow_timeout`. Output
    /// already accepted by the kernel does not count. Above this limit, the connection is not read
    /// from (backpressure).
    pub queue_soft: usize,
    /// See `queue_soft`.
    pub slow_timeout: Duration,
    /// Maximum output queue length in bytes of a connection that does not keep pace, that is, while
    /// the message at the front of its queue is older than one second. Output for this connection
    /// alone (replies) may never exceed it. A single message always fits an empty queue.
    pub queue_hard: usize,
    /// Maximum memory for the output of all connections ([`Ledger::output`]), in bytes. From half of
    /// it on, connections that do not keep pace are closed, those with the most private output
    /// first.
    ///
    /// [`Ledger::output`]: crate::Ledger::output
    pub queue_total: usize,
    /// Maximum memory for incomplete and unprocessed input of all connections, in bytes. Above it,
    /// connections that do not send at a reasonable pace are dropped first, then those with the
    /// oldest input.
    pub unfinished_total: usize,
}

/// New settings for a running reactor: see [`Mailbox::reload`](crate::Mailbox::reload).
#[derive(Clone, Debug)]
pub struct Reload {
    /// The new limits and timeouts, which also apply to existing connections. A lowered limit
    /// closes no connection by itself: it applies to new input, output, and connections. Deadlines
    /// for queues, messages, and pings follow the new timeouts. Other running deadlines are
    /// shortened to the new timeout counted from the reload, and never extended. The reserved
    /// listener cannot be changed.
    pub config: Config,
    /// The certificate for new handshakes on all TLS listeners; `None` keeps the current one.
    pub tls: Option<TlsConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_connections: 10_000,
            reserved_listener: None,
            max_reserved: RESERVED_CONNECTIONS,
            max_per_ip: None,
            ipv6_prefix: 64,
            trusted_proxies: Proxies::default(),
            forwarded_by: ForwardedBy::default(),
            max_head: 16 * 1024,
            max_message: 64 * 1024,
            max_fragments: 1024,
            deflate: true,
            handshake_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(10),
            defer_timeout: Duration::from_secs(10),
            respond_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            restart_code: CloseCode::SERVICE_RESTART,
            restart_reason: "service restart",
            linger_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(20),
            queue_soft: 64 * 1024,
            slow_timeout: Duration::from_secs(10),
            queue_hard: 256 * 1024,
            queue_total: 64 * 1024 * 1024,
            unfinished_total: 64 * 1024 * 1024,
        }
    }
}

/// Defines a method for each setting, which sets it.
macro_rules! setters {
    ($($name:ident: $type:ty,)*) => {
        impl Config {
            $(
                #[doc = concat!("Sets [`Config::", stringify!($name), "`](Config#structfield.", stringify!($name), ").")]
                #[must_use]
                pub fn $name(mut self, value: $type) -> Self {
                    self.$name = value;
                    self
                }
            )*
        }
    };
}

setters! {
    max_connections: usize,
    reserved_listener: Option<ListenerId>,
    max_reserved: usize,
    max_per_ip: Option<u32>,
    ipv6_prefix: u8,
    trusted_proxies: Proxies,
    forwarded_by: ForwardedBy,
    max_head: usize,
    max_message: usize,
    max_fragments: u32,
    deflate: bool,
    handshake_timeout: Duration,
    body_timeout: Duration,
    message_timeout: Duration,
    defer_timeout: Duration,
    respond_timeout: Duration,
    close_timeout: Duration,
    restart_code: CloseCode,
    restart_reason: &'static str,
    linger_timeout: Duration,
    ping_interval: Duration,
    pong_timeout: Duration,
    queue_soft: usize,
    slow_timeout: Duration,
    queue_hard: usize,
    queue_total: usize,
    unfinished_total: usize,
}

/// The default and recommended maximum of [`Config::max_reserved`]: enough for a publisher's pool
/// of 100 connections, for monitoring, and for as many connections as are accepted in two turns.
pub const RESERVED_CONNECTIONS: usize = 256;

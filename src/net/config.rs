//! The engine's limits and deadlines, all in one place.

use std::time::Duration;

use crate::http::{ForwardedBy, Proxies};

use super::ListenerId;
use super::tls::TlsConfig;

/// What the engine allows and how long it waits. The defaults suit many idle clients on a
/// small host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections at once, in any phase. One more takes the place of the HTTP connection that
    /// has been idle longest, or is told 503 if there is none.
    pub max_connections: usize,
    /// A listener whose connections are counted apart: the limits on connections are for
    /// others, so that the operator gets in when nobody else does. It has places of its own,
    /// `max_reserved`.
    pub reserved_listener: Option<ListenerId>,
    /// Connections at once of the reserved listener. Idle and incomplete ones are ended when
    /// another client connects: see [`Cx::mark_authenticated`](super::Cx::mark_authenticated).
    pub max_reserved: usize,
    /// Connections at once from one IP address, or one IPv6 network of `ipv6_prefix`; `None` is
    /// no limit. Loopback addresses, unix sockets and `trusted_proxies` are never counted.
    pub max_per_ip: Option<u32>,
    /// How many bits of an IPv6 address tell one client from another, 1 to 128: `max_per_ip`
    /// counts all addresses that have them in common as one.
    pub ipv6_prefix: u8,
    /// Proxies in front: what they say of a client's address is believed, and what anybody else
    /// says is not.
    pub trusted_proxies: Proxies,
    /// In which header field they say it.
    pub forwarded_by: ForwardedBy,
    /// The longest request head, in bytes.
    pub max_head: usize,
    /// The longest message from a client, in bytes.
    pub max_message: usize,
    /// The most fragments of one message.
    pub max_fragments: u32,
    /// Whether messages may be compressed (permessage-deflate, RFC 7692), with clients that
    /// offer it. Not in a build without the feature `deflate`.
    pub deflate: bool,
    /// From accept to the end of the request head, TLS included; then anew for each further
    /// request of a connection.
    pub handshake_timeout: Duration,
    /// From the end of a request head to the end of its body.
    pub body_timeout: Duration,
    /// From the first byte of a message to its last, whatever comes in between.
    pub message_timeout: Duration,
    /// How long a deferred handshake waits for its answer.
    pub defer_timeout: Duration,
    /// How long any other deferred request waits for its answer.
    pub respond_timeout: Duration,
    /// From our close frame to the end of the connection.
    pub close_timeout: Duration,
    /// How long what a peer still sends is read and dropped, so that the kernel does not
    /// reset the connection under our last words.
    pub linger_timeout: Duration,
    /// A connection that has been silent for about this long is sent a ping.
    pub ping_interval: Duration,
    /// A connection that shows no sign of life for this long after a ping is cut; later by a
    /// second for each KiB of output that may be ahead of the ping, five minutes at most.
    pub pong_timeout: Duration,
    /// Bytes a connection may have waiting in its output queue for at most `slow_timeout`; output
    /// that the kernel has accepted is not in it. Above it, nothing is read from the connection
    /// either.
    pub queue_soft: usize,
    /// See `queue_soft`.
    pub slow_timeout: Duration,
    /// Bytes a connection may have waiting while it does not keep pace: while the message at the
    /// front of its queue has waited for over a second. Its own output (replies) may never be
    /// longer. One message always fits an empty queue.
    pub queue_hard: usize,
    /// Bytes of memory for the output of all connections together ([`Held::output`]); from half of
    /// it on, connections that do not keep pace are closed, those with the most of their own first.
    ///
    /// [`Held::output`]: super::Held::output
    pub queue_total: usize,
    /// Bytes of memory for incomplete and unprocessed input of all connections together; beyond,
    /// connections that do not send at a reasonable pace are given up first, then those with the
    /// oldest input.
    pub unfinished_total: usize,
}

/// What a reactor that runs can be given anew: see [`Mailbox::reload`](super::Mailbox::reload).
#[derive(Clone, Debug)]
pub struct Reload {
    /// The limits and deadlines from now on, for those who are connected, too. A limit that has
    /// become lower cuts nobody by itself: it counts when more comes. Deadlines of queues, messages
    /// and pings are those from now on. Other deadlines that run already are no later than the new
    /// timeout counted from the reload; none of them is put off. Which listener is reserved stays.
    pub config: Config,
    /// The certificate for the handshakes from now on, on all listeners with TLS; `None` leaves
    /// it as it is.
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

/// The default and recommended maximum of [`Config::max_reserved`]: enough for a
/// publisher's pool of 100 connections, for monitors, and for as many other connections as are
/// accepted in two turns.
pub const RESERVED_CONNECTIONS: usize = 256;

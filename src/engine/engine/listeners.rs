//! Listeners: when to accept from them, and their part in a shutdown.
//!
//! Owns: which listeners may have connections to accept, the retry after a failure, and the order
//! in which a shutdown closes them.

use std::io;
use std::time::Duration;

use super::turn::Io;
use super::{Engine, millis};
use crate::ListenerId;
use crate::config::Reload;
use crate::handler::Handler;
use crate::io::listener::{SocketOwnership, concerns_one_connection};
use crate::io::socket::Socket;
use crate::io::tls::TlsConfig;
use crate::log_throttle::LogThrottle;

/// The properties of a listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerOptions {
    /// Whether other processes listen on the same socket or port.
    pub ownership: SocketOwnership,
    /// Connections must start with a PROXY protocol header.
    pub expects_proxy_header: bool,
    /// Connections have limits of their own, and are served until the end of a shutdown: see
    /// [`Config::reserved_listener`](crate::Config::reserved_listener).
    pub is_reserved: bool,
    /// The TLS configuration, on TLS listeners.
    pub tls: Option<TlsConfig>,
}

/// All listeners.
pub(super) struct Listeners {
    /// Indexed by listener ID; `None` once closed.
    list: Vec<Option<Listener>>,
    /// Any listener may have connections to accept.
    has_pending: bool,
    /// When to retry `accept` after a failure for lack of descriptors.
    pub(super) retry_at: Option<u64>,
    /// Accept failures that have not been logged yet.
    failures: LogThrottle,
    latest_failure: String,
    /// A shutdown requested by the handler.
    pub(super) requested: Option<Duration>,
    /// A shutdown that waits for TCP handshakes in progress.
    handover: Option<Handover>,
}

struct Listener {
    options: ListenerOptions,
    /// There may be connections to accept: set by an event, cleared by `WouldBlock`.
    is_pending: bool,
}

/// A shutdown with a delayed start: the time until which connections are accepted, and the period
/// of the shutdown.
#[derive(Clone, Copy)]
struct Handover {
    until: u64,
    over: Duration,
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners {
            list: Vec::new(),
            has_pending: false,
            retry_at: None,
            failures: LogThrottle::every(LOG_EVERY),
            latest_failure: String::new(),
            requested: None,
            handover: None,
        }
    }
}

impl Listeners {
    /// Returns the options of an open listener.
    pub(super) fn get(&self, id: ListenerId) -> Option<&ListenerOptions> {
        let listener = self.list.get(usize::from(id.0))?.as_ref()?;
        Some(&listener.options)
    }

    /// Records that a listener has connections to accept.
    pub(super) fn mark_pending(&mut self, id: ListenerId) {
        if let Some(Some(listener)) = self.list.get_mut(usize::from(id.0)) {
            listener.is_pending = true;
            self.has_pending = true;
        }
    }

    /// Returns the milliseconds until connections may be accepted or a handover ends.
    pub(super) fn wait(&self, now: u64) -> u64 {
        let accept = match self.has_pending {
            true => self.retry_at.map_or(0, |at| at.saturating_sub(now)),
            false => u64::MAX,
        };
        let handover = self.handover.map_or(u64::MAX, |handover| handover.until);
        accept.min(handover.saturating_sub(now))
    }

    fn ids(&self) -> impl Iterator<Item = ListenerId> + use<> {
        (0..self.list.len()).map(|number| ListenerId(number as u8))
    }

    fn log_failures(&self, due: Option<u64>) {
        if let Some(count) = due {
            log::warn!(
                "no connection can be accepted: {}; {count} failures since the last such line",
                self.latest_failure
            );
        }
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Adds a listener, from which connections are accepted from the next turn on. The returned ID
    /// identifies its connections: 0 for the first listener, 1 for the second, and so on. Returns
    /// `None` if there are 256 listeners already.
    pub fn add_listener(&mut self, options: ListenerOptions) -> Option<ListenerId> {
        let id = u8::try_from(self.listeners.list.len()).ok()?;
        if options.is_reserved {
            self.config.reserved_listener = Some(ListenerId(id));
        }
        self.listeners.list.push(Some(Listener {
            options,
            is_pending: true,
        }));
        self.listeners.has_pending = true;
        Some(ListenerId(id))
    }

    /// Accepts connections from all listeners, a limited number from each.
    #[inline]
    pub(super) fn accept_pending(&mut self, io: &mut impl Io<Socket = S>) {
        if self.listeners.has_pending {
            self.accept_all(io);
        }
    }

    #[inline(never)]
    fn accept_all(&mut self, io: &mut impl Io<Socket = S>) {
        if self.listeners.retry_at.is_some_and(|at| self.now.mono < at) {
            return;
        }
        self.listeners.retry_at = None;
        for id in self.listeners.ids() {
            if let Err(error) = self.accept_from(id, ACCEPT_BUDGET, io) {
                return self.accept_failed(&error);
            }
        }
        let mut open = self.listeners.list.iter().flatten();
        self.listeners.has_pending = open.any(|listener| listener.is_pending);
    }

    /// Accepts at most `most` connections.
    fn accept_from(
        &mut self,
        id: ListenerId,
        most: usize,
        io: &mut impl Io<Socket = S>,
    ) -> io::Result<()> {
        for _ in 0..most {
            let Some(listener) = &mut self.listeners.list[usize::from(id.0)] else {
                break;
            };
            if !listener.is_pending {
                break;
            }
            match io.accept(id) {
                Ok((socket, peer)) => self.accept(id, socket, peer, io)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.is_pending = false;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Handles a lack of descriptors or memory. Connections left in the backlog cause no new event,
    /// so accepting is retried when a connection has ended, or after a delay.
    fn accept_failed(&mut self, error: &io::Error) {
        self.counters.accept_failures += 1;
        self.listeners.retry_at = Some(self.now.mono + ACCEPT_RETRY);
        let due = self.listeners.failures.count(1, self.now.mono);
        self.listeners.latest_failure = error.to_string();
        self.listeners.log_failures(due);
    }

    /// Logs accept failures that were suppressed, when they are due.
    #[inline]
    pub(super) fn flush_accept_log(&self) {
        let due = self.listeners.failures.poll(self.now.mono);
        self.listeners.log_failures(due);
    }

    /// Applies a reload: see [`Reload`].
    pub(super) fn reload(&mut self, reload: Reload) {
        self.reconfigure(reload.config);
        let Some(tls) = reload.tls else { return };
        for listener in self.listeners.list.iter_mut().flatten() {
            if let Some(config) = &mut listener.options.tls {
                *config = tls.clone();
            }
        }
    }

    /// Begins a shutdown: stops listening, except on the reserved listener. Connections in the
    /// accept queues are accepted, and closed like all others. A socket on a port shared with other
    /// processes is closed only when no handshake with it is in progress.
    pub(super) fn begin_shutdown(&mut self, over: Duration, io: &mut impl Io<Socket = S>) {
        let mut until = self.now.mono;
        for id in self.listeners.ids() {
            let Some(options) = self.listeners.get(id) else {
                continue;
            };
            if self.is_reserved(id) {
                continue;
            }
            if options.ownership != SocketOwnership::ReusePort {
                self.leave(id, io);
                continue;
            }
            if let Err(error) = io.drop_new_syns(id) {
                log::debug!(
                    "cannot drop new SYNs on a shared port; clients that connect now may be reset: {error}"
                );
            }
            until = self.now.mono + millis(HANDOVER_GRACE);
        }
        self.listeners.handover = Some(Handover { until, over });
    }

    /// Returns whether a shutdown has begun.
    pub(super) fn is_shutting_down(&self) -> bool {
        self.listeners.handover.is_some() || self.drain.is_some()
    }

    /// Returns whether a shutdown is complete.
    pub(super) fn has_shut_down(&self) -> bool {
        self.is_drained() && self.listeners.list.iter().all(Option::is_none)
    }

    /// Begins the drain once the grace period for TCP handshakes is over.
    pub(super) fn serve_handover(&mut self, io: &mut impl Io<Socket = S>) {
        let Some(handover) = self.listeners.handover else {
            return;
        };
        if self.now.mono < handover.until {
            return;
        }
        for id in self.listeners.ids() {
            if !self.is_reserved(id) {
                self.stop_listening(id, io);
            }
        }
        self.listeners.handover = None;
        self.begin_drain(handover.over);
    }

    /// Once all other connections have ended, closes the reserved listener and starts to close its
    /// connections.
    pub(super) fn serve_reserved(&mut self, io: &mut impl Io<Socket = S>) {
        if self.is_public_drained() {
            for id in self.listeners.ids() {
                self.leave(id, io);
            }
            self.finish_drain();
        }
    }

    /// Stops listening. Connections in the accept queue of a socket shared with other processes are
    /// left to them.
    fn leave(&mut self, id: ListenerId, io: &mut impl Io<Socket = S>) {
        match self.listeners.get(id).map(|options| options.ownership) {
            Some(SocketOwnership::Inherited) => self.close_listener(id, io),
            Some(SocketOwnership::Owned | SocketOwnership::ReusePort) => {
                self.stop_listening(id, io);
            }
            None => {}
        }
    }

    /// Accepts the connections in the accept queue, which would otherwise be lost, and closes the
    /// socket.
    fn stop_listening(&mut self, id: ListenerId, io: &mut impl Io<Socket = S>) {
        self.listeners.mark_pending(id);
        if let Err(error) = self.accept_from(id, MOST_WAITING, io) {
            log::warn!("cannot accept connections left in the accept queue: {error}");
        }
        self.close_listener(id, io);
    }

    fn close_listener(&mut self, id: ListenerId, io: &mut impl Io<Socket = S>) {
        if self.listeners.list[usize::from(id.0)].take().is_some() {
            io.close_listener(id);
        }
    }
}

/// Connections accepted per turn and listener.
const ACCEPT_BUDGET: usize = 64;
/// Connections accepted before a listening socket is closed: more than its accept queue holds.
const MOST_WAITING: usize = 4096;
/// Grace period for TCP handshakes in progress on a port shared with other processes. It is shorter
/// than the initial retransmission timeout of one second (RFC 6298 §2).
const HANDOVER_GRACE: Duration = Duration::from_millis(500);
/// Milliseconds after which a failed `accept` is retried.
const ACCEPT_RETRY: u64 = 100;
/// The minimum interval between log lines on accept failures, in milliseconds.
const LOG_EVERY: u64 = 60_000;

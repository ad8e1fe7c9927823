//! The reactor: drives the engine with mio events, and defines the order of a turn.

use std::io;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::config::{Config, Reload};
use crate::engine::{Arrival, Engine, Readiness};
use crate::handler::Handler;
use crate::io::listener::{Listener, SocketOwnership, concerns_one_connection};
use crate::io::mailbox::{Inbox, Mail, Mailbox, mailbox};
use crate::io::stream::Stream;
use crate::log_throttle::LogThrottle;
use crate::{ConnKey, ListenerId, Now};

/// A single-threaded server for a [`Handler`].
pub struct Reactor<H: Handler> {
    // Before the poll, so that sockets are dropped first.
    engine: Engine<Stream, H>,
    /// Indexed by listener ID; `None` once closed.
    listeners: Vec<Option<Listener>>,
    poll: Poll,
    mailbox: Mailbox<H::Command>,
    inbox: Inbox<H::Command>,
    /// When to retry `accept` after a failure for lack of descriptors.
    retry_accept: Option<Instant>,
    accept_failures: AcceptFailures,
    /// A shutdown that waits for TCP handshakes in progress.
    handover: Option<Handover>,
}

/// Accept failures that have not been logged yet.
struct AcceptFailures {
    throttle: LogThrottle,
    latest: String,
}

impl Default for AcceptFailures {
    fn default() -> Self {
        AcceptFailures {
            throttle: LogThrottle::every(LOG_EVERY),
            latest: String::new(),
        }
    }
}

impl AcceptFailures {
    fn log(&self, due: Option<u64>) {
        if let Some(count) = due {
            log::warn!(
                "no connection can be accepted: {}; {count} failures since the last such line",
                self.latest
            );
        }
    }
}

/// A shutdown with a delayed start: the time until which connections are accepted, and the period
/// of the shutdown.
#[derive(Clone, Copy)]
struct Handover {
    until: Instant,
    over: Duration,
}

impl<H: Handler> Reactor<H> {
    /// Creates a reactor without listeners. `seed` randomizes heartbeats; it need not be secret.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn new(config: Config, handler: H, seed: u64) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (mailbox, inbox) = mailbox(MAILBOX_SIZE, waker);
        Ok(Reactor {
            engine: Engine::new(config, handler, seed, clocks(Instant::now())),
            listeners: Vec::new(),
            poll,
            mailbox,
            inbox,
            retry_accept: None,
            accept_failures: AcceptFailures::default(),
            handover: None,
        })
    }

    /// Adds a listener. The returned ID identifies its connections: 0 for the first listener, 1 for
    /// the second, and so on.
    ///
    /// # Errors
    /// If there are 256 listeners already, or if the socket cannot be registered with the poller.
    pub fn listen(&mut self, mut listener: Listener) -> io::Result<ListenerId> {
        let id = u8::try_from(self.listeners.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too many listeners"))?;
        let token = Token(FIRST_LISTENER.0 + usize::from(id));
        listener.register(self.poll.registry(), token)?;
        self.listeners.push(Some(listener));
        Ok(ListenerId(id))
    }

    /// Returns a mailbox for other threads.
    pub fn mailbox(&self) -> Mailbox<H::Command> {
        self.mailbox.clone()
    }

    /// Serves until it is shut down through the mailbox.
    ///
    /// # Errors
    /// If the poller fails.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while self.turn(&mut events)? {}
        Ok(())
    }

    /// Waits for events, and runs one turn. Returns false after the last turn.
    fn turn(&mut self, events: &mut Events) -> io::Result<bool> {
        self.wait(events)?;
        let began = Instant::now();
        self.engine.begin_turn(clocks(began));
        for event in &*events {
            self.on_event(event);
        }
        if self.serve_mail() || self.has_ended() {
            return Ok(false);
        }
        self.serve_handover();
        self.finish_shutdown();
        let due = self.accept_failures.throttle.poll(since_start(began));
        self.accept_failures.log(due);
        self.engine.serve();
        self.accept();
        if self.engine.reap() {
            // Descriptors have been freed.
            self.retry_accept = None;
        }
        self.engine.end_turn(began.elapsed());
        Ok(true)
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let may_take_mail = self.inbox.pending && self.engine.wants_commands();
        let may_accept =
            self.retry_accept.is_none() && self.listeners.iter().flatten().any(|l| l.pending);
        let timeout = match self.retry_accept {
            _ if may_take_mail || may_accept => Duration::ZERO,
            Some(at) => (at.saturating_duration_since(Instant::now())).min(self.engine.timeout()),
            None => self.engine.timeout(),
        };
        let timeout = match self.handover {
            Some(call) => timeout.min(call.until.saturating_duration_since(Instant::now())),
            None => timeout,
        };
        // Rounded up, to avoid spinning for the last fraction of a millisecond.
        let timeout = Duration::from_millis(timeout.as_micros().div_ceil(1000) as u64);
        match self.poll.poll(events, Some(timeout.min(MAX_WAIT))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    fn on_event(&mut self, event: &Event) {
        let token = event.token();
        if let Some(key) = ConnKey::from_u64(token.0 as u64) {
            let readiness = Readiness {
                readable: event.is_readable() || event.is_error(),
                writable: event.is_writable(),
                read_closed: event.is_read_closed() || event.is_error(),
            };
            self.engine.ready(key, readiness);
        } else if let Some(listener) = token
            .0
            .checked_sub(FIRST_LISTENER.0)
            .and_then(|number| self.listeners.get_mut(number)?.as_mut())
        {
            listener.pending = true;
        }
    }

    /// Handles messages in the mailbox. Returns true if the reactor must end immediately.
    fn serve_mail(&mut self) -> bool {
        self.inbox.clear_wake_flag();
        for _ in 0..MAIL_BUDGET {
            if !self.inbox.pending || !self.engine.wants_commands() {
                break;
            }
            match self.inbox.take() {
                Some(Mail::Command(command)) => self.engine.command(command),
                Some(Mail::Shutdown(over)) => match self.is_ending() {
                    true => return true,
                    false => self.begin_shutdown(over),
                },
                Some(Mail::Reload(reload)) => self.reload(*reload),
                None => break,
            }
        }
        false
    }

    fn reload(&mut self, reload: Reload) {
        self.engine.reconfigure(reload.config);
        let Some(tls) = reload.tls else { return };
        for listener in self.listeners.iter_mut().flatten() {
            if let Some(config) = &mut listener.tls {
                *config = tls.clone();
            }
        }
    }

    /// Stops listening, except on the reserved listener. Connections in the accept queues are
    /// accepted, and closed like all others. A socket on a port shared with other processes is
    /// closed only when no handshake with it is in progress.
    fn begin_shutdown(&mut self, over: Duration) {
        let mut until = Instant::now();
        for number in 0..self.listeners.len() {
            let Some(listener) = &self.listeners[number] else {
                continue;
            };
            if self.engine.is_reserved(ListenerId(number as u8)) {
                continue;
            }
            if listener.ownership() != SocketOwnership::Shared {
                self.leave(number);
                continue;
            }
            if let Err(error) = listener.drop_new_syns() {
                log::debug!(
                    "cannot drop new SYNs on a shared port; clients that connect now may be reset: {error}"
                );
            }
            until = Instant::now() + HANDOVER_GRACE;
        }
        self.handover = Some(Handover { until, over });
    }

    /// Stops listening. Connections in the accept queue of a socket shared with other processes are
    /// left to them.
    fn leave(&mut self, number: usize) {
        let listener = self.listeners[number].as_ref();
        match listener.map(Listener::ownership) {
            Some(SocketOwnership::Lent) | None => self.listeners[number] = None,
            Some(SocketOwnership::Own | SocketOwnership::Shared) => self.stop_listening(number),
        }
    }

    /// Once all other connections have ended, closes the reserved listener and starts to close its
    /// connections.
    fn finish_shutdown(&mut self) {
        if self.engine.is_public_drained() {
            for number in 0..self.listeners.len() {
                self.leave(number);
            }
            self.engine.finish_drain();
        }
    }

    /// Returns whether the shutdown is complete.
    fn has_ended(&self) -> bool {
        self.engine.is_drained() && self.listeners.iter().all(Option::is_none)
    }

    /// Begins the drain once the grace period for TCP handshakes is over.
    fn serve_handover(&mut self) {
        let Some(call) = self.handover.filter(|call| Instant::now() >= call.until) else {
            return;
        };
        for number in 0..self.listeners.len() {
            if !self.engine.is_reserved(ListenerId(number as u8)) {
                self.stop_listening(number);
            }
        }
        self.handover = None;
        self.engine.begin_drain(call.over);
    }

    fn is_ending(&self) -> bool {
        self.handover.is_some() || self.engine.is_draining()
    }

    /// Accepts the connections in the accept queue, which would otherwise be lost, and closes the
    /// socket.
    fn stop_listening(&mut self, number: usize) {
        if let Some(listener) = &mut self.listeners[number] {
            listener.pending = true;
            if let Err(error) = self.accept_from(number, MOST_WAITING) {
                log::warn!("cannot accept connections left in the accept queue: {error}");
            }
        }
        self.listeners[number] = None;
    }

    fn accept(&mut self) {
        if self.retry_accept.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_accept = None;
        for number in 0..self.listeners.len() {
            if let Err(error) = self.accept_from(number, ACCEPT_BUDGET) {
                return self.accept_failed(&error);
            }
        }
    }

    /// Accepts at most `most` connections.
    fn accept_from(&mut self, number: usize, most: usize) -> io::Result<()> {
        for _ in 0..most {
            let Some(listener) = &mut self.listeners[number] else {
                break;
            };
            if !listener.pending {
                break;
            }
            match listener.accept() {
                Ok(stream) => {
                    let arrival = Arrival {
                        listener: ListenerId(number as u8),
                        peer: stream.peer_ip(),
                        expects_proxy_header: listener.expects_proxy_header,
                        tls: listener.tls.clone(),
                        socket: stream,
                    };
                    self.admit(arrival)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.pending = false;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn admit(&mut self, arrival: Arrival<Stream>) -> io::Result<()> {
        let Some(key) = self.engine.accept(arrival) else {
            return Ok(());
        };
        let Some(stream) = self.engine.socket_mut(key) else {
            return Ok(());
        };
        let token = Token(key.to_u64() as usize);
        let registered = stream.register(self.poll.registry(), token);
        registered.inspect_err(|_| self.engine.abandon(key))
    }

    /// Handles a lack of descriptors or memory. Connections left in the backlog cause no new edge,
    /// so accepting is retried when a connection has ended, or after a delay.
    fn accept_failed(&mut self, error: &io::Error) {
        self.engine.count_accept_failure();
        let now = Instant::now();
        self.retry_accept = Some(now + ACCEPT_RETRY);
        let due = self.accept_failures.throttle.count(1, since_start(now));
        self.accept_failures.latest = error.to_string();
        self.accept_failures.log(due);
    }
}

/// Returns the time in milliseconds on the clock of [`Now::mono`], for timestamps taken by other
/// threads. The clock is monotonic and shared by all reactors of the process.
pub fn monotonic() -> u64 {
    since_start(Instant::now())
}

fn since_start(now: Instant) -> u64 {
    now.saturating_duration_since(*START).as_millis() as u64
}

/// Returns both clocks for a turn that starts at `now`, the current time.
fn clocks(now: Instant) -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        mono: since_start(now),
        unix: unix.map_or(0, |since| since.as_millis() as u64),
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Events fetched from the kernel per poll.
const EVENTS: usize = 1024;
/// Commands handled per turn.
const MAIL_BUDGET: usize = 64;
/// Messages that fit the mailbox before senders block.
const MAILBOX_SIZE: usize = 1024;
/// Connections accepted per turn and listener.
const ACCEPT_BUDGET: usize = 64;
/// Connections accepted before a listening socket is closed: more than its accept queue holds.
const MOST_WAITING: usize = 4096;
/// Grace period for TCP handshakes in progress on a port shared with other processes. It is shorter
/// than the initial retransmission timeout of one second (RFC 6298 §2).
const HANDOVER_GRACE: Duration = Duration::from_millis(500);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The minimum interval between log lines on accept failures, in milliseconds.
const LOG_EVERY: u64 = 60_000;
/// Far below the maximum timeout of the poller.
const MAX_WAIT: Duration = Duration::from_secs(60);
const WAKER: Token = Token(0);
const FIRST_LISTENER: Token = Token(1);

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::http::{Request, Response};
    use crate::{Address, ConnCx, Cx, Message, RequestCx, Verdict};

    struct Silent;

    impl Handler for Silent {
        type Session = ();
        type Command = ();

        fn on_request(&mut self, _: &mut RequestCx<'_, ()>, _: &Request<'_>) -> Verdict {
            Verdict::Respond(Response::new(404, "text/plain", &b""[..]))
        }

        fn on_message(&mut self, _: &mut ConnCx<'_, ()>, _: Message<'_>) {}

        fn on_command(&mut self, _: &mut Cx<'_, ()>, (): ()) {}
    }

    // A4
    #[test]
    fn a_turn_accepts_a_limited_number_of_connections() {
        const COUNT: usize = 150;
        let mut reactor = Reactor::new(Config::default(), Silent, 1).unwrap();
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::open(&any, None).unwrap();
        let Ok(Address::Tcp(address)) = listener.address() else {
            panic!("not a TCP listener");
        };
        reactor.listen(listener).unwrap();
        let clients: Vec<_> = (0..COUNT).map(|_| TcpStream::connect(address)).collect();
        assert!(clients.iter().all(Result::is_ok));
        let mut events = Events::with_capacity(EVENTS);
        // No further edge is needed for the connections left in the backlog.
        for turn in 1..=COUNT.div_ceil(64) {
            assert!(reactor.turn(&mut events).unwrap());
            let accepted = reactor.engine.counters().accepted;
            assert_eq!(accepted, COUNT.min(64 * turn) as u64);
        }
    }
}

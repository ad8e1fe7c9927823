//! The reactor: polls sockets with mio, and translates events for the engine.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use crate::config::Config;
use crate::engine::{Engine, Io, IoEvent, Readiness};
use crate::handler::Handler;
use crate::io::alarm::Alarm;
use crate::io::listener::Listener;
use crate::io::mailbox::{Inbox, Mail, Mailbox, mailbox};
use crate::io::nofile::reserve_descriptors;
use crate::io::stream::Stream;
use crate::{ConnKey, ListenerId, Now};

/// A single-threaded server for a [`Handler`].
pub struct Reactor<H: Handler> {
    // Before the poll, so that sockets are dropped first.
    engine: Engine<Stream, H>,
    io: PollIo<H::Command>,
    mailbox: Mailbox<H::Command>,
    /// How long to wait for events before the next turn.
    wait: Duration,
}

/// The poller, and everything that it polls except connections.
struct PollIo<C> {
    /// Indexed by listener ID; `None` once closed.
    listeners: Vec<Option<Listener>>,
    inbox: Inbox<C>,
    poll: Poll,
    alarm: Alarm,
    clocks: Clocks,
    /// When the turn began.
    began: Instant,
}

/// Both clocks. The wall clock is read only once in a while: it advances like the monotonic one
/// unless it is set.
#[derive(Default)]
struct Clocks {
    /// Milliseconds from the monotonic clock to the wall clock.
    offset: u64,
    /// When the wall clock is to be read again, on the monotonic clock.
    read_again: u64,
}

impl<H: Handler> Reactor<H> {
    /// Creates a reactor without listeners.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn new(config: Config, handler: H) -> io::Result<Self> {
        // The keys of a hash map are random, and need not be secret here.
        let seed = RandomState::new().hash_one(0);
        Self::with_seed(config, handler, seed)
    }

    /// Like [`Reactor::new`], with a seed for the times of heartbeats.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn with_seed(config: Config, handler: H, seed: u64) -> io::Result<Self> {
        reserve_descriptors(config.max_connections);
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (mailbox, inbox) = mailbox(MAILBOX_SIZE, waker);
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let began = Instant::now();
        let mut clocks = Clocks::default();
        Ok(Reactor {
            engine: Engine::new(config, handler, seed, clocks.at(began)),
            io: PollIo {
                listeners: Vec::new(),
                inbox,
                poll,
                alarm,
                clocks,
                began,
            },
            mailbox,
            wait: Duration::ZERO,
        })
    }

    /// Adds a listener. The returned ID identifies its connections: 0 for the first listener, 1 for
    /// the second, and so on.
    ///
    /// # Errors
    /// If there are 256 listeners already, or if the socket cannot be registered with the poller.
    pub fn listen(&mut self, mut listener: Listener) -> io::Result<ListenerId> {
        let number = self.io.listeners.len();
        listener.register(self.io.poll.registry(), Token(FIRST_LISTENER.0 + number))?;
        let id = self.engine.add_listener(listener.options().clone());
        let id =
            id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many listeners"))?;
        self.io.listeners.push(Some(listener));
        Ok(id)
    }

    /// Returns a mailbox for other threads.
    pub fn mailbox(&self) -> Mailbox<H::Command> {
        self.mailbox.clone()
    }

    /// Serves until it is shut down through the mailbox or by [`Cx::shut_down`](crate::Cx::shut_down).
    ///
    /// # Errors
    /// If the poller fails.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while self.turn(&mut events)? {}
        Ok(())
    }

    /// Waits for events, but no longer than `timeout`, and serves them, for a caller with a loop of
    /// its own. Returns false once the reactor has been shut down.
    ///
    /// # Errors
    /// If the poller fails.
    pub fn poll_once(&mut self, timeout: Duration) -> io::Result<bool> {
        self.wait = self.wait.min(timeout);
        self.turn(&mut Events::with_capacity(EVENTS))
    }

    /// Waits for events, and runs one turn. Returns false after the last turn.
    fn turn(&mut self, events: &mut Events) -> io::Result<bool> {
        self.poll(events)?;
        let now = Instant::now();
        self.io.began = now;
        self.io.inbox.clear_wake_flag();
        let events = events.iter().filter_map(translate);
        let now = self.io.clocks.at(now);
        let wait = self.engine.turn(now, events, &mut self.io);
        self.wait = wait.unwrap_or_default();
        Ok(wait.is_some())
    }

    fn poll(&mut self, events: &mut Events) -> io::Result<()> {
        let began = since_start(self.io.began);
        let wait = self.wait.min(MAX_WAIT);
        let timeout = self.io.alarm.set(began, wait, monotonic);
        match self.io.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }
}

/// Translates an event of the poller. Returns `None` for the waker and the alarm, which only end the
/// wait.
fn translate(event: &Event) -> Option<IoEvent> {
    let token = event.token().0;
    if let Some(key) = ConnKey::from_u64(token as u64) {
        let readiness = Readiness {
            readable: event.is_readable() || event.is_error(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed() || event.is_error(),
        };
        return Some(IoEvent::Ready(key, readiness));
    }
    let number = token.checked_sub(FIRST_LISTENER.0)?;
    Some(IoEvent::Acceptable(ListenerId(number as u8)))
}

impl<C> Io for PollIo<C> {
    type Socket = Stream;
    type Command = C;

    fn next_mail(&mut self) -> Option<Mail<C>> {
        self.inbox.take()
    }

    fn accept(&mut self, listener: ListenerId) -> io::Result<(Stream, Option<IpAddr>)> {
        self.listener(listener)?.accept()
    }

    fn register(&mut self, socket: &mut Stream, key: ConnKey) -> io::Result<()> {
        socket.register(self.poll.registry(), Token(key.to_u64() as usize))
    }

    fn drop_new_syns(&mut self, listener: ListenerId) -> io::Result<()> {
        self.listener(listener)?.drop_new_syns()
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.listeners[usize::from(listener.0)] = None;
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl<C> PollIo<C> {
    fn listener(&self, id: ListenerId) -> io::Result<&Listener> {
        let listener = self.listeners.get(usize::from(id.0));
        listener
            .and_then(Option::as_ref)
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
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

impl Clocks {
    /// Returns both clocks for a turn that starts at `now`, the current time.
    fn at(&mut self, now: Instant) -> Now {
        let mono = since_start(now);
        if mono >= self.read_again {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let unix = unix.map_or(0, |since| since.as_millis() as u64);
            self.offset = unix.saturating_sub(mono);
            self.read_again = mono + WALL_CLOCK_AGE;
        }
        Now {
            mono,
            unix: self.offset + mono,
        }
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Events fetched from the kernel per poll.
const EVENTS: usize = 1024;
/// Messages that fit the mailbox before senders block.
const MAILBOX_SIZE: usize = 1024;
/// Far below the maximum timeout of the poller.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Milliseconds for which the difference of the clocks is used.
const WALL_CLOCK_AGE: u64 = 100;
const WAKER: Token = Token(0);
const ALARM: Token = Token(1);
const FIRST_LISTENER: Token = Token(2);

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

        fn on_command(&mut self, cx: &mut Cx<'_, ()>, (): ()) {
            cx.shut_down(Duration::ZERO);
        }
    }

    #[test]
    fn handler_shuts_down_a_reactor_in_a_loop_of_its_caller() {
        let mut reactor = Reactor::new(Config::default(), Silent).unwrap();
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::open(&any, None).unwrap().reserved();
        assert_eq!(reactor.listen(listener).unwrap(), ListenerId(0));
        assert!(reactor.engine.is_reserved(ListenerId(0)));
        assert!(reactor.poll_once(Duration::ZERO).unwrap());
        reactor.mailbox().send(()).unwrap();
        // One turn for the command, and the shutdown begins in the next one.
        let turns = (0..10).position(|_| !reactor.poll_once(Duration::ZERO).unwrap());
        assert!(turns.is_some_and(|turns| turns > 0), "{turns:?}");
    }

    // R10
    #[test]
    fn idle_reactor_wakes_at_its_deadline_and_no_earlier() {
        let mut reactor = Reactor::new(Config::default(), Silent).unwrap();
        let mut events = Events::with_capacity(EVENTS);
        assert!(reactor.turn(&mut events).unwrap());
        let next = since_start(reactor.io.began) + reactor.wait.as_millis() as u64;
        assert!(reactor.wait > Duration::ZERO);
        assert!(reactor.turn(&mut events).unwrap());
        let late = monotonic() - next;
        assert!(late < 10_000, "{late} ms");
        // Set again for an earlier time, and again after it has passed.
        for _ in 0..3 {
            let asked = Instant::now();
            reactor.io.began = asked;
            assert!(reactor.poll_once(Duration::from_millis(20)).unwrap());
            assert!(asked.elapsed() >= Duration::from_millis(20));
        }
    }

    // R10: the alarm counts from its start, and not from the beginning of the turn.
    #[cfg(target_os = "linux")]
    #[test]
    fn alarm_is_set_again_for_an_earlier_deadline_after_a_long_turn() {
        let poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), ALARM).unwrap();
        let mut began = monotonic();
        let wait = Duration::from_secs(100);
        assert_eq!(alarm.set(began, wait, || began + 80_000), None);
        let expiry = alarm.set_for();
        assert_eq!(expiry, Some(began + 180_000));
        // A turn 85 s later has the deadline that the first one had.
        began += 85_000;
        assert_eq!(alarm.set(began, Duration::from_secs(15), || began), None);
        assert_eq!(alarm.set_for(), expiry.map(|at| at - 80_000));
        // An alarm of this millisecond may have expired already.
        let began = began + 15_000;
        assert_eq!(alarm.set(began, Duration::from_millis(10), || began), None);
        assert_eq!(alarm.set_for(), Some(began + 10));
    }

    #[test]
    fn wall_clock_is_read_again_after_a_while() {
        let mut clocks = Clocks::default();
        let start = *START;
        let at = |millis| start + Duration::from_millis(millis);
        let first = clocks.at(at(5));
        let set_back = first.unix - 1_000_000;
        clocks.offset = set_back - 5;
        // A change of the wall clock takes effect late.
        let cached = clocks.at(at(4 + WALL_CLOCK_AGE));
        assert_eq!(cached.unix, set_back + WALL_CLOCK_AGE - 1);
        let again = clocks.at(at(5 + WALL_CLOCK_AGE));
        assert!(again.unix >= first.unix, "{again:?}");
    }

    // A4
    #[test]
    fn a_turn_accepts_a_limited_number_of_connections() {
        const COUNT: usize = 150;
        let mut reactor = Reactor::new(Config::default(), Silent).unwrap();
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

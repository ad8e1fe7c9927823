//! The environment of the engine in a simulation: listeners with their accept queues, the mailbox,
//! the descriptors of the process, and a poller that may refuse sockets.
//!
//! Owns: the only call of `Engine::turn` of all simulations.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use h_realtime_engine::{
    ConnKey, Engine, Handler, Io, IoEvent, ListenerId, ListenerOptions, Mail, Now, Readiness,
    Socket,
};

use crate::rng::Rng;

/// The readiness edge of newly arrived bytes.
pub const FRESH: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: false,
};

/// Returns the time at a number of milliseconds of the simulated clock.
pub fn at(clock: u64) -> Now {
    Now {
        mono: clock,
        unix: 1_700_000_000_000 + clock,
    }
}

/// Everything around an engine except its connections.
pub struct Environment<S, C> {
    listeners: Vec<Listener<S>>,
    /// Events since the last turn.
    events: Vec<IoEvent>,
    mail: VecDeque<Mail<C>>,
    /// A message was sent since the last turn: the poller reports it.
    is_mail_new: bool,
    /// The reactor expects more messages in the mailbox.
    may_have_mail: bool,
    connects: usize,
    /// Connections that were accepted since the last call of [`Environment::take_accepted`].
    accepted: Vec<Accepted>,
    accepting: usize,
    /// Maximum connections for which the process has descriptors.
    pub descriptors: usize,
    in_use: Rc<Cell<usize>>,
    /// The probability that the poller refuses a socket, in percent.
    pub unregistered: u32,
    /// Clients that connect began their handshakes before the engine began to drop new ones.
    pub completes_handshakes: bool,
    /// The duration of each turn.
    pub elapsed: Duration,
    /// How long the reactor would sleep; `None` after the last turn.
    wait: Option<Duration>,
    rng: Rng,
}

struct Listener<S> {
    queue: VecDeque<Arrival<S>>,
    is_open: bool,
    /// New connection attempts are ignored.
    drops_syns: bool,
    /// A call of `accept` or `register` failed, for this listener or another one, and `accept` has not
    /// been called for this one since: the engine retries all of them later.
    is_refused: bool,
    /// Errors of the next calls of `accept`.
    errors: VecDeque<io::Error>,
}

struct Arrival<S> {
    number: usize,
    socket: S,
    peer: Option<IpAddr>,
}

/// A connection that the engine has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// See [`Environment::connect`].
    pub number: usize,
    pub key: ConnKey,
    /// Whether the poller took its socket.
    pub is_registered: bool,
}

/// A descriptor of the process, released when it is dropped.
pub struct Descriptor(Rc<Cell<usize>>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A socket that may have to hold a descriptor.
pub trait Descriptive: Socket {
    /// Holds a descriptor until the socket is dropped. A socket that does not is unlimited.
    fn hold(&mut self, _: Descriptor) {}
}

impl<S: Descriptive, C> Environment<S, C> {
    /// An environment without listeners.
    pub fn new(rng: Rng) -> Self {
        Environment {
            listeners: Vec::new(),
            events: Vec::with_capacity(64),
            mail: VecDeque::with_capacity(64),
            is_mail_new: false,
            may_have_mail: false,
            connects: 0,
            accepted: Vec::with_capacity(64),
            accepting: 0,
            descriptors: usize::MAX,
            in_use: Rc::default(),
            unregistered: 0,
            completes_handshakes: false,
            elapsed: Duration::ZERO,
            wait: Some(Duration::ZERO),
            rng,
        }
    }

    /// Allocates memory for this many events in a turn, so that none is allocated later.
    pub fn reserve(&mut self, events: usize) {
        self.events.reserve(events);
    }

    /// Adds a listener to both the engine and its environment.
    pub fn listen<H: Handler<Command = C>>(
        &mut self,
        engine: &mut Engine<S, H>,
        options: ListenerOptions,
    ) -> ListenerId {
        self.listeners.push(Listener {
            queue: VecDeque::with_capacity(64),
            is_open: true,
            drops_syns: false,
            is_refused: false,
            errors: VecDeque::new(),
        });
        let id = engine.add_listener(options).expect("few listeners");
        assert_eq!(usize::from(id.0) + 1, self.listeners.len());
        id
    }

    /// A client connects. Returns its number, which increases from 0. The socket is dropped at once
    /// if the listener is closed.
    pub fn connect(&mut self, listener: ListenerId, socket: S, peer: Option<IpAddr>) -> usize {
        let number = self.connects;
        self.connects += 1;
        let id = listener;
        let listener = &mut self.listeners[usize::from(id.0)];
        if listener.is_open && (!listener.drops_syns || self.completes_handshakes) {
            self.events.push(IoEvent::Acceptable(id));
            listener.queue.push_back(Arrival {
                number,
                socket,
                peer,
            });
        }
        number
    }

    /// Returns whether a listener's socket is open.
    pub fn is_listening(&self, listener: ListenerId) -> bool {
        self.listeners[usize::from(listener.0)].is_open
    }

    /// Returns whether a listener's socket ignores new connection attempts.
    pub fn drops_syns(&self, listener: ListenerId) -> bool {
        self.listeners[usize::from(listener.0)].drops_syns
    }

    /// Connections in the accept queue of a listener.
    pub fn queued(&self, listener: ListenerId) -> usize {
        self.listeners[usize::from(listener.0)].queue.len()
    }

    /// Makes the next calls of `accept` fail.
    pub fn fail_accept(
        &mut self,
        listener: ListenerId,
        errors: impl IntoIterator<Item = io::Error>,
    ) {
        self.events.push(IoEvent::Acceptable(listener));
        let listener = &mut self.listeners[usize::from(listener.0)];
        listener.errors.extend(errors);
    }

    /// From now on, there are descriptors for all connections. The engine learns it when it retries.
    pub fn lift(&mut self) {
        if self.in_use.get() >= self.descriptors {
            self.refuse();
        }
        self.descriptors = usize::MAX;
    }

    fn refuse(&mut self) {
        for listener in &mut self.listeners {
            listener.is_refused = true;
        }
    }

    /// Sends a message to the engine.
    pub fn send(&mut self, mail: Mail<C>) {
        self.mail.push_back(mail);
        self.is_mail_new = true;
    }

    /// Messages in the mailbox.
    pub fn mail(&self) -> usize {
        self.mail.len()
    }

    /// Reports the readiness of a connection's socket in the next turn.
    pub fn ready(&mut self, key: ConnKey, readiness: Readiness) {
        self.events.push(IoEvent::Ready(key, readiness));
    }

    /// Runs a turn with the events reported since the last one. Does nothing after the last turn.
    pub fn turn<H: Handler<Command = C>>(&mut self, engine: &mut Engine<S, H>, now: Now) {
        if self.wait.is_none() {
            return;
        }
        self.may_have_mail |= mem::take(&mut self.is_mail_new);
        let mut events = mem::take(&mut self.events);
        self.wait = engine.turn(now, events.iter().copied(), self);
        // The memory is kept.
        events.clear();
        self.events = events;
    }

    /// Returns the connections that were accepted since the last call.
    pub fn take_accepted(&mut self) -> Vec<Accepted> {
        // The memory is kept, so that none is allocated within a turn.
        self.accepted.drain(..).collect()
    }

    /// Returns how long the reactor would sleep; `None` after the last turn.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Returns whether the poller has an event of a listener or the mailbox.
    pub fn has_event(&self) -> bool {
        self.wait.is_some() && (self.is_mail_new || !self.events.is_empty())
    }

    /// Checks that neither messages nor connections wait without a reason while the reactor sleeps.
    ///
    /// # Errors
    /// A description of the lost wakeup.
    pub fn check_quiet(&self) -> Result<(), String> {
        if self.wait.is_none() {
            return Ok(());
        }
        if !self.mail.is_empty() {
            return Err(format!("{} messages wait", self.mail.len()));
        }
        let accepting = self
            .listeners
            .iter()
            .filter(|listener| !listener.is_refused);
        let waiting: usize = accepting.map(|listener| listener.queue.len()).sum();
        match waiting == 0 || self.in_use.get() >= self.descriptors {
            true => Ok(()),
            false => Err(format!("{waiting} wait, and there is room")),
        }
    }
}

impl<S: Descriptive, C> Io for Environment<S, C> {
    type Socket = S;
    type Command = C;

    fn next_mail(&mut self) -> Option<Mail<C>> {
        if !self.may_have_mail {
            return None;
        }
        let next = self.mail.pop_front();
        self.may_have_mail = next.is_some();
        next
    }

    fn accept(&mut self, listener: ListenerId) -> io::Result<(S, Option<IpAddr>)> {
        let listener = &mut self.listeners[usize::from(listener.0)];
        assert!(listener.is_open, "a closed listener accepts nothing");
        listener.is_refused = false;
        if let Some(error) = listener.errors.pop_front() {
            self.refuse();
            return Err(error);
        }
        if !listener.queue.is_empty() && self.in_use.get() >= self.descriptors {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let Some(mut arrival) = listener.queue.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        self.in_use.set(self.in_use.get() + 1);
        arrival.socket.hold(Descriptor(Rc::clone(&self.in_use)));
        self.accepting = arrival.number;
        Ok((arrival.socket, arrival.peer))
    }

    fn register(&mut self, _: &mut S, key: ConnKey) -> io::Result<()> {
        let is_registered = !self.rng.chance(self.unregistered);
        self.accepted.push(Accepted {
            number: self.accepting,
            key,
            is_registered,
        });
        if !is_registered {
            self.refuse();
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Ok(())
    }

    fn drop_new_syns(&mut self, listener: ListenerId) -> io::Result<()> {
        self.listeners[usize::from(listener.0)].drops_syns = true;
        Ok(())
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let listener = &mut self.listeners[usize::from(listener.0)];
        assert!(listener.is_open, "closed twice");
        listener.is_open = false;
        // The kernel resets the connections left in the accept queue.
        listener.queue.clear();
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// `accept` without free descriptors.
pub const EMFILE: i32 = 24;
/// `epoll_ctl` beyond the limit of the user.
const ENOSPC: i32 = 28;

//! Well-behaved clients that measure latency while a server is under load.
//!
//! They have their own thread and poll, so that the measurement covers the server and not the load
//! generator. The thread also measures its own delays: a ping that is sent late because this
//! process was not scheduled counts as such a delay only.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::conn::{CloseReason, Conn, ConnEvent, Script};
use crate::frames;
use crate::poster::{Endpoint, Poster, event, event_number};
use crate::report;
use crate::target::Target;

mod outcome;

pub use outcome::Outcome;

/// The operations of the clients, and their rates.
#[derive(Clone)]
pub struct Settings {
    pub target: Target,
    pub clients: usize,
    pub ping: String,
    pub ping_every: Duration,
    /// The interval of new clients, if any.
    pub handshake_every: Option<Duration>,
    /// The target and interval for published events, if any.
    pub publish: Option<(Endpoint, Duration)>,
    /// How long to wait for outstanding responses after the end.
    pub grace: Duration,
}

/// The handle of the thread.
pub struct LatencyClients {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<std::result::Result<[Outcome; 2], String>>,
}

impl LatencyClients {
    /// Starts the thread and waits until its clients are connected.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot connect.
    pub fn start(settings: Settings) -> Result<LatencyClients> {
        let phase = Arc::new(AtomicU8::new(CALM));
        let shared = Arc::clone(&phase);
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            prioritize();
            // The boxed error is not `Send`.
            let mut worker = Worker::new(settings, shared).map_err(|error| error.to_string())?;
            worker.open().map_err(|error| error.to_string())?;
            // The receiver may have timed out.
            let _ = ready.send(());
            worker.run().map_err(|error| error.to_string())?;
            Ok(worker.outcomes)
        });
        let latency_clients = LatencyClients { phase, thread };
        match wait(&is_ready) {
            true => Ok(latency_clients),
            false => match latency_clients.end() {
                Err(error) => Err(error),
                Ok(_) => Err("the measuring clients did not start".into()),
            },
        }
    }

    /// Marks the beginning of the measurement; earlier messages count as the baseline.
    pub fn measure(&self) {
        self.phase.store(MEASURED, Ordering::Relaxed);
    }

    /// Ends the measurement. Returns the results before and after [`LatencyClients::measure`].
    ///
    /// # Errors
    ///
    /// Returns an error if the thread failed.
    pub fn end(self) -> Result<[Outcome; 2]> {
        self.phase.store(OVER, Ordering::Relaxed);
        let outcome = self
            .thread
            .join()
            .map_err(|_| "the measuring thread panicked")?;
        Ok(outcome?)
    }
}

/// Gives this thread real-time priority, if the system permits it: its reading of responses should
/// not wait for the load. Without permission, the reported delays show the effect.
fn prioritize() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut command = Command::new("chrt");
    command.args(["--fifo", "--pid", "1", &thread]);
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn wait(is_ready: &Receiver<()>) -> bool {
    is_ready.recv_timeout(Duration::from_secs(60)).is_ok()
}

/// The state of the thread.
struct Worker {
    settings: Settings,
    phase: Arc<AtomicU8>,
    script: Script,
    poll: Poll,
    buffer: Vec<u8>,
    ping: Vec<u8>,
    /// The clients that send pings; the last one is subscribed instead.
    clients: Vec<Client>,
    /// Handshakes in progress, by token.
    handshakes: BTreeMap<usize, (Conn, Instant, usize)>,
    next_token: usize,
    next_newcomer: Instant,
    poster: Option<Poster>,
    next_event: Instant,
    /// The event without a response yet.
    posted: Option<(Instant, usize)>,
    /// Events without a notification yet, by number.
    under_way: BTreeMap<u64, (Instant, usize)>,
    event_number: u64,
    outcomes: [Outcome; 2],
}

/// A long-lived client.
struct Client {
    conn: Option<Conn>,
    /// Pings without a response, oldest first, each with its phase.
    pending: VecDeque<(Instant, usize)>,
    due: Instant,
    is_subscriber: bool,
}

impl Worker {
    fn new(settings: Settings, phase: Arc<AtomicU8>) -> Result<Worker> {
        let now = Instant::now();
        let script = Script::new(&settings.target, false)?;
        let count = settings.clients + usize::from(settings.publish.is_some());
        let clients = (0..count).map(|number| Client {
            conn: None,
            pending: VecDeque::new(),
            due: now,
            is_subscriber: number >= settings.clients,
        });
        Ok(Worker {
            ping: frames::encode(frames::TEXT, settings.ping.as_bytes(), script.mask),
            clients: clients.collect(),
            poll: Poll::new()?,
            buffer: vec![0; 64 * 1024],
            handshakes: BTreeMap::new(),
            next_token: FIRST_HANDSHAKE,
            next_newcomer: now,
            poster: None,
            next_event: now,
            posted: None,
            under_way: BTreeMap::new(),
            event_number: 0,
            outcomes: [Outcome::new(), Outcome::new()],
            script,
            settings,
            phase,
        })
    }

    /// Connects all clients.
    fn open(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        for number in 0..self.clients.len() {
            self.connect(number)?;
        }
        if let Some((endpoint, _)) = &self.settings.publish {
            let registry = self.poll.registry();
            self.poster = Some(Poster::new(endpoint.clone(), registry, POSTER)?);
        }
        let mut events = Events::with_capacity(256);
        let is_open = |client: &Client| client.conn.as_ref().is_some_and(Conn::is_open);
        while !self.clients.iter().all(is_open) {
            if Instant::now() > end {
                return Err("the measuring clients cannot connect".into());
            }
            self.wait(&mut events, Duration::from_millis(20))?;
        }
        let now = Instant::now();
        let count = u32::try_from(self.clients.len())?;
        for (number, client) in self.clients.iter_mut().enumerate() {
            // Spread over the interval.
            client.due = now + self.settings.ping_every * u32::try_from(number)? / count;
        }
        (self.next_newcomer, self.next_event) = (now, now);
        Ok(())
    }

    fn connect(&mut self, number: usize) -> Result<()> {
        let mut conn = Conn::new(&self.settings.target, number as u64)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(conn.source(), Token(number), both)?;
        let client = self.clients.get_mut(number).ok_or("no such client")?;
        client.conn = Some(conn);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(256);
        while self.phase() != usize::from(OVER) {
            let next = self.send_due()?;
            self.wait(&mut events, next.saturating_duration_since(Instant::now()))?;
        }
        let end = Instant::now() + self.settings.grace;
        while self.has_outstanding() && Instant::now() < end {
            self.wait(&mut events, Duration::from_millis(20))?;
        }
        self.count_missing();
        Ok(())
    }

    fn phase(&self) -> usize {
        usize::from(self.phase.load(Ordering::Relaxed))
    }

    /// Sends all messages that are due. Returns when the next one is due.
    fn send_due(&mut self) -> Result<Instant> {
        let now = Instant::now();
        let phase = self.phase().min(1);
        let mut next = now + MAX_WAIT;
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            if client.is_subscriber {
                if client.conn.is_none() {
                    self.connect(number)?;
                }
                continue;
            }
            if client.due <= now {
                let late = now.saturating_duration_since(client.due);
                report::record(&mut self.outcomes[phase].own_delay, late);
                client.due = (client.due + self.settings.ping_every).max(now);
                self.ping(number, phase)?;
            }
            next = next.min(self.clients[number].due);
        }
        if let Some(every) = self.settings.handshake_every {
            if self.next_newcomer <= now {
                self.next_newcomer = (self.next_newcomer + every).max(now);
                self.start_handshake(phase)?;
            }
            next = next.min(self.next_newcomer);
        }
        if let Some((_, every)) = self.settings.publish {
            if self.next_event <= now && self.posted.is_none() {
                self.next_event = (self.next_event + every).max(now);
                self.publish(phase)?;
            }
            if self.posted.is_none() {
                next = next.min(self.next_event);
            }
        }
        Ok(next)
    }

    /// Sends a ping, or reconnects if the connection has ended.
    fn ping(&mut self, number: usize, phase: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let Some(conn) = client.conn.as_mut() else {
            return self.connect(number);
        };
        if !conn.is_open() {
            return Ok(());
        }
        let sent = Instant::now();
        match conn.send(&self.ping) {
            Ok(()) => client.pending.push_back((sent, phase)),
            Err(reason) => self.on_close(number, reason),
        }
        Ok(())
    }

    /// Begins the handshake of a new client.
    fn start_handshake(&mut self, phase: usize) -> Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        let began = Instant::now();
        let mut conn = Conn::new(&self.settings.target, token as u64)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(conn.source(), Token(token), both)?;
        self.handshakes.insert(token, (conn, began, phase));
        Ok(())
    }

    fn publish(&mut self, phase: usize) -> Result<()> {
        let number = self.event_number;
        self.event_number += 1;
        let sent = Instant::now();
        self.outcomes[phase].events_published += 1;
        if let Some(poster) = &mut self.poster
            && poster.post(&event(number, "An event.")).is_ok()
        {
            self.posted = Some((sent, phase));
            self.under_way.insert(number, (sent, phase));
            return Ok(());
        }
        self.outcomes[phase].events_failed += 1;
        self.new_poster()
    }

    fn new_poster(&mut self) -> Result<()> {
        if let Some((endpoint, _)) = &self.settings.publish {
            let registry = self.poll.registry();
            self.poster = Some(Poster::new(endpoint.clone(), registry, POSTER)?);
        }
        Ok(())
    }

    /// Waits for at most `time` and serves the ready sockets.
    fn wait(&mut self, events: &mut Events, time: Duration) -> Result<()> {
        match self.poll.poll(events, Some(time)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in events.iter() {
            match event.token() {
                POSTER => self.poster_ready()?,
                Token(number) if number < FIRST_HANDSHAKE => self.client_ready(number),
                Token(token) => self.handshake_ready(token),
            }
        }
        Ok(())
    }

    fn client_ready(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else {
            return;
        };
        let Some(mut conn) = client.conn.take() else {
            return;
        };
        let Client {
            pending,
            is_subscriber,
            ..
        } = client;
        let Worker {
            outcomes,
            under_way,
            script,
            buffer,
            ..
        } = self;
        let mask = script.mask;
        let result = conn.ready(script, buffer, &mut |conn, event| match event {
            ConnEvent::Open if *is_subscriber => {
                conn.send(&frames::encode(frames::TEXT, SUBSCRIBE.as_bytes(), mask))
            }
            ConnEvent::Open => Ok(()),
            ConnEvent::Message(frame) if *is_subscriber => {
                let number = event_number(frame.payload);
                if let Some((sent, phase)) = number.and_then(|number| under_way.remove(&number)) {
                    report::record(&mut outcomes[phase].arrivals, sent.elapsed());
                }
                Ok(())
            }
            ConnEvent::Message(_) => {
                if let Some((sent, phase)) = pending.pop_front() {
                    report::record(&mut outcomes[phase].pings, sent.elapsed());
                }
                Ok(())
            }
        });
        match result {
            Ok(()) => self.clients[number].conn = Some(conn),
            Err(reason) => self.on_close(number, reason),
        }
    }

    /// Counts the end of a client's connection. The client reconnects at its next ping.
    fn on_close(&mut self, number: usize, reason: CloseReason) {
        let phase = self.phase().min(1);
        let client = &mut self.clients[number];
        client.conn = None;
        for (sent, phase) in client.pending.drain(..) {
            self.outcomes[phase].pings_unanswered += 1;
            report::record(&mut self.outcomes[phase].pings, sent.elapsed());
        }
        *self.outcomes[phase].closed.entry(reason).or_default() += 1;
    }

    fn handshake_ready(&mut self, token: usize) {
        let Some((mut conn, began, phase)) = self.handshakes.remove(&token) else {
            return;
        };
        let result = conn.ready(&self.script, &mut self.buffer, &mut |_, _| Ok(()));
        let outcome = &mut self.outcomes[phase];
        match result {
            Err(reason) => *outcome.handshakes_failed.entry(reason).or_default() += 1,
            // Dropping it closes the connection.
            Ok(()) if conn.is_open() => report::record(&mut outcome.handshakes, began.elapsed()),
            Ok(()) => drop(self.handshakes.insert(token, (conn, began, phase))),
        }
    }

    fn poster_ready(&mut self) -> Result<()> {
        let Some(poster) = &mut self.poster else {
            return Ok(());
        };
        let answer = poster.ready();
        if matches!(answer, Ok(None)) {
            return Ok(());
        }
        let posted = self.posted.take();
        if let (Ok(Some(202)), Some((sent, phase))) = (&answer, posted) {
            report::record(&mut self.outcomes[phase].accepted, sent.elapsed());
        } else if let Some((_, phase)) = posted {
            self.outcomes[phase].events_failed += 1;
            self.under_way.pop_last();
        }
        match answer {
            Ok(_) => Ok(()),
            Err(_) => self.new_poster(),
        }
    }

    fn has_outstanding(&self) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|client| !client.pending.is_empty())
            || !self.handshakes.is_empty()
            || self.posted.is_some()
            || !self.under_way.is_empty()
    }

    /// Counts the responses that are still outstanding at the end, with their age.
    fn count_missing(&mut self) {
        for (sent, phase) in self
            .clients
            .iter_mut()
            .flat_map(|client| client.pending.drain(..))
        {
            self.outcomes[phase].pings_unanswered += 1;
            report::record(&mut self.outcomes[phase].pings, sent.elapsed());
        }
        for (_, began, phase) in std::mem::take(&mut self.handshakes).into_values() {
            let outcome = &mut self.outcomes[phase];
            report::record(&mut outcome.handshakes, began.elapsed());
            *outcome
                .handshakes_failed
                .entry("not complete in time".into())
                .or_default() += 1;
        }
        if let Some((sent, phase)) = self.posted.take() {
            report::record(&mut self.outcomes[phase].accepted, sent.elapsed());
        }
        for (sent, phase) in std::mem::take(&mut self.under_way).into_values() {
            self.outcomes[phase].events_failed += 1;
            report::record(&mut self.outcomes[phase].arrivals, sent.elapsed());
        }
    }
}

/// The maximum wait when nothing is due.
const MAX_WAIT: Duration = Duration::from_millis(20);

/// Subscribes to all public annotations.
pub const SUBSCRIBE: &str = r#"{"filter":{"match_policy":"include_any","actions":{},"clauses":[{"field":"/group","operator":"equals","value":"__world__"}]}}"#;

/// The phases of a measurement; the first two are indices of its outcomes.
const CALM: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

const POSTER: Token = Token(usize::MAX - 1);
const FIRST_HANDSHAKE: usize = 1 << 20;

//! Well-behaved clients that measure their service while a server is under load.
//!
//! They live in a thread and a poll of their own, so that the measurement is of the server and not
//! of the load beside them. The thread also measures its own delays: a ping that is sent late
//! because this process was not scheduled counts there, and nowhere else.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::attack::PING;
use crate::conn::{Conn, Gone, Said, Script};
use crate::frames;
use crate::poster::{Endpoint, Poster, event, event_number};
use crate::report;
use crate::target::Target;

/// The operations of the clients, and their rates.
#[derive(Clone)]
pub struct Settings {
    pub target: Target,
    pub clients: usize,
    pub ping_every: Duration,
    pub handshake_every: Duration,
    /// Where an event is published every so often, if anywhere.
    pub publish: Option<(Endpoint, Duration)>,
    /// How long answers are awaited after the end.
    pub grace: Duration,
}

/// Results of a measurement.
#[derive(Clone)]
pub struct Outcome {
    pub pings: Histogram<u64>,
    /// Pings that were not answered until the end. They count in `pings` with their age.
    pub pings_unanswered: u64,
    pub handshakes: Histogram<u64>,
    /// Connections that were ended by the server or by the network, by the reason.
    pub closed: BTreeMap<Gone, u64>,
    /// Handshakes that failed, by the reason.
    pub handshakes_failed: BTreeMap<Gone, u64>,
    /// From sending an event to its 202.
    pub accepted: Histogram<u64>,
    /// From sending an event to its arrival at the subscribed client.
    pub arrivals: Histogram<u64>,
    pub events_published: u64,
    /// Events that were refused, or without an answer or a notification until the end.
    pub events_failed: u64,
    /// How late this thread itself was, each time that it had something to send.
    pub own_delay: Histogram<u64>,
}

impl Outcome {
    fn new() -> Outcome {
        Outcome {
            pings: report::histogram(),
            pings_unanswered: 0,
            handshakes: report::histogram(),
            closed: BTreeMap::new(),
            handshakes_failed: BTreeMap::new(),
            accepted: report::histogram(),
            arrivals: report::histogram(),
            events_published: 0,
            events_failed: 0,
            own_delay: report::histogram(),
        }
    }
}

/// The thread.
pub struct Witness {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<std::result::Result<[Outcome; 2], String>>,
}

impl Witness {
    /// Starts the thread, and waits until its clients are connected.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot connect.
    pub fn start(settings: Settings) -> Result<Witness> {
        let phase = Arc::new(AtomicU8::new(CALM));
        let shared = Arc::clone(&phase);
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            // The error is boxed in a way that cannot leave its thread.
            let mut room = Room::new(settings, shared).map_err(|error| error.to_string())?;
            room.open().map_err(|error| error.to_string())?;
            // The other side may have given up.
            let _ = ready.send(());
            room.run().map_err(|error| error.to_string())?;
            Ok(room.outcomes)
        });
        let witness = Witness { phase, thread };
        match wait(&is_ready) {
            true => Ok(witness),
            false => match witness.end() {
                Err(error) => Err(error),
                Ok(_) => Err("the measuring clients did not start".into()),
            },
        }
    }

    /// Messages sent from now on count as measured, and earlier ones as calm.
    pub fn measure(&self) {
        self.phase.store(MEASURED, Ordering::Relaxed);
    }

    /// Ends the measurement. Returns the results before [`Witness::measure`], and since.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread could not go on.
    pub fn end(self) -> Result<[Outcome; 2]> {
        self.phase.store(OVER, Ordering::Relaxed);
        let outcome = self
            .thread
            .join()
            .map_err(|_| "the measuring thread panicked")?;
        Ok(outcome?)
    }
}

fn wait(is_ready: &Receiver<()>) -> bool {
    is_ready.recv_timeout(Duration::from_secs(60)).is_ok()
}

/// The thread's own state.
struct Room {
    settings: Settings,
    phase: Arc<AtomicU8>,
    script: Script,
    poll: Poll,
    buffer: Vec<u8>,
    ping: Vec<u8>,
    /// The clients that ping; the last one is subscribed instead.
    clients: Vec<Client>,
    /// Handshakes under way, by token.
    newcomers: BTreeMap<usize, (Conn, Instant, usize)>,
    next_token: usize,
    next_newcomer: Instant,
    poster: Option<Poster>,
    next_event: Instant,
    /// The event that awaits its answer.
    posted: Option<(Instant, usize)>,
    /// Events that await their notification, by number.
    under_way: BTreeMap<u64, (Instant, usize)>,
    event_number: u64,
    outcomes: [Outcome; 2],
}

/// One client that stays.
struct Client {
    conn: Option<Conn>,
    /// Pings that await their answer, in their order, each with its phase.
    asked: VecDeque<(Instant, usize)>,
    due: Instant,
    is_subscriber: bool,
}

impl Room {
    fn new(settings: Settings, phase: Arc<AtomicU8>) -> Result<Room> {
        let now = Instant::now();
        let script = Script::new(&settings.target, false)?;
        let count = settings.clients + usize::from(settings.publish.is_some());
        let clients = (0..count).map(|number| Client {
            conn: None,
            asked: VecDeque::new(),
            due: now,
            is_subscriber: number >= settings.clients,
        });
        Ok(Room {
            ping: frames::encode(frames::TEXT, PING.as_bytes(), script.mask),
            clients: clients.collect(),
            poll: Poll::new()?,
            buffer: vec![0; 64 * 1024],
            newcomers: BTreeMap::new(),
            next_token: FIRST_NEWCOMER,
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
        while self.awaits_something() && Instant::now() < end {
            self.wait(&mut events, Duration::from_millis(20))?;
        }
        self.count_missing();
        Ok(())
    }

    fn phase(&self) -> usize {
        usize::from(self.phase.load(Ordering::Relaxed))
    }

    /// Sends all messages that are due. Returns when the next one is.
    fn send_due(&mut self) -> Result<Instant> {
        let now = Instant::now();
        let phase = self.phase().min(1);
        let mut next = self.next_newcomer;
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
        if self.next_newcomer <= now {
            self.next_newcomer = (self.next_newcomer + self.settings.handshake_every).max(now);
            self.welcome(phase)?;
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

    /// Pings, or connects again where the connection has ended.
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
            Ok(()) => client.asked.push_back((sent, phase)),
            Err(reason) => self.lose(number, reason),
        }
        Ok(())
    }

    /// Begins the handshake of a new client.
    fn welcome(&mut self, phase: usize) -> Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        let began = Instant::now();
        let mut conn = Conn::new(&self.settings.target, token as u64)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(conn.source(), Token(token), both)?;
        self.newcomers.insert(token, (conn, began, phase));
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

    /// Waits at most so long, and serves the sockets that are ready.
    fn wait(&mut self, events: &mut Events, time: Duration) -> Result<()> {
        match self.poll.poll(events, Some(time)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in events.iter() {
            match event.token() {
                POSTER => self.poster_ready()?,
                Token(number) if number < FIRST_NEWCOMER => self.client_ready(number),
                Token(token) => self.newcomer_ready(token),
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
            asked,
            is_subscriber,
            ..
        } = client;
        let Room {
            outcomes,
            under_way,
            script,
            buffer,
            ..
        } = self;
        let mask = script.mask;
        let result = conn.ready(script, buffer, &mut |conn, said| match said {
            Said::Open if *is_subscriber => {
                conn.send(&frames::encode(frames::TEXT, SUBSCRIBE.as_bytes(), mask))
            }
            Said::Open => Ok(()),
            Said::Message(frame) if *is_subscriber => {
                let number = event_number(frame.payload);
                if let Some((sent, phase)) = number.and_then(|number| under_way.remove(&number)) {
                    report::record(&mut outcomes[phase].arrivals, sent.elapsed());
                }
                Ok(())
            }
            Said::Message(_) => {
                if let Some((sent, phase)) = asked.pop_front() {
                    report::record(&mut outcomes[phase].pings, sent.elapsed());
                }
                Ok(())
            }
        });
        match result {
            Ok(()) => self.clients[number].conn = Some(conn),
            Err(reason) => self.lose(number, reason),
        }
    }

    /// Counts the end of a client's connection. It connects again at its next ping.
    fn lose(&mut self, number: usize, reason: Gone) {
        let phase = self.phase().min(1);
        let client = &mut self.clients[number];
        client.conn = None;
        for (sent, phase) in client.asked.drain(..) {
            self.outcomes[phase].pings_unanswered += 1;
            report::record(&mut self.outcomes[phase].pings, sent.elapsed());
        }
        *self.outcomes[phase].closed.entry(reason).or_default() += 1;
    }

    fn newcomer_ready(&mut self, token: usize) {
        let Some((mut conn, began, phase)) = self.newcomers.remove(&token) else {
            return;
        };
        let result = conn.ready(&self.script, &mut self.buffer, &mut |_, _| Ok(()));
        let outcome = &mut self.outcomes[phase];
        match result {
            Err(reason) => *outcome.handshakes_failed.entry(reason).or_default() += 1,
            // It is closed by being dropped.
            Ok(()) if conn.is_open() => report::record(&mut outcome.handshakes, began.elapsed()),
            Ok(()) => drop(self.newcomers.insert(token, (conn, began, phase))),
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

    fn awaits_something(&self) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|client| !client.asked.is_empty())
            || !self.newcomers.is_empty()
            || self.posted.is_some()
            || !self.under_way.is_empty()
    }

    /// Counts the answers that are still outstanding at the end, with their age.
    fn count_missing(&mut self) {
        for (sent, phase) in self
            .clients
            .iter_mut()
            .flat_map(|client| client.asked.drain(..))
        {
            self.outcomes[phase].pings_unanswered += 1;
            report::record(&mut self.outcomes[phase].pings, sent.elapsed());
        }
        for (_, began, phase) in std::mem::take(&mut self.newcomers).into_values() {
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

/// Everything public is for the subscribed client.
pub const SUBSCRIBE: &str = r#"{"filter":{"match_policy":"include_any","actions":{},"clauses":[{"field":"/group","operator":"equals","value":"__world__"}]}}"#;

/// The phases of a measurement; the first two are indices of its outcomes.
const CALM: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

const POSTER: Token = Token(usize::MAX - 1);
const FIRST_NEWCOMER: usize = 1 << 20;

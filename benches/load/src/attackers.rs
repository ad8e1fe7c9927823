//! Connections that send hostile bytes, each at a fixed rate, on one thread.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::Result;
use crate::attack::{Opening, Plan};
use crate::conn::Script;
use crate::target::Target;

/// All attackers of a run.
pub struct Attackers {
    pub counts: Counts,
    plans: Vec<Plan>,
    target: Target,
    tls_target: Option<Target>,
    /// The WebSocket handshake requests, without and with compression.
    requests: [Vec<u8>; 2],
    members: Vec<Attacker>,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    /// Bytes per second of each connection.
    rate: f64,
    reads_replies: bool,
    /// The number of connections being opened.
    opening: usize,
    /// The time at which sending started. `None` while connections are only being opened.
    since: Option<Instant>,
}

/// Progress of the attackers.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub opened: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Connections that the server ended, or never completed.
    pub ended: u64,
    /// The same by the operating system's error or the status of the response.
    pub reasons: BTreeMap<String, u64>,
}

/// The slot of one attacker, which reconnects when its connection ends.
struct Attacker {
    plan: usize,
    state: State,
    /// The position in the plan's bytes.
    at: usize,
    /// Bytes sent since the attack began, across reconnects. Bounded by the rate.
    sent: f64,
    /// The number of connections opened so far.
    opened: usize,
    is_writable: bool,
}

enum State {
    /// Disconnected; reconnects at this time.
    Disconnected(Instant),
    Connecting(TcpStream),
    /// Waiting for the handshake response.
    Upgrading(TcpStream, Vec<u8>),
    Attacking(TcpStream),
}

/// Configuration of the attackers.
pub struct Settings {
    pub connections: usize,
    pub rate: f64,
    pub reads_replies: bool,
}

impl Attackers {
    /// Prepares the attackers without connecting them.
    ///
    /// # Errors
    ///
    /// Returns the errors of the operating system.
    pub fn new(
        plans: Vec<Plan>,
        target: Target,
        tls_target: Option<Target>,
        settings: &Settings,
    ) -> Result<Attackers> {
        let now = Instant::now();
        let requests = [
            Script::new(&target, false)?.request().to_vec(),
            Script::new(&target, true)?.request().to_vec(),
        ];
        let members = (0..settings.connections).map(|number| Attacker {
            plan: number % plans.len().max(1),
            state: State::Disconnected(now),
            at: 0,
            sent: 0.0,
            opened: 0,
            is_writable: false,
        });
        Ok(Attackers {
            counts: Counts::default(),
            members: members.collect(),
            plans,
            target,
            tls_target,
            requests,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
            rate: settings.rate,
            reads_replies: settings.reads_replies,
            opening: 0,
            since: None,
        })
    }

    /// Opens all connections, except for attacks that only connect, and sends nothing on them.
    ///
    /// # Errors
    ///
    /// Returns an error if they are not open in time.
    pub fn open(&mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        while !self.members.iter().all(|member| self.is_set(member)) {
            if Instant::now() > end {
                return Err(format!("the attackers cannot connect: {:?}", self.counts).into());
            }
            self.turn()?;
        }
        Ok(())
    }

    fn is_set(&self, member: &Attacker) -> bool {
        let reconnects = self
            .plans
            .get(member.plan)
            .is_some_and(|plan| plan.reconnects);
        reconnects || matches!(member.state, State::Attacking(_))
    }

    /// Serves open connections for `time` without sending anything.
    ///
    /// # Errors
    ///
    /// Returns the errors of epoll.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Attacks for `time`.
    ///
    /// # Errors
    ///
    /// Returns the errors of epoll.
    pub fn attack(&mut self, time: Duration) -> Result<()> {
        self.since = Some(Instant::now());
        self.rest(time)
    }

    /// Resets all connections.
    pub fn stop(&mut self) {
        for member in self.members.drain(..) {
            member.state.reset();
        }
    }

    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        for number in 0..self.members.len() {
            self.advance(number, now);
        }
        match self.poll.poll(&mut self.events, Some(SWEEP)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.on_event(event);
        }
        self.events = events;
        Ok(())
    }

    /// Connects or sends if the attacker is due.
    fn advance(&mut self, number: usize, now: Instant) {
        let allowance = self.allowance(number, now);
        let Some(member) = self.members.get_mut(number) else {
            return;
        };
        let Some(plan) = self.plans.get(member.plan) else {
            return;
        };
        match &mut member.state {
            // Attackers that only connect start with the attack and stay within their rate.
            State::Disconnected(at)
                if *at <= now
                    && self.opening < MAX_OPENING
                    && (!plan.reconnects || allowance >= self.requests[0].len() as f64) =>
            {
                self.connect(number);
            }
            State::Attacking(stream) if member.is_writable && !plan.bytes.is_empty() => {
                let least = (self.rate * 0.1).clamp(1.0, 4096.0);
                if allowance < least || (plan.reconnects && member.at > 0) {
                    return;
                }
                let most = (allowance as usize).min(WRITE_SIZE);
                match write(stream, plan, &mut member.at, most) {
                    Ok(sent) => {
                        member.is_writable = sent == most || plan.reconnects;
                        member.sent += sent as f64;
                        self.counts.sent_bytes += sent as u64;
                    }
                    Err(error) => self.ended(number, &error.kind().to_string()),
                }
            }
            _ => {}
        }
    }

    /// Returns the number of bytes that an attacker may send now. Unused allowance expires after a
    /// second.
    fn allowance(&mut self, number: usize, now: Instant) -> f64 {
        let (Some(since), Some(member)) = (self.since, self.members.get_mut(number)) else {
            return 0.0;
        };
        // The first sends are spread over the first 40 ms.
        let offset = Duration::from_millis((number % 40) as u64);
        let time = now.saturating_duration_since(since + offset).as_secs_f64();
        let may = time * self.rate;
        member.sent = member.sent.max(may - self.rate);
        may - member.sent
    }

    fn connect(&mut self, number: usize) {
        let Some(member) = self.members.get_mut(number) else {
            return;
        };
        let target = match self.plans.get(member.plan).map(|plan| plan.opening) {
            Some(Opening::TcpToTls) => self.tls_target.as_ref().unwrap_or(&self.target),
            _ => &self.target,
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        let connected = target.connect(number as u64).and_then(|mut stream| {
            self.poll
                .registry()
                .register(&mut stream, Token(number), both)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => {
                member.state = State::Connecting(stream);
                self.opening += 1;
            }
            Err(error) => self.ended(number, &error.kind().to_string()),
        }
    }

    fn on_event(&mut self, event: &Event) {
        let number = event.token().0;
        let Some(member) = self.members.get_mut(number) else {
            return;
        };
        if event.is_writable() {
            member.is_writable = true;
        }
        let state = std::mem::replace(&mut member.state, State::Disconnected(Instant::now()));
        let next = match state {
            State::Connecting(stream) => self.connected(number, stream),
            State::Upgrading(stream, head) => self.upgrading(number, stream, head),
            State::Attacking(stream) => self.attacking(number, stream, event),
            State::Disconnected(at) => Ok(State::Disconnected(at)),
        };
        match (next, self.members.get_mut(number)) {
            (Ok(state), Some(member)) => member.state = state,
            (Err(reason), _) => self.ended(number, &reason),
            (Ok(_), None) => {}
        }
    }

    fn connected(&mut self, number: usize, mut stream: TcpStream) -> Result<State, String> {
        if let Some(error) = stream.take_error().map_err(text)? {
            return Err(error.kind().to_string());
        }
        if stream.peer_addr().is_err() {
            return Ok(State::Connecting(stream));
        }
        let member = self.members.get_mut(number).ok_or("no member")?;
        let plan = self.plans.get(member.plan).ok_or("no plan")?;
        let start = member.opened % plan.starts.len().max(1);
        member.at = plan.starts.get(start).copied().unwrap_or(0);
        member.opened += 1;
        let Opening::WebSocket { deflate } = plan.opening else {
            self.opening -= 1;
            self.counts.opened += 1;
            return Ok(State::Attacking(stream));
        };
        let request = &self.requests[usize::from(deflate)];
        // The request fits an empty socket buffer.
        stream
            .write_all(request)
            .map_err(|error| error.kind().to_string())?;
        member.sent += request.len() as f64;
        self.counts.sent_bytes += request.len() as u64;
        self.upgrading(number, stream, Vec::new())
    }

    fn upgrading(
        &mut self,
        number: usize,
        mut stream: TcpStream,
        mut head: Vec<u8>,
    ) -> Result<State, String> {
        let (read, is_over) = read(&mut stream, &mut self.buffer, &mut |bytes| {
            head.extend_from_slice(bytes);
        });
        self.counts.received_bytes += read;
        if !head.windows(4).any(|four| four == b"\r\n\r\n") {
            return match is_over {
                Some(reason) => Err(format!("handshake: {reason}")),
                None => Ok(State::Upgrading(stream, head)),
            };
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            let status = head.get(..12).unwrap_or_default();
            return Err(String::from_utf8_lossy(status).into_owned());
        }
        self.opening -= 1;
        self.counts.opened += 1;
        self.resume_plan(number, stream)
    }

    /// Continues after a successful handshake.
    fn resume_plan(&self, number: usize, stream: TcpStream) -> Result<State, String> {
        let member = self.members.get(number).ok_or("no member")?;
        let plan = self.plans.get(member.plan).ok_or("no plan")?;
        if plan.reconnects {
            State::Attacking(stream).reset();
            return Ok(State::Disconnected(Instant::now()));
        }
        Ok(State::Attacking(stream))
    }

    fn attacking(
        &mut self,
        number: usize,
        mut stream: TcpStream,
        event: &Event,
    ) -> Result<State, String> {
        let member = self.members.get(number).ok_or("no member")?;
        let reconnects = self
            .plans
            .get(member.plan)
            .is_some_and(|plan| plan.reconnects);
        if !self.reads_replies && !reconnects {
            return match event.is_error() || event.is_write_closed() {
                true => Err("reset".to_owned()),
                false => Ok(State::Attacking(stream)),
            };
        }
        let (read, is_over) = read(&mut stream, &mut self.buffer, &mut |_| {});
        self.counts.received_bytes += read;
        match is_over {
            Some(reason) => Err(reason),
            None if reconnects && read > 0 => self.resume_plan(number, stream),
            None => Ok(State::Attacking(stream)),
        }
    }

    /// Counts the end of a connection and schedules a reconnect.
    fn ended(&mut self, number: usize, reason: &str) {
        let Some(member) = self.members.get_mut(number) else {
            return;
        };
        member.state = State::Disconnected(Instant::now() + PAUSE);
        self.counts.ended += 1;
        *self.counts.reasons.entry(reason.to_owned()).or_default() += 1;
        let is_opening = |member: &&Attacker| {
            matches!(member.state, State::Connecting(_) | State::Upgrading(..))
        };
        self.opening = self.members.iter().filter(is_opening).count();
    }
}

impl State {
    /// Closes the connection with a reset, which frees its port at once.
    fn reset(self) {
        match self {
            State::Connecting(stream) | State::Upgrading(stream, _) | State::Attacking(stream) => {
                // If this fails, the connection still closes, only without a reset.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            State::Disconnected(_) => {}
        }
    }
}

/// Writes at most `most` bytes of a plan from position `at`, wrapping around at its end.
fn write(stream: &mut TcpStream, plan: &Plan, at: &mut usize, most: usize) -> io::Result<usize> {
    let mut sent = 0;
    while sent < most {
        let rest = plan.bytes.get(*at..).unwrap_or_default();
        let part = &rest[..rest.len().min(most - sent)];
        // An attacker that only connects sends its bytes once, at any rate.
        let part = if plan.reconnects { rest } else { part };
        match stream.write(part) {
            Ok(count) => {
                sent += count;
                *at += count;
                if plan.reconnects {
                    return Ok(sent);
                }
                *at %= plan.bytes.len().max(1);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Reads all available bytes. Returns their number and, if the connection has ended, the reason.
fn read(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    take: &mut impl FnMut(&[u8]),
) -> (u64, Option<String>) {
    let mut count = 0;
    loop {
        match stream.read(buffer) {
            Ok(0) => return (count, Some("closed".to_owned())),
            Ok(read) => {
                count += read as u64;
                take(&buffer[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (count, None),
            Err(error) => return (count, Some(error.kind().to_string())),
        }
    }
}

fn text(error: io::Error) -> String {
    error.kind().to_string()
}

/// The interval at which the rates are checked.
const SWEEP: Duration = Duration::from_millis(4);

/// The pause before an attacker reconnects.
const PAUSE: Duration = Duration::from_millis(100);

/// The maximum number of connections being opened at once.
const MAX_OPENING: usize = 256;

/// The maximum number of bytes that one connection sends in one write.
const WRITE_SIZE: usize = 16 * 1024;

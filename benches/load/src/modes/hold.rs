//! Compares the memory that a server is made to hold with its own accounting, and counts the
//! well-behaved clients that it closes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mio::{Poll, Token};
use serde_json::json;

use super::measured::{self, Measurement, target};
use super::unread;
use crate::Result;
use crate::attack::{PING, filter};
use crate::cli::{Common, Hold, Scenario};
use crate::conn::{Conn, ConnEvent};
use crate::frames;
use crate::latency_clients::SUBSCRIBE;
use crate::pool::{ConnPool, MAX_WAIT};
use crate::poster::{Endpoint, Poster, event};
use crate::report::Report;
use crate::server::Server;

/// The outcome for the clients of a scenario.
#[derive(Default)]
pub(super) struct Outcome {
    /// Well-behaved clients that were closed, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Latencies from publishing to each arrival, or from sending a message to its response.
    pub times: Vec<Duration>,
    /// Messages that did not arrive.
    pub missing: u64,
}

pub(super) fn run(name: &str, args: &Hold) -> Result<Report> {
    let common = &args.common;
    let server = Server::new(common, &target(common, &common.url)?)?;
    let measurement = Measurement::start(common, &args.latency, &server, false)?;
    measured::yield_to_latency_clients();
    std::thread::sleep(Duration::from_secs(args.latency.calm));
    measurement.measure();
    let endpoint = measurement.endpoint.as_ref();
    let outcome = match args.scenario {
        Scenario::Events => events(args, endpoint)?,
        Scenario::Filters => filters(common)?,
        Scenario::UnreadReplies => unread::replies(args, endpoint)?,
        Scenario::PartialRecords => unread::records(args)?,
    };
    let measured = measurement.end(&server)?;

    let mut report = Report::new(name, common);
    let scenario = args.scenario.to_possible_value();
    report.set(
        "scenario",
        scenario.map_or_else(String::new, |value| value.get_name().to_owned()),
    );
    report.set("clients_closed", outcome.closed.values().sum::<u64>());
    report.set("clients_closed_by", json!(outcome.closed));
    report.set("messages_missing", outcome.missing);
    measured::latency(&mut report, "message_us", &outcome.times);
    measured.report(&mut report);
    report.note(measured.summary());
    Ok(report)
}

/// Publishes large events in bursts to receivers that read at once.
fn events(args: &Hold, endpoint: Option<&Endpoint>) -> Result<Outcome> {
    let common = &args.common;
    let endpoint = endpoint.ok_or("events needs --publish and --key-file")?;
    let mut pool = ConnPool::new(common, false)?;
    let hello = [SUBSCRIBE.to_owned(), PING.to_owned()];
    pool.open(common.connections, common.opening, &hello, 1)?;
    pool.tolerant = true;
    let registry = Poll::new()?;
    let text = "text ".repeat(usize::try_from(args.event_size)? / 5);
    let mut outcome = Outcome::default();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    // Connection numbers, which are also their indices.
    let mut open: BTreeSet<u64> = (0..common.connections).collect();
    let numbers: Vec<u64> = (0..args.events).collect();
    for burst in numbers.chunks(usize::try_from(args.burst)?) {
        let published = Instant::now();
        let mut poster = Poster::new(endpoint.clone(), registry.registry(), Token(0))?;
        for &number in burst {
            poster.post(&event(number, &text))?;
        }
        // The number of outstanding messages of each connection.
        let mut waiting: BTreeMap<u64, usize> =
            open.iter().map(|&number| (number, burst.len())).collect();
        let (mut accepted, mut checked) = (0, published);
        while (!waiting.is_empty() || accepted < burst.len()) && Instant::now() < end {
            let mut on_event = |conn: &mut Conn, event: ConnEvent<'_>| {
                if let ConnEvent::Message(_) = event
                    && let Some(left) = waiting.get_mut(&conn.number)
                {
                    *left -= 1;
                    if *left == 0 {
                        waiting.remove(&conn.number);
                    }
                    outcome.times.push(published.elapsed());
                }
                Ok(())
            };
            pool.turn(Duration::from_millis(2), &mut on_event)?;
            if checked.elapsed() > CHECK_EVERY {
                checked = Instant::now();
                pool.serve_all(&mut on_event)?;
            }
            for (index, reason) in pool.closed.drain(..) {
                open.remove(&(index as u64));
                outcome.missing += waiting.remove(&(index as u64)).unwrap_or(0) as u64;
                *outcome.closed.entry(reason).or_default() += 1;
            }
            // Once every event has been acknowledged, the server may close the publishing
            // connection as idle.
            if accepted < burst.len()
                && let Some(status) = poster.ready()?
            {
                if status != 202 {
                    return Err(format!("publishing: status {status}").into());
                }
                accepted += 1;
            }
        }
        outcome.missing += waiting.values().sum::<usize>() as u64;
    }
    // Wait for closes that follow the last arrival.
    rest(&mut pool, Duration::from_secs(1), &mut outcome)?;
    Ok(outcome)
}

/// Makes each connection filter for 200 values of its own.
fn filters(common: &Common) -> Result<Outcome> {
    let mut pool = ConnPool::new(common, false)?;
    let values: Vec<String> = (0..200)
        .map(|value| format!("https://example.org/{{n}}/{value}"))
        .collect();
    let hello = [filter(&values), PING.to_owned()];
    pool.open(common.connections, common.opening, &hello, 1)?;
    pool.tolerant = true;
    let mut outcome = Outcome::default();
    rest(&mut pool, Duration::from_secs(2), &mut outcome)?;
    Ok(outcome)
}

/// Serves the connections for `time` and counts closed ones.
fn rest(pool: &mut ConnPool, time: Duration, outcome: &mut Outcome) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        pool.turn(MAX_WAIT.min(time), &mut |_, _| Ok(()))?;
        pool.serve_all(&mut |_, _| Ok(()))?;
        for (_, reason) in pool.closed.drain(..) {
            *outcome.closed.entry(reason).or_default() += 1;
        }
    }
    Ok(())
}

/// Clients that send a message of about 60 KB, one part every 50 ms, and wait for its response.
pub(super) struct Senders {
    pool: ConnPool,
    message: Vec<u8>,
    sent: usize,
    began: Instant,
    next: Instant,
    outstanding: u64,
}

impl Senders {
    pub fn open(common: &Common, count: u64) -> Result<Senders> {
        let mut pool = ConnPool::new(common, false)?;
        pool.open(count, count.max(1), &[], 0)?;
        pool.tolerant = true;
        let text = format!(r#"{{"type":"ping","id":1,"x":"{}"}}"#, "x".repeat(60_000));
        let now = Instant::now();
        Ok(Senders {
            message: frames::encode(frames::TEXT, text.as_bytes(), pool.script.mask),
            pool,
            sent: 0,
            began: now,
            next: now,
            outstanding: 0,
        })
    }

    /// Sends due messages and receives responses.
    pub fn turn(&mut self, outcome: &mut Outcome) -> Result<()> {
        let now = Instant::now();
        if now >= self.next && (self.sent < self.message.len() || self.outstanding == 0) {
            if self.sent >= self.message.len() {
                (self.sent, self.began) = (0, now);
            }
            let end = (self.sent + PART).min(self.message.len());
            let part = self.message[self.sent..end].to_vec();
            for index in 0..self.pool.len() {
                if let Some(conn) = self.pool.conn(index) {
                    // `ConnPool` reports a connection that has ended.
                    let _ = conn.send(&part);
                    self.outstanding += u64::from(end == self.message.len());
                }
            }
            (self.sent, self.next) = (end, now + Duration::from_millis(50));
        }
        let (began, outstanding) = (self.began, &mut self.outstanding);
        self.pool.turn(Duration::from_millis(2), &mut |_, event| {
            if let ConnEvent::Message(_) = event {
                *outstanding = outstanding.saturating_sub(1);
                outcome.times.push(began.elapsed());
            }
            Ok(())
        })?;
        for (_, reason) in self.pool.closed.drain(..) {
            if self.sent >= self.message.len() {
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            *outcome.closed.entry(reason).or_default() += 1;
        }
        Ok(())
    }
}

/// The interval at which silent connections are checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The number of message bytes in one part.
const PART: usize = 10_000;

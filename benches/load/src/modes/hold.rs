//! Memory that a server is made to hold, against its own account, and the well-behaved
//! clients that are closed for it.

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
use crate::conn::{Conn, Said};
use crate::crowd::{Crowd, LONG};
use crate::frames;
use crate::poster::{Endpoint, Poster, event};
use crate::report::Report;
use crate::server::Server;
use crate::witness::SUBSCRIBE;

/// Outcome for the clients of a scenario.
#[derive(Default)]
pub(super) struct Outcome {
    /// Well-behaved clients that were closed, by the reason.
    pub closed: BTreeMap<String, u64>,
    /// From publishing to each arrival, or from sending a message to its answer.
    pub times: Vec<Duration>,
    /// Messages that should have come and did not.
    pub missing: u64,
}

pub(super) fn run(name: &str, args: &Hold) -> Result<Report> {
    let common = &args.common;
    let server = Server::new(common, &target(common, &common.url)?)?;
    let measurement = Measurement::start(common, &args.witness, &server, false)?;
    measured::yield_to_witness();
    std::thread::sleep(Duration::from_secs(args.witness.calm));
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

/// Publishes large events, one burst after the other, to receivers that read at once.
fn events(args: &Hold, endpoint: Option<&Endpoint>) -> Result<Outcome> {
    let common = &args.common;
    let endpoint = endpoint.ok_or("events needs --publish and --key-file")?;
    let mut crowd = Crowd::new(common, false)?;
    let hello = [SUBSCRIBE.to_owned(), PING.to_owned()];
    crowd.open(common.connections, common.opening, &hello, 1)?;
    crowd.tolerant = true;
    let registry = Poll::new()?;
    let text = "text ".repeat(usize::try_from(args.event_size)? / 5);
    let mut outcome = Outcome::default();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    // By number, which is also their index.
    let mut open: BTreeSet<u64> = (0..common.connections).collect();
    let numbers: Vec<u64> = (0..args.events).collect();
    for burst in numbers.chunks(usize::try_from(args.burst)?) {
        let published = Instant::now();
        let mut poster = Poster::new(endpoint.clone(), registry.registry(), Token(0))?;
        for &number in burst {
            poster.post(&event(number, &text))?;
        }
        // How many each connection has yet to receive.
        let mut waiting: BTreeMap<u64, usize> =
            open.iter().map(|&number| (number, burst.len())).collect();
        let (mut accepted, mut checked) = (0, published);
        while (!waiting.is_empty() || accepted < burst.len()) && Instant::now() < end {
            let mut said = |conn: &mut Conn, said: Said<'_>| {
                if let Said::Message(_) = said
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
            crowd.turn(Duration::from_millis(2), &mut said)?;
            if checked.elapsed() > CHECK_EVERY {
                checked = Instant::now();
                crowd.serve_all(&mut said)?;
            }
            for (index, reason) in crowd.gone.drain(..) {
                open.remove(&(index as u64));
                outcome.missing += waiting.remove(&(index as u64)).unwrap_or(0) as u64;
                *outcome.closed.entry(reason).or_default() += 1;
            }
            // Once all have been answered, the connection may be closed as idle.
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
    // Closes that follow the last arrival.
    rest(&mut crowd, Duration::from_secs(1), &mut outcome)?;
    Ok(outcome)
}

/// Has each connection filter for 200 values of its own.
fn filters(common: &Common) -> Result<Outcome> {
    let mut crowd = Crowd::new(common, false)?;
    let values: Vec<String> = (0..200)
        .map(|value| format!("https://example.org/{{n}}/{value}"))
        .collect();
    let hello = [filter(&values), PING.to_owned()];
    crowd.open(common.connections, common.opening, &hello, 1)?;
    crowd.tolerant = true;
    let mut outcome = Outcome::default();
    rest(&mut crowd, Duration::from_secs(2), &mut outcome)?;
    Ok(outcome)
}

/// Serves the connections for this long, and counts those that are closed.
fn rest(crowd: &mut Crowd, time: Duration, outcome: &mut Outcome) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        crowd.turn(LONG.min(time), &mut |_, _| Ok(()))?;
        crowd.serve_all(&mut |_, _| Ok(()))?;
        for (_, reason) in crowd.gone.drain(..) {
            *outcome.closed.entry(reason).or_default() += 1;
        }
    }
    Ok(())
}

/// Clients that send a message of some 60 KB, a part every 50 ms, and await its answer.
pub(super) struct Senders {
    crowd: Crowd,
    message: Vec<u8>,
    sent: usize,
    began: Instant,
    next: Instant,
    awaited: u64,
}

impl Senders {
    pub fn open(common: &Common, count: u64) -> Result<Senders> {
        let mut crowd = Crowd::new(common, false)?;
        crowd.open(count, count.max(1), &[], 0)?;
        crowd.tolerant = true;
        let text = format!(r#"{{"type":"ping","id":1,"x":"{}"}}"#, "x".repeat(60_000));
        let now = Instant::now();
        Ok(Senders {
            message: frames::encode(frames::TEXT, text.as_bytes(), crowd.script.mask),
            crowd,
            sent: 0,
            began: now,
            next: now,
            awaited: 0,
        })
    }

    /// Sends due messages, and receives answers.
    pub fn turn(&mut self, outcome: &mut Outcome) -> Result<()> {
        let now = Instant::now();
        if now >= self.next && (self.sent < self.message.len() || self.awaited == 0) {
            if self.sent >= self.message.len() {
                (self.sent, self.began) = (0, now);
            }
            let end = (self.sent + PART).min(self.message.len());
            let part = self.message[self.sent..end].to_vec();
            for index in 0..self.crowd.len() {
                if let Some(conn) = self.crowd.conn(index) {
                    // A connection that has ended is reported by the crowd.
                    let _ = conn.send(&part);
                    self.awaited += u64::from(end == self.message.len());
                }
            }
            (self.sent, self.next) = (end, now + Duration::from_millis(50));
        }
        let (began, awaited) = (self.began, &mut self.awaited);
        self.crowd.turn(Duration::from_millis(2), &mut |_, said| {
            if let Said::Message(_) = said {
                *awaited = awaited.saturating_sub(1);
                outcome.times.push(began.elapsed());
            }
            Ok(())
        })?;
        for (_, reason) in self.crowd.gone.drain(..) {
            if self.sent >= self.message.len() {
                self.awaited = self.awaited.saturating_sub(1);
            }
            *outcome.closed.entry(reason).or_default() += 1;
        }
        Ok(())
    }
}

/// How often connections are looked at that have told nothing.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of a message that are sent at once.
const PART: usize = 10_000;

//! Publishes messages to all connections, or to one connection each.

use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::DeflateDecoder;
use hdrhistogram::Histogram;

use super::tail::TailClients;
use crate::Result;
use crate::cli::FanOut;
use crate::conn::{CloseReason, Conn, ConnEvent};
use crate::frames::Frame;
use crate::pool::{ConnPool, progress};
use crate::publish::Publisher;
use crate::report::{self, Mark, Report};
use crate::server::Server;

use super::slices;

/// A run in progress.
struct Deliveries {
    /// Deliveries still outstanding, over all connections.
    outstanding: u64,
    delivered: u64,
    published: Instant,
    last: Instant,
    /// From publication to each delivery.
    latency: Histogram<u64>,
    /// From publication to the last delivery.
    to_last: Histogram<u64>,
    sample: Sample,
}

/// The last message of the first connection.
#[derive(Default)]
struct Sample {
    text: String,
    bytes: usize,
    compressed: bool,
}

pub(super) fn run(name: &str, args: &FanOut, selective: bool) -> Result<Report> {
    let common = &args.common;
    let count = common.connections;
    if count == 0 {
        return Err("no connections".into());
    }
    let mut pool = ConnPool::new(common, false)?;
    let server = Server::new(common, &pool.target)?;
    pool.open(count, common.opening, &common.hello, common.hello_answers)?;
    let mut publisher = Publisher::new(args, &mut pool)?;
    pool.open_probe(common, &args.probe)?;
    let mut tail = TailClients::start(common, &args.tail, &server)?;

    let mut deliveries = Deliveries::new();
    // Twice, so that costs of the first delivery are not measured.
    for number in 0..2 {
        let whom = selective.then_some(number % count);
        deliveries.round(&mut pool, &mut publisher, args, number, whom)?;
    }
    if common.slices {
        return slices::serve(common, &mut pool, &server, "delivery", |pool, time| {
            deliveries.slice(pool, &mut publisher, args, time)
        });
    }
    let sample = std::mem::take(&mut deliveries.sample);
    deliveries = Deliveries::new();
    if let Some(probe) = &mut pool.probe {
        probe.reset();
    }
    if let Some(tail) = &mut tail {
        tail.measure();
    }
    let mark = Mark::new(server.process, pool.spun)?;
    let bar = progress(if selective { "selective" } else { "fan-out" }, args.rounds);
    for round in 0..args.rounds {
        let whom = selective.then_some(round * STRIDE % count);
        deliveries.round(&mut pool, &mut publisher, args, round + 2, whom)?;
        bar.set_position(round + 1);
        pause(&mut pool, Duration::from_millis(args.pause))?;
    }
    bar.finish_and_clear();
    // The server's work after the last delivery counts, too.
    pause(&mut pool, Duration::from_millis(50))?;
    let span = mark.end(pool.spun)?;

    let mut report = Report::new(name, common);
    report.set("burst", args.burst);
    report.set("rounds", args.rounds);
    report.set("deliveries", deliveries.delivered);
    report.set("delivered_bytes", sample.bytes);
    report.set("delivered_compressed", sample.compressed);
    report.cpu("delivery", span.server, deliveries.delivered);
    report.latency("to_last_us", &deliveries.to_last);
    report.latency("latency_us", &deliveries.latency);
    if let Some(probe) = &mut pool.probe {
        if let Some(waiting) = probe.waiting() {
            report::record(&mut probe.latency, waiting);
        }
        report.latency("probe_us", &probe.latency);
    }
    if let Some(tail) = tail {
        tail.end(&mut report)?;
    }
    report.busy(&span);
    report.set("delivered", sample.text);
    Ok(report)
}

impl Deliveries {
    fn new() -> Deliveries {
        let now = Instant::now();
        Deliveries {
            outstanding: 0,
            delivered: 0,
            published: now,
            last: now,
            latency: report::histogram(),
            to_last: report::histogram(),
            sample: Sample::default(),
        }
    }

    /// Publishes for a while, and at least once.
    fn slice(
        &mut self,
        pool: &mut ConnPool,
        publisher: &mut Publisher,
        args: &FanOut,
        time: Duration,
    ) -> Result<u64> {
        *self = Deliveries::new();
        let began = Instant::now();
        loop {
            self.round(pool, publisher, args, 0, None)?;
            if began.elapsed() >= time {
                break;
            }
        }
        slices::settle(pool)?;
        Ok(self.delivered)
    }

    /// Publishes, and waits until all messages have arrived.
    fn round(
        &mut self,
        pool: &mut ConnPool,
        publisher: &mut Publisher,
        args: &FanOut,
        number: u64,
        whom: Option<u64>,
    ) -> Result<()> {
        let receivers = match whom {
            Some(one) => one..one + 1,
            None => 0..args.common.connections,
        };
        self.outstanding = (receivers.end - receivers.start) * args.burst;
        for index in receivers {
            let conn = pool.conn(usize::try_from(index)?);
            conn.ok_or("a connection is gone")?.outstanding = u32::try_from(args.burst)?;
        }
        let bytes = publisher.prepare(whom.unwrap_or(number), args.burst);
        self.published = Instant::now();
        publisher.send(pool, &bytes)?;
        let mut is_accepted = false;
        while self.outstanding > 0 || !is_accepted {
            pool.turn(Duration::from_millis(20), &mut |conn, event| {
                self.on_event(conn, &event)
            })?;
            is_accepted = is_accepted || publisher.is_accepted()?;
            if self.published.elapsed() > ROUND_TIMEOUT {
                return Err(format!("{} messages did not arrive", self.outstanding).into());
            }
        }
        let last = self.last.duration_since(self.published);
        report::record(&mut self.to_last, last);
        Ok(())
    }

    fn on_event(&mut self, conn: &mut Conn, event: &ConnEvent<'_>) -> Result<(), CloseReason> {
        let ConnEvent::Message(frame) = event else {
            return Ok(());
        };
        if conn.ignored {
            return Ok(());
        }
        conn.outstanding = conn
            .outstanding
            .checked_sub(1)
            .ok_or("an unexpected message")?;
        self.last = Instant::now();
        report::record(&mut self.latency, self.last.duration_since(self.published));
        self.outstanding -= 1;
        self.delivered += 1;
        if self.sample.bytes == 0 {
            self.sample = Sample::of(frame)?;
        }
        Ok(())
    }
}

impl Sample {
    fn of(frame: &Frame<'_>) -> Result<Sample, CloseReason> {
        let text = match frame.compressed {
            false => String::from_utf8_lossy(frame.payload).into_owned(),
            true => {
                // The bytes that a sender omits at the end of a message (RFC 7692, section 7.2.1),
                // then an empty final block to terminate the stream.
                let tail: &[u8] = &[0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];
                let mut text = String::new();
                DeflateDecoder::new(frame.payload.chain(tail))
                    .read_to_string(&mut text)
                    .map_err(|error| format!("a message that is not DEFLATE: {error}"))?;
                text
            }
        };
        Ok(Sample {
            text,
            bytes: frame.payload.len(),
            compressed: frame.compressed,
        })
    }
}

fn pause(pool: &mut ConnPool, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        pool.turn(Duration::from_millis(1), &mut |conn, event| match event {
            ConnEvent::Message(_) if !conn.ignored => Err("an unexpected message".into()),
            _ => Ok(()),
        })?;
    }
    Ok(())
}

/// The step from one receiver of a selective event to the next: a prime, so that all connections
/// get their turn.
const STRIDE: u64 = 7919;

/// The time limit of one round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

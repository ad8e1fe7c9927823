//! Opens connections and closes them as soon as they are open.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::tail::TailClients;
use crate::Result;
use crate::cli::Handshake;
use crate::conn::ConnEvent;
use crate::pool::{ConnPool, MAX_WAIT, progress};
use crate::report::{self, Mark, Report};
use crate::server::Server;

use super::slices;

/// A run in progress.
struct Handshakes {
    /// The index of the first slot for short-lived connections.
    base: usize,
    began: Vec<Instant>,
    /// Slots with an open connection.
    opened: Vec<usize>,
    latency: Histogram<u64>,
    resumed: u64,
    failed: u64,
    failure: String,
}

/// Runs the mode beside `stay` long-lived connections.
pub(super) fn run(name: &str, args: &Handshake, stay: u64) -> Result<Report> {
    let common = &args.common;
    let mut pool = ConnPool::new(common, args.resume)?;
    let server = Server::new(common, &pool.target)?;
    pool.open(stay, common.opening, &common.hello, common.hello_answers)?;
    pool.open_probe(common, &args.probe)?;
    let mut tail = TailClients::start(common, &args.tail, &server)?;
    let mut handshakes = Handshakes {
        base: pool.len(),
        began: vec![Instant::now(); usize::try_from(args.concurrent)?],
        opened: Vec::new(),
        latency: report::histogram(),
        resumed: 0,
        failed: 0,
        failure: String::new(),
    };
    pool.tolerant = true;
    if common.slices {
        return slices::serve(common, &mut pool, &server, "handshake", |pool, time| {
            handshakes.slice(pool, time)
        });
    }
    for place in 0..handshakes.began.len() {
        handshakes.begin(&mut pool, place)?;
    }
    handshakes.go(&mut pool, "warm-up", Duration::from_secs(args.warm_up))?;
    handshakes.latency.reset();
    handshakes.resumed = 0;
    handshakes.failed = 0;
    if let Some(probe) = &mut pool.probe {
        probe.reset();
    }
    if let Some(tail) = &mut tail {
        tail.measure();
    }
    let mark = Mark::new(server.process, pool.spun)?;
    handshakes.go(&mut pool, "handshakes", Duration::from_secs(args.seconds))?;
    let span = mark.end(pool.spun)?;

    let done = handshakes.latency.len();
    if done == 0 {
        return Err(format!("no handshake succeeded: {}", handshakes.failure).into());
    }
    let mut report = Report::new(name, common);
    report.set("stayed_open", stay);
    report.set("handshakes", done);
    report.set("failed", handshakes.failed);
    if handshakes.failed > 0 {
        report.note(format!("Last failure: {}", handshakes.failure));
    }
    if pool.target.tls.is_some() {
        let percent = handshakes.resumed as f64 * 100.0 / done as f64;
        report.number("resumed_percent", percent);
    }
    report.number("handshakes_per_s", done as f64 / span.wall);
    report.cpu("handshake", span.server, done);
    report.latency("latency_us", &handshakes.latency);
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
    Ok(report)
}

impl Handshakes {
    fn begin(&mut self, pool: &mut ConnPool, place: usize) -> Result<()> {
        if let Some(began) = self.began.get_mut(place) {
            *began = Instant::now();
        }
        pool.begin(self.base + place, u64::try_from(place)?)
    }

    fn go(&mut self, pool: &mut ConnPool, what: &'static str, time: Duration) -> Result<()> {
        let began = Instant::now();
        let bar = progress(what, time.as_secs());
        while began.elapsed() < time {
            self.turn(pool)?;
            self.replace(pool)?;
            bar.set_position(began.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Opens connections for a while, and then waits for the last ones.
    fn slice(&mut self, pool: &mut ConnPool, time: Duration) -> Result<u64> {
        self.latency.reset();
        let failed = self.failed;
        for place in 0..self.began.len() {
            self.begin(pool, place)?;
        }
        self.go(pool, "slice", time)?;
        let last = self.latency.len() + self.began.len() as u64;
        let end = Instant::now() + HANDSHAKE_TIMEOUT;
        while self.latency.len() < last {
            self.turn(pool)?;
            self.opened.drain(..).for_each(|place| {
                pool.drop_conn(self.base + place);
            });
            if Instant::now() > end || !pool.closed.is_empty() {
                return Err("a handshake did not complete".into());
            }
        }
        slices::settle(pool)?;
        match self.failed - failed {
            0 => Ok(self.latency.len()),
            count => Err(format!("{count} handshakes failed: {}", self.failure).into()),
        }
    }

    /// Serves the ready connections, and collects those that are open.
    fn turn(&mut self, pool: &mut ConnPool) -> Result<()> {
        let Handshakes {
            opened,
            latency,
            began: starts,
            resumed,
            ..
        } = self;
        pool.turn(MAX_WAIT, &mut |conn, event| {
            if let ConnEvent::Open = event
                && let Ok(place) = usize::try_from(conn.number)
                && let Some(start) = starts.get(place)
            {
                report::record(latency, start.elapsed());
                *resumed += u64::from(conn.is_resumed());
                opened.push(place);
            }
            Ok(())
        })
    }

    /// Closes the open connections and begins as many new ones.
    fn replace(&mut self, pool: &mut ConnPool) -> Result<()> {
        for place in std::mem::take(&mut self.opened) {
            if pool.drop_conn(self.base + place) {
                self.begin(pool, place)?;
            }
        }
        for (index, reason) in std::mem::take(&mut pool.closed) {
            let Some(place) = index.checked_sub(self.base) else {
                return Err(format!("a long-lived connection ended: {reason}").into());
            };
            self.failed += 1;
            self.failure = reason;
            if self.failed > MAX_FAILURES {
                return Err(format!("too many failures; last: {}", self.failure).into());
            }
            self.begin(pool, place)?;
        }
        Ok(())
    }
}

/// The time limit for the handshakes in progress at the end of a slice.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

const MAX_FAILURES: u64 = 10_000;

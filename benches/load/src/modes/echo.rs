//! Sends a message on each connection, waits for its response, and sends the next: one at a time,
//! or several in one write.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cli::Echo;
use crate::conn::{CloseReason, Conn, ConnEvent};
use crate::frames::{self, CONTINUATION};
use crate::pool::{ConnPool, MAX_WAIT, progress};
use crate::report::{self, Mark, Report};
use crate::server::Server;
use crate::{Error, Result};

use super::slices;

/// A run in progress.
struct Echoes {
    batch: Vec<u8>,
    depth: u32,
    expect: Vec<u8>,
    /// When each connection's batch was sent, or was due.
    sent: Vec<Instant>,
    latency: Histogram<u64>,
    /// Whether a response triggers the next batch at once.
    closed_loop: bool,
    /// Batches sent in this slice.
    begun: u64,
}

pub(super) fn run(name: &str, args: &Echo, depth: u64) -> Result<Report> {
    let common = &args.common;
    if common.connections == 0 {
        return Err("no connections".into());
    }
    let mut pool = ConnPool::new(common, false)?;
    let server = Server::new(common, &pool.target)?;
    let start = server.resident()?;
    pool.open(
        common.connections,
        common.opening,
        &common.hello,
        common.hello_answers,
    )?;
    pool.open_probe(common, &args.probe)?;

    let text = args.payload.text();
    let frame = frames::encode(frames::TEXT, text.as_bytes(), pool.script.mask);
    let mut echoes = Echoes {
        batch: (0..depth).flat_map(|_| frame.clone()).collect(),
        depth: u32::try_from(depth)?,
        expect: args.expect.clone().unwrap_or(text).into_bytes(),
        sent: vec![Instant::now(); usize::try_from(common.connections)?],
        latency: report::histogram(),
        closed_loop: args.rate == 0,
        begun: 0,
    };
    if common.slices {
        return slices::serve(common, &mut pool, &server, "message", |pool, time| {
            echoes.slice(pool, args, time)
        });
    }
    if echoes.closed_loop {
        echoes.begin(&mut pool)?;
    }
    echoes.go(
        &mut pool,
        args,
        "warm-up",
        Duration::from_secs(args.warm_up),
    )?;
    echoes.latency.reset();
    if let Some(probe) = &mut pool.probe {
        probe.reset();
    }
    let warm = server.resident()?;
    let mark = Mark::new(server.process, pool.spun)?;
    echoes.go(
        &mut pool,
        args,
        name_of(depth),
        Duration::from_secs(args.seconds),
    )?;
    let span = mark.end(pool.spun)?;

    let mut report = Report::new(name, common);
    let messages = echoes.latency.len() * depth;
    if messages == 0 {
        return Err("no responses were received".into());
    }
    report.set("depth", depth);
    report.set("messages", messages);
    report.number("messages_per_s", messages as f64 / span.wall);
    report.cpu("message", span.server, messages);
    report.latency("latency_us", &echoes.latency);
    if let Some(probe) = &pool.probe {
        report.latency("probe_us", &probe.latency);
    }
    if let (Some(start), Some(warm), Some(end)) = (start, warm, server.resident()?) {
        report.set("resident_at_start", start);
        report.set("resident_after_warm_up", warm);
        report.set("resident_at_end", end);
    }
    report.busy(&span);
    Ok(report)
}

fn name_of(depth: u64) -> &'static str {
    if depth == 1 { "echo" } else { "pipelined" }
}

impl Echoes {
    fn begin(&mut self, pool: &mut ConnPool) -> Result<()> {
        for index in 0..self.sent.len() {
            let conn = pool.conn(index).ok_or("a connection has ended")?;
            self.send(conn, Instant::now())?;
        }
        Ok(())
    }

    fn send(&mut self, conn: &mut Conn, due: Instant) -> Result<(), CloseReason> {
        conn.outstanding = self.depth;
        self.begun += 1;
        if let Some(sent) = self
            .sent
            .get_mut(usize::try_from(conn.number).unwrap_or(usize::MAX))
        {
            *sent = due;
        }
        conn.send(&self.batch)
    }

    /// Runs a closed loop for a while, and then waits for all responses, so that the server's CPU
    /// time belongs to exactly the counted messages.
    fn slice(&mut self, pool: &mut ConnPool, args: &Echo, time: Duration) -> Result<u64> {
        self.latency.reset();
        self.closed_loop = true;
        self.begin(pool)?;
        self.go(pool, args, "slice", time)?;
        self.closed_loop = false;
        let end = Instant::now() + RESPONSE_TIMEOUT;
        while self.latency.len() < self.begun {
            pool.turn(MAX_WAIT, &mut |conn, event| self.on_event(conn, &event))?;
            if Instant::now() > end {
                return Err("a response did not arrive".into());
            }
        }
        slices::settle(pool)?;
        self.begun = 0;
        Ok(self.latency.len() * u64::from(self.depth))
    }

    fn go(
        &mut self,
        pool: &mut ConnPool,
        args: &Echo,
        what: &'static str,
        time: Duration,
    ) -> Result<()> {
        let began = Instant::now();
        let bar = progress(what, time.as_secs());
        let mut pace = Pace::new(args.rate, u64::from(self.depth));
        while began.elapsed() < time {
            let wait = match self.closed_loop {
                true => MAX_WAIT,
                false => self.send_due(pool, &mut pace)?,
            };
            pool.turn(wait.min(MAX_WAIT), &mut |conn, event| {
                self.on_event(conn, &event)
            })?;
            bar.set_position(began.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn on_event(&mut self, conn: &mut Conn, event: &ConnEvent<'_>) -> Result<(), CloseReason> {
        let ConnEvent::Message(frame) = event else {
            return Ok(());
        };
        let is_whole = frame.opcode != CONTINUATION && !frame.compressed;
        if is_whole && frame.payload != self.expect {
            let text = String::from_utf8_lossy(frame.payload);
            return Err(format!("unexpected response: {text}"));
        }
        conn.outstanding = conn
            .outstanding
            .checked_sub(1)
            .ok_or("more responses than requests")?;
        if conn.outstanding > 0 {
            return Ok(());
        }
        let now = Instant::now();
        let place = usize::try_from(conn.number).unwrap_or(usize::MAX);
        let sent = self.sent.get(place).copied().unwrap_or(now);
        report::record(&mut self.latency, now.duration_since(sent));
        match self.closed_loop {
            true => self.send(conn, now),
            false => Ok(()),
        }
    }

    /// Sends the batches that are due, on one connection after the other. A connection with an
    /// outstanding batch is not skipped: its latency counts from the time it was due.
    fn send_due(&mut self, pool: &mut ConnPool, pace: &mut Pace) -> Result<Duration> {
        loop {
            let now = Instant::now();
            if pace.due > now {
                return Ok(pace.due - now);
            }
            let index = pace.next % self.sent.len();
            let conn = pool
                .conn(index)
                .ok_or_else(|| Error::from("a connection has ended"))?;
            if conn.outstanding > 0 {
                return Ok(Duration::from_millis(1));
            }
            self.send(conn, pace.due)?;
            pace.next += 1;
            pace.due += pace.every;
        }
    }
}

/// The time limit for the responses outstanding at the end of a slice.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Schedules batches at a fixed rate.
struct Pace {
    due: Instant,
    every: Duration,
    next: usize,
}

impl Pace {
    fn new(rate: u64, depth: u64) -> Pace {
        let seconds = depth as f64 / rate.max(1) as f64;
        Pace {
            due: Instant::now(),
            every: Duration::from_secs_f64(seconds),
            next: 0,
        }
    }
}

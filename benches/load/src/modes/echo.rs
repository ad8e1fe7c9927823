//! A message on each connection, its answer, and the next: one at a time, or several in one
//! write.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cli::Echo;
use crate::conn::{Conn, Gone, Said};
use crate::crowd::{Crowd, LONG, progress};
use crate::frames::{self, CONTINUATION};
use crate::report::{self, Mark, Report};
use crate::server::Server;
use crate::{Error, Result};

/// A run under way.
struct Echoes {
    batch: Vec<u8>,
    depth: u32,
    expect: Vec<u8>,
    /// When each connection's batch was sent, or was due.
    sent: Vec<Instant>,
    latency: Histogram<u64>,
    /// Whether an answer lets the next batch go at once.
    closed_loop: bool,
}

pub(super) fn run(name: &str, args: &Echo, depth: u64) -> Result<Report> {
    let common = &args.common;
    if common.connections == 0 {
        return Err("no connections".into());
    }
    let mut crowd = Crowd::new(common, false)?;
    let server = Server::new(common, &crowd.target)?;
    let start = server.resident()?;
    crowd.open(
        common.connections,
        common.opening,
        &common.hello,
        common.hello_answers,
    )?;
    crowd.open_watch(common, &args.probe)?;

    let text = args.payload.text();
    let frame = frames::encode(frames::TEXT, text.as_bytes(), crowd.script.mask);
    let mut echoes = Echoes {
        batch: (0..depth).flat_map(|_| frame.clone()).collect(),
        depth: u32::try_from(depth)?,
        expect: args.expect.clone().unwrap_or(text).into_bytes(),
        sent: vec![Instant::now(); usize::try_from(common.connections)?],
        latency: report::histogram(),
        closed_loop: args.rate == 0,
    };
    if echoes.closed_loop {
        echoes.begin(&mut crowd)?;
    }
    echoes.go(&mut crowd, args, "warm-up", args.warm_up)?;
    echoes.latency.reset();
    if let Some(watch) = &mut crowd.watch {
        watch.reset();
    }
    let warm = server.resident()?;
    let mark = Mark::new(server.process, crowd.spun)?;
    echoes.go(&mut crowd, args, name_of(depth), args.seconds)?;
    let span = mark.end(crowd.spun)?;

    let mut report = Report::new(name, common);
    let messages = echoes.latency.len() * depth;
    if messages == 0 {
        return Err("nothing was answered".into());
    }
    report.set("depth", depth);
    report.set("messages", messages);
    report.number("messages_per_s", messages as f64 / span.wall);
    report.cpu("message", span.server, messages);
    report.latency("latency_us", &echoes.latency);
    if let Some(watch) = &crowd.watch {
        report.latency("probe_us", &watch.latency);
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
    fn begin(&mut self, crowd: &mut Crowd) -> Result<()> {
        for index in 0..self.sent.len() {
            let conn = crowd.conn(index).ok_or("a connection is gone")?;
            self.send(conn, Instant::now())?;
        }
        Ok(())
    }

    fn send(&mut self, conn: &mut Conn, due: Instant) -> Result<(), Gone> {
        conn.awaited = self.depth;
        if let Some(sent) = self
            .sent
            .get_mut(usize::try_from(conn.number).unwrap_or(usize::MAX))
        {
            *sent = due;
        }
        conn.send(&self.batch)
    }

    fn go(
        &mut self,
        crowd: &mut Crowd,
        args: &Echo,
        what: &'static str,
        seconds: u64,
    ) -> Result<()> {
        let began = Instant::now();
        let end = Duration::from_secs(seconds);
        let bar = progress(what, seconds);
        let mut pace = Pace::new(args.rate, u64::from(self.depth));
        while began.elapsed() < end {
            let wait = match self.closed_loop {
                true => LONG,
                false => self.send_due(crowd, &mut pace)?,
            };
            crowd.turn(wait.min(LONG), &mut |conn, said| self.said(conn, &said))?;
            bar.set_position(began.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn said(&mut self, conn: &mut Conn, said: &Said<'_>) -> Result<(), Gone> {
        let Said::Message(frame) = said else {
            return Ok(());
        };
        let is_whole = frame.opcode != CONTINUATION && !frame.compressed;
        if is_whole && frame.payload != self.expect {
            let text = String::from_utf8_lossy(frame.payload);
            return Err(format!("an answer that was not expected: {text}"));
        }
        conn.awaited = conn.awaited.checked_sub(1).ok_or("an answer too many")?;
        if conn.awaited > 0 {
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

    /// Sends what is due by now, on one connection after the other. One that still waits is
    /// not passed over: its time counts from when it was due.
    fn send_due(&mut self, crowd: &mut Crowd, pace: &mut Pace) -> Result<Duration> {
        loop {
            let now = Instant::now();
            if pace.due > now {
                return Ok(pace.due - now);
            }
            let index = pace.next % self.sent.len();
            let conn = crowd
                .conn(index)
                .ok_or_else(|| Error::from("a connection is gone"))?;
            if conn.awaited > 0 {
                return Ok(Duration::from_millis(1));
            }
            self.send(conn, pace.due)?;
            pace.next += 1;
            pace.due += pace.every;
        }
    }
}

/// When the next batch is due, where there is a rate.
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

//! Connections opened, and ended as soon as they are open.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::cli::Handshake;
use crate::conn::Said;
use crate::crowd::{Crowd, LONG, progress};
use crate::report::{self, Mark, Report};
use crate::server::Server;

/// A run under way.
struct Handshakes {
    /// Where the places for connections that come and go begin.
    base: usize,
    began: Vec<Instant>,
    /// Places whose connection is open.
    opened: Vec<usize>,
    latency: Histogram<u64>,
    resumed: u64,
    failed: u64,
    failure: String,
}

/// Runs it, beside so many connections that stay.
pub(super) fn run(name: &str, args: &Handshake, stay: u64) -> Result<Report> {
    let common = &args.common;
    let mut crowd = Crowd::new(common, args.resume)?;
    let server = Server::new(common, &crowd.target)?;
    crowd.open(stay, common.opening, &common.hello, common.hello_answers)?;
    crowd.open_watch(common, &args.probe)?;
    let mut handshakes = Handshakes {
        base: crowd.len(),
        began: vec![Instant::now(); usize::try_from(args.concurrent)?],
        opened: Vec::new(),
        latency: report::histogram(),
        resumed: 0,
        failed: 0,
        failure: String::new(),
    };
    crowd.tolerant = true;
    for place in 0..handshakes.began.len() {
        handshakes.begin(&mut crowd, place)?;
    }
    handshakes.go(&mut crowd, "warm-up", args.warm_up)?;
    handshakes.latency.reset();
    handshakes.resumed = 0;
    handshakes.failed = 0;
    if let Some(watch) = &mut crowd.watch {
        watch.reset();
    }
    let mark = Mark::new(server.process, crowd.spun)?;
    handshakes.go(&mut crowd, "handshakes", args.seconds)?;
    let span = mark.end(crowd.spun)?;

    let done = handshakes.latency.len();
    if done == 0 {
        return Err(format!("no handshake was done: {}", handshakes.failure).into());
    }
    let mut report = Report::new(name, common);
    report.set("stayed_open", stay);
    report.set("handshakes", done);
    report.set("failed", handshakes.failed);
    if handshakes.failed > 0 {
        report.note(format!("The last failure: {}", handshakes.failure));
    }
    if crowd.target.tls.is_some() {
        let percent = handshakes.resumed as f64 * 100.0 / done as f64;
        report.number("resumed_percent", percent);
    }
    report.number("handshakes_per_s", done as f64 / span.wall);
    report.cpu("handshake", span.server, done);
    report.latency("latency_us", &handshakes.latency);
    if let Some(watch) = &mut crowd.watch {
        if let Some(waiting) = watch.waiting() {
            report::record(&mut watch.latency, waiting);
        }
        report.latency("probe_us", &watch.latency);
    }
    report.busy(&span);
    Ok(report)
}

impl Handshakes {
    fn begin(&mut self, crowd: &mut Crowd, place: usize) -> Result<()> {
        if let Some(began) = self.began.get_mut(place) {
            *began = Instant::now();
        }
        crowd.begin(self.base + place, u64::try_from(place)?)
    }

    fn go(&mut self, crowd: &mut Crowd, what: &'static str, seconds: u64) -> Result<()> {
        let began = Instant::now();
        let bar = progress(what, seconds);
        while began.elapsed() < Duration::from_secs(seconds) {
            let Handshakes {
                opened,
                latency,
                began: starts,
                resumed,
                ..
            } = self;
            crowd.turn(LONG, &mut |conn, said| {
                if let Said::Open = said
                    && let Ok(place) = usize::try_from(conn.number)
                    && let Some(start) = starts.get(place)
                {
                    report::record(latency, start.elapsed());
                    *resumed += u64::from(conn.is_resumed());
                    opened.push(place);
                }
                Ok(())
            })?;
            self.replace(crowd)?;
            bar.set_position(began.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Ends what is open, and begins as many anew.
    fn replace(&mut self, crowd: &mut Crowd) -> Result<()> {
        for place in std::mem::take(&mut self.opened) {
            if crowd.drop_conn(self.base + place) {
                self.begin(crowd, place)?;
            }
        }
        for (index, reason) in std::mem::take(&mut crowd.gone) {
            let Some(place) = index.checked_sub(self.base) else {
                return Err(format!("a connection that should stay: {reason}").into());
            };
            self.failed += 1;
            self.failure = reason;
            if self.failed > MOST_FAILURES {
                return Err(format!("too many failures; the last: {}", self.failure).into());
            }
            self.begin(crowd, place)?;
        }
        Ok(())
    }
}

const MOST_FAILURES: u64 = 10_000;

//! Idle connections: memory per connection, and CPU over time.

use std::thread;
use std::time::{Duration, Instant};

use super::tail::TailClients;
use crate::Result;
use crate::cli::Idle;
use crate::pool::{ConnPool, MAX_WAIT, progress};
use crate::report::{self, Mark, Report};
use crate::server::Server;

use super::slices;

pub(super) fn run(name: &str, args: &Idle) -> Result<Report> {
    let common = &args.common;
    let mut pool = ConnPool::new(common, false)?;
    let server = Server::new(common, &pool.target)?;
    let mut report = Report::new(name, common);
    let (hello, answers) = match args.large {
        0 => (common.hello.clone(), common.hello_answers),
        large => {
            let large = "x".repeat(usize::try_from(large)?);
            let hello = [common.hello.clone(), vec![large]].concat();
            (hello, common.hello_answers + 1)
        }
    };

    pool.open_probe(common, &args.probe)?;
    let mut tail = TailClients::start(common, &args.tail, &server)?;
    let start = server.resident()?;
    // The first connections pay for one-time costs: pages of code, buffers, tables.
    let warm = common.connections / 10;
    pool.open(warm, common.opening, &hello, answers)?;
    rest(&mut pool, QUIET)?;
    let before = server.resident()?;
    if let Some(tail) = &mut tail {
        tail.measure();
    }
    let opening = Mark::new(server.process, Duration::ZERO)?;
    pool.open(common.connections - warm, common.opening, &hello, answers)?;
    let opened = opening.end(Duration::ZERO)?;
    if let Some(tail) = tail {
        // Before the memory is read, which delays the server.
        tail.end(&mut report)?;
    }
    rest(&mut pool, QUIET)?;
    if let (Some(start), Some(before), Some(full)) = (start, before, server.resident()?) {
        let slope = (full - before) / (common.connections - warm).max(1) as f64;
        report.number("bytes_per_connection", slope);
        report.set("resident_at_start", start);
        report.set("resident_with_all", full);
    }
    report.cpu("connection", opened.server, common.connections - warm);
    report.number("opened_s", opened.wall);
    if let Some(probe) = &mut pool.probe {
        if let Some(waiting) = probe.waiting() {
            report::record(&mut probe.latency, waiting);
        }
        report.latency("probe_us", &probe.latency);
    }

    if common.slices {
        return slices::serve(common, &mut pool, &server, "ping", |pool, time| {
            let (pongs, began) = (pool.pongs(), Instant::now());
            while began.elapsed() < time {
                pool.turn(MAX_WAIT.min(time), &mut |_, _| Ok(()))?;
            }
            Ok(pool.pongs() - pongs)
        });
    }
    if args.hold > 0 {
        hold(args, &mut pool, &server, &mut report)?;
    }
    if args.leave {
        let count = pool.len();
        for index in 0..count {
            match index % 2 {
                0 => drop(pool.drop_conn(index)),
                _ => pool.end_conn(index),
            }
        }
        thread::sleep(Duration::from_secs(args.settle));
        if let (Some(start), Some(end)) = (start, server.resident()?) {
            report.set("resident_after_all_left", end);
            report.set("resident_growth", end - start);
        }
    }
    Ok(report)
}

/// Holds the connections and answers pings.
fn hold(args: &Idle, pool: &mut ConnPool, server: &Server, report: &mut Report) -> Result<()> {
    let pongs = pool.pongs();
    let span = Mark::new(server.process, pool.spun)?;
    let bar = progress("holding", args.hold);
    while span.elapsed() < Duration::from_secs(args.hold) {
        pool.turn(MAX_WAIT, &mut |_, _| Ok(()))?;
        bar.set_position(span.elapsed().as_secs());
    }
    bar.finish_and_clear();
    let span = span.end(pool.spun)?;
    let pings = pool.pongs() - pongs;
    report.number("held_s", span.wall);
    report.set("pings_answered", pings);
    if let Some(cpu) = span.server {
        report.number("server_cpu_ms_held", cpu.total / 1e6);
        report.number("server_user_ms_held", cpu.user / 1e6);
    }
    if pings > 0 {
        report.cpu("ping", span.server, pings);
    }
    report.busy(&span);
    Ok(())
}

/// Gives the server time to finish deferred work.
fn rest(pool: &mut ConnPool, time: Duration) -> Result<()> {
    let began = std::time::Instant::now();
    while began.elapsed() < time {
        pool.turn(Duration::from_millis(20), &mut |_, _| Ok(()))?;
    }
    Ok(())
}

const QUIET: Duration = Duration::from_millis(500);

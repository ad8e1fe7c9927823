//! Messages published, and who must get them: everybody, or one.

use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::DeflateDecoder;
use hdrhistogram::Histogram;

use crate::Result;
use crate::cli::FanOut;
use crate::conn::{Conn, Gone, Said};
use crate::crowd::{Crowd, progress};
use crate::frames::Frame;
use crate::publish::Publisher;
use crate::report::{self, Mark, Report};
use crate::server::Server;

/// A run under way.
struct Deliveries {
    /// Messages still to come, to all.
    awaited: u64,
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
    let mut crowd = Crowd::new(common, false)?;
    let server = Server::new(common, &crowd.target)?;
    crowd.open(count, common.opening, &common.hello, common.hello_answers)?;
    let mut publisher = Publisher::new(args, &mut crowd)?;
    crowd.open_watch(common, &args.probe)?;

    let mut deliveries = Deliveries::new();
    // Twice for what the first time costs more.
    for number in 0..2 {
        let whom = selective.then_some(number % count);
        deliveries.round(&mut crowd, &mut publisher, args, number, whom)?;
    }
    let sample = std::mem::take(&mut deliveries.sample);
    deliveries = Deliveries::new();
    if let Some(watch) = &mut crowd.watch {
        watch.reset();
    }
    let mark = Mark::new(server.process, crowd.spun)?;
    let bar = progress(if selective { "selective" } else { "fan-out" }, args.rounds);
    for round in 0..args.rounds {
        let whom = selective.then_some(round * STRIDE % count);
        deliveries.round(&mut crowd, &mut publisher, args, round + 2, whom)?;
        bar.set_position(round + 1);
        pause(&mut crowd, Duration::from_millis(args.pause))?;
    }
    bar.finish_and_clear();
    // What the server does after the last delivery counts, too.
    pause(&mut crowd, Duration::from_millis(50))?;
    let span = mark.end(crowd.spun)?;

    let mut report = Report::new(name, common);
    report.set("burst", args.burst);
    report.set("rounds", args.rounds);
    report.set("deliveries", deliveries.delivered);
    report.set("delivered_bytes", sample.bytes);
    report.set("delivered_compressed", sample.compressed);
    report.cpu("delivery", span.server, deliveries.delivered);
    report.latency("to_last_us", &deliveries.to_last);
    report.latency("latency_us", &deliveries.latency);
    if let Some(watch) = &mut crowd.watch {
        if let Some(waiting) = watch.waiting() {
            report::record(&mut watch.latency, waiting);
        }
        report.latency("probe_us", &watch.latency);
    }
    report.busy(&span);
    report.set("delivered", sample.text);
    Ok(report)
}

impl Deliveries {
    fn new() -> Deliveries {
        let now = Instant::now();
        Deliveries {
            awaited: 0,
            delivered: 0,
            published: now,
            last: now,
            latency: report::histogram(),
            to_last: report::histogram(),
            sample: Sample::default(),
        }
    }

    /// Publishes, and waits until all have got it.
    fn round(
        &mut self,
        crowd: &mut Crowd,
        publisher: &mut Publisher,
        args: &FanOut,
        number: u64,
        whom: Option<u64>,
    ) -> Result<()> {
        let receivers = match whom {
            Some(one) => one..one + 1,
            None => 0..args.common.connections,
        };
        self.awaited = (receivers.end - receivers.start) * args.burst;
        for index in receivers {
            let conn = crowd.conn(usize::try_from(index)?);
            conn.ok_or("a connection is gone")?.awaited = u32::try_from(args.burst)?;
        }
        let bytes = publisher.prepare(whom.unwrap_or(number), args.burst);
        self.published = Instant::now();
        publisher.send(crowd, &bytes)?;
        let mut is_accepted = false;
        while self.awaited > 0 || !is_accepted {
            crowd.turn(Duration::from_millis(20), &mut |conn, said| {
                self.said(conn, &said)
            })?;
            is_accepted = is_accepted || publisher.is_accepted()?;
            if self.published.elapsed() > ROUND_TIMEOUT {
                return Err(format!("{} messages never came", self.awaited).into());
            }
        }
        let last = self.last.duration_since(self.published);
        report::record(&mut self.to_last, last);
        Ok(())
    }

    fn said(&mut self, conn: &mut Conn, said: &Said<'_>) -> Result<(), Gone> {
        let Said::Message(frame) = said else {
            return Ok(());
        };
        if conn.ignored {
            return Ok(());
        }
        conn.awaited = conn.awaited.checked_sub(1).ok_or("a message too many")?;
        self.last = Instant::now();
        report::record(&mut self.latency, self.last.duration_since(self.published));
        self.awaited -= 1;
        self.delivered += 1;
        if self.sample.bytes == 0 {
            self.sample = Sample::of(frame)?;
        }
        Ok(())
    }
}

impl Sample {
    fn of(frame: &Frame<'_>) -> Result<Sample, Gone> {
        let text = match frame.compressed {
            false => String::from_utf8_lossy(frame.payload).into_owned(),
            true => {
                // What a sender leaves out at the end of a message (RFC 7692, section 7.2.1);
                // then an empty last block, so that the stream has an end.
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

fn pause(crowd: &mut Crowd, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        crowd.turn(Duration::from_millis(1), &mut |conn, said| match said {
            Said::Message(_) if !conn.ignored => Err("a message too many".into()),
            _ => Ok(()),
        })?;
    }
    Ok(())
}

/// From one receiver of a selective event to the next: a prime, so that all have their turn.
const STRIDE: u64 = 7919;

/// How long one round may take.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

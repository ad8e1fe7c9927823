//! Holds connections and records when each numbered event arrives at each of them.
//!
//! Several processes of this mode together hold more connections than one process has descriptors.
//! Times are those of the system's monotonic clock, which all processes on a machine share.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::Result;
use crate::cli::Watch;
use crate::conn::{CloseReason, ConnEvent};
use crate::pool::ConnPool;
use crate::report::Report;
use crate::server::Server;

pub(super) fn run(name: &str, args: &Watch) -> Result<Report> {
    let common = &args.common;
    let mut pool = ConnPool::new(common, false)?;
    // Keeps a server that was started for this run.
    let _server = Server::new(common, &pool.target)?;
    pool.first = args.first;
    let began = Instant::now();
    pool.open(
        common.connections,
        common.opening,
        &common.hello,
        common.hello_answers,
    )?;
    let opened = began.elapsed();
    println!("ready {:.3}", opened.as_secs_f64());
    io::stdout().flush()?;

    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    thread::spawn(move || {
        // An error ends the run, too.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
    });
    let mut arrivals = Arrivals::default();
    let marker = args.marker.as_bytes();
    while !is_over.load(Ordering::Relaxed) {
        pool.turn(WAIT, &mut |_, event| match event {
            ConnEvent::Message(frame) => arrivals.add(frame.payload, marker),
            ConnEvent::Open => Ok(()),
        })?;
    }
    let mut report = Report::new(name, common);
    report.number("opened_s", opened.as_secs_f64());
    report.set("pongs", pool.pongs());
    report.set("arrivals_ns", arrivals.report());
    Ok(report)
}

/// The arrival times of each event, in nanoseconds of the monotonic clock.
#[derive(Default)]
struct Arrivals(BTreeMap<u64, Vec<u64>>);

impl Arrivals {
    fn add(&mut self, payload: &[u8], marker: &[u8]) -> Result<(), CloseReason> {
        // Responses to the first messages have no number.
        if let Some(number) = number(payload, marker) {
            self.0.entry(number).or_default().push(now()?);
        }
        Ok(())
    }

    fn report(&self) -> Value {
        let numbered = self.0.iter();
        Value::Object(
            numbered
                .map(|(number, times)| (number.to_string(), json!(times)))
                .collect(),
        )
    }
}

/// Returns the six digits after the marker as a number.
fn number(payload: &[u8], marker: &[u8]) -> Option<u64> {
    let mut windows = payload.windows(marker.len().max(1));
    let after = windows.position(|window| window == marker)? + marker.len();
    let digits = payload.get(after..after + 6)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn now() -> Result<u64, CloseReason> {
    let time = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanos).map_err(|error| error.to_string())
}

/// The maximum time between two checks for the end of standard input.
const WAIT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_recorded_by_number() {
        let mut arrivals = Arrivals::default();
        for text in [
            "event-000012",
            "an event-000012.",
            "event-x",
            "event-12",
            "",
        ] {
            arrivals.add(text.as_bytes(), b"event-").unwrap();
        }
        let counts: Vec<_> = arrivals.0.iter().map(|(n, at)| (*n, at.len())).collect();
        assert_eq!(counts, [(12, 2)]);
    }
}

//! Samples the server's resident memory and its own memory accounting during a run.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Result;
use crate::poster::Endpoint;
use crate::process::Process;

/// The samples of `/metrics`: values by name and labels.
pub type Metrics = BTreeMap<String, f64>;

/// A thread that takes samples several times per second.
pub struct Sampler {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

/// Results of the thread.
#[derive(Default)]
pub struct Samples {
    /// The peak of resident memory in bytes, and the accounts at about that time.
    pub peak: f64,
    pub at_peak: Metrics,
    /// The highest value of each memory gauge.
    pub most: Metrics,
}

impl Sampler {
    /// Starts the thread.
    pub fn start(process: Option<Process>, endpoint: Option<Endpoint>) -> Sampler {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut samples = Samples::default();
            while !over.load(Ordering::Relaxed) {
                samples.take(process, endpoint.as_ref());
                thread::sleep(EVERY);
            }
            samples
        });
        Sampler { is_over, thread }
    }

    /// Stops the thread and returns its results.
    pub fn end(self) -> Samples {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

impl Samples {
    fn take(&mut self, process: Option<Process>, endpoint: Option<&Endpoint>) {
        let before = process.and_then(resident).unwrap_or(0.0);
        // If the server does not respond now, only its memory is sampled.
        let metrics = endpoint.and_then(|endpoint| metrics(endpoint).ok());
        let after = process.and_then(resident).unwrap_or(0.0);
        for (name, value) in metrics
            .iter()
            .flatten()
            .filter(|(name, _)| is_account(name))
        {
            let most = self.most.entry(name.clone()).or_default();
            *most = most.max(*value);
        }
        if before.max(after) > self.peak {
            self.peak = before.max(after);
            let accounts = metrics.into_iter().flatten();
            self.at_peak = accounts.filter(|(name, _)| is_account(name)).collect();
        }
    }
}

/// Returns whether a metric is one of the server's memory accounts, none of which includes another.
pub fn is_account(name: &str) -> bool {
    name.starts_with("h_realtime_held_bytes{") || name == "h_realtime_index_bytes"
}

/// Reads all metrics of the server.
///
/// # Errors
///
/// Returns an error if there is no response.
pub fn metrics(endpoint: &Endpoint) -> Result<Metrics> {
    Ok(parse(&endpoint.get("/metrics")?))
}

/// Returns the counters that have grown in between, and their growth.
pub fn growth<'a>(
    before: &'a Metrics,
    after: &'a Metrics,
    name: &'a str,
) -> impl Iterator<Item = (&'a str, f64)> {
    let of_name = after.iter().filter_map(move |(full, value)| {
        let labels = full.strip_prefix(name)?;
        let grown = value - before.get(full).copied().unwrap_or(0.0);
        let labels = labels.trim_matches(['{', '}']);
        (labels.is_empty() || full[name.len()..].starts_with('{')).then_some((labels, grown))
    });
    of_name.filter(|(_, grown)| *grown > 0.0)
}

fn parse(text: &str) -> Metrics {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    samples.collect()
}

/// Resident memory by the kernel's counter, which is cheap to read: `smaps_rollup` walks all pages
/// and delays the process meanwhile.
fn resident(process: Process) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{}/statm", process.pid)).ok()?;
    let pages: f64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as f64)
}

/// The pause between two samples.
const EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_parsed_and_compared() {
        let before = parse("# HELP x\nx_total{reason=\"slow\"} 1\nx_total{reason=\"client\"} 5\n");
        let after = parse("x_total{reason=\"slow\"} 3\nx_total{reason=\"client\"} 5\nx_totals 9\n");
        let grown: Vec<_> = growth(&before, &after, "x_total").collect();
        assert_eq!(grown, [("reason=\"slow\"", 2.0)]);
    }

    #[test]
    fn only_memory_gauges_are_accounts() {
        assert!(is_account(r#"h_realtime_held_bytes{kind="frames"}"#));
        assert!(is_account("h_realtime_index_bytes"));
        // Counts a shared queued frame once for each receiver.
        assert!(!is_account("h_realtime_queued_bytes"));
        assert!(!is_account("h_realtime_sent_bytes_total"));
        assert!(!is_account("process_resident_memory_bytes"));
    }
}

//! The report: a table for readers, JSON for programs.

use std::fs;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::cli::Common;
use crate::process::{Cpu, Process, own_cpu};

/// The figures of one run, in display order.
pub struct Report {
    figures: Vec<(String, Value)>,
    notes: Vec<String>,
}

impl Report {
    pub fn new(mode: &str, common: &Common) -> Report {
        let mut report = Report {
            figures: Vec::new(),
            notes: Vec::new(),
        };
        report.set("mode", mode);
        report.set("url", common.url.as_str());
        report.set("connections", common.connections);
        report
    }

    /// Adds a figure. Its name ends in its unit.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.push((name.to_owned(), value.into()));
    }

    /// Adds a figure, rounded to its significant digits.
    pub fn number(&mut self, name: &str, value: f64) {
        self.set(name, rounded(value));
    }

    /// Adds the percentiles of a latency, in microseconds.
    pub fn latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        let at = |quantile| rounded(histogram.value_at_quantile(quantile) as f64 / 1e3);
        self.set(
            name,
            json!({
                "count": histogram.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
                "p99.9": at(0.999), "max": rounded(histogram.max() as f64 / 1e3),
            }),
        );
    }

    /// Adds the server's CPU time per operation.
    pub fn cpu(&mut self, what: &str, cpu: Option<Cpu>, operations: u64) {
        let Some(cpu) = cpu else { return };
        let each = |nanos: f64| nanos / 1e3 / (operations.max(1) as f64);
        self.number(&format!("server_cpu_us_per_{what}"), each(cpu.total));
        self.number(&format!("server_user_us_per_{what}"), each(cpu.user));
        self.number(&format!("server_system_us_per_{what}"), each(cpu.system));
    }

    /// Adds the CPU utilization of both sides, with a note if this process was the bottleneck.
    pub fn busy(&mut self, span: &Span) {
        let share = |seconds: f64| (seconds / span.wall * 100.0).round();
        if let Some(cpu) = span.server {
            self.set("server_cpu_percent", share(cpu.total / 1e9));
        }
        let own = share(span.own);
        self.set("client_cpu_percent", own);
        if own >= BUSY {
            self.note(format!(
                "The client used {own} % of a CPU and was the bottleneck: the server's throughput \
                 may be higher. CPU per operation is valid."
            ));
        }
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints the report, and writes it to the requested file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub fn print(&self, common: &Common) -> Result<()> {
        let to_stdout = common
            .json
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-");
        if to_stdout {
            println!("{}", self.json());
            return Ok(());
        }
        if let Some(path) = &common.json {
            fs::write(path, format!("{}\n", self.json()))?;
        }
        for (name, value) in &self.figures {
            match value {
                // Only for programs.
                Value::String(_) if name == "delivered" => {}
                Value::Object(parts) => {
                    let parts = parts.iter().map(|(name, value)| format!("{name} {value}"));
                    println!("{name:<32} {}", parts.collect::<Vec<_>>().join("  "));
                }
                Value::String(text) => println!("{name:<32} {text}"),
                value => println!("{name:<32} {value}"),
            }
        }
        for note in &self.notes {
            println!("{note}");
        }
        Ok(())
    }

    pub fn json(&self) -> Value {
        let mut all = Map::from_iter(self.figures.iter().cloned());
        if !self.notes.is_empty() {
            all.insert("notes".into(), json!(self.notes));
        }
        Value::Object(all)
    }
}

/// An interval of time with the CPU usage of both sides.
pub struct Span {
    /// In seconds.
    pub wall: f64,
    pub server: Option<Cpu>,
    /// Seconds of this process's CPU, without the time spent spinning.
    pub own: f64,
}

/// The beginning of a [`Span`].
pub struct Mark {
    at: Instant,
    server: Option<(Process, Cpu)>,
    own: f64,
}

impl Mark {
    /// # Errors
    ///
    /// Returns an error if the server has ended.
    pub fn new(process: Option<Process>, spun: Duration) -> Result<Mark> {
        let server = match process {
            Some(process) => Some((process, process.cpu()?)),
            None => None,
        };
        Ok(Mark {
            at: Instant::now(),
            server,
            own: own_cpu() - spun.as_secs_f64(),
        })
    }

    pub fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// # Errors
    ///
    /// Returns an error if the server has ended.
    pub fn end(&self, spun: Duration) -> Result<Span> {
        let wall = self.at.elapsed().as_secs_f64();
        let own = own_cpu() - spun.as_secs_f64() - self.own;
        let server = match self.server {
            Some((process, before)) => Some(process.cpu()? - before),
            None => None,
        };
        Ok(Span { wall, server, own })
    }
}

/// Returns a histogram of latencies in nanoseconds, with three significant digits.
pub fn histogram() -> Histogram<u64> {
    // These bounds are valid, so this cannot fail.
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap_or_else(|_| unreachable!())
}

pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(nanos.max(1));
}

fn rounded(value: f64) -> f64 {
    let digits = match value.abs() {
        value if value >= 1000.0 => 1.0,
        value if value >= 10.0 => 100.0,
        _ => 10_000.0,
    };
    (value * digits).round() / digits
}

/// The CPU utilization in percent above which this process is considered the bottleneck.
const BUSY: f64 = 93.0;

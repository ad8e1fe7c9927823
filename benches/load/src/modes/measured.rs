//! Code shared by the modes that attack a server: the latency clients and the report.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::attack::PING;
use crate::cli::{Common, LatencyArgs as Args};
use crate::latency_clients::{LatencyClients, Outcome, Settings};
use crate::poster::Endpoint;
use crate::process::Process;
use crate::report::{self, Report};
use crate::sampler::{self, Metrics, Sampler, growth};
use crate::server::Server;
use crate::target::{Target, TargetOptions};

/// A measurement in progress.
pub(super) struct Measurement {
    pub endpoint: Option<Endpoint>,
    latency_clients: LatencyClients,
    sampler: Sampler,
    before: Option<Metrics>,
    resident: Option<f64>,
    waited: Option<f64>,
}

/// The results of a measurement.
pub(super) struct Measured {
    calm: Outcome,
    outcome: Outcome,
    samples: sampler::Samples,
    before: Option<Metrics>,
    after: Option<Metrics>,
    resident: [Option<f64>; 2],
    /// Seconds for which the server was runnable without getting a CPU.
    waited: Option<f64>,
}

/// Returns the target of the load.
pub(super) fn target(common: &Common, url: &str) -> Result<Target> {
    let options = TargetOptions {
        allow_remote: common.allow_remote,
        sources: common.sources,
        ca: common.ca.as_deref(),
        resume: false,
    };
    Target::new(url, &options)
}

impl Measurement {
    /// Connects the latency clients. Their results until [`Measurement::measure`] are the baseline
    /// without load.
    pub fn start(
        common: &Common,
        args: &Args,
        server: &Server,
        publishes: bool,
    ) -> Result<Measurement> {
        let remote = common.allow_remote;
        let endpoint = args.publish.as_ref();
        let endpoint = endpoint.map(|url| Endpoint::new(url, args.key_file.as_deref(), remote));
        let endpoint = endpoint.transpose()?;
        let every = Duration::from_millis(args.publish_every);
        let latency_clients = LatencyClients::start(Settings {
            target: target(common, &common.url)?,
            clients: usize::try_from(args.clients)?,
            ping: PING.to_owned(),
            ping_every: Duration::from_millis(args.ping_every),
            handshake_every: Some(Duration::from_millis(args.handshake_every)),
            publish: endpoint
                .clone()
                .filter(|_| publishes && args.key_file.is_some())
                .map(|endpoint| (endpoint, every)),
            grace: Duration::from_secs(args.grace),
        })?;
        Ok(Measurement {
            latency_clients,
            before: endpoint.as_ref().map(sampler::metrics).transpose()?,
            resident: server.resident()?,
            waited: server.process.and_then(Process::waited),
            sampler: Sampler::start(server.process, endpoint.clone()),
            endpoint,
        })
    }

    /// Marks the beginning of the load.
    pub fn measure(&self) {
        self.latency_clients.measure();
    }

    /// Marks the end of the load and returns the results.
    pub fn end(self, server: &Server) -> Result<Measured> {
        let [calm, outcome] = self.latency_clients.end()?;
        let samples = self.sampler.end();
        Ok(Measured {
            calm,
            outcome,
            samples,
            after: self.endpoint.as_ref().map(sampler::metrics).transpose()?,
            before: self.before,
            resident: [self.resident, server.resident()?],
            waited: match (self.waited, server.process.and_then(Process::waited)) {
                (Some(before), Some(after)) => Some((after - before) / 1e9),
                _ => None,
            },
        })
    }
}

impl Measured {
    /// Adds all results to a report.
    pub fn report(&self, report: &mut Report) {
        let Measured { calm, outcome, .. } = self;
        report.latency("ping_us", &outcome.pings);
        report.latency("calm_ping_us", &calm.pings);
        report.set("pings_unanswered", outcome.pings_unanswered);
        report.latency("handshake_us", &outcome.handshakes);
        report.set("handshakes_failed", json!(outcome.handshakes_failed));
        report.latency("publish_us", &outcome.accepted);
        report.latency("arrival_us", &outcome.arrivals);
        report.set("events_published", outcome.events_published);
        report.set("events_failed", outcome.events_failed);
        report.set("well_behaved_closed", json!(outcome.closed));
        report.latency("own_delay_us", &outcome.own_delay);
        if let Some(waited) = self.waited {
            report.number("server_waited_for_cpu_s", waited);
        }
        self.report_memory(report);
        self.report_counters(report);
        let worst = outcome.own_delay.max();
        if worst > OWN_DELAY {
            report.note(format!(
                "The measuring thread itself was up to {} ms late: latencies of that order do \
                 not describe the server.",
                worst / 1_000_000
            ));
        }
    }

    fn report_memory(&self, report: &mut Report) {
        if let [Some(before), Some(after)] = self.resident {
            let peak = self.samples.peak.max(after);
            report.set("resident_before", before);
            report.set("resident_growth", peak - before);
            report.set("resident_growth_after", after - before);
        }
        let Some(before) = &self.before else { return };
        let grown = |accounts: &Metrics| -> Map<String, Value> {
            let changes = accounts.iter().map(|(name, value)| {
                let grown = value - before.get(name).copied().unwrap_or(0.0);
                (
                    name.trim_start_matches("h_realtime_").to_owned(),
                    json!(grown),
                )
            });
            changes.collect()
        };
        let at_peak = grown(&self.samples.at_peak);
        let accounted: f64 = at_peak.values().filter_map(Value::as_f64).sum();
        report.set("accounted_at_peak", accounted);
        report.set("accounts_at_peak", at_peak);
        report.set("accounts_most", grown(&self.samples.most));
    }

    fn report_counters(&self, report: &mut Report) {
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            return;
        };
        let of = |name| -> Map<String, Value> {
            let grown = growth(before, after, name);
            grown
                .map(|(labels, count)| (labels.to_owned(), json!(count)))
                .collect()
        };
        report.set("server_disconnects", of("h_realtime_disconnects_total"));
        report.set("server_close_codes", of("h_realtime_close_codes_total"));
        report.set(
            "server_handshake_failures",
            of("h_realtime_handshake_failures_total"),
        );
        if let Some(longest) = longest(before, after) {
            report.set("longest_turn_at_most_s", longest);
        }
    }

    /// Returns the latencies in one line.
    pub fn summary(&self) -> String {
        let Outcome {
            pings,
            handshakes,
            accepted,
            arrivals,
            closed,
            ..
        } = &self.outcome;
        let ms = |nanos: u64| format!("{:.1} ms", nanos as f64 / 1e6);
        let mut parts = vec![format!(
            "ping: p50 {}, p99 {}, max {}",
            ms(pings.value_at_quantile(0.5)),
            ms(pings.value_at_quantile(0.99)),
            ms(pings.max())
        )];
        for (name, histogram) in [
            ("handshake", handshakes),
            ("202", accepted),
            ("arrival", arrivals),
        ] {
            if !histogram.is_empty() {
                parts.push(format!("max {name} {}", ms(histogram.max())));
            }
        }
        parts.push(format!(
            "well-behaved clients closed: {}",
            closed.values().sum::<u64>()
        ));
        parts.join("; ")
    }
}

/// Returns the upper bound of the histogram bucket that contains the longest turn of the reactor.
fn longest(before: &Metrics, after: &Metrics) -> Option<String> {
    let name = "h_realtime_turn_seconds_bucket";
    let counts: Vec<_> = growth(before, after, name).collect();
    let all = counts.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    let bound = |labels: &str| {
        let bound = labels.strip_prefix("le=\"")?.strip_suffix('"')?;
        bound.replace("+Inf", "inf").parse::<f64>().ok()
    };
    let holding_all = counts.iter().filter(|(_, count)| *count >= all);
    let bounds = holding_all.filter_map(|(labels, _)| bound(labels));
    Some(bounds.min_by(f64::total_cmp)?.to_string())
}

/// The delay of the measuring thread, in nanoseconds, above which the report mentions it.
const OWN_DELAY: u64 = 10_000_000;

/// Lowers this thread's priority below that of the measuring thread, which was started before.
pub(super) fn yield_to_latency_clients() {
    // Without permission, the reported delays show the effect.
    let _ = rustix::process::nice(10);
}

/// Adds the percentiles of these latencies to a report.
pub(super) fn latency(report: &mut Report, name: &str, times: &[Duration]) {
    let mut histogram = report::histogram();
    times
        .iter()
        .for_each(|time| report::record(&mut histogram, *time));
    report.latency(name, &histogram);
}

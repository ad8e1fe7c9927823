//! Idle clients that send pings during another mode's load, to measure the tail of their latency.

use std::time::Duration;

use serde_json::json;

use super::measured::{target, yield_to_latency_clients};
use crate::Result;
use crate::cli::{Common, Tail};
use crate::latency_clients::{LatencyClients, Settings};
use crate::process::Process;
use crate::report::Report;
use crate::server::Server;

/// A measurement in progress.
pub(super) struct TailClients {
    clients: LatencyClients,
    process: Option<Process>,
    /// The process's wait for a CPU at the beginning of the load.
    waited: Option<f64>,
}

impl TailClients {
    /// Connects the clients, if any are configured.
    pub fn start(common: &Common, args: &Tail, server: &Server) -> Result<Option<TailClients>> {
        if args.every_ms == 0 {
            return Ok(None);
        }
        let clients = LatencyClients::start(Settings {
            target: target(common, args.url.as_ref().unwrap_or(&common.url))?,
            clients: usize::try_from(args.clients)?,
            ping: args.message.clone(),
            ping_every: Duration::from_millis(args.every_ms),
            handshake_every: None,
            publish: None,
            grace: Duration::from_secs(10),
        })?;
        yield_to_latency_clients();
        std::thread::sleep(Duration::from_secs(args.calm));
        Ok(Some(TailClients {
            clients,
            process: server.process,
            waited: None,
        }))
    }

    /// Marks the beginning of the load.
    pub fn measure(&mut self) {
        self.waited = self.process.and_then(Process::waited);
        self.clients.measure();
    }

    /// Ends the measurement and adds its results to a report.
    pub fn end(self, report: &mut Report) -> Result<()> {
        let after = self.process.and_then(Process::waited);
        let [calm, outcome] = self.clients.end()?;
        report.latency("tail_us", &outcome.pings);
        report.latency("calm_tail_us", &calm.pings);
        report.set("tail_unanswered", outcome.pings_unanswered);
        report.set("tail_closed", json!(outcome.closed));
        report.latency("own_delay_us", &outcome.own_delay);
        if let (Some(before), Some(after)) = (self.waited, after) {
            report.number("server_waited_for_cpu_s", (after - before) / 1e9);
        }
        Ok(())
    }
}

//! The performance goals, and whether they are met.

use super::measures::PAIRED;
use super::results::Results;
use super::stats::{self, Estimate};

/// A goal and the measured value.
pub struct Verdict {
    pub text: String,
    pub value: f64,
    /// The confidence interval of a paired measurement.
    pub interval: Option<(f64, f64)>,
    pub limit: f64,
    pub unit: &'static str,
}

/// Whether a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Met,
    Missed,
    /// The confidence interval contains the limit.
    Undecided,
}

impl Verdict {
    pub fn outcome(&self) -> Outcome {
        let (low, high) = self.interval.unwrap_or((self.value, self.value));
        match () {
            () if high <= self.limit => Outcome::Met,
            () if low > self.limit => Outcome::Missed,
            () => Outcome::Undecided,
        }
    }
}

/// Returns all goals for which there is a measurement.
pub fn judge(results: &Results) -> Vec<Verdict> {
    let judge = Judge { results };
    let all = [
        judge.memory(),
        judge.pings(),
        judge.deliveries(),
        judge.handshakes(),
        judge.paired(),
    ];
    all.into_iter().flatten().flatten().collect()
}

struct Judge<'a> {
    results: &'a Results,
}

type Found = Option<Verdict>;

impl Judge<'_> {
    fn memory(&self) -> Vec<Found> {
        let each = "bytes_per_connection";
        let grown = |large: &str, idle: &str| {
            let large = self.results.median(large, "engine", each)?;
            Some(large - self.results.median(idle, "engine", each)?)
        };
        let peers = ["uWebSockets", "fastwebsockets", "tungstenite"];
        let best = peers.map(|peer| {
            self.results
                .ratio(("idle-tls", "engine", each), ("idle-tls", peer, each))
        });
        vec![
            self.at_most(
                "an idle connection of the engine",
                "bytes",
                self.results.median("idle", "engine", each),
                128.0,
            ),
            self.at_most(
                "with a client id and a /uri of its own",
                "bytes",
                self.results.median("idle-subscribed", "h-realtime", each),
                224.0,
            ),
            self.at_most(
                "over TLS",
                "bytes",
                self.results.median("idle-tls", "engine", each),
                3600.0,
            ),
            self.at_most(
                "over TLS, engine ÷ best peer",
                "×",
                best.into_iter().flatten().reduce(f64::max),
                0.25,
            ),
            self.at_most(
                "more after a large message",
                "bytes",
                grown("idle-large", "idle"),
                8.0,
            ),
            self.at_most(
                "more after a large message, over TLS",
                "bytes",
                grown("idle-large-tls", "idle-tls"),
                64.0,
            ),
            self.at_most(
                "growth after all clients left",
                "MiB",
                self.results
                    .median("idle-subscribed", "h-realtime", "resident_growth")
                    .map(|bytes| bytes / 1_048_576.0),
                2.0,
            ),
        ]
    }

    fn pings(&self) -> Vec<Found> {
        let cpu = "server_cpu_us_per_message";
        let user = "server_user_us_per_message";
        // The entry to and exit from each system call is user time, too; the floor includes it.
        let beyond = || {
            let of = |server| {
                let user = "server_user_us_per_ping";
                self.results.median("heartbeats", server, user)
            };
            Some((of("h-realtime")? - of("floor")?).max(0.0))
        };
        vec![
            self.at_most(
                "a heartbeat, user time above the floor",
                "µs",
                beyond(),
                0.1,
            ),
            self.against(
                "a heartbeat",
                "heartbeats",
                "h-realtime",
                "floor",
                "server_cpu_us_per_ping",
                1.1,
            ),
            self.against(
                "a ping, 1 connection",
                "echo-1",
                "h-realtime",
                "floor",
                cpu,
                1.05,
            ),
            self.against(
                "a ping, 100 connections",
                "echo-100",
                "h-realtime",
                "floor",
                cpu,
                1.05,
            ),
            self.at_most(
                "a ping, 100 connections, user time",
                "µs",
                self.results.median("echo-100", "h-realtime", user),
                0.5,
            ),
            self.against(
                "16 pings in one write",
                "pipelined-100",
                "h-realtime",
                "uWebSockets",
                cpu,
                1.0,
            ),
        ]
    }

    fn deliveries(&self) -> Vec<Found> {
        let cpu = "server_cpu_us_per_delivery";
        let mut found = Vec::new();
        let sizes = |prefix: &'static str| {
            let ids = self.results.measures().map(|(id, _)| id.as_str());
            ids.filter_map(move |id| id.strip_prefix(prefix))
                .collect::<Vec<_>>()
        };
        for n in sizes("fan-out-") {
            let id = format!("fan-out-{n}");
            let text = format!("an event to {n}, per delivery");
            found.push(self.against(&text, &id, "h-realtime", "floor", cpu, 1.03));
        }
        for n in sizes("ping-meanwhile-") {
            let id = format!("ping-meanwhile-{n}");
            let worst = self.results.worst(&id, "h-realtime", "probe_us.max");
            let text = format!("another client's ping meanwhile, {n} receivers, at most");
            found.push(self.at_most(&text, "ms", worst.map(|us| us / 1e3), 20.0));
        }
        let few = ("selective-few", "h-realtime", cpu);
        let selective = self
            .results
            .ratio(("selective-many", "h-realtime", cpu), few);
        found.extend([
            self.at_most(
                "a burst of 10, per delivery",
                "µs",
                self.results.median("burst", "h-realtime", cpu),
                1.5,
            ),
            self.against(
                "a burst of 10, per delivery",
                "burst",
                "h-realtime",
                "uWebSockets",
                cpu,
                1.0,
            ),
            self.at_most("an event for 1 of many ÷ for 1 of 100", "×", selective, 1.1),
            self.against(
                "a compressed event, per delivery",
                "deflate",
                "h-realtime",
                "uWebSockets",
                cpu,
                1.0,
            ),
        ]);
        found
    }

    fn handshakes(&self) -> Vec<Found> {
        let cpu = "server_cpu_us_per_handshake";
        let worst = |id: &str| {
            let worst = self.results.worst(id, "h-realtime", "probe_us.max");
            worst.map(|us| us / 1e3)
        };
        vec![
            self.against("an upgrade", "upgrade", "engine", "floor", cpu, 1.1),
            self.against("an upgrade", "upgrade", "h-realtime", "floor", cpu, 1.1),
            self.against(
                "a full TLS handshake",
                "tls-full",
                "engine",
                "fastwebsockets",
                cpu,
                1.0,
            ),
            self.against(
                "a resumed TLS handshake",
                "tls-resumed",
                "engine",
                "fastwebsockets",
                cpu,
                1.0,
            ),
            self.at_most(
                "a ping in a storm of upgrades, at most",
                "ms",
                worst("storm"),
                50.0,
            ),
            self.at_most(
                "a ping in a storm of TLS handshakes, at most",
                "ms",
                worst("storm-tls"),
                50.0,
            ),
        ]
    }

    fn at_most(&self, text: &str, unit: &'static str, value: Option<f64>, limit: f64) -> Found {
        Some(Verdict {
            text: text.to_owned(),
            value: value?,
            interval: None,
            limit,
            unit,
        })
    }

    /// The rows of the paired mode, which replace the same comparisons of rounds minutes apart.
    fn paired(&self) -> Vec<Found> {
        let ids = self.results.measures().map(|(id, _)| id.as_str());
        let rows = ids.filter_map(|id| id.strip_prefix(PAIRED));
        let mut found = Vec::new();
        for row in rows {
            found.push(self.paired_ratio(row, "h-realtime", "floor", 1.03));
            found.push(self.paired_ratio(row, "h-realtime", "uWebSockets", 1.0));
            // Both send each message back, without JSON.
            found.push(self.paired_ratio(row, "engine", "uWebSockets", 1.0));
            if row == "upgrade" {
                found.push(self.paired_ratio(row, "engine", "floor", 1.03));
            }
        }
        let user = |server| {
            let id = format!("{PAIRED}heartbeats");
            self.results.rounds(&id, server, "server_user_us_per_ping")
        };
        let beyond = stats::difference(&user("h-realtime"), &user("floor"));
        found.push(beyond.map(|beyond| {
            verdict(
                "heartbeats, user time above the floor".into(),
                beyond,
                0.1,
                "µs",
            )
        }));
        found
    }

    fn paired_ratio(&self, row: &str, one: &str, other: &str, limit: f64) -> Found {
        let ratio = self
            .results
            .paired_ratio(&format!("{PAIRED}{row}"), one, other)?;
        Some(verdict(
            format!("{row}, {one} ÷ {other}"),
            ratio,
            limit,
            "×",
        ))
    }

    fn is_paired(&self, id: &str, one: &str, other: &str) -> bool {
        let id = format!("{PAIRED}{id}");
        self.results.paired_ratio(&id, one, other).is_some()
    }

    /// Compares with another server in the same measure.
    fn against(
        &self,
        text: &str,
        id: &str,
        one: &str,
        other: &str,
        figure: &str,
        limit: f64,
    ) -> Found {
        if self.is_paired(id, one, other) {
            return None;
        }
        let ratio = self.results.ratio((id, one, figure), (id, other, figure));
        self.at_most(&format!("{text}, {one} ÷ {other}"), "×", ratio, limit)
    }
}

fn verdict(text: String, estimate: Estimate, limit: f64, unit: &'static str) -> Verdict {
    Verdict {
        text: format!("{text} (paired)"),
        value: estimate.value,
        interval: Some((estimate.low, estimate.high)),
        limit,
        unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_that_contains_the_limit_decides_nothing() {
        let outcome = |low, value, high| {
            let estimate = Estimate { value, low, high };
            verdict(String::new(), estimate, 1.03, "×").outcome()
        };
        assert_eq!(outcome(0.99, 1.01, 1.03), Outcome::Met);
        assert_eq!(outcome(1.01, 1.02, 1.04), Outcome::Undecided);
        assert_eq!(outcome(1.031, 1.04, 1.05), Outcome::Missed);
    }
}

//! Sends hostile traffic on many connections and measures the service of well-behaved clients.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::measured::{self, Measurement, target};
use crate::Result;
use crate::attack;
use crate::attackers::{Attackers, Settings};
use crate::cli::Hostile;
use crate::report::{Mark, Report};
use crate::server::Server;

pub(super) fn run(name: &str, args: &Hostile) -> Result<Report> {
    let common = &args.common;
    let at = target(common, &common.url)?;
    if at.tls.is_some() {
        return Err("the attacks need ws://; set --tls-url for TLS handshakes".into());
    }
    let tls_address = args.tls_url.as_ref().map(|url| {
        // Only the address is used: attackers do not get as far as verifying a certificate.
        target(common, &url.replacen("wss://", "ws://", 1))
    });
    let tls_target = tls_address.transpose()?;
    let server = Server::new(common, &at)?;
    let plans = attack::plans(args.attack, tls_target.is_some())?;
    let settings = Settings {
        connections: usize::try_from(common.connections)?,
        rate: args.rate as f64,
        reads_replies: !args.unread,
    };
    let mut attackers = Attackers::new(plans, at, tls_target, &settings)?;
    attackers.open(OPENING)?;

    let measurement = Measurement::start(common, &args.latency, &server, true)?;
    measured::yield_to_latency_clients();
    attackers.rest(Duration::from_secs(args.latency.calm))?;
    let before = attackers.counts.clone();
    measurement.measure();
    let mark = Mark::new(server.process, Duration::ZERO)?;
    attackers.attack(Duration::from_secs(args.seconds))?;
    let span = mark.end(Duration::ZERO)?;
    attackers.stop();
    let measured = measurement.end(&server)?;

    let mut report = Report::new(name, common);
    let attack = args.attack.to_possible_value();
    report.set(
        "attack",
        attack.map_or_else(String::new, |value| value.get_name().to_owned()),
    );
    report.set("rate_bytes", args.rate);
    report.set("reads_replies", !args.unread);
    report.set("seconds", args.seconds);
    let counts = &attackers.counts;
    report.number(
        "attack_bytes_per_s",
        (counts.sent_bytes - before.sent_bytes) as f64 / span.wall,
    );
    report.number(
        "reply_bytes_per_s",
        (counts.received_bytes - before.received_bytes) as f64 / span.wall,
    );
    report.set("attackers_reconnected", counts.opened - before.opened);
    report.set("attackers_ended", json!(counts.reasons));
    measured.report(&mut report);
    report.busy(&span);
    report.note(measured.summary());
    Ok(report)
}

/// The time limit for connecting all attackers.
const OPENING: Duration = Duration::from_secs(30);

//! All transcripts, with h's database and message queue: run against h's backend, or against any
//! server.

use std::env;
use std::thread;
use std::time::Duration;

use super::environment::Environment;
use crate::kit::differences;
use crate::kit::tally::Tally;
use crate::kit::transcript::{Transcript, all};
use crate::support::{Postgres, RabbitMq};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn backend_h_matches_transcripts() {
    match env::var("CONFORMANCE_SERVER") {
        Ok(address) => run_other_server(&address),
        Err(_) => run_own_server(),
    }
}

/// Runs them against a server, a database, and a message broker of the test.
fn run_own_server() {
    let broker = thread::spawn(RabbitMq::start);
    let database = Postgres::start();
    let broker = broker.join().unwrap();
    let start = |config: &str| Environment::for_test(&database, &broker, config);
    let mut tally = Tally::new(differences::of_h());
    let transcripts = all();
    thread::scope(|scope| {
        let mut alone = Vec::new();
        for transcript in &transcripts {
            if let Some(own) = own(transcript) {
                let play = move || start(own.config).with_time(own.time).play(transcript);
                alone.push((transcript, scope.spawn(play)));
            }
        }
        let server = start(UNSWEPT);
        for transcript in &transcripts {
            if own(transcript).is_none() && transcript.name != RESTART {
                tally.count(transcript, server.play(transcript));
            }
        }
        for (transcript, player) in alone {
            tally.count(transcript, player.join().unwrap());
        }
    });
    // Needs the broker exclusively, and enough time for clients that do not answer pings.
    let server = start(&format!("{UNSWEPT}\n[timeouts]\nping = \"1h\"")).with_time(0.0);
    for transcript in &transcripts {
        if transcript.name == RESTART {
            tally.count(transcript, server.play(transcript));
        }
    }
    tally.finish();
}

/// Runs them against any server.
fn run_other_server(address: &str) {
    let only_the_same = env::var("CONFORMANCE_DIFFERENCES").is_ok_and(|which| which == "none");
    let settle = match env::var("CONFORMANCE_SETTLE") {
        Ok(seconds) => Some(seconds.parse().expect("seconds")),
        Err(_) => only_the_same.then_some(0.3),
    };
    let server = Environment::external(address, settle.map(Duration::from_secs_f64));
    let mut tally = Tally::new(match only_the_same {
        true => differences::none(),
        false => differences::of_h(),
    });
    for transcript in &all() {
        if let Some(reason) = own(transcript).and_then(|own| own.reason) {
            tally.skip(transcript, reason);
        } else if transcript.name == RESTART && !server.can_restart_broker() {
            tally.skip(transcript, "CONFORMANCE_RESTART_BROKER is not set");
        } else {
            tally.count(transcript, server.play(transcript));
        }
    }
    tally.finish();
}

/// The server of a single transcript.
struct Own {
    transcript: &'static str,
    config: &'static str,
    /// The factor for the waiting times recorded with h.
    time: f64,
    /// The reason to skip it for another server, if any.
    reason: Option<&'static str>,
}

fn own(transcript: &Transcript) -> Option<&'static Own> {
    OWN.iter().find(|own| own.transcript == transcript.name)
}

const OWN: [Own; 5] = [
    // One minute, accelerated.
    Own {
        transcript: "heartbeat",
        config: "[timeouts]\nping = \"1s\"\npong = \"1s\"",
        time: 1.0 / 30.0,
        reason: None,
    },
    Own {
        transcript: "heartbeat_silent_client",
        config: "[timeouts]\nping = \"1s\"\npong = \"1s\"",
        time: 1.0 / 20.0,
        reason: None,
    },
    Own {
        transcript: "hs_incomplete",
        config: "",
        time: 1.0,
        reason: None,
    },
    Own {
        transcript: "ops_pool_full",
        config: "[limits]\nconnections = 8",
        time: 0.1,
        reason: Some("it needs a server for eight connections"),
    },
    Own {
        transcript: "ops_sigterm",
        config: "[limits]\nconnections = 4\n[timeouts]\ndrain = \"1s\"",
        time: 0.1,
        reason: Some("it ends the server"),
    },
];
/// Disables sweeps: identities are only read again at events, so that results are deterministic. Clients
/// are not remembered, because different clients of the transcripts have the same id.
const UNSWEPT: &str = "[auth]\nsweep = \"1h\"\n[history]\nclients = 0";
const RESTART: &str = "ops_rabbit_restart";

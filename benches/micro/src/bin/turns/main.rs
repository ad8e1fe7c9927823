//! A server with up to a million connections in one process, over simulated sockets and a simulated
//! clock: the cost of events, heartbeats, and turns, which a profiler counts.
//!
//! The profiler is to be switched on and off at each line of the output; a line of input continues.
//! `benches/million` does so with valgrind. `benches/README.md` explains the results.

use std::convert::Infallible;
use std::error::Error;
use std::io::{Write as _, stdin, stdout};
use std::process::{ExitCode, exit};

use clap::Parser;
use h_realtime_test_kit::crowd::{Counted, Crowd};
use h_realtime_test_kit::rng::Rng;
use serde::Serialize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The server's allocator. glibc's merges all free blocks in some turns and none in others.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs turns of a server with many connections, whose instructions a profiler counts.
#[derive(Parser)]
struct Cli {
    /// The number of connections.
    connections: usize,
}

/// The numbers of operations in the counted turns.
#[derive(Serialize)]
struct Done {
    connections: usize,
    events: usize,
    idle_ticks: usize,
    heartbeats_in_idle_ticks: usize,
    heartbeats: usize,
}

fn main() -> ExitCode {
    let Err(error) = turns(Cli::parse().connections);
    println!("turns: {error}");
    ExitCode::FAILURE
}

fn turns(connections: usize) -> Result<Infallible> {
    let mut crowd = Crowd::new(connections);
    for (from, to) in counted_arrivals(connections) {
        crowd.arrive(from, Counted::Not);
        pause("count arrivals")?;
        crowd.arrive(to, Counted::Arrival);
        pause("stop")?;
    }
    crowd.arrive(connections, Counted::Not);
    crowd.wait_for(IDLE_AFTER_MS);

    pause("count events, ticks, and heartbeats")?;
    let receiver = connections / 2;
    let mut rng = Rng::new(3);
    for round in 0..WARM_UP + EVENTS {
        let counted = after_warm_up(round, Counted::SameReceiver);
        crowd.publish(receiver, "same", counted);
    }
    for round in 0..WARM_UP + EVENTS {
        let annotation = format!("annotation {round}");
        let counted = after_warm_up(round, Counted::OtherReceivers);
        crowd.publish(rng.below(connections), &annotation, counted);
    }
    let mut idle = 0;
    for _ in 0..IDLE_TICKS {
        idle += crowd.wait(Counted::IdleTick);
    }
    pause("stop")?;
    crowd.wait_for(HEARTBEATS_AFTER_MS);
    pause("count heartbeats")?;
    let mut heartbeats = 0;
    let least = connections.min(HEARTBEATS);
    while heartbeats < least {
        heartbeats += crowd.wait(Counted::Heartbeat);
    }
    pause("count departures")?;
    crowd.depart_all(Counted::Departure);
    pause("stop")?;
    let done = Done {
        connections,
        events: EVENTS,
        idle_ticks: IDLE_TICKS,
        heartbeats_in_idle_ticks: idle,
        heartbeats,
    };
    println!("{}", serde_json::to_string(&done)?);
    // Skip destructors.
    exit(0);
}

fn after_warm_up(round: usize, counted: Counted) -> Counted {
    match round < WARM_UP {
        true => Counted::Not,
        false => counted,
    }
}

/// Returns the ranges of numbers of connections at which arrivals are counted: all of a few
/// connections, or those around the numbers of entries at which a table that doubles would grow.
fn counted_arrivals(connections: usize) -> Vec<(usize, usize)> {
    if connections < 8 * WINDOW {
        return vec![(0, connections)];
    }
    let powers = (10..usize::BITS).map(|exponent| 1 << exponent);
    let points = powers.flat_map(|power: usize| [power / 8 * 7, power]);
    let within = points.filter(|point| *point >= connections / 3 && point + WINDOW <= connections);
    within
        .map(|point| (point - WINDOW, point + WINDOW))
        .collect()
}

/// Lets the profiler be switched on or off.
fn pause(what: &str) -> Result<()> {
    println!("{what}");
    stdout().flush()?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Half the number of arrivals that are counted around a point of growth.
const WINDOW: usize = 256;
/// Events before the counted ones.
const WARM_UP: usize = 100;
const EVENTS: usize = 500;
/// The time from the last arrival to one without any due timer.
const IDLE_AFTER_MS: u64 = 11_000;
const IDLE_TICKS: usize = 20;
/// The time from there until heartbeats are due.
const HEARTBEATS_AFTER_MS: u64 = 60_000;
const HEARTBEATS: usize = 20_000;

//! A server with up to a million connections in one process, over simulated sockets and a simulated
//! clock: the memory of a connection, and the cost of events, heartbeats, and turns.
//!
//! `benches/million` runs it, with valgrind where instructions are counted. `benches/README.md`
//! explains the results.

use std::error::Error;
use std::fs;
use std::io::{Write as _, stdin, stdout};
use std::process::{ExitCode, exit};
use std::time::Duration;

use clap::{Parser, Subcommand};
use h_realtime_test_kit::crowd::{Counted, Crowd};
use h_realtime_test_kit::rng::Rng;
use peak_alloc::PeakAlloc;
use serde::Serialize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// All memory is counted here. That of the simulation is allocated before the first connection.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Simulates a server with many connections.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures the memory of connections when they have arrived, and when they have left.
    Memory {
        /// The numbers of connections, in ascending order.
        connections: Vec<usize>,
    },
    /// Measures the heartbeats while events are sent to all connections without a break.
    Saturation {
        /// The number of connections.
        connections: usize,
        /// The simulated seconds.
        seconds: u64,
        /// The time that a notification takes the server, in nanoseconds.
        delivery: u64,
        /// The time that a ping and its pong take the server, in nanoseconds.
        heartbeat: u64,
    },
    /// Runs turns whose instructions a profiler counts. It is to be switched on and off at each
    /// line of the output; a line of input continues.
    Turns {
        /// The number of connections.
        connections: usize,
    },
}

/// Memory of the server with a number of connections.
#[derive(Serialize)]
struct Memory {
    connections: usize,
    /// Bytes on the heap, in excess of those without connections.
    heap: usize,
    /// The maximum of this number so far: it is higher while tables grow.
    peak: usize,
    /// Resident memory of the process, likewise.
    resident: usize,
    /// Memory that the server accounts for: its index, and incomplete input and output.
    index: u64,
    ledger: u64,
}

/// What remains after all connections have ended.
#[derive(Serialize)]
struct Left {
    /// Bytes on the heap.
    left: usize,
    /// Those of the clients that are remembered, by the server's account.
    remembered: u64,
    remembered_clients: u64,
    index: u64,
    ledger: u64,
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

/// The heartbeats of a saturated server.
#[derive(Serialize)]
struct Saturated {
    connections: usize,
    turns: usize,
    deliveries: usize,
    pings: usize,
    longest_interval_ms: u64,
    closed: usize,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Memory { connections } => memory(&connections),
        Command::Saturation {
            connections,
            seconds,
            delivery,
            heartbeat,
        } => saturation(
            connections,
            Duration::from_secs(seconds),
            Duration::from_nanos(delivery),
            Duration::from_nanos(heartbeat),
        ),
        Command::Turns { connections } => turns(connections),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("million: {error}");
            ExitCode::FAILURE
        }
    }
}

fn memory(connections: &[usize]) -> Result<()> {
    let largest = connections.iter().copied().max().unwrap_or_default();
    let mut crowd = Crowd::new(largest);
    let base = HEAP.current_usage();
    let resident = resident()?;
    HEAP.reset_peak_usage();
    for &count in connections {
        crowd.arrive(count, Counted::Not);
        let counters = crowd.api_counters();
        print(&Memory {
            connections: count,
            heap: HEAP.current_usage().saturating_sub(base),
            peak: HEAP.peak_usage().saturating_sub(base),
            resident: self::resident()?.saturating_sub(resident),
            index: counters.index_bytes,
            ledger: crowd.counters().ledger.total(),
        })?;
    }
    crowd.depart_all(Counted::Not);
    let counters = crowd.api_counters();
    print(&Left {
        left: HEAP.current_usage().saturating_sub(base),
        remembered: counters.remembered_bytes,
        remembered_clients: counters.remembered_clients,
        index: counters.index_bytes,
        ledger: crowd.counters().ledger.total(),
    })
}

fn saturation(
    connections: usize,
    time: Duration,
    delivery: Duration,
    heartbeat: Duration,
) -> Result<()> {
    let mut crowd = Crowd::for_saturation(connections);
    crowd.arrive(connections, Counted::Not);
    let result = crowd.saturate(time, delivery, heartbeat);
    print(&Saturated {
        connections,
        turns: result.turns,
        deliveries: result.deliveries,
        pings: result.pings,
        longest_interval_ms: result.longest_interval,
        closed: result.closed,
    })?;
    // Skip destructors.
    exit(0);
}

fn turns(connections: usize) -> Result<()> {
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
    print(&Done {
        connections,
        events: EVENTS,
        idle_ticks: IDLE_TICKS,
        heartbeats_in_idle_ticks: idle,
        heartbeats,
    })?;
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

fn print(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    stdout().flush()?;
    Ok(())
}

/// Returns the resident memory of this process in bytes.
fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .ok_or("/proc/self/status has no VmRSS")?
        .trim()
        .parse::<usize>()?
        << 10)
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

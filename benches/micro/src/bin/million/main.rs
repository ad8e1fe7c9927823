//! A server with up to a million connections in one process, over simulated sockets and a simulated
//! clock: the memory of a connection, and the heartbeats of a saturated server.
//!
//! `benches/million` runs it. `benches/README.md` explains the results.

use std::error::Error;
use std::fs;
use std::io::{Write as _, stdout};
use std::process::{ExitCode, exit};
use std::time::Duration;

use clap::{Parser, Subcommand};
use h_realtime_test_kit::crowd::{Counted, Crowd};
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

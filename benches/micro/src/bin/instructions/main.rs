//! Counts the instructions of whole server operations and compares them with a baseline.
//!
//! Valgrind runs each operation twice, with N rounds and with 2N: the difference divided by the
//! number of operations is the cost of one, independent of startup and setup. `benches/README.md`
//! explains how to read the results.

mod baseline;
mod count;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use micro::operations::{OPERATIONS, Operation};

use baseline::{Baseline, Built};

/// The server's allocator. Its costs hardly depend on what has been allocated before, unlike those of
/// glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Counts the instructions of whole server operations over simulated sockets.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts and compares with the baseline. Fails if any operation takes over 3 % more.
    Compare {
        /// The baseline, as JSON.
        file: PathBuf,
        /// Make the new counts the baseline.
        #[arg(long)]
        renew: bool,
        /// Only operations with this in their name.
        #[arg(long, value_name = "WORD", conflicts_with = "renew")]
        only: Option<String>,
    },
    /// Runs rounds of one operation, for counting or for a profiler.
    Run {
        /// Name of the operation.
        name: String,
        /// Number of rounds.
        rounds: u64,
        /// Number of rounds to set up for; the same, if not given.
        #[arg(long, value_name = "ROUNDS")]
        prepared: Option<u64>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare { file, renew, only } => compare(&file, renew, only.as_deref()),
        Command::Run {
            name,
            rounds,
            prepared,
        } => count::run(&name, rounds, prepared.unwrap_or(rounds)),
    };
    result.unwrap_or_else(|error| {
        println!("instructions: {error}");
        ExitCode::FAILURE
    })
}

fn compare(file: &Path, renew: bool, only: Option<&str>) -> Result<ExitCode> {
    let chosen: Vec<&Operation> = OPERATIONS
        .iter()
        .filter(|operation| only.is_none_or(|word| operation.name.contains(word)))
        .collect();
    if chosen.is_empty() {
        return Err("unknown operation".into());
    }
    let before = match renew {
        true => None,
        false => Some(Baseline::read(file)?),
    };
    let (counts, cpu) = count::all(&chosen)?;
    let built = Built::now(cpu)?;
    let passes = report::print(&counts, before.as_ref(), &built, only.is_none());
    if renew {
        Baseline::new(built, &counts).write(file)?;
        println!("New baseline: {}", file.display());
    }
    Ok(match passes {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

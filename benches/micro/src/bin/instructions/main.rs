//! Counts the instructions of whole operations of the server, and compares them with those that
//! were counted before.
//!
//! Each operation is played twice by valgrind, N rounds and 2N: the difference, over the
//! operations in it, is what one takes, whatever the start and the setting up did.
//! `benches/README.md` says how to read it.

mod baseline;
mod count;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use micro::operations::{OPERATIONS, Operation};

use baseline::{Baseline, Built};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Counts the instructions of whole operations of the server, over simulated sockets.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, and compares with the baseline. Fails when any operation takes over 3 % more.
    Compare {
        /// The baseline, as JSON.
        file: PathBuf,
        /// Make what is counted now the baseline.
        #[arg(long)]
        renew: bool,
        /// Only operations whose name contains this.
        #[arg(long, value_name = "WORD", conflicts_with = "renew")]
        only: Option<String>,
    },
    /// Plays rounds of one operation: what is counted, and what a profiler may look into.
    Play {
        /// The operation's name.
        name: String,
        /// How many rounds.
        rounds: u64,
        /// How many rounds to set up for; as many as are played, if not given.
        #[arg(long, value_name = "ROUNDS")]
        prepared: Option<u64>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare { file, renew, only } => compare(&file, renew, only.as_deref()),
        Command::Play {
            name,
            rounds,
            prepared,
        } => count::play(&name, rounds, prepared.unwrap_or(rounds)),
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
        return Err("there is no such operation".into());
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
        println!("This is the baseline now: {}", file.display());
    }
    Ok(match passes {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

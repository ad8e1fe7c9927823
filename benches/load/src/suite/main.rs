//! The suite: measures this server and others in turn, on one machine, in one run.
//!
//! Figures of different runs or machines are hardly comparable. Every round therefore starts each
//! server anew, loads it, and goes on to the next, and comparisons are made within a round. The
//! main path: `main → measures::all → servers::start → load → results → goals, table, plots`.

mod goals;
mod machine;
mod measures;
mod paired;
mod plots;
mod results;
mod servers;
mod stats;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use indicatif::ProgressBar;
use load::Result;
use load::pool::progress;
use serde_json::Value;

use measures::{Arm, Measure, Sample, Scale};
use results::Results;
use servers::Places;

/// Measures this server and others, and reports which goals are met
#[derive(Parser)]
struct Args {
    /// Short version: fewer rounds, connections, and seconds, and no slow peers
    #[arg(long)]
    quick: bool,
    /// Number of rounds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: Option<u64>,
    /// Seconds of each timed measurement
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Maximum number of connections
    #[arg(long, value_parser = clap::value_parser!(u64).range(200..=19_000))]
    connections: Option<u64>,
    /// Only measures whose name contains this; can be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Directory for the results
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    /// Compare the closest servers in short slices in turn, instead of rounds minutes apart
    #[arg(long)]
    paired: bool,
    /// With --paired: number of rounds, each with one slice of each server
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pairs: u64,
    /// With --paired: number of times that the servers are started anew, in another order
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    sessions: u64,
    /// With --paired: duration of a slice in milliseconds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(20..=10_000))]
    slice: u64,
    /// With --paired: add the rounds to this results file, which is created if it does not exist
    #[arg(long)]
    into: Option<PathBuf>,
    /// With --paired: only servers of this name; can be repeated
    #[arg(long)]
    server: Vec<String>,
    /// With --paired: directory of another build (such as a copy of target/release) to compare with
    #[arg(long)]
    other: Option<PathBuf>,
    /// Measure nothing; print the table and plots of a results file
    #[arg(long)]
    show: Option<PathBuf>,
}

impl Args {
    fn includes(&self, id: &str) -> bool {
        let is_in = |word: &String| id.contains(word.as_str());
        self.only.is_empty() || self.only.iter().any(is_in)
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if let Some(file) = &args.show {
        let results = Results::read(file)?;
        table::print(&results);
        return plots::draw(&results, &args.results);
    }
    let scale = Scale {
        rounds: args.rounds.unwrap_or(if args.quick { 2 } else { 5 }),
        seconds: args.seconds.unwrap_or(if args.quick { 1 } else { 3 }),
        most: args
            .connections
            .unwrap_or(if args.quick { 4_000 } else { 19_000 }),
        quick: args.quick,
    };
    let folder = tempfile::tempdir()?;
    let places = Places::find(folder.path())?;
    let message = measures::sample(&places)?;
    for missing in places.missing() {
        println!("Skipping {missing}: not built or not installed.");
    }
    if args.paired {
        return run_paired(args, &scale, &places, &message);
    }
    let mut all = measures::all(&scale, &message);
    all.retain(|measure| args.includes(&measure.id));

    let mut results = Results::new(&scale, machine::facts());
    let steps = all
        .iter()
        .map(|measure| measure.arms.len() as u64)
        .sum::<u64>();
    let bar = progress("suite", steps * scale.rounds);
    let began = Instant::now();
    fs::create_dir_all(&args.results)?;
    let file = args.results.join(format!("{}.json", results.name()));
    for round in 0..scale.rounds {
        for measure in &all {
            for arm in turn(&measure.arms, round) {
                bar.inc(1);
                if places.has(&arm.server) && (round < SLOW_PEER_ROUNDS || !arm.rare) {
                    step(&bar, measure, arm, &places, &mut results);
                }
            }
        }
        // An interrupted run keeps its completed rounds.
        results.rounds_done(round + 1);
        results.write(&file)?;
    }
    bar.finish_and_clear();
    table::print(&results);
    plots::draw(&results, &args.results)?;
    let minutes = began.elapsed().as_secs() / 60;
    println!(
        "{minutes} minutes; {} and the plots are in {}",
        file.display(),
        args.results.display()
    );
    Ok(())
}

/// Measures the rows of the paired mode, and prints what its results file then contains.
fn run_paired(args: &Args, scale: &Scale, places: &Places, message: &Sample) -> Result<()> {
    let extent = paired::Extent {
        rounds: args.pairs,
        sessions: args.sessions,
        slice_ms: args.slice,
    };
    let machine = machine::facts();
    let about = paired::facts(&extent, &machine);
    fs::create_dir_all(&args.results)?;
    let mut results = match args.into.as_deref().filter(|file| file.exists()) {
        Some(file) => Results::read(file)?,
        None => Results::new(scale, machine),
    };
    results.set_paired(about);
    let new = args.results.join(format!("{}-paired.json", results.name()));
    let file = args.into.clone().unwrap_or(new);
    let mut rows = measures::rows(scale, message, args.other.as_deref());
    // "ping-1" is the row of this name, not also that of ten connections.
    let is_exact = rows
        .iter()
        .any(|row| args.only.contains(&row.name().to_owned()));
    rows.retain(|row| match is_exact {
        true => args.only.contains(&row.name().to_owned()),
        false => args.includes(&row.measure.id),
    });
    for row in &mut rows {
        let is_in =
            |name: &str| args.server.is_empty() || args.server.iter().any(|word| word == name);
        row.measure.arms.retain(|arm| is_in(arm.name));
    }
    for row in &rows {
        if let Err(error) = paired::measure(row, &extent, places, &mut results, &file) {
            println!("{}: {error}", row.measure.id);
        }
    }
    table::print(&results);
    println!("The rounds are in {}", file.display());
    Ok(())
}

/// Rotates the order of the servers from round to round.
fn turn(arms: &[Arm], round: u64) -> impl Iterator<Item = &Arm> {
    let skip = usize::try_from(round).unwrap_or_default() % arms.len().max(1);
    arms.iter().cycle().skip(skip).take(arms.len())
}

/// Starts one server and loads it once. Failures are reported and skipped.
fn step(bar: &ProgressBar, measure: &Measure, arm: &Arm, places: &Places, results: &mut Results) {
    bar.set_message(format!("{} {}", measure.id, arm.name));
    match once(arm, places) {
        Ok(figures) => results.add(measure, arm, figures),
        Err(error) => bar.suspend(|| println!("{}, {}: {error}", measure.id, arm.name)),
    }
}

fn once(arm: &Arm, places: &Places) -> Result<Value> {
    let server = servers::start(&arm.server, places)?;
    let mut command = places.pinned(1, &places.load());
    for word in &arm.load {
        command.arg(server.fill(word, places));
    }
    command.args(["--pid", &server.pid().to_string(), "--json", "-"]);
    figures(&mut command)
}

/// Runs the load and reads its report.
fn figures(command: &mut Command) -> Result<Value> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr)
            .trim()
            .to_owned()
            .into()),
    }
}

/// Servers that are much slower take part in this many rounds only.
const SLOW_PEER_ROUNDS: u64 = 2;

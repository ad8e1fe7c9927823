//! Runs operations under valgrind and counts instructions.

use std::io::Write as _;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::thread;

use micro::operations::{OPERATIONS, Operation};
use serde::{Deserialize, Serialize};

use super::Result;

/// The cost of one operation.
pub struct Count {
    pub operation: &'static Operation,
    pub instructions: f64,
    /// Calls of `recv`.
    pub reads: f64,
    /// Calls of `sendmsg`.
    pub writes: f64,
}

/// The report of a program that has run an operation.
#[derive(Serialize, Deserialize)]
struct Report {
    operations: u64,
    reads: u64,
    writes: u64,
    cpu: String,
}

/// Counts each operation, and returns the CPU features that libraries detect. Runs one count per
/// CPU in parallel, which does not affect the counts.
pub fn all(chosen: &[&'static Operation]) -> Result<(Vec<Count>, String)> {
    let rest = Mutex::new(chosen.iter().enumerate().rev().collect::<Vec<_>>());
    let counted = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let Some((at, operation)) = pop(&rest) {
                    let result =
                        one(operation).map_err(|error| format!("{}: {error}", operation.name));
                    push(&counted, (at, result));
                }
            });
        }
    });
    let mut counted = counted.into_inner().map_err(|error| error.to_string())?;
    counted.sort_by_key(|(at, _)| *at);
    let (mut counts, mut cpu) = (Vec::new(), String::new());
    for (_, result) in counted {
        let (count, its_cpu) = result?;
        counts.push(count);
        cpu = its_cpu;
    }
    Ok((counts, cpu))
}

/// Runs rounds of an operation and prints a report.
pub fn run(name: &str, rounds: u64, prepared: u64) -> Result<ExitCode> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.ok_or("unknown operation")?;
    let mut workload = (operation.prepare)(prepared.max(rounds));
    let done = workload.run(rounds);
    let report = Report {
        operations: done.operations,
        reads: done.reads,
        writes: done.writes,
        cpu: cpu(),
    };
    println!("{}", serde_json::to_string(&report)?);
    std::io::stdout().flush()?;
    // Skip destructors, whose cost depends on the number of rounds.
    std::process::exit(0);
}

fn one(operation: &'static Operation) -> Result<(Count, String)> {
    let (once, few) = run_under_valgrind(operation, operation.rounds)?;
    let (twice, many) = run_under_valgrind(operation, 2 * operation.rounds)?;
    let operations = (many.operations - few.operations) as f64;
    let count = Count {
        operation,
        instructions: (twice - once) as f64 / operations,
        reads: (many.reads - few.reads) as f64 / operations,
        writes: (many.writes - few.writes) as f64 / operations,
    };
    Ok((count, many.cpu))
}

/// Lets mimalloc keep its memory: otherwise, it returns unused memory at certain times, and the count
/// depends on the speed of the machine.
const NO_PURGE: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "-1");

/// Counts the instructions of a whole program that runs `rounds` rounds.
fn run_under_valgrind(operation: &Operation, rounds: u64) -> Result<(u64, Report)> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--branch-sim=no"])
        .arg("--cachegrind-out-file=/dev/null")
        .arg(std::env::current_exe()?)
        .args(["run", operation.name, &rounds.to_string()])
        .args(["--prepared", &(2 * operation.rounds).to_string()])
        .env_clear()
        .envs([NO_PURGE])
        .output()
        .map_err(|error| format!("cannot run valgrind ({error}): is it installed?"))?;
    if !output.status.success() {
        return Err(format!("it failed under valgrind\n{}", stderr_of(&output)).into());
    }
    let report = serde_json::from_slice(&output.stdout)?;
    let instructions = instructions(&output);
    let instructions =
        instructions.ok_or_else(|| format!("no count in\n{}", stderr_of(&output)))?;
    Ok((instructions, report))
}

/// Parses the count in a line such as `==123== I   refs:      1,234,567`.
fn instructions(output: &Output) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut counts = text.lines().filter_map(|socket| {
        let (label, count) = socket.split_once("refs:")?;
        let is_it = label.trim_end().ends_with(" I");
        is_it.then(|| count.trim().replace(',', ""))
    });
    counts.next()?.parse().ok()
}

fn stderr_of(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Returns the CPU features by which libraries select code at run time. Valgrind offers fewer than
/// the CPU.
fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let features = [(std::env::consts::ARCH, true)];
    let there: Vec<_> = features
        .iter()
        .filter_map(|(name, is_there)| is_there.then_some(*name))
        .collect();
    there.join(" ")
}

fn pop<T>(list: &Mutex<Vec<T>>) -> Option<T> {
    list.lock().ok()?.pop()
}

fn push<T>(list: &Mutex<Vec<T>>, one: T) {
    if let Ok(mut list) = list.lock() {
        list.push(one);
    }
}

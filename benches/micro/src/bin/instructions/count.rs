//! Plays operations under valgrind, and counts.

use std::io::Write as _;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::thread;

use micro::operations::{OPERATIONS, Operation};
use serde::{Deserialize, Serialize};

use super::Result;

/// What an operation takes, each time.
pub struct Count {
    pub operation: &'static Operation,
    pub instructions: f64,
    /// Calls of `recv`.
    pub reads: f64,
    /// Calls of `sendmsg`.
    pub writes: f64,
}

/// What a program that has played says of it.
#[derive(Serialize, Deserialize)]
struct Played {
    operations: u64,
    reads: u64,
    writes: u64,
    cpu: String,
}

/// Counts each operation, and says what the processor can do that libraries look for. As many
/// are counted at once as there are processors: that changes no count.
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

/// Plays rounds of an operation, and says what was done.
pub fn play(name: &str, rounds: u64, prepared: u64) -> Result<ExitCode> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.ok_or("there is no such operation")?;
    let mut scene = (operation.prepare)(prepared.max(rounds));
    let done = scene.play(rounds);
    let played = Played {
        operations: done.operations,
        reads: done.reads,
        writes: done.writes,
        cpu: cpu(),
    };
    println!("{}", serde_json::to_string(&played)?);
    std::io::stdout().flush()?;
    // To take it all down would cost what the rounds have built up.
    std::process::exit(0);
}

fn one(operation: &'static Operation) -> Result<(Count, String)> {
    let (once, few) = run(operation, operation.rounds)?;
    let (twice, many) = run(operation, 2 * operation.rounds)?;
    let operations = (many.operations - few.operations) as f64;
    let count = Count {
        operation,
        instructions: (twice - once) as f64 / operations,
        reads: (many.reads - few.reads) as f64 / operations,
        writes: (many.writes - few.writes) as f64 / operations,
    };
    Ok((count, many.cpu))
}

/// The instructions of a whole program that plays so many rounds.
fn run(operation: &Operation, rounds: u64) -> Result<(u64, Played)> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--branch-sim=no"])
        .arg("--cachegrind-out-file=/dev/null")
        .arg(std::env::current_exe()?)
        .args(["play", operation.name, &rounds.to_string()])
        .args(["--prepared", &(2 * operation.rounds).to_string()])
        .env_clear()
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}): is it installed?"))?;
    if !output.status.success() {
        return Err(format!("it failed under valgrind\n{}", said(&output)).into());
    }
    let played = serde_json::from_slice(&output.stdout)?;
    let instructions = instructions(&output);
    let instructions = instructions.ok_or_else(|| format!("no count in\n{}", said(&output)))?;
    Ok((instructions, played))
}

/// The count in a line like `==123== I   refs:      1,234,567`.
fn instructions(output: &Output) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut counts = text.lines().filter_map(|line| {
        let (label, count) = line.split_once("refs:")?;
        let is_it = label.trim_end().ends_with(" I");
        is_it.then(|| count.trim().replace(',', ""))
    });
    counts.next()?.parse().ok()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// What libraries choose their code by when they run. Under valgrind it is less than what the
/// processor has.
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

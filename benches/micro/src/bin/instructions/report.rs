//! Says what was counted, and whether that is still as it was.

use super::baseline::{Baseline, Built};
use super::count::Count;

/// Prints the table and the verdict; whether it passes. Without a baseline it does.
pub fn print(counts: &[Count], before: Option<&Baseline>, built: &Built, is_all: bool) -> bool {
    println!(
        "{:<22}{:>13}{:>13}{:>10}{:>7}{:>7}   which is",
        "instructions for each", "now", "baseline", "change", "recv", "send"
    );
    let known = |count: &Count| before?.instructions.get(count.operation.name).copied();
    let mut worse = Vec::new();
    for count in counts {
        let known = known(count);
        let change = known.map(|known| 100.0 * (count.instructions / known - 1.0));
        println!(
            "{:<22}{:>13}{:>13}{:>10}{:>7.2}{:>7.2}   {}",
            count.operation.name,
            thousands(count.instructions),
            known.map_or("-".to_owned(), thousands),
            change.map_or("-".to_owned(), |change| format!("{change:+.2} %")),
            count.reads,
            count.writes,
            count.operation.what
        );
        if change.is_some_and(|change| change > TOLERANCE) {
            worse.push(count.operation.name);
        }
    }
    let Some(before) = before else { return true };
    let names = counts.iter().map(|count| count.operation.name);
    let new: Vec<_> = names
        .clone()
        .filter(|name| !before.instructions.contains_key(*name))
        .collect();
    let gone = before
        .instructions
        .keys()
        .filter(|name| is_all && !names.clone().any(|there| there == name.as_str()));
    let odd: Vec<_> = new.into_iter().chain(gone.map(String::as_str)).collect();
    judge(&worse, &odd, &before.built.differences(built))
}

/// The verdict, in words.
fn judge(worse: &[&str], odd: &[&str], differences: &[String]) -> bool {
    if !differences.is_empty() {
        println!(
            "No verdict: the baseline was made with something else ({}), and counts differ by that alone.",
            differences.join("; ")
        );
        return true;
    }
    if worse.is_empty() && odd.is_empty() {
        println!("None takes over {TOLERANCE} % more than in the baseline.");
        return true;
    }
    if !worse.is_empty() {
        println!(
            "FAILED: over {TOLERANCE} % more than in the baseline: {}. Where they are spent, callgrind says:\n  \
             valgrind --tool=callgrind {} play '{}' 1000",
            worse.join(", "),
            program(),
            worse[0]
        );
    }
    if !odd.is_empty() {
        println!(
            "FAILED: not in both the program and the baseline: {}.",
            odd.join(", ")
        );
    }
    println!(
        "Where that has its reason, make it the baseline, and commit it:\n  \
         benches/instructions/run --renew"
    );
    false
}

fn program() -> String {
    let path = std::env::current_exe();
    path.map_or("instructions".to_owned(), |path| path.display().to_string())
}

/// A number with its thousands apart; what is small keeps a digit behind the point.
fn thousands(number: f64) -> String {
    if number < 1000.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How much more an operation may take, in percent of the baseline.
const TOLERANCE: f64 = 3.0;

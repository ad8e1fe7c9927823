//! Prints the counts and compares them with the baseline.

use super::baseline::{Baseline, Built};
use super::count::Count;

/// Prints the table and the verdict. Returns whether the comparison passes; without a baseline it
/// does.
pub fn print(counts: &[Count], before: Option<&Baseline>, built: &Built, is_all: bool) -> bool {
    println!(
        "{:<22}{:>13}{:>13}{:>10}{:>7}{:>7}   description",
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
            count.operation.description
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
    let unmatched: Vec<_> = new.into_iter().chain(gone.map(String::as_str)).collect();
    judge(&worse, &unmatched, &before.built.differences(built))
}

/// Prints the verdict.
fn judge(worse: &[&str], unmatched: &[&str], differences: &[String]) -> bool {
    if !differences.is_empty() {
        println!(
            "No verdict: the baseline was made in another environment ({}), which changes counts.",
            differences.join("; ")
        );
        return true;
    }
    if worse.is_empty() && unmatched.is_empty() {
        println!("No operation takes over {TOLERANCE} % more than in the baseline.");
        return true;
    }
    if !worse.is_empty() {
        println!(
            "FAILED: over {TOLERANCE} % more than in the baseline: {}. To find the cause, run callgrind:\n  \
             valgrind --tool=callgrind {} run '{}' 1000",
            worse.join(", "),
            program(),
            worse[0]
        );
    }
    if !unmatched.is_empty() {
        println!(
            "FAILED: not in both the program and the baseline: {}.",
            unmatched.join(", ")
        );
    }
    println!(
        "If the change is intended, renew the baseline and commit it:\n  \
         benches/instructions/run --renew"
    );
    false
}

fn program() -> String {
    let path = std::env::current_exe();
    path.map_or("instructions".to_owned(), |path| path.display().to_string())
}

/// Formats a number with thousands separators; small numbers keep one decimal.
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

/// The maximum increase of an operation, in percent of the baseline.
const TOLERANCE: f64 = 3.0;

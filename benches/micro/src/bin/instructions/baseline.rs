//! The baseline: earlier counts, and the environment in which they were made.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Result;
use super::count::Count;

/// The counts to compare with.
#[derive(Serialize, Deserialize)]
pub struct Baseline {
    pub built: Built,
    /// By the name of the operation.
    pub instructions: BTreeMap<String, f64>,
}

/// The factors besides our own sources and `Cargo.lock` that affect the number of instructions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    rustc: String,
    target: String,
    /// Its `malloc` and `memcpy` are counted, too.
    libc: String,
    /// The CPU features as detected under valgrind.
    cpu: String,
}

impl Baseline {
    pub fn new(built: Built, counts: &[Count]) -> Self {
        let tenths = |number: f64| (number * 10.0).round() / 10.0;
        let entry = |count: &Count| (count.operation.name.to_owned(), tenths(count.instructions));
        Baseline {
            built,
            instructions: counts.iter().map(entry).collect(),
        }
    }

    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(|error| {
            let file = file.display();
            format!("{file}: {error} (benches/instructions/run --renew makes a baseline)")
        })?;
        let baseline = serde_json::from_str(&text);
        Ok(baseline.map_err(|error| format!("{}: {error}", file.display()))?)
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(fs::write(file, text)?)
    }
}

impl Built {
    /// Detects the current environment.
    pub fn now(cpu: String) -> Result<Self> {
        let about = output_of("rustc", &["-vV"])?;
        let mut lines = about.lines();
        let rustc = lines.next().unwrap_or_default().to_owned();
        let target = lines.find_map(|socket| socket.strip_prefix("host: "));
        Ok(Built {
            rustc,
            target: target.unwrap_or_default().to_owned(),
            libc: output_of("getconf", &["GNU_LIBC_VERSION"])
                .unwrap_or_else(|_| "unknown".to_owned()),
            cpu,
        })
    }

    /// Describes the differences between both environments.
    pub fn differences(&self, now: &Built) -> Vec<String> {
        let pairs = [
            (&self.rustc, &now.rustc),
            (&self.target, &now.target),
            (&self.libc, &now.libc),
            (&self.cpu, &now.cpu),
        ];
        let different = pairs.into_iter().filter(|(then, now)| then != now);
        different
            .map(|(then, now)| format!("{then:?} then, {now:?} now"))
            .collect()
    }
}

fn output_of(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

//! Conformance: Autobahn's fuzzing client against the echo example, plain and over TLS.
//!
//! Every case is `OK`: none is `NON-STRICT` (allowed, but late or imprecise), none `UNIMPLEMENTED`.
//! Three are `INFORMATIONAL` for every server. The suite lets a server choose whether to compress;
//! here it must, wherever it negotiated compression. The suite is written in Python and installed
//! by `prepare.py`; `fuzz.py` runs it, and lists the cases that it shortens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Program;

/// The sections, one client per row, all in parallel.
const SECTIONS: &[&[&str]] = &[
    &[
        "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*",
    ],
    &["12.*"],
    &["13.*"],
];

/// A time limit that no case reaches, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A case, with the verdicts on its messages and on its close.
type Verdicts = BTreeMap<String, [String; 2]>;

#[test]
#[ignore = "needs python3 with autobahntestsuite: run tests/run"]
fn every_case_passes_strictly() {
    assert_as_expected("ws", &[]);
}

#[test]
#[ignore = "needs python3 with autobahntestsuite: run tests/run"]
fn every_case_passes_strictly_over_tls() {
    let folder = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let args = ["--tls-cert".as_ref(), &*cert, "--tls-key".as_ref(), &*key];
    assert_as_expected("wss", &args);
}

#[test]
fn expected_verdicts_are_ok() {
    let informational = ["7.1.6", "7.13.1", "7.13.2"];
    for (case, verdicts) in expected() {
        let want = match informational.contains(&case.as_str()) {
            true => "INFORMATIONAL",
            false => "OK",
        };
        assert_eq!(verdicts, [want, want], "{case}");
    }
}

#[test]
fn every_section_is_run() {
    for case in expected().keys() {
        let runs = |section: &&&str| is_in(case, section);
        assert_eq!(SECTIONS.concat().iter().filter(runs).count(), 1, "{case}");
    }
}

fn assert_as_expected(scheme: &str, args: &[&Path]) {
    let mut command = Command::new(echo());
    let mut server = Program::start(command.arg("127.0.0.1:0").args(args));
    let line = server.line().unwrap();
    let address = line.strip_prefix("listening on ").unwrap();
    let url = format!("{scheme}://{address}");
    let mut reports = BTreeMap::new();
    thread::scope(|scope| {
        let runs: Vec<_> = SECTIONS
            .iter()
            .map(|sections| scope.spawn(|| fuzz(&url, sections)))
            .collect();
        for run in runs {
            reports.extend(run.join().unwrap());
        }
    });
    if let Some(status) = server.child.try_wait().unwrap() {
        let lines: Vec<String> = std::iter::from_fn(|| server.error_line()).collect();
        panic!("the server ended, {status}: {}", lines.join("\n"));
    }
    let want = expected();
    let differences: Vec<String> = want
        .iter()
        .filter(|(case, verdicts)| reports.get(*case).map(verdicts_of).as_ref() != Some(verdicts))
        .map(|(case, verdicts)| format!("{case}: not {verdicts:?}: {:?}", reports.get(case)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(want.len(), reports.len(), "the suite has other cases");
    for (case, report) in &reports {
        assert_eq!(report["compressed"], comes_compressed(case), "{case}");
    }
    println!("{scheme}: {} cases as expected", want.len());
}

/// Returns the fuzzing client's report for each case.
fn fuzz(url: &str, sections: &[&str]) -> BTreeMap<String, Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Not the current target directory: tests/setup creates it at a fixed path.
    let suite = root.join("target/autobahn");
    assert!(
        fs::read(suite.join("made-by")).is_ok_and(|by| by == include_bytes!("prepare.py")),
        "this test needs the suite that prepare.py installs in {}: run tests/setup",
        suite.display()
    );
    let mut command = Command::new(suite.join("python/bin/python"));
    command.arg(root.join("tests/interop/autobahn/fuzz.py"));
    let mut client = Program::start(command.arg(suite).arg(url).args(sections));
    // It prints a line for each case: silence indicates a hang.
    let mut lines = Vec::new();
    loop {
        match client.error_line_within(PATIENCE) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the suite hangs: {:?}", lines.last()),
        }
    }
    assert_eq!(client.wait(), Some(0), "{}", lines.join("\n"));
    serde_json::from_str(&client.line().unwrap()).unwrap()
}

fn verdicts_of(report: &Value) -> [String; 2] {
    ["behavior", "behaviorClose"].map(|key| report[key].as_str().unwrap_or_default().to_owned())
}

/// Returns whether messages are compressed: not in cases with messages of 16 or 64 bytes, nor for a
/// client that requested a window of 2^9 bytes.
fn comes_compressed(case: &str) -> bool {
    let asks_for_small_window = ["13.3.*", "13.5.*", "13.7.*"];
    let is_short = case.ends_with(".1") || case.ends_with(".2");
    let compresses = is_in(case, "12.*") || is_in(case, "13.*");
    compresses && !is_short && !asks_for_small_window.iter().any(|s| is_in(case, s))
}

fn expected() -> Verdicts {
    serde_json::from_str(include_str!("expected.json")).unwrap()
}

fn is_in(case: &str, section: &str) -> bool {
    case.starts_with(section.trim_end_matches('*'))
}

/// Returns the echo example, built with optimization since section 9 measures time. Rebuilt if
/// necessary.
fn echo() -> &'static Path {
    static ECHO: OnceLock<PathBuf> = OnceLock::new();
    ECHO.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--release", "--example", "conformance", "--quiet"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // Without the package variables that cargo sets for this test: ring's build script would
        // run again, and everything would be rebuilt.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|message| message["target"]["kind"][0] == "example")
            .and_then(|message| message["executable"].as_str().map(PathBuf::from))
            .unwrap()
    })
}

//! Conformance: Autobahn's fuzzing client against the echo example, plain and over TLS.
//!
//! Every case is `OK`: none is `NON-STRICT` (allowed, but late or loose), none `UNIMPLEMENTED`.
//! Three are `INFORMATIONAL` whatever a server does. The suite leaves it to a server whether it
//! compresses what it sends; here it must, wherever it said that it may. The suite is Python's,
//! and made to run by `prepare.py`; `fuzz.py` drives it, and says which of its cases it cuts
//! short.

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

/// What is run, a client per row, all at the same time.
const SECTIONS: &[&[&str]] = &[
    &[
        "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*",
    ],
    &["12.*"],
    &["13.*"],
];

/// What no case takes, even on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A case, and what became of its messages and of its close.
type Verdicts = BTreeMap<String, [String; 2]>;

#[test]
#[ignore = "needs python3 with autobahntestsuite: run tests/run"]
fn every_case_is_strictly_passed() {
    assert_as_expected("ws", &[]);
}

#[test]
#[ignore = "needs python3 with autobahntestsuite: run tests/run"]
fn every_case_is_strictly_passed_over_tls() {
    let folder = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let args = ["--tls-cert".as_ref(), &*cert, "--tls-key".as_ref(), &*key];
    assert_as_expected("wss", &args);
}

#[test]
fn nothing_less_than_ok_is_expected() {
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
        let words: Vec<String> = std::iter::from_fn(|| server.word()).collect();
        panic!("the server ended, {status}: {}", words.join("\n"));
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

/// What the fuzzing client reports of each case.
fn fuzz(url: &str, sections: &[&str]) -> BTreeMap<String, Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Not the target directory of the day: tests/run makes it at this place.
    let suite = root.join("target/autobahn");
    assert!(
        fs::read(suite.join("made-by")).is_ok_and(|by| by == include_bytes!("prepare.py")),
        "this test needs what prepare.py makes, in {}: tests/run makes it",
        suite.display()
    );
    let mut command = Command::new(suite.join("python/bin/python"));
    command.arg(root.join("tests/interop/autobahn/fuzz.py"));
    let mut client = Program::start(command.arg(suite).arg(url).args(sections));
    // It says something at each case: one that hangs is noticed by its silence.
    let mut words = Vec::new();
    loop {
        match client.word_within(PATIENCE) {
            Ok(word) => words.push(word),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("it hangs: {:?}", words.last()),
        }
    }
    assert_eq!(client.wait(), Some(0), "{}", words.join("\n"));
    serde_json::from_str(&client.line().unwrap()).unwrap()
}

fn verdicts_of(report: &Value) -> [String; 2] {
    ["behavior", "behaviorClose"].map(|key| report[key].as_str().unwrap_or_default().to_owned())
}

/// Whether messages come back compressed: not from a case whose messages are of 16 or of 64
/// bytes, nor to a client that asked for a window of 2^9 bytes.
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

/// The echo example, optimized: the cases of section 9 time it. Made where it is not up to date.
fn echo() -> &'static Path {
    static ECHO: OnceLock<PathBuf> = OnceLock::new();
    ECHO.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--release", "--example", "echo", "--quiet"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells this test of its package: ring's build script runs anew, and with it
        // everything is built anew, when that is not as it was.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|message| message["target"]["kind"][0] == "example")
            .and_then(|message| message["executable"].as_str().map(PathBuf::from))
            .unwrap()
    })
}

//! Every script describes itself with `--help`, and refuses unknown options, at once and without building
//! anything. Shells notice failures in pipelines.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a script may take: an interpreter that starts on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A failed command before the last `|` must not pass for success, nor a misspelled variable for an empty one.
#[test]
fn shell_scripts_notice_unset_variables_and_failures_in_pipelines() {
    let mut count = 0;
    for script in scripts() {
        let text = fs::read_to_string(root().join(&script)).unwrap();
        let interpreter = text.lines().next().unwrap();
        if !interpreter.ends_with("sh") {
            continue;
        }
        count += 1;
        let options = text.lines().find(|line| line.starts_with("set "));
        assert!(
            matches!(options, Some("set -uo pipefail" | "set -euo pipefail")),
            "{}: {interpreter}, {options:?}",
            script.display()
        );
    }
    assert!(count > 5, "{count} scripts");
}

#[test]
#[ignore = "needs python3: run tests/run"]
fn scripts_print_their_usage_for_help() {
    let (scripts, without_cargo) = (scripts(), WithoutCargo::new());
    for script in &scripts {
        for option in ["--help", "-h"] {
            let mut command = Command::new(root().join(script));
            command.arg(option).env("PATH", &without_cargo.path);
            let output = run(&mut command);
            let text = String::from_utf8(output.stdout).unwrap();
            let problem = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && text.lines().any(|line| is_usage(script, line)),
                "{} {option}: {}: {text}{problem}",
                script.display(),
                output.status
            );
        }
    }
}

#[test]
#[ignore = "needs python3: run tests/run"]
fn scripts_refuse_unknown_options() {
    let without_cargo = WithoutCargo::new();
    for script in &scripts() {
        let mut command = Command::new(root().join(script));
        command
            .arg("--unknown-option")
            .env("PATH", &without_cargo.path);
        let output = run(&mut command);
        let text = String::from_utf8_lossy(&output.stdout);
        let problem = String::from_utf8(output.stderr).unwrap();
        // Scripts without options state the arguments that they expect.
        let prefix = format!("{}: ", script.display());
        let is_described = problem
            .lines()
            .any(|line| is_usage(script, line) || line.starts_with(&prefix));
        assert!(
            output.status.code() == Some(2) && text.is_empty() && is_described,
            "{}: {}: {text}{problem}",
            script.display(),
            output.status
        );
    }
}

#[test]
#[ignore = "needs python3: run tests/run"]
fn packaging_scripts_refuse_a_missing_program_in_one_line() {
    for script in ["docs/packaging/smoke", "docs/packaging/conformance"] {
        for arguments in [&[][..], &["/nonexistent/h-realtime"]] {
            let output = run(Command::new(root().join(script)).args(arguments));
            let problem = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{script}: {problem}");
            assert_eq!(problem.lines().count(), 1, "{script}: {problem}");
            assert!(problem.starts_with(script), "{script}: {problem}");
        }
    }
}

/// A search path on which cargo and the compilers fail: a script that builds before it reads its
/// arguments fails, too.
struct WithoutCargo {
    path: OsString,
    _folder: TempDir,
}

impl WithoutCargo {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cargo", "rustc"] {
            let path = folder.path().join(name);
            fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut path = folder.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        WithoutCargo {
            path,
            _folder: folder,
        }
    }
}

/// Returns whether a line begins the usage of a script. Some print the path of the script, and some its
/// name.
fn is_usage(script: &Path, line: &str) -> bool {
    let name = script.file_name().unwrap().to_str().unwrap();
    let line = line.replacen("Usage: ", "usage: ", 1);
    [script.to_str().unwrap(), name]
        .iter()
        .any(|name| line.starts_with(&format!("usage: {name}")))
}

/// Runs a command. Panics if it takes too long.
fn run(command: &mut Command) -> Output {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // The output of these commands is smaller than the buffer of a pipe.
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} takes more than {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Returns the executable scripts of the repository, by their paths in it.
fn scripts() -> Vec<PathBuf> {
    let mut scripts = Vec::new();
    for folder in ["benches", "docs", "examples", "fuzz", "tests"] {
        scripts_below(Path::new(folder), &mut scripts);
    }
    for script in ["benches/run", "docs/packaging/release", "tests/run"] {
        assert!(scripts.contains(&PathBuf::from(script)), "{scripts:?}");
    }
    scripts
}

/// Collects the executable scripts of a folder.
fn scripts_below(folder: &Path, scripts: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if kind.is_dir() && !hidden && !path.ends_with("target") {
            scripts_below(&path, scripts);
        } else if kind.is_file()
            && entry.metadata().unwrap().permissions().mode() & 0o111 != 0
            && fs::read(entry.path()).unwrap().starts_with(b"#!")
        {
            scripts.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

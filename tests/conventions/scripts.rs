//! Every script describes itself with `--help`, at once and without building anything. Shells notice failures in
//! pipelines.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a script may take: an interpreter that starts on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A failed command before the last `|` must not pass for success, nor a misspelled variable for an empty one.
#[test]
fn shell_scripts_notice_unset_variables_and_failures_in_pipelines() {
    let mut count = 0;
    for script in all_scripts() {
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
    let scripts = all_scripts();
    for script in ["benches/run", "docs/packaging/release", "tests/run"] {
        assert!(scripts.contains(&PathBuf::from(script)), "{scripts:?}");
    }
    // Cargo and the compilers are absent: a script that builds before it reads its arguments fails.
    let folder = tempfile::tempdir().unwrap();
    for name in ["cargo", "rustc"] {
        let path = folder.path().join(name);
        fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut path = folder.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    for script in &scripts {
        for option in ["--help", "-h"] {
            let mut command = Command::new(root().join(script));
            command.arg(option).env("PATH", &path);
            let output = run(&mut command);
            let text = String::from_utf8(output.stdout).unwrap();
            let problem = String::from_utf8_lossy(&output.stderr);
            let name = script.file_name().unwrap().to_str().unwrap();
            // Some print the path of the script, and some its name.
            let usages = [script.to_str().unwrap(), name].map(|name| format!("usage: {name}"));
            let is_usage = |line: &str| {
                let line = line.replacen("Usage: ", "usage: ", 1);
                usages.iter().any(|usage| line.starts_with(usage))
            };
            assert!(
                output.status.success() && text.lines().any(is_usage),
                "{} {option}: {}: {text}{problem}",
                script.display(),
                output.status
            );
        }
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
fn all_scripts() -> Vec<PathBuf> {
    let mut scripts = Vec::new();
    for folder in ["benches", "docs", "examples", "fuzz", "tests"] {
        scripts_below(Path::new(folder), &mut scripts);
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

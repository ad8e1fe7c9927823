//! Runs scripts in `tests/clients` with the Python environment that `tests/setup` creates.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Returns the interpreter that has the packages of `tests/clients/requirements.txt`. It is not in
/// the current target directory: `tests/setup` creates it at a fixed path.
pub fn interpreter() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(
        python.exists(),
        "this test needs {} with the packages of tests/clients/requirements.txt: run tests/setup",
        python.display()
    );
    python
}

/// Runs a script with this standard input; it must succeed. The script has its own time limit.
pub fn python(script: &str, input: &Value) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut child = Command::new(interpreter())
        .arg(clients.join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

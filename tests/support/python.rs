//! Scripts in `tests/clients`, run by the Python that `tests/run` makes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The interpreter, with what `tests/clients/requirements.txt` lists. It is not in the target
/// directory of the day: `tests/run` makes it at this place.
pub fn interpreter() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(
        python.exists(),
        "this test needs {} with what tests/clients/requirements.txt lists: tests/run makes it",
        python.display()
    );
    python
}

/// Runs a script that bounds its own time, with this on its standard input; it must succeed.
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

//! The machine and the versions used for a measurement.

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};

pub fn facts() -> Value {
    json!({
        "date": output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "machine": machine(),
        "versions": versions(),
    })
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split(':').nth(1))
        .unwrap_or("")
        .trim();
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1));
    let total = total
        .and_then(|digits| digits.parse::<f64>().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!(
        "{count} × {model}, {:.0} GiB, Linux {kernel}",
        total / 1_048_576.0
    )
}

fn versions() -> Value {
    let mut all = Map::new();
    let mut set = |name: &str, version: String| {
        if !version.is_empty() {
            all.insert(name.to_owned(), version.into());
        }
    };
    set(
        "h-realtime",
        output("git", &["describe", "--always", "--dirty"]),
    );
    set("rustc", output("rustc", &["--version"]));
    for (name, package) in [
        ("fastwebsockets", "fastwebsockets"),
        ("tokio", "tokio"),
        ("tungstenite", "tokio-tungstenite"),
        ("rustls", "rustls"),
        ("uWebSockets (libuwebsockets-sys)", "libuwebsockets-sys"),
    ] {
        set(name, locked(package));
    }
    let requirements = fs::read_to_string("benches/peers/scripts/requirements.txt");
    for line in requirements.unwrap_or_default().lines() {
        if let Some((name, version)) = line.split_once("==") {
            set(name, version.to_owned());
        }
    }
    set(
        "python",
        output("target/benches/python/bin/python", &["--version"]),
    );
    set("node", output("node", &["--version"]));
    let package = fs::read("target/benches/node/node_modules/ws/package.json").unwrap_or_default();
    let package: Value = serde_json::from_slice(&package).unwrap_or_default();
    set(
        "ws",
        package["version"].as_str().unwrap_or_default().to_owned(),
    );
    Value::Object(all)
}

/// Returns the version of a package in the peers' lock file.
fn locked(package: &str) -> String {
    let lock = fs::read_to_string("benches/peers/Cargo.lock").unwrap_or_default();
    let wanted = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != wanted).skip(1);
    let version = lines.next().and_then(|line| line.split('"').nth(1));
    version.unwrap_or_default().to_owned()
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

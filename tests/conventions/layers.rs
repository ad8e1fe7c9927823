//! The import rules: which modules and crates each module may import.

use std::fs;
use std::path::{Path, PathBuf};

/// A module, the modules of this crate that it may import, and the crates besides `std`.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("engine/ws", &[], &["zlib_rs"]),
    ("engine/http", &["ws"], &["httparse", "sha1", "base64"]),
    ("model", &[], &[]),
    ("uri", &[], &[]),
    ("backoff.rs", &[], &[]),
    ("trust", &[], &["rustls", "rustls_native_certs"]),
    ("logging", &[], &["log", "jiff", "rustix", "serde_json"]),
    (
        "config",
        &["model", "net", "http", "logging"],
        &["toml", "clap", "strsim", "log"],
    ),
    ("exit.rs", &["config", "backend"], &[]),
    (
        "admin",
        &["model", "net", "http"],
        &["serde_json", "subtle"],
    ),
    (
        "realtime",
        &["model", "uri", "net", "http", "ws", "log_throttle"],
        &[
            "serde",
            "serde_json",
            "foldhash",
            "hashbrown",
            "log",
            "base64",
            "jiff",
        ],
    ),
    (
        "backend",
        &["model", "uri", "backoff", "log_throttle", "trust"],
        &[
            "rusqlite",
            "serde",
            "serde_json",
            "sha2",
            "base64",
            "jiff",
            "getrandom",
            "rustix",
            "log",
            "lapin",
            "percent_encoding",
            "url",
            "tokio",
            "tokio_postgres",
            "tokio_postgres_rustls",
        ],
    ),
    (
        "server",
        &[
            "admin", "backend", "clock", "config", "exit", "http", "logging", "model", "net",
            "owner", "realtime",
        ],
        &[
            "getrandom",
            "jiff",
            "listenfd",
            "log",
            "rustix",
            "signal_hook",
            "socket2",
        ],
    ),
];

/// The part of `net` that an application may use: not its sockets, nor mio's.
const NET_FOR_APPLICATIONS: &[&str] = &[
    "ConnCx",
    "ConnKey",
    "Counters",
    "Cx",
    "Delivery",
    "Frame",
    "Handler",
    "ListenerId",
    "Message",
    "Now",
    "Overdue",
    "Refusal",
    "RequestCx",
    "Sessions",
    "Verdict",
];

/// Crates that may only be named in these places.
const CONFINED: &[(&str, &[&str])] = &[
    ("rustls", &["engine/io/tls", "trust", "cli/listen/tls.rs"]),
    ("x509_cert", &["engine/io/tls"]),
    ("lapin", &["backend/amqp"]),
    ("tokio", &["backend/amqp", "backend/h"]),
    ("tokio_postgres", &["backend/h"]),
    ("rusqlite", &["backend/embedded"]),
];

#[test]
fn modules_only_import_lower_layers() {
    let mut faults = Vec::new();
    for (module, modules, crates) in RULES {
        for (file, text) in sources(module) {
            if is_test(&file) {
                continue;
            }
            for path in paths(&text) {
                if let Some(fault) = fault(module, modules, crates, &path) {
                    faults.push(format!("{}: {fault}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn confined_crates_are_named_in_one_place() {
    for (file, text) in sources("") {
        let name = file.display().to_string();
        if is_test(&file) {
            continue;
        }
        for (confined, places) in CONFINED {
            let may = places.iter().any(|place| name.contains(place));
            let prefix = format!("{confined}::");
            let names = paths(&text).iter().any(|path| path.starts_with(&prefix));
            assert!(may || !names, "{name} names {confined}");
        }
    }
}

#[test]
fn files_are_short_and_documented() {
    for (file, text) in sources("") {
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines", file.display());
        assert!(
            text.starts_with("//!") || text.starts_with("#!"),
            "{} has no module documentation",
            file.display()
        );
    }
}

fn fault(module: &str, modules: &[&str], crates: &[&str], path: &str) -> Option<String> {
    let (first, rest) = path.split_once("::")?;
    if first != "crate" {
        let is_own = ["std", "core", "self", "super", "alloc"].contains(&first);
        return (!is_own && !crates.contains(&first)).then(|| format!("crate {first}"));
    }
    let (target, item) = rest.split_once("::").unwrap_or((rest, ""));
    if target != module && !modules.contains(&target) {
        return Some(format!("imports {target}"));
    }
    let is_application = matches!(module, "realtime" | "admin");
    let inner = item.split("::").next().unwrap_or("");
    let is_forbidden = target == "net"
        && is_application
        && !inner.is_empty()
        && !NET_FOR_APPLICATIONS.contains(&inner);
    is_forbidden.then(|| format!("uses net::{inner}"))
}

/// Tests are exempt.
fn is_test(file: &Path) -> bool {
    file.with_extension("")
        .components()
        .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "testing")
}

/// Returns the files of a module.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(module);
    if root.is_file() {
        let text = fs::read_to_string(&root).unwrap();
        return vec![(root, text)];
    }
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {module}");
    found
}

/// Returns every path in a `use` at the top of the file, with braces expanded, and every path into
/// this crate in the code.
fn paths(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod").next().unwrap_or(text);
    let mut paths = Vec::new();
    for (at, _) in text.match_indices("\nuse ") {
        let statement = text[at..].split(';').next().unwrap_or("");
        let tree = statement.trim().trim_start_matches("use ");
        let first = tree.split([':', ' ']).next().unwrap_or("");
        if text.contains(&format!("mod {first};")) {
            continue;
        }
        expand("", &tree.split_whitespace().collect::<String>(), &mut paths);
    }
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    for (line, at) in
        code.flat_map(|line| line.match_indices("crate::").map(move |(at, _)| (line, at)))
    {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        paths.push(line[at..].chars().take_while(|c| is_path(*c)).collect());
    }
    paths
}

/// Expands `a::{b, c::{d}}` to `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, out: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        out.push(format!("{prefix}{tree}"));
        return;
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inner = tree[open + 1..].trim_end_matches('}');
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in tree[open + 1..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                expand_item(&prefix, &tree[open + 1 + start..open + 1 + at], out);
                return;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand_item(&prefix, &tree[open + 1 + start..open + 1 + at], out);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand_item(&prefix, &inner[start.min(inner.len())..], out);
}

fn expand_item(prefix: &str, item: &str, out: &mut Vec<String>) {
    if !item.is_empty() {
        expand(prefix, item, out);
    }
}

#[test]
fn import_parser_expands_paths() {
    let text = "x\nuse a::{b, c::{d, e}};\nuse std::io;\n";
    assert_eq!(paths(text), ["a::b", "a::c::d", "a::c::e", "std::io"]);
    let found = fault("ws", &[], &[], "crate::net::Engine");
    assert_eq!(found.as_deref(), Some("imports net"));
    assert!(fault("realtime", &["net"], &[], "crate::net::Engine").is_some());
    assert!(fault("realtime", &["net"], &[], "crate::net::Cx").is_none());
    assert!(fault("net", &[], &["mio"], "mio::Poll").is_none());
    assert!(fault("ws", &[], &[], "serde_json::Value").is_some());
}

// R6: a readiness flag may only be cleared after the system call that proved it.
#[test]
fn readiness_is_cleared_only_after_a_system_call() {
    for (flag, file, count) in [
        ("READABLE", "engine/read.rs", 2),
        ("WRITABLE", "conn/output.rs", 1),
    ] {
        let clear = format!("clear(Flags::{flag})");
        for (path, text) in sources("engine") {
            let expected = if path.ends_with(file) { count } else { 0 };
            assert_eq!(
                text.matches(&clear).count(),
                expected,
                "{flag} in {}",
                path.display()
            );
        }
    }
}

#[test]
fn tests_named_in_security_notes_exist_and_carry_their_ids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let notes = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let mut count = 0;
    for line in notes.lines().filter(|line| line.starts_with('|')) {
        let first = line.split('|').nth(1).unwrap_or("").split(" (").next();
        let ids: Vec<&str> = first.unwrap_or("").split(", ").map(str::trim).collect();
        for name in line.split('`').filter(|name| name.contains(".rs::")) {
            let (file, test) = name.split_once("::").unwrap();
            let text = fs::read_to_string(root.join("tests").join(file))
                .or_else(|_| fs::read_to_string(root.join("src").join(file)));
            let text = text.unwrap_or_else(|_| panic!("{file} does not exist"));
            let (above, _) = text
                .split_once(&format!("fn {test}()"))
                .unwrap_or_else(|| panic!("{name} does not exist"));
            for id in &ids {
                assert!(is_named_above(above, id), "{name} does not name {id}");
            }
            count += 1;
        }
    }
    assert!(count > 100, "only {count} are named");
}

/// Returns whether an id is in the comments right above a function.
fn is_named_above(above: &str, id: &str) -> bool {
    let lines = above.lines().rev().skip(1);
    let comments = lines.take_while(|line| line.trim_start().starts_with(['/', '#']));
    let mut words = comments.flat_map(|line| line.split([' ', ',', ':', '.', ';']));
    words.any(|word| word == id)
}

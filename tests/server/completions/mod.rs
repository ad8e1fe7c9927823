//! Tests the completions of each shell in the shell itself.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_h-realtime");

/// The words before the cursor, the last one being completed; required completions, and excluded
/// ones.
const CASES: &[(&[&str], &[&str], &[&str])] = &[
    (
        &[""],
        &["serve", "user", "token", "group", "man", "completions"],
        &["add", "show"],
    ),
    (&["tok"], &["token"], &["user"]),
    (
        &["token", ""],
        &["create", "list", "revoke", "prune"],
        &["user", "serve"],
    ),
    (&["token", "create", "--e"], &["--expires"], &["--yes"]),
    (&["user", "s"], &["show", "set"], &["serve"]),
    (
        &["user", "list", "--"],
        &["--json", "--data"],
        &["--listen"],
    ),
    (&["--data", "folder", "user", ""], &[], &["serve"]),
    (
        &["group", "member", ""],
        &["add", "remove"],
        &["list", "show"],
    ),
    (
        &["group", "member", "add", "--r"],
        &["--role"],
        &["--readable-by"],
    ),
    (
        &["group", "member", "add", "--role", ""],
        &["member", "owner"],
        &["world"],
    ),
    (&["group", "--data", "folder", "member", "a"], &["add"], &[]),
    (
        &["group", "set", "--readable-by", ""],
        &["world", "members"],
        &["owner"],
    ),
    (&["serve", "--backend", ""], &["embedded", "h"], &["amqp"]),
    (&["serve", "--log-level", ""], &["debug"], &[]),
    (&["serve", "--config", "some-"], &["some-file"], &[]),
    (&["completions", ""], &["bash", "zsh", "fish"], &["serve"]),
    (&["publish", "some-"], &["some-file"], &[]),
    (&["listen", "--token-file", "some-"], &["some-file"], &[]),
    (
        &["listen", "--s"],
        &["--since", "--state", "--sse"],
        &["--serve"],
    ),
    (&["listen", "--state", "some-"], &["some-file"], &[]),
    (&["listen", "--filter", "some-"], &["some-file"], &[]),
    (&["listen", "--wild"], &["--wildcard-uri"], &["--uri"]),
    (
        &["listen", "--actions", ""],
        &["create", "update", "delete"],
        &["--all"],
    ),
    (
        &["forward", "--format", ""],
        &["standard", "json", "slack", "discord", "atom"],
        &["serve"],
    ),
    (&["forward", "--state", "some-"], &["some-file"], &[]),
    (&["man", "some-"], &["some-folder"], &[]),
];

/// Creates a folder with a file and a folder.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("some-file"), "").unwrap();
    std::fs::create_dir(folder.path().join("some-folder")).unwrap();
    folder
}

fn script(name: &str) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/completions");
    scripts.join(name).to_str().unwrap().to_owned()
}

/// Returns the output lines of a command in a folder.
fn lines(command: &mut Command, folder: &Path) -> Vec<String> {
    let output = command.current_dir(folder).env("HOME", folder).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/setup"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    assert_eq!(errors, "", "{command:?}");
    let out = String::from_utf8(output.stdout).unwrap();
    // Some shells append a slash to folders.
    out.lines()
        .map(|line| line.trim_end_matches('/').to_owned())
        .collect()
}

/// Checks every case with the completions that `complete` returns for the words.
fn check(complete: impl Fn(&[&str], &Path) -> Vec<String>) {
    let folder = folder();
    for (words, expected, others) in CASES {
        let found = complete(words, folder.path());
        for word in *expected {
            assert!(
                found.iter().any(|found| found == word),
                "{words:?}: {word}: {found:?}"
            );
        }
        for word in *others {
            assert!(
                !found.iter().any(|found| found == word),
                "{words:?}: {word}: {found:?}"
            );
        }
    }
}

fn bash(words: &[&str], folder: &Path, library: Option<&str>) -> Vec<String> {
    let mut command = Command::new("bash");
    command
        .args(["--norc", &script("complete.bash"), PROGRAM])
        .args(words);
    command.env("BASH_COMPLETION", library.unwrap_or_default());
    lines(&mut command, folder)
}

#[test]
fn bash_completes_at_every_level() {
    check(|words, folder| bash(words, folder, None));
}

#[test]
#[ignore = "needs Debian's bash-completion: run tests/run"]
fn bash_with_its_library_completes_at_every_level() {
    let library = "/usr/share/bash-completion/bash_completion";
    assert!(
        Path::new(library).exists(),
        "{library} is missing: run tests/setup"
    );
    check(|words, folder| bash(words, folder, Some(library)));
}

#[test]
#[ignore = "needs zsh: run tests/run"]
fn zsh_completes_at_every_level() {
    let functions = TempDir::new().unwrap();
    let made = Command::new(PROGRAM).args(["completions", "zsh"]).output();
    let file = functions.path().join("_h-realtime");
    std::fs::write(file, made.unwrap().stdout).unwrap();
    check(|words, folder| {
        let line = format!("h-realtime {}", words.join(" "));
        let mut command = Command::new("zsh");
        command.args(["-f", &script("complete.zsh")]);
        lines(command.arg(functions.path()).arg(line), folder)
    });
}

#[test]
#[ignore = "needs fish: run tests/run"]
fn fish_completes_at_every_level() {
    check(|words, folder| {
        let line = format!("h-realtime {}", words.join(" "));
        let mut command = Command::new("fish");
        command.args(["--no-config", &script("complete.fish"), PROGRAM, &line]);
        lines(&mut command, folder)
    });
}

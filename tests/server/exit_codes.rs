//! Every exit code that docs/operating.md lists, with a command that returns it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{PROGRAM, Program, Server};

/// Runs a shell command in a folder, with the program as `$P`.
fn shell(line: &str, folder: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder);
    shell.env("P", PROGRAM).output().unwrap()
}

/// Returns the codes in the first column of the table.
fn documented() -> BTreeSet<i32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("### Exit codes").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let codes = rows.filter_map(|row| row.split(' ').next()?.parse().ok());
    codes.collect()
}

/// Shell commands, their exit codes, and a part of their output.
const LINES: &[(&str, i32, &str)] = &[
    ("$P --version", 0, "h-realtime"),
    ("$P --help", 0, "Usage"),
    ("$P user add acct:a@example.org --create", 0, "added"),
    ("$P no-such-command", 64, "no-such-command"),
    ("$P user add", 64, "USERID"),
    ("$P user set acct:a@example.org", 64, "--display-name"),
    (
        "$P group member add g acct:a@example.org --role boss",
        64,
        "moderator",
    ),
    ("$P backup -", 64, "standard output"),
    ("$P listen http://127.0.0.1/", 64, "ws://"),
    (
        "$P listen ws://127.0.0.1:1 --token ' '",
        64,
        "token is empty",
    ),
    (
        "$P listen ws://127.0.0.1:1 --not user=acct:a@example.org",
        64,
        "--not restricts",
    ),
    ("$P listen ws://127.0.0.1:1 --id A --not x=y", 64, "--not"),
    ("$P listen ws://127.0.0.1:1 --sse", 64, "--sse requires"),
    ("$P publish event --admin https://127.0.0.1/", 64, "--admin"),
    ("$P user add nobody", 65, "acct:"),
    ("$P user add acct:a@example.org", 65, "already"),
    (
        "$P user set acct:a@example.org --display-name ''",
        65,
        "the display name is empty",
    ),
    ("$P group add 'two words'", 65, "white space"),
    ("$P group delete __world__", 65, "contains everyone"),
    (
        "$P group set __world__ --readable-by members",
        65,
        "readable by everyone",
    ),
    ("$P token revoke x", 65, "not the id"),
    ("$P backup event", 65, "--force"),
    ("$P restore event", 65, "not a database"),
    (
        "$P listen ws://127.0.0.1:1 --state event",
        65,
        "event: not a state file of listen, or damaged",
    ),
    (
        "$P explain --anonymous --annotation a/missing",
        66,
        "a/missing: No such file",
    ),
    ("$P explain --anonymous", 64, "--annotation"),
    (
        "$P explain --anonymous --filter '[' --annotation A",
        66,
        "[: No such file",
    ),
    (
        "$P listen ws://127.0.0.1:1 --filter event",
        65,
        "event: \"match_policy\" must be",
    ),
    (
        "$P listen ws://127.0.0.1:1 --filter missing",
        66,
        "missing: No such file",
    ),
    ("$P publish missing", 66, "missing: No such file"),
    ("$P restore missing", 66, "missing: No such file"),
    (
        "$P listen ws://127.0.0.1:1 --token-file missing",
        66,
        "missing: No such file",
    ),
    (
        "$P listen wss://127.0.0.1:1 --ca-cert missing",
        66,
        "missing",
    ),
    (
        "$P user show acct:b@example.org",
        67,
        "user acct:b@example.org does not exist",
    ),
    (
        "$P user set acct:b@example.org --no-display-name",
        67,
        "user acct:b@example.org does not exist",
    ),
    (
        "$P user mute acct:b@example.org",
        67,
        "user acct:b@example.org does not exist",
    ),
    (
        "$P user delete acct:b@example.org",
        67,
        "user acct:b@example.org does not exist",
    ),
    (
        "$P token create acct:b@example.org",
        67,
        "user acct:b@example.org does not exist",
    ),
    (
        "$P token list acct:b@example.org",
        67,
        "user acct:b@example.org does not exist",
    ),
    ("$P token revoke 9", 67, "token 9 does not exist"),
    ("$P group show none", 67, "group none does not exist"),
    (
        "$P group set none --readable-by world",
        67,
        "group none does not exist",
    ),
    ("$P group delete none", 67, "group none does not exist"),
    (
        "$P group member add none acct:a@example.org",
        67,
        "group none does not exist",
    ),
    (
        "$P group member remove none acct:a@example.org",
        67,
        "is not a member of none",
    ),
    (
        "$P forward ws://127.0.0.1:1 --group g --url http://127.0.0.1/",
        64,
        "--state is required",
    ),
    (
        "$P forward ws://127.0.0.1:1 --group g --url http://127.0.0.1/ --state event",
        65,
        "event: not a state file of forward, or damaged",
    ),
    (
        "$P forward ws://127.0.0.1:1 --group g --url http://127.0.0.1/ --state s --secret event",
        65,
        "event: a secret begins with whsec_",
    ),
    (
        "$P forward ws://127.0.0.1:1 --group g --url-file missing --state s",
        66,
        "missing: No such file",
    ),
    ("$P backup copy --data missing", 69, "missing"),
    ("$P publish event", 69, "no server"),
    (
        "$P listen ws://127.0.0.1:1 --no-reconnect",
        69,
        "cannot connect to 127.0.0.1:1: Connection refused",
    ),
    (
        "$P listen ws://no-such-host.invalid --no-reconnect",
        69,
        "cannot resolve the host no-such-host.invalid",
    ),
    (
        "H_REALTIME_PUBLISH_KEY=k $P publish event --admin http://no-such-host.invalid:1/",
        69,
        "cannot resolve the host no-such-host.invalid",
    ),
    (
        "ulimit -n 4; exec $P listen ws://127.0.0.1:1 --no-reconnect",
        71,
        "Too many open files",
    ),
    ("$P config default > /dev/full", 74, "No space left"),
    ("$P user list --json > /dev/full", 74, "No space left"),
    ("$P completions bash > /dev/full", 74, "No space left"),
    (
        "$P man event",
        74,
        "event: the directory cannot be created: File exists",
    ),
    (
        "$P listen ws://127.0.0.1:1 --state missing/state",
        74,
        "missing/state.lock: cannot lock the state file: No such file",
    ),
    (
        "$P forward ws://127.0.0.1:1 --group g --format atom --out missing/f --state s",
        74,
        "missing/f: cannot write: No such file",
    ),
    ("$P backup missing/copy", 74, "missing/copy: No such file"),
    ("$P config check --config missing", 78, "missing"),
    ("$P serve --listen ftp://127.0.0.1", 78, "listen"),
    ("$P user list --data event", 78, "not a directory"),
];

#[test]
fn every_documented_exit_code_is_returned_by_a_command() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("event"), "{}").unwrap();
    let mut found: BTreeSet<i32> = LINES.iter().map(|line| line.1).collect();
    for (line, code, part) in LINES {
        let output = shell(line, folder.path());
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert_eq!(output.status.code(), Some(*code), "{line}: {printed}");
        assert!(printed.contains(part), "{line}: {printed}");
    }
    // The codes of servers are covered by the other test, tests/server/listen_ends.rs,
    // tests/server/listen_state.rs, tests/server/explain.rs, and tests/server/forward.rs.
    found.extend([1, 68, 76, 77, 130, 143]);
    assert_eq!(found, documented());
}

#[test]
fn rejected_keys_tokens_and_files_return_77() {
    let server = Server::configured("[auth]\ninvalid_token = \"reject\"");
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("event"), "{}").unwrap();
    let (url, data) = (&server.listeners[0], server.data());
    for line in [
        format!("$P listen {url} --token hrt-none"),
        format!(
            "H_REALTIME_PUBLISH_KEY=wrong $P publish event --admin {}",
            server.admin
        ),
    ] {
        let output = shell(&line, folder.path());
        assert_eq!(output.status.code(), Some(77), "{line}: {output:?}");
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The superuser may open every file.
    let others = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let program = folder.path().join("program");
    fs::copy(PROGRAM, &program).unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), permissions).unwrap();
    for command in ["user list", "publish event", "backup copy"] {
        let line = format!("{others} ./program {command} --data {}", data.display());
        let output = shell(&line, folder.path());
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{line}: {printed}");
        assert!(printed.contains("data"), "{line}: {printed}");
    }
}

#[test]
fn closed_output_is_not_reported() {
    let folder = TempDir::new().unwrap();
    let output = shell("$P user add acct:a@example.org --create", folder.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for args in [
        &["config", "default"][..],
        &["completions", "fish"],
        &["user", "list", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(folder.path()).stdout(writer);
        let output = command
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(74), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn servers_end_with_0_after_signals() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        server.signal(signal);
        assert_eq!(server.wait().1, Some(0), "{signal:?}");
    }
    let mut listener = Program::start(Command::new(PROGRAM).args(["listen", "ws://127.0.0.1:1"]));
    listener.wait_for_error_line("reconnecting in ");
    kill_process(Pid::from_child(&listener.child), Signal::INT).unwrap();
    assert_eq!(listener.wait(), Some(130));
}

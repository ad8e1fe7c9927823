//! Signals, from the first statement of the program on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{PATIENCE, PROGRAM, Program, Server, eventually};

/// Returns whether the process has started to work: it has disabled huge pages, which is its first
/// action apart from catching signals, or has a second thread on kernels that do not report this.
fn has_begun(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let is = |line: &str, value: &str| {
        let found = status.lines().find_map(|text| text.strip_prefix(line));
        found.map(str::trim) == Some(value)
    };
    is("THP_enabled:", "0") || !(is("Threads:", "1") || is("Threads:", "0"))
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).unwrap();
}

/// Returns the server's command, on free ports.
fn serve(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["serve", "--listen", "ws://127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0", "--data"])
        .arg(folder.join("data"));
    command
}

#[test]
fn sighup_during_startup_is_not_lost() {
    let folder = TempDir::new().unwrap();
    let mut program = Program::start(&mut serve(folder.path()));
    while !has_begun(&program.child) {}
    let mut is_serving = false;
    while !is_serving {
        send(&program.child, Signal::HUP);
        is_serving = folder.path().join("data/admin.address").exists();
        assert_eq!(program.child.try_wait().unwrap(), None);
    }
    program.wait_for_error_line("configuration reloaded: no changes");
    send(&program.child, Signal::TERM);
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn sigterm_or_sigint_during_startup_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = TempDir::new().unwrap();
        let mut program = Program::start(&mut serve(folder.path()));
        while !has_begun(&program.child) {}
        send(&program.child, signal);
        assert_eq!(program.wait(), Some(0), "{signal:?}");
        assert!(!folder.path().join("data/admin.address").exists());
    }
}

#[test]
fn signals_without_a_meaning_are_ignored() {
    let mut server = Server::start();
    for signal in [Signal::USR1, Signal::USR2] {
        server.signal(signal);
        let line = format!("signal {}: ignored", signal.as_raw());
        eventually(PATIENCE, || server.log().contains(&line).then_some(()));
    }
    server.signal(Signal::PIPE);
    let token = server.user("acct:me@example.org");
    let answer = server.logged_in(&token).ask(r#"{"type":"ping","id":1}"#);
    assert!(answer.contains("pong"), "{answer}");
    assert_eq!(server.child.try_wait().unwrap(), None);
}

/// Only the server and `listen` catch signals.
#[test]
fn other_commands_are_ended_by_signals() {
    const EVENT: &str = include_str!("../../examples/event.json");
    for signal in [Signal::HUP, Signal::INT, Signal::TERM, Signal::USR1] {
        let server = Server::start();
        let child = Command::new(PROGRAM)
            .args(["publish", "-", "--data"])
            .arg(server.data())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        // The command waits for the next event after this one.
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{EVENT}").unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "create AAAAAAAAAAAAAAAAAAAAAQ matched 0\n");
        send(&child, signal);
        // A signal ignored by the shell that started the tests, as with `nohup`, stays ignored.
        let status = eventually(PATIENCE, || child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(signal.as_raw()));
    }
}

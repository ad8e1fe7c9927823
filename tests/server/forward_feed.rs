//! `forward --format atom`: the file of a feed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::forward::publish;
use crate::support::{PATIENCE, PROGRAM, Program, Server, eventually};

fn feed(server: &Server, folder: &Path, args: &[&str]) -> (Program, PathBuf) {
    let out = folder.join("feed.atom");
    let mut command = Command::new(PROGRAM);
    command
        .args(["forward", &server.listeners[0], "--format", "atom", "--out"])
        .arg(&out)
        .args(args);
    (Program::start(&mut command), out)
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Waits until the feed has exactly these texts, in this order.
fn wait_for_texts(file: &Path, expected: &[&str]) {
    eventually(PATIENCE, || {
        let text = text(file);
        let contents = text.split("&lt;p&gt;").skip(1);
        let found: Vec<&str> = contents
            .filter_map(|part| part.split("&lt;").next())
            .collect();
        (found == expected).then_some(())
    });
}

#[test]
fn feed_is_filled_from_the_history_and_follows_changes() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    let annotation = |id: &str, second: u32, text: &str| {
        let updated = format!("2024-01-01T00:00:0{second}Z");
        json!({"id": id, "text": text, "updated": updated})
    };
    publish(&server, "create", annotation("A", 1, "first"));
    publish(&server, "create", annotation("B", 2, "second"));
    let args = ["--group", "__world__", "--entries", "3"];
    let (mut program, out) = feed(&server, folder.path(), &args);
    wait_for_texts(&out, &["second", "first"]);
    publish(&server, "update", annotation("A", 3, "edited"));
    wait_for_texts(&out, &["edited", "second"]);
    publish(&server, "create", annotation("C", 4, "third"));
    publish(&server, "create", annotation("D", 5, "fourth"));
    wait_for_texts(&out, &["fourth", "third", "edited"]);
    publish(&server, "delete", annotation("C", 4, ""));
    wait_for_texts(&out, &["fourth", "edited"]);
    kill_process(Pid::from_child(&program.child), Signal::TERM).unwrap();
    assert_eq!(program.wait(), Some(0));
    // Changes while the command does not run.
    publish(&server, "delete", annotation("D", 5, ""));
    publish(&server, "create", annotation("E", 6, "fifth"));
    let (program, out) = feed(&server, folder.path(), &args);
    wait_for_texts(&out, &["fifth", "edited"]);
    program.wait_for_error_line("connected, anonymous");
    // Another filter starts another feed.
    drop(program);
    let (_program, out) = feed(&server, folder.path(), &["--id", "E", "--entries", "3"]);
    wait_for_texts(&out, &["fifth"]);
}

#[test]
fn private_group_is_readable_with_a_token_and_a_retraction_removes_the_entry() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    let member = "acct:member@example.org";
    let token = server.user(member);
    server.run(&["group", "add", "g"]);
    server.run(&["group", "member", "add", "g", member]);
    let file = folder.path().join("token");
    fs::write(&file, token).unwrap();
    let args = ["--group", "g", "--token-file", file.to_str().unwrap()];
    let (_program, out) = feed(&server, folder.path(), &args);
    let mut annotation =
        json!({"id": "A", "text": "hello", "group": "g", "permissions": {"read": ["group:g"]}});
    publish(&server, "create", annotation.clone());
    wait_for_texts(&out, &["hello"]);
    annotation["permissions"] = json!({"read": ["acct:author@example.org"]});
    publish(&server, "update", annotation);
    wait_for_texts(&out, &[]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(folder.path().join("feed.atom.state"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o077, 0, "the state is private");
}

#[test]
fn entries_of_another_user_are_dropped() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    let [one, other] = ["acct:one@example.org", "acct:other@example.org"];
    let tokens = [server.user(one), server.user(other)];
    server.run(&["group", "add", "g"]);
    server.run(&["group", "member", "add", "g", one]);
    let file = folder.path().join("token");
    let args = ["--group", "g", "--token-file", file.to_str().unwrap()];
    fs::write(&file, &tokens[0]).unwrap();
    let (program, out) = feed(&server, folder.path(), &args);
    let annotation =
        json!({"id": "A", "text": "hello", "group": "g", "permissions": {"read": ["group:g"]}});
    publish(&server, "create", annotation);
    wait_for_texts(&out, &["hello"]);
    drop(program);
    fs::write(&file, &tokens[1]).unwrap();
    let (_program, out) = feed(&server, folder.path(), &args);
    wait_for_texts(&out, &[]);
}

#[test]
fn killed_command_leaves_a_complete_feed() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    let args = ["--group", "__world__"];
    let (mut program, out) = feed(&server, folder.path(), &args);
    program.wait_for_error_line("connected");
    for number in 0..5 {
        publish(
            &server,
            "create",
            json!({"id": format!("A{number}"), "text": "x"}),
        );
        program.child.kill().unwrap();
        program.wait();
        assert!(text(&out).ends_with("</feed>\n"));
        (program, _) = feed(&server, folder.path(), &args);
    }
    eventually(PATIENCE, || {
        (text(&out).matches("<entry>").count() == 5).then_some(())
    });
}

#[test]
fn options_that_do_not_apply_are_refused() {
    let folder = TempDir::new().unwrap();
    for (line, part) in [
        ("--format atom --group g", "requires --out"),
        (
            "--format atom --out f --group g --url http://127.0.0.1/",
            "--url does not apply",
        ),
        (
            "--format atom --out f --group g --self-url x",
            "--self-url: expected",
        ),
        ("--format atom --out f", "give at least one of"),
        ("--group g --url http://127.0.0.1/", "--state is required"),
        ("--group g --state s", "--url or --url-file"),
        (
            "--group g --state s --url http://h.example/",
            "--insecure-http",
        ),
        (
            "--group g --state s --url http://127.0.0.1/ --out f",
            "--out requires",
        ),
        (
            "--group g --state s --url http://127.0.0.1/ --format discord --batch 11",
            "at most 10",
        ),
        (
            "--group g --state s --url http://127.0.0.1/ --timeout 0s",
            "expected a duration",
        ),
    ] {
        let mut command = Command::new(PROGRAM);
        command
            .args(["forward", "ws://127.0.0.1:1"])
            .args(line.split(' '))
            .current_dir(folder.path());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {errors}");
        assert!(errors.contains(part), "{line}: {errors}");
    }
}

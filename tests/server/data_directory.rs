//! The data directory: one server at a time, files with the right owner, and errors that name the
//! file and the remedy.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    OTHER_USER, PATIENCE, PROGRAM, Program, Server, as_other_user, eventually, give, is_root,
    program_for_all,
};

const JOE: &str = "acct:joe@example.org";

/// Runs a command to its end; returns its exit code and its output.
fn output(command: &mut Command) -> (i32, String) {
    let mut program = Program::start(command);
    let code = program.wait().unwrap_or(-1);
    let out: Vec<String> = std::iter::from_fn(|| program.line()).collect();
    let errors: Vec<String> = std::iter::from_fn(|| program.error_line()).collect();
    (code, [out, errors].concat().join("\n"))
}

fn on(data: &Path, args: &[&str]) -> (i32, String) {
    output(Command::new(PROGRAM).args(args).arg("--data").arg(data))
}

/// Adds the arguments of a server on free ports.
fn serve(mut command: Command, data: &Path) -> Command {
    command
        .args(["serve", "--listen", "ws://127.0.0.1:0", "--admin"])
        .args(["127.0.0.1:0", "--data"])
        .arg(data);
    command
}

/// Returns a command whose process cannot write any bytes to a file, as on a full disk.
fn without_space(program: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = r#"trap '' XFSZ; ulimit -f 0; exec "$0" "$@""#;
    command.args(["-c", script]).arg(program);
    command
}

fn wait_for_banner(server: &Program) -> String {
    let mut banner = String::new();
    while !banner.contains("Ctrl-C") {
        banner += &(server.line().expect("a banner") + "\n");
    }
    banner
}

fn admin_address(server: &Server) -> String {
    fs::read_to_string(server.data().join("admin.address")).unwrap()
}

/// Waits until the file of a server's directory has the address.
fn wait_for_address(server: &Server, address: &str) {
    let file = server.data().join("admin.address");
    let found = || fs::read_to_string(&file).ok();
    eventually(PATIENCE, || {
        (found().as_deref() == Some(address)).then_some(())
    });
}

#[test]
fn failed_listen_creates_no_data_directory() {
    let server = Server::start();
    let taken = server.address().to_string();
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", &format!("ws://{taken}"), "--admin"]);
    let (code, printed) = output(command.args(["127.0.0.1:0", "--data"]).arg(&data));
    assert_eq!(code, 69, "{printed}");
    assert!(printed.contains("reuse_port"), "{printed}");
    assert!(!data.exists());
    // This remedy does not apply to the admin address.
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "ws://127.0.0.1:0", "--admin", &taken]);
    let (code, printed) = output(command.arg("--data").arg(&data));
    assert_eq!(code, 69, "{printed}");
    assert!(
        printed.contains("--admin") && !printed.contains("reuse_port"),
        "{printed}"
    );
    assert!(!data.exists());
}

// D7
#[test]
fn second_server_is_refused_without_effect_on_the_first() {
    let server = Server::start();
    let before = admin_address(&server);
    let (code, printed) = output(&mut serve(Command::new(PROGRAM), &server.data()));
    assert_eq!(code, 69, "{printed}");
    let data = server.data().display().to_string();
    assert!(
        printed.contains(&data) && printed.contains("another server"),
        "{printed}"
    );
    if fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.contains("FLOCK")) {
        let pid = format!("(process id {})", server.child.id());
        assert!(printed.contains(&pid), "{printed}");
    }
    assert_eq!(admin_address(&server), before);
    // The commands do not need the lock.
    server.user(JOE);
}

// D7
#[test]
fn servers_with_reuse_port_share_the_directory_and_the_last_to_end_removes_the_address() {
    let config = "reuse_port = true\n[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let mut first = Server::configured(config);
    let before = admin_address(&first);
    for next_ends_first in [true, false] {
        let mut next = first.successor();
        assert_eq!(
            admin_address(&next).trim(),
            format!("http://{}/", next.admin)
        );
        if next_ends_first {
            next.signal(Signal::TERM);
            assert_eq!(next.wait().1, Some(0));
            // The remaining server writes its own address again.
            wait_for_address(&first, &before);
        } else {
            first.signal(Signal::TERM);
            assert_eq!(first.wait().1, Some(0));
            assert_eq!(
                admin_address(&next).trim(),
                format!("http://{}/", next.admin)
            );
            next.signal(Signal::TERM);
            assert_eq!(next.wait().1, Some(0));
        }
    }
    assert!(!first.data().join("admin.address").exists());
}

// D7
#[test]
fn address_file_never_names_a_stopped_server() {
    let config = "reuse_port = true\n[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let first = Server::configured(config);
    let before = admin_address(&first);
    let mut second = first.successor();
    let mut third = first.successor();
    for server in [&mut second, &mut third] {
        server.signal(Signal::TERM);
        assert_eq!(server.wait().1, Some(0));
    }
    wait_for_address(&first, &before);
    // A killed server cannot remove the file.
    let mut killed = first.successor();
    assert_ne!(admin_address(&first), before);
    killed.signal(Signal::KILL);
    killed.wait();
    wait_for_address(&first, &before);
}

// D7
#[test]
fn commands_create_no_data_directory_and_no_database() {
    let folder = TempDir::new().unwrap();
    let nowhere = folder.path().join("nowhere");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let backup = folder.path().join("backup");
    let filled = folder.path().join("filled");
    let (code, printed) = on(&filled, &["user", "add", JOE, "--create"]);
    assert_eq!(code, 0, "{printed}");
    let file = backup.to_str().unwrap();
    assert_eq!(on(&filled, &["backup", file]).0, 0);

    for args in [
        &["user", "list"][..],
        &["token", "list"],
        &["group", "list"],
        &["user", "add", JOE],
        &["restore", file],
        &["backup", "copy"],
    ] {
        let (code, printed) = on(&nowhere, args);
        assert_eq!(code, 69, "{args:?}: {printed}");
        let part = format!("{}: the data directory does not exist", nowhere.display());
        assert!(printed.contains(&part), "{args:?}: {printed}");
        let (code, printed) = on(&empty, args);
        assert_eq!(code, 69, "{args:?}: {printed}");
        assert!(
            printed.contains(empty.to_str().unwrap()),
            "{args:?}: {printed}"
        );
        assert!(!nowhere.exists());
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "{args:?}");
    }
    for args in [&["restore", file, "--create"][..], &["user", "list"]] {
        let (code, printed) = on(&nowhere, args);
        assert_eq!(code, 0, "{printed}");
    }
}

#[test]
fn full_disk_does_not_prevent_start_and_failed_writes_name_the_file() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let program = Path::new(PROGRAM);
    // The first start has to write the key.
    let (code, printed) = output(&mut serve(without_space(program), &data));
    assert_eq!(code, 74, "{printed}");
    let key = data.join("publish.key").display().to_string();
    assert!(
        printed.contains(&key) && printed.contains("ulimit -f"),
        "{printed}"
    );
    assert_eq!(
        fs::read_dir(&data).unwrap().count(),
        0,
        "no temporary file is left"
    );

    let mut server = Program::start(&mut serve(Command::new(PROGRAM), &data));
    wait_for_banner(&server);
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    server.wait();
    // The killed server's address is outdated.
    assert!(data.join("admin.address").exists());
    let server = Program::start(&mut serve(without_space(program), &data));
    let warning = server.wait_for_error_line("admin.address: ");
    assert!(warning.contains(" WARN "), "{warning}");
    let banner = wait_for_banner(&server);
    let admin = banner
        .lines()
        .find_map(|line| line.trim().strip_prefix("admin "));
    let admin = admin.unwrap().trim();
    assert!(warning.contains(&format!("--admin {admin}")), "{warning}");
    assert!(!data.join("admin.address").exists());
    fs::write(folder.path().join("events"), "").unwrap();
    let events = folder.path().join("events").display().to_string();
    let (code, printed) = on(&data, &["publish", &events, "--admin", admin]);
    assert_eq!(code, 0, "{printed}");

    let mut command = without_space(program);
    command.args(["user", "add", JOE, "--data"]).arg(&data);
    let (code, printed) = output(&mut command);
    assert_eq!(code, 74, "{printed}");
    let database = data.join("h-realtime.sqlite").display().to_string();
    assert!(
        printed.contains(&database) && printed.contains("ulimit -f"),
        "{printed}"
    );
    assert_eq!(on(&data, &["user", "list"]).0, 0);
}

#[test]
fn a_full_disk_leaves_no_empty_database_and_restore_names_the_database() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = folder.path().join("data");
    assert_eq!(on(&data, &["user", "add", JOE, "--create"]).0, 0);
    assert_eq!(on(&data, &["backup", &path("backup")]).0, 0);
    let mut command = without_space(Path::new(PROGRAM));
    command
        .args(["restore", &path("backup"), "--data"])
        .arg(&data);
    let (code, printed) = output(&mut command);
    assert_eq!(code, 74, "{printed}");
    let database = data.join("h-realtime.sqlite").display().to_string();
    assert!(
        printed.contains(&database) && printed.contains("ulimit -f"),
        "{printed}"
    );
    assert!(!printed.contains(&path("backup")), "{printed}");
    assert_eq!(on(&data, &["restore", &path("backup")]).0, 0);

    let mut command = without_space(Path::new(PROGRAM));
    command.args(["user", "add", JOE, "--create", "--data", &path("new")]);
    let (code, printed) = output(&mut command);
    assert_eq!(code, 74, "{printed}");
    assert!(
        printed.contains(&path("new/h-realtime.sqlite")),
        "{printed}"
    );
    assert_eq!(fs::read_dir(path("new")).unwrap().count(), 0);
}

// D8
#[test]
fn files_that_every_user_can_read_are_a_warning_with_the_remedy() {
    let mut server = Server::start();
    let key = server.data().join("publish.key");
    for (path, mode) in [(&server.data(), 0o755), (&key, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    server.restart();
    let log = server.log_with(&format!("chmod 600 {}", key.display()));
    assert!(!log.contains("chmod 600 h-realtime.sqlite"), "{log}");
}

#[test]
fn temporary_files_of_a_killed_server_are_removed() {
    let mut server = Server::start();
    let random = "x".repeat(43);
    let draft = server.data().join(format!("publish.key.{random}"));
    fs::write(&draft, "half a k").unwrap();
    server.restart();
    assert!(!draft.exists());
    server.log_with(&format!(
        "removed a draft of a killed process: path={}",
        draft.display()
    ));
}

/// Returns every file in a directory, with its owner.
fn owners(data: &Path) -> Vec<(PathBuf, u32)> {
    let entries = fs::read_dir(data).unwrap().map(Result::unwrap);
    let owners = entries.map(|entry| (entry.path(), entry.metadata().unwrap().uid()));
    owners.collect()
}

// D8
/// As with `DynamicUser=`: the server has a user of its own, and root runs the commands.
#[test]
fn files_that_root_creates_belong_to_the_owner_of_the_directory() {
    if !is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let program = program_for_all(folder.path());
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    give(&data);
    let run = |args: &[&str]| {
        let (code, printed) = on(&data, args);
        assert_eq!(code, 0, "{args:?}: {printed}");
        for (path, owner) in owners(&data) {
            assert_eq!(owner, OTHER_USER, "{args:?}: {path:?}");
        }
    };
    run(&["user", "add", JOE, "--create"]);
    let server = Program::start(&mut serve(as_other_user(&program), &data));
    wait_for_banner(&server);
    run(&["token", "create", JOE]);
    let backup = folder.path().join("backup");
    run(&["backup", backup.to_str().unwrap()]);
    assert_eq!(fs::metadata(&backup).unwrap().uid(), 0);
    run(&["restore", backup.to_str().unwrap()]);
    fs::write(data.join("h-realtime.sqlite"), "damaged".repeat(999)).unwrap();
    run(&["restore", backup.to_str().unwrap()]);
    assert!(data.join("h-realtime.sqlite.damaged").exists());
    drop(server);
    // Root starts a server by mistake; the next one runs normally.
    fs::remove_file(data.join("publish.key")).unwrap();
    let by_root = Program::start(&mut serve(Command::new(PROGRAM), &data));
    wait_for_banner(&by_root);
    for (path, owner) in owners(&data) {
        assert_eq!(owner, OTHER_USER, "{path:?}");
    }
    drop(by_root);
    let server = Program::start(&mut serve(as_other_user(&program), &data));
    wait_for_banner(&server);
}

/// Asserts that a command cannot use the database, with this exit code and remedy.
fn is_refused(data: &Path, args: &[&str], code: i32, remedy: &str) {
    let (found, printed) = on(data, args);
    assert_eq!(found, code, "{args:?}: {printed}");
    let database = data.join("h-realtime.sqlite").display().to_string();
    assert!(printed.contains(&database), "{args:?}: {printed}");
    assert!(printed.contains(remedy), "{args:?}: {printed}");
}

#[test]
fn errors_of_the_database_name_the_file_and_the_remedy() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    assert_eq!(on(&data, &["user", "add", JOE, "--create"]).0, 0);
    let database = data.join("h-realtime.sqlite");
    let server = [
        "serve",
        "--listen",
        "ws://127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];

    let other = Connection::open(&database).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    is_refused(&data, &["user", "mute", JOE], 74, "try again");
    other.execute_batch("ROLLBACK").unwrap();
    let version: i64 = other
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    for args in [&["user", "list"][..], &server] {
        is_refused(&data, args, 69, "use a newer version of the program");
    }
    other.pragma_update(None, "user_version", version).unwrap();
    drop(other);
    assert_eq!(on(&data, &["user", "list"]).0, 0);

    fs::write(&database, "not a database".repeat(99)).unwrap();
    for args in [&["user", "list"][..], &server] {
        is_refused(&data, args, 74, "h-realtime restore FILE");
    }
    fs::remove_file(&database).unwrap();
    is_refused(&data, &["user", "list"], 69, "h-realtime restore FILE");
}

#[test]
fn a_database_of_another_user_is_a_permission_error_with_the_remedy() {
    if !is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let program = program_for_all(folder.path());
    let data = folder.path().join("data");
    assert_eq!(on(&data, &["user", "add", JOE, "--create"]).0, 0);
    let database = data.join("h-realtime.sqlite");
    let as_other = |args: &[&str]| {
        let mut command = as_other_user(&program);
        output(command.args(args).arg("--data").arg(&data))
    };
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let add = ["user", "add", "acct:ann@example.org"];
    for (directory, file, named) in [
        (0o700, 0o600, &data),
        (0o755, 0o600, &database),
        (0o755, 0o644, &database),
        (0o755, 0o666, &database),
    ] {
        set(&data, directory);
        set(&database, file);
        let (code, printed) = as_other(&add);
        assert_eq!(code, 77, "{directory:o} {file:o}: {printed}");
        assert!(printed.contains(named.to_str().unwrap()), "{printed}");
        assert!(printed.contains("as root"), "{printed}");
    }
    let (code, printed) = as_other(&["serve", "--listen", "ws://127.0.0.1:0"]);
    assert_eq!(code, 77, "{printed}");
    assert!(printed.contains(data.to_str().unwrap()), "{printed}");
    assert!(printed.contains("as root"), "{printed}");
}

//! The command line of the real program: its output, the files it writes, and its exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Client, PROGRAM, Program, Received, Server};

/// Runs the program in a folder, and returns its exit code and its output.
fn run(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(PROGRAM)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), printed)
}

/// Returns every file below a folder, with its permissions.
fn files(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        files.push((entry.path(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            files.extend(self::files(&entry.path()));
        }
    }
    files
}

/// Returns the commands in a banner.
fn commands(banner: &str) -> Vec<String> {
    let lines = banner.lines().skip_while(|line| !line.starts_with("Add "));
    lines
        .filter_map(|line| line.strip_prefix("  "))
        .map(str::to_owned)
        .collect()
}

fn shell(command: &str, folder: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(folder);
    shell.output().unwrap()
}

/// Checks that the commands in the banner work and cause an event that a client receives.
fn works(banner: &str, folder: &Path, client: &mut Client) {
    let commands = commands(banner);
    assert_eq!(commands.len(), 3, "{banner}");
    let mut last = String::new();
    for command in &commands {
        let output = shell(command, folder);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {printed}");
        last = String::from_utf8(output.stdout).unwrap();
    }
    assert_eq!(last, "create AAAAAAAAAAAAAAAAAAAAAQ matched 1\n");
    let texts = client.drain();
    assert!(matches!(&texts[..], [Received::Text(text)] if text.contains("Hello")));
}

#[test]
fn banner_has_all_addresses_and_working_commands() {
    let folder = tempfile::Builder::new().prefix("it's a $(test) ").tempdir();
    let server = Server::in_folder(folder.unwrap(), &["--listen", "ws://127.0.0.1:0"], "");
    let database = server.data().join("h-realtime.sqlite");
    for line in [
        format!("  Real Time API  ws://{}/ws", server.address()),
        format!("  admin          http://{}/", server.admin),
        format!("  database       {}", database.display()),
        "Press Ctrl-C to stop.".to_owned(),
    ] {
        assert!(server.banner.lines().any(|found| found == line), "{line}");
    }
    let mut client = server.anonymous();
    client.subscribe("/uri", "https://example.org/");
    works(&server.banner, Path::new("."), &mut client);
}

/// Only the ports as arguments, in a folder of its own, and with any umask.
#[test]
fn files_are_private_and_in_the_data_directory() {
    let folder = TempDir::new().unwrap();
    let home = TempDir::new().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"umask 0; exec "$0" "$@""#, PROGRAM])
        .args(["--listen", "ws://127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .current_dir(folder.path());
    let server = Program::start(&mut command);
    let mut banner = String::new();
    while !banner.contains("Ctrl-C") {
        banner += &(server.line().expect("a banner") + "\n");
    }
    let (_, rest) = banner.split_once("ws://").unwrap();
    let (address, _) = rest.split_once("/ws").unwrap();
    let mut client = Client::open(address.parse().unwrap(), "/ws", "");
    client.subscribe("/group", "__world__");
    works(&banner, folder.path(), &mut client);

    let data = folder.path().join("h-realtime-data");
    for (path, mode) in files(folder.path()) {
        if path == data {
            assert_eq!(mode, 0o700, "{path:?}");
        } else {
            assert_eq!(path.parent(), Some(&*data), "{path:?}");
            assert_eq!(mode, 0o600, "{path:?}");
        }
    }
    let names = ["admin.address", "h-realtime.sqlite", "publish.key"];
    assert!(names.iter().all(|name| data.join(name).is_file()));
    assert_eq!(files(home.path()), []);
}

#[test]
fn commands_have_their_exit_codes_and_output() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    fs::write(path.join("file"), "").unwrap();
    fs::write(path.join("event"), "{}").unwrap();
    let joe = "acct:joe@example.org";
    let closed = "ws://127.0.0.1:1/ws";
    #[rustfmt::skip]
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--version"], 0, "h-realtime 0."),
        (&["--help"], 0, "Usage"),
        (&["serve", "--help"], 0, "--listen"),
        (&["user", "--help"], 0, "mute"),
        (&["token", "create", "--help"], 0, "--expires"),
        (&["group", "member", "add", "--help"], 0, "--role"),
        (&["publish", "--help"], 0, "Example"),
        (&["listen", "--help"], 0, "--token-file"),
        (&["--bogus"], 64, "--bogus"),
        (&["user"], 64, "Usage"),
        (&["user", "add"], 64, "USERID"),
        (&["token", "create", joe, "--expires", "soon"], 64, "such as 30d"),
        (&["group", "add", "g", "--readable-by", "some"], 64, "world"),
        (&["config"], 64, "default"),
        (&["config", "default"], 0, "[timeouts]"),
        (&["config", "show"], 0, "timeouts.ping"),
        (&["config", "check"], 0, "is valid"),
        (&["listen"], 64, "URL"),
        (&["listen", "http://127.0.0.1:1/"], 64, "ws://"),
        (&["user", "list"], 69, "h-realtime-data: the data directory does not exist"),
        (&["user", "list", "--create"], 0, "There are no users"),
        (&["user", "list"], 0, "There are no users"),
        (&["user", "add", joe], 0, "added"),
        (&["user", "add", joe], 65, "already"),
        (&["user", "add", "joe"], 65, "userid"),
        (&["token", "revoke", "hrt-none"], 65, "not the id"),
        (&["user", "mute", "acct:none@example.org"], 67, "acct:none@example.org"),
        (&["token", "create", "acct:none@example.org"], 67, "acct:none@example.org"),
        (&["token", "revoke", "7"], 67, "7"),
        (&["group", "member", "add", "g", joe], 67, "group add g"),
        (&["token", "prune"], 0, "No such tokens"),
        (&["token", "prune", "--expired-for", "0s", "--yes"], 0, "deleted tokens: 0"),
        (&["backup", "copy"], 0, "backed up to copy (users: 1, tokens: 0, groups: 1)"),
        (&["backup", "copy"], 65, "--force"),
        (&["backup", "copy", "--force"], 0, "backed up"),
        (&["backup", "copy2", "--data", "nowhere"], 69, "nowhere"),
        (&["restore", "copy"], 0, "restored copy (users: 1, tokens: 0, groups: 1)"),
        (&["backup", "-"], 64, "standard output"),
        (&["backup", "nowhere/copy"], 74, "nowhere/copy: No such file or directory (os error 2)\n"),
        (&["restore", "nothing"], 66, "nothing"),
        (&["restore", "event"], 65, "event: file is not a database"),
        (&["restore", "."], 66, ".: is a directory"),
        (&["publish", "nothing"], 66, "nothing"),
        (&["listen", closed, "--token-file", "nothing"], 66, "nothing"),
        (&["publish", "event"], 69, "no server"),
        (&["publish", "event", "--admin", "http://127.0.0.1:1/"], 69, "publish.key"),
        (&["listen", closed, "--no-reconnect"], 69, "refused"),
        (&["serve", "--listen", "ftp://127.0.0.1:0"], 78, "listen: \"ftp://127.0.0.1:0\""),
        (&["serve", "--listen", "wss://127.0.0.1:0"], 78, "tls.cert"),
        (&["serve", "--tls-cert", "file"], 78, "tls.key"),
        (&["serve", "--admin", "5002"], 78, "admin"),
        (&["serve", "--config", "nothing"], 78, "nothing"),
        (&["serve", "--data", "file"], 78, "file is not a directory"),
        (&["user", "list", "--data", "file"], 78, "file is not a directory"),
    ];
    for (args, code, part) in cases {
        let (found, printed) = run(path, args);
        assert_eq!(found, *code, "{args:?}: {printed}");
        assert!(printed.contains(part), "{args:?}: {printed}");
    }
}

#[test]
fn configuration_is_shown_as_json_without_secrets() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), "[limits]\nfragments = 7").unwrap();
    let output = Command::new(PROGRAM)
        .args([
            "config",
            "show",
            "--json",
            "--config",
            "config.toml",
            "--log-level",
            "warn",
        ])
        .env("H_REALTIME_METRICS_KEY", "secret-of-the-test")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("secret-of-the-test"), "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    for (name, value, source) in [
        ("limits.fragments", serde_json::json!(7), "config.toml"),
        ("log.level", serde_json::json!("warn"), "--log-level"),
        (
            "metrics_key",
            serde_json::json!("***"),
            "H_REALTIME_METRICS_KEY",
        ),
        ("compression.enabled", serde_json::json!(true), "default"),
        ("tls.cert", Value::Null, "default"),
        ("origins", serde_json::json!([]), "default"),
    ] {
        assert_eq!(shown[name]["value"], value, "{name}");
        let found = shown[name]["source"].as_str().unwrap();
        assert!(found.contains(source), "{name}: {found}");
    }
}

#[test]
fn configuration_errors_name_file_and_line_or_key() {
    let folder = TempDir::new().unwrap();
    for (text, parts) in [
        (
            "admin = \"127.0.0.1:0\"\nlisen = []",
            &["line 2", "lisen"][..],
        ),
        ("[limits]\nmessage = 5", &["line 2", "message"]),
        (
            "[limits]\nmessage = \"5 bananas\"",
            &["limits.message", "5 bananas"],
        ),
        ("[timeouts]\ndrain = \"soon\"", &["timeouts.drain", "soon"]),
        (
            "[auth]\n\ninvalid_token = \"ignore\"",
            &["line 3", "ignore"],
        ),
        ("[limits", &["line 1"]),
    ] {
        fs::write(folder.path().join("bad.toml"), text).unwrap();
        let (code, printed) = run(folder.path(), &["serve", "--config", "bad.toml"]);
        assert_eq!(code, 78, "{text}: {printed}");
        for part in parts {
            assert!(printed.contains(part), "{text}: {printed}");
        }
    }
    // The invalid configuration has created nothing.
    assert!(!folder.path().join("h-realtime-data").exists());
}

#[test]
fn address_in_use_is_named() {
    let server = Server::start();
    let folder = TempDir::new().unwrap();
    let taken = server.address().to_string();
    let free = "127.0.0.1:0";
    let admin = server.admin.to_string();
    for (listen, admin, place) in [(&*taken, free, &taken), (free, &*admin, &admin)] {
        let url = format!("ws://{listen}");
        let (code, printed) = run(folder.path(), &["--listen", &url, "--admin", admin]);
        assert_eq!(code, 69, "{printed}");
        assert!(printed.contains(&**place), "{printed}");
    }
    // The failed start has not replaced the running server's address.
    let server_file = fs::read_to_string(server.data().join("admin.address")).unwrap();
    assert!(server_file.contains(&admin));
    let data = server.data();
    let args = [
        "--listen",
        &format!("ws://{taken}"),
        "--admin",
        free,
        "--data",
    ];
    let (code, _) = run(
        folder.path(),
        &[&args[..], &[data.to_str().unwrap()]].concat(),
    );
    assert_eq!(code, 69);
    let found = fs::read_to_string(data.join("admin.address")).unwrap();
    assert_eq!(found, server_file);
}

#[test]
fn token_is_the_last_line_and_is_not_stored() {
    let server = Server::start();
    server.run(&["user", "add", "acct:me@example.org"]);
    let output = server.command(&["token", "create", "acct:me@example.org", "--expires", "30d"]);
    let out = String::from_utf8(output.stdout).unwrap();
    let token = out.strip_suffix('\n').unwrap();
    assert!(
        token.starts_with("hrt-") && !token.contains(char::is_whitespace),
        "{out:?}"
    );
    assert!(!String::from_utf8(output.stderr).unwrap().contains(token));
    let list = server.command(&["token", "list"]);
    assert!(!String::from_utf8(list.stdout).unwrap().contains(token));

    let mut client = server.logged_in(token);
    let answer: Value = serde_json::from_str(&client.ask(r#"{"type":"whoami","id":1}"#)).unwrap();
    assert_eq!(answer["userid"], "acct:me@example.org");
    for (path, _) in files(&server.data()) {
        let bytes = fs::read(&path).unwrap();
        assert!(!contains(&bytes, token), "{path:?}");
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

// CVE-2026-33247
/// With maximum logging on both sides, and every way to pass a token.
#[test]
fn secrets_are_neither_logged_nor_in_the_process_list() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    let mut command = Command::new(PROGRAM);
    command.env("RUST_LOG", "trace");
    let server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    let token = server.user("acct:me@example.org");
    let expired = "hrt-a-token-that-nobody-has-0000000000000000000";
    let file = server.folder().join("token");
    fs::write(&file, &token).unwrap();
    let url = server.listeners[0].clone();

    let mut program = Command::new(PROGRAM);
    program.args(["listen", &url, "--group", "__world__", "--count", "1"]);
    program
        .arg("--token-file")
        .arg(&file)
        .env("RUST_LOG", "trace");
    let mut listener = Program::start(&mut program);
    let mut received = vec![listener.wait_for_error_line("connected as acct:me@example.org")];
    let shown = fs::read(format!("/proc/{}/cmdline", listener.child.id())).unwrap();
    assert!(contains(&shown, "--token-file") && !contains(&shown, &token));

    for (target, fields) in [
        (format!("/ws?access_token={token}"), String::new()),
        (format!("/ws?access_token={expired}"), String::new()),
        (
            "/ws".to_owned(),
            format!("Authorization: Bearer {expired}\r\n"),
        ),
    ] {
        Client::open(server.address(), &target, &fields).drain();
    }
    // Also in a request that is refused.
    Client::try_open(
        server.address(),
        &format!("/nowhere?access_token={token}"),
        "",
    );
    Client::try_open(
        server.address(),
        &format!("/ws?access_token={token}"),
        "Broken\r\n",
    );

    let key = server.publish_key();
    let sample = commands(&server.banner).remove(2);
    let output = shell(&format!("export RUST_LOG=trace; {sample}"), Path::new("."));
    assert!(output.status.success());
    received.push(String::from_utf8([output.stdout, output.stderr].concat()).unwrap());
    assert_eq!(listener.wait(), Some(0));
    received.extend(std::iter::from_fn(|| listener.line()));
    received.extend(std::iter::from_fn(|| listener.error_line()));

    let log = server.log_with("DEBUG");
    for (secret, what) in [
        (&*token, "token"),
        (expired, "unknown token"),
        (&key, "key"),
    ] {
        assert!(!log.contains(secret), "{what} in the log");
        assert!(
            !received.iter().any(|text| text.contains(secret)),
            "{what} said"
        );
    }
}

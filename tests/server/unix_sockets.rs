//! Unix sockets of the server: the permissions and owners of their files, and commands that use the
//! admin socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{OTHER_USER, PROGRAM, Program, as_other_user, give, is_root, program_for_all};

/// A server on two Unix sockets.
struct Site {
    folder: TempDir,
    program: PathBuf,
    server: Program,
}

const EVENT: &str = r#"{"topic":"annotation","action":"create","annotation":{"id":"A","user":"acct:a@example.org","uri":"https://example.org/","permissions":{"read":["group:__world__"]}}}"#;

impl Site {
    /// Starts a server with this text in the section `[socket]`, and the umask of the shipped unit.
    fn new(socket: &str) -> Site {
        let folder = TempDir::new().unwrap();
        let program = program_for_all(folder.path());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "listen = [\"unix:{}\"]\nadmin = \"unix:{}\"\ndata = \"{}\"\n[socket]\n{socket}\n",
            path("ws.sock"),
            path("admin.sock"),
            path("data"),
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"umask 077; exec "$0" "$@""#, PROGRAM])
            .args(["serve", "--config", &path("config.toml")]);
        let server = Program::start(&mut command);
        while !server.line().expect("a banner").contains("Ctrl-C") {}
        Site {
            folder,
            program,
            server,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the mode, user, and group of a socket's file.
    fn file(&self, name: &str) -> (u32, u32, u32) {
        let metadata = fs::metadata(self.path(name)).unwrap();
        (
            metadata.permissions().mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
        )
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

fn status(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    let request = b"GET /_status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

// D6
#[test]
fn socket_modes_follow_the_settings_and_not_the_umask() {
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let group = if is_root() { 12345 } else { own.1 };
    let other = format!(
        "mode = \"0660\"\ngroup = \"{group}\"\nadmin_mode = \"0620\"\nadmin_group = \"{group}\""
    );
    for (settings, public, admin) in [
        ("", (0o666, own.0, own.1), (0o600, own.0, own.1)),
        (&*other, (0o660, own.0, group), (0o620, own.0, group)),
    ] {
        let mut site = Site::new(settings);
        assert_eq!(site.file("ws.sock"), public);
        assert_eq!(site.file("admin.sock"), admin);
        assert!(status(&site.path("ws.sock")).starts_with("HTTP/1.1 200 "));
        let pid = rustix::process::Pid::from_child(&site.server.child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(site.server.wait(), Some(0));
        assert!(!site.path("ws.sock").exists() && !site.path("admin.sock").exists());
    }
}

#[test]
fn events_are_published_over_the_admin_socket() {
    let site = Site::new("");
    let told = fs::read_to_string(site.path("data/admin.address")).unwrap();
    let address = format!("unix:{}", site.path("admin.sock").display());
    assert_eq!(told.trim(), address);
    let data = site.path("data").display().to_string();
    fs::write(site.path("event"), EVENT).unwrap();
    for args in [
        &["--data", &data][..],
        &["--data", &data, "--admin", &address],
        &["--data", "data", "--admin", "unix:admin.sock"],
    ] {
        let mut command = Command::new(PROGRAM);
        command.current_dir(site.folder.path());
        let output = command
            .args(["publish", "event"])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(text(&output), "create A matched 0\n", "{args:?}");
    }
}

// D6
#[test]
fn another_user_reaches_the_public_socket_and_not_the_admin_socket() {
    if !is_root() {
        return;
    }
    let site = Site::new("");
    fs::write(site.path("event"), EVENT).unwrap();
    let publish = |socket: &str| {
        let mut command = as_other_user(&site.program);
        let address = format!("unix:{}", site.path(socket).display());
        command.env("H_REALTIME_PUBLISH_KEY", "0123456789abcdef");
        command.arg("publish").arg(site.path("event"));
        let output = command.args(["--admin", &address]).output().unwrap();
        (output, address)
    };
    // It connects, but not to an admin listener.
    let (output, _) = publish("ws.sock");
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(69), "{printed}");
    assert!(printed.contains("check the admin address"), "{printed}");
    let (output, address) = publish("admin.sock");
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(77), "{printed}");
    assert!(printed.contains(&address), "{printed}");
    assert!(printed.contains("socket.admin_group"), "{printed}");
}

#[test]
fn a_socket_that_cannot_be_opened_is_named_with_the_remedy() {
    let folder = TempDir::new().unwrap();
    let program = program_for_all(folder.path());
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    if is_root() {
        give(&data);
    }
    let run = |mut command: Command, listen: &str| {
        let mut program = Program::start(
            command
                .args(["serve", "--admin", "127.0.0.1:0", "--listen", listen])
                .arg("--data")
                .arg(&data),
        );
        let code = program.wait().unwrap();
        let printed: Vec<String> = std::iter::from_fn(|| program.error_line()).collect();
        (code, printed.join("\n"))
    };
    fs::write(folder.path().join("file"), "").unwrap();
    let at = |name: &str| format!("unix:{}", folder.path().join(name).display());
    for (name, remedy) in [
        ("nowhere/s", "create the directory"),
        ("file", "not a socket"),
    ] {
        let (code, printed) = run(Command::new(PROGRAM), &at(name));
        assert_eq!(code, 69, "{printed}");
        let part = format!("cannot listen on {}: ", at(name));
        assert!(
            printed.contains(&part) && printed.contains(remedy),
            "{printed}"
        );
    }
    if !is_root() {
        return;
    }
    let (code, printed) = run(as_other_user(&program), &at("s"));
    assert_eq!(code, 77, "{printed}");
    assert!(printed.contains("needs write access"), "{printed}");
    // A server can give its socket only to its own groups.
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    give(&open);
    let mut command = as_other_user(&program);
    command.env("H_REALTIME_SOCKET__USER", "0");
    let (code, printed) = run(command, &at("open/s"));
    assert_eq!(code, 77, "{printed}");
    assert!(
        printed.contains("cannot change the owner of the socket"),
        "{printed}"
    );
    assert!(!open.join("s").exists());
    let mut command = as_other_user(&program);
    command.env("H_REALTIME_SOCKET__MODE", "0600");
    command.env("H_REALTIME_SOCKET__GROUP", OTHER_USER.to_string());
    let mut server = command;
    server.args(["serve", "--admin", "127.0.0.1:0", "--listen", &at("open/s")]);
    let server = Program::start(server.arg("--data").arg(&data));
    while !server.line().expect("a banner").contains("Ctrl-C") {}
    assert_eq!(fs::metadata(open.join("s")).unwrap().gid(), OTHER_USER);
}

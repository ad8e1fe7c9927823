//! A server program that a test needs beside its own, and that ends with the test.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, eventually};

/// A running program. It is killed when this is dropped, and also when the test's process ends
/// in whatever way: what lives in a `static` is never dropped.
pub struct Kept {
    child: Child,
    watcher: Child,
}

impl Kept {
    /// Starts a program. When the test's process ends, `folder` is removed, too.
    pub fn start(command: &mut Command, folder: &Path) -> Kept {
        // Ctrl-C at the terminal is for the test; its end is then seen by the watcher.
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "sh", &child.id().to_string()])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Kept { child, watcher }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by which it ends, and waits until it has.
    pub fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        eventually(PATIENCE, || self.child.try_wait().unwrap());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // The watcher first: the number of a process that has ended may become another's.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command for a program, run by this user where the test is run by root: PostgreSQL refuses
/// to be.
pub fn command_as(user: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

/// Gives a folder to the user whom [`command_as`] runs programs by.
pub fn give_to(user: &str, folder: &Path) {
    if geteuid().is_root() {
        let status = Command::new("chown").arg(user).arg(folder).status();
        assert!(status.unwrap().success(), "{user} cannot have {folder:?}");
    }
}

/// A TCP port that nobody listens on, below those that systems give to outgoing connections: a
/// server that is stopped must find it free when it starts again.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| try_to_bind(*port).is_ok();
    let random = RandomState::new().hash_one(std::process::id());
    let first = (random % u64::from(PORTS.end - PORTS.start)) as u16;
    let mut from_there = (PORTS.start + first..PORTS.end).chain(PORTS.start..PORTS.start + first);
    from_there.find(is_free).expect("a free port")
}

/// Takes a port for a moment, without listening: a process that another thread starts meanwhile has
/// the socket until its program runs, and would take connections that are meant for the server.
fn try_to_bind(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
}

/// Linux begins to give ports at 32768.
const PORTS: Range<u16> = 16_000..32_000;
/// Reads until the test's process is there no more. A server may take a moment to end its own
/// processes, which write into the folder.
const WATCH: &str = r#"cat; kill -KILL "$1"; sleep 1; rm -rf "$2""#;

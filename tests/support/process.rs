//! An auxiliary server process that ends with the test.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, eventually};

/// A running program. It is killed when this is dropped, and also whenever the test's process ends,
/// since a `static` is never dropped.
pub struct ManagedProcess {
    child: Child,
    watcher: Child,
}

impl ManagedProcess {
    /// Starts a program. When the test's process ends, `folder` is removed, too.
    pub fn start(command: &mut Command, folder: &Path) -> ManagedProcess {
        // Ctrl-C at the terminal must only reach the test; the watcher then detects the test's end.
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "sh", &child.id().to_string()])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ManagedProcess { child, watcher }
    }

    /// Returns whether the process is running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a terminating signal and waits for the process to exit.
    pub fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        eventually(PATIENCE, || self.child.try_wait().unwrap());
    }
}

impl Drop for ManagedProcess {
    fn drop(&mut self) {
        // First the watcher: the process id may be reused once the process has exited.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command that runs a program as `user` if the test runs as root, which PostgreSQL
/// refuses.
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

/// Changes the owner of a folder to the user of [`command_as`].
pub fn give_to(user: &str, folder: &Path) {
    if geteuid().is_root() {
        let status = Command::new("chown").arg(user).arg(folder).status();
        assert!(
            status.unwrap().success(),
            "cannot change the owner of {folder:?} to {user}"
        );
    }
}

/// Returns a free TCP port that no other call returns, below the ephemeral range, so that it is
/// still free when a stopped server starts again.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| {
        let random = RandomState::new().hash_one(std::process::id());
        AtomicU32::new((random >> 40) as u32)
    });
    let length = u32::from(PORTS.end - PORTS.start);
    for _ in PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % length;
        let port = PORTS.start + step as u16;
        if try_to_bind(port).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Binds a port for a moment without listening: a process that another thread forks meanwhile
/// inherits the socket until exec, and would accept connections meant for the server.
fn try_to_bind(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
}

/// Linux's ephemeral ports begin at 32768.
const PORTS: Range<u16> = 16_000..32_000;
/// Reads until the test's process has ended. A server may need a moment to end its own child
/// processes, which write into the folder.
const WATCHER: &str = r#"cat; kill -KILL "$1"; sleep 1; rm -rf "$2""#;

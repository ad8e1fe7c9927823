//! What a service manager is told of the server (sd_notify(3)): that it is ready, reloads, ends,
//! lives, and how it does.
//!
//! Owns: the socket, and when something is to be said. Where nobody wants to hear it, nothing is
//! said. The reactor never waits for the service manager.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::{Display, Write};
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::SendFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::net::TICK_PERIOD;

/// The way to the service manager, for all threads.
#[derive(Default)]
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    /// The server ends: what is said then must not sound as if it went on.
    is_stopping: AtomicBool,
    /// The last status is about a reload that failed, and a later one has succeeded.
    is_status_stale: AtomicBool,
}

impl Notifier {
    /// The service manager that started this process, if one did.
    pub fn of_process() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let connected = connect(&name);
            let failed = |error: &io::Error| log::warn!("NOTIFY_SOCKET={name:?}: {error}");
            connected.inspect_err(failed).ok()
        });
        Notifier {
            socket,
            is_stopping: AtomicBool::new(false),
            is_status_stale: AtomicBool::new(false),
        }
    }

    /// The server serves.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=0 connections");
    }

    /// The start goes on, and waits for this. It is not over before [`EXTENSION`] has passed.
    pub fn waiting(&self, what: impl Display) {
        let micros = EXTENSION.as_micros();
        self.tell(&format!(
            "STATUS=waiting for {what}\nEXTEND_TIMEOUT_USEC={micros}"
        ));
    }

    /// The configuration is being read again, since now.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// That is done, and well; or else all is as it was, and this is why.
    pub fn reloaded(&self, failure: Option<&str>) {
        match failure {
            None => {
                self.is_status_stale.store(true, Ordering::Relaxed);
                self.tell("READY=1");
            }
            Some(failure) => self.tell(&format!("READY=1\nSTATUS={failure}")),
        }
    }

    /// The server sees its clients off.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=shutting down");
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Waits while the service manager has no room for more.
    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket
            && !self.is_stopping.load(Ordering::Relaxed)
            && let Err(error) = socket.send(what.as_bytes())
        {
            log::warn!("the service manager cannot be told: {error}");
        }
    }

    /// Whether it has taken this, without waiting.
    fn try_tell(&self, what: &str) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let send = |socket| rustix::net::send(socket, what.as_bytes(), flags);
        self.socket
            .as_ref()
            .is_some_and(|socket| send(socket).is_ok())
    }
}

/// What the reactor says, as long as it turns.
pub(super) struct Pulse {
    notifier: Arc<Notifier>,
    /// In milliseconds, how often at least a sign of life is wanted, if one is.
    watchdog: Option<u64>,
    /// When the last one was given.
    alive_at: u64,
    /// What was last said of how the server does, and when.
    status: (Status, u64),
}

/// How the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// Open WebSockets.
    pub open: u64,
    /// Whether the back end does its work.
    pub is_ready: bool,
}

impl Pulse {
    /// With what the environment says of a watchdog.
    pub fn new(notifier: Arc<Notifier>) -> Self {
        let watchdog = watchdog();
        if watchdog.is_some_and(|period| period < 4 * TICK_PERIOD) {
            let least = Duration::from_millis(4 * TICK_PERIOD);
            log::warn!("a watchdog (WatchdogSec=) below {least:?} may take a busy server for dead");
        }
        let status = Status {
            open: 0,
            is_ready: true,
        };
        Pulse {
            notifier,
            watchdog,
            alive_at: 0,
            status: (status, 0),
        }
    }

    /// Says what there is to say now; to be called in the reactor's own turns, at every tick.
    pub fn beat(&mut self, now: u64, status: Status) {
        if self.notifier.socket.is_none() {
            return;
        }
        let mut text = String::new();
        let is_stopping = self.notifier.is_stopping.load(Ordering::Relaxed);
        // sd_watchdog_enabled(3): "It is recommended that a daemon sends a keep-alive notification
        // … every half of the time returned here."
        let is_due = |period: u64| now + TICK_PERIOD > self.alive_at + period / 2;
        let says_alive = self.watchdog.is_some_and(is_due);
        if says_alive {
            text.push_str("WATCHDOG=1\n");
        }
        let (told, told_at) = self.status;
        let is_stale = self.notifier.is_status_stale.load(Ordering::Relaxed);
        let says_status = match is_stopping {
            _ if is_stale => true,
            true => now >= told_at + STOPPING_PERIOD,
            // That the back end has come or gone is said at once.
            false if told.is_ready != status.is_ready => true,
            false => told != status && now >= told_at + STATUS_PERIOD,
        };
        if says_status {
            describe(&mut text, status, is_stopping);
        }
        if text.is_empty() || !self.notifier.try_tell(&text) {
            return;
        }
        if says_alive {
            self.alive_at = now;
        }
        if says_status {
            self.status = (status, now);
            self.notifier
                .is_status_stale
                .store(false, Ordering::Relaxed);
        }
    }
}

fn describe(text: &mut String, status: Status, is_stopping: bool) {
    let Status { open, is_ready } = status;
    let _ = match (is_stopping, is_ready) {
        (true, _) => writeln!(
            text,
            "STATUS=shutting down, {open} connections left\nEXTEND_TIMEOUT_USEC={}",
            EXTENSION.as_micros()
        ),
        (false, true) => writeln!(text, "STATUS={open} connections"),
        (false, false) => writeln!(text, "STATUS={open} connections; the back end is away"),
    };
}

/// How often a sign of life is wanted of this process, in milliseconds (sd_watchdog_enabled(3)).
fn watchdog() -> Option<u64> {
    let variable = |name| env::var(name).ok().filter(|text: &String| !text.is_empty());
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != process::id().to_string()) {
        return None;
    }
    let micros: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (micros > 0).then_some(micros / 1000)
}

/// Connects to a path, or to an abstract name, which is written with an `@` before it.
fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(name)?)?;
    // For a service manager that hangs nobody hangs as well.
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', abstract_name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(abstract_name)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this is neither a path nor an abstract name",
        )),
    }
}

/// How long a thread waits that is not the reactor's.
const PATIENCE: Duration = Duration::from_secs(5);
/// Milliseconds between two lines about the number of connections.
const STATUS_PERIOD: u64 = 5000;
/// The same while the server ends.
const STOPPING_PERIOD: u64 = 1000;
/// How long the end may take from each such line on, whatever `TimeoutStopSec=` says: the lines
/// end when the reactor hangs. The same for a start that waits, and `TimeoutStartSec=`.
const EXTENSION: Duration = Duration::from_secs(10);

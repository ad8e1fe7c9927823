//! Notifications to the service manager (sd_notify(3)): readiness, reloads, shutdown, watchdog, and
//! status.
//!
//! Owns: the socket, and when notifications are sent. Without a socket, nothing is sent. The
//! reactor never waits for the service manager.

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

/// The connection to the service manager, shared by all threads.
#[derive(Default)]
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Shutdown has begun: later messages must not suggest that the server continues.
    is_stopping: AtomicBool,
    /// The last status describes a failed reload, and a later reload has succeeded.
    is_status_stale: AtomicBool,
}

impl Notifier {
    /// Returns the service manager that started this process, if any.
    pub(super) fn of_process() -> Self {
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

    /// Reports that the server is serving.
    pub(super) fn ready(&self) {
        self.send_state("READY=1\nSTATUS=0 connections");
    }

    /// Reports that startup is waiting, and extends its timeout by [`EXTENSION`].
    pub(super) fn waiting(&self, resource: impl Display) {
        let micros = EXTENSION.as_micros();
        self.send_state(&format!(
            "STATUS=waiting for {resource}\nEXTEND_TIMEOUT_USEC={micros}"
        ));
    }

    /// Reports that a reload of the configuration begins now.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send_state(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Reports the end of a reload. `failure` is the reason if the settings are unchanged.
    pub(super) fn reloaded(&self, failure: Option<&str>) {
        match failure {
            None => {
                self.is_status_stale.store(true, Ordering::Relaxed);
                self.send_state("READY=1");
            }
            Some(failure) => self.send_state(&format!("READY=1\nSTATUS={failure}")),
        }
    }

    /// Reports that the server is shutting down.
    pub(super) fn stopping(&self) {
        self.send_state("STOPPING=1\nSTATUS=shutting down");
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Sends a message. Waits while the service manager has no room for it.
    fn send_state(&self, what: &str) {
        if let Some(socket) = &self.socket
            && !self.is_stopping.load(Ordering::Relaxed)
            && let Err(error) = socket.send(what.as_bytes())
        {
            log::warn!("cannot notify the service manager: {error}");
        }
    }

    /// Sends a message without waiting. Returns whether it was accepted.
    fn try_send_state(&self, what: &str) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let send = |socket| rustix::net::send(socket, what.as_bytes(), flags);
        self.socket
            .as_ref()
            .is_some_and(|socket| send(socket).is_ok())
    }
}

/// The notifications that the reactor sends as long as it runs.
pub(super) struct Heartbeat {
    notifier: Arc<Notifier>,
    /// The watchdog interval in milliseconds, if a watchdog is configured.
    watchdog: Option<u64>,
    /// When the last keep-alive notification was sent.
    alive_at: u64,
    /// The last reported status, and when it was sent.
    status: (Status, u64),
}

/// The status of the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// Open WebSockets.
    pub open: u64,
    /// Whether the backend is working.
    pub is_ready: bool,
}

impl Heartbeat {
    /// Reads the watchdog interval from the environment.
    pub(super) fn new(notifier: Arc<Notifier>) -> Self {
        let watchdog = watchdog();
        if watchdog.is_some_and(|period| period < 4 * TICK_PERIOD) {
            let least = Duration::from_millis(4 * TICK_PERIOD);
            log::warn!(
                "WatchdogSec= is below {least:?}: the service manager may kill a busy server"
            );
        }
        let status = Status {
            open: 0,
            is_ready: true,
        };
        Heartbeat {
            notifier,
            watchdog,
            alive_at: 0,
            status: (status, 0),
        }
    }

    /// Sends the notifications that are due. Called by the reactor at every tick.
    pub(super) fn tick(&mut self, now: u64, status: Status) {
        if self.notifier.socket.is_none() {
            return;
        }
        let mut text = String::new();
        let is_stopping = self.notifier.is_stopping.load(Ordering::Relaxed);
        // sd_watchdog_enabled(3): "It is recommended that a daemon sends a keep-alive notification
        // … every half of the time returned here."
        let is_due = |period: u64| now + TICK_PERIOD > self.alive_at + period / 2;
        let sends_watchdog = self.watchdog.is_some_and(is_due);
        if sends_watchdog {
            text.push_str("WATCHDOG=1\n");
        }
        let (last, sent_at) = self.status;
        let is_stale = self.notifier.is_status_stale.load(Ordering::Relaxed);
        let sends_status = match is_stopping {
            _ if is_stale => true,
            true => now >= sent_at + STOPPING_PERIOD,
            // Changes of the backend's availability are reported immediately.
            false if last.is_ready != status.is_ready => true,
            false => last != status && now >= sent_at + STATUS_PERIOD,
        };
        if sends_status {
            describe(&mut text, status, is_stopping);
        }
        if text.is_empty() || !self.notifier.try_send_state(&text) {
            return;
        }
        if sends_watchdog {
            self.alive_at = now;
        }
        if sends_status {
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
        (false, false) => writeln!(text, "STATUS={open} connections; backend unavailable"),
    };
}

/// Returns the watchdog interval of this process, in milliseconds (sd_watchdog_enabled(3)).
fn watchdog() -> Option<u64> {
    let variable = |name| env::var(name).ok().filter(|text: &String| !text.is_empty());
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != process::id().to_string()) {
        return None;
    }
    let micros: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (micros > 0).then_some(micros / 1000)
}

/// Connects to a path, or to an abstract name, which is written with a leading `@`.
fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(name)?)?;
    // A service manager that hangs must not block a thread forever.
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
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
            "neither a path nor an abstract name",
        )),
    }
}

/// How long a thread other than the reactor's waits.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Milliseconds between two reports of the number of connections.
const STATUS_PERIOD: u64 = 5000;
/// The same interval during shutdown.
const STOPPING_PERIOD: u64 = 1000;
/// How far each such report extends the time for the shutdown, regardless of `TimeoutStopSec=`. The
/// reports cease if the reactor hangs. The same applies to a startup that waits, and
/// `TimeoutStartSec=`.
const EXTENSION: Duration = Duration::from_secs(10);

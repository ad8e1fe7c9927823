//! Signal handling, from the first statement of the program to the end of the server.
//!
//! Owns: which signals are handled, and their effects during startup and afterwards. The default
//! action of each of them would end the process. The standard library ignores SIGPIPE.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::backend::DirLock;
use crate::exit::{Exit, thread_failed};
use crate::logging;
use crate::model::BackendEvent;
use crate::net::Mailbox;

use super::address_file::SharedAddressFile;
use super::notify::Notifier;
use super::shared::SharedState;

/// Starts catching signals. They are handled as soon as `SignalThread::start` is called.
pub(crate) fn catch() {
    // If this fails, startup retries it and reports the error.
    if let Ok(signals) = register() {
        *locked(&CAUGHT) = Some(signals);
    }
}

fn register() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])
}

/// A handle to the thread that handles signals.
pub(super) struct SignalThread {
    state: Arc<Mutex<SignalState>>,
}

/// The objects that signals act on.
#[derive(Default)]
struct SignalState {
    running: Option<RunningServer>,
    /// SIGHUP was received before a reload was possible.
    is_reload_pending: bool,
    /// Removed if the process ends during startup. Later the admin listener removes it.
    address_file: SharedAddressFile,
    /// Held until shutdown begins: a server that drains its connections only reads.
    lock: Option<DirLock>,
}

/// The objects that signals act on once the server is serving.
pub(super) struct RunningServer {
    pub mailbox: Mailbox<BackendEvent>,
    pub shared: Arc<SharedState>,
    pub reload: SyncSender<()>,
    pub notifier: Arc<Notifier>,
}

impl SignalThread {
    /// Starts the thread. Until the server runs, SIGTERM and SIGINT end the process immediately
    /// with exit code 0. After that, the first of them begins the shutdown, and the second
    /// completes it at once. SIGHUP reloads the configuration as soon as that is possible.
    ///
    /// # Errors
    /// If the system cannot register the signals or create the thread.
    pub(super) fn start() -> Result<Self, Exit> {
        let caught = locked(&CAUGHT).take();
        let mut signals = match caught {
            Some(signals) => signals,
            None => register().map_err(|error| {
                Exit::new(
                    Exit::OS,
                    format!("cannot register signal handlers: {error}"),
                )
            })?,
        };
        let state = Arc::new(Mutex::new(SignalState::default()));
        let shared = Arc::clone(&state);
        let run = move || {
            for signal in signals.forever() {
                if locked(&shared).handle(signal).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(run).map_err(thread_failed)?;
        Ok(SignalThread { state })
    }

    /// Hands over the lock on the data directory, and the file to remove if the process ends during
    /// startup.
    pub(super) fn set_resources(&self, address_file: SharedAddressFile, lock: Option<DirLock>) {
        let mut state = locked(&self.state);
        state.address_file = address_file;
        state.lock = lock;
    }

    /// Switches to the signal handling of a running server.
    pub(super) fn run(&self, running: RunningServer) {
        let mut state = locked(&self.state);
        if state.is_reload_pending {
            let _ = running.reload.try_send(());
        }
        state.running = Some(running);
    }
}

impl SignalState {
    /// Handles one signal.
    ///
    /// Fails if the server has ended.
    fn handle(&mut self, signal: i32) -> Result<(), crate::net::Closed> {
        match signal {
            SIGHUP => match &self.running {
                // If a reload is pending already, it will include the change.
                Some(running) => drop(running.reload.try_send(())),
                None => self.is_reload_pending = true,
            },
            SIGTERM | SIGINT => {
                // The next server may start while this one drains its connections.
                drop(self.lock.take());
                let Some(running) = &self.running else {
                    self.address_file.remove();
                    log::info!("received signal {signal} during startup: exiting");
                    logging::finish();
                    std::process::exit(0);
                };
                log::info!("received signal {signal}: shutting down");
                running.shared.is_draining.store(true, Ordering::Relaxed);
                let period = running.shared.drain();
                running.mailbox.shut_down(period)?;
                running.notifier.stopping();
            }
            other => log::info!("received signal {other}: ignored"),
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals caught before the handling thread starts. Like the disposition of a signal, this
/// belongs to the process.
static CAUGHT: Mutex<Option<Signals>> = Mutex::new(None);

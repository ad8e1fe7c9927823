//! Signals, from the first statement of the program to the end of the server.
//!
//! Owns: which signals are handled, and their effects before the server serves and afterwards.
//! The default action of all of them would end the process. SIGPIPE is ignored by the standard
//! library.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::backend::DirLock;
use crate::cli::exit::Exit;
use crate::logging;
use crate::model::Tell;
use crate::net::Mailbox;

use super::address_file::SharedFile;
use super::no_thread;
use super::notify::Notifier;
use super::reload::Shared;

/// Catches signals from now on. They are handled as soon as `SignalThread::start` is called.
pub fn catch() {
    // Where this fails, it is tried again at the start, and the error is reported there.
    if let Ok(signals) = register() {
        *locked(&CAUGHT) = Some(signals);
    }
}

fn register() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])
}

/// The thread that handles signals, as the rest of the server sees it.
pub(super) struct SignalThread {
    state: Arc<Mutex<State>>,
}

/// The targets of signals.
#[derive(Default)]
struct State {
    running: Option<Running>,
    /// SIGHUP has come before there was anything to reload.
    wants_reload: bool,
    /// Removed if the process ends during the start. Later the admin listener removes it.
    address_file: SharedFile,
    /// Held until the shutdown begins: a server that drains its connections only reads.
    lock: Option<DirLock>,
}

/// The targets once the server serves.
pub(super) struct Running {
    pub mailbox: Mailbox<Tell>,
    pub shared: Arc<Shared>,
    pub reload: SyncSender<()>,
    pub notifier: Arc<Notifier>,
}

impl SignalThread {
    /// Starts the thread. Until the server runs, SIGTERM and SIGINT end the process at once, with
    /// exit code 0; then the first of them begins the shutdown, and the second ends it. SIGHUP
    /// reloads, as soon as there is something to reload.
    ///
    /// # Errors
    /// When the system refuses the signals or the thread.
    pub fn start() -> Result<Self, Exit> {
        let caught = locked(&CAUGHT).take();
        let mut signals = match caught {
            Some(signals) => signals,
            None => register().map_err(|error| Exit::new(Exit::OS, format!("signals: {error}")))?,
        };
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let run = move || {
            for signal in signals.forever() {
                if locked(&shared).handle(signal).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(run).map_err(no_thread)?;
        Ok(SignalThread { state })
    }

    /// Hands over the file that is to be gone if the process ends during the start, and the lock on
    /// the data directory.
    pub fn own(&self, address_file: SharedFile, lock: Option<DirLock>) {
        let mut state = locked(&self.state);
        state.address_file = address_file;
        state.lock = lock;
    }

    /// The server runs.
    pub fn run(&self, running: Running) {
        let mut state = locked(&self.state);
        if state.wants_reload {
            let _ = running.reload.try_send(());
        }
        state.running = Some(running);
    }
}

impl State {
    /// Fails when there is no server any more.
    fn handle(&mut self, signal: i32) -> Result<(), crate::net::Closed> {
        match signal {
            SIGHUP => match &self.running {
                // If a reload is waiting already, it will see the change.
                Some(running) => drop(running.reload.try_send(())),
                None => self.wants_reload = true,
            },
            SIGTERM | SIGINT => {
                // The next server may start while this one drains its connections.
                drop(self.lock.take());
                let Some(running) = &self.running else {
                    self.address_file.remove();
                    log::info!("signal {signal}: ended during the start");
                    logging::finish();
                    std::process::exit(0);
                };
                log::info!("signal {signal}: shutting down");
                running.shared.is_draining.store(true, Ordering::Relaxed);
                let over = running.shared.drain();
                running.mailbox.shut_down(over)?;
                running.notifier.stopping();
            }
            other => log::info!("signal {other}: ignored, it has no meaning here"),
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those that have been caught before there was a thread to handle them. Like the disposition of a
/// signal, it belongs to the process.
static CAUGHT: Mutex<Option<Signals>> = Mutex::new(None);

//! Reload of the configuration: read, checked, and then applied as a whole, or not at all if there
//! is an error.
//!
//! Owns: the thread that reloads, on SIGHUP and when the certificate files have changed. It reads
//! files, which the reactor must never wait for. The reactor receives only checked settings.

use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cli::exit::Exit;
use crate::config::{Danger, Settings, Sources, Values};
use crate::logging;
use crate::model::BackendEvent;
use crate::model::unix_now;
use crate::net::tls::TlsConfig;
use crate::net::{Closed, Mailbox, Reload};
use crate::realtime;

use super::certificate::Certificate;
use super::notify::Notifier;
use super::preflight::{self, Preflight};
use super::{facts, millis, realtime_settings};

/// The state that a reload starts from.
pub(super) struct Reloader {
    pub sources: Sources,
    /// The values that the server was started with.
    pub started: Values,
    /// The values in effect.
    pub values: Values,
    pub settings: Settings,
    /// The files of the certificate in use, if any.
    pub certificate: Option<Certificate>,
    pub open_files: u64,
    pub mailbox: Mailbox<BackendEvent>,
    pub shared: Arc<Shared>,
    pub notifier: Arc<Notifier>,
}

/// The state that is shared with other threads.
pub(super) struct Shared {
    /// Set for the application, which takes it when the engine is reloaded.
    application: Mutex<Option<Application>>,
    /// Milliseconds over which a shutdown spreads its closes.
    drain: AtomicU64,
    /// Shutdown has begun.
    pub is_draining: AtomicBool,
    /// Reloads of the configuration or a certificate that were applied.
    pub succeeded: AtomicU64,
    /// Reloads that were not applied.
    pub failed: AtomicU64,
    /// When the certificate in use expires, in seconds since the Unix epoch. 0 without a
    /// certificate.
    pub certificate_expires: AtomicU64,
}

/// The reloaded settings of the application.
pub(super) struct Application {
    pub realtime: realtime::ApiSettings,
    pub dangers: Vec<Danger>,
}

/// A checked configuration that can be applied.
struct Checked {
    values: Values,
    settings: Settings,
    certificate: Option<(Certificate, TlsConfig)>,
    warnings: Vec<String>,
    /// Changed settings that take effect at the next start.
    waiting: Vec<&'static str>,
}

impl Application {
    pub fn new(settings: &Settings) -> Self {
        let dangers = Danger::ALL.into_iter();
        Application {
            realtime: realtime_settings(settings),
            dangers: dangers.filter(|danger| danger.is_in(settings)).collect(),
        }
    }
}

impl Shared {
    pub fn new(settings: &Settings) -> Self {
        Shared {
            application: Mutex::new(None),
            drain: AtomicU64::new(millis(settings.drain)),
            is_draining: AtomicBool::new(false),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            certificate_expires: AtomicU64::new(0),
        }
    }

    /// Returns the reloaded settings that the application has not taken yet.
    pub fn take(&self) -> Option<Application> {
        let mut application = self.application.lock();
        let application = application.as_mut().unwrap_or_else(|error| error.get_mut());
        application.take()
    }

    /// Records the certificate that is in use from now on, if it has changed.
    pub fn has_certificate(&self, tls: Option<&TlsConfig>) {
        if let Some(tls) = tls {
            let expires = tls.chain().first().map_or(0, |own| own.not_after);
            self.certificate_expires.store(expires, Ordering::Relaxed);
        }
    }

    /// Returns the time over which a shutdown that begins now spreads its closes.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain.load(Ordering::Relaxed))
    }
}

impl Reloader {
    /// Starts the thread. It reloads whenever a message is sent. A single pending message covers
    /// several requests.
    pub fn start(mut self) -> io::Result<SyncSender<()>> {
        let (bell, rung) = sync_channel(1);
        let run = move || {
            loop {
                let reloaded = match rung.recv_timeout(LOOK_EVERY) {
                    Ok(()) => self.reload(),
                    Err(RecvTimeoutError::Timeout) => self.look_at_certificate(),
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if reloaded == Err(Closed) {
                    return;
                }
                self.warn_of_expiry();
            }
        };
        thread::Builder::new().name("reload".into()).spawn(run)?;
        Ok(bell)
    }

    fn reload(&mut self) -> Result<(), Closed> {
        self.notifier.reloading();
        match self.check() {
            Ok(checked) => {
                self.take_over(checked)?;
                self.notifier.reloaded(None);
            }
            Err(error) => {
                let told = self.refused("the configuration stays as it was", &error.message);
                self.notifier.reloaded(Some(&told));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<Checked, Exit> {
        let (read, errors) = self.sources.read_all();
        let facts = facts(self.open_files);
        // The next start must succeed with this configuration, too.
        let next = preflight::check(read, errors, facts, Some(&self.started))?;
        let waiting = next.values.differing(&self.started);
        let waiting = waiting.filter(|setting| !setting.is_live);
        let waiting: Vec<_> = waiting.map(|setting| setting.name).collect();
        let Preflight {
            values,
            settings,
            certificate,
            mut warnings,
            ..
        } = match waiting.is_empty() {
            true => next,
            false => {
                let values = next.values.over(&self.started);
                preflight::check(values, Vec::new(), facts, Some(&self.started))?
            }
        };
        if let (Some(in_use), Some((next, _))) = (&self.certificate, &certificate) {
            let judged = in_use.may_be_replaced(next.chain(), facts.now);
            judged.map_err(|why| {
                let file = values.place("tls.cert");
                Exit::new(Exit::CONFIG, format!("{file}: {why}"))
            })?;
        }
        if !waiting.is_empty() {
            let names = waiting.join(", ");
            warnings.push(format!(
                "changed, but in force only after a restart: {names}"
            ));
        }
        Ok(Checked {
            values,
            settings,
            certificate,
            warnings,
            waiting,
        })
    }

    fn take_over(&mut self, checked: Checked) -> Result<(), Closed> {
        let changed = checked.values.differing(&self.values);
        let changed: Vec<_> = changed.map(|setting| setting.name).collect();
        (self.values, self.settings) = (checked.values, checked.settings);
        let tls = checked.certificate.map(|(certificate, config)| {
            self.certificate = Some(certificate);
            config
        });
        let application = Application::new(&self.settings);
        let mut waiting = self
            .shared
            .application
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *waiting = Some(application);
        drop(waiting);
        self.hand_over(tls)?;
        let drain = millis(self.settings.drain);
        self.shared.drain.store(drain, Ordering::Relaxed);
        logging::set(self.settings.log_level, self.settings.log_format);
        self.shared.succeeded.fetch_add(1, Ordering::Relaxed);
        match (changed.is_empty(), checked.waiting.is_empty()) {
            (true, true) => log::info!("reloaded; no setting has changed"),
            (true, false) => log::info!(
                "reloaded; nothing in force has changed: restart to apply {}",
                checked.waiting.join(", ")
            ),
            (false, _) => log::info!("reloaded; changed: {}", changed.join(", ")),
        }
        for warning in checked.warnings {
            log::warn!("{warning}");
        }
        Ok(())
    }

    fn look_at_certificate(&mut self) -> Result<(), Closed> {
        let Some(certificate) = self.certificate.as_mut() else {
            return Ok(());
        };
        if !certificate.has_changed() {
            return Ok(());
        }
        match certificate.read_again(unix_now() / 1000) {
            Ok(tls) => {
                self.hand_over(Some(tls))?;
                self.shared.succeeded.fetch_add(1, Ordering::Relaxed);
                log::info!("the certificate's files have changed, and are in use now");
            }
            Err(error) => {
                self.refused("the certificate stays as it was", &error);
            }
        }
        Ok(())
    }

    /// Logs expiry warnings, once a day and at every change of state.
    fn warn_of_expiry(&mut self) {
        if let Some(certificate) = &mut self.certificate {
            for warning in certificate.due_warnings(unix_now() / 1000) {
                log::warn!("{warning}");
            }
        }
    }

    fn hand_over(&self, tls: Option<TlsConfig>) -> Result<(), Closed> {
        let config = self.settings.engine.clone();
        self.shared.has_certificate(tls.as_ref());
        self.mailbox.reload(Reload { config, tls })
    }

    /// Logs the rejected reload in one line, and returns the line.
    fn refused(&self, what_stays: &str, error: &dyn Display) -> String {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        let error = error.to_string().replace('\n', "; ");
        let told = format!("not reloaded, {what_stays}: {error}");
        log::error!("{told}");
        told
    }
}

/// The interval between checks of the certificate files. A change is applied when the files are the
/// same at two consecutive checks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

//! Reload of the configuration: read, checked, and then applied as a whole, or not at all if there
//! is an error.
//!
//! Owns: the thread that reloads, on SIGHUP and when the certificate files have changed. It reads
//! files, which the reactor must never wait for. The reactor receives only checked settings.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::config::{ServerSettings, Sources, Values};
use crate::exit::Exit;
use crate::logging;
use crate::model::BackendEvent;
use crate::model::unix_now;
use crate::net::tls::TlsConfig;
use crate::net::{Closed, Mailbox, Reload};

use super::certificate::Certificate;
use super::notify::Notifier;
use super::preflight::{self, Preflight, check_context};
use super::shared::{AppSettings, SharedState};

/// The state that a reload starts from.
pub(super) struct Reloader {
    pub sources: Sources,
    /// The values that the server was started with.
    pub started: Values,
    /// The values in effect.
    pub values: Values,
    pub settings: ServerSettings,
    /// The files of the certificate in use, if any.
    pub certificate: Option<Certificate>,
    pub open_files: u64,
    pub mailbox: Mailbox<BackendEvent>,
    pub shared: Arc<SharedState>,
    pub notifier: Arc<Notifier>,
}

/// A checked configuration that can be applied.
struct CheckedReload {
    values: Values,
    settings: ServerSettings,
    certificate: Option<(Certificate, TlsConfig)>,
    warnings: Vec<String>,
    /// Changed settings that take effect at the next start.
    needs_restart: Vec<&'static str>,
}

impl Reloader {
    /// Starts the thread. It reloads whenever a message is sent. A single pending message covers
    /// several requests.
    pub(super) fn start(mut self) -> io::Result<SyncSender<()>> {
        let (sender, requests) = sync_channel(1);
        let run = move || {
            loop {
                let reloaded = match requests.recv_timeout(CERTIFICATE_POLL_PERIOD) {
                    Ok(()) => self.reload(),
                    Err(RecvTimeoutError::Timeout) => self.check_certificate(),
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if reloaded == Err(Closed) {
                    return;
                }
                self.log_expiry_warnings();
            }
        };
        thread::Builder::new().name("reload".into()).spawn(run)?;
        Ok(sender)
    }

    fn reload(&mut self) -> Result<(), Closed> {
        self.notifier.reloading();
        match self.check() {
            Ok(checked) => {
                self.apply(checked)?;
                self.notifier.reloaded(None);
            }
            Err(error) => {
                let line = self.reject("keeping the configuration in effect", &error.message);
                self.notifier.reloaded(Some(&line));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<CheckedReload, Exit> {
        let (read, errors) = self.sources.read_all();
        let context = check_context(self.open_files);
        // The next start must succeed with this configuration, too.
        let next = preflight::check(read, errors, context, Some(&self.started))?;
        let needs_restart = next.values.differing(&self.started);
        let needs_restart = needs_restart.filter(|setting| !setting.is_reloadable);
        let needs_restart: Vec<_> = needs_restart.map(|setting| setting.name).collect();
        let Preflight {
            values,
            settings,
            certificate,
            mut warnings,
            ..
        } = match needs_restart.is_empty() {
            true => next,
            false => {
                let values = next.values.with_restart_only_of(&self.started);
                preflight::check(values, Vec::new(), context, Some(&self.started))?
            }
        };
        if let (Some(in_use), Some((next, _))) = (&self.certificate, &certificate) {
            let checked = in_use.check_replacement(next.chain(), context.now);
            checked.map_err(|why| {
                let file = values.name_with_provenance("tls.cert");
                Exit::new(Exit::CONFIG, format!("{file}: {why}"))
            })?;
        }
        if !needs_restart.is_empty() {
            let names = needs_restart.join(", ");
            warnings.push(format!(
                "changed settings that take effect after a restart: {names}"
            ));
        }
        Ok(CheckedReload {
            values,
            settings,
            certificate,
            warnings,
            needs_restart,
        })
    }

    fn apply(&mut self, checked: CheckedReload) -> Result<(), Closed> {
        let changed = checked.values.differing(&self.values);
        let changed: Vec<_> = changed.map(|setting| setting.name).collect();
        (self.values, self.settings) = (checked.values, checked.settings);
        let tls = checked.certificate.map(|(certificate, config)| {
            self.certificate = Some(certificate);
            config
        });
        self.shared.set_pending(AppSettings::new(&self.settings));
        self.send_to_engine(tls)?;
        self.shared.set_drain(self.settings.drain);
        logging::set(self.settings.log_level, self.settings.log_format);
        self.shared.succeeded.fetch_add(1, Ordering::Relaxed);
        match (changed.is_empty(), checked.needs_restart.is_empty()) {
            (true, true) => log::info!("configuration reloaded: no changes"),
            (true, false) => log::info!(
                "configuration reloaded: no changes in effect; restart to apply {}",
                checked.needs_restart.join(", ")
            ),
            (false, _) => log::info!("configuration reloaded: changed {}", changed.join(", ")),
        }
        for warning in checked.warnings {
            log::warn!("{warning}");
        }
        Ok(())
    }

    fn check_certificate(&mut self) -> Result<(), Closed> {
        let Some(certificate) = self.certificate.as_mut() else {
            return Ok(());
        };
        if !certificate.has_changed() {
            return Ok(());
        }
        match certificate.reload(unix_now() / 1000) {
            Ok(tls) => {
                self.send_to_engine(Some(tls))?;
                self.shared.succeeded.fetch_add(1, Ordering::Relaxed);
                log::info!("certificate files changed: now using the new certificate");
            }
            Err(error) => {
                self.reject("keeping the certificate in use", &error);
            }
        }
        Ok(())
    }

    /// Logs expiry warnings, once a day and at every change of state.
    fn log_expiry_warnings(&mut self) {
        if let Some(certificate) = &mut self.certificate {
            for warning in certificate.due_warnings(unix_now() / 1000) {
                log::warn!("{warning}");
            }
        }
    }

    fn send_to_engine(&self, tls: Option<TlsConfig>) -> Result<(), Closed> {
        let config = self.settings.engine.clone();
        self.shared.record_certificate(tls.as_ref());
        self.mailbox.reload(Reload { config, tls })
    }

    /// Logs the rejected reload in one line, and returns the line.
    fn reject(&self, unchanged: &str, error: &dyn Display) -> String {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        let error = error.to_string().replace('\n', "; ");
        let line = format!("reload failed, {unchanged}: {error}");
        log::error!("{line}");
        line
    }
}

/// The interval between checks of the certificate files. A change is applied when the files are the
/// same at two consecutive checks.
const CERTIFICATE_POLL_PERIOD: Duration = Duration::from_secs(2);

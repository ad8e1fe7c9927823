//! The state that the threads of the server share.
//!
//! Owns: the reloaded settings until the application takes them, and their conversion to those of
//! [`realtime`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{InsecureSetting, ServerSettings};
use crate::net::Config;
use crate::net::tls::TlsConfig;
use crate::realtime;

/// The state that is shared with other threads.
pub(super) struct SharedState {
    /// Reloaded settings, which the application takes when the engine is reloaded.
    pending: Mutex<Option<AppSettings>>,
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
    /// Records about clients that were not written to the data directory.
    pub dropped_client_records: Arc<AtomicU64>,
}

/// The reloaded settings of the application.
pub(super) struct AppSettings {
    pub realtime: realtime::ApiSettings,
    pub insecure_settings: Vec<InsecureSetting>,
}

impl AppSettings {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        let insecure_settings = InsecureSetting::ALL.into_iter();
        AppSettings {
            realtime: realtime_settings(settings),
            insecure_settings: insecure_settings
                .filter(|setting| setting.applies_to(settings))
                .collect(),
        }
    }
}

impl SharedState {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        SharedState {
            pending: Mutex::new(None),
            drain: AtomicU64::new(millis(settings.drain)),
            is_draining: AtomicBool::new(false),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            certificate_expires: AtomicU64::new(0),
            dropped_client_records: Arc::default(),
        }
    }

    /// Stores reloaded settings for the application.
    pub(super) fn set_pending(&self, settings: AppSettings) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = Some(settings);
    }

    /// Returns the reloaded settings that the application has not taken yet.
    pub(super) fn take_pending(&self) -> Option<AppSettings> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.take()
    }

    /// Records the certificate that is in use from now on, if it has changed.
    pub(super) fn record_certificate(&self, tls: Option<&TlsConfig>) {
        if let Some(tls) = tls {
            let expires = tls.chain().first().map_or(0, |own| own.not_after);
            self.certificate_expires.store(expires, Ordering::Relaxed);
        }
    }

    /// Changes the time over which a later shutdown spreads its closes.
    pub(super) fn set_drain(&self, drain: Duration) {
        self.drain.store(millis(drain), Ordering::Relaxed);
    }

    /// Returns the time over which a shutdown that begins now spreads its closes.
    pub(super) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain.load(Ordering::Relaxed))
    }
}

fn realtime_settings(settings: &ServerSettings) -> realtime::ApiSettings {
    realtime::ApiSettings {
        origins: settings.origins.clone(),
        invalid_token: settings.invalid_token,
        max_message: settings.engine.max_message,
        max_terms: settings.filter_terms,
        filters_total: settings.filters_total,
        on_expiry: settings.on_expiry,
        expiry_spread: millis(settings.expiry_spread),
        sweep_period: settings.sweep.map(millis),
        history: realtime::HistorySettings {
            memory: settings.history.memory,
            window: millis(settings.history.window),
            clients: settings.history.clients,
            silence: longest_silence(&settings.engine),
        },
    }
}

/// Returns the longest time for which an open connection may have received nothing, in milliseconds:
/// a ping is sent after the interval with its spread, and the time for the pong is extended by the
/// time that slow links need for queued output.
fn longest_silence(config: &Config) -> u64 {
    let ping = config.ping_interval + config.ping_interval / 4 + Duration::from_secs(1);
    millis(ping + config.pong_timeout + SLOW_LINK)
}

/// The longest time that the engine grants a slow link for queued output.
const SLOW_LINK: Duration = Duration::from_secs(300);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Features, Values};

    #[test]
    fn default_history_settings_equal_api_defaults() {
        let (settings, conflicts) = Values::default().resolve(Features::ALL).unwrap();
        assert_eq!(conflicts, [""; 0]);
        let history = realtime_settings(&settings).history;
        assert_eq!(history, realtime::HistorySettings::default());
    }
}

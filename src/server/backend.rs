//! The configured backend: prepared first, and started when the reactor's mailbox exists.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
#[cfg(feature = "sqlite")]
use std::time::Duration;

#[cfg(not(feature = "amqp"))]
use super::no_amqp::{Feed, Source, source};
#[cfg(all(feature = "sqlite", not(feature = "amqp")))]
use super::no_amqp::{names, stats};
#[cfg(feature = "amqp")]
use crate::backend::amqp::{self, Broker, Feed, Source};
#[cfg(feature = "h")]
use crate::backend::h::{self, DatabaseClient};
use crate::backend::{DataDir, DirLock, EventSink, SinkClosed, SinkError, Stats};
#[cfg(feature = "amqp")]
use crate::config::BrokerSettings;
use crate::config::{BackendSettings, HSettings, ServerSettings, Values};
use crate::exit::Exit;
use crate::model::{BackendEvent, BackendHandle, Secret};
use crate::net::{self, Mailbox};

/// A backend that has not been started.
pub(super) struct PreparedBackend {
    /// Sends requests to the backend.
    pub handle: Rc<dyn BackendHandle>,
    /// The key for publishing and for explanations.
    pub publish_key: Option<Secret>,
    /// The data directory, if users, tokens, and groups are stored locally.
    pub data: Option<DataDir>,
    /// The data directory, if only the key and the admin address are stored there.
    pub key_dir: Option<DataDir>,
    /// The lock on that directory, if locks are supported.
    pub lock: Option<DirLock>,
    /// The additional source of events, without credentials.
    pub brokers: Option<String>,
    pub stats: Arc<Stats>,
    start: Start,
}

type Start = Box<dyn FnOnce(&Mailbox<BackendEvent>) -> io::Result<Threads>>;

/// The threads of a running backend.
#[derive(Default)]
pub(super) struct Threads {
    /// The thread that processes requests. It ends when the last sender is dropped.
    thread: Option<JoinHandle<()>>,
    /// The thread that receives events from a message queue. It holds a sender, too.
    feed: Option<Feed>,
}

/// A backend whose settings have been checked. Nothing has been opened or connected to.
pub(super) enum CheckedBackend {
    Embedded(Option<Source>),
    #[cfg(feature = "h")]
    H(Box<CheckedH>),
}

/// The parts of h's backend.
#[cfg(feature = "h")]
pub(super) struct CheckedH {
    store: h::DatabaseClient,
    events: h::Events,
    stats: Arc<Stats>,
}

impl CheckedBackend {
    /// Checks the settings of the backend.
    ///
    /// # Errors
    /// Every problem of the settings, without credentials.
    pub(super) fn new(
        settings: &ServerSettings,
        values: &Values,
    ) -> Result<CheckedBackend, Vec<String>> {
        match &settings.backend {
            BackendSettings::Embedded(None) => Ok(CheckedBackend::Embedded(None)),
            BackendSettings::Embedded(Some(broker)) => Ok(CheckedBackend::Embedded(Some(source(
                broker, settings, values,
            )?))),
            BackendSettings::H(h) => draft_of_h(h, settings, values),
        }
    }

    /// Returns warnings about settings that have no effect.
    pub(super) fn warnings(&self, values: &Values) -> Vec<String> {
        let warnings: &[String] = match self {
            CheckedBackend::Embedded(_) => &[],
            #[cfg(feature = "h")]
            CheckedBackend::H(draft) => draft.store.warnings(),
        };
        let setting = values.name_with_provenance("h.database_url");
        let named = warnings
            .iter()
            .map(|warning| format!("{setting}: {warning}"));
        named.collect()
    }

    /// Opens local resources. Connects to nothing.
    ///
    /// # Errors
    /// [`Exit`] if the data directory or the database cannot be opened.
    pub(super) fn prepare(self, settings: &ServerSettings) -> Result<PreparedBackend, Exit> {
        match self {
            CheckedBackend::Embedded(source) => embedded(settings, source),
            #[cfg(feature = "h")]
            CheckedBackend::H(draft) => Ok(of_h(*draft, settings)),
        }
    }
}

impl PreparedBackend {
    /// Starts the backend.
    pub(super) fn start(self, mailbox: &Mailbox<BackendEvent>) -> Result<Threads, Exit> {
        (self.start)(mailbox).map_err(|error| {
            Exit::new(
                Exit::OS,
                format!("cannot create a thread for the backend: {error}"),
            )
        })
    }
}

impl Threads {
    /// Waits for the threads to end. Every sender must have been dropped.
    pub(super) fn finish(self) {
        if let Some(feed) = self.feed {
            feed.finish();
        }
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

impl EventSink for Mailbox<BackendEvent> {
    fn send(&self, event: BackendEvent) -> Result<(), SinkClosed> {
        Mailbox::send(self, event).map_err(|net::Closed| SinkClosed)
    }

    fn try_send(&self, event: BackendEvent) -> Result<(), SinkError> {
        Mailbox::try_send(self, event).map_err(|error| match error {
            net::Undelivered::Full(event) => SinkError::Full(event),
            net::Undelivered::Closed => SinkError::Closed,
        })
    }
}

#[cfg(feature = "sqlite")]
fn embedded(settings: &ServerSettings, source: Option<Source>) -> Result<PreparedBackend, Exit> {
    use crate::backend;
    use crate::backend::embedded::{Embedded, HistoryOptions};
    use crate::model::unix_now;

    let stats = match &source {
        Some(source) => stats(source),
        None => Arc::new(Stats::requiring(false, false)),
    };
    let data = DataDir::open(&settings.data).map_err(Exit::from)?;
    let lock = lock(&data, settings.reuse_port)?;
    let publish_key = data.publish_key().map_err(Exit::from)?;
    let history = settings.history;
    let options = HistoryOptions {
        memory: history.memory,
        disk: history.disk as u64,
        window: u64::try_from(history.window.as_millis()).unwrap_or(u64::MAX),
        durability: history.durability,
    };
    let embedded = Embedded::open(&data, options, Arc::clone(&stats), unix_now());
    let embedded = embedded.map_err(|error| Exit::from(error).in_database(&data.database()))?;
    for warning in data.warnings() {
        log::warn!("{warning}");
    }
    let (sender, requests) = backend::request_queue();
    let brokers = source.as_ref().map(names);
    let feed_sender = sender.clone();
    let start = move |mailbox: &Mailbox<BackendEvent>| {
        Ok(Threads {
            thread: Some(backend::start(
                embedded,
                requests,
                unix_now,
                mailbox.clone(),
            )?),
            feed: match source {
                Some(source) => Some(Feed::start(source, feed_sender)?),
                None => None,
            },
        })
    };
    Ok(PreparedBackend {
        handle: Rc::new(sender),
        publish_key: Some(publish_key),
        data: Some(data),
        key_dir: None,
        lock,
        brokers,
        stats,
        start: Box::new(start),
    })
}

/// Locks the data directory. A supervisor may start a server at the same time as it stops another
/// one, so this waits for the lock until the other server has had time to handle its signal.
#[cfg(feature = "sqlite")]
fn lock(data: &DataDir, is_shared: bool) -> Result<Option<DirLock>, Exit> {
    use crate::backend::{DataDirError, LockMode};

    let sharing = match is_shared {
        true => LockMode::Shared,
        false => LockMode::Exclusive,
    };
    let end = std::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        match data.lock(sharing) {
            Err(DataDirError::InUse(..)) if std::time::Instant::now() < end => {
                std::thread::sleep(LOCK_PAUSE);
            }
            locked => return Ok(locked?),
        }
    }
}

/// How long to wait for the lock on the data directory.
#[cfg(feature = "sqlite")]
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval between two attempts.
#[cfg(feature = "sqlite")]
const LOCK_PAUSE: Duration = Duration::from_millis(20);

// Without this feature, the configuration has been refused earlier.
#[cfg(not(feature = "sqlite"))]
fn embedded(_: &ServerSettings, _: Option<Source>) -> Result<PreparedBackend, Exit> {
    let message =
        "this build does not include the embedded backend; rebuild it with the feature sqlite";
    Err(Exit::new(Exit::CONFIG, message))
}

/// Returns the arrival time of an event, by the clock of the reactor.
#[cfg(feature = "amqp")]
fn monotonic() -> crate::model::MonoMillis {
    crate::model::MonoMillis(net::monotonic())
}

#[cfg(feature = "amqp")]
fn source(
    broker: &BrokerSettings,
    settings: &ServerSettings,
    values: &Values,
) -> Result<Source, Vec<String>> {
    Ok(Source {
        brokers: brokers(broker, values)?,
        prefetch: amqp::PREFETCH,
        max_event: settings.max_event,
        stats: Arc::new(Stats::requiring(true, false)),
        clock: monotonic,
    })
}

#[cfg(all(feature = "amqp", feature = "sqlite"))]
fn stats(source: &Source) -> Arc<Stats> {
    Arc::clone(&source.stats)
}

/// Returns the addresses of the brokers.
#[cfg(all(feature = "amqp", feature = "sqlite"))]
fn names(source: &Source) -> String {
    names_of(&source.brokers)
}

#[cfg(feature = "amqp")]
fn brokers(settings: &BrokerSettings, values: &Values) -> Result<Vec<Broker>, Vec<String>> {
    let (mut brokers, mut problems) = (Vec::new(), Vec::new());
    let setting = values.name_with_provenance("amqp.url");
    for (index, url) in settings.urls.iter().enumerate() {
        let number = match settings.urls.len() {
            1 => String::new(),
            count => format!("broker {} of {count}: ", index + 1),
        };
        let broker = Broker::parse(url).and_then(|broker| broker.check_files().map(|()| broker));
        match broker {
            Ok(broker) => brokers.push(broker),
            Err(error) => problems.push(format!("{setting}: {number}{error}")),
        }
    }
    match problems.is_empty() {
        true => Ok(brokers),
        false => Err(problems),
    }
}

#[cfg(feature = "amqp")]
fn names_of(brokers: &[Broker]) -> String {
    let names: Vec<String> = brokers.iter().map(Broker::to_string).collect();
    names.join(", ")
}

#[cfg(feature = "h")]
fn draft_of_h(
    h: &HSettings,
    settings: &ServerSettings,
    values: &Values,
) -> Result<CheckedBackend, Vec<String>> {
    let stats = Arc::new(Stats::requiring(true, true));
    let database = h::DatabaseSettings {
        database_url: h.database_url.clone(),
        authority: h.authority.clone(),
        app_url: h.app_url.clone(),
        bouncer_url: h.bouncer_url.clone(),
    };
    let mut problems = Vec::new();
    let brokers = brokers(&h.broker, values).unwrap_or_else(|more| {
        problems.extend(more);
        Vec::new()
    });
    // A missing URL has been reported already.
    if h.database_url.is_empty() {
        return Err(problems);
    }
    let store = DatabaseClient::new(&database, Arc::clone(&stats)).map_err(|found| {
        let setting = values.name_with_provenance("h.database_url");
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("{setting}: {problem}")),
        );
    });
    let (events, bytes) = settings.backlog;
    let events = h::Events {
        brokers,
        max_event: settings.max_event,
        backlog: h::Limits { events, bytes },
        history: h::HistoryOptions {
            memory: settings.history.memory,
            window: settings.history.window,
            sweep: settings.sweep.unwrap_or(h::HistoryOptions::default().sweep),
        },
    };
    match store {
        Ok(store) if problems.is_empty() => Ok(CheckedBackend::H(Box::new(CheckedH {
            store,
            events,
            stats,
        }))),
        _ => Err(problems),
    }
}

#[cfg(feature = "h")]
fn of_h(draft: CheckedH, settings: &ServerSettings) -> PreparedBackend {
    use crate::backend::h::Clocks;
    use crate::backend::request_queue;
    use crate::model::unix_now;

    let CheckedH {
        store,
        events,
        stats,
    } = draft;
    let names = names_of(&events.brokers);
    let (sender, requests) = request_queue();
    let counted = Arc::clone(&stats);
    let start = move |mailbox: &Mailbox<BackendEvent>| {
        let clocks = Clocks {
            unix: unix_now,
            mono: monotonic,
        };
        let thread = h::start(store, events, requests, counted, clocks, mailbox.clone())?;
        Ok(Threads {
            thread: Some(thread),
            ..Threads::default()
        })
    };
    let (key_dir, publish_key) = key_dir(settings).unzip();
    PreparedBackend {
        handle: Rc::new(sender),
        publish_key,
        data: None,
        key_dir,
        lock: None,
        brokers: Some(names),
        stats,
        start: Box::new(start),
    }
}

/// Opens the data directory for the key that explanations need. h's backend works without it.
#[cfg(feature = "h")]
fn key_dir(settings: &ServerSettings) -> Option<(DataDir, Secret)> {
    let opened = DataDir::open(&settings.data).and_then(|data| {
        let key = data.publish_key()?;
        Ok((data, key))
    });
    opened
        .inspect_err(|error| {
            log::warn!("{error}; without a publish key, explanations are disabled")
        })
        .ok()
}

// A build without h's backend is reported where the settings are read.
#[cfg(not(feature = "h"))]
fn draft_of_h(
    _: &HSettings,
    _: &ServerSettings,
    _: &Values,
) -> Result<CheckedBackend, Vec<String>> {
    Err(Vec::new())
}

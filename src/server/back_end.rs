//! The back end that was chosen: prepared first, and started when there is a way to the reactor.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
#[cfg(feature = "sqlite")]
use std::time::Duration;

#[cfg(not(feature = "amqp"))]
use super::no_amqp::{Feed, names, source};
#[cfg(all(feature = "sqlite", feature = "amqp"))]
use crate::backend::amqp::{self, Source};
#[cfg(feature = "amqp")]
use crate::backend::amqp::{Broker, Feed};
use crate::backend::{Closed, DataDir, DirLock, Stats, Undelivered, Way};
use crate::cli::exit::Exit;
use crate::config::{BackEndSettings, BrokerSettings, HSettings, Settings};
use crate::model::{Asks, Secret, Tell};
use crate::net::{self, Mailbox};

/// A back end that has not begun to work.
pub(super) struct BackEnd {
    /// Where questions go.
    pub asker: Rc<dyn Asks>,
    /// What publishers must know, where events come by HTTP.
    pub publish_key: Option<Secret>,
    /// Where users, tokens and groups are kept, where that is here.
    pub data: Option<DataDir>,
    /// The lock on that directory, where there are locks.
    pub lock: Option<DirLock>,
    /// Where events come from besides, without credentials.
    pub brokers: Option<String>,
    pub stats: Arc<Stats>,
    start: Start,
}

type Start = Box<dyn FnOnce(&Mailbox<Tell>) -> io::Result<Threads>>;

/// The threads of a back end that works.
#[derive(Default)]
pub(super) struct Threads {
    /// The thread that answers; it ends when nobody can ask any more.
    answering: Option<JoinHandle<()>>,
    /// The thread that hands over events from a message queue. It asks, too.
    feed: Option<Feed>,
}

impl BackEnd {
    /// What the settings ask for.
    pub fn prepare(settings: &Settings) -> Result<BackEnd, Exit> {
        match &settings.back_end {
            BackEndSettings::Embedded(broker) => embedded(settings, broker.as_ref()),
            BackEndSettings::H(h) => of_h(h),
        }
    }

    /// Has it begin to work.
    pub fn start(self, mailbox: &Mailbox<Tell>) -> Result<Threads, Exit> {
        (self.start)(mailbox)
            .map_err(|error| Exit::new(Exit::OS, format!("a thread for the back end: {error}")))
    }
}

impl Threads {
    /// Waits until they have ended. Nobody must be able to ask any more.
    pub fn finish(self) {
        if let Some(feed) = self.feed {
            feed.finish();
        }
        if let Some(thread) = self.answering {
            let _ = thread.join();
        }
    }
}

/// The way to the reactor is its mailbox.
struct ByMailbox(Mailbox<Tell>);

impl Way for ByMailbox {
    fn tell(&self, tell: Tell) -> Result<(), Closed> {
        self.0.send(tell).map_err(|net::Closed| Closed)
    }

    fn try_tell(&self, tell: Tell) -> Result<(), Undelivered> {
        self.0.try_send(tell).map_err(|error| match error {
            net::Undelivered::Full(tell) => Undelivered::Full(tell),
            net::Undelivered::Closed => Undelivered::Closed,
        })
    }
}

#[cfg(feature = "sqlite")]
fn embedded(settings: &Settings, broker: Option<&BrokerSettings>) -> Result<BackEnd, Exit> {
    use crate::backend::{self, embedded::Embedded};
    use crate::clock::unix_now;

    let stats = Arc::new(Stats::needing(broker.is_some(), false));
    let source = match broker {
        Some(broker) => Some(source(broker, &stats)?),
        None => None,
    };
    let data = DataDir::open(&settings.data).map_err(Exit::from)?;
    let lock = lock(&data, settings.reuse_port)?;
    let publish_key = data.publish_key().map_err(Exit::from)?;
    let embedded = Embedded::open(&data, Arc::clone(&stats));
    let embedded = embedded.map_err(|error| Exit::from(error).in_database(&data.database()))?;
    for warning in data.warnings() {
        log::warn!("{warning}");
    }
    let (asker, questions) = backend::questions();
    let brokers = source.as_ref().map(names);
    let feeding = asker.clone();
    let start = move |mailbox: &Mailbox<Tell>| {
        let way = ByMailbox(mailbox.clone());
        Ok(Threads {
            answering: Some(backend::start(embedded, questions, unix_now, way)?),
            feed: match source {
                Some(source) => Some(Feed::start(source, feeding)?),
                None => None,
            },
        })
    };
    Ok(BackEnd {
        asker: Rc::new(asker),
        publish_key: Some(publish_key),
        data: Some(data),
        lock,
        brokers,
        stats,
        start: Box::new(start),
    })
}

/// Locks the data directory. A supervisor may start a server at the moment at which it stops
/// another one, so the lock is waited for until that one can have handled the signal.
#[cfg(feature = "sqlite")]
fn lock(data: &DataDir, is_shared: bool) -> Result<Option<DirLock>, Exit> {
    use crate::backend::{DataDirError, Sharing};

    let sharing = match is_shared {
        true => Sharing::Shared,
        false => Sharing::Exclusive,
    };
    let end = std::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match data.lock(sharing) {
            Err(DataDirError::InUse(..)) if std::time::Instant::now() < end => {
                std::thread::sleep(LOCK_PAUSE);
            }
            locked => return Ok(locked?),
        }
    }
}

/// How long a server waits for the lock on its data directory.
#[cfg(feature = "sqlite")]
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits between two attempts.
#[cfg(feature = "sqlite")]
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[cfg(not(feature = "sqlite"))]
fn embedded(_: &Settings, _: Option<&BrokerSettings>) -> Result<BackEnd, Exit> {
    let message = "this build has no embedded back end: it needs the feature sqlite";
    Err(Exit::new(Exit::CONFIG, message))
}

/// When an event arrives, by the clock of the reactor.
#[cfg(any(all(feature = "sqlite", feature = "amqp"), feature = "h"))]
fn monotonic() -> crate::model::MonoMillis {
    crate::model::MonoMillis(net::monotonic())
}

#[cfg(all(feature = "sqlite", feature = "amqp"))]
fn source(broker: &BrokerSettings, stats: &Arc<Stats>) -> Result<Source, Exit> {
    Ok(Source {
        brokers: brokers(broker)?,
        prefetch: amqp::PREFETCH,
        stats: Arc::clone(stats),
        clock: monotonic,
    })
}

/// Where the brokers are.
#[cfg(all(feature = "sqlite", feature = "amqp"))]
fn names(source: &Source) -> String {
    names_of(&source.brokers)
}

#[cfg(feature = "amqp")]
fn brokers(settings: &BrokerSettings) -> Result<Vec<Broker>, Exit> {
    let brokers = settings.urls.iter().map(|url| Broker::parse(url));
    brokers.collect::<Result<_, _>>().map_err(|error| {
        let message = format!("BROKER_URL or amqp.url: {error}");
        Exit::new(Exit::CONFIG, message)
    })
}

#[cfg(feature = "amqp")]
fn names_of(brokers: &[Broker]) -> String {
    let names: Vec<String> = brokers.iter().map(Broker::to_string).collect();
    names.join(", ")
}

#[cfg(feature = "h")]
fn of_h(settings: &HSettings) -> Result<BackEnd, Exit> {
    use crate::backend::h::{self, Clocks, Store};
    use crate::clock::unix_now;

    let stats = Arc::new(Stats::needing(true, true));
    let database = h::Settings {
        database_url: settings.database_url.clone(),
        authority: settings.authority.clone(),
        app_url: settings.app_url.clone(),
        bouncer_url: settings.bouncer_url.clone(),
    };
    let store = Store::new(&database, Arc::clone(&stats)).map_err(|error| {
        let message = format!("DATABASE_URL or h.database_url: {error}");
        Exit::new(Exit::CONFIG, message)
    })?;
    let brokers = brokers(&settings.broker)?;
    let names = names_of(&brokers);
    let (asker, questions) = h::questions();
    let counted = Arc::clone(&stats);
    let start = move |mailbox: &Mailbox<Tell>| {
        let way = ByMailbox(mailbox.clone());
        let clocks = Clocks {
            unix: unix_now,
            mono: monotonic,
        };
        let thread = h::start(store, brokers, questions, counted, clocks, way)?;
        Ok(Threads {
            answering: Some(thread),
            ..Threads::default()
        })
    };
    Ok(BackEnd {
        asker: Rc::new(asker),
        publish_key: None,
        data: None,
        lock: None,
        brokers: Some(names),
        stats,
        start: Box::new(start),
    })
}

#[cfg(not(feature = "h"))]
fn of_h(_: &HSettings) -> Result<BackEnd, Exit> {
    let message = "this build has no back end for h: it needs the feature h";
    Err(Exit::new(Exit::CONFIG, message))
}

//! The thread of h's backend.
//!
//! Owns: the end of the thread: it stops when all senders of requests have been dropped, even while
//! it waits for something else.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;

use super::backlog::Limits;
use super::client::DatabaseClient;
use super::database::{Database, Queries};
use super::history::{History, HistoryOptions};
use super::worker::Worker;
use crate::backend::amqp::{Broker, Delivery, Source, random, runtime};
use crate::backend::{EventSink, RequestQueue, SenderWatch, Stats};
use crate::model::{MonoMillis, UnixMillis};

use std::sync::Arc;

/// Sources of the current time.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The wall clock, for the expiry of tokens.
    pub unix: fn() -> UnixMillis,
    /// A monotonic clock, for the arrival time of events.
    pub mono: fn() -> MonoMillis,
}

/// The source of events, and the limits on waiting ones.
#[derive(Debug)]
pub struct Events {
    /// Tried in turn.
    pub brokers: Vec<Broker>,
    /// The maximum size of an event, in bytes.
    pub max_event: usize,
    /// The limits on events that wait for the database.
    pub backlog: Limits,
    /// The settings of the history and of its sweeps.
    pub history: HistoryOptions,
}

/// Starts the thread, which queries `store` and processes `events`. It ends when all senders of
/// requests have been dropped, or the receiver of `sink` has been closed.
///
/// # Errors
/// The system refuses a thread or a resource of the asynchronous runtime.
pub fn start<S>(
    store: DatabaseClient,
    events: Events,
    requests: RequestQueue,
    stats: Arc<Stats>,
    clocks: Clocks,
    sink: S,
) -> io::Result<JoinHandle<()>>
where
    S: EventSink,
{
    let runtime = runtime()?;
    let source = Source {
        brokers: events.brokers,
        prefetch: events.backlog.prefetch(),
        max_event: events.max_event,
        stats: Arc::clone(&stats),
        clock: clocks.mono,
    };
    thread::Builder::new()
        .name("backend".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let watch = requests.sender_watch();
                let work = |deliveries| {
                    let database = Database::new(store, random);
                    let counted = (stats, events.backlog);
                    let history = History::new(events.history, random(), Instant::now());
                    Worker::new(
                        database, sink, clocks, counted, history, requests, deliveries,
                    )
                };
                run(work, source, watch).await;
            });
            // Do not wait for a pending name resolution.
            runtime.shutdown_background();
        })
}

/// Runs until all senders have been dropped or the receiver has been closed. Then closes the
/// connection to the broker.
async fn run<D, S>(
    worker: impl FnOnce(Receiver<Delivery>) -> Worker<D, S>,
    source: Source,
    watch: SenderWatch,
) where
    D: Queries,
    S: EventSink,
{
    let (sender, deliveries) = channel(DELIVERY_CAPACITY);
    let worker = worker(deliveries);
    // The worker owns the receiver of deliveries. Dropping the worker therefore stops the source.
    let work = async move {
        tokio::select! {
            () = worker.run() => {}
            () = watch.all_dropped() => {}
        }
    };
    tokio::join!(source.consume(sender, random), work);
}

/// Capacity of the channel between the broker's connection and the worker.
pub(super) const DELIVERY_CAPACITY: usize = 16;

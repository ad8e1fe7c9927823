//! The thread of h's backend, and the handle to it.
//!
//! Owns: the end of the thread: it stops when all handles have been dropped, even while it waits
//! for something else.

use std::convert::Infallible;
use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::backlog::Limits;
use super::database::{Data, Database};
use super::store::Store;
use super::worker::Worker;
use crate::backend::amqp::{Broker, Delivery, Source, random, runtime};
use crate::backend::{QUEUE, Stats, Way};
use crate::model::{BackendHandle, BackendRequest, Busy, MonoMillis, UnixMillis};

use std::sync::Arc;

/// A handle to the backend's thread. It can be cloned.
#[derive(Clone, Debug)]
pub struct Asker {
    questions: Sender<BackendRequest>,
    /// Signals the drop of the last handle at once, even while requests are queued.
    _alive: Sender<Infallible>,
}

/// The queue of unanswered requests.
#[derive(Debug)]
pub struct Questions {
    inbox: Receiver<BackendRequest>,
    alive: Receiver<Infallible>,
}

/// Creates a request queue: a handle for callers, and the receiving end for the backend.
/// [`BackendHandle::ask`] returns [`Busy`] while [`QUEUE`] requests are queued.
pub fn questions() -> (Asker, Questions) {
    let (questions, inbox) = channel(QUEUE);
    let (_alive, alive) = channel(1);
    (Asker { questions, _alive }, Questions { inbox, alive })
}

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
}

/// Starts the thread, which queries `store` and processes `events`. It ends when all clones of the
/// [`Asker`] have been dropped, or the receiver of `way` has been closed.
///
/// # Errors
/// The system refuses a thread or a resource of the asynchronous runtime.
pub fn start<W>(
    store: Store,
    events: Events,
    questions: Questions,
    stats: Arc<Stats>,
    clocks: Clocks,
    way: W,
) -> io::Result<JoinHandle<()>>
where
    W: Way,
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
                let work = |deliveries| {
                    let database = Database::new(store, random);
                    let counted = (stats, events.backlog);
                    Worker::new(database, way, clocks, counted, questions.inbox, deliveries)
                };
                run(work, source, questions.alive).await;
            });
            // Do not wait for a pending name resolution.
            runtime.shutdown_background();
        })
}

/// Runs until all handles have been dropped or the receiver has been closed. Then closes the
/// connection to the broker.
async fn run<D, W>(
    worker: impl FnOnce(Receiver<Delivery>) -> Worker<D, W>,
    source: Source,
    mut alive: Receiver<Infallible>,
) where
    D: Data,
    W: Way,
{
    let (sender, deliveries) = channel(HANDS);
    let worker = worker(deliveries);
    // The worker owns the receiver of deliveries. Dropping the worker therefore stops the source.
    let work = async move {
        tokio::select! {
            () = worker.run() => {}
            _ = alive.recv() => {}
        }
    };
    tokio::join!(source.consume(sender, random), work);
}

impl BackendHandle for Asker {
    fn send(&self, request: BackendRequest) -> Result<(), Busy> {
        self.questions.try_send(request).map_err(|_| Busy)
    }
}

/// Capacity of the channel between the broker's connection and the worker.
pub(super) const HANDS: usize = 16;

//! The thread of h's back end, and the way to it.
//!
//! Owns: that the thread ends when nobody can ask any more, whatever it is waiting for.

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
use crate::model::{Ask, Asks, Busy, MonoMillis, UnixMillis};

use std::sync::Arc;

/// The way to the back end's thread; as many copies as wanted.
#[derive(Clone, Debug)]
pub struct Asker {
    questions: Sender<Ask>,
    /// By this it is known at once that the last copy is gone, whatever waits in `questions`.
    _alive: Sender<Infallible>,
}

/// What was asked and not answered yet.
#[derive(Debug)]
pub struct Questions {
    inbox: Receiver<Ask>,
    alive: Receiver<Infallible>,
}

/// A queue of questions: for those who ask, and for the back end that answers. [`Asks::ask`]
/// says [`Busy`] once [`QUEUE`] of them wait.
pub fn questions() -> (Asker, Questions) {
    let (questions, inbox) = channel(QUEUE);
    let (_alive, alive) = channel(1);
    (Asker { questions, _alive }, Questions { inbox, alive })
}

/// The current time.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// By the wall clock: for whether tokens hold.
    pub unix: fn() -> UnixMillis,
    /// By a clock that is never set: for when events arrive.
    pub mono: fn() -> MonoMillis,
}

/// Where events come from, and how many may wait here.
#[derive(Debug)]
pub struct Events {
    /// To be tried in turn.
    pub brokers: Vec<Broker>,
    /// The most bytes of an event.
    pub max_event: usize,
    /// How many may wait for the database.
    pub backlog: Limits,
}

/// Starts the thread, which asks `store` and hears of `events`. It ends when every copy of the
/// [`Asker`] is gone, or when nobody listens to `way` any more.
///
/// # Errors
/// When the system refuses a thread, or what an asynchronous runtime needs.
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
            // A name that is being resolved must not be waited for.
            runtime.shutdown_background();
        })
}

/// Works until nobody can ask any more or nobody listens; then says goodbye to the broker.
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
    // The receiver of deliveries goes with the worker, and by that the source is told to end.
    let work = async move {
        tokio::select! {
            () = worker.run() => {}
            _ = alive.recv() => {}
        }
    };
    tokio::join!(source.consume(sender, random), work);
}

impl Asks for Asker {
    fn ask(&self, question: Ask) -> Result<(), Busy> {
        self.questions.try_send(question).map_err(|_| Busy)
    }
}

/// How many events are between the broker's connection and the worker.
pub(super) const HANDS: usize = 16;

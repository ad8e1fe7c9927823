//! Backends, which know users, tokens, groups, and permissions.
//!
//! Owns: the thread of a backend, and the channel for requests to it. Must not know: sockets,
//! connections, or WebSockets. Its interface to the rest is [`crate::model`].

pub(crate) mod advice;
#[cfg(feature = "amqp")]
pub mod amqp;
mod data_check;
mod data_dir;
mod data_lock;
#[cfg(feature = "sqlite")]
pub mod embedded;
#[cfg(feature = "h")]
pub mod h;
mod json;
mod leftovers;
// Each backend produces a part of the facts.
#[cfg_attr(not(all(feature = "h", feature = "sqlite")), allow(dead_code))]
mod policy;
mod secret;
mod stats;

pub use data_check::check_data_dir;
pub use data_dir::{DataDir, DataDirError, FileMark};
pub use data_lock::{DirLock, Locking, Sharing};
pub use secret::new_secret;
pub use stats::{Fate, Link, Stats, Topic};

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::model::{BackendEvent, BackendHandle, BackendRequest, Busy, UnixMillis};

/// A source of answers and news.
pub trait Backend: Send + 'static {
    /// Collects the changes since the last turn, and answers `questions` from the state after them,
    /// so that news precede answers. Every request that expects an answer gets exactly one, even if
    /// the backend is unavailable.
    fn turn(&mut self, questions: Vec<BackendRequest>, now: UnixMillis) -> Vec<BackendEvent>;
}

/// The receiver of a backend's messages has been closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

/// The reason why a backend's message was not accepted.
#[derive(Debug)]
pub enum Undelivered {
    /// The mailbox is full. Returns the message.
    Full(BackendEvent),
    /// The receiver has been closed.
    Closed,
}

/// The sender of a backend's messages to the reactor.
pub trait Way: Send + 'static {
    /// Sends a message; waits while the mailbox is full.
    fn tell(&self, tell: BackendEvent) -> Result<(), Closed>;

    /// Sends a message, or returns it if the mailbox is full: for threads that must not block.
    fn try_tell(&self, tell: BackendEvent) -> Result<(), Undelivered>;
}

/// A handle to a backend's thread. It can be cloned.
#[derive(Clone, Debug)]
pub struct Asker {
    questions: SyncSender<BackendRequest>,
}

/// The queue of unanswered requests.
#[derive(Debug)]
pub struct Questions(Receiver<BackendRequest>);

#[cfg(all(test, feature = "amqp"))]
impl Questions {
    /// Returns the next request, if there is one.
    pub(crate) fn try_next(&self) -> Option<BackendRequest> {
        self.0.try_recv().ok()
    }
}

/// Creates a request queue: a handle for callers, and the receiving end for the backend.
/// [`BackendHandle::ask`] returns [`Busy`] while [`QUEUE`] requests are queued.
pub fn questions() -> (Asker, Questions) {
    let (questions, inbox) = sync_channel(QUEUE);
    (Asker { questions }, Questions(inbox))
}

/// Starts the thread of a backend. It ends when all clones of the [`Asker`] have been dropped, or
/// `way` returns [`Closed`].
///
/// # Errors
/// The system refuses a thread.
pub fn start<B, C, W>(
    mut backend: B,
    questions: Questions,
    clock: C,
    way: W,
) -> io::Result<JoinHandle<()>>
where
    B: Backend,
    C: Fn() -> UnixMillis + Send + 'static,
    W: Way,
{
    thread::Builder::new()
        .name("backend".to_owned())
        .spawn(move || {
            // The first turn has no requests, so that the backend reports its health at once.
            let mut batch = Some(Vec::new());
            while let Some(asked) = batch {
                for news in backend.turn(asked, clock()) {
                    if way.tell(news).is_err() {
                        return;
                    }
                }
                batch = next_batch(&questions.0);
            }
        })
}

/// Returns the requests for the next turn: an empty batch after [`POLL_PERIOD`] without requests,
/// and `None` once all handles have been dropped.
fn next_batch(inbox: &Receiver<BackendRequest>) -> Option<Vec<BackendRequest>> {
    match inbox.recv_timeout(POLL_PERIOD) {
        Ok(first) => {
            let mut batch = vec![first];
            batch.extend(inbox.try_iter().take(BATCH - 1));
            Some(batch)
        }
        Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

impl Asker {
    /// Like [`BackendHandle::ask`], but returns a request that was not accepted.
    ///
    /// # Errors
    /// The request, if the queue is full or the backend has ended.
    pub fn offer(&self, question: BackendRequest) -> Result<(), BackendRequest> {
        self.questions
            .try_send(question)
            .map_err(|error| match error {
                TrySendError::Full(question) | TrySendError::Disconnected(question) => question,
            })
    }
}

impl BackendHandle for Asker {
    fn send(&self, request: BackendRequest) -> Result<(), Busy> {
        self.offer(request).map_err(|_| Busy)
    }
}

/// The capacity of a backend's request queue.
pub const QUEUE: usize = 4096;
/// The maximum batch of requests. All requests of a reconnect storm in a batch are answered from
/// one view of the database.
const BATCH: usize = 256;
/// How often an idle backend checks for changes. Changes by commands must take effect within a
/// second.
const POLL_PERIOD: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::model::{AuthReply, RequestId, Secret};

    /// Answers every token with "unknown"; reports its health in the first turn.
    struct Echo {
        told: bool,
    }

    impl Backend for Echo {
        fn turn(&mut self, questions: Vec<BackendRequest>, _now: UnixMillis) -> Vec<BackendEvent> {
            let mut tells = Vec::new();
            if !self.told {
                self.told = true;
                tells.push(BackendEvent::Health { ready: true });
            }
            tells.extend(questions.into_iter().filter_map(|ask| match ask {
                BackendRequest::Authenticate { request_id, .. } => {
                    Some(BackendEvent::Authenticated {
                        request_id,
                        reply: AuthReply::Unknown,
                    })
                }
                BackendRequest::Publish { .. }
                | BackendRequest::QueueEvent { .. }
                | BackendRequest::Sweep { .. } => None,
            }));
            tells
        }
    }

    fn question(number: u64) -> BackendRequest {
        BackendRequest::Authenticate {
            request_id: RequestId(number),
            token: Secret("t".to_owned()),
        }
    }

    struct Told(Sender<BackendEvent>);

    impl Way for Told {
        fn tell(&self, tell: BackendEvent) -> Result<(), Closed> {
            self.0.send(tell).map_err(|_| Closed)
        }

        fn try_tell(&self, tell: BackendEvent) -> Result<(), Undelivered> {
            self.tell(tell).map_err(|Closed| Undelivered::Closed)
        }
    }

    /// Blocks every message, and returns an error when its other end is dropped.
    struct Stuck(std::sync::Mutex<Receiver<()>>);

    impl Way for Stuck {
        fn tell(&self, _: BackendEvent) -> Result<(), Closed> {
            let hold = self.0.lock().map_err(|_| Closed)?;
            hold.recv().map_err(|_| Closed)
        }

        fn try_tell(&self, tell: BackendEvent) -> Result<(), Undelivered> {
            Err(Undelivered::Full(tell))
        }
    }

    #[test]
    fn backend_reports_health_answers_in_order_and_ends_with_its_handles() {
        let (sender, told) = channel();
        let (asker, inbox) = questions();
        let thread = start(Echo { told: false }, inbox, || 0, Told(sender)).unwrap();
        assert!(matches!(
            told.recv(),
            Ok(BackendEvent::Health { ready: true })
        ));
        let other = asker.clone();
        for number in 0..10 {
            other.send(question(number)).unwrap();
        }
        for number in 0..10 {
            let Ok(BackendEvent::Authenticated { request_id, .. }) = told.recv() else {
                panic!("no answer");
            };
            assert_eq!(request_id, RequestId(number));
        }
        drop((asker, other));
        thread.join().unwrap();
    }

    #[test]
    fn full_queue_and_ended_backend_are_busy() {
        let (held, hold) = channel::<()>();
        let (asker, inbox) = questions();
        let thread = start(Echo { told: false }, inbox, || 0, Stuck(hold.into())).unwrap();
        // The thread is blocked sending its health, so the queue is not drained.
        let taken = (0..=QUEUE as u64)
            .take_while(|&number| asker.send(question(number)).is_ok())
            .count();
        assert_eq!(taken, QUEUE);
        drop(held);
        thread.join().unwrap();
        assert_eq!(asker.send(question(0)), Err(Busy));
    }
}

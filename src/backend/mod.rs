//! Backends, which know users, tokens, groups, and permissions.
//!
//! Owns: the thread of a backend, and the interfaces to it. Must not know: sockets,
//! connections, or WebSockets. Its interface to the rest is [`crate::model`].

pub(crate) mod advice;
#[cfg(feature = "amqp")]
pub mod amqp;
mod annotation_json;
mod data_check;
mod data_dir;
mod data_lock;
#[cfg(feature = "sqlite")]
pub mod embedded;
#[cfg(feature = "h")]
pub mod h;
mod json;
mod stale_drafts;
// Each backend produces a part of the facts.
#[cfg_attr(not(all(feature = "h", feature = "sqlite")), allow(dead_code))]
mod policy;
mod request_queue;
mod secret;
mod stats;
// Each backend uses a part.
#[cfg_attr(not(all(feature = "h", feature = "sqlite")), allow(dead_code))]
pub mod time;
// Each backend uses a part.
#[cfg_attr(not(all(feature = "h", feature = "sqlite")), allow(dead_code))]
mod userid;

pub use data_check::check_data_dir;
pub use data_dir::{DataDir, DataDirError, FileMark, create_private, sync_directory_of};
pub use data_lock::{DirLock, LockAttempt, LockMode};
pub use request_queue::{QUEUE_CAPACITY, RequestQueue, RequestSender, SenderWatch, request_queue};
pub use secret::new_secret;
pub use stats::{DropReason, Link, Stats, Topic};

use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::model::{BackendEvent, BackendRequest, UnixMillis};

/// Answers requests, and reports changes.
pub trait Backend: Send + 'static {
    /// Collects the changes since the last turn, and answers `requests` from the state after them,
    /// so that changes precede answers. Every request that expects an answer gets exactly one, even
    /// if the backend is unavailable.
    fn turn(&mut self, requests: Vec<BackendRequest>, now: UnixMillis) -> Vec<BackendEvent>;
}

/// The receiver of a backend's events has been closed.
#[derive(Debug, PartialEq, Eq)]
pub struct SinkClosed;

/// The reason why a backend's event was not accepted.
#[derive(Debug)]
pub enum SinkError {
    /// The mailbox is full. Returns the event.
    Full(BackendEvent),
    /// The receiver has been closed.
    Closed,
}

/// The destination of a backend's events: the reactor.
pub trait EventSink: Send + 'static {
    /// Sends an event. Blocks while the mailbox is full.
    fn send(&self, event: BackendEvent) -> Result<(), SinkClosed>;

    /// Sends an event, or returns it if the mailbox is full: for threads that must not block.
    fn try_send(&self, event: BackendEvent) -> Result<(), SinkError>;
}

/// Starts the thread of a backend. It ends when all clones of the [`RequestSender`] have been
/// dropped, or the receiver of `sink` has been closed.
///
/// # Errors
/// The system refuses a thread.
pub fn start<B, C, S>(
    mut backend: B,
    requests: RequestQueue,
    clock: C,
    sink: S,
) -> io::Result<JoinHandle<()>>
where
    B: Backend,
    C: Fn() -> UnixMillis + Send + 'static,
    S: EventSink,
{
    thread::Builder::new()
        .name("backend".to_owned())
        .spawn(move || {
            // The first turn has no requests, so that the backend reports its health at once.
            let mut batch = Some(Vec::new());
            while let Some(requested) = batch {
                for event in backend.turn(requested, clock()) {
                    if sink.send(event).is_err() {
                        return;
                    }
                }
                batch = next_batch(&requests);
            }
        })
}

/// Returns the requests for the next turn: an empty batch after [`POLL_PERIOD`] without requests,
/// and `None` once all senders have been dropped.
fn next_batch(requests: &RequestQueue) -> Option<Vec<BackendRequest>> {
    match requests.recv_timeout(POLL_PERIOD) {
        Ok(first) => {
            let mut batch = vec![first];
            let further = std::iter::from_fn(|| requests.try_recv().ok());
            batch.extend(further.take(BATCH - 1));
            Some(batch)
        }
        Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// The maximum batch of requests. All requests of a reconnect storm in a batch are answered from
/// one view of the database.
const BATCH: usize = 256;
/// How often an idle backend checks for changes. Changes by commands must take effect within a
/// second.
const POLL_PERIOD: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::model::{AuthReply, BackendHandle, Busy, RequestId, Secret};

    /// Answers every token with "unknown"; reports its health in the first turn.
    struct Echo {
        has_reported: bool,
    }

    impl Backend for Echo {
        fn turn(&mut self, requests: Vec<BackendRequest>, _now: UnixMillis) -> Vec<BackendEvent> {
            let mut events = Vec::new();
            if !self.has_reported {
                self.has_reported = true;
                events.push(BackendEvent::Health { ready: true });
            }
            events.extend(requests.into_iter().filter_map(|request| match request {
                BackendRequest::Authenticate { request_id, .. } => {
                    Some(BackendEvent::Authenticated {
                        request_id,
                        reply: AuthReply::Unknown,
                    })
                }
                BackendRequest::Publish { .. }
                | BackendRequest::QueueEvent { .. }
                | BackendRequest::LookUp { .. }
                | BackendRequest::Sweep { .. } => None,
            }));
            events
        }
    }

    fn request(number: u64) -> BackendRequest {
        BackendRequest::Authenticate {
            request_id: RequestId(number),
            token: Secret("t".to_owned()),
        }
    }

    struct ChannelSink(Sender<BackendEvent>);

    impl EventSink for ChannelSink {
        fn send(&self, event: BackendEvent) -> Result<(), SinkClosed> {
            self.0.send(event).map_err(|_| SinkClosed)
        }

        fn try_send(&self, event: BackendEvent) -> Result<(), SinkError> {
            self.send(event).map_err(|SinkClosed| SinkError::Closed)
        }
    }

    /// Blocks every event, and returns an error when its other end is dropped.
    struct BlockedSink(std::sync::Mutex<Receiver<()>>);

    impl EventSink for BlockedSink {
        fn send(&self, _: BackendEvent) -> Result<(), SinkClosed> {
            let blocked = self.0.lock().map_err(|_| SinkClosed)?;
            blocked.recv().map_err(|_| SinkClosed)
        }

        fn try_send(&self, event: BackendEvent) -> Result<(), SinkError> {
            Err(SinkError::Full(event))
        }
    }

    #[test]
    fn backend_reports_health_answers_in_order_and_ends_with_its_handles() {
        let (sink, events) = channel();
        let (sender, requests) = request_queue();
        let echo = Echo {
            has_reported: false,
        };
        let thread = start(echo, requests, || 0, ChannelSink(sink)).unwrap();
        let health = events.recv();
        assert!(matches!(health, Ok(BackendEvent::Health { ready: true })));
        let other = sender.clone();
        for number in 0..10 {
            other.send(request(number)).unwrap();
        }
        for number in 0..10 {
            let Ok(BackendEvent::Authenticated { request_id, .. }) = events.recv() else {
                panic!("no answer");
            };
            assert_eq!(request_id, RequestId(number));
        }
        drop((sender, other));
        thread.join().unwrap();
    }

    #[test]
    fn full_queue_and_ended_backend_are_busy() {
        let (unblock, blocked) = channel::<()>();
        let (sender, requests) = request_queue();
        let echo = Echo {
            has_reported: false,
        };
        let thread = start(echo, requests, || 0, BlockedSink(blocked.into())).unwrap();
        // The thread is blocked sending its health, so the queue is not drained.
        let accepted = (0..=QUEUE_CAPACITY as u64)
            .take_while(|&number| sender.send(request(number)).is_ok())
            .count();
        assert_eq!(accepted, QUEUE_CAPACITY);
        drop(unblock);
        thread.join().unwrap();
        assert_eq!(sender.send(request(0)), Err(Busy));
    }
}

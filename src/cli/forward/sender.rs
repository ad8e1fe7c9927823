//! The threads that make requests, so that the stream is read meanwhile.
//!
//! Owns: the threads, and the descriptor that wakes the main thread when a request has ended. Must
//! not know which request comes next.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver as Results, RecvTimeoutError, Sender as ResultSender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::kept::KEPT_FOR;
use super::post::{PostHead, PostResult, Receiver, post};
use crate::exit::{Exit, thread_failed};

/// A request to be made.
pub(super) struct Job {
    /// The annotation ids and versions of its events.
    pub events: Vec<(String, String)>,
    pub head: PostHead,
    pub body: Vec<u8>,
}

/// A request that has ended.
pub(super) struct Completed {
    pub events: Vec<(String, String)>,
    pub result: PostResult,
    pub lasted: Duration,
}

/// The threads.
pub(super) struct Senders {
    jobs: ResultSender<Job>,
    completed: Results<Completed>,
    wake: UnixStream,
}

impl Senders {
    /// Starts `count` threads.
    pub(super) fn start(receiver: Receiver, count: usize) -> Result<Self, Exit> {
        let (jobs, waiting) = channel::<Job>();
        let (results, completed) = channel();
        let (wake, waker) = UnixStream::pair().map_err(thread_failed)?;
        wake.set_nonblocking(true).map_err(thread_failed)?;
        waker.set_nonblocking(true).map_err(thread_failed)?;
        let (receiver, waiting) = (Arc::new(receiver), Arc::new(Mutex::new(waiting)));
        for number in 0..count {
            let (receiver, waiting, results) =
                (Arc::clone(&receiver), Arc::clone(&waiting), results.clone());
            let waker = waker.try_clone().map_err(thread_failed)?;
            let thread = thread::Builder::new().name(format!("sender-{number}"));
            let spawned = thread.spawn(move || send_all(&receiver, &waiting, &results, &waker));
            spawned.map_err(thread_failed)?;
        }
        Ok(Senders {
            jobs,
            completed,
            wake,
        })
    }

    /// Makes a request on the next free thread.
    pub(super) fn send(&self, job: Job) -> Result<(), Exit> {
        let ended = |_| Exit::new(Exit::OS, "the threads that make requests have ended");
        self.jobs.send(job).map_err(ended)
    }

    /// Returns the next request that has ended.
    pub(super) fn next_completed(&mut self) -> Option<Completed> {
        // The byte is removed first: a result that arrives in between has a byte of its own.
        let _ = self.wake.read(&mut [0; 64]);
        self.completed.try_recv().ok()
    }

    /// Returns a descriptor that becomes readable when a request has ended.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn send_all(
    receiver: &Receiver,
    waiting: &Mutex<Results<Job>>,
    results: &ResultSender<Completed>,
    mut waker: &UnixStream,
) {
    loop {
        // The others wait for the lock.
        let next = match waiting.lock() {
            Ok(waiting) => waiting.recv_timeout(KEPT_FOR),
            Err(_) => return,
        };
        let Job { events, head, body } = match next {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                receiver.kept.close_old(Instant::now());
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let start = Instant::now();
        let result = post(receiver, &head, &body);
        receiver.kept.close_old(Instant::now());
        let lasted = start.elapsed();
        let completed = Completed {
            events,
            result,
            lasted,
        };
        if results.send(completed).is_err() {
            return;
        }
        // A full buffer wakes the main thread as well.
        let woken: io::Result<usize> = waker.write(&[0]);
        let _ = woken;
    }
}

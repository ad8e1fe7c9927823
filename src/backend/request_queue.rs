//! The queue of requests to a backend.
//!
//! Owns: the queue's capacity, and waking the backend. Its receiving end serves a backend with a
//! blocking thread as well as one with an asynchronous runtime, and depends on neither. Senders
//! never block: the reactor is one of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::model::{BackendHandle, BackendRequest, Busy};

/// The sending end. The queue ends when all clones have been dropped.
#[derive(Debug)]
pub struct RequestSender(Arc<Shared>);

/// The receiving end. Dropping it drops the queued requests and closes the queue.
#[derive(Debug)]
pub struct RequestQueue(Arc<Shared>);

/// Reports the end of the queue while the [`RequestQueue`] itself is in use elsewhere.
#[derive(Debug)]
pub struct SenderWatch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signals a change to a blocked receiver.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<BackendRequest>,
    senders: usize,
    /// The receiving end has been dropped.
    is_closed: bool,
    receiver: Option<Waker>,
    watch: Option<Waker>,
}

/// Creates a queue of at most [`QUEUE_CAPACITY`] requests.
pub fn request_queue() -> (RequestSender, RequestQueue) {
    let shared = Arc::new(Shared::default());
    shared.lock().senders = 1;
    (
        RequestSender(Arc::clone(&shared)),
        RequestQueue(Arc::clone(&shared)),
    )
}

impl RequestSender {
    /// Appends a request.
    ///
    /// # Errors
    /// The request, if the queue is full or closed.
    pub fn try_send(&self, request: BackendRequest) -> Result<(), BackendRequest> {
        let mut state = self.0.lock();
        if state.is_closed || state.requests.len() >= QUEUE_CAPACITY {
            return Err(request);
        }
        state.requests.push_back(request);
        let receiver = state.receiver.take();
        drop(state);
        self.0.changed.notify_one();
        wake(receiver);
        Ok(())
    }
}

impl BackendHandle for RequestSender {
    fn send(&self, request: BackendRequest) -> Result<(), Busy> {
        self.try_send(request).map_err(|_| Busy)
    }
}

impl Clone for RequestSender {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        RequestSender(Arc::clone(&self.0))
    }
}

impl Drop for RequestSender {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders > 0 {
            return;
        }
        let (receiver, watch) = (state.receiver.take(), state.watch.take());
        drop(state);
        self.0.changed.notify_one();
        wake(receiver);
        wake(watch);
    }
}

impl RequestQueue {
    /// Removes the next request without waiting.
    ///
    /// # Errors
    /// [`TryRecvError::Disconnected`] if the queue is empty and all senders have been dropped.
    pub fn try_recv(&self) -> Result<BackendRequest, TryRecvError> {
        self.0.lock().pop()
    }

    /// Removes the next request. Blocks while the queue is empty, for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Disconnected`] if the queue is empty and all senders have been dropped.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<BackendRequest, RecvTimeoutError> {
        let is_idle = |state: &mut State| state.requests.is_empty() && state.senders > 0;
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.0.lock(), timeout, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.pop().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// Removes the next request, and waits while the queue is empty. Returns `None` if it is empty
    /// and all senders have been dropped. Dropping the future loses no request.
    pub async fn recv(&self) -> Option<BackendRequest> {
        poll_fn(|context| {
            let mut state = self.0.lock();
            match state.pop() {
                Ok(request) => Poll::Ready(Some(request)),
                Err(TryRecvError::Disconnected) => Poll::Ready(None),
                Err(TryRecvError::Empty) => {
                    state.receiver = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Returns a watch for the end of the queue. There is one at a time.
    pub fn sender_watch(&self) -> SenderWatch {
        SenderWatch(Arc::clone(&self.0))
    }
}

impl Drop for RequestQueue {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let unanswered = std::mem::take(&mut state.requests);
        drop(state);
        // Dropping a request may acknowledge an event, which must not happen under the lock.
        drop(unanswered);
    }
}

impl SenderWatch {
    /// Waits until all senders have been dropped, even if requests are still queued.
    pub async fn all_dropped(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.senders == 0 {
                return Poll::Ready(());
            }
            state.watch = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) -> Result<BackendRequest, TryRecvError> {
        self.requests.pop_front().ok_or(match self.senders {
            0 => TryRecvError::Disconnected,
            _ => TryRecvError::Empty,
        })
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The capacity of a request queue.
pub const QUEUE_CAPACITY: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::thread;

    use super::*;
    use crate::model::{AckGuard, MonoMillis, RequestId};

    fn request(number: u64) -> BackendRequest {
        BackendRequest::Publish {
            request_id: RequestId(number),
            body: Vec::new(),
            claim: crate::model::PublishClaim::default(),
        }
    }

    fn number(request: &BackendRequest) -> u64 {
        match request {
            BackendRequest::Publish { request_id, .. } => request_id.0,
            other => panic!("{other:?}"),
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Wakes {
        fn poll<F: Future>(
            self: &Arc<Self>,
            future: &mut std::pin::Pin<Box<F>>,
        ) -> Poll<F::Output> {
            let waker = Arc::clone(self).into();
            future.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn requests_arrive_in_order_and_before_the_end() {
        let (sender, queue) = request_queue();
        assert_eq!(queue.try_recv().unwrap_err(), TryRecvError::Empty);
        for at in 0..3 {
            sender.clone().try_send(request(at)).unwrap();
        }
        drop(sender);
        for at in 0..3 {
            assert_eq!(number(&queue.try_recv().unwrap()), at);
        }
        let timeout = queue.recv_timeout(Duration::from_secs(60)).unwrap_err();
        assert_eq!(timeout, RecvTimeoutError::Disconnected);
        assert_eq!(queue.try_recv().unwrap_err(), TryRecvError::Disconnected);
    }

    #[test]
    fn full_or_closed_queue_is_busy_and_returns_the_request() {
        let (sender, queue) = request_queue();
        for at in 0..QUEUE_CAPACITY as u64 {
            sender.send(request(at)).unwrap();
        }
        assert_eq!(sender.send(request(1)), Err(Busy));
        assert_eq!(number(&sender.try_send(request(7)).unwrap_err()), 7);
        queue.try_recv().unwrap();
        sender.send(request(1)).unwrap();
        drop(queue);
        assert_eq!(sender.send(request(1)), Err(Busy));
    }

    #[test]
    fn dropping_the_queue_drops_its_requests() {
        let (sender, queue) = request_queue();
        let dropped = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&dropped);
        let event = BackendRequest::QueueEvent {
            body: Vec::new(),
            received: MonoMillis(0),
            ack: AckGuard::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        };
        sender.try_send(event).unwrap();
        drop(queue);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn blocked_receiver_is_woken_by_requests_and_by_the_end() {
        let (sender, queue) = request_queue();
        let timeout = queue.recv_timeout(Duration::from_millis(1)).unwrap_err();
        assert_eq!(timeout, RecvTimeoutError::Timeout);
        let receiver = thread::spawn(move || {
            let mut received = Vec::new();
            while let Ok(request) = queue.recv_timeout(Duration::from_secs(600)) {
                received.push(number(&request));
            }
            received
        });
        for at in 0..100 {
            sender.try_send(request(at)).unwrap();
            thread::yield_now();
        }
        drop(sender);
        assert_eq!(receiver.join().unwrap(), Vec::from_iter(0..100));
    }

    #[test]
    fn asynchronous_receiver_is_woken_by_requests_and_by_the_end() {
        let (sender, queue) = request_queue();
        let wakes = Arc::new(Wakes::default());
        let mut first = Box::pin(queue.recv());
        assert!(wakes.poll(&mut first).is_pending());
        sender.try_send(request(5)).unwrap();
        assert_eq!(wakes.count(), 1);
        // The request stays in the queue if the future is dropped.
        drop(first);
        let Poll::Ready(Some(received)) = wakes.poll(&mut Box::pin(queue.recv())) else {
            panic!("lost");
        };
        assert_eq!(number(&received), 5);
        let mut last = Box::pin(queue.recv());
        assert!(wakes.poll(&mut last).is_pending());
        drop(sender);
        assert_eq!(wakes.count(), 2);
        assert!(matches!(wakes.poll(&mut last), Poll::Ready(None)));
    }

    #[test]
    fn watch_reports_the_last_drop_while_requests_are_queued() {
        let (sender, queue) = request_queue();
        let wakes = Arc::new(Wakes::default());
        let watch = queue.sender_watch();
        let mut dropped = Box::pin(watch.all_dropped());
        let other = sender.clone();
        sender.try_send(request(1)).unwrap();
        drop(sender);
        assert!(wakes.poll(&mut dropped).is_pending());
        drop(other);
        assert_eq!(wakes.count(), 1);
        assert!(wakes.poll(&mut dropped).is_ready());
        assert!(queue.try_recv().is_ok());
    }
}

//! The thread that writes the log of clients.
//!
//! Owns: the queue to the thread, and the recovery from failed and slow writes. The reactor never
//! waits for the disk: records beyond [`MAX_QUEUED`] bytes are dropped. Since no record may be
//! omitted between others, all further ones are dropped as well, until the reactor replaces the log.

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::describe;
use super::files::{OpenedLog, OwnFile};
use super::others::{OtherClients, OtherLogs};
use crate::realtime::{CLIENT_RECORD_BYTES, ClientLog, Cursor, Digest};

/// The reactor's end of the queue.
pub(super) struct QueuedLog {
    queue: Sender<Item>,
    state: Arc<QueueState>,
    /// The length of the log with all queued records.
    length: u64,
    /// The length of the log when it was replaced.
    compact: u64,
    /// Records have been dropped since then.
    is_behind: bool,
    path: PathBuf,
    others: Option<OtherClients>,
}

/// The thread that writes.
pub(crate) struct WriterThread(JoinHandle<()>);

/// An operation on the log.
pub(super) enum Item {
    /// Append the records in the shared buffer.
    Append,
    /// Replace the log.
    Replace(Vec<u8>),
}

/// The state that both ends of the queue share.
struct QueueState {
    /// Bytes in the queue, including those being written.
    queued: AtomicUsize,
    /// Records to append. One buffer for all, since memory that one thread allocates and another one
    /// frees for each record is returned late.
    records: Mutex<Vec<u8>>,
    /// Set by the thread when a write fails, and cleared by the reactor when it replaces the log.
    has_failed: AtomicBool,
    /// The thread is ready to write again after a failure.
    may_retry: AtomicBool,
    /// Records that were dropped.
    dropped: Arc<AtomicU64>,
}

/// Starts the thread.
///
/// # Errors
/// The system cannot create the thread.
pub(super) fn start(
    opened: OpenedLog,
    dropped: Arc<AtomicU64>,
) -> io::Result<(QueuedLog, WriterThread)> {
    let (log, writer, items) = QueuedLog::with_writer(opened, dropped);
    let thread = thread::Builder::new().name("clients".into());
    let thread = thread.spawn(move || writer.run(&items))?;
    Ok((log, WriterThread(thread)))
}

impl ClientLog for QueuedLog {
    fn append(&mut self, records: &[u8]) {
        let has_failed = self.state.has_failed.load(Ordering::Acquire);
        let queued = self.state.queued.load(Ordering::Acquire);
        let is_full = queued + records.len() > MAX_QUEUED || self.is_overlong();
        if !self.is_behind && !has_failed && is_full {
            log::warn!(
                "{}: dropping records of clients because the disk is too slow; the log is rewritten \
                 when it keeps up again",
                self.path.display()
            );
            self.is_behind = true;
        }
        if self.is_behind || has_failed {
            self.is_behind = true;
            self.state.count_dropped(records);
            return;
        }
        self.length += records.len() as u64;
        let mut buffer = self.state.lock_records();
        let was_empty = buffer.is_empty();
        buffer.extend_from_slice(records);
        self.state.queued.fetch_add(records.len(), Ordering::AcqRel);
        drop(buffer);
        // Otherwise the thread has been notified, and has not taken the buffer yet.
        if was_empty {
            self.send(Item::Append);
        }
    }

    fn wants_rewrite(&self) -> bool {
        let is_behind = self.is_behind || self.state.has_failed.load(Ordering::Acquire);
        let is_long = self.length > self.rewrite_length();
        let is_idle = || {
            self.state.queued.load(Ordering::Acquire) == 0
                && self.state.may_retry.load(Ordering::Acquire)
        };
        (is_behind || is_long) && is_idle()
    }

    fn replace(&mut self, log: Vec<u8>) {
        self.is_behind = false;
        self.length = log.len() as u64;
        self.compact = self.length;
        // The queue is empty, so the thread sets this again only if it fails to write this log.
        self.state.has_failed.store(false, Ordering::Release);
        self.state.queued.fetch_add(log.len(), Ordering::AcqRel);
        self.send(Item::Replace(log));
    }

    fn position_elsewhere(&self, client: Digest) -> Option<Cursor> {
        self.others.as_ref()?.position(client)
    }
}

impl QueuedLog {
    /// Returns the length from which the log is rewritten when the queue is empty.
    fn rewrite_length(&self) -> u64 {
        MIN_REWRITE.max(GROWTH * self.compact)
    }

    /// Returns whether the queue has not been empty for so long that the log would grow without bound.
    fn is_overlong(&self) -> bool {
        self.length > self.rewrite_length() / 2 * 3
    }

    /// Creates both ends of the queue. A log that could not be written must be replaced first.
    pub(super) fn with_writer(
        opened: OpenedLog,
        dropped: Arc<AtomicU64>,
    ) -> (QueuedLog, Writer, Receiver<Item>) {
        let OpenedLog {
            file,
            length,
            others,
            ..
        } = opened;
        let has_failed = length.is_none();
        let length = length.unwrap_or_default();
        let state = Arc::new(QueueState {
            queued: AtomicUsize::new(0),
            records: Mutex::default(),
            has_failed: AtomicBool::new(has_failed),
            may_retry: AtomicBool::new(!has_failed),
            dropped,
        });
        let (queue, items) = channel();
        let log = QueuedLog {
            queue,
            state: Arc::clone(&state),
            length,
            compact: length,
            is_behind: false,
            path: file.path().to_owned(),
            others: others.as_ref().map(OtherLogs::clients),
        };
        let now = Instant::now();
        let writer = Writer {
            file,
            state,
            spare: Vec::new(),
            has_failed,
            retry_at: now + RETRY,
            others,
            poll_at: now,
        };
        (log, writer, items)
    }

    fn send(&mut self, item: Item) {
        if self.queue.send(item).is_err() {
            // The thread has panicked, and nothing can be written any more.
            self.is_behind = true;
        }
    }
}

impl QueueState {
    fn lock_records(&self) -> MutexGuard<'_, Vec<u8>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_dropped(&self, records: &[u8]) {
        let count = records.len() / CLIENT_RECORD_BYTES;
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl WriterThread {
    /// Waits until everything has been written. The log must have been dropped.
    pub(crate) fn finish(self) {
        let _ = self.0.join();
    }
}

/// The thread's end of the queue.
pub(super) struct Writer {
    file: OwnFile,
    state: Arc<QueueState>,
    /// The buffer that the reactor fills next.
    spare: Vec<u8>,
    /// The last write has failed. Unlike the shared flag, this one is cleared when the log has been
    /// replaced.
    has_failed: bool,
    /// When the reactor may replace the log after a failure.
    retry_at: Instant,
    others: Option<OtherLogs>,
    /// When to read the other logs next.
    poll_at: Instant,
}

impl Writer {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(self.on_time(Instant::now())) {
                Ok(item) => self.write(item),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(error) = self.file.sync() {
            self.fail(&error);
        }
    }

    /// Does the work that is due, and returns the time until the next.
    pub(super) fn on_time(&mut self, now: Instant) -> Duration {
        let mut pause = Duration::MAX;
        if let Some(others) = &mut self.others {
            if now >= self.poll_at {
                others.poll();
                self.poll_at = now + POLL;
            }
            pause = self.poll_at.saturating_duration_since(now);
        }
        if self.has_failed && now >= self.retry_at {
            self.state.may_retry.store(true, Ordering::Release);
        } else if self.has_failed {
            pause = pause.min(self.retry_at.saturating_duration_since(now));
        }
        pause
    }

    pub(super) fn write(&mut self, item: Item) {
        let bytes = match item {
            Item::Append => {
                let mut records = mem::take(&mut self.spare);
                mem::swap(&mut records, &mut *self.state.lock_records());
                match self.has_failed {
                    true => self.state.count_dropped(&records),
                    false => {
                        if let Err(error) = self.file.append(&records) {
                            self.state.count_dropped(&records);
                            self.fail(&error);
                        }
                    }
                }
                let bytes = records.len();
                records.clear();
                records.shrink_to(KEPT_BUFFER);
                self.spare = records;
                bytes
            }
            Item::Replace(log) => {
                match self.file.replace(&log) {
                    Ok(()) if self.has_failed => {
                        self.has_failed = false;
                        let path = self.file.path().display();
                        log::info!("{path}: recovered: the log of clients is complete again");
                    }
                    Ok(()) => {}
                    Err(error) => self.fail(&error),
                }
                log.len()
            }
        };
        self.state.queued.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn fail(&mut self, error: &io::Error) {
        if !self.has_failed {
            log::warn!(
                "{}; retrying every {} s: until then, a crash causes clients without cursors to be \
                 sent events again",
                describe(self.file.path(), error),
                RETRY.as_secs()
            );
        }
        self.has_failed = true;
        self.retry_at = Instant::now() + RETRY;
        self.state.may_retry.store(false, Ordering::Release);
        self.state.has_failed.store(true, Ordering::Release);
    }
}

/// The capacity of the buffers that is kept, in bytes.
const KEPT_BUFFER: usize = 4 << 10;
/// The maximum number of bytes in the queue, besides one whole log.
pub(super) const MAX_QUEUED: usize = 4 << 20;
/// The length of a log from which on it is replaced...
pub(super) const MIN_REWRITE: u64 = 4 << 20;
/// ...if it has grown by this factor.
const GROWTH: u64 = 4;
/// The interval between attempts to write after a failure.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// The interval between readings of other servers' logs.
const POLL: Duration = Duration::from_millis(200);

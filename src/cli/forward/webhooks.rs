//! Sends the events of a stream to a receiver: joins the queue, the threads that make requests, the
//! state file, and the metrics.
//!
//! Owns: the moments of sending. A request is made only while the connection to the server is open
//! and has shown a sign of life within [`FRESH`], so that the retraction of an annotation arrives
//! before its text is sent.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use serde_json::value::RawValue;

use super::event::{ForwardEvent, NotForwarded};
use super::format::{ForwardFormat, render};
use super::metrics::ForwardMetrics;
use super::post::{PostFailure, PostHead, PostResult};
use super::queue::{Arrival, LostEvent, Outcome, Queue};
use super::sender::{Completed, Job, Senders};
use super::signature::Secrets;
use super::state_file::ForwardState;
use super::version::VersionMemory;
use crate::cli::listen::{EventConsumer, is_acceptable, random};
use crate::cli::sanitize::printable;
use crate::exit::{Exit, of_io};
use crate::model::unix_now;

/// The settings of the requests.
pub(super) struct RequestSettings {
    pub format: ForwardFormat,
    /// Requests have arrays of events.
    pub is_batch: bool,
    pub secrets: Option<Secrets>,
    /// The receiver's name in messages.
    pub receiver: String,
    /// The file for events that are given up.
    pub dead_letter: Option<PathBuf>,
}

/// The consumer of the stream.
pub(super) struct Webhooks {
    settings: RequestSettings,
    queue: Queue,
    versions: VersionMemory,
    senders: Senders,
    state: ForwardState,
    metrics: Arc<ForwardMetrics>,
    /// Whether the filter is in place.
    is_connected: bool,
    /// When the connection was made.
    connected_at: Option<Instant>,
    /// When everything that the server had sent was last read.
    heard_at: Instant,
    pinged_at: Option<Instant>,
    /// Whether the receiver's failure has been reported.
    is_failure_reported: bool,
    is_overflow_reported: bool,
}

impl Webhooks {
    pub(super) fn new(
        settings: RequestSettings,
        (queue, versions): (Queue, VersionMemory),
        senders: Senders,
        state: ForwardState,
        metrics: Arc<ForwardMetrics>,
    ) -> Self {
        Webhooks {
            settings,
            queue,
            versions,
            senders,
            state,
            metrics,
            is_connected: false,
            connected_at: None,
            heard_at: Instant::now(),
            pinged_at: None,
            is_failure_reported: false,
            is_overflow_reported: false,
        }
    }

    /// Waits for the requests in progress, and stores their results.
    pub(super) fn finish(&mut self) -> Result<(), Exit> {
        let deadline = Instant::now() + FINISH_TIMEOUT;
        loop {
            self.handle_results()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if self.queue.requests() == 0 || left.is_zero() {
                return self.save();
            }
            self.poll_results(left);
        }
    }

    /// Handles the requests that have ended.
    fn handle_results(&mut self) -> Result<(), Exit> {
        while let Some(completed) = self.senders.next_completed() {
            self.on_completed(completed)?;
        }
        self.save()
    }

    fn on_completed(&mut self, completed: Completed) -> Result<(), Exit> {
        let events = &completed.events;
        let times = (Instant::now(), unix_now());
        match completed.result {
            PostResult::Delivered => {
                self.metrics.delivered(events.len());
                self.queue.on_result(events, Outcome::Delivered, times, 0);
                if self.is_failure_reported && !self.queue.is_circuit_open() {
                    self.is_failure_reported = false;
                    let name = self.settings.receiver.clone();
                    self.status(format_args!("{name}: requests succeed again"));
                }
                Ok(())
            }
            PostResult::Gone => {
                self.queue.on_gone(events);
                self.save()?;
                let (name, path) = (&self.settings.receiver, self.state.path().display());
                let message = format!(
                    "{name} responded with 410 Gone, and gets no further requests; {path} keeps \
                     the position"
                );
                Err(Exit::new(Exit::GONE, message))
            }
            PostResult::Failed(failure) => {
                self.metrics.failed(failure.cause);
                self.report(&failure, completed.lasted);
                let outcome = Outcome::Failed {
                    scope: failure.cause.scope(),
                    after: failure.after,
                };
                let lost = self.queue.on_result(events, outcome, times, random()?);
                for lost in lost {
                    self.on_lost(&lost, &failure.reason)?;
                }
                Ok(())
            }
        }
    }

    /// Reports the first failure in a row.
    fn report(&mut self, failure: &PostFailure, lasted: Duration) {
        if self.is_failure_reported && self.queue.is_circuit_open() {
            return;
        }
        self.is_failure_reported = true;
        let name = self.settings.receiver.clone();
        let seconds = lasted.as_secs_f64();
        let reason = &failure.reason;
        self.status(format_args!(
            "{name}: request failed after {seconds:.1} s: {reason}; it will be repeated"
        ));
    }

    /// Reports an event that is given up.
    fn on_lost(&mut self, lost: &LostEvent, reason: &str) -> Result<(), Exit> {
        self.metrics.lost(1);
        let (event, attempts) = (&lost.event, lost.attempts);
        let (id, action) = (printable(&event.id), event.action.name());
        self.status(format_args!(
            "lost: gave up the {action} of annotation {id} after {attempts} attempts: {reason}"
        ));
        let Some(path) = &self.settings.dead_letter else {
            return Ok(());
        };
        append(path, lost, reason).map_err(|error| {
            let message = format!("{}: cannot store a lost event: {error}", path.display());
            Exit::new(of_io(error.kind()), message)
        })
    }

    /// Starts the requests that are due.
    fn send_due(&mut self, now: Instant) -> Result<(), Exit> {
        while self.is_connected && self.is_fresh(now) {
            let events = self.queue.next_request(now);
            if events.is_empty() {
                return Ok(());
            }
            self.senders.send(self.job(&events)?)?;
        }
        Ok(())
    }

    fn job(&self, events: &[ForwardEvent]) -> Result<Job, Exit> {
        let rendered = render(self.settings.format, events, self.settings.is_batch)?;
        let timestamp = unix_now() / 1000;
        let secrets = self.settings.secrets.as_ref();
        let signature =
            secrets.map(|secrets| secrets.sign(&rendered.id, timestamp, &rendered.body));
        let events = events.iter();
        let events = events.map(|event| (event.id.clone(), event.version.clone()));
        Ok(Job {
            events: events.collect(),
            head: PostHead {
                id: rendered.id,
                timestamp,
                signature,
            },
            body: rendered.body,
        })
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) <= FRESH
    }

    /// Stores changes of the queue.
    fn save(&mut self) -> Result<(), Exit> {
        let pending = self.queue.pending();
        let is_circuit_open = self.queue.is_circuit_open();
        self.metrics
            .queue(pending, self.queue.failing(), is_circuit_open);
        let Some(changes) = self.queue.take_changes() else {
            return Ok(());
        };
        if changes.position.is_some() {
            self.metrics.position_moved();
        }
        self.state.save(&changes, || self.queue.snapshot())
    }

    /// Waits until a request has ended.
    fn poll_results(&self, timeout: Duration) {
        let mut fds = [PollFd::from_borrowed_fd(self.senders.wake(), PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(timeout).ok().as_ref());
    }
}

impl EventConsumer for Webhooks {
    fn event(&mut self, line: &str, cursor: Option<&str>) -> Result<bool, Exit> {
        // Positions that cannot be stored or sent are none.
        let Some(cursor) = cursor.filter(|cursor| is_acceptable(cursor)) else {
            let message = "the server sends events without cursors: without a history, events \
                           would be lost; h-realtime is required";
            return Err(Exit::new(Exit::UNAVAILABLE, message));
        };
        match ForwardEvent::parse(line, cursor, unix_now()) {
            Ok(mut event) => {
                self.metrics.received(event.action);
                self.versions.distinguish(&mut event);
                match self.queue.on_event(event, Instant::now()) {
                    Arrival::Replaced => self.metrics.replaced(),
                    Arrival::Queued | Arrival::Known | Arrival::Overflow => {}
                }
            }
            Err(NotForwarded::OtherType) => self.queue.on_mark(cursor),
            Err(NotForwarded::Invalid) => {
                self.status("ignored a notification that is not about one annotation");
                self.queue.on_mark(cursor);
            }
        }
        Ok(true)
    }

    fn status(&mut self, line: impl fmt::Display) {
        // A closed standard error does not end the command.
        let _ = writeln!(io::stderr(), "{line}");
    }

    fn wait(&mut self, delay: Duration) -> Result<bool, Exit> {
        let end = Instant::now() + delay;
        loop {
            self.handle_results()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            self.poll_results(left);
        }
    }

    fn mark(&mut self, cursor: &str) {
        if is_acceptable(cursor) {
            self.queue.on_mark(cursor);
        }
    }

    fn connected(&mut self, identity: &str) {
        self.is_connected = true;
        self.connected_at = Some(Instant::now());
        self.metrics.connected(true);
        self.status(identity);
    }

    fn disconnected(&mut self) {
        self.is_connected = false;
        self.connected_at = None;
        self.metrics.connected(false);
        self.queue.disconnected();
    }

    fn gap(&mut self, oldest: Option<&str>) -> Option<String> {
        self.metrics.gap();
        let oldest = oldest.filter(|oldest| is_acceptable(oldest))?;
        let from = self.queue.position();
        let from = printable(from.as_deref().unwrap_or("the start"));
        self.status(format_args!(
            "gap: the server no longer has all events after {from}; continuing with the oldest \
             that it has"
        ));
        self.queue.restart_at(oldest);
        Some("resuming after a gap".to_owned())
    }

    fn position(&self) -> Option<String> {
        self.queue.position()
    }

    fn turn(&mut self, is_current: bool, now: Instant) -> Result<Option<String>, Exit> {
        if is_current {
            self.heard_at = now;
        }
        self.handle_results()?;
        self.send_due(now)?;
        if let Some(at) = self.connected_at
            && now.saturating_duration_since(at) >= SETTLED
        {
            self.queue.forget_earlier();
        }
        if self.queue.is_overflowing() && !self.is_overflow_reported {
            self.is_overflow_reported = true;
            self.status(
                "too many pending events: later ones stay in the server's history until the \
                 receiver has acknowledged some",
            );
        }
        if self.queue.wants_restart() {
            self.is_overflow_reported = false;
            return Ok(Some("receiving the events that had no room".to_owned()));
        }
        Ok(None)
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let due = self.queue.next_due(now)?;
        let due = due.saturating_duration_since(now);
        let is_waiting = due.is_zero() && (!self.is_connected || !self.is_fresh(now));
        // Until the server responds.
        (!is_waiting).then_some(due)
    }

    fn wants_ping(&mut self, now: Instant) -> bool {
        let is_due = self.queue.next_due(now).is_some_and(|due| due <= now);
        let is_pinged = |at: Instant| now.saturating_duration_since(at) < FRESH;
        if !is_due || self.is_fresh(now) || self.pinged_at.is_some_and(is_pinged) {
            return false;
        }
        self.pinged_at = Some(now);
        true
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.senders.wake())
    }
}

/// Appends a lost event to the file of `--dead-letter`, as a line of JSON.
fn append(path: &PathBuf, lost: &LostEvent, reason: &str) -> io::Result<()> {
    let event = &lost.event;
    let notification: &RawValue = serde_json::from_str(&event.line)?;
    let line = json!({
        "time": jiff::Timestamp::now().to_string(),
        "webhook_id": event.webhook_id(),
        "attempts": lost.attempts,
        "reason": reason,
        "notification": notification,
    });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

/// The maximum age of the last sign of life of the server when a request is made.
const FRESH: Duration = Duration::from_secs(5);
/// The time after which a connection has repeated all events that it repeats.
const SETTLED: Duration = Duration::from_secs(60);
/// The time that requests in progress have when the command ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

//! The probe: an additional client that sends requests at a fixed interval during the load.
//!
//! It shares the thread with the load. To measure the server's latency rather than the client's, it
//! is served between any two other connections, not only when epoll reports it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::conn::{CloseReason, Conn, ConnEvent};
use crate::frames;
use crate::report;

pub struct ProbeClient {
    pub index: usize,
    pub latency: Histogram<u64>,
    every: Duration,
    question: Vec<u8>,
    sent_at: Option<Instant>,
    due: Instant,
    looked: Instant,
}

impl ProbeClient {
    pub fn new(index: usize, every: Duration, message: &str, mask: [u8; 4]) -> ProbeClient {
        let now = Instant::now();
        ProbeClient {
            index,
            latency: report::histogram(),
            every,
            question: frames::encode(frames::TEXT, message.as_bytes(), mask),
            sent_at: None,
            due: now,
            looked: now,
        }
    }

    /// Returns whether it is time to check its socket again, which costs a system call.
    pub fn is_time(&self, now: Instant) -> bool {
        let waits = self.sent_at.is_some() || now >= self.due;
        waits && now.duration_since(self.looked) >= CHECK_EVERY
    }

    /// Returns how long the loop may sleep.
    pub fn sleep(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Handles an event on its connection.
    pub fn on_event(&mut self, event: &ConnEvent<'_>) {
        if let (ConnEvent::Message(_), Some(sent_at)) = (event, self.sent_at.take()) {
            let now = Instant::now();
            report::record(&mut self.latency, now.duration_since(sent_at));
            self.due = (self.due + self.every).max(now);
        }
    }

    /// Sends the next request if it is due.
    ///
    /// # Errors
    ///
    /// Returns the errors of its socket.
    pub fn send_due(&mut self, conn: &mut Conn) -> Result<(), CloseReason> {
        let now = Instant::now();
        self.looked = now;
        if self.sent_at.is_none() && now >= self.due && conn.is_open() {
            conn.send(&self.question)?;
            self.sent_at = Some(now);
        }
        Ok(())
    }

    /// Discards the measurements so far. The latency of an outstanding request counts from now.
    pub fn reset(&mut self) {
        self.latency.reset();
    }

    /// Returns the age of the outstanding request.
    pub fn waiting(&self) -> Option<Duration> {
        self.sent_at.map(|sent_at| sent_at.elapsed())
    }
}

/// The resolution of its figures.
const CHECK_EVERY: Duration = Duration::from_micros(100);

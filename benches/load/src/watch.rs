//! A client of its own that asks and awaits an answer, whatever else goes on.
//!
//! It shares the one thread with the load. So that what is measured is the server's latency
//! and not the client's, it is looked after between any two other connections, not only when
//! epoll comes round to it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::conn::{Conn, Gone, Said};
use crate::frames;
use crate::report;

pub struct Watch {
    pub index: usize,
    pub latency: Histogram<u64>,
    every: Duration,
    question: Vec<u8>,
    asked: Option<Instant>,
    due: Instant,
    looked: Instant,
}

impl Watch {
    pub fn new(index: usize, every: Duration, message: &str, mask: [u8; 4]) -> Watch {
        let now = Instant::now();
        Watch {
            index,
            latency: report::histogram(),
            every,
            question: frames::encode(frames::TEXT, message.as_bytes(), mask),
            asked: None,
            due: now,
            looked: now,
        }
    }

    /// Whether it is time to look after it again. That costs a system call.
    pub fn is_time(&self, now: Instant) -> bool {
        let waits = self.asked.is_some() || now >= self.due;
        waits && now.duration_since(self.looked) >= LOOK_EVERY
    }

    /// How long the loop may sleep for its sake.
    pub fn sleep(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Takes what has come to it.
    pub fn said(&mut self, said: &Said<'_>) {
        if let (Said::Message(_), Some(asked)) = (said, self.asked.take()) {
            let now = Instant::now();
            report::record(&mut self.latency, now.duration_since(asked));
            self.due = (self.due + self.every).max(now);
        }
    }

    /// Asks again when it is time to.
    ///
    /// # Errors
    ///
    /// Those of its socket.
    pub fn ask(&mut self, conn: &mut Conn) -> Result<(), Gone> {
        let now = Instant::now();
        self.looked = now;
        if self.asked.is_none() && now >= self.due && conn.is_open() {
            conn.send(&self.question)?;
            self.asked = Some(now);
        }
        Ok(())
    }

    /// Forgets what was measured so far. An answer that is awaited counts from now on.
    pub fn reset(&mut self) {
        self.latency.reset();
    }

    /// How long the question that is under way has been waiting.
    pub fn waiting(&self) -> Option<Duration> {
        self.asked.map(|asked| asked.elapsed())
    }
}

/// How exact its figures are.
const LOOK_EVERY: Duration = Duration::from_micros(100);

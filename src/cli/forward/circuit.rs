//! Detects that the receiver as a whole does not work, so that it gets one request at a time
//! instead of one for each event. Must not know a clock or a random source: time and randomness are
//! arguments.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Which events a failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureScope {
    /// The receiver as a whole: it cannot be reached, or requests fewer requests.
    Receiver,
    /// Perhaps the event alone, such as a status that other events would not cause.
    Event,
}

/// The state of the receiver. While the circuit is *open*, no requests are made until a time, and
/// then one at a time.
#[derive(Debug)]
pub(super) struct Circuit {
    open_until: Option<Instant>,
    backoff: Backoff,
    /// The first delay is between this one and twice as long.
    retry_delay: Duration,
    /// Different events that have failed without a success in between. More than
    /// [`FAILED_EVENTS`] are not needed.
    failed: Vec<String>,
}

impl Circuit {
    pub(super) fn new(retry_delay: Duration) -> Self {
        Circuit {
            open_until: None,
            backoff: Backoff::new(retry_delay, MAX_DELAY),
            retry_delay,
            failed: Vec::new(),
        }
    }

    /// Returns whether a request may be made now, besides those in progress.
    pub(super) fn may_send(&self, now: Instant, in_progress: usize) -> bool {
        match self.open_until {
            None => true,
            Some(until) => now >= until && in_progress == 0,
        }
    }

    /// Returns the time from which a request may be made. `None` if there is no such limit.
    pub(super) fn open_until(&self) -> Option<Instant> {
        self.open_until
    }

    /// Records a success. Returns whether the circuit was open.
    pub(super) fn on_success(&mut self) -> bool {
        self.failed.clear();
        self.backoff = Backoff::new(self.retry_delay, MAX_DELAY);
        self.open_until.take().is_some()
    }

    /// Records a failed request for the event with this annotation id. Returns whether the circuit
    /// is open.
    pub(super) fn on_failure(
        &mut self,
        scope: FailureScope,
        id: &str,
        after: Option<Duration>,
        now: Instant,
        random: u64,
    ) -> bool {
        if !self.failed.iter().any(|failed| failed == id) && self.failed.len() < FAILED_EVENTS {
            self.failed.push(id.to_owned());
        }
        let requested = after.map(|after| now + after);
        match self.open_until {
            // A request from before the circuit was opened.
            Some(until) if now < until => self.open_until = Some(until).max(requested),
            None if scope == FailureScope::Event && self.failed.len() < FAILED_EVENTS => {}
            Some(_) | None => {
                let delay = now + self.backoff.next(Duration::ZERO, random);
                self.open_until = Some(delay).max(requested);
            }
        }
        self.open_until.is_some()
    }
}

/// The maximum delay between attempts to reach a receiver that does not work.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);
/// So many different events that fail in a row show that the receiver does not work.
const FAILED_EVENTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn unreachable_receiver_gets_one_request_at_a_time() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5 * SECOND);
        assert!(circuit.may_send(start, 9));
        assert!(circuit.on_failure(FailureScope::Receiver, "A", None, start, 0));
        assert!(!circuit.may_send(start + 4 * SECOND, 0));
        assert!(circuit.may_send(start + 5 * SECOND, 0));
        assert!(!circuit.may_send(start + 5 * SECOND, 1));
        assert!(circuit.on_failure(FailureScope::Event, "A", None, start + 5 * SECOND, 0));
        assert!(!circuit.may_send(start + 14 * SECOND, 0));
        assert!(circuit.may_send(start + 15 * SECOND, 0));
        assert!(circuit.on_success());
        assert!(circuit.may_send(start + 15 * SECOND, 9));
        assert!(!circuit.on_success());
    }

    #[test]
    fn requests_in_progress_do_not_extend_the_delay() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5 * SECOND);
        for _ in 0..10 {
            circuit.on_failure(FailureScope::Receiver, "A", None, start, 0);
        }
        assert_eq!(circuit.open_until(), Some(start + 5 * SECOND));
    }

    #[test]
    fn one_failing_event_does_not_open_the_circuit() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5 * SECOND);
        for _ in 0..100 {
            assert!(!circuit.on_failure(FailureScope::Event, "A", None, start, 0));
        }
        assert!(!circuit.on_failure(FailureScope::Event, "B", None, start, 0));
        assert!(circuit.on_failure(FailureScope::Event, "C", None, start, 0));
    }

    #[test]
    fn requested_delay_is_the_least() {
        let start = Instant::now();
        let mut circuit = Circuit::new(5 * SECOND);
        let after = Some(60 * SECOND);
        circuit.on_failure(FailureScope::Receiver, "A", after, start, 0);
        assert_eq!(circuit.open_until(), Some(start + 60 * SECOND));
        let after = Some(90 * SECOND);
        circuit.on_failure(FailureScope::Receiver, "B", after, start + SECOND, 0);
        assert_eq!(circuit.open_until(), Some(start + 91 * SECOND));
    }
}

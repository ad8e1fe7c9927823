//! Delivery latency, from the arrival of an event to the write of its messages.
//!
//! Owns: the arrival times of the messages written in the current turn. The clock is read at the
//! end of the turn, so that latencies are computed only then.

use std::time::Duration;

use super::Engine;
use crate::handler::Handler;
use crate::io::socket::Socket;

/// Arrival times of the messages written in this turn, with the number of messages. Sorted and
/// unique: deliveries with the same arrival time share an entry, regardless of the number of
/// receivers.
#[derive(Default)]
pub(super) struct TurnLatencies(Vec<(u64, u64)>);

impl TurnLatencies {
    pub(super) fn add(&mut self, since: u64) {
        match self.0.last_mut() {
            Some((last, count)) if *last == since => *count += 1,
            _ => match self.0.binary_search_by_key(&since, |(since, _)| *since) {
                Ok(at) => self.0[at].1 += 1,
                Err(at) => self.0.insert(at, (since, 1)),
            },
        }
    }

    fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT);
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Records the duration of a turn, and the latencies of the messages written in it.
    pub(super) fn record_latencies(&mut self, took: Duration) {
        self.counters.turns.observe(took);
        if !self.latencies.0.is_empty() {
            self.record_ages(took);
        }
    }

    #[inline(never)]
    fn record_ages(&mut self, took: Duration) {
        let now = Duration::from_millis(self.now.mono) + took;
        for &(since, count) in &self.latencies.0 {
            let age = now.saturating_sub(Duration::from_millis(since));
            self.counters.latency.observe_many(age, count);
        }
        self.latencies.clear();
    }
}

/// Entries for which memory is kept between turns.
const KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrival_times_are_sorted_and_unique() {
        let mut latencies = TurnLatencies::default();
        for since in [5, 5, 3, 5, 9, 3, 4] {
            latencies.add(since);
        }
        assert_eq!(latencies.0, [(3, 2), (4, 1), (5, 3), (9, 1)]);
        latencies.clear();
        assert_eq!(latencies.0, []);
    }
}

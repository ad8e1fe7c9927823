//! The newest position at earlier times.
//!
//! Owns: samples of the newest position by the monotonic clock, to find the position up to which a
//! client has received everything from the time of its last sign of life.

use std::collections::VecDeque;

/// Samples in increasing order of both time and position.
#[derive(Default)]
pub(super) struct Timeline {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    /// Monotonic milliseconds.
    time: u64,
    reached: Reached,
}

/// The extent of the history at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::realtime) struct Reached {
    /// The newest position.
    pub head: u64,
    /// The time of the cursor of this position.
    pub time: u64,
}

impl Timeline {
    /// Records the extent of the history at `now`. Must be called before a position is added.
    pub(super) fn record(&mut self, now: u64, reached: Reached) {
        match self.samples.back() {
            Some(last) if last.reached == reached || now < last.time + PERIOD => return,
            _ => {}
        }
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { time: now, reached });
    }

    /// Returns the times of the samples, with the newest position at each.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let samples = self.samples.iter();
        samples.map(|sample| (sample.time, sample.reached.head))
    }

    /// Returns an extent that was reached at `time` or earlier; the newest one of which this is
    /// known. `None` if the time is before all samples.
    pub(super) fn at(&self, time: u64) -> Option<Reached> {
        let end = self.samples.partition_point(|sample| sample.time <= time);
        let sample = self.samples.get(end.checked_sub(1)?)?;
        Some(sample.reached)
    }
}

/// The minimum interval between samples, in milliseconds.
const PERIOD: u64 = 250;
/// The maximum number of samples: 17 minutes if events never stop, and much longer otherwise.
const MAX_SAMPLES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(head: u64) -> Reached {
        Reached { head, time: 0 }
    }

    #[test]
    fn position_is_never_later_than_the_time() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.at(0), None);
        // Position n is added at time 100 * n.
        for n in 1..=100_000 {
            timeline.record(100 * n, reached(n - 1));
        }
        for time in (9_600_000..10_000_000).step_by(77) {
            let position = timeline.at(time).unwrap().head;
            assert!(position <= time / 100, "{time}: {position}");
            assert!(position + 4 >= time / 100, "{time}: {position}");
        }
        assert_eq!(timeline.at(1000), None);
        assert_eq!(timeline.samples.len(), MAX_SAMPLES);
    }

    #[test]
    fn quiet_times_need_no_samples() {
        let mut timeline = Timeline::default();
        for time in 0..100_000 {
            timeline.record(1000 * time, reached(7));
        }
        assert_eq!(timeline.samples.len(), 1);
        assert_eq!(timeline.at(50_000_000), Some(reached(7)));
    }
}

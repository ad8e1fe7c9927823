//! Histograms of durations. Must not know: the origin of the durations.

use std::time::Duration;

/// Durations in fixed buckets, and their sum. An observation is a binary search over sixteen
/// bounds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Counts per bucket, not cumulative; the last one is for durations beyond all bounds.
    counts: [u64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: u64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&mut self, took: Duration) {
        self.observe_many(took, 1);
    }

    /// Counts a duration `count` times.
    pub(crate) fn observe_many(&mut self, took: Duration, count: u64) {
        let whole = took.as_secs().saturating_mul(1_000_000);
        let micros = whole.saturating_add(u64::from(took.subsec_micros()));
        // Most turns are short.
        let bucket = match micros <= BOUNDS[0] {
            true => 0,
            false => BOUNDS.partition_point(|bound| *bound < micros),
        };
        self.counts[bucket] += count;
        self.sum = self.sum.saturating_add(micros.saturating_mul(count));
    }

    /// Returns each bound in seconds with the cumulative count, in ascending order, without the
    /// last, infinite bound, whose count is [`Histogram::count`].
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6);
        let mut so_far = 0;
        bounds.zip(&self.counts).map(move |(bound, count)| {
            so_far += count;
            (bound, so_far)
        })
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / 1e6
    }
}

/// Upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe_many(Duration::from_millis(30), 3);
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets[..2], [(0.0001, 2), (0.00025, 3)]);
        assert_eq!(buckets[7..9], [(0.025, 3), (0.05, 6)]);
        assert_eq!(buckets[15], (10.0, 7));
        assert_eq!(histogram.count(), 8);
        assert_eq!(histogram.sum(), 20.090_202);
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.count(), 9);
    }
}

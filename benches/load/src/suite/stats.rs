//! Estimates from paired samples.

/// An estimate with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    fn map(self, f: impl Fn(f64) -> f64) -> Estimate {
        Estimate {
            value: f(self.value),
            low: f(self.low),
            high: f(self.high),
        }
    }
}

/// Returns the ratio of two servers' figures in the same rounds.
pub fn ratio(ones: &[f64], others: &[f64]) -> Option<Estimate> {
    let pairs = ones.iter().zip(others);
    let positive = pairs.filter(|(one, other)| **one > 0.0 && **other > 0.0);
    let logs: Vec<f64> = positive.map(|(one, other)| (one / other).ln()).collect();
    Some(estimate(&logs)?.map(f64::exp))
}

/// Returns the difference of two servers' figures in the same rounds.
pub fn difference(ones: &[f64], others: &[f64]) -> Option<Estimate> {
    let pairs = ones.iter().zip(others);
    estimate(&pairs.map(|(one, other)| one - other).collect::<Vec<_>>())
}

/// Returns the Hodges–Lehmann estimate of the center of a distribution, with the interval of
/// Wilcoxon's signed-rank test in its normal approximation: the median of the means of all pairs of
/// values, and two of these means around it. A few disturbed values move it little, unlike a mean
/// with Student's interval, and it needs fewer values than a median.
fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.len() < FEWEST {
        return None;
    }
    let mut means: Vec<f64> = Vec::new();
    for (index, one) in values.iter().enumerate() {
        means.extend(
            values[index..]
                .iter()
                .map(|other| f64::midpoint(*one, *other)),
        );
    }
    means.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let center = count * (count + 1.0) / 4.0;
    let deviation = (count * (count + 1.0) * (2.0 * count + 1.0) / 24.0).sqrt();
    let outside = (center - Z * deviation).max(0.0) as usize;
    Some(Estimate {
        value: super::results::median(means.clone())?,
        low: *means.get(outside)?,
        high: *means.get(means.len() - 1 - outside)?,
    })
}

/// The smallest number of rounds with an estimate.
const FEWEST: usize = 6;
/// The quantile of the normal distribution for 95 %.
const Z: f64 = 1.96;

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform noise between -0.5 and 0.5.
    fn noise(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        };
        for _ in 0..10 {
            next();
        }
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn interval_contains_the_center_19_times_of_20() {
        let contains = |seed: &u64| {
            let found = estimate(&noise(30, *seed)).unwrap();
            assert!(found.low <= found.value && found.value <= found.high);
            found.low <= 0.0 && 0.0 <= found.high
        };
        let count = (1..=2000).filter(contains).count();
        assert!((1860..=1940).contains(&count), "{count} of 2000");
    }

    #[test]
    fn disturbed_rounds_hardly_move_a_ratio() {
        let mut ones: Vec<f64> = noise(30, 7)
            .iter()
            .map(|noise| 1.1 + noise / 100.0)
            .collect();
        let others = vec![1.0; 30];
        ones[3] = 4.0;
        ones[20] = 9.0;
        let found = ratio(&ones, &others).unwrap();
        assert!((1.095..1.105).contains(&found.value), "{found:?}");
        assert!(found.low > 1.09 && found.high < 1.11, "{found:?}");
    }

    #[test]
    fn few_rounds_have_no_estimate() {
        assert_eq!(ratio(&[1.0; 5], &[1.0; 5]), None);
        let equal = difference(&[2.0; 6], &[1.5; 6]).unwrap();
        assert_eq!((equal.value, equal.low, equal.high), (0.5, 0.5, 0.5));
    }
}

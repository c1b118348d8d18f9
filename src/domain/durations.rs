//! How long calls took: a histogram with fixed bounds.

use std::time::Duration;

/// The upper bounds of all buckets but the last, which has none. They reach from a local answer to a timeout.
pub const BOUNDS: [Duration; 14] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Counts durations by bucket. A duration that equals a bound belongs to that bound's bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationHistogram {
    counts: [u64; BOUNDS.len()],
    longer: u64,
    sum: Duration,
}

impl DurationHistogram {
    /// Counts one duration.
    pub fn observe(&mut self, duration: Duration) {
        match BOUNDS.iter().position(|bound| duration <= *bound) {
            Some(bucket) => self.counts[bucket] += 1,
            None => self.longer += 1,
        }
        self.sum = self.sum.saturating_add(duration);
    }

    /// How many durations are in each bucket, by its upper bound in seconds; the last has none, which is infinity.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounded = BOUNDS.iter().zip(self.counts).map(|(bound, count)| (bound.as_secs_f64(), count));
        bounded.chain([(f64::INFINITY, self.longer)]).collect()
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// The sum of all durations.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let mut histogram = DurationHistogram::default();
        for millis in [0, 5, 6, 10_000, 10_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let held: Vec<_> = histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(held, [(0.0005, 1), (0.005, 1), (0.01, 1), (10.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, Duration::from_millis(20_012)));
    }
}

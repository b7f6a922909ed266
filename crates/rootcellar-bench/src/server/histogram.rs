//! How long calls took: counts in buckets that grow with what they count, so that memory is bounded and quantiles are nearly exact.
//!
//! Nanoseconds below 128 have a bucket each. Above, every power of two is cut into 64 buckets, so a bucket is at most 1/64 as wide as
//! the values in it: what is told is too large by 1.6% at the most, and the largest value is kept as it is.

use std::time::Duration;

/// Powers of two are cut into two to this power.
const STEP_BITS: u32 = 6;
const STEPS: u64 = 1 << STEP_BITS;

/// Durations, counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    /// As long as the largest value needs.
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Histogram {
    pub(super) fn add(&mut self, time: Duration) {
        let bucket = bucket_of(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn max(&self) -> Duration {
        self.max
    }

    /// What so many thousandths of all took at the most.
    pub(super) fn quantile(&self, thousandths: u64) -> Duration {
        let rank = (self.count * thousandths).div_ceil(1000).max(1);
        let mut below = 0;
        let reached = self.buckets.iter().position(|in_bucket| {
            below += in_bucket;
            below >= rank
        });
        reached.map_or(self.max, |bucket| {
            Duration::from_nanos(largest_in(bucket)).min(self.max)
        })
    }
}

fn bucket_of(nanos: u64) -> usize {
    let shift = nanos.max(1).ilog2().saturating_sub(STEP_BITS);
    let bucket = u64::from(shift) * STEPS + (nanos >> shift);
    usize::try_from(bucket).expect("there are less than four thousand buckets")
}

fn largest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let step = u128::from(bucket - shift * STEPS);
    u64::try_from(((step + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_its_bucket_and_not_far_from_its_end() {
        for nanos in
            (0..300).chain((8..64).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1, 3 << (bits - 1)]))
        {
            let largest = largest_in(bucket_of(nanos));
            assert!(nanos <= largest, "{nanos} lies behind {largest}");
            assert!(largest - nanos <= nanos / STEPS, "{nanos} is told as {largest}");
        }
        assert_eq!(largest_in(bucket_of(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_of_even_values_are_where_they_should_be() {
        let mut histogram = Histogram::default();
        for millis in (1..=1000).rev() {
            histogram.add(Duration::from_millis(millis));
        }
        for (thousandths, millis) in [(1, 1.0), (500, 500.0), (900, 900.0), (990, 990.0), (999, 999.0)] {
            let found = histogram.quantile(thousandths).as_secs_f64() * 1e3;
            assert!((millis..millis * 1.016).contains(&found), "{thousandths}: {found}");
        }
        assert_eq!(histogram.max(), Duration::from_secs(1));
        assert_eq!(histogram.quantile(1000), histogram.max());
    }

    #[test]
    fn two_halves_merge_to_the_whole() {
        let (mut whole, mut low, mut high) = (Histogram::default(), Histogram::default(), Histogram::default());
        for micros in 0..500 {
            whole.add(Duration::from_micros(micros));
            whole.add(Duration::from_micros(10_000 + micros));
            low.add(Duration::from_micros(micros));
            high.add(Duration::from_micros(10_000 + micros));
        }
        low.merge(&high);
        assert_eq!(low.count(), whole.count());
        for thousandths in [0, 1, 499, 500, 501, 999, 1000] {
            assert_eq!(low.quantile(thousandths), whole.quantile(thousandths));
        }
    }

    #[test]
    fn nothing_has_quantiles_of_nothing() {
        assert_eq!(Histogram::default().quantile(500), Duration::ZERO);
    }
}

//! What openraft asks of the crate `base2histogram`, in a few kilobytes.
//!
//! openraft counts the sizes of its batches in histograms of that crate, which at the first of them
//! calculates tables for sixteen precisions of which one is used: 26 MiB that stay, more than half of what an
//! idle broker takes, and the time to fill them at each start. Nobody here reads these histograms; they only
//! have to be right for whoever asks for openraft's statistics. `[patch.crates-io]` in the root's
//! Cargo.toml puts this crate in the other one's place (docs/dependencies.md). If openraft asks for more of
//! it than this, it does not compile; when the other one fills its tables on demand, this one goes.
//!
//! ```text
//! value      0 1 2 3 │ 4 5 6 7 │ 8-9 10-11 12-13 14-15 │ 16-19 …      four buckets for each power of two
//! bucket     0 1 2 3 │ 4 5 6 7 │  8    9     10    11  │  12   …
//! ```

use std::fmt;
use std::marker::PhantomData;

/// Bits of a value, below its highest, that tell buckets apart.
const BITS: u32 = 2;
/// Values below this have a bucket each.
const EXACT: u64 = 1 << (BITS + 1);
/// Buckets for all values of 64 bits.
const BUCKETS: usize = bucket(u64::MAX) + 1;

const fn bucket(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let shift = value.ilog2() - BITS;
    // The highest bits, of which the first is set, so it counts once with the power of two.
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The least value of a bucket.
const fn least(bucket: usize) -> u64 {
    if (bucket as u64) < EXACT {
        return bucket as u64;
    }
    let shift = (bucket >> BITS) - 1;
    let highest = (bucket & ((1 << BITS) - 1)) | 1 << BITS;
    (highest as u64) << shift
}

/// How often values have occurred, to a quarter of their power of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    /// Openraft keeps nothing in the other crate's slots.
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One without values.
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            slots: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let counted = &mut self.counts[bucket(value)];
        *counted = counted.saturating_add(count);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().copied().fold(0, u64::saturating_add)
    }

    /// The least value of the bucket below or in which so many of a thousand values are; 0 if there are none.
    fn quantile(&self, permille: u64) -> u64 {
        let rank = u128::from(self.total()) * u128::from(permille);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            seen += u128::from(*count) * 1000;
            if seen >= rank {
                return least(bucket);
            }
        }
        0
    }

    /// Its quantiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.quantile(1),
            p1: self.quantile(10),
            p5: self.quantile(50),
            p10: self.quantile(100),
            p50: self.quantile(500),
            p90: self.quantile(900),
            p99: self.quantile(990),
            p99_9: self.quantile(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Quantiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names say it: percent, with _ for the point"
)]
pub struct PercentileStats {
    /// Values counted.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            p99_9,
            ..
        } = self;
        write!(
            f,
            "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}"
        )
    }
}

/// Histograms by name, one line each. (The other crate draws them.)
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// One without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "so openraft calls it")]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        let stats = histogram.percentile_stats();
        self.lines.push((name.into(), stats));
        self
    }

    /// There is only one way to write it.
    #[must_use]
    pub fn detailed(self) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, stats) in &self.lines {
            writeln!(f, "{name}: {stats}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_know_where_they_begin() {
        for number in 0..BUCKETS {
            assert_eq!(bucket(least(number)), number);
            if let Some(before) = least(number).checked_sub(1) {
                assert_eq!(bucket(before), number - 1);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(
            [4, 7, 8, 9, 10, 15, 16, 19].map(bucket),
            [4, 7, 8, 8, 9, 11, 12, 12]
        );
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        (1..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, histogram.total()), (1000, 1000));
        assert_eq!((stats.p0_1, stats.p50, stats.p99), (1, 448, 896));
        histogram.record_n(u64::MAX, 9000);
        assert_eq!(histogram.percentile_stats().p50, least(BUCKETS - 1));
        let chart = AsciiChart::new().add("a", histogram).detailed();
        assert!(chart.to_string().starts_with("a: 10000 values, p50 "));
    }
}

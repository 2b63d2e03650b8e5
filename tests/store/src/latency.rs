//! Random numbers from a seed, and how long a request takes.

use std::f64::consts::TAU;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far the 99th percentile of the normal distribution is from its median, in deviations.
const P99: f64 = 2.326_347_9;

/// How long requests of one kind take: lognormal, as the latencies of object stores nearly are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of the requests take longer, in milliseconds.
    pub median_ms: f64,
    /// One in a hundred takes longer, in milliseconds.
    pub p99_ms: f64,
}

impl Latency {
    /// Half take longer than `median_ms`, one in a hundred longer than `p99_ms`.
    pub const fn new(median_ms: f64, p99_ms: f64) -> Self {
        Self { median_ms, p99_ms }
    }

    pub(crate) fn sample(self, rng: &mut Rng) -> Duration {
        if self.median_ms <= 0.0 {
            return Duration::ZERO;
        }
        let sigma = (self.p99_ms / self.median_ms).max(1.0).ln() / P99;
        // The tail ends somewhere: nothing takes longer than ten times the 99th percentile.
        let ms = self.median_ms * (sigma * rng.normal()).exp();
        Duration::from_secs_f64(ms.min(self.p99_ms.max(self.median_ms) * 10.0) / 1000.0)
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers for the same seed, for ever.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed around 0 with deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_tail_are_as_asked_for_and_the_seed_decides() {
        let sample = |seed| {
            let mut rng = Rng::new(seed);
            let of = |_| Latency::new(30.0, 120.0).sample(&mut rng).as_secs_f64() * 1000.0;
            (0..20_000).map(of).collect::<Vec<_>>()
        };
        let mut found = sample(7);
        assert_eq!(found, sample(7));
        assert_ne!(found, sample(8));
        found.sort_by(f64::total_cmp);
        let (median, p99) = (found[10_000], found[19_800]);
        assert!((28.0..32.0).contains(&median), "{median}");
        assert!((108.0..132.0).contains(&p99), "{p99}");
    }
}

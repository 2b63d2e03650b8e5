//! A world that a test controls: [`ManualClock`], [`SeededIds`], [`MemDisk`];
//! the [`golden()`] files of persisted formats; and [`seeds()`], which runs simulations.

mod disk;
mod golden;
mod seeds;

pub use disk::{EIO, ENOSPC, Fault, MemDisk, Operation, SECTOR};
pub use golden::{check_golden, golden};
pub use seeds::seeds;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use uuid::Uuid;

use super::{Clock, Ids};

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now_ms`, milliseconds since the Unix epoch.
    pub fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock, also backwards.
    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }

    /// Moves the clock forward by `ms` milliseconds.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ids that a seed determines. Not for concurrent use where their order matters.
#[derive(Debug)]
pub struct SeededIds(AtomicU64);

impl SeededIds {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Ids for SeededIds {
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.random().to_be_bytes());
        bytes[8..].copy_from_slice(&self.random().to_be_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn random(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::Relaxed))
    }
}

/// SplitMix64's increment.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's output function: small, and good enough to choose what a crash keeps.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_ids() {
        let (a, b, c) = (SeededIds::new(1), SeededIds::new(1), SeededIds::new(2));
        let ids: Vec<Uuid> = (0..100).map(|_| a.uuid()).collect();
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
        assert!(ids.iter().all(|id| *id == b.uuid()));
        assert!(ids.iter().all(|id| *id != c.uuid()));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn the_clock_stands_still() {
        let clock = ManualClock::new(5);
        clock.advance(10);
        assert_eq!((clock.now_ms(), clock.now_ms()), (15, 15));
        clock.set(3);
        assert_eq!(clock.now_ms(), 3);
    }
}

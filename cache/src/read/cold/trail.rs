//! Where readers of cold offsets will go on, so that whoever scans is known from whoever looks
//! something up.

use std::collections::HashSet;

use frazil_core::{Offset, TopicPartition};
use parking_lot::Mutex;

/// How many ends of reads are remembered.
const ENDS_MAX: usize = 8192;

type Generation = HashSet<(TopicPartition, Offset)>;

/// Ends of reads. Forgets the older half when it is full.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    inner: Mutex<(Generation, Generation)>,
}

impl Trail {
    pub(crate) fn put(&self, partition: TopicPartition, end: Offset) {
        let (young, old) = &mut *self.inner.lock();
        if young.len() >= ENDS_MAX / 2 {
            *old = std::mem::take(young);
        }
        young.insert((partition, end));
    }

    /// Whether a read has ended there.
    pub(crate) fn has(&self, partition: TopicPartition, at: Offset) -> bool {
        let (young, old) = &*self.inner.lock();
        let key = (partition, at);
        young.contains(&key) || old.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::partition;

    #[test]
    fn ends_are_bounded_and_the_newest_are_kept() {
        let trail = Trail::default();
        for n in 0..3 * ENDS_MAX as i64 {
            trail.put(partition(0), Offset(n));
        }
        assert!(trail.has(partition(0), Offset(3 * ENDS_MAX as i64 - 1)));
        assert!(!trail.has(partition(1), Offset(3 * ENDS_MAX as i64 - 1)));
        assert!(!trail.has(partition(0), Offset(0)));
        let inner = trail.inner.lock();
        assert!(inner.0.len() + inner.1.len() <= ENDS_MAX);
    }
}

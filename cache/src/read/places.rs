//! Where readers have stopped within an extent.
//!
//! An extent has no index of its batches: a reader walks it from its beginning. Whoever reads it in
//! several steps would walk it again at every step, so the place of the next step is remembered.
//! The place of an offset in an object never changes, so a remembered place is right or unused.

use std::collections::HashMap;

use frazil_core::{Offset, SegmentId, TopicPartition};
use parking_lot::Mutex;

/// How many places are remembered.
const PLACES_MAX: usize = 8192;

type Generation = HashMap<(TopicPartition, Offset), (SegmentId, u64)>;

/// The byte of a segment at which the batch with some base offset begins. Forgets the older half
/// when it is full.
#[derive(Debug, Default)]
pub(crate) struct Places {
    inner: Mutex<(Generation, Generation)>,
}

impl Places {
    pub(crate) fn put(&self, partition: TopicPartition, base: Offset, id: SegmentId, at: u64) {
        let (young, old) = &mut *self.inner.lock();
        if young.len() >= PLACES_MAX / 2 {
            *old = std::mem::take(young);
        }
        young.insert((partition, base), (id, at));
    }

    pub(crate) fn get(
        &self,
        partition: TopicPartition,
        base: Offset,
        id: SegmentId,
    ) -> Option<u64> {
        let (young, old) = &*self.inner.lock();
        let key = (partition, base);
        let (place, at) = young.get(&key).or_else(|| old.get(&key)).copied()?;
        (place == id).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::BrokerEpoch;

    use super::*;
    use crate::testing::partition;

    #[test]
    fn places_are_bounded_and_the_newest_are_kept() {
        let places = Places::default();
        let id = SegmentId::new(BrokerEpoch(1), 7);
        for n in 0..3 * PLACES_MAX as i64 {
            places.put(partition(0), Offset(n), id, n as u64);
        }
        let last = Offset(3 * PLACES_MAX as i64 - 1);
        assert_eq!(places.get(partition(0), last, id), Some(last.0 as u64));
        let other = SegmentId::new(BrokerEpoch(1), 8);
        assert_eq!(places.get(partition(0), last, other), None);
        assert_eq!(places.get(partition(1), last, id), None);
        assert_eq!(places.get(partition(0), Offset(0), id), None);
        let inner = places.inner.lock();
        assert!(inner.0.len() + inner.1.len() <= PLACES_MAX);
    }
}

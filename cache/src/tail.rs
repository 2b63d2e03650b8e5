//! The end of the log in memory: segments lately sealed here, and what stands in this gateway's
//! write-ahead log only.
//!
//! Both are what was written, by its name and place, and never change. A segment enters before it
//! is committed, so whoever finds it in the index of this gateway finds it here, until it is
//! pushed out by later ones. Bytes of the write-ahead log stay until their segment is committed;
//! a reader that finds them gone finds the segment when it looks into the index again.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use frazil_core::{BrokerEpoch, SegmentId};
use parking_lot::RwLock;

use crate::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    capacity: usize,
    metrics: Metrics,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    segments: HashMap<SegmentId, Bytes>,
    order: VecDeque<SegmentId>,
    bytes: usize,
    /// Contiguous pieces of write-ahead logs by their first position.
    wal: BTreeMap<(BrokerEpoch, u64), Bytes>,
}

impl Tail {
    pub(crate) fn new(capacity: usize, metrics: Metrics) -> Self {
        Self {
            capacity,
            metrics,
            inner: RwLock::default(),
        }
    }

    /// The object of a segment.
    pub(crate) fn segment(&self, id: SegmentId) -> Option<Bytes> {
        self.inner.read().segments.get(&id).cloned()
    }

    /// Adds a segment; the oldest leave when there are too many bytes.
    pub(crate) fn insert(&self, id: SegmentId, object: Bytes) {
        let mut inner = self.inner.write();
        inner.bytes += object.len();
        if let Some(before) = inner.segments.insert(id, object) {
            inner.bytes -= before.len();
        } else {
            inner.order.push_back(id);
        }
        while inner.bytes > self.capacity
            && let Some(oldest) = inner.order.pop_front()
        {
            if let Some(gone) = inner.segments.remove(&oldest) {
                inner.bytes -= gone.len();
            }
        }
        self.metrics.tail_bytes.set(inner.bytes as u64);
    }

    /// Bytes of a write-ahead log of this gateway.
    pub(crate) fn wal(&self, epoch: BrokerEpoch, start: u64, length: u32) -> Option<Bytes> {
        let inner = self.inner.read();
        let (&(_, first), piece) = inner.wal.range((epoch, 0)..=(epoch, start)).next_back()?;
        let at = (start - first) as usize;
        let end = at.checked_add(length as usize)?;
        (end <= piece.len()).then(|| piece.slice(at..end))
    }

    /// Adds bytes of a write-ahead log.
    pub(crate) fn insert_wal(&self, epoch: BrokerEpoch, start: u64, piece: Bytes) {
        self.inner.write().wal.insert((epoch, start), piece);
    }

    /// Forgets the pieces of a write-ahead log that end at or below a position.
    pub(crate) fn truncate_wal(&self, epoch: BrokerEpoch, below: u64) {
        let mut inner = self.inner.write();
        while let Some((&key, piece)) = inner.wal.range((epoch, 0)..(epoch, below)).next()
            && key.1 + piece.len() as u64 <= below
        {
            inner.wal.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: BrokerEpoch = BrokerEpoch(4);

    #[test]
    fn the_oldest_segments_leave_first() {
        let tail = Tail::new(10, Metrics::default());
        let id = |number| SegmentId::new(EPOCH, number);
        for number in 0..4 {
            tail.insert(id(number), Bytes::from(vec![number as u8; 4]));
        }
        assert_eq!(tail.segment(id(1)), None);
        assert_eq!(tail.segment(id(2)), Some(Bytes::from(vec![2; 4])));
        assert_eq!(tail.metrics.tail_bytes.get(), 8);
    }

    #[test]
    fn pieces_of_the_log_are_found_by_any_position_in_them() {
        let tail = Tail::new(10, Metrics::default());
        tail.insert_wal(EPOCH, 100, Bytes::from_static(b"0123456789"));
        tail.insert_wal(EPOCH, 110, Bytes::from_static(b"abcde"));
        assert_eq!(tail.wal(EPOCH, 102, 3).unwrap(), "234");
        assert_eq!(tail.wal(EPOCH, 110, 5).unwrap(), "abcde");
        for (epoch, start, length) in [
            (4, 99, 1),
            (4, 108, 3),
            (4, 115, 1),
            (5, 102, 3),
            (3, 102, 3),
        ] {
            assert_eq!(tail.wal(BrokerEpoch(epoch), start, length), None);
        }
        tail.truncate_wal(EPOCH, 112);
        assert_eq!(tail.wal(EPOCH, 102, 3), None);
        assert_eq!(tail.wal(EPOCH, 110, 5).unwrap(), "abcde");
    }
}

//! The end of the log in memory: segments lately sealed here, and what stands in this gateway's
//! write-ahead log only.
//!
//! Both are what was written, by its name and place, and never change. A segment enters before it
//! is committed, so whoever finds it in the index of this gateway finds it here, until it is
//! pushed out by later ones. Bytes of the write-ahead log stay until their segment is committed;
//! a reader that finds them gone finds the segment when it looks into the index again.
//!
//! Only readers that keep up need it. One that does asks for a segment while fewer bytes have come after
//! it than the tail may hold; so where nobody asked for one while so many bytes came, there is none, and an
//! eighth, but at least the newest one, is enough to be found by the next reader. What has gone early is
//! remembered by name: who asks for it would have found it in a larger tail, which there is from then on.
//!
//! ```text
//!  pushed out │ names        │ bytes        ◄── new ones
//!             ├──────── capacity ───────────┤
//!                            ├─ an eighth ──┤   while nobody reads here; else all
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use frazil_core::{BrokerEpoch, SegmentId};
use parking_lot::RwLock;

use crate::metrics::Metrics;

/// Which part of the tail is kept while nobody reads it.
const UNREAD: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    capacity: usize,
    metrics: Metrics,
    inner: RwLock<Inner>,
    /// Until how many bytes have come the whole is kept. For memory's sake only, so it may be late.
    whole_until: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: gone early.
    segments: HashMap<SegmentId, Option<Bytes>>,
    /// All of them with their lengths, oldest first. Those that are gone come before the others.
    order: VecDeque<(SegmentId, usize)>,
    /// How many are gone.
    gone: usize,
    /// Bytes of all of them.
    named: usize,
    /// Bytes of those that are there.
    bytes: usize,
    /// Bytes that have ever come.
    came: u64,
    /// Contiguous pieces of write-ahead logs by their first position.
    wal: BTreeMap<(BrokerEpoch, u64), Bytes>,
}

impl Inner {
    /// Keeps the names of `capacity` bytes, and `bytes` of them, or the newest one.
    fn shrink(&mut self, capacity: usize, bytes: usize) {
        while self.bytes > bytes
            && self.gone + 1 < self.order.len()
            && let Some((id, length)) = self.order.get(self.gone)
        {
            self.segments.insert(*id, None);
            self.bytes -= length;
            self.gone += 1;
        }
        while self.named > capacity
            && let Some((id, length)) = self.order.pop_front()
        {
            self.segments.remove(&id);
            self.named -= length;
            match self.gone.checked_sub(1) {
                Some(gone) => self.gone = gone,
                None => self.bytes -= length,
            }
        }
    }
}

impl Tail {
    pub(crate) fn new(capacity: usize, metrics: Metrics) -> Self {
        Self {
            capacity,
            metrics,
            inner: RwLock::default(),
            whole_until: AtomicU64::new(0),
        }
    }

    /// The object of a segment.
    pub(crate) fn segment(&self, id: SegmentId) -> Option<Bytes> {
        let inner = self.inner.read();
        let found = inner.segments.get(&id)?;
        let until = inner.came + self.capacity as u64;
        self.whole_until.store(until, Ordering::Relaxed);
        found.clone()
    }

    /// Adds a segment; the oldest leave when there are too many bytes.
    pub(crate) fn insert(&self, id: SegmentId, object: Bytes) {
        let mut inner = self.inner.write();
        let length = object.len();
        // A name has one content.
        if inner.segments.contains_key(&id) {
            return;
        }
        inner.came += length as u64;
        inner.segments.insert(id, Some(object));
        inner.order.push_back((id, length));
        inner.named += length;
        inner.bytes += length;
        let wanted = match inner.came <= self.whole_until.load(Ordering::Relaxed) {
            true => self.capacity,
            false => self.capacity / UNREAD,
        };
        inner.shrink(self.capacity, wanted);
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

    fn id(number: u64) -> SegmentId {
        SegmentId::new(EPOCH, number)
    }

    fn insert(tail: &Tail, number: u64, length: usize) {
        tail.insert(id(number), Bytes::from(vec![number as u8; length]));
    }

    #[test]
    fn the_oldest_segments_leave_first() {
        let tail = Tail::new(10, Metrics::default());
        for number in 0..4 {
            insert(&tail, number, 4);
            assert!(tail.segment(id(number)).is_some());
        }
        assert_eq!(tail.segment(id(1)), None);
        assert_eq!(tail.segment(id(2)), Some(Bytes::from(vec![2; 4])));
        assert_eq!(tail.metrics.tail_bytes.get(), 8);
    }

    #[test]
    fn without_readers_an_eighth_stays_and_a_reader_brings_the_whole_back() {
        let tail = Tail::new(80, Metrics::default());
        let held = || tail.metrics.tail_bytes.get();
        for number in 0..20 {
            insert(&tail, number, 5);
            assert!(held() <= 10, "{}", held());
        }
        // What is gone, and what would be gone from a whole tail as well.
        assert_eq!(tail.segment(id(3)), None);
        insert(&tail, 20, 5);
        assert_eq!(held(), 10, "nobody keeps up");
        assert_eq!(tail.segment(id(10)), None);
        for number in 21..37 {
            insert(&tail, number, 5);
        }
        assert_eq!(held(), 80, "whoever asks again finds it");
        assert_eq!(tail.segment(id(21)), Some(Bytes::from(vec![21; 5])));
        for number in 37..53 {
            insert(&tail, number, 5);
            assert_eq!(held(), 80);
        }
        insert(&tail, 53, 5);
        assert_eq!(held(), 10, "nobody has read since");
        assert_eq!(tail.segment(id(53)), Some(Bytes::from(vec![53; 5])));
    }

    #[test]
    fn one_that_is_larger_than_the_whole_does_not_stay() {
        let tail = Tail::new(80, Metrics::default());
        insert(&tail, 1, 5);
        assert!(tail.segment(id(1)).is_some());
        insert(&tail, 2, 81);
        assert_eq!((tail.segment(id(1)), tail.segment(id(2))), (None, None));
        assert_eq!(tail.metrics.tail_bytes.get(), 0);
        insert(&tail, 3, 80);
        assert!(tail.segment(id(3)).is_some(), "the newest one stays");
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

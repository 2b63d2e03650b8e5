//! Parts of segments for readers that go through the log of a store in this machine: what a read
//! wants, no more, and what the next one will want meanwhile.
//!
//! ```text
//! this read     ├── batches ──┤
//! next read                   ├── fetched while the answer is sent ──┤
//! ```
//!
//! Blocks of a MiB that come five at a time ([`super::blocks`]) are for stores that are paid by the
//! request, and for readers that share them. A scan of a dozen partitions takes a part of each block
//! at another time: before the last of them came, the block had been pushed out and was fetched
//! again, up to four times. A local disk takes any number of requests, so here each partition's
//! bytes are read by themselves, once.
//!
//! What is fetched ahead has a place in a memory of its own. It is given up when somebody needs the
//! place after it was taken, or when nobody came for it for a while; until then others are not fetched
//! ahead. What is taken stays until then, for a second reader that is close behind.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::SegmentId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Class;
use super::flights::{Flight, flight};
use super::objects::{Object, Objects};
use crate::ReadError;

/// After this time without a reader, the place is given to somebody else.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a segment, in the pieces in which they came.
type Pieces = Arc<[Bytes]>;
/// Where a part of a segment begins.
type Place = (SegmentId, u64);

/// A part of a segment that is there or on its way.
struct Part {
    length: u64,
    since: Instant,
    taken: bool,
    flight: Flight<Pieces>,
}

#[derive(Default)]
struct Parts {
    by_place: HashMap<Place, Part>,
    /// Oldest first.
    order: VecDeque<Place>,
    bytes: u64,
}

impl Parts {
    fn remove(&mut self, at: usize) {
        if let Some(place) = self.order.remove(at)
            && let Some(part) = self.by_place.remove(&place)
        {
            self.bytes -= part.length;
        }
    }

    fn forget(&mut self, place: &Place) {
        if let Some(at) = self.order.iter().position(|other| other == place) {
            self.remove(at);
        }
    }

    /// Makes room for so many bytes more, of what is not waited for any more. `false`: there is not
    /// so much of that.
    fn make_room(&mut self, length: u64, most: u64) -> bool {
        while self.bytes + length > most {
            let used_up = |place: &Place| {
                let part = self.by_place.get(place);
                part.is_none_or(|part| part.taken || part.since.elapsed() > PATIENCE)
            };
            let Some(at) = self.order.iter().position(used_up) else {
                return false;
            };
            self.remove(at);
        }
        true
    }
}

/// See the module.
pub(crate) struct Ahead {
    objects: Arc<Objects>,
    most: u64,
    parts: Mutex<Parts>,
}

impl Ahead {
    /// With room for so many bytes.
    pub(crate) fn new(objects: Arc<Objects>, most: usize) -> Self {
        Self {
            objects,
            most: most as u64,
            parts: Mutex::default(),
        }
    }

    /// Bytes of a segment from a place on, which is not empty: what is there or on its way, however
    /// long that is, or else this range.
    ///
    /// # Cancel safety
    /// What has begun goes on, for the next who wants it.
    pub(crate) async fn take(&self, id: SegmentId, range: Range<u64>) -> Result<Pieces, ReadError> {
        let flight = {
            let mut parts = self.parts.lock();
            match parts.by_place.get_mut(&(id, range.start)) {
                Some(part) => {
                    part.taken = true;
                    part.flight.clone()
                }
                None => self.start(id, range.clone()),
            }
        };
        let pieces = flight.await;
        if pieces.is_err() {
            self.parts.lock().forget(&(id, range.start));
        }
        pieces
    }

    /// Bytes of a segment from the store, whatever is here: that has turned out to be damaged.
    pub(crate) async fn take_fresh(
        &self,
        id: SegmentId,
        range: Range<u64>,
    ) -> Result<Pieces, ReadError> {
        self.parts.lock().forget(&(id, range.start));
        self.start(id, range).await
    }

    /// Has a range fetched that will be taken, if it is not there and there is room.
    pub(crate) fn expect(&self, id: SegmentId, range: Range<u64>) {
        let mut parts = self.parts.lock();
        let place = (id, range.start);
        let length = range.end - range.start;
        if parts.by_place.contains_key(&place) || !parts.make_room(length, self.most) {
            return;
        }
        let part = Part {
            length,
            since: Instant::now(),
            taken: false,
            flight: self.start(id, range),
        };
        parts.bytes += length;
        parts.order.push_back(place);
        parts.by_place.insert(place, part);
    }

    fn start(&self, id: SegmentId, range: Range<u64>) -> Flight<Pieces> {
        let (landed, flight) = flight();
        let objects = Arc::clone(&self.objects);
        tokio::spawn(async move {
            let object = Object::Segment(id);
            let pieces = objects.fetch_pieces(object, range, Class::Far).await;
            // Whoever waited may have gone.
            drop(landed.send(pieces.map(Pieces::from)));
        });
        flight
    }
}

#[cfg(test)]
mod tests {
    use frazil_core::BrokerEpoch;

    use super::*;

    fn place(number: u64) -> Place {
        (SegmentId::new(BrokerEpoch(1), number), 0)
    }

    fn put(parts: &mut Parts, number: u64, length: u64) {
        let (_, flight) = flight();
        parts.bytes += length;
        parts.order.push_back(place(number));
        let part = Part {
            length,
            since: Instant::now(),
            taken: false,
            flight,
        };
        parts.by_place.insert(place(number), part);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_keeps_its_place_and_what_was_taken_does_not() {
        let mut parts = Parts::default();
        for number in 0..3 {
            put(&mut parts, number, 10);
        }
        assert!(parts.make_room(10, 40), "there is room");
        assert!(!parts.make_room(11, 40), "all are waited for");
        assert_eq!(parts.bytes, 30);
        parts.by_place.get_mut(&place(1)).unwrap().taken = true;
        assert!(parts.make_room(11, 40));
        assert!(!parts.by_place.contains_key(&place(1)));
        assert_eq!((parts.bytes, parts.order.len()), (20, 2));
        // Nobody has come.
        tokio::time::advance(PATIENCE + Duration::from_millis(1)).await;
        put(&mut parts, 3, 10);
        assert!(parts.make_room(21, 40));
        assert_eq!((parts.bytes, parts.order.len()), (10, 1));
        assert!(parts.by_place.contains_key(&place(3)), "it is young");
        assert!(!parts.make_room(41, 40), "it is more than everything");
        parts.forget(&place(3));
        parts.forget(&place(3));
        assert_eq!((parts.bytes, parts.order.len()), (0, 0));
    }
}

//! Blocks of objects: kept, shared by the gateways of a zone, and fetched once.
//!
//! ```text
//! reader ─► shelf ─► flight of the block ─┬─► the stripe's owner in the zone (peer)
//!                                         └─► flight of the stripe ─► one GET ─► shelf
//! ```
//!
//! A *stripe* is five adjacent blocks: what one GET fetches, and what has an owner. A block is what
//! is kept, and what travels between gateways. Whoever wants a block that is on its way waits for
//! that flight, here and at the owner, so while all is well a stripe is fetched once for its zone.
//! An owner that is down is passed over at once, one that is slow is raced with a GET, within a
//! budget. What came from another gateway and turns out to be damaged is fetched from the store.
//!
//! What is kept is a copy of an immutable object, so nothing is ever invalidated; a copy that turns
//! out to be damaged is dropped and fetched again.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use frazil_core::SegmentId;
use frazil_core::ports::Gateway;
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::flights::{Flight, flight};
use super::objects::{Object, Objects};
use super::plan::{BLOCK_BYTES, BlockRun, STRIPE_BLOCKS};
use super::shelf::{Key, Shelf};
use super::{Class, How};
use crate::ReadError;
use crate::metrics::Metrics;
use crate::peer::Peers;

/// How many owners are tried before the store.
const OWNERS_MAX: usize = 3;
/// Runs that are fetched ahead at once.
const AHEAD_MAX: usize = 16;

/// Bytes of a block.
const BLOCK: usize = BLOCK_BYTES as usize;

type Fetched = Result<Bytes, ReadError>;
/// The number of a stripe in its segment.
type Stripe = (SegmentId, u32);

/// See the module.
pub(crate) struct Blocks {
    objects: Arc<Objects>,
    shelf: Arc<Shelf>,
    peers: Option<Arc<Peers>>,
    /// Blocks that are on their way to readers.
    flights: Mutex<HashMap<Key, Flight<Bytes>>>,
    /// Stripes that are being fetched, as their blocks.
    stripes: Mutex<HashMap<Stripe, Flight<Arc<[Bytes]>>>>,
    ahead: Arc<Semaphore>,
    metrics: Metrics,
}

impl Blocks {
    pub(crate) fn new(
        objects: Arc<Objects>,
        shelf: Arc<Shelf>,
        peers: Option<Arc<Peers>>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            objects,
            shelf,
            peers,
            flights: Mutex::default(),
            stripes: Mutex::default(),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            metrics,
        })
    }

    /// The blocks of a run. The one that holds the object's end is short, those behind it empty.
    ///
    /// # Cancel safety
    /// A fetch that has begun goes on, and fills the cache.
    pub(crate) async fn load(
        self: &Arc<Self>,
        run: BlockRun,
        how: How,
    ) -> Result<Vec<(u32, Bytes)>, ReadError> {
        let mut loaded = Vec::new();
        let mut missing = Vec::new();
        for block in run.first..=run.last {
            let key = Key { id: run.id, block };
            let kept = match how.fresh {
                true => None,
                false => self.shelf.get(&key, how.class).await,
            };
            if let Some(bytes) = kept {
                self.metrics.block_hits.inc();
                loaded.push((block, bytes));
            } else {
                self.metrics.block_misses.inc();
                missing.push(key);
            }
        }
        let flights: Vec<_> = missing
            .into_iter()
            .map(|key| (key, self.board(key, how)))
            .collect();
        for (key, flight) in flights {
            loaded.push((key.block, flight.await?));
        }
        Ok(loaded)
    }

    /// Fetches blocks into the cache, if they are not there or on the way, and if not too much is
    /// being fetched ahead already.
    pub(crate) fn prefetch(self: &Arc<Self>, run: BlockRun, class: Class) {
        let is_missing = |block| {
            let key = Key { id: run.id, block };
            !self.shelf.has_in_memory(&key) && !self.flights.lock().contains_key(&key)
        };
        if !(run.first..=run.last).any(is_missing) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.ahead).try_acquire_owned() else {
            return;
        };
        let blocks = Arc::clone(self);
        tokio::spawn(async move {
            // Whoever needs them will see the error.
            drop(blocks.load(run, How::from(class)).await);
            drop(permit);
        });
    }

    /// Drops damaged copies.
    pub(crate) fn forget(&self, run: BlockRun) {
        for block in run.first..=run.last {
            self.shelf.forget(&Key { id: run.id, block });
        }
    }

    /// A block for another gateway, if it is at hand.
    pub(crate) async fn at_hand(&self, id: SegmentId, block: u32, class: Class) -> Option<Bytes> {
        self.shelf.get(&Key { id, block }, class).await
    }

    /// A block for another gateway, from the store if need be, but from no third one.
    pub(crate) async fn own(self: &Arc<Self>, id: SegmentId, block: u32, class: Class) -> Fetched {
        let key = Key { id, block };
        self.from_store(key, How::from(class)).await
    }

    /// Joins the flight of a block, or starts it.
    fn board(self: &Arc<Self>, key: Key, how: How) -> Flight<Bytes> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&key)
            && !how.fresh
        {
            return flight.clone();
        }
        let (landed, flight) = flight();
        if !how.fresh {
            flights.insert(key, flight.clone());
        }
        let blocks = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = blocks.obtain(key, how).await;
            if !how.fresh {
                blocks.flights.lock().remove(&key);
            }
            // Whoever waited may have gone.
            drop(landed.send(fetched));
        });
        flight
    }

    async fn obtain(self: &Arc<Self>, key: Key, how: How) -> Fetched {
        if let Some(peers) = &self.peers
            && !how.fresh
        {
            let mut before = None;
            for _ in 0..OWNERS_MAX {
                // The next one only if that before is down.
                match peers.owner(key.id, key.block / STRIPE_BLOCKS) {
                    Some(owner) if before != Some(owner.id) => {
                        before = Some(owner.id);
                        if let Some(fetched) = self.from_owner(peers, &owner, key, how).await {
                            return fetched;
                        }
                    }
                    _ => break,
                }
            }
        }
        self.from_store(key, how).await
    }

    /// Asks a stripe's owner, and the store too if that takes long. `None`: the owner does not have
    /// it, for whatever reason.
    async fn from_owner(
        self: &Arc<Self>,
        peers: &Peers,
        owner: &Gateway,
        key: Key,
        how: How,
    ) -> Option<Fetched> {
        let scan = how.class == Class::Far;
        let mut asked = pin!(peers.block(owner, key.id, key.block, scan));
        let patience = peers.patience();
        let answer = match tokio::time::timeout(patience, &mut asked).await {
            Ok(answer) => answer,
            Err(_) if peers.may_hedge() => {
                self.metrics.peer_hedges.inc();
                let store = pin!(self.from_store(key, how));
                match select(asked, store).await {
                    Either::Left((Ok(bytes), _)) => Ok(bytes),
                    Either::Left((Err(_), store)) => return Some(store.await),
                    Either::Right((Ok(bytes), _)) => return Some(Ok(bytes)),
                    Either::Right((Err(_), asked)) => asked.await,
                }
            }
            Err(_) => asked.await,
        };
        let bytes = answer.ok()?;
        self.metrics.peer_blocks.inc();
        self.shelf.copied(key, bytes.clone());
        Some(Ok(bytes))
    }

    async fn from_store(self: &Arc<Self>, key: Key, how: How) -> Fetched {
        if !how.fresh
            && let Some(bytes) = self.shelf.in_memory(&key)
        {
            // A neighbour's flight has brought it.
            return Ok(bytes);
        }
        let stripe = (key.id, key.block / STRIPE_BLOCKS);
        let blocks = self.fetch(stripe, how.class).await?;
        let block = blocks.get((key.block % STRIPE_BLOCKS) as usize);
        Ok(block.cloned().unwrap_or_default())
    }

    /// Joins the flight of a stripe, or starts it.
    fn fetch(self: &Arc<Self>, stripe: Stripe, class: Class) -> Flight<Arc<[Bytes]>> {
        let mut stripes = self.stripes.lock();
        if let Some(flight) = stripes.get(&stripe) {
            return flight.clone();
        }
        let (landed, flight) = flight();
        stripes.insert(stripe, flight.clone());
        let blocks = Arc::clone(self);
        tokio::spawn(async move {
            let (id, number) = stripe;
            let first = number * STRIPE_BLOCKS;
            let start = u64::from(first) * BLOCK_BYTES;
            let range = start..start + u64::from(STRIPE_BLOCKS) * BLOCK_BYTES;
            let fetched = blocks
                .objects
                .fetch_pieces(Object::Segment(id), range, class);
            let parts = fetched.await.map(split);
            // Onto the shelf first: whoever finds no flight finds the block.
            for (part, block) in parts.iter().flat_map(|parts| parts.iter()).zip(first..) {
                let key = Key { id, block };
                blocks.shelf.fetched(key, part.clone(), class);
            }
            blocks.stripes.lock().remove(&stripe);
            drop(landed.send(parts));
        });
        flight
    }
}

/// The blocks of a stripe that came in some pieces. A piece that is a block is not copied: whoever
/// sends such pieces does so for this. Nor is a last one of half a block or more; of a shorter one
/// the memory may be much larger, that of a whole block.
fn split(pieces: Vec<Bytes>) -> Arc<[Bytes]> {
    let mut blocks = Vec::new();
    let mut open = BytesMut::new();
    let mut pieces = pieces.into_iter().peekable();
    while let Some(mut piece) = pieces.next() {
        while !piece.is_empty() {
            let length = piece.len();
            let is_last = pieces.peek().is_none();
            let whole = length == BLOCK || (is_last && (BLOCK / 2..BLOCK).contains(&length));
            if open.is_empty() && whole {
                blocks.push(std::mem::take(&mut piece));
                break;
            }
            // A slice would keep the whole piece in memory for as long as the block is kept.
            open.reserve(BLOCK - open.len());
            let part = piece.split_to(length.min(BLOCK - open.len()));
            open.extend_from_slice(&part);
            if open.len() == BLOCK {
                blocks.push(open.split().freeze());
            }
        }
    }
    if !open.is_empty() || blocks.is_empty() {
        // Without the room that was for more.
        blocks.push(Bytes::copy_from_slice(&open));
    }
    blocks.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_made_of_any_pieces() {
        let stripe: Vec<u8> = (0..3 * BLOCK + 1000).map(|n| (n >> 7) as u8).collect();
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, stripe.len()] {
            let stripe = &stripe[..length];
            for size in [1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 4 * BLOCK] {
                let pieces = stripe.chunks(size).map(Bytes::copy_from_slice);
                let blocks = split(pieces.collect());
                assert!(blocks.concat() == stripe, "{length} in {size}");
                let (last, full) = blocks.split_last().expect("a block");
                assert!(full.iter().all(|block| block.len() == BLOCK));
                assert!(last.len() <= BLOCK);
            }
        }
        let pieces: Vec<Bytes> = stripe.chunks(BLOCK).map(Bytes::copy_from_slice).collect();
        let places = |bytes: &[Bytes]| bytes.iter().map(|b| b.as_ptr()).collect::<Vec<_>>();
        let before = places(&pieces);
        assert_eq!(
            places(&split(pieces)),
            before,
            "what is a block is not copied"
        );
    }
}

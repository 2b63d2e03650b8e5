//! Reading cold offsets: record batches made of a table's row groups.
//!
//! ```text
//! root (metadata) ─► manifests ─► row group ─► index ─► pages ─► record batches ─► reader
//!                    memory       memory       memory   bytes    memory
//! ```
//!
//! A row group is fetched by one request when its index is not known yet, or when a reader goes
//! through all of it; then so are the next ones, in parallel. A reader that looks something up in a
//! row group whose index is known fetches the pages that it needs, by one request where everything
//! in front of the values is at hand. With nothing in memory that makes at most three requests:
//! root, leaf, row group.
//!
//! A page becomes record batches once, for everybody who reads it with the same codec: the batches
//! depend on nothing else, so they can be kept, and a read of a part of them costs no other part.
//!
//! Everything here is a copy of something immutable. A manifest that has been superseded leads to
//! the same records, until what it names is deleted: then the newest index is asked (see
//! [`super`]).
//!
//! # Memory
//! What is kept has its place among the blocks of `cache.memory.bytes`. Beside it there are bytes
//! on their way from the store or being made into batches, half as much at most, or one request;
//! and for each thread a page before and after. Sizes are those of what has been fetched, never
//! those of claims.
//!
//! Whoever holds room for bytes never waits for room for others, so that there is always somebody
//! who gives some back.
//!
//! Invariant: every byte that is believed is under a checksum that leads from the metadata's
//! checksum of the root. Damaged bytes are fetched once more, then refused; nothing is passed over.

mod fetch;
pub(crate) mod kept;
mod pages;
mod time;
mod trail;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use frazil_core::batch::Codec;
use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{Offset, TopicId, TopicPartition};
use frazil_table::manifest::{Found, Node};
use frazil_table::{GroupRef, Read};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::fetch::Loaded;
use self::kept::{ColdKey, GroupKey, Head, Page, PageKey};
use self::pages::Wish;
use self::trail::Trail;
use super::flights::Flights;
use super::objects::Objects;
use super::shelf::Shelf;
use super::{Class, Compression};
use crate::ReadError;
use crate::metrics::Metrics;

/// Readers at a time for whom something is fetched and made ahead.
const AHEAD_MAX: usize = 8;
/// What is made ahead for a reader, in bytes of batches before compression.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// See the module.
pub(crate) struct Cold {
    objects: Arc<Objects>,
    shelf: Arc<Shelf>,
    nodes: Arc<Flights<(TopicId, ObjectId), Arc<Node>>>,
    heads: Arc<Flights<GroupKey, Arc<Head>>>,
    groups: Arc<Flights<GroupKey, Loaded>>,
    pages: Arc<Flights<PageKey, Arc<Page>>>,
    /// Bytes that may be on their way.
    room: Arc<Semaphore>,
    room_bytes: u32,
    /// The largest row group that is fetched and kept whole.
    whole_max: u64,
    /// Bytes of row groups that are fetched ahead, of one reader and of all together.
    window: u64,
    threads: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    /// Row groups that were fetched ahead and that nobody has come to yet, with their bytes.
    unused: Mutex<HashMap<GroupKey, u64>>,
    trail: Trail,
    metrics: Metrics,
}

/// Which cold offsets to read.
#[derive(Clone, Copy)]
pub(super) struct ColdRead {
    pub(super) partition: TopicPartition,
    pub(super) from: Offset,
    /// No batch that begins here or later is given.
    pub(super) up_to: Offset,
    pub(super) compression: Compression,
    pub(super) class: Class,
}

/// Where batches go.
pub(super) trait Sink {
    /// How many bytes are wanted still.
    fn left(&self) -> u64;
    /// Takes a batch; `false`: it does not, nor any other.
    fn take(&mut self, base: Offset, next: Offset, batch: &Bytes) -> bool;
    /// There is nothing before this offset.
    fn pass(&mut self, to: Offset);
}

impl Cold {
    pub(crate) fn new(
        objects: Arc<Objects>,
        shelf: Arc<Shelf>,
        memory: usize,
        metrics: Metrics,
    ) -> Arc<Self> {
        let room_bytes = u32::try_from(memory / 2).unwrap_or(u32::MAX).max(1);
        let quarter = memory as u64 / 4;
        Arc::new(Self {
            objects,
            shelf,
            nodes: Arc::default(),
            heads: Arc::default(),
            groups: Arc::default(),
            pages: Arc::default(),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            whole_max: quarter,
            window: quarter.min(32 << 20),
            threads: Arc::new(Semaphore::new(crate::blocking::threads())),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            unused: Mutex::default(),
            trail: Trail::default(),
            metrics,
        })
    }

    /// Whether whoever reads there seems to go through the log.
    pub(super) fn is_scan(&self, partition: TopicPartition, from: Offset, root: &NodeRef) -> bool {
        from <= root.base || self.trail.has(partition, from)
    }

    /// Gives the batches below `root` to `sink`, as long as that takes them. `true`: it took all.
    pub(super) async fn read(
        self: &Arc<Self>,
        read: ColdRead,
        root: &NodeRef,
        sink: &mut impl Sink,
    ) -> Result<bool, ReadError> {
        let mut at = read.from.max(root.base);
        let scan = self.is_scan(read.partition, read.from, root);
        let mut last = 0;
        let wanted = sink.left();
        while at < root.end {
            if at >= read.up_to || sink.left() < last {
                return Ok(false);
            }
            let group = self.find(read.partition, root, at, read.class).await?;
            let skipped = group.end == root.end && at > read.from;
            if group.records == 0 || (skipped && sabotage::on(Bug::ColdReadSkipsGroup)) {
                sink.pass(group.end.min(read.up_to));
            } else {
                let wish = Wish {
                    partition: read.partition,
                    codec: read.compression.of(&group),
                    class: read.class,
                    scan: scan || at == group.base,
                };
                // Whoever looks something up and has most of what it asked for shall not wait for
                // another request.
                if !scan && last > 0 && sink.left() < wanted / 4 {
                    return Ok(false);
                }
                let given = self.read_group(read, wish, &group, at, &mut last, sink);
                if !given.await? {
                    return Ok(false);
                }
            }
            at = group.end;
        }
        Ok(true)
    }

    /// Gives the batches of a row group from `at` on. `last` is the length of the one given last:
    /// where there is no room for another like it, none is fetched.
    async fn read_group(
        self: &Arc<Self>,
        read: ColdRead,
        wish: Wish,
        group: &GroupRef,
        mut at: Offset,
        last: &mut u64,
        sink: &mut impl Sink,
    ) -> Result<bool, ReadError> {
        self.unused
            .lock()
            .remove(&GroupKey::of(wish.partition.topic, group));
        let (head, mut loaded) = self.head(wish.partition, group, wish.class).await?;
        let wanted = sink.left();
        while at < group.end {
            let most = *last > 0 && !wish.scan && sink.left() < wanted / 4;
            if most || sink.left() < *last {
                return Ok(false);
            }
            let budget = before_compression(sink.left(), group, &head, wish.codec);
            let pages = Read::from(group, &head.index, at, budget);
            at = pages.offsets().end;
            for wanted in self.pages(wish, group, &head, loaded.take(), &pages) {
                for cut in &wanted.page().await?.batches {
                    if cut.next <= read.from {
                        continue;
                    }
                    if cut.base >= read.up_to || !sink.take(cut.base, cut.next, &cut.bytes) {
                        return Ok(false);
                    }
                    *last = cut.bytes.len() as u64;
                }
            }
        }
        Ok(true)
    }

    /// The row group that holds `at`, which lies below `root`.
    async fn find(
        self: &Arc<Self>,
        partition: TopicPartition,
        root: &NodeRef,
        at: Offset,
        class: Class,
    ) -> Result<GroupRef, ReadError> {
        let mut reference = root.clone();
        loop {
            let node = self.node(partition, &reference, class).await?;
            let below = match node.find(at) {
                Some(Found::Group(group)) => return Ok(group.clone()),
                Some(Found::Node(below)) => below.clone(),
                None => {
                    let object = TableObject::Manifest(partition.partition, reference.id);
                    return Err(self.damaged(partition, object, &format!("{at} is not in it")));
                }
            };
            reference = below;
        }
    }

    /// A reader will go on with `read`. If it is a `scan`, what it will find there is fetched and
    /// made, as much as `bytes` of batches.
    pub(super) fn goes_on(
        self: &Arc<Self>,
        read: ColdRead,
        root: &NodeRef,
        bytes: u64,
        scan: bool,
    ) {
        self.trail.put(read.partition, read.from);
        if !scan || read.from >= root.end {
            return;
        }
        let Ok(place) = Arc::clone(&self.ahead).try_acquire_owned() else {
            return;
        };
        let (cold, root) = (Arc::clone(self), root.clone());
        tokio::spawn(async move {
            // Whoever needs it will see the error.
            drop(cold.prepare(read, &root, bytes).await);
            drop(place);
        });
    }

    /// Whether a row group may be fetched ahead: there is room, and all readers together have not
    /// had more fetched than memory keeps until they come to it.
    fn may_fetch(&self, key: GroupKey, length: u64) -> bool {
        // Half of the room is for those who wait.
        let crowded = (self.room.available_permits() as u64) < u64::from(self.room_bytes) / 2;
        let mut unused = self.unused.lock();
        unused.retain(|key, _| {
            self.groups.get(key).is_some() || self.shelf.has_cold(&ColdKey::Group(*key))
        });
        let may = !crowded && unused.values().sum::<u64>() + length <= self.window;
        if may {
            unused.insert(key, length);
        }
        may
    }

    async fn prepare(
        self: &Arc<Self>,
        read: ColdRead,
        root: &NodeRef,
        bytes: u64,
    ) -> Result<(), ReadError> {
        let ColdRead {
            partition, class, ..
        } = read;
        let group = self.find(partition, root, read.from, class).await?;
        let (mut at, mut ahead) = (group.end, 0);
        while at < root.end && ahead < self.window {
            let next = self.find(partition, root, at, class).await?;
            let length = u64::from(next.length);
            (at, ahead) = (next.end, ahead + length);
            let key = GroupKey::of(partition.topic, &next);
            if length == 0 || length > self.whole_max {
                continue;
            }
            // What is there is used by this, so that it stays until its reader comes.
            if self.shelf.cold(&ColdKey::Group(key)).is_some() || !self.may_fetch(key, length) {
                continue;
            }
            // Nobody waits for it here: it would be held, with its place in the room, by a task that
            // may need room itself.
            drop(self.whole(partition, &next, class));
        }
        if group.records > 0 {
            let wish = Wish {
                partition,
                codec: read.compression.of(&group),
                class,
                scan: true,
            };
            let (head, loaded) = self.head(partition, &group, class).await?;
            let budget = before_compression(bytes, &group, &head, wish.codec);
            let budget = budget.min(AHEAD_BYTES_MAX);
            let some = Read::from(&group, &head.index, read.from, budget);
            for page in self.pages(wish, &group, &head, loaded, &some) {
                page.page().await?;
            }
        }
        Ok(())
    }
}

/// How many bytes before compression become so many bytes of batches, about.
fn before_compression(wanted: u64, group: &GroupRef, head: &Head, codec: Codec) -> u64 {
    if codec == Codec::None {
        return wanted;
    }
    // No codec makes much less of a page than the one in the file; lz4 makes half as much again.
    let stored = u128::from(group.length) * 8 / 5;
    let more = u128::from(wanted) * u128::from(head.uncompressed) / stored.max(1);
    u64::try_from(more).map_or(u64::MAX, |more| {
        more.clamp(wanted, wanted.saturating_mul(16))
    })
}

//! Reading batches, wherever they are.
//!
//! ```text
//! index ─► extents ─┬─ a recent segment, or this gateway's log ─► tail (memory)
//!       │           ├─ another segment ─┬─► blocks: memory, disk, another gateway, object store
//!       │           │                   └─► what the read wants, of a disk in this machine (ahead)
//!       │           └─ another gateway's log ─► that gateway (peer)
//!       └─► root of a manifest ─► row groups of a table, made into batches (cold)
//! ```
//!
//! Offsets that are lost for good are passed over, as those that compaction removed are in Kafka. A
//! read that finds nothing else answers one batch without records that takes them, so that the
//! reader gets behind them.
//!
//! An index entry is old at worst, never wrong: if what it names is gone, the newest index is
//! asked before the reader hears of it. Bytes from the store or a disk are checked against each
//! batch's CRC every time, and so are bytes from another gateway; bytes in the tail are what was
//! appended here. A gateway that does not answer in time is given up, the newest index is asked
//! whether the bytes have moved to a segment meanwhile, and if not, the read fails for now.

pub(crate) mod ahead;
pub(crate) mod blocks;
pub(crate) mod cold;
pub(crate) mod flights;
pub(crate) mod hedge;
pub(crate) mod objects;
mod places;
pub(crate) mod plan;
pub(crate) mod shelf;
mod source;
mod stamp;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::{BatchHeader, Codec, HEADER_LENGTH, HeaderError};
use frazil_core::cold::NodeRef;
use frazil_core::ports::{Bounds, Located, LogIndex};
use frazil_core::sabotage::{self, Bug};
use frazil_core::{BrokerEpoch, BrokerId, Extent, Location, Offset, SegmentId, TopicPartition};
use frazil_table::GroupRef;
use futures_util::future::{join_all, try_join_all};
use tracing::warn;

use self::ahead::Ahead;
use self::blocks::Blocks;
use self::cold::{Cold, ColdRead, Sink};
use self::places::Places;
use self::plan::{BlockRun, SCRAP, blocks as block_range, exact, is_long, plan};
use self::source::{Parts, Source};
use self::stamp::Stamper;
use crate::ReadError;
use crate::metrics::Metrics;
use crate::peer::{PeerError, Peers};
use crate::tail::Tail;

/// How often what the index names is looked for again.
const RETRIES: u32 = 3;
/// The wait between two of them, once the newest index has been asked: some stores show an object
/// late.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// The most extents that one read covers.
const EXTENTS_MAX: usize = 1024;
/// The most segments that one read fetches blocks of: where a partition has few bytes in each of
/// many segments, the first of them are answered before the others are fetched.
const COLD_EXTENTS_MAX: usize = 16;
/// The most extents of another gateway's log that are asked for at once.
const PEER_EXTENTS_MAX: usize = 16;

/// Whose blocks come first where there is not room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Those of readers near the end of the log: others will want them too.
    Near,
    /// Those of readers far behind, which pass by once.
    Far,
}

/// How blocks are to be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) class: Class,
    /// From the store: copies have turned out to be damaged.
    pub(crate) fresh: bool,
}

impl From<Class> for How {
    fn from(class: Class) -> Self {
        Self {
            class,
            fresh: false,
        }
    }
}

/// What a batch is read for.
#[derive(Clone, Copy)]
struct Wanted {
    /// How many bytes may be needed from there on, so that they are fetched together.
    bytes: u64,
    how: How,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// Of which partition.
    pub partition: TopicPartition,
    /// The first offset wanted. The batch that contains it is returned whole.
    pub from: Offset,
    /// No batch that begins here or later is returned: the high watermark, or the last stable
    /// offset.
    pub up_to: Offset,
    /// Bytes to return at most.
    pub max_bytes: usize,
    /// Return the first batch even if it is larger than that (KIP-74).
    pub min_one: bool,
    /// How batches are compressed that are made of a table. Others come as they were appended.
    pub compression: Compression,
}

/// How batches that are made of a table are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// So.
    As(Codec),
    /// As the producers did it, so that whoever could read the records while they were not cold can
    /// read them now.
    AsProduced {
        /// Whether the reader's version of Fetch may be answered with zstd.
        zstd: bool,
    },
}

impl Compression {
    /// The codec of the batches made of a row group.
    fn of(self, group: &GroupRef) -> Codec {
        match self {
            Self::As(codec) => codec,
            Self::AsProduced { zstd } => match group.codec {
                Some(Codec::Zstd) if !zstd => Codec::Lz4,
                Some(codec) => codec,
                // Written before it was noted.
                None => Codec::Lz4,
            },
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Whole batches, stamped, ready for the wire back to back. A batch may span pieces.
    pub pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    pub bytes: usize,
    /// One past the last offset returned, or the offset asked for if nothing was.
    pub next: Offset,
}

/// What readers may do with the memory for blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A reader with more bytes of its partition before it than this is far behind.
    far: u64,
    /// How much is fetched ahead for such a reader, in bytes of its partition.
    window: u64,
}

impl Limits {
    /// Those for so many bytes of memory, and a store in this machine or not.
    pub(crate) fn of(memory: usize, local_store: bool) -> Self {
        let memory = memory as u64;
        Self {
            // Where a scan costs only what it reads, little is gained by blocks that others want too.
            far: match local_store {
                true => memory / 16,
                false => memory / 4,
            },
            // There are many of them: what is fetched too early is gone when it is wanted.
            window: (memory / 32).clamp(1 << 20, 8 << 20),
        }
    }
}

/// Where a reader finds what the index names.
pub(crate) struct Sources {
    pub(crate) tail: Arc<Tail>,
    pub(crate) blocks: Arc<Blocks>,
    /// `None`: the store is not in this machine.
    pub(crate) ahead: Option<Ahead>,
    pub(crate) cold: Arc<Cold>,
    pub(crate) peers: Option<Arc<Peers>>,
}

/// Blocks, and parts of segments.
type Plan = (Vec<BlockRun>, Vec<SegmentPart>);
type SegmentPart = (SegmentId, Range<u64>);

/// See the module.
pub(crate) struct Reader {
    broker: BrokerId,
    index: Arc<dyn LogIndex>,
    tail: Arc<Tail>,
    blocks: Arc<Blocks>,
    ahead: Option<Ahead>,
    cold: Arc<Cold>,
    peers: Option<Arc<Peers>>,
    places: Places,
    limits: Limits,
    metrics: Metrics,
}

/// A batch in an extent.
struct Found {
    base: Offset,
    /// The offset of the next batch.
    next: Offset,
    /// The byte of the next batch.
    end: u64,
    bytes: Bytes,
}

/// What is wrong with a batch.
enum Flaw {
    /// It could not be read.
    Read(ReadError),
    /// It is not what it should be.
    Bytes(String),
}

/// What a read has so far.
struct Progress {
    stamper: Stamper,
    next: Offset,
    /// How many extents came from beyond the tail.
    cold: usize,
    class: Class,
    /// Extents of another gateway's log that have been fetched ahead.
    wal: HashMap<(BrokerEpoch, u64), Bytes>,
}

impl Reader {
    pub(crate) fn new(
        broker: BrokerId,
        index: Arc<dyn LogIndex>,
        sources: Sources,
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        let Sources {
            tail,
            blocks,
            ahead,
            cold,
            peers,
        } = sources;
        Self {
            broker,
            index,
            tail,
            blocks,
            ahead,
            cold,
            peers,
            places: Places::default(),
            limits,
            metrics,
        }
    }

    pub(crate) async fn read(&self, request: &ReadRequest) -> Result<Read, ReadError> {
        let mut retries = 0;
        loop {
            match self.read_once(request).await {
                Err(error) if self.is_worth_another_look(&error, retries) => {
                    self.refresh(retries).await?;
                    retries += 1;
                }
                result => return result,
            }
        }
    }

    pub(crate) async fn read_extent(
        &self,
        partition: TopicPartition,
        extent: &Extent,
    ) -> Result<Vec<(Offset, Bytes)>, ReadError> {
        let mut retries = 0;
        let mut located = Located {
            cold: None,
            extents: vec![*extent],
        };
        loop {
            match self.batches_of(partition, extent, &located).await {
                Err(error) if self.is_worth_another_look(&error, retries) => {
                    self.refresh(retries).await?;
                    retries += 1;
                    // It may have moved, and have been joined with its neighbours.
                    let length = u64::from(extent.location.length());
                    located = self.locate(partition, extent.base, length);
                    located.extents.retain(|moved| moved.base < extent.end);
                }
                result => return result,
            }
        }
    }

    pub(crate) async fn find_time(
        &self,
        partition: TopicPartition,
        root: &NodeRef,
        from: Offset,
        timestamp: Option<i64>,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let mut retries = 0;
        let mut root = root.clone();
        loop {
            let found = match timestamp {
                Some(at) => self.cold.find_time(partition, &root, from, at).await,
                None => self.cold.find_max_time(partition, &root, from).await,
            };
            match found {
                Err(error) if self.is_worth_another_look(&error, retries) => {
                    self.refresh(retries).await?;
                    retries += 1;
                    // It has been replaced, perhaps.
                    let located = self.locate(partition, from.max(root.base), 1);
                    root = located.cold.unwrap_or(root);
                }
                result => return result,
            }
        }
    }

    /// Whether the newest index may name another place.
    fn is_worth_another_look(&self, error: &ReadError, retries: u32) -> bool {
        match error {
            ReadError::NotFound { .. } => retries < RETRIES,
            // It has been waited for.
            ReadError::ElsewhereInWal { .. } => retries == 0 && self.peers.is_some(),
            _ => false,
        }
    }

    /// Waits for the newest index.
    async fn refresh(&self, retries: u32) -> Result<(), ReadError> {
        if retries > 0 {
            tokio::time::sleep(RETRY_WAIT).await;
        }
        Ok(self.index.barrier().await?)
    }

    fn locate(&self, partition: TopicPartition, from: Offset, bytes: u64) -> Located {
        let mut located = self.index.locate(&partition, from, bytes);
        located.extents.truncate(EXTENTS_MAX);
        located
    }

    /// The batches that hold offsets of `wanted`, where they are by now.
    async fn batches_of(
        &self,
        partition: TopicPartition,
        wanted: &Extent,
        located: &Located,
    ) -> Result<Vec<(Offset, Bytes)>, ReadError> {
        let mut batches = Vec::new();
        if let Some(root) = &located.cold {
            let read = ColdRead {
                partition,
                from: wanted.base,
                up_to: wanted.end,
                compression: Compression::As(Codec::None),
                class: Class::Far,
            };
            self.cold.read(read, root, &mut batches).await?;
        }
        let cold = batches.len();
        for extent in &located.extents {
            if extent.location == Location::Lost {
                continue;
            }
            let mut source = self.source(extent).await?;
            let (mut at, end) = byte_range(extent);
            let mut offset = extent.base;
            while at < end {
                let wanted = Wanted {
                    bytes: u64::MAX,
                    how: How::from(Class::Far),
                };
                let found = self.batch(partition, extent, &mut source, at, offset, wanted);
                let found = found.await?;
                batches.push((found.base, found.bytes));
                (at, offset) = (found.end, found.next);
            }
        }
        // One that is made of a table may begin before.
        let mut index = 0;
        batches.retain(|(base, _)| {
            index += 1;
            index <= cold || (wanted.base..wanted.end).contains(base)
        });
        Ok(batches)
    }

    async fn read_once(&self, request: &ReadRequest) -> Result<Read, ReadError> {
        let Some(bounds) = self.index.bounds(&request.partition) else {
            return Err(ReadError::UnknownPartition(request.partition));
        };
        let mut progress = Progress {
            stamper: Stamper::default(),
            next: request.from,
            cold: 0,
            class: Class::Near,
            wal: HashMap::new(),
        };
        if request.from < request.up_to && (request.max_bytes > 0 || request.min_one) {
            let wanted = request.max_bytes.max(1) as u64;
            let Located { cold, extents } = self.locate(request.partition, request.from, wanted);
            let cold = cold.filter(|root| request.from < root.end);
            let enough = match &cold {
                Some(root) => !self.read_cold(request, root, &mut progress).await?,
                None => false,
            };
            progress.class = self.class(progress.next, &bounds, extents.first());
            let extents = if enough { &[][..] } else { &extents };
            for index in 0..extents.len() {
                match self.walk(request, &extents[index..], &mut progress).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    // What there is goes out. The next read meets the same, and says so.
                    Err(_) if progress.stamper.bytes() > 0 => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if progress.stamper.bytes() == 0 && progress.next > request.from {
            // All of it is lost. Whoever is told of no offset would ask for the same again.
            let (batch, next) = hole(request.from, progress.next);
            progress.next = request.from;
            if batch.len() <= request.max_bytes || request.min_one {
                progress.stamper.push(request.from, &batch);
                progress.next = next;
            }
        }
        if progress.cold == 0 && progress.stamper.bytes() > 0 {
            self.metrics.tail_hits.inc();
        }
        if progress.class == Class::Far && progress.stamper.bytes() > 0 {
            self.read_ahead(request, progress.next);
        }
        Ok(Read {
            bytes: progress.stamper.bytes(),
            pieces: progress.stamper.finish(),
            next: progress.next,
        })
    }

    /// Collects what is wanted of cold offsets. `false`: there is enough.
    async fn read_cold(
        &self,
        request: &ReadRequest,
        root: &NodeRef,
        progress: &mut Progress,
    ) -> Result<bool, ReadError> {
        progress.cold += 1;
        let behind = u128::from(root.bytes) * between(request.from, root.end)
            / between(root.base, root.end).max(1);
        let mut read = ColdRead {
            partition: request.partition,
            from: request.from,
            up_to: request.up_to,
            compression: request.compression,
            class: match behind > u128::from(self.limits.far) {
                true => Class::Far,
                false => Class::Near,
            },
        };
        let scan = self.cold.is_scan(read.partition, read.from, root);
        let mut taker = Taker { request, progress };
        let more = match self.cold.read(read, root, &mut taker).await {
            // What there is goes out. The next read meets the same, and says so.
            Err(_) if progress.stamper.bytes() > 0 => false,
            result => result?,
        };
        if progress.stamper.bytes() > 0 {
            self.metrics.cold_reads.inc();
        }
        read.from = progress.next;
        let bytes = request.max_bytes as u64;
        self.cold.goes_on(read, root, bytes, scan);
        Ok(more)
    }

    /// Collects what is wanted of the first extent; the others are those behind it. `false`:
    /// there is enough.
    async fn walk(
        &self,
        request: &ReadRequest,
        extents: &[Extent],
        progress: &mut Progress,
    ) -> Result<bool, ReadError> {
        let partition = request.partition;
        let extent = &extents[0];
        if extent.base >= request.up_to {
            return Ok(false);
        }
        if extent.location == Location::Lost {
            progress.next = progress.next.max(extent.end.min(request.up_to));
            return Ok(true);
        }
        let left = |progress: &Progress| {
            let left = request.max_bytes.saturating_sub(progress.stamper.bytes());
            left as u64
        };
        let mut source = match extent.location {
            Location::Wal { broker, .. } if broker != self.broker => {
                let wanted = left(progress);
                self.peer_source(broker, extents, wanted, progress).await?
            }
            _ => self.source(extent).await?,
        };
        let (start, end) = byte_range(extent);
        let (mut at, mut offset) = (start, extent.base);
        if let Location::Segment { id, .. } = extent.location
            && offset < progress.next
            && let Some(place) = self.places.get(partition, progress.next, id)
            && (start..end).contains(&place)
        {
            (at, offset) = (place, progress.next);
        }
        if let Source::Object(parts) = &mut source {
            if progress.cold == COLD_EXTENTS_MAX && progress.stamper.bytes() > 0 {
                return Ok(false);
            }
            progress.cold += 1;
            let extents = &extents[..extents.len().min(COLD_EXTENTS_MAX)];
            let (skip, left) = (at - start, left(progress));
            parts.exact = self.exactly(extent, progress.class).is_some();
            if parts.exact && left < SCRAP && progress.stamper.bytes() > 0 {
                return Ok(false);
            }
            self.load_ahead(extents, skip, left, progress.class, parts)
                .await?;
        }
        while at < end {
            let wanted = Wanted {
                bytes: left(progress),
                how: How::from(progress.class),
            };
            if progress.stamper.bytes() > 0 && source.ends_before(at, wanted.bytes) {
                // It has too many bytes for this read. Those that are not here are not fetched.
                self.remember(partition, offset, extent, at, progress);
                return Ok(false);
            }
            let found = self.batch(partition, extent, &mut source, at, offset, wanted);
            let found = found.await?;
            if found.base >= request.up_to {
                return Ok(false);
            }
            if found.next > progress.next {
                let first = request.min_one && progress.stamper.bytes() == 0;
                if found.bytes.len() as u64 > left(progress) && !first {
                    self.remember(partition, found.base, extent, at, progress);
                    return Ok(false);
                }
                progress.stamper.push(found.base, &found.bytes);
                progress.next = found.next;
            }
            (at, offset) = (found.end, found.next);
        }
        Ok(true)
    }

    /// Notes where the next read will begin, and has the block behind that one fetched.
    fn remember(
        &self,
        partition: TopicPartition,
        offset: Offset,
        extent: &Extent,
        at: u64,
        progress: &Progress,
    ) {
        let Location::Segment { id, .. } = extent.location else {
            return;
        };
        self.places.put(partition, offset, id, at);
        let (_, end) = byte_range(extent);
        let (current, last) = block_range(at, end);
        let blocks = self.exactly(extent, progress.class).is_none();
        if progress.cold > 0 && blocks && current < last {
            let run = BlockRun {
                id,
                first: current + 1,
                last: current + 1,
            };
            self.blocks.prefetch(run, progress.class);
        }
    }

    /// How far behind a reader is, by the length of the records that it reads next.
    fn class(&self, from: Offset, bounds: &Bounds, next: Option<&Extent>) -> Class {
        let Some(extent) = next else {
            return Class::Near;
        };
        let records = between(extent.base, extent.end).max(1);
        let behind =
            between(from, bounds.high_watermark) * u128::from(extent.location.length()) / records;
        match behind > u128::from(self.limits.far) {
            true => Class::Far,
            false => Class::Near,
        }
    }

    /// How the bytes of an extent are fetched by themselves, if they are.
    fn exactly(&self, extent: &Extent, class: Class) -> Option<&Ahead> {
        let scans = class == Class::Far && is_long(extent);
        self.ahead.as_ref().filter(|_| scans)
    }

    /// What a read of the first `bytes` of some extents, from byte `skip` of the first one on, will
    /// need: blocks, and parts of segments.
    fn plan(&self, extents: &[Extent], skip: u64, bytes: u64, class: Class) -> Plan {
        let at_hand = |id| self.tail.segment(id).is_some();
        let by_itself = |extent: &Extent| self.exactly(extent, class).is_some();
        let exact = match (&self.ahead, class) {
            (Some(_), Class::Far) => exact(extents, skip, bytes, at_hand),
            _ => Vec::new(),
        };
        (plan(extents, skip, bytes, at_hand, by_itself), exact)
    }

    fn prefetch(&self, runs: Vec<BlockRun>, exact: Vec<SegmentPart>, class: Class) {
        for run in runs {
            self.blocks.prefetch(run, class);
        }
        for (id, range) in exact {
            if let Some(ahead) = &self.ahead {
                ahead.expect(id, range);
            }
        }
    }

    /// Has the next bytes of a partition fetched, for a reader that goes on at `next`.
    fn read_ahead(&self, request: &ReadRequest, next: Offset) {
        let partition = request.partition;
        let window = self.limits.window;
        let Located { cold, mut extents } = self.locate(partition, next, window);
        if cold.is_some() {
            // What is cold is fetched ahead elsewhere.
            return;
        }
        extents.truncate(COLD_EXTENTS_MAX);
        let Some(first) = extents.first() else {
            return;
        };
        let (start, _) = byte_range(first);
        let skip = match first.location {
            Location::Segment { id, .. } => {
                let place = self.places.get(partition, next, id);
                place.map_or(0, |place| place.saturating_sub(start))
            }
            Location::Wal { .. } | Location::Lost => 0,
        };
        let bytes = match self.ahead {
            Some(_) => window.min(request.max_bytes as u64),
            None => window,
        };
        let (runs, exact) = self.plan(&extents, skip, bytes, Class::Far);
        self.prefetch(runs, exact, Class::Far);
    }

    async fn source(&self, extent: &Extent) -> Result<Source, ReadError> {
        match extent.location {
            Location::Segment { id, .. } => Ok(match self.tail.segment(id) {
                Some(object) => Source::Memory(0, object),
                None => Source::Object(Parts::new(id, false)),
            }),
            Location::Lost => Err(ReadError::NotFound {
                what: format!("offsets {} to {}, which are lost", extent.base, extent.end),
            }),
            Location::Wal {
                broker,
                epoch,
                start,
                length,
            } if broker != self.broker => {
                let bytes = self.ask_peer(broker, epoch, start, length).await?;
                Ok(Source::Peer(broker, start, bytes))
            }
            Location::Wal {
                epoch,
                start,
                length,
                ..
            } => match self.tail.wal(epoch, start, length) {
                Some(bytes) => Ok(Source::Memory(start, bytes)),
                // It has moved to a segment meanwhile.
                None => Err(not_in_wal(epoch, start)),
            },
        }
    }

    /// The bytes of the first extent, which `broker` has in its log. Those behind it are asked for
    /// at the same time, as far as the read will need them.
    async fn peer_source(
        &self,
        broker: BrokerId,
        extents: &[Extent],
        wanted: u64,
        progress: &mut Progress,
    ) -> Result<Source, ReadError> {
        let mut places = Vec::new();
        let mut bytes = 0;
        for extent in extents.iter().take(PEER_EXTENTS_MAX) {
            match extent.location {
                Location::Wal {
                    broker: holder,
                    epoch,
                    start,
                    length,
                } if holder == broker && (places.is_empty() || bytes < wanted) => {
                    bytes += u64::from(length);
                    places.push((epoch, start, length));
                }
                _ => break,
            }
        }
        progress.cold += 1;
        let (epoch, start, _) = places[0];
        if let Some(bytes) = progress.wal.remove(&(epoch, start)) {
            return Ok(Source::Peer(broker, start, bytes));
        }
        let asked = places
            .iter()
            .map(|&(epoch, start, length)| self.ask_peer(broker, epoch, start, length));
        let mut answers = join_all(asked).await.into_iter();
        let first = answers.next();
        for (&(epoch, start, _), answer) in places[1..].iter().zip(answers) {
            if let Ok(bytes) = answer {
                progress.wal.insert((epoch, start), bytes);
            }
        }
        first
            .unwrap_or(Err(ReadError::ElsewhereInWal { broker }))
            .map(|bytes| Source::Peer(broker, start, bytes))
    }

    async fn ask_peer(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        start: u64,
        length: u32,
    ) -> Result<Bytes, ReadError> {
        let Some(peers) = &self.peers else {
            return Err(ReadError::ElsewhereInWal { broker });
        };
        let answer = peers.wal(broker, epoch, start, length).await;
        answer.map_err(|error| match error {
            PeerError::NotHere => not_in_wal(epoch, start),
            PeerError::Failed(_) => ReadError::ElsewhereInWal { broker },
        })
    }

    /// Fetches what a read of `extents` from byte `skip` of the first on will need, all at once,
    /// and waits for what belongs to the first one's segment.
    async fn load_ahead(
        &self,
        extents: &[Extent],
        skip: u64,
        budget: u64,
        class: Class,
        parts: &mut Parts,
    ) -> Result<(), ReadError> {
        let (runs, mut exact) = self.plan(extents, skip, budget, class);
        let own = |run: &BlockRun| run.id == parts.id && !parts.exact;
        let (own, others): (Vec<BlockRun>, Vec<BlockRun>) = runs.into_iter().partition(own);
        let first = match parts.exact && !exact.is_empty() {
            true => Some(exact.remove(0)),
            false => None,
        };
        self.prefetch(others, exact, class);
        if let (Some(ahead), Some((id, range))) = (&self.ahead, first) {
            let from = range.start;
            parts.add(from, ahead.take(id, range).await?.iter().cloned());
        }
        let loads = own.into_iter();
        let loads = loads.map(|run| self.blocks.load(run, How::from(class)));
        let loaded = try_join_all(loads).await?;
        parts.add_blocks(loaded.into_iter().flatten());
        Ok(())
    }

    /// The batch at byte `at` of an extent, whose base offset is `base`.
    async fn batch(
        &self,
        partition: TopicPartition,
        extent: &Extent,
        source: &mut Source,
        at: u64,
        base: Offset,
        mut wanted: Wanted,
    ) -> Result<Found, ReadError> {
        loop {
            let reason = match self.parse(extent, source, at, base, wanted).await {
                Ok(found) => return Ok(found),
                Err(Flaw::Read(error)) => return Err(error),
                Err(Flaw::Bytes(reason)) => reason,
            };
            let what = format!(
                "the batch of {partition} at offset {base}, byte {at} of {:?}",
                extent.location
            );
            self.metrics.corrupt.inc();
            warn!(%what, %reason, "damaged bytes");
            if let Source::Peer(broker, ..) = source {
                return Err(ReadError::ElsewhereInWal { broker: *broker });
            }
            if let Source::Object(parts) = source
                && !wanted.how.fresh
            {
                // A copy may be at fault, here or where it came from: once more, from the store.
                wanted.how.fresh = true;
                let (first, last) = block_range(at, byte_range(extent).1);
                self.blocks.forget(BlockRun {
                    id: parts.id,
                    first,
                    last,
                });
                parts.clear();
                continue;
            }
            return Err(ReadError::Corrupt { what, reason });
        }
    }

    async fn parse(
        &self,
        extent: &Extent,
        source: &mut Source,
        at: u64,
        base: Offset,
        wanted: Wanted,
    ) -> Result<Found, Flaw> {
        let (_, end) = byte_range(extent);
        let flaw = |reason: &str| Err(Flaw::Bytes(reason.to_owned()));
        let mut length = HEADER_LENGTH as u64;
        loop {
            if at + length > end {
                return flaw("the batch is longer than its extent");
            }
            let ahead = end.min(at.saturating_add(wanted.bytes));
            let bytes = self
                .bytes(source, at, at + length, ahead, wanted.how)
                .await?;
            let header = match BatchHeader::parse(&bytes) {
                Ok(header) => header,
                Err(HeaderError::Truncated { need, .. }) if need as u64 > length => {
                    length = need as u64;
                    continue;
                }
                Err(error) => return flaw(&error.to_string()),
            };
            if !matches!(source, Source::Memory(..))
                && !sabotage::on(Bug::ReadIgnoresCrc)
                && let Err(error) = header.check_crc(&bytes)
            {
                return flaw(&error.to_string());
            }
            let next = base + header.offsets();
            let last = at + length == end;
            if next > extent.end || last != (next == extent.end) {
                return flaw("the batches do not take the offsets of their extent");
            }
            return Ok(Found {
                base,
                next,
                end: at + length,
                bytes,
            });
        }
    }

    /// Bytes `from .. to` of the source. If they are not at hand, those up to `ahead` are fetched
    /// with them.
    async fn bytes(
        &self,
        source: &mut Source,
        from: u64,
        to: u64,
        ahead: u64,
        how: How,
    ) -> Result<Bytes, Flaw> {
        if let Some(bytes) = source.slice(from, to) {
            return Ok(bytes);
        }
        let short = || Flaw::Bytes("the object is shorter than its extent".into());
        let Source::Object(parts) = source else {
            return Err(short());
        };
        let ahead = ahead.max(to);
        // What lies behind is done with.
        parts.done_below(from);
        if let Some(exactly) = self.ahead.as_ref().filter(|_| parts.exact) {
            if !how.fresh {
                let taken = exactly.take(parts.id, from..ahead).await;
                parts.add(from, taken.map_err(Flaw::Read)?.iter().cloned());
                if let Some(bytes) = parts.slice(from, to) {
                    return Ok(bytes);
                }
                // Less was fetched ahead than this batch has.
            }
            let fresh = exactly.take_fresh(parts.id, from..ahead).await;
            parts.add(from, fresh.map_err(Flaw::Read)?.iter().cloned());
            return parts.slice(from, to).ok_or_else(short);
        }
        let (first, last) = block_range(from, ahead);
        let run = BlockRun {
            id: parts.id,
            first,
            last,
        };
        let loaded = self.blocks.load(run, how).await.map_err(Flaw::Read)?;
        parts.add_blocks(loaded);
        source.slice(from, to).ok_or_else(short)
    }
}

/// Takes batches made of a table for a read.
struct Taker<'a> {
    request: &'a ReadRequest,
    progress: &'a mut Progress,
}

impl Sink for Taker<'_> {
    fn left(&self) -> u64 {
        let left = self.request.max_bytes;
        left.saturating_sub(self.progress.stamper.bytes()) as u64
    }

    fn take(&mut self, base: Offset, next: Offset, batch: &Bytes) -> bool {
        let first = self.request.min_one && self.progress.stamper.bytes() == 0;
        if batch.len() as u64 > self.left() && !first {
            return false;
        }
        self.progress.stamper.push(base, batch);
        self.progress.next = next;
        true
    }

    fn pass(&mut self, to: Offset) {
        self.progress.next = self.progress.next.max(to);
    }
}

/// All batches of an extent that has become cold.
impl Sink for Vec<(Offset, Bytes)> {
    fn left(&self) -> u64 {
        u64::MAX
    }

    fn take(&mut self, base: Offset, _: Offset, batch: &Bytes) -> bool {
        self.push((base, batch.clone()));
        true
    }

    fn pass(&mut self, _: Offset) {}
}

/// How many offsets there are from one to another.
fn between(from: Offset, to: Offset) -> u128 {
    u128::try_from(to.0 - from.0).unwrap_or(0)
}

fn not_in_wal(epoch: BrokerEpoch, start: u64) -> ReadError {
    ReadError::NotFound {
        what: format!("position {start} of the write-ahead log of epoch {epoch}"),
    }
}

/// A batch without records that takes the offsets `from .. to`, or as many as one batch can, and
/// where it ends. It is what compaction leaves of a batch in Kafka: every client goes on behind it.
fn hole(from: Offset, to: Offset) -> (Bytes, Offset) {
    let count = to.0.saturating_sub(from.0).clamp(1, i64::from(i32::MAX)) as u32;
    (frazil_core::batch::empty_batch(count), from + count)
}

/// The bytes of an extent in its object or log.
fn byte_range(extent: &Extent) -> (u64, u64) {
    let (start, length) = match extent.location {
        Location::Segment { start, length, .. } => (u64::from(start), length),
        Location::Wal { start, length, .. } => (start, length),
        Location::Lost => (0, 0),
    };
    (start, start + u64::from(length))
}

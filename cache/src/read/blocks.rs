//! Blocks of objects: cached in memory and perhaps on disk, fetched at most once at a time.
//!
//! What is cached is a copy of an immutable object, so nothing is ever invalidated; a copy that
//! turns out to be damaged is dropped and fetched again. Readers that need blocks lag behind the
//! tail: they have their own limit of requests, and cannot evict the tail.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, Code, DeviceBuilder, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, HybridCachePolicy, RecoverMode,
};
use frazil_core::{BrokerEpoch, SegmentId};
use frazil_objects::{Failure, Retries};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::plan::{BLOCK_BYTES, BlockRun};
use crate::config::{BlockDisk, Config};
use crate::flush::upload::object_path;
use crate::metrics::Metrics;
use crate::{Error, ReadError};

/// The most blocks that one request fetches.
const RUN_MAX: usize = 8;
/// After this time a request is taken for lost.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// For so long an object that the index names is looked for. Stores have answered 404 for what
/// was there.
const MISSING_PATIENCE: Duration = Duration::from_secs(2);

/// A block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    id: SegmentId,
    block: u32,
}

impl Code for Key {
    fn encode(&self, writer: &mut impl std::io::Write) -> foyer::Result<()> {
        let mut out = [0; 20];
        out[..8].copy_from_slice(&self.id.epoch.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.id.number.to_be_bytes());
        out[16..].copy_from_slice(&self.block.to_be_bytes());
        writer.write_all(&out).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl std::io::Read) -> foyer::Result<Self> {
        let mut bytes = [0; 20];
        reader
            .read_exact(&mut bytes)
            .map_err(foyer::Error::io_error)?;
        let mut numbers = bytes[..16].chunks_exact(8).map(|field| {
            let mut number = [0; 8];
            number.copy_from_slice(field);
            u64::from_be_bytes(number)
        });
        let mut number = || numbers.next().unwrap_or_default();
        let id = SegmentId::new(BrokerEpoch(number()), number());
        let mut block = [0; 4];
        block.copy_from_slice(&bytes[16..]);
        Ok(Self {
            id,
            block: u32::from_be_bytes(block),
        })
    }

    fn estimated_size(&self) -> usize {
        20
    }
}

enum Store {
    Memory(Cache<Key, Bytes>),
    Disk(HybridCache<Key, Bytes>),
}

type Fetched = Result<Bytes, ReadError>;
type Flight = Shared<BoxFuture<'static, Fetched>>;

/// See the module.
pub(crate) struct Blocks {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    cached: Store,
    /// Blocks that are being fetched.
    flights: Mutex<HashMap<Key, Flight>>,
    /// Requests at a time.
    requests: Semaphore,
    timeout: Duration,
    retries: Retries,
    metrics: Metrics,
}

impl Blocks {
    pub(crate) async fn open(
        config: &Config,
        objects: Arc<dyn ObjectStore>,
        prefix: Path,
        retries: Retries,
        metrics: Metrics,
        cluster: &str,
    ) -> Result<Arc<Self>, Error> {
        let cached = match &config.block_disk {
            None => Store::Memory(
                CacheBuilder::new(config.block_memory_bytes)
                    .with_name("blocks")
                    .with_shards(4)
                    .with_weighter(|_, block: &Bytes| block.len())
                    .build(),
            ),
            Some(disk) => Store::Disk(
                hybrid(config.block_memory_bytes, disk, cluster)
                    .await
                    .map_err(|error| Error::BlockCache(error.to_string()))?,
            ),
        };
        Ok(Arc::new(Self {
            objects,
            prefix,
            cached,
            flights: Mutex::default(),
            requests: Semaphore::new(config.cold_reads_max),
            timeout: config.read_timeout,
            retries,
            metrics,
        }))
    }

    /// The blocks of a run. The one that holds the object's end is short.
    ///
    /// # Cancel safety
    /// A fetch that has begun goes on, and fills the cache.
    pub(crate) async fn load(
        self: &Arc<Self>,
        run: BlockRun,
    ) -> Result<Vec<(u32, Bytes)>, ReadError> {
        let mut loaded = Vec::new();
        let mut missing = Vec::new();
        for block in run.first..=run.last {
            let key = Key { id: run.id, block };
            if let Some(bytes) = self.cached(&key).await {
                self.metrics.block_hits.inc();
                loaded.push((block, bytes));
            } else {
                self.metrics.block_misses.inc();
                missing.push(key);
            }
        }
        for (key, flight) in self.board(&missing) {
            loaded.push((key.block, flight.await?));
        }
        Ok(loaded)
    }

    /// Fetches blocks into the cache, if they are not there or on the way.
    pub(crate) fn prefetch(self: &Arc<Self>, run: BlockRun) {
        let blocks = Arc::clone(self);
        tokio::spawn(async move {
            // Whoever needs them will see the error.
            drop(blocks.load(run).await);
        });
    }

    /// Drops damaged copies.
    pub(crate) fn forget(&self, run: BlockRun) {
        for block in run.first..=run.last {
            let key = Key { id: run.id, block };
            match &self.cached {
                Store::Memory(cache) => drop(cache.remove(&key)),
                Store::Disk(cache) => cache.remove(&key),
            }
        }
    }

    async fn cached(&self, key: &Key) -> Option<Bytes> {
        match &self.cached {
            Store::Memory(cache) => cache.get(key).map(|entry| entry.value().clone()),
            Store::Disk(cache) => match cache.get(key).await {
                Ok(entry) => entry.map(|entry| entry.value().clone()),
                Err(error) => {
                    warn!(%error, "the disk of the block cache fails");
                    None
                }
            },
        }
    }

    fn insert(&self, key: Key, bytes: Bytes) {
        match &self.cached {
            Store::Memory(cache) => drop(cache.insert(key, bytes)),
            Store::Disk(cache) => drop(cache.insert(key, bytes)),
        }
    }

    /// Joins the flights of these blocks, and starts those that are missing.
    fn board(self: &Arc<Self>, keys: &[Key]) -> Vec<(Key, Flight)> {
        let mut flights = self.flights.lock();
        let mut boarded = Vec::with_capacity(keys.len());
        let mut run: Vec<(Key, oneshot::Sender<Fetched>)> = Vec::new();
        for key in keys {
            if let Some(flight) = flights.get(key) {
                boarded.push((*key, flight.clone()));
                continue;
            }
            let adjacent = run
                .last()
                .is_none_or(|(last, _)| last.block.checked_add(1) == Some(key.block));
            if !adjacent || run.len() == RUN_MAX {
                self.start(std::mem::take(&mut run));
            }
            let (landed, flight) = oneshot::channel();
            run.push((*key, landed));
            let flight = flight
                .map(|landed| {
                    landed.unwrap_or_else(|_| Err(ReadError::Store("a fetch was given up".into())))
                })
                .boxed()
                .shared();
            flights.insert(*key, flight.clone());
            boarded.push((*key, flight));
        }
        self.start(run);
        boarded
    }

    /// Fetches adjacent blocks of one segment with one request.
    fn start(self: &Arc<Self>, run: Vec<(Key, oneshot::Sender<Fetched>)>) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else {
            return;
        };
        let blocks = Arc::clone(self);
        let (id, start) = (first.id, u64::from(first.block) * BLOCK_BYTES);
        let range = start..(u64::from(last.block) + 1) * BLOCK_BYTES;
        tokio::spawn(async move {
            let fetched = blocks.fetch(id, range).await;
            let single = run.len() == 1;
            let part = |key: &Key| {
                let bytes = fetched.clone()?;
                if single {
                    return Ok(bytes);
                }
                let at = u64::from(key.block) * BLOCK_BYTES - start;
                let at = (at as usize).min(bytes.len());
                let end = (at + BLOCK_BYTES as usize).min(bytes.len());
                // A slice would keep the whole run in memory for as long as the block is cached.
                Ok(Bytes::copy_from_slice(&bytes[at..end]))
            };
            for (key, landed) in run {
                let part = part(&key);
                // Into the cache first: whoever finds no flight finds the block.
                if let Ok(bytes) = &part {
                    blocks.insert(key, bytes.clone());
                }
                blocks.flights.lock().remove(&key);
                // Whoever waited may have gone.
                drop(landed.send(part));
            }
        });
    }

    /// Reads a range of an object, cut at the object's end.
    async fn fetch(&self, id: SegmentId, range: Range<u64>) -> Fetched {
        let _permit = self.requests.acquire().await;
        let path = object_path(&self.prefix, id);
        let deadline = Instant::now() + self.timeout;
        let missing = (Instant::now() + MISSING_PATIENCE).min(deadline);
        let mut attempts = self.retries.begin();
        loop {
            self.metrics.gets.inc();
            let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, self.get(&path, range.clone()));
            let error = match attempt.await {
                Ok(Ok(bytes)) => {
                    self.metrics.get_bytes.inc_by(bytes.len() as u64);
                    attempts.done();
                    return Ok(bytes);
                }
                Ok(Err(error)) => error,
                Err(elapsed) => object_store::Error::Generic {
                    store: "frazil",
                    source: elapsed.into(),
                },
            };
            self.metrics.get_failures.inc();
            let is_missing = Failure::of(&error) == Failure::NotFound;
            let until = if is_missing { missing } else { deadline };
            if attempts.again_before(&error, until).await {
                continue;
            }
            return Err(if is_missing {
                ReadError::NotFound {
                    what: format!("segment {id}"),
                }
            } else {
                ReadError::Store(error.to_string())
            });
        }
    }

    async fn get(&self, path: &Path, range: Range<u64>) -> object_store::Result<Bytes> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let result = self.objects.get_opts(path, options).await?;
        // The store must say that it sends what was asked for, and send what it says.
        let expected = range.start..range.end.min(result.meta.size);
        let got = result.range.clone();
        let bytes = result.bytes().await?;
        if got != expected || bytes.len() as u64 != expected.end - expected.start {
            return Err(object_store::Error::Generic {
                store: "frazil",
                source: format!(
                    "asked for bytes {range:?} of {path}, got {} bytes of {got:?}",
                    bytes.len()
                )
                .into(),
            });
        }
        Ok(bytes)
    }
}

async fn hybrid(
    memory: usize,
    disk: &BlockDisk,
    cluster: &str,
) -> foyer::Result<HybridCache<Key, Bytes>> {
    // Another cluster gives the same names to other segments, and its blocks are sound.
    let device = FsDeviceBuilder::new(disk.dir.join(cluster))
        .with_capacity(disk.bytes)
        .build()?;
    HybridCacheBuilder::new()
        .with_name("blocks")
        // The default writes what memory evicts, and loses what is in memory at the end.
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(memory)
        .with_shards(4)
        .with_weighter(|_, block: &Bytes| block.len())
        .storage()
        .with_engine_config(BlockEngineConfig::new(device).with_buffer_pool_size(16 << 20))
        .with_recover_mode(RecoverMode::Quiet)
        .build()
        .await
}

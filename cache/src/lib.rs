//! Frazil's data plane: what happens to record batches between the protocol and the object store.
//!
//! ```text
//!            ┌─► write-ahead log (local durability) ─┐
//! append ────┤                                       ├─► commit ─► acknowledged, readable
//!            └─► open segment ─► sealed ─► uploaded ─┘
//!
//! read ◄──── tail (memory) ◄──── blocks (memory, disk) ◄──── object store: segments
//!      ◄──── batches (memory) ◄─ row groups (memory) ◄────── object store: tables
//! ```
//!
//! # Positions
//!
//! A batch goes through stages, and a stage is never reached before the ones in front of it. Along
//! the batches of one gateway, in the order of the calls of [`Cache::append`], the stages are
//! positions, and their order is
//!
//! ```text
//! Durability::Object    settled ≤ committed ≤ uploaded  ≤ sealed ≤ appended
//! Durability::Local     settled ≤ uploaded and moved ≤ committed ≤ synced ≤ appended
//! write-ahead log       truncated ≤ moved ≤ committed ≤ synced ≤ written
//! ```
//!
//! A batch is acknowledged when it is *committed*: at `Object` the segment is in the object store
//! by then, at `Local` the batch is synced in the write-ahead log. Only then it has an offset, and
//! readers find it. `flush::pipeline` keeps the order, and asserts it.
//!
//! # What a crash leaves
//!
//! | crash | `Object` | `Local` |
//! |---|---|---|
//! | before the commit | not acknowledged; an object without reference, which is collected | not acknowledged; bytes in the log that nobody expects, which are discarded |
//! | after the commit | acknowledged or not, it stands | it stands, in the log: the next start uploads it and moves it |
//! | disk lost after the commit | nothing | batches whose segment was not committed yet are lost: the level promises no more |
//!
//! Invariant: this crate knows nothing of Kafka's requests and error codes, or of how the quorum
//! works: it meets the quorum through `Sequencer` and `LogIndex`.

mod blocking;
mod budget;
pub mod config;
mod error;
mod flush;
pub mod local_store;
mod metrics;
pub mod net;
pub mod peer;
mod read;
mod tail;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wal;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::cold::NodeRef;
use frazil_core::env::{Disk, Ids};
use frazil_core::ports::{BatchInfo, LogIndex, Sequencer};
use frazil_core::{BrokerEpoch, BrokerId, Extent, Offset, PortError, TopicPartition};
use frazil_objects::Backoff;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::debug;

pub use budget::{BATCH_OVERHEAD, Reservation};
pub use config::{BlockDisk, Config, PutBudget, WalConfig};
pub use error::{AppendError, Error, Lost, ReadError};
pub use flush::{Pending, Service};
pub use frazil_objects::Retries;
pub use metrics::{Metrics, Stats};
pub use peer::Neighbours;
pub use read::{Compression, Read, ReadRequest};

use budget::Budget;
use flush::commit::Committer;
use flush::pipeline::Pipeline;
use flush::policy::Policy;
use flush::upload::Uploader;
use flush::{Inbox, ServiceParts};
use peer::Peers;
use peer::client::Us;
use read::ahead::Ahead;
use read::blocks::Blocks;
use read::cold::Cold;
use read::objects::Objects;
use read::shelf::Shelf;
use read::{Limits, Reader, Sources};
use tail::Tail;
use wal::{Recovery, Wal};

/// How long the metadata quorum is asked at the start.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// What the acknowledgement of a batch needs, besides the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The batch is in the object store.
    Object,
    /// The batch is synced in this gateway's write-ahead log, or better.
    Local,
}

/// A batch to be appended.
#[derive(Clone, Debug)]
pub struct AppendBatch {
    /// To which partition.
    pub partition: TopicPartition,
    /// What the state machine must know of it.
    pub info: BatchInfo,
    /// Exactly one validated record batch.
    pub bytes: Bytes,
    /// What its acknowledgement needs.
    pub durability: Durability,
}

/// An acknowledged append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// The partition's log start offset.
    pub log_start: Offset,
    /// The batch had been appended before, at this offset.
    pub duplicate: bool,
}

/// What a cache works with.
pub struct Parts {
    /// This gateway.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The cluster's id, which segments carry.
    pub cluster: String,
    /// The object store, without retries of its own.
    pub store: Arc<dyn ObjectStore>,
    /// How often the store is asked again; shared with everybody else who asks it.
    pub retries: Retries,
    /// What precedes `segments/` in the keys of this cluster's objects.
    pub prefix: Path,
    /// Where offsets come from.
    pub sequencer: Arc<dyn Sequencer>,
    /// Where offsets are.
    pub index: Arc<dyn LogIndex>,
    /// The other gateways, if there may be any.
    pub neighbours: Option<Neighbours>,
    /// The disk of the write-ahead log.
    pub disk: Arc<dyn Disk>,
    /// Randomness.
    pub ids: Arc<dyn Ids>,
    /// What it counts; register it where the process shows its metrics.
    pub metrics: Metrics,
}

/// The data plane of one gateway. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

struct Shared {
    append_timeout: Duration,
    budget: Budget,
    inbox: Arc<Inbox>,
    reader: Reader,
    us: Us,
    tail: Arc<Tail>,
    blocks: Arc<Blocks>,
    metrics: Metrics,
}

impl Cache {
    /// Opens the data plane, and recovers what the write-ahead log holds. Reads work at once,
    /// appends once the service runs.
    ///
    /// # Errors
    /// If a setting is out of its limits, the disk fails, or acknowledged batches are missing in
    /// the write-ahead log.
    pub async fn start(config: Config, parts: Parts) -> Result<(Self, Service), Error> {
        config.validate()?;
        let metrics = parts.metrics.clone();
        let budget = Budget::new(config.buffer_bytes);
        let inbox = Arc::new(Inbox::default());
        let tail = Arc::new(Tail::new(config.tail_bytes, metrics.clone()));
        if let Some(disk) = &config.block_disk
            && let Err(error) = parts.disk.create_dir_all(&disk.dir)
        {
            // Opening it will fail, and be told; it is a cache.
            debug!(%error, "the directory of the block cache cannot be created");
        }
        let us = Us {
            cluster: parts.cluster.clone(),
            broker: parts.broker,
        };
        let peers = parts
            .neighbours
            .clone()
            .map(|neighbours| Arc::new(Peers::new(us.clone(), neighbours, metrics.clone())));
        let objects = Arc::new(Objects::new(
            &config,
            Arc::clone(&parts.store),
            parts.prefix.clone(),
            parts.retries.clone(),
            metrics.clone(),
        ));
        let shelf = Arc::new(Shelf::open(&config, &parts.cluster, peers.is_some()).await);
        let cold = Cold::new(
            Arc::clone(&objects),
            Arc::clone(&shelf),
            config.block_memory_bytes,
            metrics.clone(),
        );
        let ahead = config
            .local_store
            .then(|| Ahead::new(Arc::clone(&objects), config.ahead_bytes()));
        let blocks = Blocks::new(objects, shelf, peers.clone(), metrics.clone());
        let reader = Reader::new(
            parts.broker,
            Arc::clone(&parts.index),
            Sources {
                tail: Arc::clone(&tail),
                blocks: Arc::clone(&blocks),
                ahead,
                cold,
                peers,
            },
            Limits::of(config.block_memory_bytes, config.local_store),
            metrics.clone(),
        );
        let mut recovery = recover(&config, &parts).await?;
        let lost = std::mem::take(&mut recovery.lost);
        if !lost.is_empty() {
            return Err(Error::WalLost(lost));
        }
        for extent in &recovery.extents {
            tail.insert_wal(extent.epoch, extent.start, extent.bytes.clone());
        }
        let pipeline = Pipeline::new(
            parts.broker,
            parts.epoch,
            Policy::new(&config),
            config.wal.as_ref().map(|wal| wal.bytes),
        );
        let wal = config.wal.map(|wal| {
            Wal::new(
                wal,
                parts.epoch,
                recovery.position,
                Arc::clone(&parts.disk),
                Arc::clone(&parts.ids),
                metrics.clone(),
            )
        });
        let service = Service::new(ServiceParts {
            epoch: parts.epoch,
            pipeline,
            inbox: Arc::clone(&inbox),
            budget: budget.clone(),
            tail: Arc::clone(&tail),
            uploader: Uploader {
                store: parts.store,
                retries: parts.retries,
                prefix: parts.prefix,
                cluster: parts.cluster,
                local_store: config.local_store,
                ids: Arc::clone(&parts.ids),
                metrics: metrics.clone(),
                slots: Arc::new(Semaphore::new(config.uploads_max)),
            },
            committer: Committer {
                sequencer: parts.sequencer,
                index: parts.index,
                ids: parts.ids,
                metrics: metrics.clone(),
                refused: AtomicU32::new(0),
            },
            metrics: metrics.clone(),
            wal,
            recovery,
        });
        let shared = Arc::new(Shared {
            append_timeout: config.append_timeout,
            budget,
            inbox,
            reader,
            us,
            tail,
            blocks,
            metrics,
        });
        Ok((Self { shared }, service))
    }

    /// Waits until there is room for so many bytes: those of the batches, and [`BATCH_OVERHEAD`]
    /// for each of them. This is what holds producers back: reserve once for a whole request,
    /// before or while it is read, and [`split`](Reservation::split) the reservation over its
    /// batches.
    ///
    /// # Errors
    /// [`Error::Closed`] when the service has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses the place in the queue, nothing else.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, Error> {
        self.shared.budget.reserve(bytes).await
    }

    /// Adds room to a reservation, if there is room now; for batches that have become larger than
    /// what was reserved.
    #[must_use]
    pub fn grow(&self, reservation: &mut Reservation, bytes: usize) -> bool {
        self.shared.budget.grow(reservation, bytes)
    }

    /// Appends a batch. Batches of one partition get offsets in the order of these calls. The
    /// reservation is held until the batch is settled.
    ///
    /// # Panics
    /// If `info.length` is not the length of `bytes`, or there is no tokio runtime.
    pub fn append(&self, batch: AppendBatch, reservation: Reservation) -> Pending {
        self.shared
            .inbox
            .append(batch, reservation, self.shared.append_timeout)
    }

    /// Reads batches from an offset on. Returns nothing at or past the end of the log.
    ///
    /// # Errors
    /// See [`ReadError`]; an error comes only if nothing could be read.
    ///
    /// # Cancel safety
    /// Dropping the future is safe; fetches that have begun go on, and fill the cache.
    pub async fn read(&self, request: ReadRequest) -> Result<Read, ReadError> {
        self.shared.reader.read(&request).await
    }

    /// The first record at `from` or later, among the cold offsets below `root`, whose timestamp is
    /// at least `timestamp`: its offset and timestamp. `timestamp` `None`: the first of those with
    /// the largest one.
    ///
    /// # Errors
    /// As [`Self::read`].
    ///
    /// # Cancel safety
    /// As [`Self::read`].
    pub async fn find_time(
        &self,
        partition: TopicPartition,
        root: &NodeRef,
        from: Offset,
        timestamp: Option<i64>,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let reader = &self.shared.reader;
        reader.find_time(partition, root, from, timestamp).await
    }

    /// All batches of an extent with their base offsets, not stamped. If it has become cold, those
    /// at its ends may reach beyond it.
    ///
    /// # Errors
    /// As [`Self::read`].
    ///
    /// # Cancel safety
    /// As [`Self::read`].
    pub async fn read_extent(
        &self,
        partition: TopicPartition,
        extent: &Extent,
    ) -> Result<Vec<(Offset, Bytes)>, ReadError> {
        self.shared.reader.read_extent(partition, extent).await
    }

    /// Flushes everything that was appended before, and waits until it is settled, or the service
    /// has ended.
    ///
    /// # Cancel safety
    /// Dropping the future is safe; the flush goes on.
    pub async fn drain(&self) {
        self.shared.inbox.flush().await;
    }

    /// What answers other gateways; run it with their connections.
    pub fn peer_server(&self) -> peer::Server {
        let shared = &self.shared;
        peer::Server::new(
            shared.us.clone(),
            Arc::clone(&shared.tail),
            Arc::clone(&shared.blocks),
            shared.metrics.clone(),
        )
    }

    /// The metrics, to be registered.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.shared.metrics.stats()
    }
}

/// Reads what the state expects of the logs of earlier registrations.
async fn recover(config: &Config, parts: &Parts) -> Result<Recovery, Error> {
    let deadline = Instant::now() + RECOVERY_TIMEOUT;
    let mut backoff = Backoff::new(&parts.ids);
    // What the image does not know of yet would be taken for needless, and removed.
    while let Err(error) = parts.index.barrier().await {
        if matches!(error, PortError::Fenced(_)) || Instant::now() >= deadline {
            return Err(error.into());
        }
        backoff.wait().await;
    }
    let expected = parts.index.wal_extents(parts.broker);
    let disk = Arc::clone(&parts.disk);
    let dir = config.wal.as_ref().map(|wal| wal.dir.clone());
    let epoch = parts.epoch;
    let read = move || wal::recover(&disk, dir.as_deref(), epoch, &expected);
    match crate::blocking::spawn_blocking(read).await {
        Ok(recovery) => recovery,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed),
    }
}

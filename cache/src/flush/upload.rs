//! Makes a segment durable in the object store, however long that takes.
//!
//! The name is chosen before the first PUT and the content never changes, so a PUT that may or may
//! not have landed is simply sent again, as a conditional create. "Already exists" then has two
//! meanings, which the content tells apart: a segment holds a put id drawn for this flush, so an
//! object with the same bytes is the one that was put, and with others it is somebody else's.
//! Comparing all bytes also costs nothing that matters, since it is rare, and needs nothing of the
//! store but GET. If there is nothing, the conflict was with a write that did not succeed, perhaps an
//! earlier attempt of the same one, and the PUT is sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::env::Ids;
use frazil_core::ports::BatchInfo;
use frazil_core::sabotage::{self, Bug};
use frazil_core::segment::SegmentBuilder;
use frazil_core::{SegmentId, TopicPartition};
use frazil_objects::{Failure, Retries};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use crate::metrics::Metrics;

/// After this time an attempt is taken for lost.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger segments are laid out off the runtime's threads.
const BLOCKING_BYTES: usize = 512 * 1024;

/// A segment to be uploaded: its batches, in the order of the calls.
pub(crate) type Batches = Vec<(TopicPartition, Bytes, BatchInfo)>;

/// What uploads share.
pub(crate) struct Uploader {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) retries: Retries,
    pub(crate) prefix: Path,
    pub(crate) cluster: String,
    pub(crate) local_store: bool,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) metrics: Metrics,
    /// Uploads at a time. Fair, so segments are begun in the order of their seals.
    pub(crate) slots: Arc<Semaphore>,
}

/// The end of an upload.
#[derive(Debug)]
pub(crate) enum Uploaded {
    /// The object is durable.
    Done {
        object: Bytes,
        /// Where each batch begins.
        starts: Vec<u32>,
    },
    /// Another object has the name.
    NameTaken,
}

impl Uploader {
    /// Uploads a segment. Does not end before it is durable or its name is known to be taken.
    ///
    /// # Cancel safety
    /// If the future is dropped, an object may be there or not.
    pub(crate) async fn upload(&self, id: SegmentId, batches: Batches) -> Uploaded {
        // First the slot: while the store is away, segments that wait are not in memory twice.
        let _slot = self.slots.acquire().await;
        let (object, starts) = self.build(id, batches).await;
        let key = object_path(&self.prefix, id);
        if sabotage::on(Bug::AckBeforePut) {
            let (store, put) = (Arc::clone(&self.store), PutPayload::from(object.clone()));
            tokio::spawn(async move { store.put(&key, put).await });
            return Uploaded::Done { object, starts };
        }
        let mut attempts = self.retries.begin();
        loop {
            self.metrics.puts.inc();
            let began = Instant::now();
            let done = match self.put(&key, &object, PutMode::Create).await {
                Ok(()) => {
                    self.metrics
                        .put_seconds
                        .observe(began.elapsed().as_secs_f64());
                    Ok(true)
                }
                Err(error) if Failure::of(&error) == Failure::Conflict => {
                    self.found(&key, &object).await
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(ours) => {
                    attempts.done();
                    if ours {
                        self.metrics.put_bytes.inc_by(object.len() as u64);
                        return Uploaded::Done { object, starts };
                    }
                    if sabotage::on(Bug::TakenMeansOurs) {
                        return Uploaded::Done { object, starts };
                    }
                    warn!(segment_id = %id, "another object has the segment's name");
                    return Uploaded::NameTaken;
                }
                Err(error) => {
                    self.metrics.put_failures.inc();
                    attempts.again(&error).await;
                }
            }
        }
    }

    async fn build(&self, id: SegmentId, batches: Batches) -> (Bytes, Vec<u32>) {
        let put_id = self.ids.uuid();
        let cluster = self.cluster.clone();
        let bytes: usize = batches.iter().map(|(_, bytes, _)| bytes.len()).sum();
        let build = move || {
            let mut builder = SegmentBuilder::new();
            let mut starts = vec![0; batches.len()];
            for (partition, bytes, info) in batches {
                builder.push(partition, bytes, info).expect(
                    "the pipeline seals segments long before they reach the format's limit",
                );
            }
            let built = builder.finish(id, put_id, &cluster);
            for placed in built.extents.iter().flat_map(|extent| &extent.batches) {
                starts[placed.index] = placed.start;
            }
            (built.bytes, starts)
        };
        if bytes < BLOCKING_BYTES {
            return build();
        }
        match crate::blocking::spawn_blocking(build).await {
            Ok(built) => built,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    async fn put(&self, key: &Path, object: &Bytes, mode: PutMode) -> object_store::Result<()> {
        let put = self
            .store
            .put_opts(key, PutPayload::from(object.clone()), mode.into());
        within(put).await.map(drop)
    }

    /// Whether the object under the name is this one, and durable. An error if there is none.
    async fn found(&self, key: &Path, object: &Bytes) -> object_store::Result<bool> {
        let there = within(async { self.store.get(key).await?.bytes().await }).await?;
        if there != *object {
            return Ok(false);
        }
        if self.local_store {
            // The file is there, but the attempt that made it may have failed in syncing it.
            self.metrics.puts.inc();
            self.put(key, object, PutMode::Overwrite).await?;
        }
        Ok(true)
    }
}

/// The path of a segment's object.
pub(crate) fn object_path(prefix: &Path, id: SegmentId) -> Path {
    let key = id.object_key();
    let parts: Vec<_> = prefix
        .parts()
        .chain(key.split('/').map(Into::into))
        .collect();
    Path::from_iter(parts)
}

async fn within<T>(
    request: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    match tokio::time::timeout(ATTEMPT_TIMEOUT, request).await {
        Ok(result) => result,
        Err(elapsed) => Err(object_store::Error::Generic {
            store: "frazil",
            source: elapsed.into(),
        }),
    }
}

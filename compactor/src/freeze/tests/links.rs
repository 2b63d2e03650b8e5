//! The ways of another compactor to the store and the quorum, which may be cut at any request.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use frazil_core::PortResult;
use frazil_core::cold::TableObject;
use frazil_core::ports::{ClaimStatus, Replacement, Table, TableRefusal};
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;

/// Counts requests, and answers none from one of them on, or not before it is mended.
#[derive(Clone)]
pub(super) struct Fuse {
    left: Arc<AtomicUsize>,
    mended: Arc<Notify>,
    /// Whether the last one is executed.
    after: bool,
}

impl Fuse {
    /// One through which everything goes.
    pub(super) fn sound() -> Self {
        Self::new(usize::MAX, false)
    }

    /// The last one of so many `requests` is not answered; `after`: it is executed.
    pub(super) fn new(requests: usize, after: bool) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(requests)),
            mended: Arc::default(),
            after,
        }
    }

    /// How many requests went through one that was sound.
    pub(super) fn asked(&self) -> usize {
        usize::MAX - self.left.load(Ordering::Relaxed)
    }

    /// All requests are answered from now on, also the one that waits.
    pub(super) fn mend(&self) {
        self.left.store(usize::MAX, Ordering::Relaxed);
        self.mended.notify_one();
    }

    async fn ask<T>(&self, request: impl Future<Output = T>) -> T {
        match self.left.load(Ordering::Relaxed) {
            0 => {
                self.mended.notified().await;
                request.await
            }
            1 => {
                self.left.store(0, Ordering::Relaxed);
                if self.after {
                    drop(request.await);
                    return std::future::pending().await;
                }
                self.mended.notified().await;
                request.await
            }
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                request.await
            }
        }
    }
}

struct Store(Arc<InMemory>, Fuse);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.1.ask(self.0.put_opts(path, bytes, how)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, how).await
    }

    async fn get_opts(&self, path: &Path, how: GetOptions) -> Result<GetResult> {
        self.1.ask(self.0.get_opts(path, how)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, how).await
    }
}

/// The quorum behind a fuse. Renewals of leases are counted beside it, and may not get through.
pub(super) struct Quorum {
    tables: Arc<dyn Tables>,
    fuse: Fuse,
    pub(super) renewals: AtomicU64,
    pub(super) cut_off: AtomicBool,
}

#[async_trait]
impl Tables for Quorum {
    fn enabled(&self) -> bool {
        self.tables.enabled()
    }

    fn table(&self, topic: TopicId) -> Option<Table> {
        self.tables.table(topic)
    }

    fn claim_status(&self, topic: TopicId, claim: u64) -> ClaimStatus {
        self.tables.claim_status(topic, claim)
    }

    fn retired_objects(&self, limit: usize) -> Vec<(TopicId, TableObject, i64)> {
        self.tables.retired_objects(limit)
    }

    fn dead_tables(&self) -> Vec<(TopicId, i64)> {
        self.tables.dead_tables()
    }

    async fn claim_table(
        &self,
        topic: TopicId,
        holder: Uuid,
        lease_ms: u32,
    ) -> PortResult<std::result::Result<u64, TableRefusal>> {
        let claim = self.tables.claim_table(topic, holder, lease_ms);
        self.fuse.ask(claim).await
    }

    async fn replace(
        &self,
        replacement: Replacement,
    ) -> PortResult<std::result::Result<(), TableRefusal>> {
        if replacement.moves.is_empty() && replacement.table.is_none() && replacement.lease_ms > 0 {
            self.renewals.fetch_add(1, Ordering::Relaxed);
            if self.cut_off.load(Ordering::Relaxed) {
                return Err(frazil_core::PortError::Unavailable("cut off".into()));
            }
            return self.tables.replace(replacement).await;
        }
        self.fuse.ask(self.tables.replace(replacement)).await
    }

    async fn forget_objects(
        &self,
        collector: u64,
        topic: TopicId,
        objects: Vec<TableObject>,
    ) -> PortResult<bool> {
        self.tables.forget_objects(collector, topic, objects).await
    }

    async fn forget_tables(&self, collector: u64, topics: Vec<TopicId>) -> PortResult<bool> {
        self.tables.forget_tables(collector, topics).await
    }
}

impl World {
    /// Another compactor, which reaches the store and the quorum through these fuses.
    pub(super) fn another(&self, store: Fuse, quorum: Fuse) -> (Ctx, Arc<Quorum>) {
        let quorum = Arc::new(Quorum {
            tables: self.ctx.tables.clone(),
            fuse: quorum,
            renewals: AtomicU64::new(0),
            cut_off: AtomicBool::new(false),
        });
        let retries = Retries::new(Arc::new(SeededIds::new(3)), Default::default());
        let store = Arc::new(Store(self.store.clone(), store));
        let ctx = Ctx {
            config: self.ctx.config.clone(),
            bucket: Bucket::new(store, retries, Path::from("cluster")),
            ledger: self.ctx.ledger.clone(),
            tables: quorum.clone(),
            metrics: Metrics::default(),
            holder: SeededIds::new(4).uuid(),
        };
        (ctx, quorum)
    }
}

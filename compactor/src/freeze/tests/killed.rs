//! A job that is stopped for good at its n-th request, to the store or the quorum, before or after
//! that was executed; for every n. Then another one does what is left.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    pub(super) fn new(requests: usize, after: bool) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(requests)),
            mended: Arc::default(),
            after,
        }
    }

    /// How many requests are answered still.
    pub(super) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
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

pub(super) struct Store(pub(super) Arc<InMemory>, pub(super) Fuse);

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

struct Quorum(Arc<dyn Tables>, Fuse);

#[async_trait]
impl Tables for Quorum {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn table(&self, topic: TopicId) -> Option<Table> {
        self.0.table(topic)
    }

    fn claim_status(&self, topic: TopicId, claim: u64) -> ClaimStatus {
        self.0.claim_status(topic, claim)
    }

    fn retired_objects(&self, limit: usize) -> Vec<(TopicId, TableObject, i64)> {
        self.0.retired_objects(limit)
    }

    fn dead_tables(&self) -> Vec<(TopicId, i64)> {
        self.0.dead_tables()
    }

    async fn claim_table(
        &self,
        topic: TopicId,
        holder: Uuid,
        lease_ms: u32,
    ) -> PortResult<std::result::Result<u64, TableRefusal>> {
        self.1
            .ask(self.0.claim_table(topic, holder, lease_ms))
            .await
    }

    async fn replace(
        &self,
        replacement: Replacement,
    ) -> PortResult<std::result::Result<(), TableRefusal>> {
        self.1.ask(self.0.replace(replacement)).await
    }

    async fn forget_objects(
        &self,
        collector: u64,
        topic: TopicId,
        objects: Vec<TableObject>,
    ) -> PortResult<bool> {
        self.0.forget_objects(collector, topic, objects).await
    }

    async fn forget_tables(&self, collector: u64, topics: Vec<TopicId>) -> PortResult<bool> {
        self.0.forget_tables(collector, topics).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Convert,
    Merge,
    Upkeep,
}

/// A topic for which there is something to do of this kind.
async fn prepared(kind: Kind) -> World {
    let mut world = World::new(&[("frazil.table.snapshot.retention.ms", "1000")]).await;
    let conversions = if kind == Kind::Merge { 8 } else { 2 };
    for number in 0..conversions {
        // The table loses whole files, so upkeep's have rows of one partition only.
        let others = if kind == Kind::Upkeep { 0 } else { 1 };
        let batches = [(0, 5), (1 + number % 2, 3)];
        world.produce(&batches[..1 + others]).await;
        world.convert().await.unwrap();
    }
    match kind {
        Kind::Convert => {
            world.produce(&[(0, 5), (1, 3)]).await;
            world.produce(&[(0, 2), (2, 1)]).await;
        }
        Kind::Merge => {}
        Kind::Upkeep => {
            let now_ms = frazil_core::ports::Ledger::now_ms(world.node.client());
            retain(&world, now_ms - (1_700_000_000_000 + 5)).await;
        }
    }
    world.wait(Duration::from_secs(10)).await;
    world
}

async fn work(ctx: &Ctx, topic: &Topic, kind: Kind) -> std::result::Result<(), JobError> {
    let table = TopicConfig::resolve(&topic.config, &BTreeMap::new()).table;
    match kind {
        Kind::Convert => job::run(ctx, topic, table).await.map(drop),
        Kind::Merge => merge::run(ctx, topic, table).await.map(drop),
        Kind::Upkeep => super::super::upkeep::run(ctx, topic, table).await.map(drop),
    }
}

/// Stops a job at its `requests`-th request. Whether it had that many.
async fn killed(kind: Kind, requests: usize, after: bool) -> bool {
    let world = prepared(kind).await;
    let fuse = Fuse::new(requests, after);
    let retries = Retries::new(Arc::new(SeededIds::new(3)), Default::default());
    let store = Arc::new(Store(world.store.clone(), fuse.clone()));
    let ctx = Ctx {
        config: world.ctx.config.clone(),
        bucket: Bucket::new(store, retries, Path::from("cluster")),
        ledger: world.ctx.ledger.clone(),
        tables: Arc::new(Quorum(world.ctx.tables.clone(), fuse.clone())),
        metrics: Metrics::default(),
        holder: SeededIds::new(4).uuid(),
    };
    let topic = world.topic();
    let job = tokio::time::timeout(Duration::from_secs(10), work(&ctx, &topic, kind));
    let ended = job.await;
    if let Ok(ended) = &ended {
        ended.as_ref().unwrap();
    }
    world.node.client().barrier().await.unwrap();
    // Whatever it has done: readers find everything, now and when another one has gone on.
    if kind != Kind::Upkeep {
        world.check().await;
    }
    world.wait(world.ctx.config.lease).await;
    work(&world.ctx, &topic, kind).await.unwrap();
    world.node.client().barrier().await.unwrap();
    upkeep(&world).await;
    let cold = world.check().await;
    assert_eq!(
        cold.get(&0),
        world.ends.get(&0),
        "{kind:?} {requests} {after}"
    );
    world.wait(Duration::from_secs(3)).await;
    upkeep(&world).await;
    nothing_is_left_over(&world).await;
    world.check().await;
    ended.is_err()
}

async fn killed_everywhere(kind: Kind, at_least: usize) {
    for after in [false, true] {
        let mut requests = 1;
        while killed(kind, requests, after).await {
            requests += 1;
        }
        assert!(requests > at_least, "{kind:?}: {requests} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn conversions_can_be_killed_anywhere() {
    killed_everywhere(Kind::Convert, 12).await;
}

#[tokio::test(start_paused = true)]
async fn merges_can_be_killed_anywhere() {
    killed_everywhere(Kind::Merge, 15).await;
}

#[tokio::test(start_paused = true)]
async fn upkeep_can_be_killed_anywhere() {
    killed_everywhere(Kind::Upkeep, 8).await;
}

//! The chores against a store in memory and a ledger that can be told what to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frazil_core::cold::NodeRef;
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::{Bounds, Ledger, PartitionSummary, SegmentStatus};
use frazil_core::{
    BrokerEpoch, Extent, Location, Offset, PortResult, SegmentId, Topic, TopicId, TopicName,
    TopicPartition,
};
use frazil_objects::Retries;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use std::sync::Mutex;

use crate::retention::Limits;
use crate::{Metrics, reclaim, retention, sweep};

#[derive(Default)]
struct Told {
    now_ms: i64,
    logs: Vec<(PartitionSummary, Vec<Extent>)>,
    segments: BTreeMap<SegmentId, SegmentStatus>,
    retired: Vec<(SegmentId, i64)>,
    raised: Vec<(TopicPartition, Offset)>,
    collector: u64,
}

#[derive(Default)]
struct FakeLedger(Mutex<Told>);

#[async_trait]
impl Ledger for FakeLedger {
    fn now_ms(&self) -> i64 {
        self.0.lock().unwrap().now_ms
    }
    fn partitions(&self) -> Vec<PartitionSummary> {
        self.0
            .lock()
            .unwrap()
            .logs
            .iter()
            .map(|(summary, _)| summary.clone())
            .collect()
    }
    fn cold(&self, _: &TopicPartition) -> Option<NodeRef> {
        None
    }
    fn oldest_extents(&self, partition: &TopicPartition, limit: usize) -> Vec<Extent> {
        let told = self.0.lock().unwrap();
        let log = told
            .logs
            .iter()
            .find(|(summary, _)| summary.partition == *partition);
        log.map(|(_, extents)| extents.iter().take(limit).copied().collect())
            .unwrap_or_default()
    }
    fn retired_segments(&self, limit: usize) -> Vec<(SegmentId, i64)> {
        self.0
            .lock()
            .unwrap()
            .retired
            .iter()
            .take(limit)
            .copied()
            .collect()
    }
    fn segment(&self, id: SegmentId) -> SegmentStatus {
        self.0
            .lock()
            .unwrap()
            .segments
            .get(&id)
            .copied()
            .unwrap_or(SegmentStatus::Pending)
    }
    async fn claim_collector(&self) -> PortResult<u64> {
        let mut told = self.0.lock().unwrap();
        told.collector += 1;
        Ok(told.collector)
    }
    async fn raise_log_starts(&self, to: Vec<(TopicPartition, Offset)>) -> PortResult<()> {
        self.0.lock().unwrap().raised.extend(to);
        Ok(())
    }
    async fn forget_segments(&self, collector: u64, ids: Vec<SegmentId>) -> PortResult<bool> {
        let mut told = self.0.lock().unwrap();
        if told.collector != collector {
            return Ok(false);
        }
        told.retired.retain(|(id, _)| !ids.contains(id));
        Ok(true)
    }
    async fn expire(&self, _: i64, _: i64) -> PortResult<()> {
        Ok(())
    }
}

fn id(number: u64) -> SegmentId {
    SegmentId::new(BrokerEpoch(7), number)
}

async fn store_with(prefix: &Path, ids: &[SegmentId]) -> InMemory {
    let store = InMemory::new();
    for id in ids {
        store
            .put(&reclaim::object(prefix, *id), "bytes".into())
            .await
            .unwrap();
    }
    store
}

async fn objects(store: &InMemory) -> Vec<String> {
    let mut found: Vec<String> = store
        .list(None)
        .map_ok(|object| object.location.to_string())
        .try_collect()
        .await
        .unwrap();
    found.sort();
    found
}

fn retries() -> Retries {
    Retries::new(Arc::new(SeededIds::new(1)), Default::default())
}

const GRACE: Duration = Duration::from_millis(1000);

#[tokio::test]
async fn a_retired_object_goes_only_after_its_grace_period() {
    let prefix = Path::from("cluster");
    let ledger = FakeLedger::default();
    {
        let mut told = ledger.0.lock().unwrap();
        told.now_ms = 5000;
        told.retired = vec![(id(1), 3000), (id(2), 4000), (id(3), 4001)];
    }
    let store = store_with(&prefix, &[id(1), id(2), id(3)]).await;
    let collector = ledger.claim_collector().await.unwrap();
    let metrics = Metrics::default();
    let gone = reclaim::round(
        &ledger,
        &store,
        &retries(),
        &prefix,
        GRACE,
        collector,
        &metrics,
    )
    .await
    .unwrap();
    assert_eq!(gone, Some(2));
    assert_eq!(
        objects(&store).await,
        [reclaim::object(&prefix, id(3)).to_string()]
    );
    assert_eq!(ledger.retired_segments(9), [(id(3), 4001)]);
}

#[tokio::test]
async fn a_repeated_deletion_is_a_success() {
    // As after a crash between the deletion and the command that forgets the segment.
    let prefix = Path::from("cluster");
    let ledger = FakeLedger::default();
    {
        let mut told = ledger.0.lock().unwrap();
        told.now_ms = 5000;
        told.retired = vec![(id(1), 0)];
    }
    let store = InMemory::new();
    let collector = ledger.claim_collector().await.unwrap();
    let metrics = Metrics::default();
    let gone = reclaim::round(
        &ledger,
        &store,
        &retries(),
        &prefix,
        GRACE,
        collector,
        &metrics,
    )
    .await
    .unwrap();
    assert_eq!(gone, Some(1));
    assert!(ledger.retired_segments(9).is_empty());
}

#[tokio::test]
async fn a_superseded_collector_stops() {
    let prefix = Path::from("cluster");
    let ledger = FakeLedger::default();
    {
        let mut told = ledger.0.lock().unwrap();
        told.now_ms = 5000;
        told.retired = vec![(id(1), 0)];
    }
    let old = ledger.claim_collector().await.unwrap();
    ledger.claim_collector().await.unwrap();
    let store = InMemory::new();
    let metrics = Metrics::default();
    let gone = reclaim::round(&ledger, &store, &retries(), &prefix, GRACE, old, &metrics)
        .await
        .unwrap();
    assert_eq!(gone, None);
    assert_eq!(
        ledger.retired_segments(9).len(),
        1,
        "what it deleted stays listed"
    );
}

#[tokio::test]
async fn a_sweep_deletes_orphans_and_nothing_else() {
    let prefix = Path::from("cluster");
    let ledger = FakeLedger::default();
    ledger.0.lock().unwrap().segments = BTreeMap::from([
        (id(1), SegmentStatus::Live),
        (id(2), SegmentStatus::Orphan),
        (id(3), SegmentStatus::Retired),
    ]);
    let store = store_with(&prefix, &[id(1), id(2), id(3), id(4)]).await;
    let strangers = [
        "cluster/segments/xx/notes.txt",
        "cluster/other",
        "cluster/segments/zz/",
    ];
    let copy = format!("cluster/segments/copy/{}.seg", id(2));
    for stranger in strangers.iter().copied().chain([copy.as_str()]) {
        store
            .put(&Path::from(stranger), "bytes".into())
            .await
            .unwrap();
    }
    let before = objects(&store).await;
    let swept = sweep::round(&ledger, &store, &retries(), &prefix, &Metrics::default())
        .await
        .unwrap();
    assert_eq!(swept, 1);
    let orphan = reclaim::object(&prefix, id(2)).to_string();
    let expected: Vec<String> = before.into_iter().filter(|key| *key != orphan).collect();
    assert_eq!(objects(&store).await, expected);
}

#[tokio::test]
async fn retention_raises_each_log_to_the_end_of_what_expired() {
    let topic = Arc::new(Topic {
        id: TopicId::new(uuid::Uuid::from_u128(1)),
        name: TopicName::new("events").unwrap(),
        partitions: 2,
        replication_factor: 1,
        config: BTreeMap::new(),
        created_ms: 0,
    });
    let ledger = FakeLedger::default();
    {
        let mut told = ledger.0.lock().unwrap();
        told.now_ms = 1000;
        for (partition, timestamps) in [(0, [100, 200, 900]), (1, [800, 900, 950])] {
            let extents: Vec<Extent> = (0..3u32)
                .map(|n| Extent {
                    base: Offset(i64::from(n) * 5),
                    end: Offset(i64::from(n) * 5 + 5),
                    max_timestamp: timestamps[n as usize],
                    location: Location::Segment {
                        id: id(n.into()),
                        start: 0,
                        length: 10,
                    },
                })
                .collect();
            let summary = PartitionSummary {
                partition: TopicPartition::new(topic.id, partition),
                topic: topic.clone(),
                bounds: Bounds {
                    log_start: Offset::ZERO,
                    last_stable: Offset(15),
                    high_watermark: Offset(15),
                },
                bytes: 30,
                extents: 3,
            };
            told.logs.push((summary, extents));
        }
    }
    let limits = |_: &Topic| Limits {
        age_ms: Some(500),
        bytes: None,
    };
    let count = retention::round(&ledger, limits, None, &Metrics::default())
        .await
        .unwrap();
    assert_eq!(count, 2);
    let raised = ledger.0.lock().unwrap().raised.clone();
    assert_eq!(raised, [(TopicPartition::new(topic.id, 0), Offset(10))]);
}

/// A store whose bucket is not there, or not any more.
#[derive(Debug)]
struct WithoutBucket(InMemory);

impl std::fmt::Display for WithoutBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WithoutBucket")
    }
}

#[async_trait]
impl ObjectStore for WithoutBucket {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.0.put_opts(path, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(path, options).await
    }
    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let refuse = |path: object_store::Result<Path>| {
            Err(object_store::Error::NotFound {
                path: path?.to_string(),
                source: "<Error><Code>NoSuchBucket</Code></Error>".into(),
            })
        };
        paths.map(refuse).boxed()
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_is_not_taken_for_deleted_objects() {
    let prefix = Path::from("cluster");
    let ledger = FakeLedger::default();
    {
        let mut told = ledger.0.lock().unwrap();
        told.now_ms = 5000;
        told.retired = vec![(id(1), 3000)];
    }
    let store = WithoutBucket(InMemory::new());
    let collector = ledger.claim_collector().await.unwrap();
    let metrics = Metrics::default();
    let retries = retries();
    let round = reclaim::round(
        &ledger, &store, &retries, &prefix, GRACE, collector, &metrics,
    );
    round.await.expect_err("nothing is known of the object");
    assert_eq!(ledger.retired_segments(9), [(id(1), 3000)]);
}

//! Conversions over a quorum that works and a store in memory.

mod claims;
mod killed;
mod links;
pub(crate) mod look;
mod orphans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::{BatchBuilder, BatchHeader, Codec, HeadersBuf};
use frazil_core::cold::TableObject;
use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::{
    Append, BatchInfo, Catalog, Commit, LogIndex, NewTopic, SegmentInfo, Sequencer, Tables,
};
use frazil_core::topic_config::{TableConfig, TopicConfig};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, SegmentId, Topic, TopicId, TopicName, TopicPartition,
};
use frazil_metadata::simulated::{Node, Quorum};
use frazil_metadata::{ClientConfig, Registration};
use frazil_objects::Retries;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::collect::Orphans;
use super::job::{self, Done};
use super::{Ctx, FreezeConfig, JobError, collect, merge};
use crate::Metrics;
use crate::bucket::Bucket;
use look::{Row, Rows};

const GRACE: Duration = Duration::from_secs(60);

struct World {
    quorum: Quorum,
    node: Node,
    store: Arc<InMemory>,
    topic: TopicId,
    broker: BrokerId,
    epoch: BrokerEpoch,
    next: u64,
    /// What was produced.
    rows: Rows,
    ends: BTreeMap<i32, Offset>,
    ctx: Ctx,
}

/// A quorum whose cluster knows of tables.
fn quorum() -> Quorum {
    (0..)
        .map(Quorum::new)
        .find(|quorum| quorum.read(|state| state.level()) >= 3)
        .expect("a seed")
}

fn settings(config: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = config.iter();
    pairs
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn table_config(topic: &Topic) -> TableConfig {
    TopicConfig::resolve(&topic.config, &BTreeMap::new()).table
}

impl World {
    async fn new(config: &[(&str, &str)]) -> Self {
        let quorum = quorum();
        let ids = SeededIds::new(1);
        let node = quorum.node(1, ClientConfig::default());
        let topic = TopicId::new(ids.uuid());
        let created = NewTopic {
            id: topic,
            name: TopicName::new("t").expect("a name"),
            partitions: 3,
            replication_factor: 1,
            config: settings(config),
        };
        node.client().create_topic(created).await.unwrap().unwrap();
        let registration = Registration {
            id: None,
            incarnation: ids.uuid(),
            host: "h".to_owned(),
            port: 1,
            rack: None,
            peer: String::new(),
            lease: Duration::from_secs(3600),
        };
        let (broker, epoch) = node.client().register(registration).await.unwrap();
        let store = Arc::new(InMemory::new());
        let client = Arc::new(node.client().clone());
        let retries = Retries::new(Arc::new(SeededIds::new(2)), Default::default());
        let ctx = Ctx {
            config: FreezeConfig::new("memory:///cluster".to_owned()),
            bucket: Bucket::new(store.clone(), retries, Path::from("cluster")),
            ledger: client.clone(),
            tables: client,
            metrics: Metrics::default(),
            holder: ids.uuid(),
        };
        Self {
            quorum,
            node,
            store,
            topic,
            broker,
            epoch,
            next: 0,
            rows: Rows::new(),
            ends: BTreeMap::new(),
            ctx,
        }
    }

    fn topic(&self) -> Arc<Topic> {
        self.node
            .client()
            .topic_by_id(self.topic)
            .expect("it exists")
    }

    /// Makes a segment with a batch of so many records for each of these partitions.
    async fn produce(&mut self, batches: &[(i32, usize)]) -> SegmentId {
        let id = SegmentId::new(self.epoch, self.next);
        self.next += 1;
        let mut object = vec![0; 16];
        let mut appends = Vec::new();
        for (partition, count) in batches {
            let partition = TopicPartition::new(self.topic, *partition);
            let base = *self.ends.entry(partition.partition).or_default();
            let batch = self.batch(partition.partition, base, *count);
            let header = BatchHeader::parse(&batch).unwrap();
            appends.push(Append {
                partition,
                location: Location::Segment {
                    id,
                    start: object.len() as u32,
                    length: header.length,
                },
                batches: vec![BatchInfo {
                    length: header.length,
                    records: header.offsets(),
                    max_timestamp: header.max_timestamp,
                    producer: None,
                }],
            });
            object.extend_from_slice(&batch);
            self.ends.insert(partition.partition, base + *count as u32);
        }
        let bytes = object.len() as u64;
        self.store
            .put(&self.ctx.bucket.segment(id), object.into())
            .await
            .unwrap();
        let commit = Commit {
            broker: self.broker,
            epoch: self.epoch,
            sealed_below: self.next,
            segments: vec![SegmentInfo { id, bytes }],
            appends,
            moves: Vec::new(),
        };
        self.node.client().commit(commit).await.unwrap();
        self.node.client().barrier().await.unwrap();
        id
    }

    fn batch(&mut self, partition: i32, base: Offset, count: usize) -> Bytes {
        let mut batch = BatchBuilder::new().codec(Codec::Lz4);
        for number in 0..count {
            let offset = base + number as u32;
            let value = (number % 4 > 0).then(|| format!("{partition}/{offset}").into_bytes());
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"\xfe", None), (b"h", Some(b"1"))];
            let headers = &headers[..number % 3];
            let time = 1_700_000_000_000 + offset.0;
            batch.push(time, None, value.as_deref(), headers);
            let mut buffer = HeadersBuf::default();
            headers
                .iter()
                .for_each(|(key, value)| buffer.push(key, *value));
            let row: Row = (time, None, value, buffer.headers().bytes().to_vec());
            self.rows.insert((partition, offset), row);
        }
        batch.build()
    }

    async fn convert(&self) -> Result<Done, JobError> {
        let topic = self.topic();
        let table = table_config(&topic);
        let done = job::run(&self.ctx, &topic, table).await;
        self.node.client().barrier().await.unwrap();
        done
    }

    async fn merge(&self) -> Result<usize, JobError> {
        let topic = self.topic();
        let table = table_config(&topic);
        let done = merge::run(&self.ctx, &topic, table).await;
        self.node.client().barrier().await.unwrap();
        done
    }

    /// That both kinds of readers find what was produced: all that is cold, and nothing else.
    async fn check(&self) -> BTreeMap<i32, Offset> {
        self.quorum.read(|state| state.check().unwrap());
        let client = self.node.client();
        let mut cold = BTreeMap::new();
        let mut bases = BTreeMap::new();
        let mut found = Rows::new();
        let mut files = BTreeSet::new();
        for partition in 0..3 {
            let partition = TopicPartition::new(self.topic, partition);
            let Some(root) = self.ctx.ledger.cold(&partition) else {
                continue;
            };
            cold.insert(partition.partition, root.end);
            bases.insert(partition.partition, root.base);
            let (rows, groups) = look::log(&self.ctx.bucket, &partition, &root)
                .await
                .unwrap();
            assert_eq!(rows.len() as u64, root.records);
            assert!(
                groups
                    .iter()
                    .all(|group| group.partition == partition.partition)
            );
            let with_rows = groups.iter().filter(|group| group.records > 0);
            files.extend(with_rows.map(|group| group.file));
            found.extend(rows);
        }
        let mut expected = self.rows.clone();
        expected.retain(|(partition, offset), _| {
            cold.get(partition)
                .is_some_and(|end| offset < end && bases[partition] <= *offset)
        });
        assert_eq!(found, expected);
        let Some(pointer) = client.table(self.topic).and_then(|table| table.pointer) else {
            assert!(found.is_empty());
            return cold;
        };
        let snapshots = look::snapshots(&self.ctx.bucket, self.topic, pointer)
            .await
            .unwrap();
        let newest = snapshots.last().unwrap();
        // Both name the same files.
        assert_eq!(look::names(self.topic, newest), files);
        assert!(snapshots.is_sorted_by_key(|seen| seen.id));
        let records: i64 = newest.files.iter().map(|entry| entry.file.records).sum();
        assert_eq!(records as usize, expected.len());
        let ranges: Vec<String> = cold
            .iter()
            .map(|(partition, end)| format!("{partition}:{}-{end}", bases[partition]))
            .collect();
        assert_eq!(newest.offsets, ranges.join(","));
        cold
    }

    async fn objects(&self) -> BTreeSet<String> {
        let all = self
            .store
            .list(None)
            .map_ok(|object| object.location.to_string());
        all.try_collect().await.unwrap()
    }

    /// The table's snapshots, oldest first.
    async fn snapshots(&self) -> Vec<look::Seen> {
        let table = self.node.client().table(self.topic).unwrap();
        let pointer = table.pointer.expect("something was converted");
        let snapshots = look::snapshots(&self.ctx.bucket, self.topic, pointer);
        snapshots.await.unwrap()
    }

    /// That the bucket has the objects of the table that are named, and no others.
    async fn holds_what_is_named(&self) {
        let named = self.named().await.into_iter();
        let named = named.map(|object| self.ctx.bucket.table(self.topic, object).to_string());
        let named: BTreeSet<String> = named.collect();
        let mut left = self.objects().await;
        left.retain(|key| key.contains("/tables/"));
        assert_eq!(left, named);
    }

    /// Everything that the log and the table name.
    async fn named(&self) -> BTreeSet<TableObject> {
        let client = self.node.client();
        let partitions = (0..3).map(|index| TopicPartition::new(self.topic, index));
        let roots = partitions.filter_map(|at| Some((at, self.ctx.ledger.cold(&at)?)));
        let roots: Vec<_> = roots.collect();
        let pointer = client.table(self.topic).and_then(|table| table.pointer);
        let named = look::named(&self.ctx.bucket, self.topic, &roots, pointer);
        named.await.unwrap()
    }

    /// Everything that is due is collected.
    async fn collect(&self) {
        let collector = frazil_core::ports::Ledger::claim_collector(self.node.client());
        let collector = collector.await.unwrap();
        collect::retired(&self.ctx, GRACE, collector)
            .await
            .unwrap()
            .unwrap();
        collect::dead(&self.ctx, GRACE, collector)
            .await
            .unwrap()
            .unwrap();
    }

    /// Lets time pass in the state too, whose time is that of commands.
    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
        let client = self.node.client();
        frazil_core::ports::Ledger::claim_collector(client)
            .await
            .unwrap();
        self.node.client().barrier().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_becomes_a_table_and_stays_a_log() {
    let mut world = World::new(&[]).await;
    assert_eq!(world.convert().await.unwrap(), Done::default());
    world.produce(&[(0, 5), (2, 3)]).await;
    world.produce(&[(0, 1)]).await;
    assert!(world.convert().await.unwrap().bytes > 0);
    let cold = world.check().await;
    assert_eq!(cold, BTreeMap::from([(0, Offset(6)), (2, Offset(3))]));
    // Nothing is left to do, and the segments are no longer needed.
    assert_eq!(world.convert().await.unwrap(), Done::default());
    let retired = world.quorum.read(|state| state.retired_segments(9).len());
    assert_eq!(retired, 2);
    world.produce(&[(1, 2), (0, 4)]).await;
    world.convert().await.unwrap();
    let cold = world.check().await;
    assert_eq!(cold.len(), 3);
    assert_eq!(world.node.client().table(world.topic).unwrap().lease, None);
}

#[tokio::test(start_paused = true)]
async fn large_jobs_are_made_in_parts() {
    let mut world = World::new(&[]).await;
    for _ in 0..20 {
        world.produce(&[(0, 50), (1, 20)]).await;
    }
    world.ctx.config.job_bytes = 2000;
    world.ctx.config.memory = 2000;
    let mut jobs = 0;
    while world.convert().await.unwrap().more {
        world.check().await;
        jobs += 1;
    }
    assert!(jobs > 3, "{jobs}");
    assert_eq!(world.check().await[&0], Offset(1000));
}

#[tokio::test(start_paused = true)]
async fn damaged_segments_stay_and_nothing_is_skipped() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    let id = world.produce(&[(0, 5), (1, 1)]).await;
    let path = world.ctx.bucket.segment(id);
    let sound = world.store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut damaged = sound.to_vec();
    damaged[16 + 70] ^= 4;
    world.store.put(&path, damaged.into()).await.unwrap();
    let error = world.convert().await.unwrap_err();
    assert!(error.to_string().contains(&id.object_key()), "{error}");
    assert!(world.check().await.is_empty());
    assert!(world.objects().await.contains(path.as_ref()));
    // When it is repaired, everything is there.
    world.store.put(&path, sound.into()).await.unwrap();
    world.convert().await.unwrap();
    assert_eq!(world.check().await[&0], Offset(10));
}

#[tokio::test(start_paused = true)]
async fn small_files_are_merged_and_the_rows_stay() {
    let mut world = World::new(&[]).await;
    for number in 0..20 {
        world
            .produce(&[(0, 5), (number % 3, 3), (1, 1)][..1 + number as usize % 3])
            .await;
        world.convert().await.unwrap();
    }
    let before = world.check().await;
    assert_eq!(world.merge().await.unwrap(), 20);
    assert_eq!(world.check().await, before);
    assert_eq!(world.merge().await.unwrap(), 0);
    let snapshots = world.snapshots().await;
    assert_eq!(snapshots.last().unwrap().files.len(), 1);
    assert_eq!(snapshots.len(), 21, "old snapshots can still be read");
    world.produce(&[(0, 5)]).await;
    world.convert().await.unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn two_compactors_do_not_work_on_one_topic() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    let other = SeededIds::new(77).uuid();
    let claim = world
        .node
        .client()
        .claim_table(world.topic, other, 60_000)
        .await;
    claim.unwrap().unwrap();
    let held = world.convert().await.unwrap_err();
    assert!(
        matches!(
            held,
            JobError::Refused(frazil_core::ports::TableRefusal::Held)
        ),
        "{held}"
    );
    world.wait(Duration::from_secs(61)).await;
    world.convert().await.unwrap();
    assert_eq!(world.check().await[&0], Offset(5));
}

#[tokio::test(start_paused = true)]
async fn what_nothing_needs_is_deleted_after_its_time() {
    let mut world = World::new(&[]).await;
    for _ in 0..3 {
        world.produce(&[(0, 5)]).await;
        world.convert().await.unwrap();
    }
    let before = world.objects().await;
    world.collect().await;
    assert_eq!(world.objects().await, before, "readers may be under way");
    world.wait(GRACE * 2).await;
    world.collect().await;
    let after = world.objects().await;
    // The roots and the metadata of the first two.
    assert_eq!(before.difference(&after).count(), 4, "{before:?} {after:?}");
    world.check().await;
    assert_eq!(world.node.client().retired_objects(9), []);
}

#[tokio::test(start_paused = true)]
async fn a_topic_deleted_under_a_job_is_dropped() {
    let mut world = World::new(&[]).await;
    world.produce(&[(0, 5)]).await;
    let topic = world.topic();
    world
        .node
        .client()
        .delete_topic(world.topic)
        .await
        .unwrap()
        .unwrap();
    let table = TopicConfig::default().table;
    match job::run(&world.ctx, &topic, table).await {
        Ok(done) => assert_eq!(done, Done::default()),
        Err(error) => assert!(matches!(error, JobError::Refused(_)), "{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_keeps_tables_fresh_and_files_few() {
    let settings = [
        ("frazil.table.mode", "shared"),
        ("frazil.table.freshness.ms", "5000"),
    ];
    let mut world = World::new(&settings).await;
    let client = Arc::new(world.node.client().clone());
    let retries = Retries::new(Arc::new(SeededIds::new(2)), Default::default());
    let config = crate::Config {
        grace: GRACE,
        ..crate::Config::default()
    };
    let metrics = Metrics::default();
    let service = crate::Service::new(
        config,
        client.clone(),
        client.clone(),
        world.store.clone(),
        retries,
        Path::from("cluster"),
        metrics.clone(),
    );
    let tables = FreezeConfig::new("memory:///cluster".to_owned());
    let service = service.with_tables(tables, client, SeededIds::new(9).uuid());
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    for _ in 0..100 {
        world.produce(&[(0, 5), (1, 1)]).await;
        world.wait(Duration::from_secs(8)).await;
        assert_eq!(world.check().await[&0], world.ends[&0]);
    }
    assert!(metrics.merges.get() > 8, "{}", metrics.merges.get());
    world.wait(2 * GRACE + Duration::from_secs(120)).await;
    // What is left: what old snapshots need, and no segment.
    let left = world.objects().await;
    assert!(
        left.iter().all(|key| !key.contains("segments/")),
        "{left:?}"
    );
    let roots = left.iter().filter(|key| key.contains("/manifest/"));
    assert_eq!(roots.count(), 2, "{left:?}");
    stop.cancel();
    running.await.unwrap();
}

/// Retention that keeps what is not older than this.
async fn retain(world: &World, age_ms: i64) -> u64 {
    let limits = |_: &Topic| crate::retention::Limits {
        age_ms: Some(age_ms),
        bytes: None,
    };
    let client = world.node.client();
    let metrics = Metrics::default();
    let round = crate::retention::round(client, limits, Some(&world.ctx), &metrics);
    let count = round.await.unwrap();
    client.barrier().await.unwrap();
    count
}

async fn upkeep(world: &World) -> super::upkeep::Kept {
    let topic = world.topic();
    let table = table_config(&topic);
    let kept = super::upkeep::run(&world.ctx, &topic, table).await.unwrap();
    world.node.client().barrier().await.unwrap();
    kept
}

/// That the bucket holds what is named, and nothing else, once everything had its time.
async fn nothing_is_left_over(world: &World) {
    let mut sweep = Orphans::default();
    for _ in 0..4 {
        world.wait(GRACE * 2).await;
        world.collect().await;
        sweep.round(&world.ctx, GRACE).await.unwrap();
    }
    world.holds_what_is_named().await;
}

#[tokio::test(start_paused = true)]
async fn retention_takes_cold_offsets_too() {
    let mut world = World::new(&[]).await;
    world.ctx.config.memory = 400;
    for _ in 0..10 {
        world.produce(&[(0, 40)]).await;
        world.convert().await.unwrap();
    }
    world.produce(&[(1, 30)]).await;
    world.convert().await.unwrap();
    world.produce(&[(0, 40)]).await;
    let bounds = |world: &World, partition| {
        let partition = TopicPartition::new(world.topic, partition);
        world.node.client().bounds(&partition).unwrap()
    };
    // Timestamps are offsets from the state's first time.
    let now_ms = frazil_core::ports::Ledger::now_ms(world.node.client());
    let age = now_ms - (1_700_000_000_000 + 120);
    assert!(retain(&world, age).await > 0);
    assert_eq!(bounds(&world, 0).log_start, Offset(120));
    assert_eq!(
        bounds(&world, 1).log_start,
        Offset(30),
        "all of it is older"
    );
    let kept = upkeep(&world).await;
    assert_eq!((kept.trimmed, kept.removed), (2, 4), "{kept:?}");
    let cold = world.check().await;
    assert_eq!(cold, BTreeMap::from([(0, Offset(400))]));
    assert_eq!(upkeep(&world).await.trimmed, 0);
    // Then everything, the extent too.
    world.wait(Duration::from_secs(1)).await;
    assert!(retain(&world, 0).await > 0);
    assert_eq!(bounds(&world, 0).log_start, Offset(440));
    upkeep(&world).await;
    assert!(world.check().await.is_empty());
    // Old snapshots can be read for an hour, and nothing is left of them after that.
    nothing_is_left_over(&world).await;
    assert!(
        world
            .objects()
            .await
            .iter()
            .any(|key| key.ends_with(".parquet"))
    );
    world.wait(Duration::from_secs(3700)).await;
    assert!(upkeep(&world).await.expired > 5);
    world.wait(Duration::from_secs(3700)).await;
    upkeep(&world).await;
    nothing_is_left_over(&world).await;
    assert!(
        !world
            .objects()
            .await
            .iter()
            .any(|key| key.ends_with(".parquet"))
    );
    world.produce(&[(0, 5)]).await;
    world.convert().await.unwrap();
    assert_eq!(world.check().await[&0], Offset(445));
}

#[tokio::test(start_paused = true)]
async fn merged_files_go_with_the_snapshots_that_name_them() {
    let mut world = World::new(&[("frazil.table.snapshot.retention.ms", "60000")]).await;
    for _ in 0..8 {
        world.produce(&[(0, 5), (1, 3)]).await;
        world.convert().await.unwrap();
    }
    assert_eq!(world.merge().await.unwrap(), 8);
    let files =
        |keys: &BTreeSet<String>| keys.iter().filter(|key| key.ends_with("parquet")).count();
    assert_eq!(files(&world.objects().await), 9);
    assert_eq!(upkeep(&world).await.expired, 0);
    world.wait(Duration::from_secs(61)).await;
    assert_eq!(upkeep(&world).await.expired, 8);
    // What nothing names is noted at once, not only found by a search.
    world.wait(GRACE * 2).await;
    world.collect().await;
    assert_eq!(files(&world.objects().await), 1);
    world.check().await;
    nothing_is_left_over(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_can_keep_more_than_the_log_or_less() {
    for (retention, left) in [("-1", 15), ("-2", 5), ("1000", 0)] {
        let mut world = World::new(&[("frazil.table.retention.ms", retention)]).await;
        for _ in 0..3 {
            world.produce(&[(0, 5)]).await;
            world.convert().await.unwrap();
        }
        let now_ms = frazil_core::ports::Ledger::now_ms(world.node.client());
        retain(&world, now_ms - (1_700_000_000_000 + 10)).await;
        world.wait(Duration::from_secs(2)).await;
        upkeep(&world).await;
        let snapshots = world.snapshots().await;
        let rows: i64 = snapshots
            .last()
            .unwrap()
            .files
            .iter()
            .map(|entry| entry.file.records)
            .sum();
        assert_eq!(rows, left, "{retention}");
        world.wait(Duration::from_secs(2 * 3600)).await;
        upkeep(&world).await;
        nothing_is_left_over(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_converted_yet_is_not_tried_all_the_time() {
    let settings = [("frazil.table.mode", "shared")];
    let mut world = World::new(&settings).await;
    let commit = Commit {
        broker: world.broker,
        epoch: world.epoch,
        sealed_below: 0,
        segments: Vec::new(),
        appends: vec![Append {
            partition: TopicPartition::new(world.topic, 0),
            location: Location::Wal {
                broker: world.broker,
                epoch: world.epoch,
                start: 0,
                length: 100,
            },
            batches: vec![BatchInfo {
                length: 100,
                records: 1,
                max_timestamp: 0,
                producer: None,
            }],
        }],
        moves: Vec::new(),
    };
    world.node.client().commit(commit).await.unwrap();
    world.ctx.config.waiting_bytes = 10;
    let metrics = world.ctx.metrics.clone();
    let catalog = Arc::new(world.node.client().clone());
    let freezer = super::Freezer::new(Arc::new(world.ctx), catalog, BTreeMap::new());
    let running = tokio::spawn(freezer.run());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        (15..25).contains(&metrics.jobs.get()),
        "{}",
        metrics.jobs.get()
    );
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_topic_with_a_backlog_does_not_keep_another_from_its_turn() {
    let settings = [
        ("frazil.table.mode", "shared"),
        ("frazil.table.freshness.ms", "5000"),
    ];
    let mut world = World::new(&settings).await;
    let client = Arc::new(world.node.client().clone());
    for _ in 0..40 {
        world.produce(&[(0, 3)]).await;
    }
    let other = NewTopic {
        id: TopicId::new(SeededIds::new(7).uuid()),
        name: TopicName::new("u").expect("a name"),
        partitions: 1,
        replication_factor: 1,
        config: super::tests::settings(&settings),
    };
    let backlog = TopicPartition::new(world.topic, 0);
    let id = other.id;
    client.create_topic(other).await.unwrap().unwrap();
    let other = TopicPartition::new(id, 0);
    let retries = Retries::new(Arc::new(SeededIds::new(3)), Default::default());
    let ctx = Ctx {
        config: FreezeConfig {
            // A job takes one segment.
            job_bytes: 1,
            interval: Duration::from_millis(10),
            ..world.ctx.config.clone()
        },
        bucket: Bucket::new(world.store.clone(), retries, Path::from("cluster")),
        ledger: Arc::clone(&world.ctx.ledger),
        tables: Arc::clone(&world.ctx.tables),
        metrics: world.ctx.metrics.clone(),
        holder: world.ctx.holder,
    };
    let freezer = super::Freezer::new(Arc::new(ctx), client, BTreeMap::new());
    let running = tokio::spawn(freezer.run());
    tokio::time::sleep(Duration::from_millis(15)).await;
    // So it never has waited for as long as the backlog.
    (world.topic, world.ends) = (other.topic, BTreeMap::new());
    world.produce(&[(0, 3)]).await;
    let end = |of: &TopicPartition| world.ctx.ledger.cold(of).map_or(0, |root| root.end.0);
    for _ in 0..10_000 {
        if end(&other) > 0 || end(&backlog) == 40 * 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(end(&other), 3);
    assert!(end(&backlog) < 40 * 3, "the backlog was converted first");
    running.abort();
}

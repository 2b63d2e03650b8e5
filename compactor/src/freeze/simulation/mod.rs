//! Random histories of compactors that convert, merge, retain and collect at once, compete, are
//! stopped for longer than their leases, and are killed at any request; over a quorum and a store
//! that fail.
//!
//! State, client and everything of the compactor are the real ones. [`oracle`] looks at every command
//! and every deletion:
//!
//! - after each replacement, the cold offsets of each partition hold exactly the records that were
//!   committed (I37), and every snapshot of a table exactly a prefix of each partition (I38);
//! - what is named is in the store, from the command that names it on, for a grace period longer
//!   than it is named; no other reason leads to a deletion;
//! - no job asks for what makes no sense;
//! - when everything has come to rest, the store holds what is named, and nothing else.

mod objects;
mod oracle;

use std::sync::Arc;
use std::time::Duration;

use frazil_core::batch::{BatchBuilder, BatchHeader, Codec};
use frazil_core::env::Ids;
use frazil_core::env::testing::{SeededIds, seeds};
use frazil_core::ports::{Append, BatchInfo, Catalog, Commit, NewTopic, SegmentInfo, Sequencer};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, PortError, SegmentId, TopicId, TopicName,
    TopicPartition,
};
use frazil_metadata::simulated::{Node, Quorum};
use frazil_metadata::{ClientConfig, Registration};
use frazil_objects::Retries;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::simulated::{self, Bucket, Shared};
use crate::{Config, FreezeConfig, Metrics, Service};
use objects::Tables;
use oracle::{GRACE, Oracle};

const PARTITIONS: i32 = 2;
const COMPACTORS: usize = 2;
const DAY_MS: i64 = 86_400_000;

struct World {
    quorum: Quorum,
    shared: Arc<Shared<Tables>>,
    random: SeededIds,
    config: ClientConfig,
    /// Nothing is ever removed from this one.
    kept: TopicId,
    metrics: Metrics,
}

impl World {
    fn below(&self, bound: u64) -> u64 {
        self.random.random() % bound
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn node(&self) -> Arc<Node> {
        Arc::new(self.quorum.node(self.random.random(), self.config.clone()))
    }

    fn storm(&self) {
        let ms = |most| Duration::from_millis(self.below(most));
        self.quorum.set(simulated::storm(|bound| self.below(bound)));
        *self.shared.weather.lock() = simulated::Weather {
            throttled: self.below(15),
            unanswered: self.below(10),
            late: self.below(8),
            latency: ms(300),
            delay: Duration::from_secs(self.below(100)),
        };
    }

    fn calm(&self) {
        self.quorum.set(Default::default());
        *self.shared.weather.lock() = simulated::Weather::default();
    }
}

/// A compactor, which can be killed.
struct Compactor {
    node: Arc<Node>,
    task: JoinHandle<()>,
}

impl Compactor {
    fn start(world: &Arc<World>) -> Self {
        let node = world.node();
        let seconds = |least, most: u64| Duration::from_secs(least + world.below(most));
        let config = Config {
            retention_interval: seconds(15, 10),
            reclaim_interval: seconds(5, 10),
            sweep_interval: seconds(20, 20),
            grace: GRACE,
            ..Config::default()
        };
        let store = Arc::new(Bucket {
            shared: Arc::clone(&world.shared),
            node: Arc::clone(&node),
        });
        let client = Arc::new(node.client().clone());
        let ids = Arc::new(SeededIds::new(world.random.random()));
        let retries = Retries::new(ids, frazil_objects::Metrics::default());
        let tables = FreezeConfig {
            interval: Duration::from_millis(500),
            jobs: 1 + world.below(2) as usize,
            memory: [40_000, 256 << 10, 256 << 10][world.below(3) as usize],
            job_bytes: 1_000 + world.below(10_000),
            waiting_bytes: 500 + world.below(20_000),
            upkeep: seconds(10, 30),
            lease: seconds(5, 60),
            ..FreezeConfig::new("memory:///cluster".to_owned())
        };
        let service = Service::new(
            config,
            client.clone(),
            client.clone(),
            store,
            retries,
            Path::from("cluster"),
            world.metrics.clone(),
        );
        let service = service.with_tables(tables, client, world.random.uuid());
        let task = tokio::spawn(service.run(CancellationToken::new()));
        Self { node, task }
    }

    /// The process ends at once; what it has sent goes on its way.
    async fn kill(&mut self) {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// A gateway that keeps its contract, and is never killed: what it does wrong is another simulation's.
struct Producer {
    world: Arc<World>,
    node: Arc<Node>,
    broker: BrokerId,
    epoch: BrokerEpoch,
    next: u64,
    produced: u64,
}

impl Producer {
    async fn new(world: &Arc<World>) -> Self {
        let node = world.node();
        let registration = Registration {
            id: None,
            incarnation: world.random.uuid(),
            host: "h".to_owned(),
            port: 1,
            rack: None,
            peer: String::new(),
            lease: Duration::from_secs(360_000),
        };
        let (broker, epoch) = node.client().register(registration).await.expect("calm");
        Self {
            world: Arc::clone(world),
            node,
            broker,
            epoch,
            next: 0,
            produced: 0,
        }
    }

    /// Puts a segment with batches for some partitions, and commits it.
    async fn flush(&mut self, topics: &[TopicId]) {
        let id = SegmentId::new(self.epoch, self.next);
        self.next += 1;
        let mut object = vec![0; 16];
        let mut appends = Vec::new();
        for topic in topics {
            for partition in 0..PARTITIONS {
                if self.world.chance(40) {
                    continue;
                }
                let start = object.len() as u32;
                let mut batches = Vec::new();
                for _ in 0..1 + self.world.below(3) {
                    let batch = self.batch();
                    let header = BatchHeader::parse(&batch).expect("a batch");
                    batches.push(BatchInfo {
                        length: header.length,
                        records: header.offsets(),
                        max_timestamp: header.max_timestamp,
                        producer: None,
                    });
                    object.extend_from_slice(&batch);
                }
                let length = object.len() as u32 - start;
                appends.push(Append {
                    partition: TopicPartition::new(*topic, partition),
                    location: Location::Segment { id, start, length },
                    batches,
                });
            }
        }
        let bytes = object.len() as u64;
        let path = crate::reclaim::object(&Path::from("cluster"), id);
        let objects = &self.world.shared.objects.objects;
        objects.put(&path, object.into()).await.expect("in memory");
        let fence = Commit {
            broker: self.broker,
            epoch: self.epoch,
            sealed_below: self.next,
            segments: Vec::new(),
            appends: Vec::new(),
            moves: Vec::new(),
        };
        let mut next = Commit {
            segments: vec![SegmentInfo { id, bytes }],
            appends,
            ..fence.clone()
        };
        loop {
            match self.node.client().commit(next.clone()).await {
                Ok(_) => return,
                Err(PortError::Unavailable(_)) => {}
                Err(PortError::Indeterminate(_)) => next = fence.clone(),
                Err(error) => panic!("{error}: {next:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn batch(&mut self) -> bytes::Bytes {
        let world = &self.world;
        let codec = [Codec::None, Codec::Lz4, Codec::Zstd][world.below(3) as usize];
        let mut batch = BatchBuilder::new().codec(codec);
        for _ in 0..1 + world.below(12) {
            self.produced += 1;
            let value = format!("value {}", self.produced);
            let value = (!world.chance(10)).then_some(value.as_bytes());
            let key: Option<&[u8]> = world.chance(50).then_some(b"key");
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", None), (b"\xff", Some(b"x"))];
            let headers = &headers[..world.below(3) as usize];
            let time = match world.below(20) {
                0 => -1,
                1 => -5 * DAY_MS,
                2 => 900_000 * DAY_MS,
                // Mostly in order, over some days.
                _ => 1_700_000_000_000 + self.produced as i64 * DAY_MS / 300,
            };
            batch.push(time, key, value, headers);
        }
        batch.build()
    }
}

fn new_topic(id: TopicId, name: &str, settings: &[(&str, &str)]) -> NewTopic {
    let config = settings.iter();
    NewTopic {
        id,
        name: TopicName::new(name).expect("a name"),
        partitions: PARTITIONS,
        replication_factor: 1,
        config: config
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
    }
}

const KEPT: &[(&str, &str)] = &[
    ("frazil.table.mode", "shared"),
    ("frazil.table.freshness.ms", "4000"),
    ("frazil.table.snapshot.retention.ms", "30000"),
    ("retention.ms", "-1"),
];
const OTHER: &[(&str, &str)] = &[
    ("frazil.table.mode", "shared"),
    ("frazil.table.freshness.ms", "1000"),
    ("frazil.table.snapshot.retention.ms", "5000"),
    ("frazil.table.partition.by", "hour"),
    ("retention.ms", "-1"),
    ("retention.bytes", "20000"),
];

/// What an operator does to the topic that is not kept: deletes records, or the topic, and makes it
/// again.
async fn operate(world: &World, admin: &Node, other: &mut TopicId) {
    let client = admin.client();
    if world.chance(25) {
        drop(client.delete_topic(*other).await);
        let id = TopicId::new(world.random.uuid());
        if let Ok(Ok(_)) = client.create_topic(new_topic(id, "other", OTHER)).await {
            *other = id;
        }
    } else {
        let partition = TopicPartition::new(*other, world.below(PARTITIONS as u64) as i32);
        let bounds = world.quorum.read(|state| state.bounds(&partition));
        if let Some(bounds) = bounds {
            let to = Offset(bounds.high_watermark.0 - world.below(60) as i64);
            drop(
                client
                    .delete_records(partition, Some(to.max(Offset::ZERO)))
                    .await,
            );
        }
    }
}

fn world(seed: u64) -> Arc<World> {
    let random = SeededIds::new(seed);
    // One whose cluster knows of tables.
    let quorum = loop {
        let quorum = Quorum::new(random.random());
        if quorum.read(|state| state.level()) >= 3 {
            break quorum;
        }
    };
    let kept = TopicId::new(random.uuid());
    let objects = Arc::new(InMemory::new());
    let oracle = Arc::new(Mutex::new(Oracle::new(objects.clone(), kept)));
    quorum.watch({
        let oracle = Arc::clone(&oracle);
        move |applied| oracle.lock().applied(applied)
    });
    let tables = Tables {
        objects,
        quorum: quorum.clone(),
        oracle,
    };
    let shared = Arc::new(Shared::new(tables, SeededIds::new(random.random())));
    let patient = random.random().is_multiple_of(2);
    Arc::new(World {
        quorum,
        shared,
        config: ClientConfig {
            deadline: Duration::from_secs(if patient { 5 } else { 1 }),
            attempt: Duration::from_millis(700),
            seal_after: Duration::from_secs(400_000),
        },
        random,
        kept,
        metrics: Metrics::default(),
    })
}

async fn history(seed: u64) {
    let world = world(seed);
    let admin = world.node();
    let mut other = TopicId::new(world.random.uuid());
    for (id, name, settings) in [(world.kept, "kept", KEPT), (other, "other", OTHER)] {
        let created = admin
            .client()
            .create_topic(new_topic(id, name, settings))
            .await;
        created.expect("calm").expect("a new topic");
    }
    let mut producer = Producer::new(&world).await;
    world.storm();
    let mut compactors: Vec<Compactor> =
        (0..COMPACTORS).map(|_| Compactor::start(&world)).collect();
    for _ in 0..30 + world.below(30) {
        tokio::time::sleep(Duration::from_millis(500 + world.below(5_000))).await;
        let which = world.below(COMPACTORS as u64) as usize;
        match world.below(12) {
            0 => world.storm(),
            1 => world.calm(),
            2 => compactors[which].node.pause(),
            3 => compactors.iter().for_each(|one| one.node.resume()),
            4 | 5 => {
                compactors[which].kill().await;
                compactors[which] = Compactor::start(&world);
            }
            6 => operate(&world, &admin, &mut other).await,
            _ => producer.flush(&[world.kept, other]).await,
        }
    }

    // Then peace: everything is converted, and what nothing needs goes.
    world.calm();
    for one in &compactors {
        one.node.resume();
    }
    tokio::time::sleep(Duration::from_secs(500)).await;
    // What was replaced last, and stays for those who read it.
    for compactor in &mut compactors {
        compactor.kill().await;
    }
    let objects = world
        .shared
        .objects
        .objects
        .list(None)
        .map_ok(|object| object.location);
    let objects: Vec<Path> = objects.try_collect().await.expect("in memory");
    world.quorum.read(|state| {
        state.check().expect("a possible state");
        for partition in 0..PARTITIONS {
            let partition = TopicPartition::new(world.kept, partition);
            let bounds = state.bounds(&partition).expect("it is there");
            let cold = state.cold(&partition).map_or(Offset::ZERO, |root| root.end);
            assert_eq!(cold, bounds.high_watermark, "{partition} is not converted");
        }
        let oracle = world.shared.objects.oracle.lock();
        oracle.at_rest(state, &objects);
        assert!(oracle.replacements > 5, "{}", oracle.replacements);
        assert!(oracle.deletions > 5, "{}", oracle.deletions);
    });
}

fn run(history: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(history);
}

#[test]
fn histories() {
    seeds(
        "frazil-compactor",
        "freeze::simulation::histories",
        40,
        |seed| {
            run(history(seed));
        },
    );
}

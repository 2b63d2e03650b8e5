//! Random histories of the chores: gateways that commit and die, collectors that compete, readers
//! in flight, a store that does things late, any of them stopped for longer than the grace period.
//!
//! State, client and chores are the real ones ([`frazil_metadata::simulated`]). [`oracle`] looks at
//! every command and every deletion:
//!
//! - what is referred to exists (I33), and what is deleted was retired for the grace period, or never
//!   was and never can be referred to: neither absence nor age is a reason (I34);
//! - what was retired never comes back; log starts and ends never go back (I10);
//! - retention takes only what is too old or too much;
//! - a reader that is quick enough finds every object that it was told of;
//! - when everything has come to rest, the store holds what is referred to, and nothing else (I34).

mod bucket;
mod gateway;
mod oracle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::Ids;
use frazil_core::env::testing::{SeededIds, seeds};
use frazil_core::ports::{Catalog, LogIndex, NewTopic};
use frazil_core::{Location, SegmentId, TopicId, TopicName, TopicPartition};
use frazil_metadata::ClientConfig;
use frazil_metadata::simulated::{Node, Quorum};
use frazil_objects::Retries;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::reclaim::object;
use crate::simulated::{self, Bucket, Shared};
use crate::{Config, Metrics, Service};
use bucket::Segments;
use gateway::Gateway;
use oracle::{GRACE, Oracle, RETENTION_BYTES, RETENTION_MS};

const PARTITIONS: i32 = 3;
const GATEWAYS: usize = 3;
const COLLECTORS: usize = 2;
const READERS: usize = 2;
const LEASE: Duration = Duration::from_secs(10);

struct World {
    quorum: Quorum,
    bucket: Arc<Shared<Segments>>,
    random: SeededIds,
    prefix: Path,
    topic: TopicId,
    config: ClientConfig,
}

impl World {
    fn below(&self, bound: u64) -> u64 {
        self.random.random() % bound
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn some_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic, self.below(PARTITIONS as u64) as i32)
    }

    fn node(&self) -> Arc<Node> {
        let config = self.config.clone();
        Arc::new(self.quorum.node(self.random.random(), config))
    }

    /// The store, as a process sees it.
    fn store(&self, node: &Arc<Node>) -> Bucket<Segments> {
        Bucket {
            shared: Arc::clone(&self.bucket),
            node: Arc::clone(node),
        }
    }

    fn storm(&self) {
        let ms = |most| Duration::from_millis(self.below(most));
        self.quorum.set(simulated::storm(|bound| self.below(bound)));
        *self.bucket.weather.lock() = simulated::Weather {
            throttled: self.below(20),
            unanswered: self.below(20),
            late: self.below(15),
            latency: ms(500),
            delay: Duration::from_secs(self.below(120)),
        };
    }

    fn calm(&self) {
        self.quorum.set(Default::default());
        *self.bucket.weather.lock() = simulated::Weather::default();
    }
}

/// The bytes of a segment's object: anything that no other has.
fn content(id: SegmentId, length: usize) -> Vec<u8> {
    let name = id.to_string().into_bytes();
    name.into_iter().cycle().take(length).collect()
}

/// Reads logs from their beginning, for ever.
async fn read(world: Arc<World>, node: Arc<Node>) {
    let store = world.store(&node);
    loop {
        tokio::time::sleep(Duration::from_secs(1 + world.below(10))).await;
        node.running().await;
        let partition = world.some_partition();
        let Some(bounds) = node.client().bounds(&partition) else {
            continue;
        };
        let located = node.client().locate(&partition, bounds.log_start, 300);
        for extent in located.extents {
            let Location::Segment { id, start, length } = extent.location else {
                continue;
            };
            let path = object(&world.prefix, id);
            let found = loop {
                match store.get(&path).await {
                    Ok(found) => break Some(found.bytes().await.expect("in memory")),
                    Err(object_store::Error::NotFound { .. }) => break None,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            };
            match found {
                Some(bytes) => {
                    let range = start as usize..(start + length) as usize;
                    let expected = content(id, bytes.len());
                    assert_eq!(bytes[range.clone()], expected[range], "{id}");
                }
                // It was stopped, or its image is old.
                None => world.quorum.read(|state| {
                    let oracle = world.bucket.objects.oracle.lock();
                    assert!(oracle.may_be_gone(state, id), "{id} is missing");
                }),
            }
        }
    }
}

async fn collect(world: Arc<World>, node: Arc<Node>, stop: CancellationToken) {
    let seconds = Duration::from_secs;
    let config = Config {
        retention_interval: seconds(15 + world.below(10)),
        reclaim_interval: seconds(5 + world.below(10)),
        sweep_interval: seconds(20 + world.below(20)),
        grace: GRACE,
        producer_expiration: seconds(3600),
        offsets_retention: seconds(3600),
        broker_defaults: BTreeMap::new(),
    };
    let client = Arc::new(node.client().clone());
    let store = Arc::new(world.store(&node));
    let prefix = world.prefix.clone();
    let ledger = Arc::clone(&client);
    let ids = Arc::new(SeededIds::new(world.random.random()));
    let retries = Retries::new(ids, frazil_objects::Metrics::default());
    let metrics = Metrics::default();
    let service = Service::new(config, ledger, client, store, retries, prefix, metrics);
    service.run(stop).await;
}

/// What an operator does: deletes records, and a topic.
async fn operate(world: &World, admin: &Node, other: TopicId) {
    if world.chance(10) {
        drop(admin.client().delete_topic(other).await);
    } else if world.chance(30) {
        let partition = world.some_partition();
        let end = world.quorum.read(|state| state.bounds(&partition));
        if let Some(bounds) = end {
            let to = bounds.high_watermark.0 - world.below(20) as i64;
            let to = frazil_core::Offset(to.max(0));
            drop(admin.client().delete_records(partition, Some(to)).await);
        }
    }
}

fn new_topic(id: TopicId, name: &str) -> NewTopic {
    let config = [
        ("retention.ms", RETENTION_MS.to_string()),
        ("retention.bytes", RETENTION_BYTES.to_string()),
    ];
    NewTopic {
        id,
        name: TopicName::new(name).expect("a name"),
        partitions: PARTITIONS,
        replication_factor: 1,
        config: config.map(|(k, v)| (k.to_owned(), v)).into(),
    }
}

async fn history(seed: u64) {
    let random = SeededIds::new(seed);
    let prefix = Path::from("cluster");
    let quorum = Quorum::new(random.random());
    let oracle = Arc::new(Mutex::new(Oracle::new(prefix.clone())));
    quorum.watch({
        let oracle = Arc::clone(&oracle);
        move |applied| oracle.lock().applied(applied)
    });
    let segments = Segments {
        quorum: quorum.clone(),
        oracle: Arc::clone(&oracle),
    };
    let bucket = Arc::new(Shared::new(segments, SeededIds::new(random.random())));
    let patient = random.random().is_multiple_of(2);
    let world = Arc::new(World {
        quorum: quorum.clone(),
        bucket,
        topic: TopicId::new(random.uuid()),
        prefix,
        config: ClientConfig {
            deadline: Duration::from_secs(if patient { 5 } else { 1 }),
            attempt: Duration::from_millis(700),
            seal_after: Duration::from_secs(40),
        },
        random,
    });
    let admin = world.node();
    let other = TopicId::new(world.random.uuid());
    for (id, name) in [(world.topic, "kept"), (other, "dropped")] {
        let created = admin.client().create_topic(new_topic(id, name)).await;
        created.expect("calm").expect("a new topic");
    }
    world.storm();

    let stop = CancellationToken::new();
    let collectors: Vec<_> = (0..COLLECTORS).map(|_| world.node()).collect();
    let readers: Vec<_> = (0..READERS).map(|_| world.node()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for node in &collectors {
        tasks.spawn(collect(Arc::clone(&world), Arc::clone(node), stop.clone()));
    }
    let mut reading = tokio::task::JoinSet::new();
    for node in &readers {
        reading.spawn(read(Arc::clone(&world), Arc::clone(node)));
    }
    let mut gateways: Vec<Gateway> = (0..GATEWAYS)
        .map(|_| Gateway::start(&world, other, None))
        .collect();
    for _ in 0..30 + world.below(30) {
        tokio::time::sleep(Duration::from_millis(1_000 + world.below(6_000))).await;
        let others = || collectors.iter().chain(&readers);
        match world.below(12) {
            0 | 1 => world.storm(),
            2 | 3 => {
                let which = world.below((COLLECTORS + READERS) as u64) as usize;
                others().nth(which).expect("one").pause();
            }
            4 | 5 => others().for_each(|node| node.resume()),
            6 => gateways[world.below(GATEWAYS as u64) as usize].pause(),
            7 => gateways.iter().for_each(Gateway::resume),
            8 => {
                let which = world.below(GATEWAYS as u64) as usize;
                let id = gateways[which].kill().await;
                // On a new disk it is another.
                let id = id.filter(|_| world.chance(80));
                gateways[which] = Gateway::start(&world, other, id);
            }
            _ => operate(&world, &admin, other).await,
        }
    }

    // Then peace: everybody goes on, finishes, and leaves.
    world.calm();
    for node in collectors.iter().chain(&readers) {
        node.resume();
    }
    for gateway in &mut gateways {
        gateway.resume();
        // Whoever was superseded or given up must come again for what its log holds.
        let id = gateway.kill().await;
        *gateway = Gateway::start(&world, other, id);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    for gateway in gateways {
        gateway.leave().await;
    }
    assert!(reading.try_join_next().is_none(), "readers go on for ever");
    reading.shutdown().await;
    // What is late arrives, lost gateways are given up, their orphans are swept.
    tokio::time::sleep(Duration::from_secs(300)).await;
    stop.cancel();
    let lost = quorum.read(|state| {
        let all: Vec<_> = state.registrations().map(|known| known.broker.id).collect();
        all.iter().any(|id| !state.wal_extents(*id).is_empty())
    });
    assert!(tasks.join_next().await.is_some_and(|ended| ended.is_ok()));
    tasks.shutdown().await;
    let oracle = quorum.read(|state| {
        state.check().expect("a possible state");
        assert_eq!(state.retired_segments(9), []);
        let oracle = oracle.lock();
        // What the log of a gateway holds that never came back keeps its epoch open.
        oracle.at_rest(state, lost);
        oracle
    });
    assert!(oracle.deletions > 10, "{} deletions", oracle.deletions);
    assert!(oracle.expired > 10, "{} expired", oracle.expired);
}

#[test]
fn histories() {
    seeds("frazil-compactor", "simulation::histories", 200, |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(history(seed));
    });
}

//! A quorum in memory, for tests of handlers: one mutex instead of a replicated log.
//!
//! It keeps the promises that the ports make (fencing by claims, checks inside the command), and
//! no more than handlers need: partitions are bounds without extents.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use frazil_cache::Cache;
use frazil_core::env::testing::{ManualClock, MemDisk, SeededIds};
use frazil_core::group::{CommittedOffset, Coordinator, Group};
use frazil_core::ports::{
    Bounds, Broker, Catalog, CatalogRefusal, Commit, CommitOutcome, ConfigTarget, GroupClaim,
    GroupRefusal, GroupStore, Located, LogIndex, NewTopic, Place, Sequencer, TOPIC_PARTITIONS_MAX,
    Watch,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Extent, Offset, PortError, PortResult, ProducerId, Topic, TopicId,
    TopicName, TopicPartition,
};
use object_store::memory::InMemory;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Config, ConnInfo, Ctx, Header, Metrics};

/// The fake quorum.
pub(crate) struct World {
    pub(crate) state: Mutex<WorldState>,
    /// While set, commands and barriers fail with [`PortError::Unavailable`].
    pub(crate) unavailable: AtomicBool,
    /// While set, the outcome of commits of offsets is unknown: they happen at
    /// [`World::happen_late`].
    pub(crate) late: AtomicBool,
    happening: Mutex<Vec<Late>>,
    /// A permit is needed for every save of a group.
    pub(crate) saves: Semaphore,
}

#[derive(Default)]
pub(crate) struct WorldState {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) topics: BTreeMap<String, Arc<Topic>>,
    pub(crate) bounds: BTreeMap<TopicPartition, Bounds>,
    pub(crate) broker_config: BTreeMap<Option<BrokerId>, BTreeMap<String, String>>,
    pub(crate) groups: BTreeMap<String, GroupState>,
    claims: u64,
    producers: i64,
}

#[derive(Default)]
pub(crate) struct GroupState {
    pub(crate) group: Group,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

impl GroupState {
    /// A claim alone makes no group.
    fn exists(&self) -> bool {
        self.group != Group::default() || !self.offsets.is_empty()
    }
}

/// A commit of offsets on its way.
type Late = (
    GroupClaim,
    Option<(i32, String)>,
    Vec<(TopicPartition, CommittedOffset)>,
);

/// A broker for the image.
pub(crate) fn broker(id: i32) -> Broker {
    Broker {
        id: BrokerId(id),
        epoch: BrokerEpoch(id as u64),
        host: format!("broker-{id}"),
        port: 9092,
        rack: None,
    }
}

/// The connection and header of a request.
pub(crate) fn conn() -> ConnInfo {
    ConnInfo {
        peer: "127.0.0.1:50000".parse().unwrap(),
        drain: CancellationToken::new(),
    }
}

/// The header of a request.
pub(crate) fn header(key: kafka_protocol::messages::ApiKey, version: i16) -> Header {
    Header {
        key,
        version,
        correlation_id: 1,
        client_id: Some(kafka_protocol::protocol::StrBytes::from_static_str("test")),
    }
}

impl World {
    /// A cluster of one broker with id 1.
    pub(crate) fn new() -> Arc<Self> {
        let state = WorldState {
            brokers: vec![broker(1)],
            ..WorldState::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            unavailable: AtomicBool::new(false),
            late: AtomicBool::new(false),
            happening: Mutex::default(),
            saves: Semaphore::new(1_000_000),
        })
    }

    /// What handlers of broker `me` work with.
    pub(crate) async fn ctx(self: &Arc<Self>, me: i32, config: Config) -> Ctx {
        let ids = Arc::new(SeededIds::new(me as u64));
        let parts = crate::Parts {
            broker: BrokerId(me),
            log: Arc::clone(self) as _,
            catalog: Arc::clone(self) as _,
            group_store: Arc::clone(self) as _,
            cache: self.cache().await,
            clock: Arc::new(ManualClock::new(1_000)),
            ids,
        };
        Ctx::new(parts, config, Metrics::register(&mut Registry::default()))
    }

    /// A cache that nobody runs.
    async fn cache(self: &Arc<Self>) -> Cache {
        let parts = frazil_cache::Parts {
            broker: BrokerId(1),
            epoch: BrokerEpoch(1),
            cluster: "test-cluster".into(),
            store: Arc::new(InMemory::new()),
            retries: frazil_cache::Retries::new(Arc::new(SeededIds::new(2)), Default::default()),
            prefix: object_store::path::Path::default(),
            sequencer: Arc::clone(self) as _,
            index: Arc::clone(self) as _,
            neighbours: None,
            disk: Arc::new(MemDisk::new()),
            ids: Arc::new(SeededIds::new(1)),
            metrics: frazil_cache::Metrics::default(),
        };
        let started = Cache::start(frazil_cache::Config::local(), parts).await;
        let (cache, _) = started.expect("a cache in memory");
        cache
    }

    /// Lets the commits happen whose outcome nobody knew.
    pub(crate) async fn happen_late(&self) {
        let late = std::mem::take(&mut *self.happening.lock());
        for (claim, member, offsets) in late {
            // Nobody hears of the outcome.
            let _ = self.commit_offsets(&claim, member, offsets).await;
        }
    }

    /// Makes a topic with empty partitions.
    pub(crate) fn add_topic(&self, name: &str, partitions: i32) -> TopicId {
        let id = TopicId::new(Uuid::from_u128(
            0xA000 + self.state.lock().topics.len() as u128,
        ));
        let new = NewTopic {
            id,
            name: TopicName::new(name).unwrap(),
            partitions,
            replication_factor: 1,
            config: BTreeMap::new(),
        };
        self.state.lock().create(new).unwrap();
        id
    }

    fn check_available(&self) -> PortResult<()> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable("as the test wants it".into()));
        }
        Ok(())
    }
}

impl WorldState {
    fn check(&self, new: &NewTopic) -> Result<(), CatalogRefusal> {
        if self.topics.contains_key(new.name.as_str()) {
            return Err(CatalogRefusal::TopicExists);
        }
        let key = new.name.collision_key();
        if let Some(other) = self.topics.values().find(|t| t.name.collision_key() == key) {
            return Err(CatalogRefusal::NameCollision(other.name.to_string()));
        }
        if !(1..=TOPIC_PARTITIONS_MAX).contains(&new.partitions) {
            return Err(CatalogRefusal::PartitionCount(0));
        }
        Ok(())
    }

    fn create(&mut self, new: NewTopic) -> Result<Arc<Topic>, CatalogRefusal> {
        self.check(&new)?;
        let topic = Arc::new(Topic {
            id: new.id,
            name: new.name,
            partitions: new.partitions,
            replication_factor: new.replication_factor,
            config: new.config,
            created_ms: 0,
        });
        self.topics
            .insert(topic.name.to_string(), Arc::clone(&topic));
        self.add_partitions(new.id, 0..new.partitions);
        Ok(topic)
    }

    fn add_partitions(&mut self, topic: TopicId, indexes: std::ops::Range<i32>) {
        for partition in indexes {
            let empty = Bounds {
                log_start: Offset::ZERO,
                last_stable: Offset::ZERO,
                high_watermark: Offset::ZERO,
            };
            self.bounds
                .insert(TopicPartition::new(topic, partition), empty);
        }
    }

    fn change(
        &mut self,
        id: TopicId,
        change: impl FnOnce(&mut Topic),
    ) -> Result<(), CatalogRefusal> {
        let topic = self.topics.values_mut().find(|topic| topic.id == id);
        change(Arc::make_mut(topic.ok_or(CatalogRefusal::UnknownTopic)?));
        Ok(())
    }

    fn claimed(&mut self, claim: &GroupClaim) -> Result<&mut GroupState, GroupRefusal> {
        let state = self
            .groups
            .get_mut(&claim.group)
            .ok_or(GroupRefusal::NotCoordinator)?;
        if state.coordinator != Some(claim.coordinator) {
            return Err(GroupRefusal::NotCoordinator);
        }
        Ok(state)
    }
}

#[async_trait]
impl Sequencer for World {
    async fn commit(&self, _: Commit) -> PortResult<CommitOutcome> {
        Err(PortError::Unavailable(
            "handlers append nothing here".into(),
        ))
    }
}

struct Never;

#[async_trait]
impl Watch for Never {
    async fn changed(&mut self) {
        std::future::pending().await
    }
}

#[async_trait]
impl LogIndex for World {
    fn bounds(&self, partition: &TopicPartition) -> Option<Bounds> {
        self.state.lock().bounds.get(partition).copied()
    }

    fn locate(&self, _: &TopicPartition, _: Offset, _: u64) -> Located {
        Located::default()
    }

    fn locate_time(&self, _: &TopicPartition, _: Offset, _: i64) -> Option<Place> {
        None
    }

    fn locate_max_timestamp(&self, _: &TopicPartition) -> Option<Place> {
        None
    }

    fn size_bytes(&self, _: &TopicPartition) -> u64 {
        0
    }

    fn wal_extents(&self, _: BrokerId) -> Vec<(TopicPartition, Extent)> {
        Vec::new()
    }

    fn watch(&self, _: &[TopicPartition]) -> Box<dyn Watch> {
        Box::new(Never)
    }

    async fn barrier(&self) -> PortResult<()> {
        self.check_available()
    }
}

#[async_trait]
impl Catalog for World {
    fn cluster_id(&self) -> String {
        "test-cluster".into()
    }

    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.state.lock().topics.get(name).cloned()
    }

    fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.state
            .lock()
            .topics
            .values()
            .find(|topic| topic.id == id)
            .cloned()
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.state.lock().topics.values().cloned().collect()
    }

    fn brokers(&self) -> Vec<Broker> {
        self.state.lock().brokers.clone()
    }

    fn broker_config(&self, broker: Option<BrokerId>) -> BTreeMap<String, String> {
        self.state
            .lock()
            .broker_config
            .get(&broker)
            .cloned()
            .unwrap_or_default()
    }

    fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogRefusal> {
        self.state.lock().check(topic)
    }

    async fn create_topic(
        &self,
        topic: NewTopic,
    ) -> PortResult<Result<Arc<Topic>, CatalogRefusal>> {
        self.check_available()?;
        Ok(self.state.lock().create(topic))
    }

    async fn delete_topic(&self, id: TopicId) -> PortResult<Result<(), CatalogRefusal>> {
        self.check_available()?;
        let mut state = self.state.lock();
        let before = state.topics.len();
        state.topics.retain(|_, topic| topic.id != id);
        state.bounds.retain(|partition, _| partition.topic != id);
        let deleted = state.topics.len() < before;
        Ok(deleted.then_some(()).ok_or(CatalogRefusal::UnknownTopic))
    }

    async fn create_partitions(
        &self,
        id: TopicId,
        partitions: i32,
    ) -> PortResult<Result<(), CatalogRefusal>> {
        self.check_available()?;
        let mut state = self.state.lock();
        let now = state
            .topics
            .values()
            .find(|topic| topic.id == id)
            .map(|topic| topic.partitions);
        let Some(now) = now else {
            return Ok(Err(CatalogRefusal::UnknownTopic));
        };
        if partitions <= now || partitions > TOPIC_PARTITIONS_MAX {
            return Ok(Err(CatalogRefusal::PartitionCount(now)));
        }
        state.add_partitions(id, now..partitions);
        Ok(state.change(id, |topic| topic.partitions = partitions))
    }

    async fn alter_config(
        &self,
        target: ConfigTarget,
        changes: Vec<(String, Option<String>)>,
    ) -> PortResult<Result<(), CatalogRefusal>> {
        self.check_available()?;
        let apply = |config: &mut BTreeMap<String, String>| {
            for (name, value) in changes {
                match value {
                    Some(value) => config.insert(name, value),
                    None => config.remove(&name),
                };
            }
        };
        let mut state = self.state.lock();
        match target {
            ConfigTarget::Topic(id) => Ok(state.change(id, |topic| apply(&mut topic.config))),
            ConfigTarget::Broker(id) => {
                apply(state.broker_config.entry(id).or_default());
                Ok(Ok(()))
            }
        }
    }

    async fn delete_records(
        &self,
        partition: TopicPartition,
        to: Option<Offset>,
    ) -> PortResult<Result<Offset, CatalogRefusal>> {
        self.check_available()?;
        let mut state = self.state.lock();
        let Some(bounds) = state.bounds.get_mut(&partition) else {
            return Ok(Err(CatalogRefusal::UnknownTopic));
        };
        let to = to.unwrap_or(bounds.high_watermark);
        if to < Offset::ZERO || to > bounds.high_watermark {
            return Ok(Err(CatalogRefusal::OffsetOutOfRange));
        }
        bounds.log_start = bounds.log_start.max(to);
        Ok(Ok(bounds.log_start))
    }

    async fn new_producer_id(&self) -> PortResult<ProducerId> {
        self.check_available()?;
        let mut state = self.state.lock();
        state.producers += 1;
        Ok(ProducerId(state.producers))
    }
}

#[async_trait]
impl GroupStore for World {
    fn group(&self, group: &str) -> Option<(Group, Option<Coordinator>)> {
        let state = self.state.lock();
        state
            .groups
            .get(group)
            .map(|state| (state.group.clone(), state.coordinator))
    }

    fn groups(&self, broker: Option<BrokerId>) -> Vec<String> {
        let state = self.state.lock();
        let wanted = |state: &GroupState| {
            if broker.is_none() {
                state.exists()
            } else {
                state.coordinator.map(|coordinator| coordinator.broker) == broker
            }
        };
        let groups = state.groups.iter().filter(|(_, state)| wanted(state));
        groups.map(|(name, _)| name.clone()).collect()
    }

    fn offsets(&self, group: &str) -> BTreeMap<TopicPartition, CommittedOffset> {
        let state = self.state.lock();
        state
            .groups
            .get(group)
            .map(|state| state.offsets.clone())
            .unwrap_or_default()
    }

    fn offset(&self, group: &str, partition: &TopicPartition) -> Option<CommittedOffset> {
        self.offsets(group).remove(partition)
    }

    async fn claim(&self, group: &str) -> PortResult<(Coordinator, Group)> {
        self.check_available()?;
        let mut state = self.state.lock();
        state.claims += 1;
        let coordinator = Coordinator {
            broker: BrokerId(1),
            broker_epoch: BrokerEpoch(1),
            epoch: state.claims,
        };
        let claimed = state.groups.entry(group.to_owned()).or_default();
        claimed.coordinator = Some(coordinator);
        Ok((coordinator, claimed.group.clone()))
    }

    async fn save(&self, claim: &GroupClaim, group: Group) -> PortResult<Result<(), GroupRefusal>> {
        self.check_available()?;
        self.saves.acquire().await.unwrap().forget();
        let mut state = self.state.lock();
        Ok(state.claimed(claim).map(|state| state.group = group))
    }

    async fn commit_offsets(
        &self,
        claim: &GroupClaim,
        member: Option<(i32, String)>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> PortResult<Result<(), GroupRefusal>> {
        self.check_available()?;
        if self.late.load(Ordering::SeqCst) {
            let late = (claim.clone(), member, offsets);
            self.happening.lock().push(late);
            return Err(PortError::Indeterminate("as the test wants it".into()));
        }
        let mut state = self.state.lock();
        let known: HashSet<_> = state.bounds.keys().copied().collect();
        let state = match state.claimed(claim) {
            Ok(state) => state,
            Err(refusal) => return Ok(Err(refusal)),
        };
        match member {
            Some((generation, _)) if generation != state.group.generation => {
                return Ok(Err(GroupRefusal::StaleGeneration));
            }
            Some((_, member)) if !state.group.members.contains_key(&member) => {
                return Ok(Err(GroupRefusal::UnknownMember));
            }
            None if !state.group.members.is_empty() => return Ok(Err(GroupRefusal::UnknownMember)),
            Some(_) | None => {}
        }
        state
            .offsets
            .extend(offsets.into_iter().filter(|(p, _)| known.contains(p)));
        Ok(Ok(()))
    }

    async fn delete_offsets(
        &self,
        claim: &GroupClaim,
        partitions: Vec<TopicPartition>,
    ) -> PortResult<Result<(), GroupRefusal>> {
        self.check_available()?;
        let mut state = self.state.lock();
        let group = match state.claimed(claim) {
            Ok(group) if !group.exists() => return Ok(Err(GroupRefusal::UnknownGroup)),
            Ok(group) => group,
            Err(refusal) => return Ok(Err(refusal)),
        };
        group
            .offsets
            .retain(|partition, _| !partitions.contains(partition));
        Ok(Ok(()))
    }

    async fn delete_group(&self, claim: &GroupClaim) -> PortResult<Result<(), GroupRefusal>> {
        self.check_available()?;
        let mut state = self.state.lock();
        match state.claimed(claim) {
            Ok(group) if !group.exists() => return Ok(Err(GroupRefusal::UnknownGroup)),
            Ok(group) if !group.group.members.is_empty() => return Ok(Err(GroupRefusal::NotEmpty)),
            Ok(_) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        state.groups.remove(&claim.group);
        Ok(Ok(()))
    }
}

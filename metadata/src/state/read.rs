//! What can be read of a state: the synchronous half of the ports in [`frazil_core::ports`].
//!
//! Each method means what the method of that name means there. All take time in proportion to
//! what they return, except where said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use frazil_core::cold::NodeRef;
use frazil_core::group::{CommittedOffset, Coordinator, Group};
use frazil_core::ports::{
    Bounds, Broker, CatalogRefusal, Gateway, Located, NewTopic, PartitionSummary, Place,
    SegmentStatus,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Extent, Location, Offset, SegmentId, Topic, TopicId, TopicPartition,
};

use super::State;
use super::brokers::Registration;
use crate::history::History;

/// How much a state holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Topics.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Extents of all partitions.
    pub extents: usize,
    /// Idempotent producers, counted once per partition.
    pub producers: usize,
    /// Segments that extents refer to.
    pub segments: usize,
    /// Segments that wait for collection.
    pub retired_segments: usize,
    /// Consumer groups, claimed ones included.
    pub groups: usize,
    /// Client sessions.
    pub sessions: usize,
    /// Partitions that have cold offsets.
    pub cold_partitions: usize,
    /// Tables that have ever been claimed.
    pub tables: usize,
    /// Objects of tables that wait for collection.
    pub retired_objects: usize,
    /// Deleted topics whose tables wait for collection.
    pub dead_tables: usize,
}

impl State {
    /// Index of the last envelope applied; 0 before the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The state's time: the largest leader time seen, milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.time_ms
    }

    /// The cluster's id, once it has one.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// The feature level in use.
    pub fn level(&self) -> u8 {
        self.level.unwrap_or(1)
    }

    /// The recovery that this history of the cluster began with, if there was one.
    pub fn history(&self) -> Option<History> {
        self.history
    }

    /// The ids of all voters that ever had the log.
    pub fn voters(&self) -> BTreeSet<u64> {
        self.voters.clone().unwrap_or_default()
    }

    /// How much there is of everything. Visits every partition.
    pub fn counts(&self) -> Counts {
        let (segments, retired_segments) = self.segments.counts();
        let (tables, dead_tables, retired_objects) =
            self.tables.as_ref().map_or((0, 0, 0), |t| t.counts());
        let mut counts = Counts {
            topics: self.topics.topics().count(),
            segments,
            retired_segments,
            groups: self.groups.len(),
            sessions: self.sessions.len(),
            tables,
            retired_objects,
            dead_tables,
            ..Counts::default()
        };
        for (_, _, log) in self.topics.logs() {
            counts.partitions += 1;
            counts.extents += log.extents().len();
            counts.producers += log.producers().len();
            counts.cold_partitions += usize::from(log.readable_cold().is_some());
        }
        counts
    }

    // ----- LogIndex

    /// The bounds of a partition's log.
    pub fn bounds(&self, partition: &TopicPartition) -> Option<Bounds> {
        self.topics.log(partition).map(|log| log.bounds())
    }

    /// Where the offsets from `from` on are: the root if that one is cold, and extents that hold
    /// `max_bytes` bytes, at least one if there is any.
    pub fn locate(&self, partition: &TopicPartition, from: Offset, max_bytes: u64) -> Located {
        let Some(log) = self.topics.log(partition) else {
            return Located::default();
        };
        let mut extents = Vec::new();
        let mut bytes = 0;
        for extent in log.extents().range(log.position(from)..) {
            extents.push(*extent);
            bytes += u64::from(extent.location.length());
            if bytes >= max_bytes {
                break;
            }
        }
        let cold = log.cold_at(from).cloned();
        Located { cold, extents }
    }

    /// The first place that is not lost from `from` on with a timestamp of at least `timestamp`.
    /// Linear in the extents passed over.
    pub fn locate_time(
        &self,
        partition: &TopicPartition,
        from: Offset,
        timestamp: i64,
    ) -> Option<Place> {
        let log = self.topics.log(partition)?;
        let cold = log.cold_at(from);
        if let Some(root) = cold.filter(|r| r.records > 0 && r.max_timestamp >= timestamp) {
            return Some(Place::Cold(root.clone()));
        }
        log.extents()
            .range(log.position(from)..)
            .find(|extent| extent.location != Location::Lost && extent.max_timestamp >= timestamp)
            .map(|extent| Place::Extent(*extent))
    }

    /// The first place that is not lost with the largest timestamp. Linear in the partition's
    /// extents.
    pub fn locate_max_timestamp(&self, partition: &TopicPartition) -> Option<Place> {
        let log = self.topics.log(partition)?;
        let extent = log
            .extents()
            .iter()
            .rev()
            .filter(|extent| extent.location != Location::Lost)
            .max_by_key(|extent| extent.max_timestamp);
        let cold = log.readable_cold().filter(|root| root.records > 0);
        match (cold, extent) {
            (Some(root), Some(extent)) if root.max_timestamp < extent.max_timestamp => {
                Some(Place::Extent(*extent))
            }
            (Some(root), _) => Some(Place::Cold(root.clone())),
            (None, extent) => extent.map(|extent| Place::Extent(*extent)),
        }
    }

    /// Stored bytes of a partition, cold ones that can be read included.
    pub fn size_bytes(&self, partition: &TopicPartition) -> u64 {
        self.topics.log(partition).map_or(0, |log| log.bytes())
    }

    /// Extents in the write-ahead log of `broker`, of any epoch. Visits every extent.
    pub fn wal_extents(&self, broker: BrokerId) -> Vec<(TopicPartition, Extent)> {
        let held = |extent: &&Extent| match extent.location {
            Location::Wal { broker: holder, .. } => holder == broker,
            Location::Segment { .. } | Location::Lost => false,
        };
        self.topics
            .logs()
            .flat_map(|(partition, _, log)| {
                let extents = log.extents().iter().filter(held);
                extents.map(move |extent| (partition, *extent))
            })
            .collect()
    }

    // ----- Catalog

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.topic_named(name).cloned()
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.topics.topic(id).cloned()
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.topics().cloned().collect()
    }

    /// The live gateways, by id; draining ones are not among them.
    pub fn brokers(&self) -> Vec<Broker> {
        self.brokers.live(self.time_ms).cloned().collect()
    }

    /// The gateways whose registrations are valid, by id, as they reach each other.
    pub fn gateways(&self) -> Vec<Gateway> {
        let valid = self
            .registrations()
            .filter(|known| self.is_current(&known.broker));
        valid
            .map(|known| Gateway {
                id: known.broker.id,
                epoch: known.broker.epoch,
                zone: known.broker.rack.clone(),
                address: known.peer.clone(),
                live: !known.draining && known.lease_until_ms > self.time_ms,
            })
            .collect()
    }

    /// The newest registration of a gateway, live or not.
    pub fn registration(&self, broker: BrokerId) -> Option<&Registration> {
        self.brokers.registrations().get(&broker)
    }

    /// The newest registration of every gateway, live or not.
    pub fn registrations(&self) -> impl Iterator<Item = &Registration> {
        self.brokers.registrations().values()
    }

    /// The id that the next gateway without one will get, or a lower one.
    pub fn next_broker_id(&self) -> BrokerId {
        BrokerId(self.brokers.next_id())
    }

    /// Whether a registration is a gateway's newest, and unsealed: what it commits is not refused.
    pub fn is_current(&self, registration: &Broker) -> bool {
        self.brokers.is_current(registration.id, registration.epoch)
    }

    /// Unsealed epochs of gateways whose lease ended before `before_ms` and whose write-ahead log
    /// nothing refers to, with the end of that lease. Until someone seals them
    /// ([`Command::SealEpoch`](crate::command::Command::SealEpoch)), what such a gateway uploaded
    /// and did not commit is never an orphan.
    pub fn lapsed_epochs(&self, before_ms: i64) -> Vec<(BrokerEpoch, i64)> {
        self.registrations()
            .filter(|known| known.lease_until_ms < before_ms && self.is_current(&known.broker))
            .filter(|known| self.wal_extents(known.broker.id).is_empty())
            .map(|known| (known.broker.epoch, known.lease_until_ms))
            .collect()
    }

    /// Dynamic settings: of one broker, or (`None`) of all of them.
    pub fn broker_config(&self, broker: Option<BrokerId>) -> BTreeMap<String, String> {
        self.topics.broker_config(broker)
    }

    /// Whether a topic could be created.
    pub fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogRefusal> {
        match self.topics.check_new(topic)? {
            Some(_) => Err(CatalogRefusal::TopicExists),
            None => Ok(()),
        }
    }

    // ----- GroupStore

    /// A group, and who coordinates it.
    pub fn group(&self, group: &str) -> Option<(Group, Option<Coordinator>)> {
        self.groups.group(group)
    }

    /// The groups that `broker` has claimed; `None`: all that exist.
    pub fn groups(&self, broker: Option<BrokerId>) -> Vec<String> {
        self.groups.names(broker)
    }

    /// The committed offsets of a group.
    pub fn offsets(&self, group: &str) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.groups.offsets(group).cloned().unwrap_or_default()
    }

    /// One committed offset.
    pub fn offset(&self, group: &str, partition: &TopicPartition) -> Option<CommittedOffset> {
        self.groups.offsets(group)?.get(partition).cloned()
    }

    // ----- Ledger

    /// Every partition with what retention must know of it.
    pub fn partitions(&self) -> Vec<PartitionSummary> {
        self.topics
            .logs()
            .map(|(partition, topic, log)| PartitionSummary {
                partition,
                topic: Arc::clone(topic),
                bounds: log.bounds(),
                bytes: log.bytes(),
                extents: log.extents().len() as u64,
            })
            .collect()
    }

    /// The root of a partition's manifest, even if all of its offsets are below the log start.
    pub fn cold(&self, partition: &TopicPartition) -> Option<NodeRef> {
        self.topics.log(partition)?.cold().cloned()
    }

    /// The first `limit` extents of a partition, which follow its cold offsets.
    pub fn oldest_extents(&self, partition: &TopicPartition, limit: usize) -> Vec<Extent> {
        self.topics
            .log(partition)
            .map(|log| log.extents().iter().take(limit).copied().collect())
            .unwrap_or_default()
    }

    /// Retired segments, oldest first, with the state's time at which they were retired.
    pub fn retired_segments(&self, limit: usize) -> Vec<(SegmentId, i64)> {
        self.segments.retired().take(limit).collect()
    }

    /// The segments that extents refer to.
    pub fn live_segments(&self) -> impl Iterator<Item = SegmentId> {
        self.segments.live()
    }

    /// What the state says of a segment.
    pub fn segment(&self, id: SegmentId) -> SegmentStatus {
        self.segments.status(id, &self.brokers)
    }
}

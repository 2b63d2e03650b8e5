//! The small interfaces through which the data plane, the protocol edge and the cold path meet
//! the metadata quorum.
//!
//! `frazil-metadata` implements them over its image (reads) and its quorum (commands). Split by
//! need, so that each user sees little.
//!
//! **Reads** are synchronous, on the local image: they cost a lock and some copying. They may be
//! old, never wrong: an extent once located is immutable. A caller that owes its client freshness
//! awaits [`LogIndex::barrier`] first.
//!
//! **Commands** are asynchronous and go through the quorum. The implementation retries a command
//! under one idempotency key until its outcome is known or its deadline has passed; then it says
//! [`PortError::Indeterminate`](crate::PortError::Indeterminate). What the state machine refuses
//! is part of the `Ok` value.
//!
//! # Cancel safety
//! Dropping the future of a command leaves its outcome unknown, as a lost answer would; the
//! command itself may still be applied. Dropping a read or a watch is safe.

mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use minicbor::{Decode, Encode};

pub use tables::*;

use crate::cold::NodeRef;
use crate::group::{CommittedOffset, Coordinator, Group};
use crate::{
    BrokerEpoch, BrokerId, Extent, Location, Offset, PortResult, ProducerEpoch, ProducerId,
    SegmentId, Topic, TopicId, TopicName, TopicPartition,
};

// ---------------------------------------------------------------------------------------------
// Sequencer: where offsets come from.

/// The most batches that one commit may hold. With every batch in an append of its own they encode
/// to less than a quarter of what the quorum takes as one command.
pub const COMMIT_BATCHES_MAX: usize = 32_768;

/// Assigns offsets. Used by the cache's flush pipeline.
#[async_trait]
pub trait Sequencer: Send + Sync + 'static {
    /// Commits batches at their locations, and moves extents that have reached a segment.
    ///
    /// Per partition, batches get offsets in the order in which they stand in the commit, and
    /// commits of one gateway are applied in the order in which they were issued if the caller
    /// awaits each before the next. At most [`COMMIT_BATCHES_MAX`] batches and moves together.
    async fn commit(&self, commit: Commit) -> PortResult<CommitOutcome>;
}

/// One flush: everything that becomes visible, or moves, at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Commit {
    /// Who commits.
    #[n(0)]
    pub broker: BrokerId,
    /// Its registration; a sealed one is refused with [`PortError::Fenced`](crate::PortError).
    #[n(1)]
    pub epoch: BrokerEpoch,
    /// Segments of this epoch below this number that are not in the state after this commit never
    /// will be: the state refuses them from now on, and the collector may delete their objects.
    #[n(2)]
    pub sealed_below: u64,
    /// The segments, already durable in the store, that `appends` and `moves` name.
    #[n(3)]
    pub segments: Vec<SegmentInfo>,
    /// Batches that get offsets.
    #[n(4)]
    pub appends: Vec<Append>,
    /// Extents committed earlier with [`Location::Wal`] that now stand in a segment.
    #[n(5)]
    pub moves: Vec<Move>,
}

/// A segment that is durable in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentInfo {
    /// Its name.
    #[n(0)]
    pub id: SegmentId,
    /// Its size in bytes, footer included.
    #[n(1)]
    pub bytes: u64,
}

/// Batches of one partition that lie back to back at one location.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Append {
    /// The partition.
    #[n(0)]
    pub partition: TopicPartition,
    /// Where the run of batches is; its length is the sum of theirs.
    #[n(1)]
    pub location: Location,
    /// The batches, in order.
    #[n(2)]
    pub batches: Vec<BatchInfo>,
}

/// What the state machine must know of one record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BatchInfo {
    /// Bytes, header included.
    #[n(0)]
    pub length: u32,
    /// How many offsets it takes (`lastOffsetDelta + 1`), at least 1.
    #[n(1)]
    pub records: u32,
    /// Its `maxTimestamp`.
    #[n(2)]
    pub max_timestamp: i64,
    /// Its idempotent producer, if any.
    #[n(3)]
    pub producer: Option<ProducerBatch>,
}

/// The idempotence fields of a batch (KIP-98). The last sequence follows from `records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProducerBatch {
    /// Producer id, not negative.
    #[n(0)]
    pub id: ProducerId,
    /// Producer epoch, not negative.
    #[n(1)]
    pub epoch: ProducerEpoch,
    /// Sequence of the first record, not negative.
    #[n(2)]
    pub base_sequence: i32,
}

/// A run of offsets that has moved from a write-ahead log to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Move {
    /// The partition.
    #[n(0)]
    pub partition: TopicPartition,
    /// First offset of the run.
    #[n(1)]
    pub base: Offset,
    /// One past its last offset. The run covers whole extents of the committing gateway's WAL.
    #[n(2)]
    pub end: Offset,
    /// Where the bytes are now.
    #[n(3)]
    pub to: Location,
}

/// The outcome of a [`Commit`]; the same for every repetition of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct CommitOutcome {
    /// One per [`Commit::appends`], in order.
    #[n(0)]
    pub appends: Vec<AppendOutcome>,
}

/// The outcome for one [`Append`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendOutcome {
    /// The partition's log start offset after the commit.
    #[n(0)]
    pub log_start: Offset,
    /// One per batch, in order.
    #[n(1)]
    pub batches: Vec<BatchOutcome>,
}

/// What became of one batch. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BatchOutcome {
    /// It got offsets, from this one.
    #[n(0)]
    Appended(#[n(0)] Offset),
    /// The same batch has been appended before, at this offset; nothing was appended now.
    #[n(1)]
    Duplicate(#[n(0)] Offset),
    /// It was refused.
    #[n(2)]
    Refused(#[n(0)] BatchRefusal),
}

/// Why a batch was refused. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum BatchRefusal {
    /// No such topic, or no such partition (any more).
    #[n(0)]
    #[error("the topic or partition does not exist")]
    UnknownPartition,
    /// The base sequence does not follow the last one.
    #[n(1)]
    #[error("the sequence does not follow the producer's last batch")]
    OutOfOrderSequence,
    /// The producer's epoch is older than the one known.
    #[n(2)]
    #[error("the producer's epoch is old")]
    InvalidProducerEpoch,
    /// The segment is one that the state has declared finished ([`Commit::sealed_below`]).
    #[n(3)]
    #[error("the segment can no longer be committed")]
    SealedSegment,
}

// ---------------------------------------------------------------------------------------------
// LogIndex: where offsets are.

/// The logs of all partitions. Used by the cache's read path and by the gateway.
#[async_trait]
pub trait LogIndex: Send + Sync + 'static {
    /// The bounds of a partition's log; `None` if the image has no such partition.
    fn bounds(&self, partition: &TopicPartition) -> Option<Bounds>;

    /// Where the offsets from `from` on are, until there are at least `max_bytes` bytes or the high
    /// watermark is reached. Empty at or past the high watermark, or if the image has no such
    /// partition.
    fn locate(&self, partition: &TopicPartition, from: Offset, max_bytes: u64) -> Located;

    /// The first place that holds an offset of at least `from` and whose largest timestamp is at
    /// least `timestamp`. The record with that timestamp may lie before `from`, or before the log
    /// start: then it is to be asked again from the place's end on.
    fn locate_time(
        &self,
        partition: &TopicPartition,
        from: Offset,
        timestamp: i64,
    ) -> Option<Place>;

    /// The place with the largest timestamp of all (the first of several).
    fn locate_max_timestamp(&self, partition: &TopicPartition) -> Option<Place>;

    /// Stored bytes of a partition, cold ones included, from (about) log start to high watermark.
    fn size_bytes(&self, partition: &TopicPartition) -> u64;

    /// Extents that the state expects `broker` to hold in its write-ahead log, of any epoch.
    fn wal_extents(&self, broker: BrokerId) -> Vec<(TopicPartition, Extent)>;

    /// Watches partitions for a change of bounds or locations, from now on.
    fn watch(&self, partitions: &[TopicPartition]) -> Box<dyn Watch>;

    /// Waits until the image contains every command that was acknowledged anywhere before this
    /// call (a linearizable read index from the quorum's leader).
    async fn barrier(&self) -> PortResult<()>;
}

/// Where a run of offsets is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// The root of the manifest that holds the first of them; its `end` is where the extents begin.
    /// `None`: the first of them is in an extent.
    pub cold: Option<NodeRef>,
    /// The extents, from the one that contains the first offset that is not cold (or, if it lies in
    /// none, from the first one after it).
    pub extents: Vec<Extent>,
}

/// One place where offsets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In row groups below this root.
    Cold(NodeRef),
    /// In an extent.
    Extent(Extent),
}

/// A partition's bounds: log start ≤ last stable ≤ high watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// One past the last offset that a read_committed consumer can read.
    pub last_stable: Offset,
    /// One past the last offset.
    pub high_watermark: Offset,
}

/// Tells when watched partitions change.
#[async_trait]
pub trait Watch: Send {
    /// Waits for a change since the watch was made or since this last returned; a change in
    /// between is not missed. Spurious returns are possible.
    async fn changed(&mut self);
}

// ---------------------------------------------------------------------------------------------
// Catalog: topics, settings, brokers, producer ids.

/// Topics, their settings, and the brokers that serve them. Used by the gateway.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The cluster's id, as Kafka clients see it.
    fn cluster_id(&self) -> String;
    /// A topic by name.
    fn topic(&self, name: &str) -> Option<Arc<Topic>>;
    /// A topic by id.
    fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>>;
    /// All topics, by name.
    fn topics(&self) -> Vec<Arc<Topic>>;
    /// The live brokers, by id. Draining ones are not among them.
    fn brokers(&self) -> Vec<Broker>;
    /// Dynamic settings: of one broker, or (`None`) of all of them.
    fn broker_config(&self, broker: Option<BrokerId>) -> BTreeMap<String, String>;

    /// The checks of [`Self::create_topic`] on the image, for validate-only requests.
    fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogRefusal>;
    /// Creates a topic. Settings have been validated by the caller.
    async fn create_topic(&self, topic: NewTopic)
    -> PortResult<Result<Arc<Topic>, CatalogRefusal>>;
    /// Deletes a topic with everything in it, and the offsets committed on it.
    async fn delete_topic(&self, id: TopicId) -> PortResult<Result<(), CatalogRefusal>>;
    /// Raises the number of partitions to `partitions`.
    async fn create_partitions(
        &self,
        id: TopicId,
        partitions: i32,
    ) -> PortResult<Result<(), CatalogRefusal>>;
    /// Changes settings: `Some` sets, `None` returns to the default. All at once.
    async fn alter_config(
        &self,
        target: ConfigTarget,
        changes: Vec<(String, Option<String>)>,
    ) -> PortResult<Result<(), CatalogRefusal>>;
    /// Raises the log start offset of one partition to `to` (`None`: to the high watermark), for
    /// DeleteRecords. Answers the log start afterwards.
    async fn delete_records(
        &self,
        partition: TopicPartition,
        to: Option<Offset>,
    ) -> PortResult<Result<Offset, CatalogRefusal>>;
    /// A producer id that nobody has or had.
    async fn new_producer_id(&self) -> PortResult<ProducerId>;
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewTopic {
    /// A fresh id.
    #[n(0)]
    pub id: TopicId,
    /// Its name.
    #[n(1)]
    pub name: TopicName,
    /// How many partitions, at least 1.
    #[n(2)]
    pub partitions: i32,
    /// What to report as its replication factor, at least 1.
    #[n(3)]
    pub replication_factor: i16,
    /// Settings that differ from the defaults.
    #[n(4)]
    pub config: BTreeMap<String, String>,
}

/// Whose settings. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum ConfigTarget {
    /// A topic's.
    #[n(0)]
    Topic(#[n(0)] TopicId),
    /// One broker's, or (`None`) every broker's.
    #[n(1)]
    Broker(#[n(0)] Option<BrokerId>),
}

/// Why the catalog refused. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum CatalogRefusal {
    /// No such topic or partition (any more).
    #[n(0)]
    #[error("the topic or partition does not exist")]
    UnknownTopic,
    /// The name is taken.
    #[n(1)]
    #[error("a topic of this name exists")]
    TopicExists,
    /// The name differs from that of an existing topic only in `.` and `_`.
    #[n(2)]
    #[error("the name collides with that of topic {0}")]
    NameCollision(#[n(0)] String),
    /// The number of partitions is not above the present one, or above what a topic may have.
    #[n(3)]
    #[error("the topic has {0} partitions; their number can only grow, up to 100 000")]
    PartitionCount(#[n(0)] i32),
    /// The offset is above the high watermark or negative.
    #[n(4)]
    #[error("the offset is not within the log")]
    OffsetOutOfRange,
}

/// The most partitions that one topic may have.
pub const TOPIC_PARTITIONS_MAX: i32 = 100_000;

/// A gateway as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Broker {
    /// Its id.
    #[n(0)]
    pub id: BrokerId,
    /// Its registration.
    #[n(1)]
    pub epoch: BrokerEpoch,
    /// The host that clients connect to.
    #[n(2)]
    pub host: String,
    /// The port that clients connect to.
    #[n(3)]
    pub port: u16,
    /// Its zone, if known.
    #[n(4)]
    pub rack: Option<String>,
}

// ---------------------------------------------------------------------------------------------
// Gateways: how gateways reach each other.

/// The gateways of the cluster, as they reach each other. Used by the cache.
pub trait Gateways: Send + Sync + 'static {
    /// Every gateway whose registration is valid, by id, live or not.
    fn gateways(&self) -> Vec<Gateway>;
}

/// A gateway as other gateways see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its id.
    pub id: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Its zone, if known.
    pub zone: Option<String>,
    /// `host:port` where other gateways reach it; empty: nowhere.
    pub address: String,
    /// Whether it has been heard of lately and is not about to leave.
    pub live: bool,
}

// ---------------------------------------------------------------------------------------------
// GroupStore: what must survive a group coordinator.

/// Consumer groups and their offsets. Used by the gateway's group coordinator.
#[async_trait]
pub trait GroupStore: Send + Sync + 'static {
    /// The group as of its last completed generation, and who coordinates it. `None`: nothing is
    /// known of it.
    fn group(&self, group: &str) -> Option<(Group, Option<Coordinator>)>;
    /// The groups that `broker` has claimed, by id; `None`: all groups.
    fn groups(&self, broker: Option<BrokerId>) -> Vec<String>;
    /// Committed offsets of a group, by partition.
    fn offsets(&self, group: &str) -> BTreeMap<TopicPartition, CommittedOffset>;
    /// One committed offset.
    fn offset(&self, group: &str, partition: &TopicPartition) -> Option<CommittedOffset>;

    /// Makes this gateway the coordinator of a group (which need not exist), fencing whoever was
    /// before. Answers the claim's epoch and the group as it is.
    async fn claim(&self, group: &str) -> PortResult<(Coordinator, Group)>;
    /// Stores a completed generation, or that the group is empty.
    async fn save(&self, claim: &GroupClaim, group: Group) -> PortResult<Result<(), GroupRefusal>>;
    /// Commits offsets. With `member`, the state checks that the generation is the stored one and
    /// the member is in it; without, that the group has no members. Offsets on partitions that do
    /// not exist are dropped.
    async fn commit_offsets(
        &self,
        claim: &GroupClaim,
        member: Option<(i32, String)>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> PortResult<Result<(), GroupRefusal>>;
    /// Forgets committed offsets.
    async fn delete_offsets(
        &self,
        claim: &GroupClaim,
        partitions: Vec<TopicPartition>,
    ) -> PortResult<Result<(), GroupRefusal>>;
    /// Deletes a group without members, with its offsets.
    async fn delete_group(&self, claim: &GroupClaim) -> PortResult<Result<(), GroupRefusal>>;
}

/// A group under one claim.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupClaim {
    /// The group's id.
    #[n(0)]
    pub group: String,
    /// The claim under which the caller acts.
    #[n(1)]
    pub coordinator: Coordinator,
}

/// Why a write to a group was refused. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum GroupRefusal {
    /// Another gateway has claimed the group since.
    #[n(0)]
    #[error("another gateway coordinates the group")]
    NotCoordinator,
    /// The generation is not the stored one.
    #[n(1)]
    #[error("the generation is not the current one")]
    StaleGeneration,
    /// The member is not in the stored generation, or the group has members and none was named.
    #[n(2)]
    #[error("the member is not in the group")]
    UnknownMember,
    /// The group has members.
    #[n(3)]
    #[error("the group has members")]
    NotEmpty,
    /// There is no such group.
    #[n(4)]
    #[error("the group does not exist")]
    UnknownGroup,
}

// ---------------------------------------------------------------------------------------------
// Ledger: what may go.

/// Retention and collection. Used by the compactor.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// The state's time: the newest leader time that a command carried, in milliseconds.
    fn now_ms(&self) -> i64;
    /// Every partition with what retention must know of it.
    fn partitions(&self) -> Vec<PartitionSummary>;
    /// The root of a partition's manifest, if it has cold offsets.
    fn cold(&self, partition: &TopicPartition) -> Option<NodeRef>;
    /// The first `limit` extents of a partition, which follow its cold offsets.
    fn oldest_extents(&self, partition: &TopicPartition, limit: usize) -> Vec<Extent>;
    /// Segments that nothing refers to any more, oldest first, with the state's time of that.
    fn retired_segments(&self, limit: usize) -> Vec<(SegmentId, i64)>;
    /// What the state says of a segment.
    fn segment(&self, id: SegmentId) -> SegmentStatus;

    /// Makes this node the collector, fencing whoever was before; answers the claim's epoch.
    async fn claim_collector(&self) -> PortResult<u64>;
    /// Raises log start offsets; lower ones are ignored, higher ones cut at the high watermark.
    async fn raise_log_starts(&self, to: Vec<(TopicPartition, Offset)>) -> PortResult<()>;
    /// Forgets retired segments whose objects are gone. `false`: another collector has claimed.
    async fn forget_segments(&self, collector: u64, ids: Vec<SegmentId>) -> PortResult<bool>;
    /// Lets the state drop what is past its time: idempotent producers idle since before
    /// `producers_before_ms`, offsets of empty groups idle since before `offsets_before_ms`.
    async fn expire(&self, producers_before_ms: i64, offsets_before_ms: i64) -> PortResult<()>;
}

/// A partition as retention sees it.
#[derive(Clone, Debug)]
pub struct PartitionSummary {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic.
    pub topic: Arc<Topic>,
    /// Its bounds.
    pub bounds: Bounds,
    /// Its stored bytes, cold ones included.
    pub bytes: u64,
    /// The extents that follow its cold offsets.
    pub extents: u64,
}

/// What the state says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentStatus {
    /// Extents refer to it.
    Live,
    /// Nothing refers to it any more; it waits for collection.
    Retired,
    /// It has not been committed and can still be.
    Pending,
    /// It is not in the state and can never be again: its object is an orphan.
    Orphan,
}

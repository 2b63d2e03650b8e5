//! What can be asked of the metadata state, and what it answers.
//!
//! A [`Command`] travels in an [`Envelope`]; the quorum orders envelopes, and
//! [`State::apply`](crate::state::State::apply) turns each into an [`Outcome`] on every node alike.
//! A command is never rejected by the log: what the state will not do is an outcome too.
//!
//! # Envelopes
//!
//! ```text
//! client     who asks: one UUID per process, chosen afresh at its start
//! request    counts that client's commands
//! done_below the client knows the outcome of every request below this, or no longer wants it
//! time_ms    the time of the leader that accepted the command (crate::clock)
//! command    what to do
//! ```
//!
//! The state remembers the outcome of every `(client, request)` at or above `done_below`, so a
//! command may be sent again until its outcome is known, through any leader: the first copy in the
//! log decides, every later one reads its outcome (RIFL). A copy that arrives when the client has
//! declared the request done is answered [`Outcome::Stale`] and does nothing.
//!
//! # The command set
//!
//! | number | command | outcome | who sends it |
//! |---|---|---|---|
//! | 0 | `InitCluster` | `Cluster` | the node that forms the cluster |
//! | 1 | `NoteVoters` | `Done` | the leader |
//! | 2 | `RaiseLevel`, `Lapse`; a lease has no end of its own | `Done` | the leader, when an operator asks for it |
//! | 3 | `Lapse` | `Done`, `Fenced` | the leader, when a gateway is not heard of |
//! | 10 | `RegisterBroker` | `Registered` | a gateway at its start |
//! | 11 | `Heartbeat` | `Done`, `Fenced` | a gateway, several times in its lease |
//! | 12 | `Drain` | `Done`, `Fenced` | a gateway that is asked to stop |
//! | 13 | `Leave` | `Done`, `Fenced` | a gateway, last of all |
//! | 14 | `SealEpoch` | `Done` | whoever declares a lost gateway dead |
//! | 15 | `ReserveBrokerIds` | `Done` | a gateway that has no id, before it gets one |
//! | 16 | `ForgetGateway` | `Gateway` | an operator, about a gateway that does not come back |
//! | 17 | `GiveUpWal` | `Done`, `Fenced` | a gateway whose write-ahead log is lost, if it was told to |
//! | 20 | `Commit` | `Committed`, `Fenced`, `Invalid` | a gateway, once per flush |
//! | 30 | `CreateTopic` | `TopicCreated` | a gateway |
//! | 31-33 | `DeleteTopic`, `CreatePartitions`, `AlterConfig` | `Catalog` | a gateway |
//! | 34 | `DeleteRecords` | `RecordsDeleted` | a gateway |
//! | 40 | `AllocateProducerIds` | `ProducerIds` | a gateway |
//! | 50 | `ClaimGroup` | `GroupClaimed`, `Fenced` | a group coordinator |
//! | 51-54 | `SaveGroup`, `CommitOffsets`, `DeleteOffsets`, `DeleteGroup` | `Group` | a group coordinator |
//! | 60 | `RaiseLogStarts` | `Done` | retention |
//! | 61 | `ClaimCollector` | `CollectorClaimed` | a collector |
//! | 62 | `ForgetSegments` | `Forgotten` | a collector |
//! | 63 | `Expire` | `Done` | retention |
//! | 80 | `ClaimTable` | `TableClaimed` | a compactor, before it writes objects of a table |
//! | 81 | `Replace` | `Replaced`, `Invalid` | a compactor, when they are all written |
//! | 82 | `ForgetTableObjects` | `Forgotten` | a collector |
//! | 83 | `ForgetTables` | `Forgotten` | a collector |
//!
//! Numbers 70-79 are kept for transactions (one command ends a transaction on all its partitions
//! and applies its offsets), 84-89 for compaction and tables, 90-99 for further locations of
//! extents (`frazil.durability=replicated`).
//!
//! # Feature levels
//!
//! Nodes of one cluster are upgraded one after the other, and all of them apply the same log. So what
//! a program writes is bounded by the cluster's *feature level*, which is in the state and is only
//! raised when every node knows the new one (`metadata/src/features.rs`). [`Command::level`] is
//! the one table that says which level a command needs.
//!
//! **To add a command, or a field that changes what a command does:** give it a line in that table
//! with [`LEVEL`]; if a release knows that level already, raise [`LEVEL`] by one first. The leader
//! then refuses it before the level is in use, and everyone who does not know the level stops at it.
//! A field that an older program may ignore without coming to another state needs no level.
//!
//! | level | what it brings |
//! |---|---|
//! | 1 | the beginning |
//! | 2 | `RaiseLevel`, `Lapse`, `ForgetGateway`, `GiveUpWal` |
//! | 3 | tables: `ClaimTable`, `Replace`, `ForgetTableObjects`, `ForgetTables` |
//!
//! Fields and variants are numbered and persisted: **never reuse a number**. A new optional field
//! gets the next number; old bytes decode without it.
//! Source of the session scheme: Lee et al., "Implementing Linearizability at Large Scale and Low
//! Latency" (RIFL), SOSP 2015.

#[cfg(doc)]
use frazil_core::Location;
use frazil_core::cold::TableObject;
use frazil_core::group::{CommittedOffset, Coordinator, Group};
use frazil_core::ports::{
    CatalogRefusal, Commit, CommitOutcome, ConfigTarget, GroupClaim, GroupRefusal, NewTopic,
    Replacement, TableRefusal,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Offset, ProducerId, SegmentId, Topic, TopicId, TopicPartition,
};
use minicbor::{Decode, Encode};
use uuid::Uuid;

/// The highest feature level that this program knows.
pub const LEVEL: u8 = 3;

/// A command with what identifies this request for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    /// Who asks. The nil UUID belongs to no session: nothing is remembered for it.
    #[cbor(n(0), with = "crate::codec::uuid")]
    pub client: Uuid,
    /// The number of the request within that client's session.
    #[n(1)]
    pub request: u64,
    /// The client will not ask again for any request below this one.
    #[n(2)]
    pub done_below: u64,
    /// Leader time, milliseconds since the epoch.
    #[n(3)]
    pub time_ms: i64,
    /// What to do.
    #[n(4)]
    pub command: Command,
}

/// A change of the metadata. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Gives the cluster its id; the first one wins.
    #[n(0)]
    InitCluster {
        /// The id, as Kafka clients will see it and as it stands in object keys.
        #[n(0)]
        cluster_id: String,
        /// The feature level that it begins with; `None`: 1.
        #[n(1)]
        level: Option<u8>,
    },

    /// Notes the ids of voters that have had the log: they are never another's.
    #[n(1)]
    NoteVoters {
        /// The ids.
        #[n(0)]
        ids: Vec<u64>,
    },
    /// Raises the cluster's feature level; a lower one changes nothing.
    #[n(2)]
    RaiseLevel {
        /// From now on the level.
        #[n(0)]
        level: u8,
    },
    /// A gateway's lease ends now; it may renew it.
    #[n(3)]
    Lapse {
        /// The gateway.
        #[n(0)]
        broker: BrokerId,
        /// Its registration.
        #[n(1)]
        epoch: BrokerEpoch,
    },

    /// Registers a gateway, which from then on acts under the epoch in the answer.
    ///
    /// With the id that its disk remembers, it supersedes the registration of that id and seals its
    /// epoch; without, it gets an id that nobody has or had. A repetition with the same incarnation
    /// answers the registration that is there, unless that is sealed or has left.
    #[n(10)]
    RegisterBroker {
        /// The id on the gateway's disk.
        #[n(0)]
        id: Option<BrokerId>,
        /// Chosen afresh whenever the process starts.
        #[cbor(n(1), with = "crate::codec::uuid")]
        incarnation: Uuid,
        /// The host that Kafka clients connect to.
        #[n(2)]
        host: String,
        /// The port that Kafka clients connect to.
        #[n(3)]
        port: u16,
        /// Its zone.
        #[n(4)]
        rack: Option<String>,
        /// `host:port` where other nodes reach it.
        #[n(5)]
        peer: String,
        /// How long it counts as live without a heartbeat.
        #[n(6)]
        lease_ms: u32,
        /// The highest feature level that its program knows; `None`: 1.
        #[n(7)]
        knows: Option<u8>,
    },
    /// Prolongs a registration's lease.
    #[n(11)]
    Heartbeat {
        /// The gateway.
        #[n(0)]
        broker: BrokerId,
        /// Its registration.
        #[n(1)]
        epoch: BrokerEpoch,
        /// The lease from now (the state's time).
        #[n(2)]
        lease_ms: u32,
    },
    /// Takes a gateway out of the live set; it may go on committing.
    #[n(12)]
    Drain {
        /// The gateway.
        #[n(0)]
        broker: BrokerId,
        /// Its registration.
        #[n(1)]
        epoch: BrokerEpoch,
    },
    /// The gateway is finished: its epoch is sealed.
    #[n(13)]
    Leave {
        /// The gateway.
        #[n(0)]
        broker: BrokerId,
        /// Its registration.
        #[n(1)]
        epoch: BrokerEpoch,
    },
    /// Seals the epoch of a registration: it can neither commit nor prolong its lease any more.
    #[n(14)]
    SealEpoch {
        /// The epoch.
        #[n(0)]
        epoch: BrokerEpoch,
    },

    /// Ids below this are not given to gateways that come without one. They may still be asked for.
    #[n(15)]
    ReserveBrokerIds {
        /// The lowest id that may be given out.
        #[n(0)]
        below: i32,
    },

    /// Seals the newest registration of a gateway that is not live, and gives up what only its
    /// write-ahead log has, if there is anything and the loss is accepted.
    #[n(16)]
    ForgetGateway {
        /// The gateway.
        #[n(0)]
        broker: BrokerId,
        /// Its newest registration.
        #[n(1)]
        epoch: BrokerEpoch,
        /// Whether what is expected of its write-ahead log becomes [`Location::Lost`].
        #[n(2)]
        accept_loss: bool,
    },
    /// Gives up extents that a gateway did not find in its own write-ahead log: those within the
    /// ranges become [`Location::Lost`].
    #[n(17)]
    GiveUpWal {
        /// The gateway.
        #[n(0)]
        broker: BrokerId,
        /// Its registration.
        #[n(1)]
        epoch: BrokerEpoch,
        /// Partition, first offset, one past the last.
        #[n(2)]
        lost: Vec<(TopicPartition, Offset, Offset)>,
    },

    /// Commits one flush: see [`frazil_core::ports::Sequencer::commit`].
    #[n(20)]
    Commit(#[n(0)] Commit),

    /// Creates a topic; with the id of an existing topic of that name, answers that topic.
    #[n(30)]
    CreateTopic(#[n(0)] NewTopic),
    /// Deletes a topic with its log, and the offsets that groups committed on it.
    #[n(31)]
    DeleteTopic {
        /// The topic.
        #[n(0)]
        id: TopicId,
    },
    /// Raises the number of partitions.
    #[n(32)]
    CreatePartitions {
        /// The topic.
        #[n(0)]
        id: TopicId,
        /// The new number.
        #[n(1)]
        partitions: i32,
    },
    /// Changes settings, all at once: `Some` sets, `None` returns to the default.
    #[n(33)]
    AlterConfig {
        /// Whose.
        #[n(0)]
        target: ConfigTarget,
        /// By name.
        #[n(1)]
        changes: Vec<(String, Option<String>)>,
    },
    /// Raises one log start offset at a client's wish (`None`: to the high watermark).
    #[n(34)]
    DeleteRecords {
        /// The partition.
        #[n(0)]
        partition: TopicPartition,
        /// The new log start offset.
        #[n(1)]
        to: Option<Offset>,
    },

    /// Hands out producer ids that nobody has or had.
    #[n(40)]
    AllocateProducerIds {
        /// How many; 0 counts as 1.
        #[n(0)]
        count: u32,
    },

    /// Makes a gateway the coordinator of a group.
    #[n(50)]
    ClaimGroup {
        /// The group, which need not exist.
        #[n(0)]
        group: String,
        /// The gateway.
        #[n(1)]
        broker: BrokerId,
        /// Its registration.
        #[n(2)]
        epoch: BrokerEpoch,
    },
    /// Stores a completed generation, or that the group is empty.
    #[n(51)]
    SaveGroup {
        /// Under which claim.
        #[n(0)]
        claim: GroupClaim,
        /// The group.
        #[n(1)]
        group: Group,
    },
    /// Commits offsets; those on partitions that do not exist are dropped.
    #[n(52)]
    CommitOffsets {
        /// Under which claim.
        #[n(0)]
        claim: GroupClaim,
        /// Generation and id of the member that commits; `None`: the group must have no members.
        #[n(1)]
        member: Option<(i32, String)>,
        /// The offsets; the state stamps its own time on them.
        #[n(2)]
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    },
    /// Forgets committed offsets.
    #[n(53)]
    DeleteOffsets {
        /// Under which claim.
        #[n(0)]
        claim: GroupClaim,
        /// The partitions.
        #[n(1)]
        partitions: Vec<TopicPartition>,
    },
    /// Deletes a group without members.
    #[n(54)]
    DeleteGroup {
        /// Under which claim.
        #[n(0)]
        claim: GroupClaim,
    },

    /// Raises log start offsets: lower ones are ignored, higher ones cut at the high watermark.
    #[n(60)]
    RaiseLogStarts {
        /// The new log start offsets.
        #[n(0)]
        to: Vec<(TopicPartition, Offset)>,
    },
    /// Makes the sender the collector.
    #[n(61)]
    ClaimCollector,
    /// Forgets retired segments whose objects are gone.
    #[n(62)]
    ForgetSegments {
        /// The claim's epoch.
        #[n(0)]
        collector: u64,
        /// The segments; those that are not retired are left alone.
        #[n(1)]
        ids: Vec<SegmentId>,
    },
    /// Drops what is past its time.
    #[n(63)]
    Expire {
        /// Idempotent producers and departed gateways idle since before this go.
        #[n(0)]
        producers_before_ms: i64,
        /// Offsets of groups that have been empty since before this go.
        #[n(1)]
        offsets_before_ms: i64,
    },

    /// Claims a topic's table: see [`frazil_core::ports::Tables::claim_table`].
    #[n(80)]
    ClaimTable {
        /// The topic.
        #[n(0)]
        topic: TopicId,
        /// Who claims: chosen afresh by each process.
        #[cbor(n(1), with = "crate::codec::uuid")]
        holder: Uuid,
        /// How long nobody else can, from now (the state's time).
        #[n(2)]
        lease_ms: u32,
    },
    /// Replaces what stands for cold offsets: see [`frazil_core::ports::Tables::replace`].
    #[n(81)]
    Replace(#[n(0)] Replacement),
    /// Forgets retired objects of a table that are deleted.
    #[n(82)]
    ForgetTableObjects {
        /// The claim's epoch.
        #[n(0)]
        collector: u64,
        /// The topic.
        #[n(1)]
        topic: TopicId,
        /// The objects; those that are not retired are left alone.
        #[n(2)]
        objects: Vec<TableObject>,
    },
    /// Forgets deleted topics that have no object of a table any more.
    #[n(83)]
    ForgetTables {
        /// The claim's epoch.
        #[n(0)]
        collector: u64,
        /// The topics; those that are not deleted are left alone.
        #[n(1)]
        topics: Vec<TopicId>,
    },
}

impl Envelope {
    /// A command that the leader sends by itself, outside of any session.
    pub(crate) fn by_leader(command: Command) -> Self {
        Self {
            client: Uuid::nil(),
            request: 0,
            done_below: 0,
            time_ms: 0,
            command,
        }
    }
}

impl Command {
    /// The feature level from which on there are tables.
    pub(crate) const TABLES_LEVEL: u8 = 3;

    /// The feature level from which on the command may be written. A level decides for ever what
    /// older programs stop at: once released, a line stays as it is.
    pub fn level(&self) -> u8 {
        match self {
            Self::InitCluster { level, .. } => level.unwrap_or(1).max(1),
            // Who does not know the level stops here, and says so.
            Self::RaiseLevel { level } => (*level).max(2),
            Self::NoteVoters { .. }
            | Self::RegisterBroker { .. }
            | Self::Heartbeat { .. }
            | Self::Drain { .. }
            | Self::Leave { .. }
            | Self::SealEpoch { .. }
            | Self::ReserveBrokerIds { .. }
            | Self::Commit(_)
            | Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::CreatePartitions { .. }
            | Self::AlterConfig { .. }
            | Self::DeleteRecords { .. }
            | Self::AllocateProducerIds { .. }
            | Self::ClaimGroup { .. }
            | Self::SaveGroup { .. }
            | Self::CommitOffsets { .. }
            | Self::DeleteOffsets { .. }
            | Self::DeleteGroup { .. }
            | Self::RaiseLogStarts { .. }
            | Self::ClaimCollector
            | Self::ForgetSegments { .. }
            | Self::Expire { .. } => 1,
            Self::Lapse { .. } | Self::ForgetGateway { .. } | Self::GiveUpWal { .. } => 2,
            Self::ClaimTable { .. }
            | Self::Replace(_)
            | Self::ForgetTableObjects { .. }
            | Self::ForgetTables { .. } => Self::TABLES_LEVEL,
        }
    }

    /// Whether it brings the level that it needs with it.
    pub(crate) fn sets_level(&self) -> bool {
        matches!(self, Self::InitCluster { .. } | Self::RaiseLevel { .. })
    }
}

/// What a command came to. Persisted: never reuse a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// It was done.
    #[n(0)]
    Done,
    /// The session has already declared this request done; nothing happened now.
    #[n(1)]
    Stale,
    /// The registration it was sent under is sealed, superseded or unknown; nothing happened.
    #[n(2)]
    Fenced,
    /// The command contradicts itself or the state in a way that only a bug can; nothing happened.
    #[n(3)]
    Invalid(#[n(0)] String),
    /// The cluster's id, as it is now.
    #[n(4)]
    Cluster {
        /// The id.
        #[n(0)]
        cluster_id: String,
    },
    /// A gateway's registration.
    #[n(5)]
    Registered {
        /// Its id.
        #[n(0)]
        id: BrokerId,
        /// Its epoch.
        #[n(1)]
        epoch: BrokerEpoch,
    },
    /// What became of each batch.
    #[n(6)]
    Committed(#[n(0)] CommitOutcome),
    /// The topic, or why there is none.
    #[n(7)]
    TopicCreated(#[n(0)] Result<Topic, CatalogRefusal>),
    /// Whether the catalog was changed.
    #[n(8)]
    Catalog(#[n(0)] Result<(), CatalogRefusal>),
    /// The log start offset afterwards.
    #[n(9)]
    RecordsDeleted(#[n(0)] Result<Offset, CatalogRefusal>),
    /// As many consecutive producer ids as were asked for, from this one.
    #[n(10)]
    ProducerIds {
        /// The first.
        #[n(0)]
        first: ProducerId,
    },
    /// The claim, and the group as it is.
    #[n(11)]
    GroupClaimed {
        /// The claim.
        #[n(0)]
        coordinator: Coordinator,
        /// The group.
        #[n(1)]
        group: Group,
    },
    /// Whether the group was changed.
    #[n(12)]
    Group(#[n(0)] Result<(), GroupRefusal>),
    /// The epoch of a collector's claim.
    #[n(13)]
    CollectorClaimed(#[n(0)] u64),
    /// `false`: another collector has claimed since; nothing happened.
    #[n(14)]
    Forgotten(#[n(0)] bool),
    /// Whether a gateway was forgotten.
    #[n(15)]
    Gateway(#[n(0)] Result<(), GatewayRefusal>),
    /// The claim, or why there is none.
    #[n(16)]
    TableClaimed(#[n(0)] Result<u64, TableRefusal>),
    /// Whether the replacement took place.
    #[n(17)]
    Replaced(#[n(0)] Result<(), TableRefusal>),
}

/// Why a gateway is not forgotten. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum GatewayRefusal {
    /// There is no such registration.
    #[n(0)]
    #[error("no gateway of this id is known")]
    Unknown,
    /// It has registered again since.
    #[n(1)]
    #[error("it has registered again meanwhile")]
    Superseded,
    /// Its lease has not ended.
    #[n(2)]
    #[error("it is live, or was a few seconds ago")]
    Live,
}

//! Tables: which cold objects stand for which offsets, and who may change that.
//!
//! ```text
//! claim ─► (write data files, manifests, Iceberg's files) ─► replace ─► readers of both kinds see it
//!   └─ a newer claim, or a deleted topic: the replacement is refused, and what was written is orphaned
//! ```
//!
//! Objects carry the claim under which they were written in their names. A claim is the index of
//! the command that made it, and only the newest one of a topic may replace anything. So an object
//! of a past claim that nothing names will never be named.

use async_trait::async_trait;
use minicbor::{Decode, Encode};
use uuid::Uuid;

use crate::cold::{NodeRef, ObjectId, TableObject};
use crate::{Offset, PortResult, TopicId};

/// The tables of all topics. Used by the compactor, and by the catalog for reading.
#[async_trait]
pub trait Tables: Send + Sync + 'static {
    /// Whether the cluster's feature level allows tables.
    fn enabled(&self) -> bool;
    /// What the state knows of a topic's table. `None`: there is no such topic.
    fn table(&self, topic: TopicId) -> Option<Table>;
    /// What the state knows of a claim on a topic's table.
    fn claim_status(&self, topic: TopicId, claim: u64) -> ClaimStatus;
    /// Objects that neither the log nor the table needs, oldest first, with the state's time at
    /// which that was noted.
    fn retired_objects(&self, limit: usize) -> Vec<(TopicId, TableObject, i64)>;
    /// Deleted topics whose objects have not been forgotten, with the state's time of the deletion.
    fn dead_tables(&self) -> Vec<(TopicId, i64)>;

    /// Claims a topic's table for `holder`, which is chosen afresh by each process, for `lease_ms`
    /// of the state's time. Refused while another holder's lease lasts; whoever holds it gets a new
    /// claim.
    async fn claim_table(
        &self,
        topic: TopicId,
        holder: Uuid,
        lease_ms: u32,
    ) -> PortResult<Result<u64, TableRefusal>>;
    /// Replaces extents by cold objects, cold objects by others, and the table by its next
    /// snapshot: all at once or not at all.
    async fn replace(&self, replacement: Replacement) -> PortResult<Result<(), TableRefusal>>;
    /// Forgets retired objects that are deleted. `false`: another collector has claimed.
    async fn forget_objects(
        &self,
        collector: u64,
        topic: TopicId,
        objects: Vec<TableObject>,
    ) -> PortResult<bool>;
    /// Forgets deleted topics whose objects are all deleted. `false`: another collector has claimed.
    async fn forget_tables(&self, collector: u64, topics: Vec<TopicId>) -> PortResult<bool>;
}

/// A topic's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The newest claim; 0: nobody has claimed it yet.
    pub claim: u64,
    /// Who holds that claim, and until when (the state's time) nobody else can claim.
    pub lease: Option<(Uuid, i64)>,
    /// The table as engines see it; `None`: nothing has been converted yet.
    pub pointer: Option<TablePointer>,
}

/// Which object is the table's metadata. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TablePointer {
    /// The object ([`TableObject::Metadata`]).
    #[n(0)]
    pub metadata: ObjectId,
    /// Its length in bytes.
    #[n(1)]
    pub length: u32,
    /// Its CRC-32C.
    #[n(2)]
    pub crc: u32,
}

/// What becomes of a topic at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replacement {
    /// The topic.
    #[n(0)]
    pub topic: TopicId,
    /// The claim under which everything new was written.
    #[n(1)]
    pub claim: u64,
    /// How long the claim is kept from now; 0 gives it up.
    #[n(2)]
    pub lease_ms: u32,
    /// Per partition, at most one each.
    #[n(3)]
    pub moves: Vec<ColdMove>,
    /// The table's next metadata.
    #[n(4)]
    pub table: Option<TableMove>,
    /// Objects that neither the log nor the table needs after this.
    #[n(5)]
    pub retired: Vec<TableObject>,
}

/// Offsets that become cold, or a partition's manifest that is replaced by another one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ColdMove {
    /// The partition's index.
    #[n(0)]
    pub partition: i32,
    /// The root that is replaced; the state must have this one.
    #[n(1)]
    pub expected: Option<ObjectId>,
    /// First offset of the extents that are replaced: where the cold offsets end so far, or, if
    /// those are all below the log start, where the first extent begins.
    #[n(2)]
    pub base: Offset,
    /// One past the last one: `base` if no extents are replaced. It ends an extent, is at most the
    /// last stable offset, and no extent before it is in a write-ahead log.
    #[n(3)]
    pub end: Offset,
    /// The new root, which ends at `end`. `None`: nothing is cold any more, and `end` is `base`.
    #[n(4)]
    pub root: Option<NodeRef>,
}

/// The table's next metadata, and the one that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TableMove {
    /// What the state must have.
    #[n(0)]
    pub expected: Option<ObjectId>,
    /// What it has from now on.
    #[n(1)]
    pub new: TablePointer,
}

/// Why a table was not claimed or changed. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum TableRefusal {
    /// There is no such topic (any more).
    #[n(0)]
    #[error("the topic does not exist")]
    UnknownTopic,
    /// Another holder's lease lasts.
    #[n(1)]
    #[error("another compactor is at work on the table")]
    Held,
    /// There is a newer claim.
    #[n(2)]
    #[error("another compactor has claimed the table")]
    Superseded,
    /// Extents, a root or the table are not what was expected: plan again.
    #[n(3)]
    #[error("the log or the table has changed meanwhile")]
    Changed,
}

/// What the state knows of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimStatus {
    /// It is the topic's newest, or one that this image does not know yet: what it wrote may be
    /// named at any time.
    Current,
    /// There is a newer one: what it wrote is needed if something reachable names it, and if not,
    /// never will be.
    Past,
    /// The topic is gone, for good: nothing that it wrote is needed.
    Gone,
}

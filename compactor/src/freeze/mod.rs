//! Streams freeze into tables: cold extents become rows of data files that consumers and table
//! engines both read, and the segments go.
//!
//! ```text
//! plan ─► claim ─► read segments ─► data files ─► partitions' manifests ─► Iceberg's files ─► replace
//!                                    └──────────── nothing names them yet ────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | `plan` | which extents a conversion takes, in which order; pure |
//! | `input` | reads them, each segment once |
//! | `cutter` | extents in, data files out; where files end |
//! | `manifests` | the partitions' manifests |
//! | `snapshot` | the table as engines see it |
//! | `job` | a conversion from claim to replacement |
//! | `merge` | small files become large ones |
//! | `upkeep` | manifests, tables and snapshots forget what is past |
//! | `expire` | what retention may take of cold offsets |
//! | `claim` | who works on a topic, and for how long |
//! | `reach` | what the roots lead to |
//! | `collect` | deletes what nothing needs |
//! | `turns` | when a topic is due, and which one is next; pure |
//! | `freezer` | starts what is to be done, so many jobs at once |
//!
//! Invariant: Kafka's readers and table engines change over at one command, the replacement. It is
//! applied whole or not at all, and only under the topic's newest claim.
//!
//! Invariant: what is written carries the claim in its name, so a job that lost its claim, or two at
//! once, never write over each other.
//!
//! Invariant: damaged bytes stop the topic's conversion, with an error that names the object. Nothing
//! is skipped, and the segments stay.
//!
//! # A crash
//! anywhere before the replacement leaves objects that nothing names: orphans of a claim, which are
//! deleted when that claim is over. After it, nothing is left to do.

mod claim;
pub(crate) mod collect;
mod config;
mod cutter;
pub(crate) mod expire;
mod freezer;
mod input;
mod job;
mod manifests;
mod merge;
mod plan;
mod reach;
#[cfg(test)]
mod simulation;
mod snapshot;
#[cfg(test)]
mod tests;
mod turns;
mod upkeep;

use std::sync::Arc;

use frazil_core::ports::{Ledger, TableRefusal, Tables};
use frazil_core::{Offset, PortError};
use frazil_objects::Failure;
use frazil_table::manifest::Misfit;
use uuid::Uuid;

pub use config::FreezeConfig;
pub(crate) use freezer::Freezer;

use crate::Metrics;
use crate::bucket::Bucket;

/// What stops a job. It is planned again later.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The quorum did not take a command, or its answer is not known.
    #[error(transparent)]
    Quorum(#[from] PortError),
    /// The state refused it.
    #[error(transparent)]
    Refused(#[from] TableRefusal),
    /// The object store did not do what was asked.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    /// Bytes of a segment are not what they should be.
    #[error("{segment}, partition {partition}, offset {base}: {reason}")]
    Segment {
        /// The object.
        segment: String,
        /// The partition.
        partition: i32,
        /// First offset of the batch.
        base: Offset,
        /// Why.
        reason: String,
    },
    /// Bytes of a data file or a partition's manifest are not what they should be.
    #[error(transparent)]
    Table(#[from] frazil_table::Error),
    /// Another object is not what it should be.
    #[error("{key}: {what} is wrong")]
    Object {
        /// Which.
        key: String,
        /// What of it.
        what: &'static str,
    },
    /// Row groups do not fit to a manifest that was read.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A bug.
    #[error("the conversion has panicked: {0}")]
    Panicked(String),
}

impl JobError {
    /// Whether it says nothing of what is in the store: it may be otherwise the next time. What is
    /// named and not there is as bad as what is damaged.
    fn is_passing(&self) -> bool {
        match self {
            Self::Quorum(_) | Self::Refused(_) => true,
            Self::Store(error) => Failure::of(error) != Failure::NotFound,
            _ => false,
        }
    }
}

/// What all jobs share.
pub(crate) struct Ctx {
    pub(crate) config: FreezeConfig,
    pub(crate) bucket: Bucket,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) tables: Arc<dyn Tables>,
    pub(crate) metrics: Metrics,
    /// This process, as holder of claims.
    pub(crate) holder: Uuid,
}

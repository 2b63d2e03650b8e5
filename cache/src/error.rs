//! What can go wrong, by whom it is asked.

use std::fmt;

use frazil_core::ports::BatchRefusal;
use frazil_core::{BrokerId, Offset, PortError, TopicPartition};

/// The cache cannot start, or can no longer run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of its limits.
    #[error("{0}")]
    Config(String),
    /// The local disk failed. What it holds is kept, and may be needed.
    #[error("the write-ahead log cannot {what}: {source}")]
    Wal {
        /// What was tried.
        what: String,
        /// What came of it.
        source: std::io::Error,
    },
    /// Acknowledged batches that only this gateway's write-ahead log holds cannot be read from
    /// it. At least one range.
    #[error("the write-ahead log has lost acknowledged batches: {}", Shown(.0))]
    WalLost(Vec<Lost>),
    /// The metadata quorum could not be asked.
    #[error(transparent)]
    Metadata(#[from] PortError),
    /// This node's registration has been superseded; it can commit nothing any more.
    #[error("this node has been superseded: {0}")]
    Fenced(String),
    /// The cache is shutting down.
    #[error("the cache is closed")]
    Closed,
}

/// Acknowledged batches that are not where they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}, offsets {base} to {end}: {reason}")]
pub struct Lost {
    /// Whose batches.
    pub partition: TopicPartition,
    /// First offset.
    pub base: Offset,
    /// One past the last.
    pub end: Offset,
    /// What was found instead.
    pub reason: String,
}

/// The first few of what is lost.
struct Shown<'a>(&'a [Lost]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (index, lost) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index > 0 { "; " } else { "" };
            write!(f, "{comma}{lost}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The state machine refused the batch.
    #[error(transparent)]
    Refused(#[from] BatchRefusal),
    /// It did not happen and will not; it may be tried again.
    #[error("the append did not happen: {0}")]
    Unavailable(String),
    /// It may have happened, or may yet.
    #[error("the outcome of the append is unknown: {0}")]
    Indeterminate(String),
    /// It did not happen: this node's registration has been superseded.
    #[error("the append did not happen: this node has been superseded: {0}")]
    Fenced(String),
}

/// Why a read failed. Nothing is known about the log from it: the offsets asked for may exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The image has no such partition.
    #[error("partition {0} does not exist")]
    UnknownPartition(TopicPartition),
    /// The batches are in the write-ahead log of another gateway and nowhere else yet.
    #[error("the batches are in the write-ahead log of broker {broker}")]
    ElsewhereInWal {
        /// Which one.
        broker: BrokerId,
    },
    /// The object is not there, even by the newest index.
    #[error("{what} is not there")]
    NotFound {
        /// Which object.
        what: String,
    },
    /// The bytes are not the batches that the index says they are.
    #[error("{what} is corrupt: {reason}")]
    Corrupt {
        /// Which bytes.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The object store failed for longer than the read may take.
    #[error("the object store failed: {0}")]
    Store(String),
    /// The metadata quorum could not be asked for the newest index.
    #[error(transparent)]
    Metadata(#[from] PortError),
}

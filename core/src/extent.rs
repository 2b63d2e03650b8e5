//! Where a run of offsets is stored.

use minicbor::{Decode, Encode};

use crate::{BrokerEpoch, BrokerId, Offset, SegmentId};

/// Where the bytes of an extent are. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Location {
    /// In an object of the store: `segments/…/<id>.seg`, bytes `start .. start + length`.
    #[n(0)]
    Segment {
        /// The segment.
        #[n(0)]
        id: SegmentId,
        /// First byte.
        #[n(1)]
        start: u32,
        /// Number of bytes.
        #[n(2)]
        length: u32,
    },
    /// In the write-ahead log of one gateway, not yet in the store (`frazil.durability=local`).
    #[n(1)]
    Wal {
        /// The gateway that holds it.
        #[n(0)]
        broker: BrokerId,
        /// The registration under which it was written.
        #[n(1)]
        epoch: BrokerEpoch,
        /// Logical position of the first byte in that gateway's log.
        #[n(2)]
        start: u64,
        /// Number of bytes.
        #[n(3)]
        length: u32,
    },
    /// Nowhere any more: it was in a write-ahead log that is lost, and an operator has accepted
    /// that. Readers go on behind it.
    #[n(2)]
    Lost,
}

impl Location {
    /// Number of bytes stored.
    pub const fn length(&self) -> u32 {
        match self {
            Self::Segment { length, .. } | Self::Wal { length, .. } => *length,
            Self::Lost => 0,
        }
    }
}

/// A contiguous run of one partition's offsets at one location.
///
/// The bytes are whole record batches, back to back, in offset order and without gaps between
/// them; the base offsets inside them are not stamped: the first batch begins at `base`, each
/// further one where the batch before it ends. Only a lost extent has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Extent {
    /// First offset.
    #[n(0)]
    pub base: Offset,
    /// One past the last offset.
    #[n(1)]
    pub end: Offset,
    /// The largest `maxTimestamp` of its batches, in milliseconds since the epoch.
    #[n(2)]
    pub max_timestamp: i64,
    /// Where the batches are.
    #[n(3)]
    pub location: Location,
}

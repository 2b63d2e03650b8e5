//! Names of the objects that make up tables.

use std::fmt;

use frazil_core::{TopicId, TopicPartition};
use minicbor::{Decode, Encode};

/// The name of a data file or a manifest: the claim under which it was written and a counter
/// within that claim, files and manifests counted together.
///
/// A claim is the index of the command that made it, so no two ever share one, and a writer that
/// lost its claim never writes over what its successor wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ObjectId {
    /// The claim.
    #[n(0)]
    pub claim: u64,
    /// Counts up from 0 within the claim.
    #[n(1)]
    pub number: u64,
}

impl ObjectId {
    /// Object `number` of claim `claim`.
    pub const fn new(claim: u64, number: u64) -> Self {
        Self { claim, number }
    }

    /// The key of a data file below the cluster's prefix:
    /// `tables/<topic id>/data/<shard, 2 hex digits>/<id>.parquet`. The shard spreads the keys of
    /// one table over the store's partitions of its key space.
    pub fn data_key(self, topic: TopicId) -> String {
        let mixed = (self.claim ^ self.number.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("tables/{topic}/data/{:02x}/{self}.parquet", mixed >> 56)
    }

    /// The key of a manifest below the cluster's prefix:
    /// `tables/<topic id>/manifest/<partition>/<id>.manifest`.
    pub fn manifest_key(self, partition: &TopicPartition) -> String {
        let TopicPartition { topic, partition } = partition;
        format!("tables/{topic}/manifest/{partition}/{self}.manifest")
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.claim, self.number)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn object_keys_stay() {
        let topic = TopicId::new(Uuid::from_u128(0x11));
        assert_eq!(
            ObjectId::new(1, 1).data_key(topic),
            "tables/00000000-0000-0000-0000-000000000011/data/1d/\
             0000000000000001-0000000000000001.parquet"
        );
        assert_eq!(
            ObjectId::new(17, 4711).manifest_key(&TopicPartition::new(topic, 3)),
            "tables/00000000-0000-0000-0000-000000000011/manifest/3/\
             0000000000000011-0000000000001267.manifest"
        );
    }
}

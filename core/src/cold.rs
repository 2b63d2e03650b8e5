//! Cold offsets: the objects of a table, and what the metadata knows of a partition's manifest.
//!
//! ```text
//! tables/<topic id>/data/<shard>/<id>.parquet           rows
//! tables/<topic id>/manifest/<partition>/<id>.manifest  which row group holds which offsets
//! tables/<topic id>/metadata/<id>.metadata.json         the table, as table engines see it
//! tables/<topic id>/metadata/snap-<id>.avro             a snapshot's list of manifests
//! tables/<topic id>/metadata/<id>.avro                  a manifest of such a list
//! ```

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

use crate::{Offset, TopicId, TopicPartition};

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

impl FromStr for ObjectId {
    type Err = ();

    /// Reads what [`fmt::Display`] wrote, and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |digits: &str| {
            let sound = digits.len() == 16
                && digits
                    .bytes()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            let value = sound.then(|| u64::from_str_radix(digits, 16).ok());
            value.flatten().ok_or(())
        };
        let (claim, count) = text.split_once('-').ok_or(())?;
        Ok(Self::new(number(claim)?, number(count)?))
    }
}

/// An object of a table. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum TableObject {
    /// A data file.
    #[n(0)]
    Data(#[n(0)] ObjectId),
    /// A manifest of one partition.
    #[n(1)]
    Manifest(#[n(0)] i32, #[n(1)] ObjectId),
    /// The table's metadata (JSON).
    #[n(2)]
    Metadata(#[n(0)] ObjectId),
    /// A snapshot's list of manifests (Avro).
    #[n(3)]
    List(#[n(0)] ObjectId),
    /// A manifest of such a list (Avro).
    #[n(4)]
    Files(#[n(0)] ObjectId),
}

impl TableObject {
    /// Its name.
    pub const fn id(self) -> ObjectId {
        match self {
            Self::Data(id)
            | Self::Manifest(_, id)
            | Self::Metadata(id)
            | Self::List(id)
            | Self::Files(id) => id,
        }
    }

    /// Its key below the cluster's prefix.
    pub fn key(self, topic: TopicId) -> String {
        match self {
            Self::Data(id) => id.data_key(topic),
            Self::Manifest(partition, id) => {
                id.manifest_key(&TopicPartition::new(topic, partition))
            }
            Self::Metadata(id) => format!("tables/{topic}/metadata/{id}.metadata.json"),
            Self::List(id) => format!("tables/{topic}/metadata/snap-{id}.avro"),
            Self::Files(id) => format!("tables/{topic}/metadata/{id}.avro"),
        }
    }

    /// What has this key below the cluster's prefix; `None`: no object of a table has.
    pub fn parse(key: &str) -> Option<(TopicId, Self)> {
        let mut parts = key.strip_prefix("tables/")?.split('/');
        let topic = TopicId::new(parts.next()?.parse().ok()?);
        let object = match (parts.next()?, parts.next()?, parts.next()) {
            ("data", _, Some(name)) => Self::Data(name.strip_suffix(".parquet")?.parse().ok()?),
            ("manifest", partition, Some(name)) => {
                let id = name.strip_suffix(".manifest")?.parse().ok()?;
                Self::Manifest(partition.parse().ok()?, id)
            }
            ("metadata", name, None) => {
                if let Some(id) = name.strip_suffix(".metadata.json") {
                    Self::Metadata(id.parse().ok()?)
                } else {
                    let name = name.strip_suffix(".avro")?;
                    match name.strip_prefix("snap-") {
                        Some(id) => Self::List(id.parse().ok()?),
                        None => Self::Files(name.parse().ok()?),
                    }
                }
            }
            _ => return None,
        };
        // One object has one key: other spellings of it are somebody else's.
        (object.key(topic) == key).then_some((topic, object))
    }
}

/// A manifest object: the range of offsets it stands for and what can be known of them without
/// reading it. The metadata holds one of these per partition, for the root. Persisted: never reuse
/// a number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRef {
    /// First offset.
    #[n(0)]
    pub base: Offset,
    /// One past the last offset.
    #[n(1)]
    pub end: Offset,
    /// The object.
    #[n(2)]
    pub id: ObjectId,
    /// 0: a leaf.
    #[n(3)]
    pub level: u8,
    /// Bytes of the object.
    #[n(4)]
    pub length: u32,
    /// CRC-32C of the object.
    #[n(5)]
    pub crc: u32,
    /// Records of all row groups below.
    #[n(6)]
    pub records: u64,
    /// Bytes of all row groups below.
    #[n(7)]
    pub bytes: u64,
    /// The largest timestamp below; -1 without records.
    #[n(8)]
    pub max_timestamp: i64,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn keys_name_one_object_each() {
        let topic = TopicId::new(Uuid::from_u128(0x11));
        let id = ObjectId::new(0xABC, 7);
        let objects = [
            TableObject::Data(id),
            TableObject::Manifest(12, id),
            TableObject::Metadata(id),
            TableObject::List(id),
            TableObject::Files(id),
        ];
        for object in objects {
            let key = object.key(topic);
            assert_eq!(TableObject::parse(&key), Some((topic, object)), "{key}");
            for wrong in [key.to_uppercase(), format!("{key}x"), format!("x{key}")] {
                assert_eq!(TableObject::parse(&wrong), None, "{wrong}");
            }
        }
        for wrong in [
            "tables/00000000-0000-0000-0000-000000000011/manifest/+12/\
             0000000000000abc-0000000000000007.manifest",
            "tables/00000000-0000-0000-0000-000000000011/data/00/\
             0000000000000abc-0000000000000007.parquet",
            "tables/00000000000000000000000000000011/metadata/\
             0000000000000abc-0000000000000007.avro",
        ] {
            assert_eq!(TableObject::parse(wrong), None, "{wrong}");
        }
    }

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

    #[test]
    fn what_the_metadata_holds_of_a_partition_does_not_grow_with_it() {
        let root = |gib: i64| NodeRef {
            base: Offset(0),
            end: Offset(gib << 20),
            id: ObjectId::new(1 << 40, 1 << 20),
            level: 1,
            length: 150_000,
            crc: u32::MAX,
            records: (gib as u64) << 20,
            bytes: (gib as u64) << 28,
            max_timestamp: 1_790_000_000_000,
        };
        let bytes = |gib| minicbor::to_vec(root(gib)).unwrap().len();
        assert_eq!(bytes(1), 52);
        assert_eq!(bytes(1 << 20), 64);
    }
}

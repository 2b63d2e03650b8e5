//! Identities. All are small `Copy` values; none is derived from a name that a client chose.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use uuid::Uuid;

/// The id of a topic: never reused, so that a recreated topic is a different topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

impl TopicId {
    /// Wraps an id that was chosen by [`crate::env::Ids`] or read from the wire.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as Kafka's protocol carries it.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C> Encode<C> for TopicId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.0.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TopicId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Uuid::from_slice(d.bytes()?)
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("a topic id has 16 bytes"))
    }
}

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TopicPartition {
    /// The topic.
    #[n(0)]
    pub topic: TopicId,
    /// The partition's index, from 0.
    #[n(1)]
    pub partition: i32,
}

impl TopicPartition {
    /// One partition of one topic.
    pub const fn new(topic: TopicId, partition: i32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode,
        )]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The id under which a gateway appears to Kafka clients as a broker.
    BrokerId,
    i32
);
number!(
    /// The epoch of one registration of one broker: the index of the command that registered it,
    /// so no two registrations of any broker ever share one.
    BrokerEpoch,
    u64
);
number!(
    /// The id of an idempotent producer (KIP-98).
    ProducerId,
    i64
);
number!(
    /// The epoch of an idempotent producer (KIP-98).
    ProducerEpoch,
    i16
);

/// The name of a segment: the epoch of the registration that wrote it and a counter within it.
///
/// The name tells who may still commit the segment: once that epoch is sealed, or the broker has
/// declared every number below some bound finished, an uncommitted segment is an orphan.
/// Text form: `<epoch, 16 hex digits>-<number, 16 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SegmentId {
    /// The registration that wrote the segment.
    #[n(0)]
    pub epoch: BrokerEpoch,
    /// Counts up from 0 within the epoch.
    #[n(1)]
    pub number: u64,
}

impl SegmentId {
    /// Segment `number` of registration `epoch`.
    pub const fn new(epoch: BrokerEpoch, number: u64) -> Self {
        Self { epoch, number }
    }

    /// The key of the segment's object below the cluster's prefix:
    /// `segments/<shard, 2 hex digits>/<id>.seg`. The shard spreads keys over the store's
    /// partitions of its key space.
    pub fn object_key(self) -> String {
        let mixed =
            (self.epoch.0 ^ self.number.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("segments/{:02x}/{self}.seg", mixed >> 56)
    }

    /// The id in a key made by [`Self::object_key`], whatever precedes `segments/`.
    pub fn from_object_key(key: &str) -> Option<Self> {
        key.rsplit('/').next()?.strip_suffix(".seg")?.parse().ok()
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.epoch.0, self.number)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a segment id.
#[derive(Debug, thiserror::Error)]
#[error("not a segment id: {0:?}")]
pub struct NotASegmentId(String);

impl FromStr for SegmentId {
    type Err = NotASegmentId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, number) = s.split_once('-')?;
            if epoch.len() != 16 || number.len() != 16 || s.contains('+') {
                return None;
            }
            Some(Self::new(
                BrokerEpoch(u64::from_str_radix(epoch, 16).ok()?),
                u64::from_str_radix(number, 16).ok()?,
            ))
        };
        parse().ok_or_else(|| NotASegmentId(s.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_ids_survive_their_object_key() {
        for id in [
            SegmentId::new(BrokerEpoch(0), 0),
            SegmentId::new(BrokerEpoch(17), 123_456),
            SegmentId::new(BrokerEpoch(u64::MAX), u64::MAX),
        ] {
            let key = format!("prefix/cluster/{}", id.object_key());
            assert_eq!(SegmentId::from_object_key(&key), Some(id));
        }
    }

    #[test]
    fn object_keys_stay() {
        for (epoch, number, key) in [
            (0, 0, "segments/00/0000000000000000-0000000000000000.seg"),
            (1, 0, "segments/9e/0000000000000001-0000000000000000.seg"),
            (1, 1, "segments/1d/0000000000000001-0000000000000001.seg"),
            (
                17,
                4711,
                "segments/f5/0000000000000011-0000000000001267.seg",
            ),
        ] {
            assert_eq!(SegmentId::new(BrokerEpoch(epoch), number).object_key(), key);
        }
    }

    #[test]
    fn what_is_not_a_segment_id_is_refused() {
        for text in [
            "",
            "-",
            "0-0",
            "../etc/passwd",
            "+000000000000000-0000000000000000",
        ] {
            assert!(text.parse::<SegmentId>().is_err(), "{text:?}");
        }
    }
}

//! What a segment says about itself.

use bytes::Buf;
use uuid::Uuid;

use super::{FOOTER_ENTRY, FOOTER_FIXED, HEADER_LENGTH, SEGMENT_MAX, TAIL_LENGTH, TAIL_MAGIC};
use crate::{BrokerEpoch, SegmentId, TopicId, TopicPartition};

/// The footer of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The segment's name.
    pub id: SegmentId,
    /// Drawn for the flush that wrote it.
    pub put_id: Uuid,
    /// The cluster that wrote it.
    pub cluster: String,
    /// In the order in which they lie in the object.
    pub extents: Vec<FooterExtent>,
}

/// One partition's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterExtent {
    /// The partition.
    pub partition: TopicPartition,
    /// First byte in the object.
    pub start: u32,
    /// Number of bytes.
    pub length: u32,
    /// Number of batches, at least 1.
    pub batches: u32,
    /// Number of records, at least 1.
    pub records: u64,
    /// `baseTimestamp` of the first batch.
    pub first_timestamp: i64,
    /// The largest `maxTimestamp`.
    pub max_timestamp: i64,
    /// CRC-32C of the bytes.
    pub crc: u32,
}

/// Why a segment's end cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// The footer is longer than what was read of the object's end: read `need` bytes. Not more
    /// than the object has.
    #[error("the segment's footer takes the last {need} bytes of the object")]
    NeedMore {
        /// Footer and tail, in bytes.
        need: usize,
    },
    /// The object is too short or too long, or does not end as a segment does.
    #[error("the object does not end as a segment does")]
    NotASegment,
    /// The footer's checksum does not match.
    #[error("the segment's footer is damaged")]
    Crc,
    /// The checksum matches, but the content contradicts itself: a writer's bug.
    #[error("the segment's footer is wrong: {0}")]
    Inconsistent(&'static str),
    /// An extent's checksum does not match.
    #[error("the extent of {partition} in the segment is damaged")]
    ExtentCrc {
        /// Whose extent.
        partition: TopicPartition,
    },
}

impl FooterExtent {
    /// Checks the bytes of the extent against its checksum.
    pub fn check(&self, bytes: &[u8]) -> Result<(), FooterError> {
        if bytes.len() == self.length as usize && crc32c::crc32c(bytes) == self.crc {
            Ok(())
        } else {
            Err(FooterError::ExtentCrc {
                partition: self.partition,
            })
        }
    }

    fn decode(mut entry: &[u8]) -> Self {
        Self {
            partition: TopicPartition::new(
                TopicId::new(Uuid::from_u128(entry.get_u128())),
                entry.get_i32(),
            ),
            start: entry.get_u32(),
            length: entry.get_u32(),
            batches: entry.get_u32(),
            records: entry.get_u64(),
            first_timestamp: entry.get_i64(),
            max_timestamp: entry.get_i64(),
            crc: entry.get_u32(),
        }
    }
}

impl Footer {
    /// Reads the footer from the last bytes of an object of `object_length` bytes. `end` may be
    /// any part of the object that reaches to its end, the whole included.
    ///
    /// On success the extents lie inside the object, one behind the other, without gaps.
    pub fn parse(end: &[u8], object_length: u64) -> Result<Self, FooterError> {
        if object_length > SEGMENT_MAX as u64
            || (object_length as usize) < HEADER_LENGTH + FOOTER_FIXED + TAIL_LENGTH
            || end.len() > object_length as usize
        {
            return Err(FooterError::NotASegment);
        }
        let object_length = object_length as usize;
        let Some((rest, tail)) = end.split_last_chunk::<TAIL_LENGTH>() else {
            return Err(FooterError::NeedMore {
                need: TAIL_LENGTH + FOOTER_FIXED,
            });
        };
        let mut tail = &tail[..];
        let length = tail.get_u32() as usize;
        let crc = tail.get_u32();
        if tail != TAIL_MAGIC
            || length < FOOTER_FIXED
            || length > object_length - HEADER_LENGTH - TAIL_LENGTH
        {
            return Err(FooterError::NotASegment);
        }
        let Some(start) = rest.len().checked_sub(length) else {
            return Err(FooterError::NeedMore {
                need: length + TAIL_LENGTH,
            });
        };
        let footer = &rest[start..];
        if crc32c::crc32c(footer) != crc {
            return Err(FooterError::Crc);
        }
        Self::decode(footer, object_length - TAIL_LENGTH - length)
    }

    /// Reads a footer of at least [`FOOTER_FIXED`] bytes that begins at byte `footer_start`.
    fn decode(mut footer: &[u8], footer_start: usize) -> Result<Self, FooterError> {
        let id = SegmentId::new(BrokerEpoch(footer.get_u64()), footer.get_u64());
        let put_id = Uuid::from_u128(footer.get_u128());
        let count = footer.get_u32() as usize;
        let cluster_length = usize::from(footer.get_u8());
        let Some((cluster, entries)) = footer.split_at_checked(cluster_length) else {
            return Err(FooterError::Inconsistent("the cluster id is cut off"));
        };
        let cluster = std::str::from_utf8(cluster)
            .map_err(|_| FooterError::Inconsistent("the cluster id is not UTF-8"))?
            .to_owned();
        if count.checked_mul(FOOTER_ENTRY) != Some(entries.len()) {
            return Err(FooterError::Inconsistent("the extent count"));
        }
        let extents: Vec<FooterExtent> = entries
            .chunks_exact(FOOTER_ENTRY)
            .map(FooterExtent::decode)
            .collect();
        let mut at = HEADER_LENGTH as u64;
        for extent in &extents {
            if u64::from(extent.start) != at || extent.length == 0 {
                return Err(FooterError::Inconsistent("an extent's place"));
            }
            if extent.batches == 0 || extent.records == 0 || extent.partition.partition < 0 {
                return Err(FooterError::Inconsistent("an extent's numbers"));
            }
            at += u64::from(extent.length);
        }
        if at != footer_start as u64 {
            return Err(FooterError::Inconsistent("the extents do not fill it"));
        }
        let mut partitions: Vec<TopicPartition> = extents.iter().map(|e| e.partition).collect();
        partitions.sort_unstable();
        if partitions.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(FooterError::Inconsistent("a partition occurs twice"));
        }
        Ok(Self {
            id,
            put_id,
            cluster,
            extents,
        })
    }
}

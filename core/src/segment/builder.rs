//! Collects batches and lays them out as a segment, copying each once.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    BATCH_MAX, FOOTER_ENTRY, FOOTER_FIXED, HEADER_LENGTH, SEGMENT_MAX, TAIL_LENGTH, TAIL_MAGIC,
    header,
};
use crate::batch::HEADER_LENGTH as BATCH_HEADER_LENGTH;
use crate::ports::BatchInfo;
use crate::{SegmentId, TopicPartition};

/// The longest cluster id, in bytes.
const CLUSTER_MAX: usize = u8::MAX as usize;

/// An open segment: batches in the order in which they came, not copied yet.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    runs: Vec<Run>,
    run_of: HashMap<TopicPartition, usize>,
    batches: usize,
    batch_bytes: usize,
}

#[derive(Debug)]
struct Run {
    partition: TopicPartition,
    length: usize,
    batches: Vec<(usize, Bytes, BatchInfo)>,
}

/// The batch would make the segment longer than [`SEGMENT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the segment is full")]
pub struct SegmentFull;

/// A segment, ready to be put under its id.
#[derive(Clone, Debug)]
pub struct BuiltSegment {
    /// Its name.
    pub id: SegmentId,
    /// The object.
    pub bytes: Bytes,
    /// One per partition, in the order of its first batch and of their bytes.
    pub extents: Vec<SegmentExtent>,
}

/// One partition's batches in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentExtent {
    /// The partition.
    pub partition: TopicPartition,
    /// First byte in the object.
    pub start: u32,
    /// Number of bytes: the sum of the batches' lengths.
    pub length: u32,
    /// The batches, in the order of their pushes and of their bytes.
    pub batches: Vec<PlacedBatch>,
}

/// One batch in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedBatch {
    /// What [`SegmentBuilder::push`] returned for it.
    pub index: usize,
    /// First byte in the object.
    pub start: u32,
    /// As pushed.
    pub info: BatchInfo,
}

impl SegmentBuilder {
    /// An empty segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// How many batches were pushed.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Bytes of the batches pushed; the segment will be longer by its header and footer.
    pub fn bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Whether a batch of `length` bytes would be accepted, whatever its partition.
    pub fn fits(&self, length: usize) -> bool {
        length <= BATCH_MAX && self.length_with(self.runs.len() + 1, length) <= SEGMENT_MAX
    }

    fn length_with(&self, extents: usize, more: usize) -> usize {
        HEADER_LENGTH
            + self.batch_bytes
            + more
            + FOOTER_FIXED
            + CLUSTER_MAX
            + extents * FOOTER_ENTRY
            + TAIL_LENGTH
    }

    /// Adds a batch and returns its index: the number of batches pushed before it. The batch is
    /// kept as it is, and copied by [`Self::finish`].
    ///
    /// An empty builder accepts every batch up to [`BATCH_MAX`].
    ///
    /// # Panics
    /// If `batch` is not a batch of the length that `info` gives.
    pub fn push(
        &mut self,
        partition: TopicPartition,
        batch: Bytes,
        info: BatchInfo,
    ) -> Result<usize, SegmentFull> {
        assert!(
            batch.len() == info.length as usize && batch.len() >= BATCH_HEADER_LENGTH,
            "a batch of {} bytes: {info:?}",
            batch.len()
        );
        if !self.fits(batch.len()) {
            return Err(SegmentFull);
        }
        let next = self.runs.len();
        let run = *self.run_of.entry(partition).or_insert(next);
        if run == next {
            self.runs.push(Run {
                partition,
                length: 0,
                batches: Vec::new(),
            });
        }
        let run = &mut self.runs[run];
        let index = self.batches;
        self.batches += 1;
        self.batch_bytes += batch.len();
        run.length += batch.len();
        run.batches.push((index, batch, info));
        Ok(index)
    }

    /// Lays the segment out. `put_id` is drawn anew for each call.
    ///
    /// Costs one copy and one checksum of all bytes: a few milliseconds at the largest size, so
    /// call it off the runtime's threads.
    ///
    /// # Panics
    /// If the cluster's id is longer than 255 bytes.
    pub fn finish(self, id: SegmentId, put_id: Uuid, cluster: &str) -> BuiltSegment {
        assert!(cluster.len() <= CLUSTER_MAX, "cluster id {cluster:?}");
        let footer_length = FOOTER_FIXED + cluster.len() + self.runs.len() * FOOTER_ENTRY;
        let length = HEADER_LENGTH + self.batch_bytes + footer_length + TAIL_LENGTH;
        assert!(length <= SEGMENT_MAX, "a segment of {length} bytes");

        let mut out = BytesMut::with_capacity(length);
        let mut footer = Vec::with_capacity(footer_length);
        footer.put_u64(id.epoch.0);
        footer.put_u64(id.number);
        footer.put_slice(put_id.as_bytes());
        footer.put_u32(self.runs.len() as u32);
        footer.put_u8(cluster.len() as u8);
        footer.put_slice(cluster.as_bytes());

        out.put_slice(&header());
        let extents = self
            .runs
            .into_iter()
            .map(|run| run.lay_out(&mut out, &mut footer))
            .collect();
        out.put_slice(&footer);
        out.put_u32(footer.len() as u32);
        out.put_u32(crc32c::crc32c(&footer));
        out.put_slice(&TAIL_MAGIC);
        assert_eq!(
            out.len(),
            length,
            "the segment's length was computed wrongly"
        );
        BuiltSegment {
            id,
            bytes: out.freeze(),
            extents,
        }
    }
}

impl Run {
    fn lay_out(self, out: &mut BytesMut, footer: &mut Vec<u8>) -> SegmentExtent {
        let start = out.len();
        let first_timestamp = self.batches.first().map_or(0, |(_, batch, _)| {
            let mut field = [0; 8];
            field.copy_from_slice(&batch[27..35]);
            i64::from_be_bytes(field)
        });
        let infos = || self.batches.iter().map(|(_, _, info)| info);
        let records: u64 = infos().map(|info| u64::from(info.records)).sum();
        let max_timestamp = infos().map(|info| info.max_timestamp).max().unwrap_or(0);
        let batches: Vec<PlacedBatch> = self
            .batches
            .iter()
            .map(|(index, batch, info)| {
                let start = out.len() as u32;
                out.put_slice(batch);
                PlacedBatch {
                    index: *index,
                    start,
                    info: *info,
                }
            })
            .collect();
        footer.put_slice(self.partition.topic.uuid().as_bytes());
        footer.put_i32(self.partition.partition);
        footer.put_u32(start as u32);
        footer.put_u32(self.length as u32);
        footer.put_u32(batches.len() as u32);
        footer.put_u64(records);
        footer.put_i64(first_timestamp);
        footer.put_i64(max_timestamp);
        footer.put_u32(crc32c::crc32c(&out[start..]));
        footer.put_u32(0);
        SegmentExtent {
            partition: self.partition,
            start: start as u32,
            length: self.length as u32,
            batches,
        }
    }
}

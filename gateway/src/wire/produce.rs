//! The Produce request, versions 3-13, read by hand: the record sets are slices of the frame.
//!
//! ```text
//! transactional id nullable string | acks i16 | timeout ms i32 | [topic]
//! topic:      name string (3-12) or id uuid (13) | [partition]
//! partition:  index i32 | records nullable bytes
//! ```
//!
//! From version 9 on everything is compact, with tagged fields behind every struct; there are
//! none that a server needs. Source: KIP-98, KIP-482, KIP-516, schema of Kafka 4.1.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::reader::{Malformed, Reader};

/// The first flexible version.
const FLEXIBLE: i16 = 9;
/// The first version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// The most partitions that one request may name.
pub const PARTITIONS_MAX: usize = 100_000;

/// A Produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The producer's transactional id.
    pub transactional_id: Option<StrBytes>,
    /// 0: no answer; 1: at least one copy; -1: what the topic promises. Unchecked.
    pub acks: i16,
    /// How long the client waits, in milliseconds. Unchecked.
    pub timeout_ms: i32,
    /// The topics, in the request's order.
    pub topics: Vec<ProduceTopic>,
}

/// What goes to one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceTopic {
    /// Which topic.
    pub topic: TopicRef,
    /// Its partitions, in the request's order.
    pub partitions: Vec<ProducePartition>,
}

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRef {
    /// By name.
    Name(StrBytes),
    /// By id.
    Id(Uuid),
}

/// What goes to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's index, unchecked.
    pub index: i32,
    /// The record set: a slice of the frame.
    pub records: Option<Bytes>,
}

/// Reads the body of a Produce request. Allocates in proportion to the elements that are there.
pub fn parse(body: &Bytes, version: i16) -> Result<ProduceRequest, Malformed> {
    let compact = version >= FLEXIBLE;
    let text = |text: &[u8]| StrBytes::from_utf8(body.slice_ref(text)).map_err(|_| Malformed::Utf8);
    let mut reader = Reader::new(body);
    let transactional_id = reader.string(compact)?.map(text).transpose()?;
    let acks = reader.i16()?;
    let timeout_ms = reader.i32()?;
    let mut partitions_left = PARTITIONS_MAX;
    let mut topics = Vec::new();
    for _ in 0..reader.count(compact)?.ok_or(Malformed::Null)? {
        let topic = if version >= TOPIC_IDS {
            TopicRef::Id(Uuid::from_bytes(reader.uuid()?))
        } else {
            TopicRef::Name(text(reader.string(compact)?.ok_or(Malformed::Null)?)?)
        };
        let mut partitions = Vec::new();
        for _ in 0..reader.count(compact)?.ok_or(Malformed::Null)? {
            partitions_left = partitions_left.checked_sub(1).ok_or(Malformed::Budget)?;
            let index = reader.i32()?;
            let records = reader.bytes(compact)?.map(|bytes| body.slice_ref(bytes));
            skip_tagged(&mut reader, compact)?;
            partitions.push(ProducePartition { index, records });
        }
        skip_tagged(&mut reader, compact)?;
        // A topic without partitions asks for nothing and is answered by nothing; it counts
        // against the limit all the same.
        partitions_left = partitions_left.checked_sub(1).ok_or(Malformed::Budget)?;
        topics.push(ProduceTopic { topic, partitions });
    }
    skip_tagged(&mut reader, compact)?;
    Ok(ProduceRequest {
        transactional_id,
        acks,
        timeout_ms,
        topics,
    })
}

fn skip_tagged(reader: &mut Reader<'_>, compact: bool) -> Result<(), Malformed> {
    if compact {
        reader.tagged(|_, _| Ok(()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

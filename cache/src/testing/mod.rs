//! What the tests of this crate share.

pub(crate) mod freezer;
pub(crate) mod net;
pub(crate) mod quorum;
pub(crate) mod store;
pub(crate) mod world;

pub(crate) use net::{Host, MemNet};
pub(crate) use quorum::{FakeQuorum, Mishap};
pub(crate) use store::FaultyStore;
pub(crate) use world::{Running, World};

use bytes::Bytes;
use frazil_core::batch::HEADER_LENGTH;
use frazil_core::batch::header::with_log_append_time;
use frazil_core::env::Ids;
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::BatchInfo;
use frazil_core::{TopicId, TopicPartition};

/// A partition of the one topic.
pub(crate) fn partition(index: i32) -> TopicPartition {
    TopicPartition::new(TopicId::new(SeededIds::new(0x7090).uuid()), index)
}

/// A batch of `records` records with `payload` bytes that stand for them.
pub(crate) fn batch(records: u32, payload: usize) -> (BatchInfo, Bytes) {
    batch_of(records, payload, 0)
}

/// The same, whose payload consists of one byte.
pub(crate) fn batch_of(records: u32, payload: usize, fill: u8) -> (BatchInfo, Bytes) {
    let length = HEADER_LENGTH + payload;
    let mut out = vec![fill; length];
    out[..HEADER_LENGTH].fill(0);
    out[8..12].copy_from_slice(&(length as i32 - 12).to_be_bytes());
    out[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    out[16] = 2;
    out[23..27].copy_from_slice(&(records as i32 - 1).to_be_bytes());
    out[35..43].copy_from_slice(&1_700_000_000_000_i64.to_be_bytes());
    out[43..57].fill(0xFF);
    out[57..61].copy_from_slice(&(records as i32).to_be_bytes());
    let info = BatchInfo {
        length: length as u32,
        records,
        max_timestamp: 1_700_000_000_000,
        producer: None,
    };
    // This also computes the CRC.
    (info, with_log_append_time(&out, info.max_timestamp))
}

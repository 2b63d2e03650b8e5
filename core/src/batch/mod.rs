//! Record batches (magic 2): what Kafka clients send and receive, and what segments are made of.
//!
//! ```text
//!  0 baseOffset i64 | 8 batchLength i32 | 12 partitionLeaderEpoch i32 | 16 magic i8 = 2
//! 17 crc u32 | 21 attributes i16 | 23 lastOffsetDelta i32 | 27 baseTimestamp i64
//! 35 maxTimestamp i64 | 43 producerId i64 | 51 producerEpoch i16 | 53 baseSequence i32
//! 57 recordCount i32 | 61 records
//! ```
//!
//! `crc` is the CRC-32C of everything from `attributes` on, so writing `baseOffset` and
//! `partitionLeaderEpoch` leaves it valid. `batchLength` counts from byte 12.
//! Source: KIP-98, Kafka's documentation "Record Batch".

mod builder;
pub mod codec;
mod empty;
pub mod header;
mod records;
mod slices;
mod validate;
mod writer;

pub use builder::BatchBuilder;
pub use codec::CodecError;
pub use empty::empty_batch;
pub use header::{
    BatchHeader, Codec, HEADER_LENGTH, HeaderError, LENGTH_PREFIX, MAGIC, TimestampType,
};
pub use records::{RECORDS_MAX, Record, RecordError, Records, RecordsError};
pub use slices::{Headers, HeadersBuf, RecordRef, RecordSlices};
pub use validate::{
    BatchError, BatchErrorKind, Limits, NO_TIMESTAMP, Validated, decompressed_max, validate,
};
pub use writer::BatchWriter;

use bytes::Bytes;

/// The batches that lie back to back in `bytes`, each with its header.
///
/// Ends after the first thing that is not a whole batch, which it reports. Checks no CRC.
pub fn batches(bytes: &Bytes) -> Batches {
    Batches(bytes.clone())
}

/// Made by [`batches`].
#[derive(Clone, Debug)]
pub struct Batches(Bytes);

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match BatchHeader::parse(&self.0) {
            Ok(header) => {
                let batch = self.0.split_to(header.length as usize);
                Some(Ok((header, batch)))
            }
            Err(error) => {
                self.0.clear();
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;

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

pub mod header;

pub use header::{BatchHeader, Codec, HEADER_LENGTH, HeaderError, TimestampType};

//! What a broker must check of a batch that a client sends, in Kafka's order.
//!
//! The records are always read, unless the caller says otherwise. Offsets are given by
//! `recordCount` alone: a batch that counts three records and holds two would leave an offset
//! that no consumer ever sees, one that holds four would overlap the next batch, for everyone.
//! The producer's CRC does not help, since the producer is whom the check is about.
//!
//! Reading is not copying. Uncompressed records are walked where they are; compressed ones are
//! streamed through a 32 KiB buffer, and nothing is kept. Keys and values are only stepped over.
//! Measured on one core of a small virtual machine, records of 100 bytes to 1 KB: without
//! compression 15-20 ns a record on top of the CRC; per MiB of records 0.4-0.8 ms with lz4, 0.7-1.2
//! with zstd, 1-1.3 with snappy, 1.1-1.7 with gzip; a zstd batch costs at least 8 µs.
//!
//! # How much may it inflate to?
//!
//! [`decompressed_max`]: 100 times its size or 10 times `max.message.bytes`, whichever is less,
//! but 16 MiB in any case and 64 MiB at most. Java producers fill a batch until its *estimated
//! compressed* size reaches `batch.size`, so that constant test data legitimately inflates a
//! thousandfold; what this costs is processor time (milliseconds), not memory. A batch beyond it
//! is answered as too large, at which producers split it.
//!
//! Sources: Kafka's `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`,
//! `LogValidator`; KIP-98, KIP-467 (per-record errors), KIP-937 (timestamp bounds).

use std::io::BufRead;

use bytes::Bytes;

use super::codec::{CodecError, compress, decompress, reader};
use super::header::{with_log_append_time, with_max_timestamp, with_records};
use super::records::{Walk, WalkError, parse};
use super::{
    BatchHeader, Codec, HEADER_LENGTH, HeaderError, RECORDS_MAX, RecordError, TimestampType,
};
use crate::ports::{BatchInfo, ProducerBatch};
use crate::{ProducerEpoch, ProducerId};

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// What may always be inflated to, whatever the compressed size.
const DECOMPRESSED_FLOOR: usize = 16 << 20;
/// Attribute bits that a client cannot set: the delete horizon, and those without a meaning.
const RESERVED_ATTRIBUTES: i16 = !0x3F;

/// What a topic allows, and when the batch arrived.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `max.message.bytes`: the longest batch, its header included, compressed.
    pub max_message_bytes: u32,
    /// The broker's clock, milliseconds since the epoch.
    pub now_ms: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`: the codec in which batches are stored; `None`: the producer's.
    pub compression: Option<Codec>,
    /// Whether `cleanup.policy` includes `compact`, which needs keys.
    pub compacted: bool,
    /// Whether to read the records. Without it nothing about them is known to be true.
    pub deep: bool,
}

impl Default for Limits {
    /// Kafka's defaults, at time 0.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            now_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: None,
            compacted: false,
            deep: true,
        }
    }
}

/// A batch that may be appended.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The bytes to store: those that were sent, or a copy with what the broker decides: the
    /// append time, the topic's codec, or a `maxTimestamp` that was wrong.
    pub batch: Bytes,
    /// The header of `batch`.
    pub header: BatchHeader,
    /// What the sequencer needs to know of it.
    pub info: BatchInfo,
}

/// Why a batch is refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// There is more than one batch.
    #[error("there must be exactly one batch, but {0} bytes follow the first")]
    TrailingBytes(usize),
    /// Offsets are the broker's to give.
    #[error("the base offset of a batch that is produced must be 0, not {0}")]
    BaseOffset(i64),
    /// Longer than the topic allows.
    #[error("the batch has {length} bytes, the topic allows {max}")]
    TooLarge {
        /// Its length.
        length: u32,
        /// `max.message.bytes`.
        max: u32,
    },
    /// Attributes that no client may set.
    #[error("the attributes {0:#06x} have bits that are reserved")]
    ReservedAttributes(i16),
    /// Control batches are the broker's.
    #[error("clients cannot write control batches")]
    Control,
    /// Transactions are not supported.
    #[error("transactions are not supported")]
    Transactional,
    /// A producer id without what belongs to it.
    #[error("producer {id} has epoch {epoch} and base sequence {base_sequence}")]
    Producer {
        /// Producer id.
        id: i64,
        /// Producer epoch.
        epoch: i16,
        /// Base sequence.
        base_sequence: i32,
    },
    /// The client says that the broker has set the time.
    #[error("producers cannot set the timestamp type to LogAppendTime")]
    TimestampType,
    /// Too far from the broker's clock.
    #[error("timestamp {timestamp} is out of the allowed range around {now_ms}")]
    Timestamp {
        /// Which record, if it was read.
        index: Option<u32>,
        /// What it says.
        timestamp: i64,
        /// The broker's clock.
        now_ms: i64,
    },
    /// The topic is compacted.
    #[error("records of a compacted topic must have keys")]
    MissingKey {
        /// Which record.
        index: u32,
    },
    /// A record is not well-formed.
    #[error("record {index} is malformed: {error}")]
    Record {
        /// Which record.
        index: u32,
        /// What is wrong.
        error: RecordError,
    },
    /// Offset deltas do not count up from 0.
    #[error("record {index} has offset delta {delta}")]
    OffsetDelta {
        /// Which record.
        index: u32,
        /// What it says.
        delta: i32,
    },
    /// There are more records, or other bytes, behind the last record.
    #[error("there is something behind the last of {count} records")]
    TrailingRecords {
        /// `recordCount`.
        count: u32,
    },
    /// The records do not decompress, or to too much.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// What kind of refusal it is, as far as a client can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchErrorKind {
    /// It was damaged on its way; the client may send it again.
    Corrupt,
    /// It breaks a rule; sending it again does not help.
    InvalidRecord,
    /// It is too large; the client may split it.
    TooLarge,
    /// Its codec is not supported.
    UnsupportedCodec,
    /// Its timestamps are not acceptable.
    InvalidTimestamp,
    /// Transactions are not supported.
    Transactional,
}

impl BatchError {
    /// What kind of refusal it is.
    pub fn kind(&self) -> BatchErrorKind {
        match self {
            Self::Header(
                HeaderError::Truncated { .. } | HeaderError::Length(_) | HeaderError::Crc { .. },
            ) => BatchErrorKind::Corrupt,
            Self::Header(HeaderError::Codec(_)) => BatchErrorKind::UnsupportedCodec,
            Self::TooLarge { .. } | Self::Codec(CodecError::TooLarge { .. }) => {
                BatchErrorKind::TooLarge
            }
            Self::TimestampType | Self::Timestamp { .. } => BatchErrorKind::InvalidTimestamp,
            Self::Transactional => BatchErrorKind::Transactional,
            Self::Header(HeaderError::Magic(_) | HeaderError::Counts { .. })
            | Self::TrailingBytes(_)
            | Self::BaseOffset(_)
            | Self::ReservedAttributes(_)
            | Self::Control
            | Self::Producer { .. }
            | Self::MissingKey { .. }
            | Self::Record { .. }
            | Self::OffsetDelta { .. }
            | Self::TrailingRecords { .. }
            | Self::Codec(CodecError::Malformed(_)) => BatchErrorKind::InvalidRecord,
        }
    }

    /// The record at fault, counted from 0, where it is one.
    pub fn record_index(&self) -> Option<u32> {
        match self {
            Self::Timestamp { index, .. } => *index,
            Self::MissingKey { index }
            | Self::Record { index, .. }
            | Self::OffsetDelta { index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// The most bytes that the records of a batch of `length` bytes may decompress to.
pub fn decompressed_max(length: u32, max_message_bytes: u32) -> usize {
    let by_wire = (length as usize).saturating_mul(100);
    let by_topic = (max_message_bytes as usize).saturating_mul(10);
    by_wire.min(by_topic).clamp(DECOMPRESSED_FLOOR, RECORDS_MAX)
}

/// Checks what a client sent for one partition: exactly one batch that may be appended.
///
/// Costs a CRC and a walk over `bytes`. With compression that can be milliseconds (see above), so
/// call it off the runtime's threads for compressed batches beyond some 100 KiB.
pub fn validate(bytes: &Bytes, limits: &Limits) -> Result<Validated, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let trailing = bytes.len() - header.length as usize;
    if trailing > 0 {
        return Err(BatchError::TrailingBytes(trailing));
    }
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset(header.base_offset));
    }
    if header.length > limits.max_message_bytes {
        return Err(BatchError::TooLarge {
            length: header.length,
            max: limits.max_message_bytes,
        });
    }
    header.check_crc(bytes)?;
    let codec = header.codec()?;
    check_header(&header)?;
    let max_timestamp = if limits.deep {
        check_records(&header, codec, bytes, limits)?
    } else {
        for timestamp in [header.base_timestamp, header.max_timestamp] {
            check_timestamp(None, timestamp, limits)?;
        }
        header.max_timestamp
    };
    let mut batch = bytes.clone();
    if let Some(wanted) = limits.compression.filter(|wanted| *wanted != codec) {
        batch = recompress(&batch, codec, wanted, limits)?;
    }
    match limits.timestamp_type {
        TimestampType::LogAppendTime => batch = with_log_append_time(&batch, limits.now_ms),
        TimestampType::CreateTime if max_timestamp != header.max_timestamp => {
            batch = with_max_timestamp(&batch, max_timestamp);
        }
        TimestampType::CreateTime => {}
    }
    let header = BatchHeader::parse(&batch)?;
    Ok(Validated {
        info: BatchInfo {
            length: header.length,
            records: header.offsets(),
            max_timestamp: header.max_timestamp,
            producer: (header.producer_id >= 0).then_some(ProducerBatch {
                id: ProducerId(header.producer_id),
                epoch: ProducerEpoch(header.producer_epoch),
                base_sequence: header.base_sequence,
            }),
        },
        batch,
        header,
    })
}

/// The batch with its records in another codec. It too must not be longer than allowed.
fn recompress(batch: &Bytes, from: Codec, to: Codec, limits: &Limits) -> Result<Bytes, BatchError> {
    let cap = decompressed_max(batch.len() as u32, limits.max_message_bytes);
    let records = decompress(from, &batch.slice(HEADER_LENGTH..), cap)?;
    let records = compress(to, &records).map_err(CodecError::Malformed)?;
    let length = (HEADER_LENGTH + records.len()) as u32;
    if length > limits.max_message_bytes {
        return Err(BatchError::TooLarge {
            length,
            max: limits.max_message_bytes,
        });
    }
    Ok(with_records(batch, to, &records))
}

fn check_header(header: &BatchHeader) -> Result<(), BatchError> {
    header.check_counts()?;
    if header.attributes & RESERVED_ATTRIBUTES != 0 {
        return Err(BatchError::ReservedAttributes(header.attributes));
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return Err(BatchError::Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
    }
    if header.is_transactional() {
        return Err(BatchError::Transactional);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::TimestampType);
    }
    Ok(())
}

fn check_timestamp(index: Option<u32>, timestamp: i64, limits: &Limits) -> Result<(), BatchError> {
    let now_ms = limits.now_ms;
    let ok = limits.timestamp_type == TimestampType::LogAppendTime
        || timestamp == NO_TIMESTAMP
        || (now_ms.saturating_sub(timestamp) <= limits.timestamp_before_max_ms
            && timestamp.saturating_sub(now_ms) <= limits.timestamp_after_max_ms);
    ok.then_some(()).ok_or(BatchError::Timestamp {
        index,
        timestamp,
        now_ms,
    })
}

/// Reads the records and returns the largest timestamp.
fn check_records(
    header: &BatchHeader,
    codec: Codec,
    batch: &[u8],
    limits: &Limits,
) -> Result<i64, BatchError> {
    let section = &batch[HEADER_LENGTH..];
    if codec == Codec::None {
        return walk(header, section, limits);
    }
    let cap = decompressed_max(header.length, limits.max_message_bytes);
    let reader = reader(codec, section, cap).map_err(CodecError::from_io)?;
    walk(header, reader, limits)
}

fn walk(header: &BatchHeader, reader: impl BufRead, limits: &Limits) -> Result<i64, BatchError> {
    let mut source = Walk::new(reader);
    let count = header.offsets();
    let mut max_timestamp = NO_TIMESTAMP;
    for index in 0..count {
        let at = |error| match error {
            WalkError::Record(error) => BatchError::Record { index, error },
            WalkError::Codec(error) => BatchError::Codec(error),
        };
        let record = parse(&mut source, |_, _| ()).map_err(at)?;
        if record.offset_delta != index as i32 {
            return Err(BatchError::OffsetDelta {
                index,
                delta: record.offset_delta,
            });
        }
        if limits.compacted && record.key.is_none() {
            return Err(BatchError::MissingKey { index });
        }
        let timestamp = header
            .base_timestamp
            .checked_add(record.timestamp_delta)
            .ok_or_else(|| at(RecordError::Timestamp.into()))?;
        check_timestamp(Some(index), timestamp, limits)?;
        max_timestamp = max_timestamp.max(timestamp);
    }
    match source.is_at_end() {
        Ok(true) => Ok(max_timestamp),
        Ok(false) | Err(WalkError::Record(_)) => Err(BatchError::TrailingRecords { count }),
        Err(WalkError::Codec(error)) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

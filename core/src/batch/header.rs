//! The 61-byte header of a record batch.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::Offset;

/// Bytes of a batch before its records.
pub const HEADER_LENGTH: usize = 61;
/// Bytes before those that `batchLength` counts.
pub const LENGTH_PREFIX: usize = 12;
/// The only supported format.
pub const MAGIC: i8 = 2;

const CRC_START: usize = 21;
const TIMESTAMP_TYPE: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// How the records are compressed. Persisted: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Codec {
    /// Not at all.
    #[n(0)]
    None,
    /// gzip.
    #[n(1)]
    Gzip,
    /// Snappy, in xerial framing or raw.
    #[n(2)]
    Snappy,
    /// LZ4 frame.
    #[n(3)]
    Lz4,
    /// Zstandard.
    #[n(4)]
    Zstd,
}

impl Codec {
    /// The codec's number in a batch's attributes.
    pub(super) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's at append, for all records `maxTimestamp`.
    LogAppendTime,
}

/// The fields of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// As sent; meaningless before the batch is committed.
    pub base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub length: u32,
    /// As sent.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Bits: 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
    pub attributes: i16,
    /// Offset of the last record relative to the first, not negative.
    pub last_offset_delta: i32,
    /// Timestamp from which those of records are deltas.
    pub base_timestamp: i64,
    /// The largest timestamp, or the append time.
    pub max_timestamp: i64,
    /// -1: not idempotent.
    pub producer_id: i64,
    /// -1: not idempotent.
    pub producer_epoch: i16,
    /// -1: not idempotent.
    pub base_sequence: i32,
    /// How many records.
    pub record_count: i32,
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has, or than the batch says it has.
    #[error("the batch is cut off: {have} bytes of {need}")]
    Truncated {
        /// How many there are.
        have: usize,
        /// How many it takes.
        need: usize,
    },
    /// A length that no batch can have.
    #[error("a batch cannot have length {0}")]
    Length(i32),
    /// An old message format.
    #[error("message format {0} is not supported, only 2")]
    Magic(i8),
    /// The checksum does not match.
    #[error("the batch's CRC is {stored:08x}, its bytes have {computed:08x}")]
    Crc {
        /// As stored in the batch.
        stored: u32,
        /// As its bytes have it.
        computed: u32,
    },
    /// A compression codec that does not exist.
    #[error("compression codec {0} does not exist")]
    Codec(i16),
    /// `lastOffsetDelta` and `recordCount` contradict each other, or are not positive.
    #[error("the batch counts {records} records but its last offset delta is {last_delta}")]
    Counts {
        /// `recordCount`.
        records: i32,
        /// `lastOffsetDelta`.
        last_delta: i32,
    },
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header of the batch at the start of `bytes`, which may go on behind it.
    ///
    /// Checks length and magic, and that the whole batch is there; nothing else. Allocates
    /// nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let have = bytes.len();
        if have < HEADER_LENGTH {
            // The magic is looked at first where it is there: old formats have other lengths.
            if have > 16 && bytes[16] as i8 != MAGIC {
                return Err(HeaderError::Magic(bytes[16] as i8));
            }
            return Err(HeaderError::Truncated {
                have,
                need: HEADER_LENGTH,
            });
        }
        let magic = bytes[16] as i8;
        if magic != MAGIC {
            return Err(HeaderError::Magic(magic));
        }
        let batch_length = i32::from_be_bytes(array(bytes, 8));
        if batch_length < (HEADER_LENGTH - LENGTH_PREFIX) as i32 {
            return Err(HeaderError::Length(batch_length));
        }
        let length = batch_length as usize + LENGTH_PREFIX;
        if have < length {
            return Err(HeaderError::Truncated { have, need: length });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)),
            length: length as u32,
            leader_epoch: i32::from_be_bytes(array(bytes, 12)),
            crc: u32::from_be_bytes(array(bytes, 17)),
            attributes: i16::from_be_bytes(array(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)),
            producer_id: i64::from_be_bytes(array(bytes, 43)),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            record_count: i32::from_be_bytes(array(bytes, 57)),
        })
    }

    /// Checks the CRC of the batch at the start of `bytes`, whose header this is.
    pub fn check_crc(&self, bytes: &[u8]) -> Result<(), HeaderError> {
        let computed = crc32c::crc32c(&bytes[CRC_START..self.length as usize]);
        if computed == self.crc {
            Ok(())
        } else {
            Err(HeaderError::Crc {
                stored: self.crc,
                computed,
            })
        }
    }

    /// Checks that `lastOffsetDelta` and `recordCount` describe the same, positive number of
    /// records, as they must in a batch that a client sends.
    pub fn check_counts(&self) -> Result<(), HeaderError> {
        if self.record_count > 0 && self.last_offset_delta == self.record_count - 1 {
            Ok(())
        } else {
            Err(HeaderError::Counts {
                records: self.record_count,
                last_delta: self.last_offset_delta,
            })
        }
    }

    /// How many offsets the batch takes.
    pub fn offsets(&self) -> u32 {
        self.last_offset_delta.max(0) as u32 + 1
    }

    /// The codec.
    pub fn codec(&self) -> Result<Codec, HeaderError> {
        match self.attributes & 7 {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(HeaderError::Codec(other)),
        }
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a control batch, which clients may not send.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }
}

/// The first 16 bytes of a batch of `length` bytes as a consumer shall see them: the assigned
/// base offset, the batch's length, the leader epoch. They replace the stored ones; what follows
/// (`batch[16..]`) can be sent as it is, since the CRC does not cover these bytes.
pub fn stamp(base: Offset, length: u32, leader_epoch: i32) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&base.0.to_be_bytes());
    out[8..12].copy_from_slice(&(length as i32 - LENGTH_PREFIX as i32).to_be_bytes());
    out[12..].copy_from_slice(&leader_epoch.to_be_bytes());
    out
}

/// A copy of `batch` with LogAppendTime `now_ms`: attribute bit, `maxTimestamp` and CRC.
pub fn with_log_append_time(batch: &[u8], now_ms: i64) -> Bytes {
    let mut out = batch.to_vec();
    let attributes = i16::from_be_bytes(array(batch, 21)) | TIMESTAMP_TYPE;
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    out[35..43].copy_from_slice(&now_ms.to_be_bytes());
    write_crc(&mut out);
    out.into()
}

/// A copy of `batch` with another `maxTimestamp`, and its CRC.
pub fn with_max_timestamp(batch: &[u8], max_timestamp: i64) -> Bytes {
    let mut out = batch.to_vec();
    out[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    write_crc(&mut out);
    out.into()
}

/// A copy of `batch` with other records, compressed with `codec`, and its CRC.
pub(super) fn with_records(batch: &[u8], codec: Codec, records: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_LENGTH + records.len());
    out.extend_from_slice(&batch[..HEADER_LENGTH]);
    out.extend_from_slice(records);
    let length = (out.len() - LENGTH_PREFIX) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let attributes = i16::from_be_bytes(array(batch, 21)) & !7 | codec.bits();
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    write_crc(&mut out);
    out.into()
}

/// Writes the CRC of a batch that is otherwise complete.
pub(super) fn write_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

//! The records of a batch, once they are not compressed.
//!
//! ```text
//! length varint | attributes i8 | timestampDelta varlong | offsetDelta varint
//! | keyLength varint (-1: no key) | key | valueLength varint (-1: no value) | value
//! | headerCount varint | headers: keyLength varint | key | valueLength varint (-1: none) | value
//! ```
//!
//! All lengths are zigzag varints, of at most five bytes, the timestamp's delta of at most ten.
//! `length` counts what follows it. Source: KIP-98, Kafka's documentation "Record".
//!
//! The grammar is written once and read from two sources: [`Records`] slices bytes in memory,
//! [`Walk`] counts its way through a decompressor's output without keeping it.

use std::io::BufRead;

use bytes::Bytes;

use super::codec::{CodecError, decompress};
use super::{BatchHeader, HEADER_LENGTH, HeaderError, TimestampType};

/// The longest decompressed records section (64 MiB).
pub const RECORDS_MAX: usize = 64 << 20;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since the epoch: its own, or the batch's append time.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; without one it is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers in order, with repeated keys, and keys that are not UTF-8, as they came.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside it.
    #[error("the record is cut off")]
    Truncated,
    /// A variable-length number that is longer than its type allows.
    #[error("a variable-length number is too long")]
    Varint,
    /// A length or count below what it may be.
    #[error("a length or count is {0}")]
    Negative(i32),
    /// Its parts are longer or shorter than the whole.
    #[error("the record's length does not match its content")]
    Length,
    /// Its timestamp exceeds 64 bits.
    #[error("the timestamp overflows")]
    Timestamp,
}

/// Where the bytes of records come from.
pub(super) trait Source {
    /// What is kept of a key or value.
    type Piece;
    /// Why it ended.
    type Error: From<RecordError>;
    fn byte(&mut self) -> Result<u8, Self::Error>;
    /// The next `count` bytes.
    fn piece(&mut self, count: usize) -> Result<Self::Piece, Self::Error>;
}

/// What [`parse`] finds besides headers.
pub(super) struct Parsed<P> {
    pub(super) offset_delta: i32,
    pub(super) timestamp_delta: i64,
    pub(super) key: Option<P>,
    pub(super) value: Option<P>,
    pub(super) header_count: i32,
    /// Bytes of the headers, which are the last of the record.
    pub(super) header_bytes: usize,
}

/// A source that counts down the bytes of one record.
struct Within<'a, S> {
    source: &'a mut S,
    left: usize,
}

impl<S: Source> Source for Within<'_, S> {
    type Piece = S::Piece;
    type Error = S::Error;

    fn byte(&mut self) -> Result<u8, S::Error> {
        self.left = self.left.checked_sub(1).ok_or(RecordError::Length)?;
        self.source.byte()
    }

    fn piece(&mut self, count: usize) -> Result<S::Piece, S::Error> {
        self.left = self.left.checked_sub(count).ok_or(RecordError::Length)?;
        self.source.piece(count)
    }
}

fn varint<S: Source>(source: &mut S) -> Result<i32, S::Error> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = source.byte()?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| RecordError::Varint)?;
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err(RecordError::Varint.into())
}

fn varlong<S: Source>(source: &mut S) -> Result<i64, S::Error> {
    let mut value = 0u128;
    for shift in (0..70).step_by(7) {
        let byte = source.byte()?;
        value |= u128::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let value = u64::try_from(value).map_err(|_| RecordError::Varint)?;
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(RecordError::Varint.into())
}

/// A length that cannot be negative.
fn length<S: Source>(source: &mut S) -> Result<usize, S::Error> {
    let length = varint(source)?;
    usize::try_from(length).map_err(|_| RecordError::Negative(length).into())
}

/// A piece, or nothing if its length is -1.
fn optional<S: Source>(source: &mut S) -> Result<Option<S::Piece>, S::Error> {
    match varint(source)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| RecordError::Negative(length))?;
            source.piece(length).map(Some)
        }
    }
}

/// Reads one record.
pub(super) fn parse<S: Source>(
    source: &mut S,
    mut header: impl FnMut(S::Piece, Option<S::Piece>),
) -> Result<Parsed<S::Piece>, S::Error> {
    let left = length(source)?;
    let mut record = Within { source, left };
    let _attributes = record.byte()?;
    let timestamp_delta = varlong(&mut record)?;
    let offset_delta = varint(&mut record)?;
    let key = optional(&mut record)?;
    let value = optional(&mut record)?;
    let header_count = varint(&mut record)?;
    let header_bytes = record.left;
    if header_count < 0 {
        return Err(RecordError::Negative(header_count).into());
    }
    // Each header takes at least two bytes, so a count that lies ends with the record.
    for _ in 0..header_count {
        let (key, value) = parse_header(&mut record)?;
        header(key, value);
    }
    if record.left != 0 {
        return Err(RecordError::Length.into());
    }
    Ok(Parsed {
        offset_delta,
        timestamp_delta,
        key,
        value,
        header_count,
        header_bytes,
    })
}

/// A header: its key, and its value if it has one.
pub(super) type Pair<P> = (P, Option<P>);

/// Reads one header.
pub(super) fn parse_header<S: Source>(source: &mut S) -> Result<Pair<S::Piece>, S::Error> {
    let key_length = length(source)?;
    let key = source.piece(key_length)?;
    Ok((key, optional(source)?))
}

/// The records of one batch, read one by one. Ends after the first error.
///
/// It trusts nothing: what it yields are slices of the bytes it was given. It does not check
/// that offsets are in order or that the count is right; [`super::validate()`] did.
#[derive(Clone, Debug)]
pub struct Records {
    bytes: Bytes,
    base_timestamp: i64,
    append_time: Option<i64>,
    left: u32,
}

/// Why the records of a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The codec does not exist.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// They cannot be decompressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Records {
    /// The records of `batch`, whose header is `header`: at most as many as that says.
    ///
    /// Compressed records are decompressed at once, into at most [`RECORDS_MAX`] bytes; of others
    /// nothing is copied.
    ///
    /// # Panics
    /// If the header is not that of the batch, but of a longer one.
    pub fn of(header: &BatchHeader, batch: &Bytes) -> Result<Self, RecordsError> {
        let section = batch.slice(HEADER_LENGTH..header.length as usize);
        Ok(Self {
            bytes: decompress(header.codec()?, &section, RECORDS_MAX)?,
            base_timestamp: header.base_timestamp,
            append_time: match header.timestamp_type() {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(header.max_timestamp),
            },
            left: header.record_count.max(0) as u32,
        })
    }

    fn read(&mut self) -> Result<Record, RecordError> {
        let mut headers = Vec::new();
        let parsed = parse(self, |key, value| headers.push((key, value)))?;
        let timestamp = match self.append_time {
            Some(time) => time,
            None => self
                .base_timestamp
                .checked_add(parsed.timestamp_delta)
                .ok_or(RecordError::Timestamp)?,
        };
        Ok(Record {
            offset_delta: parsed.offset_delta,
            timestamp,
            key: parsed.key,
            value: parsed.value,
            headers,
        })
    }
}

impl Source for Records {
    type Piece = Bytes;
    type Error = RecordError;

    fn byte(&mut self) -> Result<u8, RecordError> {
        let byte = *self.bytes.first().ok_or(RecordError::Truncated)?;
        bytes::Buf::advance(&mut self.bytes, 1);
        Ok(byte)
    }

    fn piece(&mut self, count: usize) -> Result<Bytes, RecordError> {
        if count > self.bytes.len() {
            return Err(RecordError::Truncated);
        }
        Ok(self.bytes.split_to(count))
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

/// A source of which nothing is kept. A piece is only its length.
pub(super) struct Walk<R> {
    reader: R,
}

/// Why a walk ended.
#[derive(Debug)]
pub(super) enum WalkError {
    Record(RecordError),
    Codec(CodecError),
}

impl From<RecordError> for WalkError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl<R: BufRead> Walk<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader }
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool, WalkError> {
        Ok(self.fill()?.is_empty())
    }

    fn fill(&mut self) -> Result<&[u8], WalkError> {
        self.reader
            .fill_buf()
            .map_err(|error| WalkError::Codec(CodecError::from_io(error)))
    }
}

impl<R: BufRead> Source for Walk<R> {
    type Piece = usize;
    type Error = WalkError;

    fn byte(&mut self) -> Result<u8, WalkError> {
        let byte = *self.fill()?.first().ok_or(RecordError::Truncated)?;
        self.reader.consume(1);
        Ok(byte)
    }

    fn piece(&mut self, count: usize) -> Result<usize, WalkError> {
        let mut left = count;
        while left > 0 {
            let there = self.fill()?.len().min(left);
            if there == 0 {
                return Err(RecordError::Truncated.into());
            }
            self.reader.consume(there);
            left -= there;
        }
        Ok(count)
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
pub(super) mod tests;

//! Writes batches of records whose offsets are known: what is served from tables.
//!
//! Unlike what a producer sends, such a batch may have gaps between its offsets, before its first
//! record and behind its last one, and may have no record at all, as Kafka's own batches may after
//! log compaction. It is of no producer: sequences are only looked at when batches are appended.

use bytes::{BufMut, Bytes};

use super::builder::{put_optional, put_varint, put_varlong};
use super::codec::compress;
use super::{Codec, HEADER_LENGTH, LENGTH_PREFIX, MAGIC, RecordRef, TimestampType};
use crate::{LEADER_EPOCH, Offset};

/// One batch under construction.
#[derive(Clone, Debug)]
pub struct BatchWriter {
    base: Offset,
    timestamp_type: TimestampType,
    base_timestamp: i64,
    max_timestamp: i64,
    next: Offset,
    count: i32,
    records: Vec<u8>,
}

impl BatchWriter {
    /// An empty batch whose offsets begin at `base`.
    pub fn new(base: Offset) -> Self {
        Self {
            base,
            timestamp_type: TimestampType::CreateTime,
            base_timestamp: -1,
            max_timestamp: -1,
            next: base,
            count: 0,
            records: Vec::new(),
        }
    }

    /// One past the largest offset a batch that begins here can hold.
    pub fn end_max(&self) -> Offset {
        Offset(self.base.0.saturating_add(i64::from(i32::MAX)))
    }

    /// The least offset that the next record can have.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Bytes of the records, before compression.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// How many records there are.
    pub fn records(&self) -> u32 {
        self.count as u32
    }

    /// Whether `record` can be in this batch. All records of a batch have one type of timestamp,
    /// with LogAppendTime one timestamp, and differences of offsets and timestamps must fit.
    pub fn takes(&self, record: &RecordRef<'_>) -> bool {
        let offsets = self.next <= record.offset && record.offset < self.end_max();
        let same = self.count == 0
            || record.timestamp_type == self.timestamp_type
                && match self.timestamp_type {
                    TimestampType::CreateTime => {
                        record.timestamp.checked_sub(self.base_timestamp).is_some()
                    }
                    TimestampType::LogAppendTime => record.timestamp == self.base_timestamp,
                };
        offsets && same
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the batch does not take it ([`Self::takes`]).
    pub fn push(&mut self, record: &RecordRef<'_>) {
        assert!(self.takes(record), "{record:?} does not fit");
        if self.count == 0 {
            self.timestamp_type = record.timestamp_type;
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        let timestamp_delta = record.timestamp - self.base_timestamp;
        let offset_delta = record.offset.0 - self.base.0;
        let headers = record.headers.bytes();
        let length = 1
            + varint_length(timestamp_delta)
            + varint_length(offset_delta)
            + optional_length(record.key)
            + optional_length(record.value)
            + varint_length(i64::from(record.headers.count()))
            + headers.len();
        let out = &mut self.records;
        out.reserve(length + 5);
        put_varint(out, length as i32);
        out.put_u8(0);
        put_varlong(out, timestamp_delta);
        put_varlong(out, offset_delta);
        put_optional(out, record.key);
        put_optional(out, record.value);
        put_varint(out, record.headers.count());
        out.put_slice(headers);
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.next = Offset(record.offset.0 + 1);
        self.count += 1;
    }

    /// The batch, which takes the offsets up to `end` (exclusive) whether or not there are records
    /// at them.
    ///
    /// # Errors
    /// None is expected: codecs write to memory.
    ///
    /// # Panics
    /// If `end` is not behind the last record, not behind the base, or beyond [`Self::end_max`].
    pub fn finish(self, end: Offset, codec: Codec) -> std::io::Result<Bytes> {
        assert!(
            self.next <= end && self.base < end && end <= self.end_max(),
            "{end} ends no batch from {} to {}",
            self.base,
            self.next
        );
        // An empty section is no frame of any codec.
        let codec = if self.count == 0 { Codec::None } else { codec };
        let time = match self.timestamp_type {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => 1 << 3,
        };
        let compressed = match codec {
            Codec::None => None,
            codec => Some(compress(codec, &self.records)?),
        };
        let records = compressed.as_deref().unwrap_or(&self.records);
        let length = HEADER_LENGTH + records.len();
        let mut out = Vec::with_capacity(length);
        out.put_i64(self.base.0);
        out.put_i32((length - LENGTH_PREFIX) as i32);
        out.put_i32(LEADER_EPOCH);
        out.put_i8(MAGIC);
        out.put_u32(0);
        out.put_i16(codec.bits() | time);
        out.put_i32((end.0 - self.base.0 - 1) as i32);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(-1);
        out.put_i16(-1);
        out.put_i32(-1);
        out.put_i32(self.count);
        out.put_slice(records);
        super::header::write_crc(&mut out);
        Ok(out.into())
    }
}

fn varint_length(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let bits = 64 - (zigzag | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn optional_length(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varint_length(bytes.len() as i64) + bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchHeader, Headers, Records};

    /// `h` = `v`, `h` without a value.
    const HEADERS: &[u8] = &[2, b'h', 2, b'v', 2, b'h', 1];

    fn record(offset: i64, timestamp: i64) -> RecordRef<'static> {
        RecordRef {
            offset: Offset(offset),
            timestamp,
            timestamp_type: TimestampType::CreateTime,
            key: Some(b"k"),
            value: None,
            headers: Headers::parse(2, HEADERS).unwrap(),
        }
    }

    #[test]
    fn without_gaps_it_writes_what_a_producer_sends() {
        let value = vec![7; 300];
        let mut sent = BatchBuilder::new();
        let mut written = BatchWriter::new(Offset(0));
        for (offset, timestamp) in [(0, 5), (1, -7), (2, 1 << 40)] {
            let record = RecordRef {
                value: Some(&value),
                ..record(offset, timestamp)
            };
            let headers: Vec<_> = record.headers.iter().collect();
            sent.push(timestamp, record.key, record.value, &headers);
            written.push(&record);
        }
        let sent = sent.build();
        let written = written.finish(Offset(3), Codec::None).unwrap();
        assert_eq!(sent[16..], written[16..]);
    }

    #[test]
    fn gaps_are_inside_the_batch() {
        let mut batch = BatchWriter::new(Offset(100));
        batch.push(&record(103, 1));
        batch.push(&record(110, 2));
        for codec in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            let batch = batch.clone().finish(Offset(120), codec).unwrap();
            let header = BatchHeader::parse(&batch).unwrap();
            header.check_crc(&batch).unwrap();
            assert_eq!((header.base_offset, header.offsets()), (100, 20));
            let deltas: Vec<i32> = Records::of(&header, &batch)
                .unwrap()
                .map(|record| record.unwrap().offset_delta)
                .collect();
            assert_eq!(deltas, [3, 10]);
        }
    }

    #[test]
    fn a_batch_may_be_empty() {
        let batch = BatchWriter::new(Offset(5));
        let batch = batch.finish(Offset(9), Codec::Lz4).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        header.check_crc(&batch).unwrap();
        assert_eq!((header.record_count, header.offsets()), (0, 4));
        assert_eq!(header.codec(), Ok(Codec::None));
        assert_eq!(batch.len(), HEADER_LENGTH);
    }

    #[test]
    fn what_does_not_fit_begins_another_batch() {
        let mut batch = BatchWriter::new(Offset(10));
        let at = |timestamp_type, offset, timestamp| RecordRef {
            timestamp_type,
            ..record(offset, timestamp)
        };
        assert!(!batch.takes(&record(9, 0)));
        assert!(batch.takes(&record(10 + i64::from(i32::MAX) - 1, 0)));
        assert!(!batch.takes(&record(10 + i64::from(i32::MAX), 0)));
        batch.push(&at(TimestampType::LogAppendTime, 10, i64::MIN));
        assert!(batch.takes(&at(TimestampType::LogAppendTime, 11, i64::MIN)));
        assert!(!batch.takes(&at(TimestampType::LogAppendTime, 11, 5)));
        assert!(!batch.takes(&record(11, i64::MIN)));
        let mut batch = BatchWriter::new(Offset(10));
        batch.push(&record(10, i64::MIN));
        assert!(batch.takes(&record(11, -1)));
        assert!(!batch.takes(&record(11, 0)), "the difference overflows");
        assert!(!batch.takes(&record(10, i64::MIN)), "its offset is taken");
    }
}

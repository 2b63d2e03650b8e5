//! Makes batches: for tests, tools and the bench. The broker itself never does.

use bytes::{BufMut, Bytes};

use super::codec::compress;
use super::{Codec, HEADER_LENGTH, LENGTH_PREFIX, MAGIC, TimestampType};

/// A batch under construction. Records get offset deltas in order.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    attributes: i16,
    producer: (i64, i16, i32),
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    records: Vec<u8>,
    count: i32,
    scratch: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch: not compressed, of no producer, with the producer's timestamps.
    pub fn new() -> Self {
        Self {
            codec: Codec::None,
            attributes: 0,
            producer: (-1, -1, -1),
            base_timestamp: None,
            max_timestamp: -1,
            records: Vec::new(),
            count: 0,
            scratch: Vec::new(),
        }
    }

    /// How to compress the records.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets attribute bits besides those of the codec, allowed or not: see [`TimestampType`] (bit
    /// 3), transactional (4), control (5).
    pub fn attributes(mut self, bits: i16) -> Self {
        self.attributes |= bits;
        self
    }

    /// What the timestamps mean.
    pub fn timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => self,
            TimestampType::LogAppendTime => self.attributes(1 << 3),
        }
    }

    /// The idempotent producer's id, epoch, and the sequence of the first record.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Adds a record without headers.
    pub fn record(self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.record_with(timestamp, key, value, &[])
    }

    /// Adds a record.
    pub fn record_with(
        mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Self {
        self.push(timestamp, key, value, headers);
        self
    }

    /// Adds a record to a builder that is kept.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let base = *self.base_timestamp.get_or_insert(timestamp);
        self.max_timestamp = match self.count {
            0 => timestamp,
            _ => self.max_timestamp.max(timestamp),
        };
        let body = &mut self.scratch;
        body.clear();
        body.put_u8(0);
        put_varlong(body, timestamp.wrapping_sub(base));
        put_varint(body, self.count);
        put_optional(body, key);
        put_optional(body, value);
        put_varint(body, headers.len() as i32);
        for (key, value) in headers {
            put_optional(body, Some(key));
            put_optional(body, *value);
        }
        put_varint(&mut self.records, body.len() as i32);
        self.records.extend_from_slice(body);
        self.count += 1;
    }

    /// How many records there are.
    pub fn records(&self) -> u32 {
        self.count as u32
    }

    /// Bytes of the records, before compression.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// The batch, with base offset 0 and leader epoch -1, as a producer sends it.
    ///
    /// # Panics
    /// If there is no record, or the codec fails, which it does not in memory.
    pub fn build(&self) -> Bytes {
        assert!(self.count > 0, "a batch has at least one record");
        let records = compress(self.codec, &self.records).expect("compressing in memory");
        let length = HEADER_LENGTH + records.len();
        let mut out = Vec::with_capacity(length);
        out.put_i64(0);
        out.put_i32((length - LENGTH_PREFIX) as i32);
        out.put_i32(-1);
        out.put_i8(MAGIC);
        out.put_u32(0);
        out.put_i16(self.attributes | self.codec.bits());
        out.put_i32(self.count - 1);
        out.put_i64(self.base_timestamp.unwrap_or(-1));
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer.0);
        out.put_i16(self.producer.1);
        out.put_i32(self.producer.2);
        out.put_i32(self.count);
        out.put_slice(&records);
        super::header::write_crc(&mut out);
        out.into()
    }
}

pub(super) fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.put_slice(bytes);
        }
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

/// Zigzag keeps small numbers small in both widths, so one encoder serves both.
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

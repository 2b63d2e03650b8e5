//! Records as slices of decompressed bytes: nothing is copied, counted or allocated per record.
//!
//! [`super::Records`] is the convenient way. This one is for whoever reads all records of a topic:
//! a record of 64 MiB may be made of 32 million empty headers, of which not even a list is made.

use bytes::Bytes;

use super::builder::put_optional;
use super::records::{RecordError, Source, parse, parse_header};
use super::{BatchHeader, TimestampType};
use crate::Offset;

/// A record and its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; without one it is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of one record, in order, with repeated keys, and keys that are not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    count: i32,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// `count` headers as they stand in a record, which must fill `bytes`.
    ///
    /// # Errors
    /// If they do not.
    pub fn parse(count: i32, bytes: &'a [u8]) -> Result<Self, RecordError> {
        if count < 0 {
            return Err(RecordError::Negative(count));
        }
        let mut rest = bytes;
        for _ in 0..count {
            parse_header(&mut rest)?;
        }
        if rest.is_empty() {
            Ok(Self { count, bytes })
        } else {
            Err(RecordError::Length)
        }
    }

    /// How many there are; not negative.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Their bytes in a record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The headers, key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.bytes;
        // They have been parsed before, so there is no error that could end this early.
        std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| parse_header(&mut rest).expect("parsed before"))
        })
    }
}

/// Headers that are being collected.
#[derive(Clone, Debug, Default)]
pub struct HeadersBuf {
    count: i32,
    bytes: Vec<u8>,
}

impl HeadersBuf {
    /// Forgets them.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }

    /// Adds one.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        put_optional(&mut self.bytes, Some(key));
        put_optional(&mut self.bytes, value);
        self.count += 1;
    }

    /// Those added.
    pub fn headers(&self) -> Headers<'_> {
        Headers {
            count: self.count,
            bytes: &self.bytes,
        }
    }
}

/// The records of one batch. Ends after the first error.
///
/// Trusts nothing, as [`super::Records`]; it does not check that offsets are in order either.
#[derive(Clone, Debug)]
pub struct RecordSlices<'a> {
    bytes: &'a [u8],
    base: Offset,
    base_timestamp: i64,
    timestamp_type: TimestampType,
    append_time: i64,
    left: u32,
}

impl<'a> RecordSlices<'a> {
    /// The records of a batch with this header whose first offset is `base`: at most as many as
    /// the header says. `records` is what stands behind the header, decompressed.
    pub fn new(header: &BatchHeader, base: Offset, records: &'a Bytes) -> Self {
        Self {
            bytes: records,
            base,
            base_timestamp: header.base_timestamp,
            timestamp_type: header.timestamp_type(),
            append_time: header.max_timestamp,
            left: header.record_count.max(0) as u32,
        }
    }

    fn read(&mut self) -> Result<RecordRef<'a>, RecordError> {
        let before = self.bytes;
        let parsed = parse(&mut self.bytes, |_, _| {})?;
        let read = before.len() - self.bytes.len();
        let timestamp = match self.timestamp_type {
            TimestampType::LogAppendTime => self.append_time,
            TimestampType::CreateTime => self
                .base_timestamp
                .checked_add(parsed.timestamp_delta)
                .ok_or(RecordError::Timestamp)?,
        };
        Ok(RecordRef {
            offset: Offset(self.base.0.saturating_add(i64::from(parsed.offset_delta))),
            timestamp,
            timestamp_type: self.timestamp_type,
            key: parsed.key,
            value: parsed.value,
            headers: Headers {
                count: parsed.header_count,
                bytes: &before[read - parsed.header_bytes..read],
            },
        })
    }
}

impl<'a> Iterator for RecordSlices<'a> {
    type Item = Result<RecordRef<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl<'a> Source for &'a [u8] {
    type Piece = &'a [u8];
    type Error = RecordError;

    fn byte(&mut self) -> Result<u8, RecordError> {
        let (first, rest) = self.split_first().ok_or(RecordError::Truncated)?;
        *self = rest;
        Ok(*first)
    }

    fn piece(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (piece, rest) = self.split_at_checked(count).ok_or(RecordError::Truncated)?;
        *self = rest;
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, HEADER_LENGTH, Records};

    #[test]
    fn both_ways_of_reading_agree() {
        let mut batch = BatchBuilder::new();
        batch.push(5, None, Some(b"v"), &[]);
        batch.push(-3, Some(b""), None, &[(b"h", None), (b"", Some(b""))]);
        batch.push(
            1 << 50,
            Some(b"k"),
            Some(&[0xFF; 300]),
            &[(b"\xFF", Some(b"x"))],
        );
        for attributes in [0, 1 << 3] {
            let batch = batch.clone().attributes(attributes).build();
            let header = BatchHeader::parse(&batch).unwrap();
            let section = batch.slice(HEADER_LENGTH..);
            let slices = RecordSlices::new(&header, Offset(100), &section);
            let records = Records::of(&header, &batch).unwrap();
            let mut count = 0;
            for (slice, record) in slices.zip(records) {
                let (slice, record) = (slice.unwrap(), record.unwrap());
                assert_eq!(slice.offset, Offset(100 + i64::from(record.offset_delta)));
                assert_eq!(slice.timestamp, record.timestamp);
                assert_eq!(slice.timestamp_type, header.timestamp_type());
                assert_eq!(slice.key, record.key.as_deref());
                assert_eq!(slice.value, record.value.as_deref());
                let headers: Vec<_> = slice.headers.iter().collect();
                let expected: Vec<_> = record
                    .headers
                    .iter()
                    .map(|(key, value)| (&key[..], value.as_deref()))
                    .collect();
                assert_eq!(headers, expected);
                let mut collected = HeadersBuf::default();
                for (key, value) in headers {
                    collected.push(key, value);
                }
                assert_eq!(collected.headers(), slice.headers);
                count += 1;
            }
            assert_eq!(count, 3);
        }
    }

    #[test]
    fn what_is_cut_off_ends_with_an_error() {
        let batch = BatchBuilder::new()
            .record_with(1, Some(b"k"), Some(b"v"), &[(b"h", Some(b"v"))])
            .build();
        let header = BatchHeader::parse(&batch).unwrap();
        let section = batch.slice(HEADER_LENGTH..);
        for length in 0..section.len() {
            let cut = section.slice(..length);
            let read: Vec<_> = RecordSlices::new(&header, Offset(0), &cut).collect();
            assert!(matches!(read[..], [Err(_)]), "{length}");
        }
        assert!(Headers::parse(2, &[2, b'h', 1]).is_err());
        assert!(Headers::parse(1, &[2, b'h', 1, 0]).is_err());
        assert!(Headers::parse(-1, &[]).is_err());
    }
}

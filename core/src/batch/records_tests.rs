use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;

/// A batch of one record, whose bytes are given, in a record section of their own.
fn read(section: &[u8], count: u32) -> Vec<Result<Record, RecordError>> {
    let records = Records {
        bytes: Bytes::copy_from_slice(section),
        base_timestamp: 1000,
        append_time: None,
        left: count,
    };
    records.collect()
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let headers: &[(&[u8], Option<&[u8]>)] = &[
        (b"a", Some(b"1")),
        (b"a", None),
        (b"\xFF\xFE", Some(b"")),
        (b"", Some(b"2")),
    ];
    let batch = BatchBuilder::new()
        .record_with(5, Some(b"key"), Some(b"value"), headers)
        .record(3, None, None)
        .record(9, Some(b""), Some(b""))
        .build();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.base_timestamp, header.max_timestamp), (5, 9));
    let records: Vec<Record> = Records::of(&header, &batch)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let owned = |text: &[u8]| Bytes::copy_from_slice(text);
    assert_eq!(records[0].key, Some(owned(b"key")));
    let expected: Vec<(Bytes, Option<Bytes>)> = headers
        .iter()
        .map(|(key, value)| (owned(key), value.map(owned)))
        .collect();
    assert_eq!(records[0].headers, expected);
    assert_eq!(
        (records[1].key.clone(), records[1].value.clone()),
        (None, None)
    );
    assert_eq!(records[2].value, Some(Bytes::new()));
    let times: Vec<i64> = records.iter().map(|r| r.timestamp).collect();
    assert_eq!(times, [5, 3, 9]);
    let deltas: Vec<i32> = records.iter().map(|r| r.offset_delta).collect();
    assert_eq!(deltas, [0, 1, 2]);
}

#[test]
fn append_time_holds_for_all_records() {
    let batch = BatchBuilder::new()
        .record(5, None, None)
        .record(9, None, None)
        .timestamp_type(TimestampType::LogAppendTime)
        .build();
    let header = BatchHeader::parse(&batch).unwrap();
    let records = Records::of(&header, &batch).unwrap();
    assert!(records.map(Result::unwrap).all(|r| r.timestamp == 9));
}

#[test]
fn malformed_records_are_refused() {
    // The shortest record: attributes, two deltas, no key, no value, no headers.
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert!(read(&good, 1)[0].is_ok());
    let table: &[(&[u8], RecordError)] = &[
        (&[], RecordError::Truncated),
        (&good[..6], RecordError::Truncated),
        (&[1, 0], RecordError::Negative(-1)),
        (&[10, 0, 0, 0, 1, 1, 0], RecordError::Length),
        (&[14, 0, 0, 0, 1, 1, 0, 0], RecordError::Length),
        (&[12, 0, 0, 0, 3, 1, 0], RecordError::Negative(-2)),
        (&[12, 0, 0, 0, 1, 3, 0], RecordError::Negative(-2)),
        (&[12, 0, 0, 0, 1, 1, 1], RecordError::Negative(-1)),
        (&[12, 0, 0, 0, 40, 1, 0], RecordError::Length),
        (&[0x7E, 0, 0, 0, 40, 1, 0], RecordError::Truncated),
        (&[12, 0, 0, 0, 1, 1, 2], RecordError::Length),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], RecordError::Negative(-1)),
        (&[0xFF, 0xFF, 0xFF, 0xFF, 0x10], RecordError::Varint),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0], RecordError::Varint),
        (&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F], RecordError::Truncated),
    ];
    for (bytes, expected) in table {
        assert_eq!(read(bytes, 1), [Err(*expected)], "{bytes:?}");
    }
    let mut long = vec![60, 0];
    long.extend([0xFF; 10]);
    long.extend([0; 30]);
    assert_eq!(read(&long, 1), [Err(RecordError::Varint)]);
    let mut late = vec![30, 0];
    late.extend([0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
    late.extend([0, 1, 1, 0]);
    assert_eq!(read(&late, 1), [Err(RecordError::Timestamp)]);
}

#[test]
fn a_record_ends_the_iteration_that_it_breaks() {
    assert_eq!(read(&[12, 0, 0, 0, 1, 1, 0, 1, 1], 5).len(), 2);
}

pub(in crate::batch) type Written = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

pub(in crate::batch) fn written() -> impl Strategy<Value = Vec<Written>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..100);
    let headers = prop::collection::vec((bytes(), prop::option::of(bytes())), 0..4);
    let timestamp = prop_oneof![-1i64..1000, -(1i64 << 60)..(1 << 60)];
    let record = (
        timestamp,
        prop::option::of(bytes()),
        prop::option::of(bytes()),
        headers,
    );
    prop::collection::vec(record, 1..20)
}

pub(in crate::batch) fn build(builder: BatchBuilder, records: &[Written]) -> Bytes {
    records
        .iter()
        .fold(builder, |builder, (timestamp, key, value, headers)| {
            let headers: Vec<(&[u8], Option<&[u8]>)> = headers
                .iter()
                .map(|(key, value)| (&key[..], value.as_deref()))
                .collect();
            builder.record_with(*timestamp, key.as_deref(), value.as_deref(), &headers)
        })
        .build()
}

proptest! {
    #[test]
    fn records_survive_every_codec(written in written(), codec in 0usize..5) {
        use crate::batch::Codec::{Gzip, Lz4, None, Snappy, Zstd};
        let codec = [None, Gzip, Snappy, Lz4, Zstd][codec];
        let batch = build(BatchBuilder::new().codec(codec), &written);
        let header = BatchHeader::parse(&batch).unwrap();
        let records: Vec<Written> = Records::of(&header, &batch)
            .unwrap()
            .map(|record| {
                let record = record.unwrap();
                let vec = |bytes: Bytes| bytes.to_vec();
                let headers = record.headers.into_iter();
                (
                    record.timestamp,
                    record.key.map(vec),
                    record.value.map(vec),
                    headers.map(|(key, value)| (key.to_vec(), value.map(vec))).collect(),
                )
            })
            .collect();
        prop_assert_eq!(records, written);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..50) {
        prop_assert!(read(&bytes, count).len() <= count as usize);
    }
}

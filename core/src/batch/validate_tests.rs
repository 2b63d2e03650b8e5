use proptest::prelude::*;

use super::*;
use crate::batch::records::tests::{build, written};
use crate::batch::{BatchBuilder, Records};

fn limits() -> Limits {
    Limits {
        now_ms: 1_000_000,
        ..Limits::default()
    }
}

fn three() -> BatchBuilder {
    BatchBuilder::new()
        .record(1_000_000, Some(b"a"), Some(b"one"))
        .record(1_000_002, None, Some(b"two"))
        .record(1_000_001, Some(b"c"), None)
}

/// A copy with some bytes replaced, and its CRC made right.
fn patched(batch: &Bytes, at: usize, with: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    crate::batch::header::write_crc(&mut bytes);
    bytes.into()
}

fn refusal(batch: &Bytes, limits: &Limits) -> (BatchErrorKind, String, Option<u32>) {
    let error = validate(batch, limits).expect_err("the batch is accepted");
    (error.kind(), error.to_string(), error.record_index())
}

#[test]
fn a_good_batch_is_accepted_as_it_is() {
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        let batch = three().codec(codec).producer(7, 2, 40).build();
        let validated = validate(&batch, &limits()).unwrap();
        assert_eq!(validated.batch.as_ptr(), batch.as_ptr());
        assert_eq!(
            validated.info,
            BatchInfo {
                length: batch.len() as u32,
                records: 3,
                max_timestamp: 1_000_002,
                producer: Some(ProducerBatch {
                    id: ProducerId(7),
                    epoch: ProducerEpoch(2),
                    base_sequence: 40,
                }),
            }
        );
    }
    assert_eq!(
        validate(&three().build(), &limits()).unwrap().info.producer,
        None
    );
}

#[test]
fn what_a_client_may_not_send_is_refused() {
    use BatchErrorKind::*;
    let good = three().build();
    let mut two = good.to_vec();
    two.extend_from_slice(&good);
    let mut corrupt = good.to_vec();
    corrupt[70] ^= 1;
    let mut old = good.to_vec();
    old[16] = 1;
    let table: Vec<(&str, Bytes, BatchErrorKind)> = vec![
        ("nothing", Bytes::new(), Corrupt),
        ("cut off", good.slice(..good.len() - 1), Corrupt),
        ("a length of -1", patched(&good, 8, &[0xFF; 4]), Corrupt),
        ("a length of 0", patched(&good, 8, &[0; 4]), Corrupt),
        ("damaged", corrupt.into(), Corrupt),
        ("magic 1", old.into(), InvalidRecord),
        ("two batches", two.into(), InvalidRecord),
        ("a base offset", patched(&good, 7, &[1]), InvalidRecord),
        ("codec 5", three().attributes(5).build(), UnsupportedCodec),
        (
            "a delete horizon",
            three().attributes(1 << 6).build(),
            InvalidRecord,
        ),
        (
            "attribute bit 15",
            three().attributes(i16::MIN).build(),
            InvalidRecord,
        ),
        ("control", three().attributes(1 << 5).build(), InvalidRecord),
        (
            "transactional",
            three().attributes(1 << 4).producer(1, 0, 0).build(),
            Transactional,
        ),
        (
            "append time",
            three().attributes(1 << 3).build(),
            InvalidTimestamp,
        ),
        (
            "no sequence",
            three().producer(1, 0, -1).build(),
            InvalidRecord,
        ),
        (
            "no epoch",
            three().producer(1, -1, 0).build(),
            InvalidRecord,
        ),
        ("no records", patched(&good, 57, &[0; 4]), InvalidRecord),
        (
            "fewer records than offsets",
            patched(&good, 60, &[2]),
            InvalidRecord,
        ),
        (
            "fewer offsets than records",
            patched(&good, 26, &[1]),
            InvalidRecord,
        ),
        (
            "a count of -1",
            patched(&patched(&good, 57, &[0xFF; 4]), 23, &[0xFF; 4]),
            InvalidRecord,
        ),
    ];
    for (name, batch, kind) in table {
        let (found, message, index) = refusal(&batch, &limits());
        assert_eq!(found, kind, "{name}: {message}");
        assert_eq!(index, None, "{name}: {message}");
    }
}

#[test]
fn a_count_that_lies_is_refused() {
    let good = three().build();
    let claim = |count: u8| patched(&patched(&good, 60, &[count]), 26, &[count - 1]);
    let (kind, message, _) = refusal(&claim(2), &limits());
    assert_eq!(kind, BatchErrorKind::InvalidRecord);
    assert!(message.contains("behind the last of 2"), "{message}");
    let (kind, _, index) = refusal(&claim(4), &limits());
    assert_eq!((kind, index), (BatchErrorKind::InvalidRecord, Some(3)));
    let shallow = Limits {
        deep: false,
        ..limits()
    };
    assert_eq!(validate(&claim(2), &shallow).unwrap().info.records, 2);
}

#[test]
fn a_count_of_billions_costs_nothing() {
    let good = three().build();
    let claim = patched(
        &patched(&good, 57, &i32::MAX.to_be_bytes()),
        23,
        &(i32::MAX - 1).to_be_bytes(),
    );
    assert_eq!(refusal(&claim, &limits()).2, Some(3));
}

#[test]
fn offset_deltas_count_up() {
    // The first record's delta lies behind its length, attributes and timestamp delta.
    let bad = patched(&three().build(), 64, &[2]);
    let (kind, message, index) = refusal(&bad, &limits());
    assert_eq!((kind, index), (BatchErrorKind::InvalidRecord, Some(0)));
    assert!(message.contains("delta 1"), "{message}");
}

#[test]
fn compacted_topics_need_keys() {
    let compacted = Limits {
        compacted: true,
        ..limits()
    };
    for codec in [Codec::None, Codec::Zstd] {
        let (kind, _, index) = refusal(&three().codec(codec).build(), &compacted);
        assert_eq!((kind, index), (BatchErrorKind::InvalidRecord, Some(1)));
    }
    let keyed = BatchBuilder::new()
        .record(1_000_000, Some(b""), None)
        .build();
    assert!(validate(&keyed, &compacted).is_ok());
}

#[test]
fn the_longest_batch_is_as_long_as_the_topic_says() {
    let batch = three().build();
    let allow = |max| Limits {
        max_message_bytes: max,
        ..limits()
    };
    assert!(validate(&batch, &allow(batch.len() as u32)).is_ok());
    let (kind, ..) = refusal(&batch, &allow(batch.len() as u32 - 1));
    assert_eq!(kind, BatchErrorKind::TooLarge);
}

#[test]
fn timestamps_have_bounds() {
    let bounded = Limits {
        timestamp_before_max_ms: 100,
        timestamp_after_max_ms: 10,
        ..limits()
    };
    let at = |timestamp: i64| {
        BatchBuilder::new()
            .record(1_000_000, None, None)
            .record(timestamp, None, None)
            .build()
    };
    for ok in [999_900, 1_000_010, NO_TIMESTAMP] {
        assert!(validate(&at(ok), &bounded).is_ok(), "{ok}");
    }
    for bad in [999_899, 1_000_011, -2, i64::MAX / 2] {
        let (kind, _, index) = refusal(&at(bad), &bounded);
        assert_eq!(
            (kind, index),
            (BatchErrorKind::InvalidTimestamp, Some(1)),
            "{bad}"
        );
    }
    // Without reading records, the header's two are looked at.
    let shallow = Limits {
        deep: false,
        ..bounded
    };
    assert!(validate(&at(1_000_011), &shallow).is_err());
    // The broker's own clock is always right.
    let append = Limits {
        timestamp_type: TimestampType::LogAppendTime,
        ..bounded
    };
    let validated = validate(&at(5), &append).unwrap();
    assert_eq!(validated.info.max_timestamp, 1_000_000);
    assert_eq!(
        validated.header.timestamp_type(),
        TimestampType::LogAppendTime
    );
    validated.header.check_crc(&validated.batch).unwrap();
}

#[test]
fn a_wrong_maximum_timestamp_is_corrected() {
    let good = three().build();
    for wrong in [0i64, i64::MAX, -1] {
        let validated = validate(&patched(&good, 35, &wrong.to_be_bytes()), &limits()).unwrap();
        assert_eq!(validated.batch, good);
        assert_eq!(validated.info.max_timestamp, 1_000_002);
    }
}

#[test]
fn a_topic_can_have_a_codec_of_its_own() {
    let all = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    for from in all {
        for to in all {
            let batch = three().codec(from).producer(7, 2, 40).build();
            let stored = Limits {
                compression: Some(to),
                ..limits()
            };
            let validated = validate(&batch, &stored).unwrap();
            assert_eq!(validated.batch == batch, from == to);
            // The result is a batch that a client could have sent, with the same records.
            let again = validate(&validated.batch, &stored).unwrap();
            assert_eq!(again.header.codec(), Ok(to));
            assert_eq!(again.info, validated.info);
            let records = |v: &Validated| -> Vec<_> {
                Records::of(&v.header, &v.batch)
                    .unwrap()
                    .map(Result::unwrap)
                    .collect()
            };
            let original = validate(&batch, &limits()).unwrap();
            assert_eq!(records(&original), records(&again));
            assert_eq!(original.info.producer, again.info.producer);
        }
    }
}

#[test]
fn a_batch_that_grows_beyond_the_limit_is_refused() {
    let batch = BatchBuilder::new()
        .record(1_000_000, None, Some(&[0; 100_000]))
        .codec(Codec::Zstd)
        .build();
    let plain = Limits {
        compression: Some(Codec::None),
        max_message_bytes: 50_000,
        ..limits()
    };
    assert_eq!(refusal(&batch, &plain).0, BatchErrorKind::TooLarge);
}

#[test]
fn bombs_are_refused_as_too_large() {
    let value = vec![0u8; 20 << 20];
    for codec in [Codec::Gzip, Codec::Zstd] {
        let bomb = BatchBuilder::new()
            .record(1_000_000, None, Some(&value))
            .codec(codec)
            .build();
        assert!(bomb.len() < 100_000);
        assert_eq!(refusal(&bomb, &limits()).0, BatchErrorKind::TooLarge);
        let generous = Limits {
            max_message_bytes: 10 << 20,
            ..limits()
        };
        assert_eq!(
            validate(&bomb, &generous).is_ok(),
            bomb.len() * 100 > value.len() + 100,
            "{codec:?} {}",
            bomb.len()
        );
    }
}

#[test]
fn what_inflates_is_limited_by_size_and_topic() {
    const MIB: usize = 1 << 20;
    for (length, max, expected) in [
        (100, 1_048_588, 16 * MIB),
        (1_000_000, 1_048_588, 16 * MIB),
        (1_000_000, 4 << 20, 40 * MIB),
        (300_000, 4 << 20, 30_000_000),
        (48 << 20, 48 << 20, 64 * MIB),
        (u32::MAX, u32::MAX, 64 * MIB),
    ] {
        assert_eq!(decompressed_max(length, max), expected, "{length} {max}");
    }
}

proptest! {
    /// What is accepted can be read, and holds exactly what its header says.
    #[test]
    fn an_accepted_batch_can_be_read(
        written in written(),
        codec in 0usize..5,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        use crate::batch::Codec::{Gzip, Lz4, None, Snappy, Zstd};
        let codec = [None, Gzip, Snappy, Lz4, Zstd][codec];
        let batch = build(BatchBuilder::new().codec(codec), &written);
        let batch = patched(&batch, at.index(batch.len()), &[byte]);
        let loose = Limits { timestamp_after_max_ms: i64::MAX, ..limits() };
        if let Ok(validated) = validate(&batch, &loose) {
            let records: Vec<_> = Records::of(&validated.header, &validated.batch)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            prop_assert_eq!(records.len(), validated.info.records as usize);
            prop_assert!(records.iter().enumerate().all(|(i, r)| r.offset_delta == i as i32));
            let max = records.iter().map(|r| r.timestamp).max().unwrap().max(-1);
            prop_assert_eq!(max, validated.info.max_timestamp);
            prop_assert!(validated.header.check_crc(&validated.batch).is_ok());
        }
    }

    #[test]
    fn every_built_batch_is_valid(written in written()) {
        let loose = Limits { timestamp_after_max_ms: i64::MAX, ..limits() };
        let batch = build(BatchBuilder::new(), &written);
        prop_assert_eq!(validate(&batch, &loose).unwrap().info.records as usize, written.len());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(validate(&bytes.into(), &limits()).is_err());
    }
}

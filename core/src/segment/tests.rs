use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::env::testing::{check_golden, golden};
use crate::ports::BatchInfo;
use crate::{BrokerEpoch, SegmentId, TopicId, TopicPartition};

/// Something that is as long as a batch; a segment does not look into batches.
fn batch(fill: u8, records: &[u8], timestamp: i64) -> (Bytes, BatchInfo) {
    let mut bytes = vec![fill; 61];
    bytes[27..35].copy_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(records);
    let info = BatchInfo {
        length: bytes.len() as u32,
        records: u32::from(fill) + 1,
        max_timestamp: timestamp + 5,
        producer: None,
    };
    (bytes.into(), info)
}

fn partition(topic: u128, partition: i32) -> TopicPartition {
    TopicPartition::new(TopicId::new(Uuid::from_u128(topic)), partition)
}

const ID: SegmentId = SegmentId::new(BrokerEpoch(7), 42);
const PUT: Uuid = Uuid::from_u128(0x1234_5678);

fn built(batches: &[(TopicPartition, Bytes, BatchInfo)]) -> BuiltSegment {
    let mut builder = SegmentBuilder::new();
    for (i, (partition, bytes, info)) in batches.iter().enumerate() {
        assert_eq!(builder.push(*partition, bytes.clone(), *info), Ok(i));
    }
    let pushed: usize = batches.iter().map(|(_, bytes, _)| bytes.len()).sum();
    assert_eq!(builder.bytes(), pushed);
    builder.finish(ID, PUT, "a-cluster")
}

fn example() -> Vec<(TopicPartition, Bytes, BatchInfo)> {
    [
        (partition(1, 0), batch(1, b"first", 1000)),
        (partition(2, 3), batch(2, b"", 900)),
        (partition(1, 0), batch(3, b"second", 800)),
        (partition(1, 1), batch(4, b"elsewhere", -1)),
    ]
    .map(|(partition, (bytes, info))| (partition, bytes, info))
    .to_vec()
}

#[test]
fn batches_are_grouped_by_partition_in_order() {
    let segment = built(&example());
    let order: Vec<(TopicPartition, Vec<usize>)> = segment
        .extents
        .iter()
        .map(|e| (e.partition, e.batches.iter().map(|b| b.index).collect()))
        .collect();
    assert_eq!(
        order,
        [
            (partition(1, 0), vec![0, 2]),
            (partition(2, 3), vec![1]),
            (partition(1, 1), vec![3])
        ]
    );
    let (footer, extents) = open(&segment.bytes).unwrap();
    assert_eq!((footer.id, footer.put_id), (ID, PUT));
    assert_eq!(footer.cluster, "a-cluster");
    let first = footer.extents[0];
    assert_eq!((first.batches, first.records), (2, 6));
    assert_eq!((first.first_timestamp, first.max_timestamp), (1000, 1005));
    assert!(extents[0].ends_with(b"second"));
}

#[test]
fn an_empty_segment_is_whole() {
    let segment = SegmentBuilder::new().finish(ID, PUT, "");
    assert!(open(&segment.bytes).unwrap().0.extents.is_empty());
}

#[test]
fn a_full_segment_takes_no_more() {
    let mut builder = SegmentBuilder::new();
    let (big, info) = batch(1, &vec![0; BATCH_MAX - 61], 0);
    assert_eq!(builder.push(partition(1, 0), big.clone(), info), Ok(0));
    assert_eq!(builder.push(partition(1, 0), big, info), Err(SegmentFull));
    let mut pushed = 1;
    let (small, info) = batch(1, &[0; 4096], 0);
    while builder.fits(small.len()) {
        assert!(
            builder
                .push(partition(1, pushed), small.clone(), info)
                .is_ok()
        );
        pushed += 1;
    }
    assert_eq!(builder.push(partition(1, 0), small, info), Err(SegmentFull));
    let segment = builder.finish(ID, PUT, &"c".repeat(255));
    assert!(segment.bytes.len() <= SEGMENT_MAX);
    assert!(segment.bytes.len() > SEGMENT_MAX - 8192);
    let length = segment.bytes.len();
    let end = &segment.bytes[length - TAIL_READ..];
    let Err(FooterError::NeedMore { need }) = Footer::parse(end, length as u64) else {
        panic!("thousands of extents fit into the tail");
    };
    let footer = Footer::parse(&segment.bytes[length - need..], length as u64).unwrap();
    assert_eq!(footer.extents.len(), pushed as usize);
}

#[test]
fn a_batch_that_never_fits_is_refused() {
    let (huge, info) = batch(1, &vec![0; BATCH_MAX - 60], 0);
    let mut builder = SegmentBuilder::new();
    assert_eq!(builder.push(partition(1, 0), huge, info), Err(SegmentFull));
    assert!(builder.is_empty());
}

#[test]
fn headers_are_checked() {
    let segment = built(&example()).bytes;
    assert_eq!(check_header(&segment), Ok(()));
    assert_eq!(check_header(&segment[..15]), Err(SegmentHeaderError::Magic));
    let mut bytes = segment.to_vec();
    bytes[8] = 9;
    assert_eq!(check_header(&bytes), Err(SegmentHeaderError::Version(9)));
    bytes[0] = 0;
    assert_eq!(check_header(&bytes), Err(SegmentHeaderError::Magic));
}

#[test]
fn a_footer_that_contradicts_itself_is_refused() {
    let segment = built(&example()).bytes;
    let length = segment.len();
    let footer_length = 37 + 9 + 3 * 64;
    let footer_start = length - 16 - footer_length;
    let entry = footer_start + 46;
    // A byte of the object and its new value.
    for (at, value) in [
        (footer_start + 35, 4),    // extent count
        (footer_start + 36, 255),  // cluster length
        (footer_start + 37, 0xFF), // cluster id not UTF-8
        (entry + 23, 17),          // start
        (entry + 27, 0),           // length
        (entry + 31, 0),           // batches
        (entry + 16, 0x80),        // partition
    ] {
        let mut bytes = segment.to_vec();
        bytes[at] = value;
        assert_eq!(Footer::parse(&bytes, length as u64), Err(FooterError::Crc));
        let crc = crc32c::crc32c(&bytes[footer_start..length - 16]);
        bytes[length - 12..length - 8].copy_from_slice(&crc.to_be_bytes());
        let error = Footer::parse(&bytes, length as u64).unwrap_err();
        assert!(
            matches!(error, FooterError::Inconsistent(_)),
            "{at}: {error}"
        );
    }
}

#[test]
fn golden_bytes_stay() {
    check_golden("segment-v1.bin", &built(&example()).bytes);
    let (footer, extents) = open(&golden("segment-v1.bin").into()).unwrap();
    assert_eq!((footer.id, footer.put_id), (ID, PUT));
    assert_eq!(extents.len(), 3);
    assert_eq!(extents[1], example()[1].1);
}

fn arbitrary_batches() -> impl Strategy<Value = Vec<(TopicPartition, Bytes, BatchInfo)>> {
    let one = (
        0u128..4,
        0i32..4,
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 0..200),
        any::<i32>(),
    );
    prop::collection::vec(
        one.prop_map(|(topic, index, fill, records, timestamp)| {
            let (bytes, info) = batch(fill, &records, i64::from(timestamp));
            (partition(topic, index), bytes, info)
        }),
        0..40,
    )
}

proptest! {
    #[test]
    fn segments_survive(batches in arbitrary_batches()) {
        let segment = built(&batches);
        let (footer, extents) = open(&segment.bytes).unwrap();
        prop_assert_eq!(footer.extents.len(), segment.extents.len());
        let mut seen = 0;
        for ((entry, extent), bytes) in footer.extents.iter().zip(&segment.extents).zip(&extents) {
            prop_assert_eq!((entry.partition, entry.start, entry.length), (extent.partition, extent.start, extent.length));
            prop_assert_eq!(entry.batches as usize, extent.batches.len());
            let mut joined = Vec::new();
            for placed in &extent.batches {
                let (partition, pushed, info) = &batches[placed.index];
                prop_assert_eq!(partition, &extent.partition);
                prop_assert_eq!(&placed.info, info);
                prop_assert_eq!(placed.start as usize, extent.start as usize + joined.len());
                joined.extend_from_slice(pushed);
            }
            prop_assert!(extent.batches.is_sorted_by(|a, b| a.index < b.index));
            prop_assert_eq!(&joined[..], &bytes[..]);
            seen += extent.batches.len();
        }
        prop_assert_eq!(seen, batches.len());
    }

    #[test]
    fn a_changed_byte_is_noticed(batches in arbitrary_batches(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = built(&batches).bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(open(&bytes.into()).is_err());
    }

    #[test]
    fn any_end_of_a_segment_yields_its_footer_or_says_how_much_it_needs(
        batches in arbitrary_batches(),
        cut in any::<prop::sample::Index>(),
    ) {
        let segment = built(&batches).bytes;
        let length = segment.len() as u64;
        let end = &segment[cut.index(segment.len() + 1)..];
        let footer = match Footer::parse(end, length) {
            Err(FooterError::NeedMore { need }) => {
                prop_assert!(need > end.len() && need <= segment.len());
                match Footer::parse(&segment[segment.len() - need..], length) {
                    Err(FooterError::NeedMore { need }) => Footer::parse(&segment[segment.len() - need..], length),
                    other => other,
                }
            }
            other => other,
        };
        prop_assert_eq!(footer, Footer::parse(&segment, length));
        prop_assert!(Footer::parse(&segment, length - 1).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(junk in prop::collection::vec(any::<u8>(), 0..500), length in 0u64..1000) {
        let mut bytes = junk;
        prop_assert!(Footer::parse(&bytes, length).is_err());
        bytes.extend_from_slice(b"\0\0\0\x60\0\0\0\0FRZLSEGF");
        prop_assert!(Footer::parse(&bytes, bytes.len() as u64).is_err());
    }
}

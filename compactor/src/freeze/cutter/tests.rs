use frazil_core::BrokerEpoch;
use frazil_core::batch::{BatchBuilder, Codec, Headers};
use frazil_table::{Fetched, GroupIndex, Read};
use proptest::prelude::*;

use super::*;

const DAY: i64 = 24 * 3_600_000;

/// A record as it was put in and must come out.
type Row = (i32, i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn segment() -> Option<SegmentId> {
    Some(SegmentId::new(BrokerEpoch(1), 7))
}

/// An extent of `partition` from `base` on: batches of records with these timestamps.
fn piece(partition: i32, base: i64, batches: &[Vec<i64>], rows: &mut Vec<Row>) -> Piece {
    let mut bytes = Vec::new();
    let mut at = base;
    for times in batches {
        let mut batch = BatchBuilder::new().codec(Codec::Lz4);
        for time in times {
            let key = (at % 3 != 0).then(|| format!("key {at}").into_bytes());
            let value = (at % 5 != 0).then(|| format!("value {partition} {at}").into_bytes());
            // Keys of headers repeat, and are no UTF-8.
            let headers: &[(&[u8], Option<&[u8]>)] = match at % 2 {
                0 => &[(b"h", Some(b"1")), (b"h", None), (b"\xff", Some(b""))],
                _ => &[],
            };
            batch.push(*time, key.as_deref(), value.as_deref(), headers);
            let mut buf = frazil_core::batch::HeadersBuf::default();
            headers
                .iter()
                .for_each(|(key, value)| buf.push(key, *value));
            rows.push((
                partition,
                at,
                *time,
                key,
                value,
                buf.headers().bytes().to_vec(),
            ));
            at += 1;
        }
        bytes.extend_from_slice(&batch.build());
    }
    Piece {
        partition,
        base: Offset(base),
        end: Offset(at),
        segment: segment(),
        bytes: bytes.into(),
    }
}

fn cutter(by: PartitionBy, file_bytes: u64) -> Cutter {
    Cutter::new(ObjectId::new(3, 0), by, WriterConfig::default(), file_bytes)
}

/// The rows of a file, and that its groups are sorted.
fn rows_of(file: &File) -> Vec<Row> {
    let bytes = Bytes::from(file.parts.concat());
    assert_eq!(bytes.len() as u64, file.bytes);
    let order = file
        .groups
        .iter()
        .map(|group| (group.partition, group.base));
    assert!(order.is_sorted());
    let mut rows = Vec::new();
    for group in file.groups.iter().filter(|group| group.records > 0) {
        let range = group.range();
        let whole = bytes.slice(range.start as usize..range.end as usize);
        let index = GroupIndex::parse(group, &whole[..group.index_length as usize]).unwrap();
        let mut fetched = Fetched::default();
        fetched.add(group.start, whole);
        let each = |record: &RecordRef<'_>| {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let headers: Headers<'_> = record.headers;
            rows.push((
                group.partition,
                record.offset.0,
                record.timestamp,
                owned(record.key),
                owned(record.value),
                headers.bytes().to_vec(),
            ));
            Ok::<(), frazil_table::Error>(())
        };
        Read::all(group, &index).rows(&fetched, each).unwrap();
    }
    rows
}

/// Converts pieces, and checks that everything is in the files, once.
fn convert(mut cutter: Cutter, pieces: &[Piece], rows: &[Row]) -> Vec<File> {
    for piece in pieces {
        cutter.push(piece).unwrap();
    }
    cutter.close().unwrap();
    let files = cutter.take_files();
    let mut found: Vec<Row> = files.iter().flat_map(rows_of).collect();
    found.sort();
    let mut rows = rows.to_vec();
    rows.sort();
    assert_eq!(found, rows);
    // The groups tile what was put in.
    let named: Vec<_> = files
        .iter()
        .map(|file| (file.id, file.groups.clone()))
        .collect();
    let mut ends: BTreeMap<i32, Offset> = BTreeMap::new();
    for (partition, groups) in by_partition(&named) {
        let mut at = pieces
            .iter()
            .find(|piece| piece.partition == partition)
            .unwrap()
            .base;
        for group in groups {
            assert_eq!(group.base, at);
            at = group.end;
        }
        ends.insert(partition, at);
    }
    for piece in pieces {
        assert!(ends[&piece.partition] >= piece.end);
    }
    files
}

#[test]
fn a_file_ends_with_the_day() {
    let mut rows = Vec::new();
    // The second batch spans midnight; so does the boundary between the partitions.
    let pieces = [
        piece(
            0,
            5,
            &[vec![1, 2, 3], vec![4, DAY - 1, DAY, DAY + 1]],
            &mut rows,
        ),
        piece(0, 12, &[vec![DAY + 5]], &mut rows),
        piece(2, 0, &[vec![3, 4]], &mut rows),
    ];
    let files = convert(cutter(PartitionBy::Day, 1 << 20), &pieces, &rows);
    let lengths: Vec<u64> = files.iter().map(File::rows).collect();
    assert_eq!(lengths, [5, 3, 2]);
    for file in &files {
        let partition = Partition::of_groups(PartitionBy::Day, &file.groups);
        assert_eq!(partition.by(), PartitionBy::Day);
    }
    let files = convert(cutter(PartitionBy::None, 1 << 20), &pieces, &rows);
    assert_eq!(files.len(), 1);
}

#[test]
fn times_that_jump_do_not_make_a_file_each() {
    let mut rows = Vec::new();
    let times: Vec<i64> = (0..1000).map(|i| i % 2 * 40 * DAY).collect();
    let pieces = [piece(0, 0, &[times], &mut rows)];
    let files = convert(cutter(PartitionBy::Day, 1 << 20), &pieces, &rows);
    assert_eq!(files.len() as u64, CUTS + 1);
}

#[test]
fn what_is_lost_has_no_rows_and_keeps_its_offsets() {
    let mut rows = Vec::new();
    let lost = |base, end| Piece {
        partition: 0,
        base: Offset(base),
        end: Offset(end),
        segment: None,
        bytes: Bytes::new(),
    };
    let pieces = [
        lost(0, 3),
        piece(0, 3, &[vec![1]], &mut rows),
        lost(4, 9),
        piece(0, 9, &[vec![2]], &mut rows),
    ];
    let files = convert(cutter(PartitionBy::Day, 1 << 20), &pieces, &rows);
    assert_eq!(files.len(), 1);
    let files = convert(cutter(PartitionBy::Day, 1 << 20), &[lost(0, 3)], &[]);
    assert_eq!(
        (files[0].rows(), files[0].bytes, files[0].parts.len()),
        (0, 0, 0)
    );
    assert_eq!(files[0].groups.len(), 1);
}

#[test]
fn partitions_that_begin_anew_begin_a_file() {
    let mut rows = Vec::new();
    let pieces = [
        piece(0, 0, &[vec![1]], &mut rows),
        piece(1, 0, &[vec![1]], &mut rows),
        piece(0, 1, &[vec![1]], &mut rows),
        piece(1, 1, &[vec![1]], &mut rows),
    ];
    assert_eq!(
        convert(cutter(PartitionBy::Day, 1 << 20), &pieces, &rows).len(),
        2
    );
}

#[test]
fn gaps_between_ranges_end_no_file() {
    // As when files are merged that do not follow each other.
    let mut cutter = cutter(PartitionBy::Day, 1 << 20);
    let mut rows = Vec::new();
    for base in [0, 100, 200] {
        cutter
            .push(&piece(3, base, &[vec![1, 2]], &mut rows))
            .unwrap();
    }
    cutter.close().unwrap();
    let files = cutter.take_files();
    assert_eq!(files.len(), 1);
    assert_eq!(rows_of(&files[0]), rows);
}

#[test]
fn large_files_end() {
    let mut rows = Vec::new();
    let batches: Vec<Vec<i64>> = (0..50).map(|_| vec![7; 100]).collect();
    let pieces = [piece(0, 0, &batches, &mut rows)];
    let mut small = cutter(PartitionBy::Day, 4000);
    small.config.group_bytes = 2000;
    small.config.page_rows = 50;
    let files = convert(small, &pieces, &rows);
    assert!(files.len() > 5, "{}", files.len());
}

#[test]
fn damage_is_told_and_nothing_of_it_used() {
    let mut rows = Vec::new();
    let sound = piece(0, 10, &[vec![1, 2, 3], vec![4, 5]], &mut rows);
    for at in 0..sound.bytes.len() {
        // Base offset and leader epoch are not under the checksum, and not used.
        let mut damaged = sound.clone();
        let mut bytes = sound.bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        damaged.bytes = bytes.into();
        let mut cutter = cutter(PartitionBy::Day, 1 << 20);
        let converted = cutter.push(&damaged);
        match converted {
            Err(JobError::Segment {
                segment,
                partition: 0,
                ..
            }) => {
                assert!(segment.starts_with("segments/"), "{segment}");
            }
            Err(other) => panic!("{other}"),
            Ok(()) => {
                cutter.close().unwrap();
                let found: Vec<Row> = cutter.take_files().iter().flat_map(rows_of).collect();
                assert_eq!(found, rows, "byte {at}");
            }
        }
    }
    for end in [14, 16] {
        let mut wrong = sound.clone();
        wrong.end = Offset(end);
        let refused = cutter(PartitionBy::Day, 1 << 20).push(&wrong);
        assert!(matches!(refused, Err(JobError::Segment { .. })), "{end}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_in_comes_out(
        logs in prop::collection::vec(
            (0..2i64, prop::collection::vec(prop::collection::vec(prop_oneof![
                Just(-1i64), 0..3 * DAY, any::<i64>(),
            ], 1..6), 1..4)), 1..6),
        by in prop::sample::select(vec![PartitionBy::None, PartitionBy::Hour, PartitionBy::Day, PartitionBy::Year]),
        file_bytes in prop::sample::select(vec![1u64, 500, 1 << 20]),
    ) {
        let mut rows = Vec::new();
        let mut pieces = Vec::new();
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, batches) in logs {
            let partition = partition as i32;
            let base = ends.get(&partition).copied().unwrap_or(100);
            // Deltas of timestamps have 64 bits.
            let batches: Vec<Vec<i64>> = batches.into_iter().map(|times| {
                let first = times[0];
                times.into_iter().map(|time| match time.checked_sub(first) {
                    Some(_) => time,
                    None => first,
                }).collect()
            }).collect();
            let piece = piece(partition, base, &batches, &mut rows);
            ends.insert(partition, piece.end.0);
            pieces.push(piece);
        }
        convert(cutter(by, file_bytes), &pieces, &rows);
    }
}

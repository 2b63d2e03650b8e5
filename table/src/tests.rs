//! Rows in, files out, and back: by this crate's reader, and by another implementation of Parquet.

use std::ops::Range;

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::batch::{BatchBuilder, BatchHeader, Codec, Records, TimestampType, batches};
use frazil_core::env::testing::{check_golden, golden};
use proptest::prelude::*;

use crate::manifest::GroupRef;
use crate::read::{coalesce, empty_batches};
use crate::{Damage, Error, Fetched, GroupIndex, ObjectId, Read, Writer, WriterConfig, Written};

mod foreign;

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) append_time: bool,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What a Kafka consumer makes of batches whose base offsets are stamped.
fn consume(batch: &Bytes, stamped: Option<i64>) -> Vec<Row> {
    let mut rows = Vec::new();
    for item in batches(batch) {
        let (header, batch) = item.unwrap();
        header.check_crc(&batch).unwrap();
        let base = stamped.unwrap_or(header.base_offset);
        let records = match header.record_count {
            0 => continue,
            _ => Records::of(&header, &batch).unwrap(),
        };
        for record in records {
            let record = record.unwrap();
            rows.push(Row {
                offset: base + i64::from(record.offset_delta),
                timestamp: record.timestamp,
                append_time: header.timestamp_type() == TimestampType::LogAppendTime,
                key: record.key.map(Vec::from),
                value: record.value.map(Vec::from),
                headers: record
                    .headers
                    .into_iter()
                    .map(|(key, value)| (key.to_vec(), value.map(Vec::from)))
                    .collect(),
            });
        }
    }
    rows
}

/// A file and what is known of it.
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) groups: Vec<GroupRef>,
}

impl File {
    fn of(mut parts: Vec<Bytes>, written: Written) -> Self {
        parts.extend(written.parts);
        let bytes = Bytes::from(parts.concat());
        assert_eq!(bytes.len() as u64, written.bytes);
        Self {
            bytes,
            groups: written.groups,
        }
    }

    fn index(&self, group: &GroupRef) -> GroupIndex {
        let range = group.index_range();
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        GroupIndex::parse(group, bytes).unwrap()
    }

    fn fetch(&self, ranges: &[Range<u64>]) -> Fetched {
        let mut fetched = Fetched::default();
        for range in ranges {
            let bytes = self.bytes.slice(range.start as usize..range.end as usize);
            fetched.add(range.start, bytes);
        }
        fetched
    }

    /// All batches of a partition, as a scan gets them.
    pub(crate) fn scan(&self, partition: i32, codec: Codec) -> Vec<Bytes> {
        let mut all = Vec::new();
        for group in self
            .groups
            .iter()
            .filter(|group| group.partition == partition)
        {
            if group.records == 0 {
                all.extend(empty_batches(group).unwrap());
                continue;
            }
            let index = self.index(group);
            let read = Read::all(group, &index);
            let fetched = self.fetch(&read.ranges());
            all.extend(read.batches(&fetched, codec).unwrap());
        }
        all
    }
}

pub(crate) const FILE: ObjectId = ObjectId::new(7, 1);

pub(crate) fn small() -> WriterConfig {
    WriterConfig {
        page_rows: 7,
        page_bytes: 300,
        group_bytes: 900,
        ..WriterConfig::default()
    }
}

/// Writes batches with gaps of so many offsets behind them, of partitions 0, 1, …, and answers the
/// rows they stand for.
pub(crate) fn write(
    config: WriterConfig,
    partitions: &[Vec<(Bytes, u32)>],
) -> (File, Vec<Vec<Row>>) {
    let mut writer = Writer::new(FILE, config).unwrap();
    let mut parts = Vec::new();
    let mut rows = Vec::new();
    for (partition, batches) in partitions.iter().enumerate() {
        let mut base = Offset(1000);
        let mut expected = Vec::new();
        writer.begin(partition as i32, base);
        for (batch, gap) in batches {
            writer.push_batch(base, batch).unwrap();
            expected.extend(consume(batch, Some(base.0)));
            let header = BatchHeader::parse(batch).unwrap();
            base = base + header.offsets() + *gap;
            parts.extend(writer.take_parts());
        }
        writer.end(base + 1).unwrap();
        rows.push(expected);
    }
    (File::of(parts, writer.finish()), rows)
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 1_700_000_000_000i64..1_700_000_100_000,
        1 => prop_oneof![
            Just(-1), Just(0), Just(-2), Just(i64::MIN), Just(i64::MAX), Just(i64::MAX / 1000),
            Just(i64::MAX / 1000 + 1), Just(i64::MIN / 1000), Just(i64::MIN / 1000 - 1),
        ],
    ]
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        2 => "[a-z]{0,20}".prop_map(String::into_bytes),
        1 => (0u8.., 300usize..2000).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

type Given = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

pub(crate) fn batch() -> impl Strategy<Value = Bytes> {
    let header = (blob(), prop::option::of(blob()));
    let headers = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(header, 0..4),
    ];
    let record = (
        timestamp(),
        prop::option::of(blob()),
        prop::option::of(blob()),
        headers,
    );
    let codec = prop_oneof![
        Just(Codec::None),
        Just(Codec::Gzip),
        Just(Codec::Snappy),
        Just(Codec::Lz4),
        Just(Codec::Zstd),
    ];
    (prop::collection::vec(record, 1..30), codec, any::<bool>()).prop_map(
        |(records, codec, append_time): (Vec<Given>, _, _)| {
            let mut batch = BatchBuilder::new().codec(codec);
            if append_time {
                batch = batch.timestamp_type(TimestampType::LogAppendTime);
            }
            // Within a batch timestamps are differences, which must fit.
            let base = records[0].0;
            for (timestamp, key, value, headers) in &records {
                let headers: Vec<_> = headers
                    .iter()
                    .map(|(key, value)| (&key[..], value.as_deref()))
                    .collect();
                let timestamp = match timestamp.checked_sub(base) {
                    Some(_) => *timestamp,
                    None => base,
                };
                batch.push(timestamp, key.as_deref(), value.as_deref(), &headers);
            }
            batch.build()
        },
    )
}

pub(crate) fn partitions() -> impl Strategy<Value = Vec<Vec<(Bytes, u32)>>> {
    let gap = prop_oneof![4 => Just(0u32), 1 => 0u32..50, 1 => Just(u32::MAX)];
    prop::collection::vec(prop::collection::vec((batch(), gap), 0..6), 1..4)
}

/// Checks that batches tile the offsets from `base` to `end`, but for gaps that no batch can span.
fn check_tiling(batches: &[Bytes], base: i64, end: i64) {
    let mut at = base;
    for batch in batches {
        let header = BatchHeader::parse(batch).unwrap();
        assert_eq!(header.length as usize, batch.len());
        let gap = header.base_offset - at;
        assert!(gap == 0 || gap > 1 << 30, "a gap of {gap} at {at}");
        at = header.base_offset + i64::from(header.offsets());
    }
    assert_eq!(at, end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// I37: what is read from a file are the records of the batches it was made of.
    #[test]
    fn consumers_see_the_records_of_the_batches(partitions in partitions(), codec in 0usize..5) {
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][codec];
        let (file, rows) = write(small(), &partitions);
        for (partition, expected) in rows.iter().enumerate() {
            let batches = file.scan(partition as i32, codec);
            let seen: Vec<Row> = batches.iter().flat_map(|batch| consume(batch, None)).collect();
            prop_assert_eq!(&seen, expected);
            let groups: Vec<_> = file
                .groups
                .iter()
                .filter(|group| group.partition == partition as i32)
                .collect();
            check_tiling(&batches, 1000, groups.last().unwrap().end.0);
        }
    }

    /// Where a read begins decides which batches it gets, never how they are cut.
    #[test]
    fn a_read_anywhere_gets_batches_of_the_scan(
        partitions in partitions(),
        at in any::<prop::sample::Index>(),
        max_bytes in 0u64..3000,
    ) {
        let (file, rows) = write(small(), &partitions);
        let scan = file.scan(0, Codec::Lz4);
        prop_assume!(!rows[0].is_empty());
        let from = Offset(rows[0][at.index(rows[0].len())].offset);
        let group = file
            .groups
            .iter()
            .find(|group| group.partition == 0 && group.end > from)
            .unwrap();
        let index = file.index(group);
        let read = Read::from(group, &index, from, max_bytes);
        prop_assert!(read.offsets().contains(&from));
        let fetched = file.fetch(&coalesce(&read.ranges(), 64));
        let batches = read.batches(&fetched, Codec::Lz4).unwrap();
        let start = scan.iter().position(|batch| *batch == batches[0]).unwrap();
        prop_assert_eq!(&scan[start..start + batches.len()], &batches[..]);
        let parts: Vec<Bytes> = read
            .split()
            .flat_map(|page| page.batches(&fetched, Codec::Lz4).unwrap())
            .collect();
        prop_assert_eq!(parts, batches);
    }

    /// Rows written again, by whatever configuration, are the same rows.
    #[test]
    fn files_merge(partitions in partitions()) {
        let (file, rows) = write(small(), &partitions);
        let mut writer = Writer::new(FILE, WriterConfig::default()).unwrap();
        for partition in 0..partitions.len() as i32 {
            let groups: Vec<_> = file.groups.iter().filter(|g| g.partition == partition).collect();
            writer.begin(partition, groups[0].base);
            for group in groups.iter().filter(|group| group.records > 0) {
                let index = file.index(group);
                let read = Read::all(group, &index);
                let fetched = file.fetch(&read.ranges());
                read.rows(&fetched, |record| writer.push(record)).unwrap();
            }
            writer.end(groups[groups.len() - 1].end).unwrap();
        }
        let merged = File::of(Vec::new(), writer.finish());
        prop_assert_eq!(merged.groups.len(), partitions.len());
        for (partition, expected) in rows.iter().enumerate() {
            let batches = merged.scan(partition as i32, Codec::None);
            let seen: Vec<Row> = batches.iter().flat_map(|batch| consume(batch, None)).collect();
            prop_assert_eq!(&seen, expected);
        }
    }

    #[test]
    fn the_first_record_of_a_time_is_found(
        partitions in partitions(),
        from in 1000i64..1100,
        timestamp in timestamp(),
    ) {
        let (file, rows) = write(small(), &partitions);
        let expected = rows[0]
            .iter()
            .find(|row| row.offset >= from && row.timestamp >= timestamp)
            .map(|row| (Offset(row.offset), row.timestamp));
        let mut found = None;
        for group in file.groups.iter().filter(|group| group.partition == 0 && group.records > 0) {
            let index = file.index(group);
            let read = Read::all(group, &index);
            let fetched = file.fetch(&read.time_ranges());
            let here = read.find_time(&fetched, Offset(from), timestamp).unwrap();
            if group.max_timestamp < timestamp || group.end.0 <= from {
                prop_assert_eq!(here, None);
            }
            found = found.or(here);
        }
        prop_assert_eq!(found, expected);
    }

    /// Damage is never read over: any changed byte that a read uses is an error.
    #[test]
    fn damage_is_an_error(
        partitions in partitions(),
        at in any::<prop::sample::Index>(),
        change in 1u8..,
    ) {
        let (file, _) = write(small(), &partitions);
        let Some(group) = file.groups.iter().find(|group| group.records > 0) else {
            return Ok(());
        };
        let range = group.range();
        let index = file.index(group);
        let ranges = Read::all(group, &index).ranges();
        let mut bytes = file.bytes.to_vec();
        let at = range.start + at.index(usize::try_from(range.end - range.start).unwrap()) as u64;
        bytes[at as usize] ^= change;
        let damaged = File { bytes: bytes.into(), groups: Vec::new() };
        let index_range = group.index_range();
        let index_bytes = damaged.bytes.slice(index_range.start as usize..index_range.end as usize);
        if index_range.contains(&at) {
            let error = GroupIndex::parse(group, &index_bytes).unwrap_err();
            let by_checksum = matches!(
                error,
                Error::Damaged { damage: Damage::Index("its checksum"), .. }
            );
            prop_assert!(by_checksum, "{}", error);
        } else if ranges.iter().any(|range| range.contains(&at)) {
            let read = Read::all(group, &index);
            let error = read.batches(&damaged.fetch(&ranges), Codec::None).unwrap_err();
            let by_checksum = matches!(
                error,
                Error::Damaged { damage: Damage::Page { what: "its checksum", .. }, .. }
            );
            prop_assert!(by_checksum, "{}", error);
        }
    }
}

#[test]
fn what_is_missing_is_an_error() {
    let batch = BatchBuilder::new().record(1, None, Some(b"v")).build();
    let (file, _) = write(small(), &[vec![(batch, 0)]]);
    let group = &file.groups[0];
    let index = file.index(group);
    let read = Read::all(group, &index);
    let mut ranges = read.ranges();
    assert_eq!(ranges.len(), 1, "columns lie back to back");
    ranges[0].end -= 1;
    let error = read.batches(&file.fetch(&ranges), Codec::None).unwrap_err();
    assert!(error.to_string().contains("kafka_value"), "{error}");
    let error = read.batches(&Fetched::default(), Codec::None).unwrap_err();
    assert!(error.to_string().contains("absence"), "{error}");
}

#[test]
fn the_index_of_another_row_group_is_refused() {
    let batch = |value: &[u8]| BatchBuilder::new().record(1, None, Some(value)).build();
    let (file, _) = write(small(), &[vec![(batch(b"1"), 0)], vec![(batch(b"2"), 0)]]);
    let (mut one, other) = (file.groups[0].clone(), &file.groups[1]);
    one.start = other.start;
    one.index_crc = other.index_crc;
    let range = one.index_range();
    let bytes = &file.bytes[range.start as usize..range.end as usize];
    let error = GroupIndex::parse(&one, bytes).unwrap_err();
    assert!(
        error.to_string().contains("it belongs elsewhere"),
        "{error}"
    );
}

#[test]
fn offsets_without_records_are_stepped_over() {
    let mut writer = Writer::new(FILE, WriterConfig::default()).unwrap();
    writer.begin(3, Offset(10));
    writer.end(Offset(20)).unwrap();
    writer.begin(3, Offset(20));
    writer.end(Offset(20 + (1 << 40))).unwrap();
    let file = File::of(Vec::new(), writer.finish());
    let lengths: Vec<_> = file.groups.iter().map(|group| group.length).collect();
    assert_eq!(lengths, [0, 0]);
    let batches = file.scan(3, Codec::Zstd);
    let spans: Vec<_> = batches
        .iter()
        .map(|batch| BatchHeader::parse(batch).unwrap())
        .map(|header| (header.base_offset, header.offsets(), header.record_count))
        .collect();
    assert_eq!(spans, [(10, 10, 0), (19 + (1 << 40), 1, 0)]);
}

#[test]
fn a_batch_that_is_no_data_is_refused() {
    let build = |attributes| {
        BatchBuilder::new()
            .attributes(attributes)
            .record(1, None, None)
            .build()
    };
    let mut writer = Writer::new(FILE, WriterConfig::default()).unwrap();
    writer.begin(0, Offset(0));
    let error = writer.push_batch(Offset(0), &build(1 << 5)).unwrap_err();
    assert!(error.to_string().contains("control"), "{error}");
    let mut damaged = build(0).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let error = writer.push_batch(Offset(0), &damaged.into()).unwrap_err();
    assert!(error.to_string().contains("CRC"), "{error}");
    writer.push_batch(Offset(0), &build(0)).unwrap();
    let error = writer.push_batch(Offset(0), &build(0)).unwrap_err();
    assert!(error.to_string().contains("order"), "{error}");
}

/// Of several codecs in a row group, any is known to its readers: the cheapest is noted. What is
/// merged keeps it.
#[test]
fn a_row_group_knows_how_it_was_produced() {
    let built = |codec: Option<Codec>| {
        let mut batch = BatchBuilder::new().codec(codec.unwrap_or(Codec::None));
        batch.push(1, None, Some(b"a value"), &[]);
        batch.build()
    };
    let codec = |produced: &[Codec]| {
        let mut writer = Writer::new(FILE, WriterConfig::default()).unwrap();
        writer.begin(0, Offset(0));
        let mut base = Offset(0);
        for codec in produced {
            writer.push_batch(base, &built(Some(*codec))).unwrap();
            base = base + 1;
        }
        writer.end(base + 1).unwrap();
        writer.finish().groups[0].codec
    };
    assert_eq!(codec(&[]), None);
    assert_eq!(codec(&[Codec::None]), Some(Codec::None));
    assert_eq!(codec(&[Codec::None, Codec::Gzip]), Some(Codec::Gzip));
    assert_eq!(
        codec(&[Codec::Zstd, Codec::Lz4, Codec::None]),
        Some(Codec::Lz4)
    );
}

/// A page is bounded by rows and by bytes, and a large record is a page of its own.
#[test]
fn pages_and_row_groups_have_bounds() {
    let mut writer = Writer::new(FILE, WriterConfig::default()).unwrap();
    writer.begin(0, Offset(0));
    let mut base = Offset(0);
    let mut state = 1u64;
    let mut noise = |length: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    };
    for _ in 0..3 {
        let mut batch = BatchBuilder::new();
        for _ in 0..2500 {
            batch.push(1, None, Some(b"tiny"), &[]);
        }
        batch.push(1, None, Some(&noise(10 << 20)), &[]);
        for _ in 0..300 {
            batch.push(1, None, Some(&noise(1000)), &[]);
        }
        writer.push_batch(base, &batch.build()).unwrap();
        base = base + batch.records();
    }
    writer.end(base).unwrap();
    let file = File::of(Vec::new(), writer.finish());
    let pages: Vec<Vec<u32>> = file
        .groups
        .iter()
        .map(|group| {
            file.index(group)
                .pages
                .iter()
                .map(|page| page.rows)
                .collect()
        })
        .collect();
    assert_eq!(
        pages,
        [
            vec![1000, 1000, 500, 1],
            vec![263, 1000, 1000, 537, 1],
            vec![263, 1000, 1000, 537, 1],
            vec![263, 37],
        ]
    );
}

/// Rows of every kind, for the golden file.
fn golden_rows() -> Vec<Vec<(Bytes, u32)>> {
    let batch = |append_time: bool, codec| {
        let mut batch = BatchBuilder::new().codec(codec);
        if append_time {
            batch = batch.timestamp_type(TimestampType::LogAppendTime);
        }
        for (timestamp, key) in [(1_700_000_000_000, Some("key")), (-1, None), (-5, Some(""))] {
            let key = key.map(str::as_bytes);
            batch.push(timestamp, key, Some(&[7; 100]), &[]);
            let headers = [
                (&b"h"[..], Some(&b"1"[..])),
                (b"h", None),
                (b"", Some(b"")),
                (b"\xFF\xFE", Some(b"not UTF-8")),
            ];
            batch.push(i64::MAX - 1_700_000_000_001, key, None, &headers);
        }
        batch.build()
    };
    vec![
        vec![
            (batch(false, Codec::None), 0),
            (batch(true, Codec::Lz4), 3),
            (batch(false, Codec::Zstd), 0),
        ],
        Vec::new(),
        vec![(batch(true, Codec::Snappy), u32::MAX)],
    ]
}

/// Reading is held; what zstd writes may change with its version.
#[test]
fn golden_files_can_be_read() {
    let (file, rows) = write(small(), &golden_rows());
    let written = File {
        bytes: Bytes::from(golden("table-file-v1.parquet")),
        groups: file.groups.clone(),
    };
    assert_eq!(written.bytes.len(), file.bytes.len());
    for (partition, expected) in rows.iter().enumerate() {
        let batches = written.scan(partition as i32, Codec::None);
        let seen: Vec<Row> = batches
            .iter()
            .flat_map(|batch| consume(batch, None))
            .collect();
        assert_eq!(seen, *expected);
    }
}

#[test]
fn indexes_are_written_as_ever() {
    let place = |number: u32| crate::index::PagePlace {
        header: 30,
        compressed: 1000 + number,
        uncompressed: 5000,
        crc: number,
        values: 10,
    };
    let index = GroupIndex {
        file: FILE,
        partition: 2,
        base: Offset(100),
        end: Offset(200),
        pages: [100, 150]
            .map(|first| crate::index::PageRows {
                rows: 10,
                first: Offset(first),
            })
            .to_vec(),
        columns: crate::schema::COLUMNS
            .iter()
            .zip(0..)
            .map(|(leaf, number)| crate::index::ColumnPages {
                field: leaf.field,
                start: 4000 * number,
                pages: vec![place(2 * number), place(2 * number + 1)],
            })
            .collect(),
    };
    check_golden("table-group-index-v1.bin", &index.encode());
    let bytes = golden("table-group-index-v1.bin");
    let group = GroupRef {
        base: index.base,
        end: index.end,
        file: FILE,
        partition: 2,
        start: 4,
        length: bytes.len() as u32 + 40_000,
        index_length: bytes.len() as u32,
        index_crc: crc32c::crc32c(&bytes),
        records: 20,
        min_timestamp: 0,
        max_timestamp: 0,
        codec: None,
    };
    assert_eq!(GroupIndex::parse(&group, &bytes).unwrap(), index);
}

/// Behind right checksums any page is either rows or damage.
mod hostile {
    use super::*;
    use crate::forge;

    fn inputs() -> Vec<Vec<u8>> {
        let (file, _) = write(small(), &golden_rows());
        let groups = file.groups.iter().filter(|group| group.records > 0);
        groups
            .map(|group| forge::unpick(group, &file.index(group), &file.bytes))
            .collect()
    }

    #[test]
    fn what_was_unpicked_can_be_read() {
        for input in inputs() {
            forge::read_pages(&input).unwrap().unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_pages_are_rows_or_damage(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let inputs = inputs();
            let mut input = inputs[which.index(inputs.len())].clone();
            for (at, byte) in changes {
                let at = at.index(input.len());
                input[at] = byte;
            }
            if let Some(cut) = cut {
                input.truncate(cut.index(input.len()));
            }
            drop(forge::read_pages(&input));
        }

        #[test]
        fn any_index_is_checked(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let golden = golden("table-group-index-v1.bin");
            let mut cbor = golden[12..golden.len() - 4].to_vec();
            for (at, byte) in changes {
                let at = at.index(cbor.len());
                cbor[at] = byte;
            }
            forge::read_index(&cbor);
        }
    }

    /// Columns that later versions add are of no concern to this one.
    #[test]
    fn columns_that_are_not_known_are_left_alone() {
        let batch = BatchBuilder::new()
            .record(1, Some(b"k"), Some(b"v"))
            .build();
        let (file, rows) = write(small(), &[vec![(batch, 0)]]);
        let mut group = file.groups[0].clone();
        let mut index = file.index(&group);
        let mut later = index.columns[0].clone();
        later.field = 1000;
        index.columns.insert(3, later);
        let mut bytes = index.encode();
        let data = group.index_range().end..group.range().end;
        group.index_length = bytes.len() as u32;
        group.index_crc = crc32c::crc32c(&bytes);
        group.length = group.index_length + (data.end - data.start) as u32;
        bytes.extend_from_slice(&file.bytes[data.start as usize..data.end as usize]);
        group.start = 0;
        let file = File {
            bytes: bytes.into(),
            groups: vec![group],
        };
        let batches = file.scan(0, Codec::None);
        let seen: Vec<Row> = batches
            .iter()
            .flat_map(|batch| consume(batch, None))
            .collect();
        assert_eq!(seen, rows[0]);
    }

    /// The inputs that fuzzing begins with.
    #[test]
    fn the_corpus_is_that_of_the_format() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/parquet/golden");
        for (number, input) in inputs().into_iter().enumerate() {
            let mut input = input;
            input.insert(0, 0);
            #[expect(
                clippy::disallowed_methods,
                reason = "the corpus is part of the sources"
            )]
            let stored = std::fs::read(format!("{corpus}-{number}")).unwrap();
            assert_eq!(stored, input);
        }
    }
}

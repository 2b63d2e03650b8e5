//! Parquet: a row group written from batches, and read back into batches.

use std::hint::black_box;

use bytes::Bytes;
use frazil_core::Offset;
use frazil_core::batch::{BatchHeader, Codec};
use frazil_table::{Fetched, GroupIndex, GroupRef, ObjectId, Read, Writer, WriterConfig};

use super::{Numbers, batch};
use crate::{Case, Work};

/// Bytes of the records, before compression.
const RECORDS: usize = 4 << 20;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, prepare| Case {
        name,
        bytes: Some(RECORDS as u64),
        prepare,
    };
    vec![
        case("parquet/write 1 KiB", || written(1000)),
        case("parquet/write 100 B", || written(80)),
        case("parquet/read 1 KiB", || read(1000)),
        case("parquet/read 100 B", || read(80)),
    ]
}

/// Batches with their first offsets, and where the last one ends.
fn input(record: usize) -> (Vec<(Offset, Bytes)>, Offset) {
    let mut numbers = Numbers::new();
    let mut end = Offset(0);
    let mut batches = Vec::new();
    for _ in 0..RECORDS / (256 << 10) {
        let batch = batch(&mut numbers, Codec::None, record, 256 << 10);
        let header = BatchHeader::parse(&batch).expect("a batch");
        batches.push((end, batch));
        end = end + header.offsets();
    }
    (batches, end)
}

fn write(batches: &[(Offset, Bytes)], end: Offset) -> (Bytes, Vec<GroupRef>) {
    let mut writer =
        Writer::new(ObjectId::new(1, 1), WriterConfig::default()).expect("a level that exists");
    writer.begin(0, Offset(0));
    for (base, batch) in batches {
        writer.push_batch(*base, batch).expect("batches are sound");
    }
    writer.end(end).expect("in memory");
    let written = writer.finish();
    (written.parts.concat().into(), written.groups)
}

fn written(record: usize) -> Work {
    let (batches, end) = input(record);
    Box::new(move || drop(black_box(write(&batches, end))))
}

fn read(record: usize) -> Work {
    let (batches, end) = input(record);
    let (file, groups) = write(&batches, end);
    Box::new(move || {
        for group in &groups {
            let slice =
                |range: std::ops::Range<u64>| file.slice(range.start as usize..range.end as usize);
            let index = GroupIndex::parse(group, &slice(group.index_range())).expect("sound");
            let mut fetched = Fetched::default();
            fetched.add(group.start, slice(group.range()));
            let batches = Read::all(group, &index).batches(&fetched, Codec::None);
            black_box(batches.expect("sound"));
        }
    })
}

//! Writes a small Iceberg table into a directory, for table engines to read:
//! `cargo run -p frazil-table --example write_table -- DIRECTORY`. Prints the metadata's path.
//!
//! Three snapshots: two that append a file of a day each, one that replaces both files by one of the
//! same rows, which is in no partition then.
#![expect(clippy::disallowed_methods, reason = "a tool that writes files")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use frazil_core::batch::{BatchBuilder, Codec};
use frazil_core::{Offset, TopicId};
use frazil_table::iceberg::{
    Commit, CommitError, Committed, DataFile, PartitionBy, TableMetadata, decode_list,
    decode_manifest,
};
use frazil_table::{Fetched, GroupIndex, GroupRef, ObjectId, Read, Writer, WriterConfig, Written};

const TOPIC: TopicId = TopicId::new(uuid::Uuid::from_u128(0x11));
const RECORDS: u32 = 2500;
const DAY_MS: i64 = 86_400_000;

/// The objects of the table lie where their locations say.
fn put(location: &str, bytes: &[u8]) {
    let path = PathBuf::from(location.strip_prefix("file://").expect("a file"));
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    std::fs::write(path, bytes).expect("written");
}

fn get(location: &str) -> Vec<u8> {
    std::fs::read(location.strip_prefix("file://").expect("a file")).expect("it is there")
}

fn write_file(location: &str, written: Written) -> (DataFile, Vec<GroupRef>, Bytes) {
    let bytes = Bytes::from(written.parts.concat());
    put(location, &bytes);
    let file = DataFile::new(
        location.to_owned(),
        written.bytes,
        PartitionBy::Day,
        &written.groups,
    );
    (file, written.groups, bytes)
}

/// Two partitions with records from offset `base` on.
fn convert(id: ObjectId, base: Offset) -> Written {
    let mut writer = Writer::new(id, WriterConfig::default()).expect("a level that exists");
    for partition in 0..2 {
        let mut batch = BatchBuilder::new().codec(Codec::Lz4);
        for record in 0..RECORDS {
            let offset = base + record;
            let value = format!(r#"{{"partition":{partition},"offset":{offset}}}"#);
            let time = 1_700_000_000_000 + DAY_MS * (base.0 / i64::from(RECORDS)) + offset.0;
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
            batch.push(time, Some(b"key"), Some(value.as_bytes()), headers);
        }
        writer.begin(partition, base);
        writer
            .push_batch(base, &batch.build())
            .expect("a sound batch");
        writer.end(base + RECORDS).expect("in memory");
    }
    writer.finish()
}

/// The rows of several files as one.
fn merge(id: ObjectId, files: &[(Vec<GroupRef>, Bytes)]) -> Written {
    let mut writer = Writer::new(id, WriterConfig::default()).expect("a level that exists");
    for partition in 0..2 {
        writer.begin(partition, Offset(0));
        for (groups, bytes) in files {
            for group in groups.iter().filter(|group| group.partition == partition) {
                let range = group.range();
                let whole = bytes.slice(range.start as usize..range.end as usize);
                let index = GroupIndex::parse(group, &whole[..group.index_length as usize]);
                let index = index.expect("sound");
                let mut fetched = Fetched::default();
                fetched.add(group.start, whole.clone());
                Read::all(group, &index)
                    .rows(&fetched, |record| writer.push(record))
                    .expect("sound");
            }
        }
        writer.end(Offset(0) + 2 * RECORDS).expect("in memory");
    }
    writer.finish()
}

fn commit(
    table: &TableMetadata,
    add: &DataFile,
    remove: &BTreeSet<String>,
    claim: u64,
) -> Committed {
    let list = table
        .snapshots
        .last()
        .map(|snapshot| get(&snapshot.manifest_list));
    let manifests = list.map_or(Vec::new(), |list| decode_list(&list).expect("ours"));
    let mut read = BTreeMap::new();
    loop {
        let manifests = manifests
            .iter()
            .map(|file| (file.clone(), read.get(&file.path).cloned()));
        let commit = Commit {
            table,
            manifests: manifests.collect(),
            add: vec![add.clone()],
            remove: remove.clone(),
            summary: BTreeMap::new(),
            snapshot: claim as i64,
            now_ms: 1_700_000_000_000 + claim as i64,
            next: ObjectId::new(claim, 0),
        };
        match commit.finish() {
            Ok(committed) => return committed,
            Err(CommitError::Need(paths)) => {
                for path in paths {
                    let entries = decode_manifest(&get(&path)).expect("ours");
                    read.insert(path, entries);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn main() {
    let directory = std::env::args().nth(1).expect("a directory");
    let directory = std::path::absolute(Path::new(&directory)).expect("a path");
    let root = format!("file://{}", directory.display());
    let location = format!("{root}/tables/{TOPIC}");
    let mut table = TableMetadata::new(TOPIC.to_string(), location, 1_700_000_000_000);
    table.set_partition_by(PartitionBy::Day);
    let mut sources = Vec::new();
    let mut paths = BTreeSet::new();
    for claim in 1..=3u64 {
        let id = ObjectId::new(claim, 0);
        let (written, remove) = match claim {
            1 | 2 => (
                convert(id, Offset(0) + (claim as u32 - 1) * RECORDS),
                BTreeSet::new(),
            ),
            _ => (merge(id, &sources), paths.clone()),
        };
        let path = format!("{root}/{}", id.data_key(TOPIC));
        let (file, groups, bytes) = write_file(&path, written);
        sources.push((groups, bytes));
        paths.insert(path);
        let committed = commit(&table, &file, &remove, claim);
        for (location, bytes) in &committed.objects {
            put(location, bytes);
        }
        let (metadata, _) = committed.objects.last().expect("the metadata");
        println!("{metadata}");
        table = committed.table;
    }
}

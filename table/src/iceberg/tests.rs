use std::collections::{BTreeMap, BTreeSet};

use frazil_core::Offset;
use frazil_core::env::testing::{check_golden, golden};
use proptest::prelude::*;

use super::*;

const LOCATION: &str = "file:///warehouse/topic";

fn table() -> TableMetadata {
    let uuid = "00000000-0000-0000-0000-000000000011".to_owned();
    TableMetadata::new(uuid, LOCATION.to_owned(), 1_700_000_000_000)
}

fn file(number: u64) -> DataFile {
    file_with(number, PartitionBy::None, i64::MAX)
}

/// A file of the day 2023-11-14 or, if `max_timestamp` says so, of others too.
fn file_with(number: u64, by: PartitionBy, max_timestamp: i64) -> DataFile {
    let group = |partition, base| GroupRef {
        base: Offset(base),
        end: Offset(base + 10),
        file: ObjectId::new(1, number),
        partition,
        start: 4 + base as u64,
        length: 1000,
        index_length: 100,
        index_crc: 0,
        records: 10,
        min_timestamp: 1_700_000_000_000 + base,
        max_timestamp,
        codec: None,
    };
    let empty = GroupRef {
        records: 0,
        length: 0,
        index_length: 0,
        ..group(0, 0)
    };
    let groups = [empty, group(1, 100), group(2, 50)];
    let path = format!("{LOCATION}/data/{number}.parquet");
    DataFile::new(path, 5000, by, &groups)
}

const TIME: i64 = 1_700_000_000_200;
const DAY_MS: i64 = 86_400_000;

/// A file whose rows are all of the `day`th day after 2023-11-14, or all without a time, or of
/// several days.
fn file_of(number: u64, day: Option<i32>) -> DataFile {
    let mut file = file_with(number, PartitionBy::Day, TIME);
    let ms = day.map_or(i64::MAX, |day| TIME + i64::from(day) * DAY_MS);
    file.partition = Partition::of(PartitionBy::Day, ms);
    file
}

/// A table and the bucket it is in.
struct World {
    table: TableMetadata,
    objects: BTreeMap<String, Bytes>,
    files: BTreeMap<String, DataFile>,
    claim: u64,
}

impl World {
    fn new() -> Self {
        Self {
            table: table(),
            objects: BTreeMap::new(),
            files: BTreeMap::new(),
            claim: 0,
        }
    }

    fn manifests(&self) -> Vec<ManifestFile> {
        let Some(snapshot) = self.table.snapshots.last() else {
            return Vec::new();
        };
        decode_list(&self.objects[&snapshot.manifest_list]).unwrap()
    }

    fn commit(&mut self, add: Vec<DataFile>, remove: &BTreeSet<String>) -> usize {
        self.claim += 1;
        let mut read: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let committed = loop {
            let commit = Commit {
                table: &self.table,
                manifests: self
                    .manifests()
                    .into_iter()
                    .map(|file| {
                        let entries = read.get(&file.path).cloned();
                        (file, entries)
                    })
                    .collect(),
                add: add.clone(),
                remove: remove.clone(),
                summary: BTreeMap::new(),
                snapshot: self.claim as i64,
                now_ms: 1_700_000_000_000 + self.claim as i64,
                next: ObjectId::new(self.claim, 5),
            };
            match commit.finish() {
                Ok(committed) => break committed,
                Err(CommitError::Need(paths)) => {
                    for path in paths {
                        let entries = decode_manifest(&self.objects[&path]).unwrap();
                        read.insert(path, entries);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        };
        let written = committed.objects.len();
        for (path, bytes) in committed.objects {
            assert!(
                self.objects.insert(path, bytes).is_none(),
                "names are fresh"
            );
        }
        let metadata = self
            .objects
            .iter()
            .rfind(|(path, _)| path.ends_with(".json"))
            .unwrap()
            .1;
        assert_eq!(TableMetadata::decode(metadata).unwrap(), committed.table);
        self.table = committed.table;
        self.files.retain(|path, _| !remove.contains(path));
        self.files
            .extend(add.into_iter().map(|file| (file.path.clone(), file)));
        written
    }

    /// What an engine finds: files of entries that are not deleted.
    fn check(&self) {
        let mut found = BTreeMap::new();
        for manifest in self.manifests() {
            let bytes = &self.objects[&manifest.path];
            assert_eq!(bytes.len() as i64, manifest.length);
            let entries = decode_manifest(bytes).unwrap();
            for (at, status) in [Status::Added, Status::Existing, Status::Deleted]
                .iter()
                .enumerate()
            {
                let of = entries.iter().filter(|entry| entry.status == *status);
                assert_eq!(of.clone().count() as i32, manifest.files[at]);
                assert_eq!(
                    of.map(|entry| entry.file.records).sum::<i64>(),
                    manifest.rows[at]
                );
            }
            let by = manifest.partitions.by;
            let files = entries.iter().map(|entry| &entry.file);
            assert_eq!(manifest.partitions, Partitions::new(by, files));
            for entry in entries {
                assert_eq!(entry.file.partition.by(), by, "a manifest has one spec");
                assert!(entry.sequence <= self.table.last_sequence_number);
                if entry.status != Status::Deleted {
                    assert!(entry.sequence >= manifest.min_sequence);
                    let again = found.insert(entry.file.path.clone(), entry.file);
                    assert!(again.is_none(), "a file is in the table once");
                }
            }
        }
        assert_eq!(found, self.files);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_table_holds_what_was_committed(
        commits in prop::collection::vec((0usize..4, 0usize..3, any::<prop::sample::Index>()), 1..40),
        days in prop::collection::vec(prop::option::of(-1i32..3), 1..9),
    ) {
        let mut world = World::new();
        let mut number = 0;
        for (add, remove, at) in commits {
            // Of several days, of one day, without a time: side by side.
            let new = |n: u64| match days[n as usize % days.len()] {
                Some(-1) => file(n),
                day => file_of(n, day),
            };
            let files: Vec<_> = (0..add).map(|n| new(number + n as u64)).collect();
            number += add as u64;
            let remove: BTreeSet<_> = match world.files.len() {
                0 => BTreeSet::new(),
                count => world.files.keys().skip(at.index(count)).take(remove).cloned().collect(),
            };
            world.commit(files, &remove);
            world.check();
        }
    }

    #[test]
    fn any_bytes_are_a_manifest_or_not(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for name in [
            "iceberg-manifest-v2.avro",
            "iceberg-manifest-list-v2.avro",
            "iceberg-manifest-v2-day.avro",
            "iceberg-manifest-list-v2-partitions.avro",
        ] {
            let mut bytes = golden(name);
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let entries = decode_manifest(&bytes);
            let manifests = decode_list(&bytes).unwrap_or_default();
            let table = table();
            let commit = Commit {
                table: &table,
                manifests: manifests.into_iter().map(|file| (file, entries.clone())).collect(),
                add: Vec::new(),
                remove: BTreeSet::new(),
                summary: BTreeMap::new(),
            snapshot: 9,
                now_ms: 0,
                next: ObjectId::new(9, 0),
            };
            drop(commit.finish());
            bytes.truncate(cut.index(bytes.len()));
            drop(decode_manifest(&bytes));
            drop(decode_list(&bytes));
        }
    }
}

#[test]
fn appending_writes_little_and_manifests_stay_few() {
    let mut world = World::new();
    for number in 0..200 {
        let written = world.commit(vec![file(number)], &BTreeSet::new());
        assert_eq!(written, 3, "a manifest, a list, the metadata");
        assert!(world.manifests().len() <= SMALL_MANIFESTS + 1);
    }
    world.check();
    assert_eq!(world.table.snapshots.len(), 200);
}

#[test]
fn a_file_that_is_not_there_cannot_be_removed() {
    let commit = Commit {
        table: &table(),
        manifests: Vec::new(),
        add: Vec::new(),
        remove: BTreeSet::from(["x".to_owned()]),
        summary: BTreeMap::new(),
        snapshot: 1,
        now_ms: 0,
        next: ObjectId::new(1, 0),
    };
    let error = commit.finish().unwrap_err();
    assert_eq!(error, CommitError::NoSuchFile("x".to_owned()));
}

#[test]
fn snapshots_are_written_as_ever() {
    let mut world = World::new();
    world.commit(vec![file(1), file(2)], &BTreeSet::new());
    let second = world.files.keys().last().cloned();
    world.commit(vec![file(3)], &second.into_iter().collect());
    let manifests = world.manifests();
    let [manifest] = &manifests[..] else {
        panic!("{manifests:?}");
    };
    check_golden("iceberg-manifest-v2.avro", &world.objects[&manifest.path]);
    check_golden("iceberg-metadata-v2.json", &world.table.encode());
    let entries = decode_manifest(&golden("iceberg-manifest-v2.avro")).unwrap();
    let statuses: Vec<_> = entries.iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [Status::Existing, Status::Deleted, Status::Added]);
    assert_eq!(entries[2].file, file(3));
    assert_eq!(
        decode_list(&golden("iceberg-manifest-list-v2.avro")).unwrap(),
        manifests
    );
    let table = TableMetadata::decode(&golden("iceberg-metadata-v2.json")).unwrap();
    assert_eq!(table, world.table);
}

#[test]
fn partitioned_snapshots_are_written_as_ever() {
    let mut world = World::new();
    world.table.set_partition_by(PartitionBy::Day);
    let several = file_with(4, PartitionBy::Day, TIME + DAY_MS);
    assert_eq!(several.partition, Partition::NONE);
    let files = vec![
        file_of(3, None),
        file_of(2, Some(1)),
        several,
        file_of(1, Some(0)),
    ];
    world.commit(files, &BTreeSet::new());
    world.check();
    let manifests = world.manifests();
    let [whole, days] = &manifests[..] else {
        panic!("{manifests:?}");
    };
    assert_eq!(whole.partitions.by, PartitionBy::None);
    let expected = Partitions {
        by: PartitionBy::Day,
        null: true,
        bounds: Some((19_675, 19_676)),
    };
    assert_eq!(days.partitions, expected);
    let list = &world.table.snapshots[0].manifest_list;
    check_golden("iceberg-manifest-v2-day.avro", &world.objects[&days.path]);
    check_golden(
        "iceberg-manifest-list-v2-partitions.avro",
        &world.objects[list],
    );
    check_golden("iceberg-metadata-v2-day.json", &world.table.encode());
    let table = TableMetadata::decode(&golden("iceberg-metadata-v2-day.json")).unwrap();
    assert_eq!(table, world.table);
    assert_eq!(table.partition_by(), Some(PartitionBy::Day));
}

#[test]
fn the_partitioning_of_a_table_changes_and_what_is_there_stays() {
    let mut world = World::new();
    world.commit(vec![file(0)], &BTreeSet::new());
    let mut number = 0;
    for by in [
        PartitionBy::Day,
        PartitionBy::Year,
        PartitionBy::None,
        PartitionBy::Hour,
        PartitionBy::Day,
    ] {
        number += 1;
        world.table.set_partition_by(by);
        assert_eq!(world.table.partition_by(), Some(by));
        world.commit(vec![file_with(number, by, TIME)], &BTreeSet::new());
        world.check();
    }
    let json: serde_json::Value = serde_json::from_slice(&world.table.encode()).unwrap();
    let specs = json["partition-specs"].as_array().unwrap();
    let ids: Vec<_> = specs.iter().map(|spec| spec["spec-id"].as_i64()).collect();
    assert_eq!(ids, [0, 1, 4, 2].map(Some));
    assert_eq!(json["default-spec-id"], 1);
    assert_eq!(json["last-partition-id"], 1003);
    assert_eq!(world.manifests().len(), 6);
    // Joined, they are one for each spec.
    world.commit(Vec::new(), &BTreeSet::from([file(0).path]));
    world.check();
    assert_eq!(world.manifests().len(), 4);
}

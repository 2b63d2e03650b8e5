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
        max_timestamp: i64::MAX,
    };
    let empty = GroupRef {
        records: 0,
        length: 0,
        index_length: 0,
        ..group(0, 0)
    };
    let groups = [empty, group(1, 100), group(2, 50)];
    DataFile::new(format!("{LOCATION}/data/{number}.parquet"), 5000, &groups)
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
            for entry in entries {
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
    ) {
        let mut world = World::new();
        let mut number = 0;
        for (add, remove, at) in commits {
            let files: Vec<_> = (0..add).map(|n| file(number + n as u64)).collect();
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
        for name in ["iceberg-manifest-v2.avro", "iceberg-manifest-list-v2.avro"] {
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
    assert_eq!(world.table.snapshots.len(), SNAPSHOTS);
}

#[test]
fn a_file_that_is_not_there_cannot_be_removed() {
    let commit = Commit {
        table: &table(),
        manifests: Vec::new(),
        add: Vec::new(),
        remove: BTreeSet::from(["x".to_owned()]),
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
    let snapshot = world.table.snapshots.last().unwrap();
    let manifests = world.manifests();
    let [manifest] = &manifests[..] else {
        panic!("{manifests:?}");
    };
    check_golden("iceberg-manifest-v2.avro", &world.objects[&manifest.path]);
    check_golden(
        "iceberg-manifest-list-v2.avro",
        &world.objects[&snapshot.manifest_list],
    );
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

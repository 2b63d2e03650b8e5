//! The table as engines see it: read, given its next snapshot, written.
//!
//! What is read is named by its absolute location, since engines ask for that; here only the part
//! behind `tables/<topic id>/` is believed, so a store that has moved is still read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::ports::{TableMove, TablePointer};
use frazil_core::topic_config::PartitionBy;
use frazil_core::{Offset, TopicId};
use frazil_table::iceberg::{
    Commit, CommitError, DataFile, Entry, ManifestFile, Status, TableMetadata, decode_list,
    decode_manifest,
};

use super::JobError;
use crate::bucket::Bucket;

/// A table at its newest snapshot.
pub(super) struct Snapshot {
    pub(super) pointer: Option<TablePointer>,
    pub(super) metadata: TableMetadata,
    pub(super) manifests: Vec<ManifestFile>,
}

/// What a snapshot changes.
pub(super) struct Change {
    pub(super) add: Vec<DataFile>,
    pub(super) remove: BTreeSet<String>,
    pub(super) by: PartitionBy,
    /// Offsets of each partition that are in the log's cold part afterwards.
    pub(super) offsets: BTreeMap<i32, (Offset, Offset)>,
    /// What it is called, if that does not follow from what it adds and removes.
    pub(super) operation: Option<&'static str>,
    pub(super) now_ms: i64,
    pub(super) next: ObjectId,
}

/// A snapshot that has been written, and is in force once the quorum takes it.
pub(super) struct Changed {
    pub(super) table: TableMove,
    /// Objects that no snapshot needs any more.
    pub(super) retired: Vec<TableObject>,
}

/// Which object of the topic has this location, if any has.
pub(super) fn object_at(topic: TopicId, location: &str) -> Option<TableObject> {
    let start = location.rfind(&format!("tables/{topic}/"))?;
    let (found, object) = TableObject::parse(&location[start..])?;
    (found == topic).then_some(object)
}

async fn read(bucket: &Bucket, topic: TopicId, location: &str) -> Result<Bytes, JobError> {
    let Some(object) = object_at(topic, location) else {
        return Err(JobError::Object {
            key: location.to_owned(),
            what: "its location",
        });
    };
    Ok(bucket.get(&bucket.table(topic, object)).await?)
}

pub(super) async fn list(
    bucket: &Bucket,
    topic: TopicId,
    location: &str,
) -> Result<Vec<ManifestFile>, JobError> {
    let bytes = read(bucket, topic, location).await?;
    decode_list(&bytes).ok_or_else(|| damaged(location))
}

/// The entries of a manifest.
pub(super) async fn entries(
    bucket: &Bucket,
    topic: TopicId,
    file: &ManifestFile,
) -> Result<Vec<Entry>, JobError> {
    let bytes = read(bucket, topic, &file.path).await?;
    check_entries(&bytes, file.length, file.files).ok_or_else(|| damaged(&file.path))
}

/// The entries of a manifest of this length, if they are as many of each kind as its list says, and
/// no live file is named twice. There is no checksum on them, so names and numbers must do.
pub(super) fn check_entries(bytes: &[u8], length: i64, files: [i32; 3]) -> Option<Vec<Entry>> {
    if bytes.len() as i64 != length {
        return None;
    }
    let entries = decode_manifest(bytes)?;
    let count = |status| {
        entries
            .iter()
            .filter(|entry| entry.status == status)
            .count()
    };
    let counts = [Status::Added, Status::Existing, Status::Deleted].map(count);
    let live = entries
        .iter()
        .filter(|entry| entry.status != Status::Deleted);
    let names: BTreeSet<&String> = live.map(|entry| &entry.file.path).collect();
    let sound = counts.map(|count| count as i32) == files && names.len() == counts[0] + counts[1];
    sound.then_some(entries)
}

/// The metadata that `pointer` names.
pub(super) async fn metadata(
    bucket: &Bucket,
    topic: TopicId,
    pointer: &TablePointer,
) -> Result<TableMetadata, JobError> {
    let path = bucket.table(topic, TableObject::Metadata(pointer.metadata));
    let bytes = bucket.get(&path).await?;
    let wrong = |what| JobError::Object {
        key: path.to_string(),
        what,
    };
    if bytes.len() != pointer.length as usize || crc32c::crc32c(&bytes) != pointer.crc {
        return Err(wrong("its checksum"));
    }
    TableMetadata::decode(&bytes).map_err(|_| wrong("its content"))
}

fn damaged(location: &str) -> JobError {
    JobError::Object {
        key: location.to_owned(),
        what: "its content",
    }
}

impl Snapshot {
    /// Reads the table that `pointer` names; without one it is a new table at `location`.
    pub(super) async fn load(
        bucket: &Bucket,
        topic: TopicId,
        pointer: Option<TablePointer>,
        location: String,
        now_ms: i64,
    ) -> Result<Self, JobError> {
        let Some(named) = pointer else {
            let mut metadata = TableMetadata::new(topic.to_string(), location, now_ms);
            metadata.keep_files();
            return Ok(Self {
                pointer,
                metadata,
                manifests: Vec::new(),
            });
        };
        let metadata = metadata(bucket, topic, &named).await?;
        let manifests = match metadata.snapshots.last() {
            Some(newest) => list(bucket, topic, &newest.manifest_list).await?,
            None => Vec::new(),
        };
        Ok(Self {
            pointer,
            metadata,
            manifests,
        })
    }

    /// The location of an object of the table.
    pub(super) fn path(&self, topic: TopicId, object: TableObject) -> String {
        let key = object.key(topic);
        let inside = key.strip_prefix(&format!("tables/{topic}")).unwrap_or(&key);
        format!("{}{inside}", self.metadata.location)
    }

    /// The live entries of all manifests.
    pub(super) async fn live(
        &self,
        bucket: &Bucket,
        topic: TopicId,
    ) -> Result<Vec<Entry>, JobError> {
        let mut live = Vec::new();
        for file in &self.manifests {
            let entries = entries(bucket, topic, file).await?.into_iter();
            live.extend(entries.filter(|entry| entry.status != Status::Deleted));
        }
        Ok(live)
    }

    /// Writes the next snapshot.
    pub(super) async fn commit(
        mut self,
        bucket: &Bucket,
        topic: TopicId,
        change: Change,
    ) -> Result<Changed, JobError> {
        self.metadata.set_partition_by(change.by);
        let mut read: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let committed = loop {
            let manifests = self.manifests.iter();
            let manifests = manifests.map(|file| (file.clone(), read.get(&file.path).cloned()));
            let commit = Commit {
                table: &self.metadata,
                manifests: manifests.collect(),
                add: change.add.clone(),
                remove: change.remove.clone(),
                summary: summary(&change),
                snapshot: change.next.claim as i64,
                now_ms: change.now_ms,
                next: change.next,
            };
            match commit.finish() {
                Ok(committed) => break committed,
                Err(CommitError::Need(paths)) => {
                    for path in paths {
                        let file = self.manifests.iter().find(|file| file.path == path);
                        let file = file.ok_or_else(|| damaged(&path))?;
                        let entries = entries(bucket, topic, file).await?;
                        read.insert(path, entries);
                    }
                }
                Err(CommitError::NoSuchFile(path)) => return Err(damaged(&path)),
            }
        };
        let mut named = None;
        for (location, bytes) in committed.objects {
            let object = object_at(topic, &location).ok_or_else(|| damaged(&location))?;
            if let TableObject::Metadata(metadata) = object {
                named = Some(TablePointer {
                    metadata,
                    length: bytes.len() as u32,
                    crc: crc32c::crc32c(&bytes),
                });
            }
            bucket
                .put(&bucket.table(topic, object), bytes.into())
                .await?;
        }
        let expected = self.pointer.map(|pointer| pointer.metadata);
        Ok(Changed {
            table: TableMove {
                expected,
                new: named.expect("a commit ends with the metadata"),
            },
            retired: expected.map(TableObject::Metadata).into_iter().collect(),
        })
    }
}

/// Partitions beyond which a snapshot does not say which offsets it has.
const SUMMARY_PARTITIONS: usize = 1000;

/// What a snapshot says of itself: the cold offsets of each partition when it was made, as
/// `partition:base-end`.
fn summary(change: &Change) -> BTreeMap<String, String> {
    let mut summary = BTreeMap::new();
    if change.offsets.len() <= SUMMARY_PARTITIONS {
        let offsets = change.offsets.iter();
        let ranges: Vec<String> = offsets
            .map(|(partition, (base, end))| format!("{partition}:{base}-{end}"))
            .collect();
        summary.insert("frazil.offsets".to_owned(), ranges.join(","));
    }
    let operation = change.operation.iter();
    summary.extend(operation.map(|operation| ("operation".to_owned(), (*operation).to_owned())));
    summary
}

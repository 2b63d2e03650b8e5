//! What makes data files an Iceberg table: metadata, manifest lists, manifests (format version 2).
//!
//! ```text
//! TableMetadata (JSON) ─► snapshot ─► manifest list (Avro) ─► manifests (Avro) ─► data files
//! ```
//!
//! Pure, as the rest of this crate: a [`Commit`] takes what the last snapshot was made of and
//! answers the objects of the next one, the table's metadata last. Nothing points at it before the
//! quorum has taken a command that names it, together with the manifests of the partitions; so
//! Kafka's readers and table engines change over at the same index of the metadata log.
//!
//! Files hold several Kafka partitions, sorted, and bounds and row group statistics find them. A file
//! whose rows are all of one day (or what the topic asks for) is in that [`Partition`], any other is in
//! none, which the spec allows side by side. Sequence numbers are written, never inherited, so an
//! entry means the same in every manifest.
//!
//! Source: Apache Iceberg table spec, version 2.

mod avro;
mod expire;
mod manifest;
mod metadata;
mod partition;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
pub use manifest::{
    DataFile, Entry, ManifestFile, Partitions, Status, decode_list, decode_manifest, encode_list,
    encode_manifest,
};
pub use metadata::{Snapshot, TableMetadata};
pub use partition::{Partition, PartitionBy};

use crate::manifest::GroupRef;
use frazil_core::cold::ObjectId;
use partition::Spec;

/// Snapshots that a table's metadata keeps at most.
pub const SNAPSHOTS: usize = 500;
/// Manifests with fewer files are joined when there are more than this many of them.
const SMALL_MANIFESTS: usize = 16;
/// Files of a manifest that is not joined with others any more.
const LARGE_MANIFEST: i64 = 1000;

/// All partition specs that a table can have, as its metadata writes them, by number.
pub fn partition_specs() -> Vec<serde_json::Value> {
    let mut specs = partition::Spec::ALL;
    specs.sort_by_key(|spec| spec.id);
    specs.map(partition::Spec::json).into()
}

impl DataFile {
    /// The file that holds `groups` and has `bytes` bytes, at `path`. It is in a partition of spec
    /// `by` if all its rows are.
    ///
    /// # Panics
    /// If there are no records: such a file is none.
    pub fn new(path: String, bytes: u64, by: PartitionBy, groups: &[GroupRef]) -> Self {
        let whole = Partition::of_groups(by, groups);
        let groups = groups.iter().filter(|group| group.records > 0);
        let range = |of: fn(&GroupRef) -> (i64, i64)| {
            let all = groups.clone().map(of);
            all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
                .expect("a file has records")
        };
        let partition = range(|group| (group.partition.into(), group.partition.into()));
        let offset = range(|group| (group.base.0, group.end.0 - 1));
        // Times beyond microseconds are null in this column, so the bounds may end there.
        let time = range(|group| {
            (
                group.min_timestamp.saturating_mul(1000),
                group.max_timestamp.saturating_mul(1000),
            )
        });
        let int = |value: i64| (value as i32).to_le_bytes().to_vec();
        let long = |value: i64| value.to_le_bytes().to_vec();
        Self {
            path,
            partition: whole,
            records: groups.clone().map(|group| i64::from(group.records)).sum(),
            bytes: bytes as i64,
            bounds: vec![
                (1, int(partition.0), int(partition.1)),
                (2, long(offset.0), long(offset.1)),
                (3, long(time.0), long(time.1)),
            ],
            split_offsets: groups.map(|group| group.index_range().end as i64).collect(),
        }
    }
}

/// The next snapshot of a table.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The table so far.
    pub table: &'a TableMetadata,
    /// The manifests of its current snapshot, and those entries that have been read.
    pub manifests: Vec<(ManifestFile, Option<Vec<Entry>>)>,
    /// Files to be added.
    pub add: Vec<DataFile>,
    /// Paths of files to be removed.
    pub remove: BTreeSet<String>,
    /// Properties of the new snapshot, beside those that count what it changes. `operation` replaces
    /// what follows from that: `replace` says that the rows stay the same.
    pub summary: BTreeMap<String, String>,
    /// The new snapshot's id: unique in the table, for example the claim.
    pub snapshot: i64,
    /// Milliseconds since the epoch, as the leader told them.
    pub now_ms: i64,
    /// Names what is written.
    pub next: ObjectId,
}

/// The objects of a snapshot.
#[derive(Debug)]
pub struct Committed {
    /// The table now.
    pub table: TableMetadata,
    /// Location and bytes, in the order in which they must be written; the metadata is the last.
    pub objects: Vec<(String, Bytes)>,
    /// Locations of manifests that the new snapshot does not need. Older snapshots may.
    pub replaced: Vec<String>,
    /// The name that the next object of the same claim can have.
    pub next: ObjectId,
}

/// Manifests whose entries must be read first ([`decode_manifest`]), or a file to be removed that is
/// in none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// These are to be read.
    #[error("{} manifests must be read first", .0.len())]
    Need(Vec<String>),
    /// This file is not in the table.
    #[error("{0} is not in the table")]
    NoSuchFile(String),
}

impl Commit<'_> {
    /// Which manifests must be read for this commit: those that hold small numbers of files once
    /// there are many such, and all if files are removed.
    fn needed(&self) -> Vec<String> {
        let small = |manifest: &ManifestFile| manifest.live_files() < LARGE_MANIFEST;
        let count = self
            .manifests
            .iter()
            .filter(|(file, _)| small(file))
            .count();
        let join = count > SMALL_MANIFESTS;
        let needed = self
            .manifests
            .iter()
            .filter(|(file, entries)| {
                entries.is_none() && (!self.remove.is_empty() || join && small(file))
            })
            .map(|(file, _)| file.path.clone());
        needed.collect()
    }

    /// How the list names a manifest of these entries.
    fn manifest_file(
        &self,
        path: String,
        length: usize,
        by: PartitionBy,
        entries: &[Entry],
    ) -> ManifestFile {
        let of = |status| entries.iter().filter(move |entry| entry.status == status);
        let statuses = [Status::Added, Status::Existing, Status::Deleted];
        let live = entries
            .iter()
            .filter(|entry| entry.status != Status::Deleted);
        let sequence = self.table.last_sequence_number.saturating_add(1);
        ManifestFile {
            path,
            length: length as i64,
            sequence,
            min_sequence: live.map(|entry| entry.sequence).min().unwrap_or(sequence),
            snapshot: self.snapshot,
            files: statuses.map(|status| of(status).count() as i32),
            rows: statuses.map(|status| {
                let records = of(status).map(|entry| entry.file.records);
                records.fold(0, i64::saturating_add)
            }),
            partitions: Partitions::new(by, entries.iter().map(|entry| &entry.file)),
        }
    }

    /// The next snapshot.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has been written then.
    pub fn finish(mut self) -> Result<Committed, CommitError> {
        let needed = self.needed();
        if !needed.is_empty() {
            return Err(CommitError::Need(needed));
        }
        let sequence = self.table.last_sequence_number.saturating_add(1);
        let mut missing = self.remove.clone();
        let mut written = Vec::new();
        let mut replaced = Vec::new();
        let mut kept = Vec::new();
        let (mut removed_files, mut removed_rows) = (0, 0);
        // Whatever was read is written anew, without what older snapshots removed.
        let mut entries: Vec<Entry> = Vec::new();
        for (file, read) in std::mem::take(&mut self.manifests) {
            let Some(read) = read else {
                // One that only says what an older snapshot removed is of no more use.
                if file.live_files() > 0 {
                    kept.push(file);
                } else {
                    replaced.push(file.path);
                }
                continue;
            };
            let live: Vec<Entry> = read
                .into_iter()
                .filter(|entry| entry.status != Status::Deleted)
                .collect();
            let touched = live
                .iter()
                .any(|entry| self.remove.contains(&entry.file.path));
            if !touched && file.live_files() >= LARGE_MANIFEST {
                kept.push(file);
                continue;
            }
            replaced.push(file.path);
            entries.extend(live.into_iter().map(|entry| {
                if missing.remove(&entry.file.path) {
                    removed_files += 1;
                    removed_rows = entry.file.records.saturating_add(removed_rows);
                    Entry {
                        status: Status::Deleted,
                        snapshot: self.snapshot,
                        ..entry
                    }
                } else {
                    Entry {
                        status: Status::Existing,
                        ..entry
                    }
                }
            }));
        }
        if let Some(path) = missing.pop_first() {
            return Err(CommitError::NoSuchFile(path));
        }
        let added_rows: i64 = self.add.iter().map(|file| file.records).sum();
        let added_files = self.add.len();
        entries.extend(self.add.drain(..).map(|file| Entry {
            status: Status::Added,
            snapshot: self.snapshot,
            sequence,
            file,
        }));
        let location = self.table.location.clone();
        let mut objects = Vec::new();
        let mut table = self.table.clone();
        // A manifest has one spec, and few partitions of it, so engines read few manifests.
        let partition = |entry: &Entry| entry.file.partition;
        entries.sort_by_key(|entry| (Spec::of(partition(entry).by()).id, partition(entry).value()));
        for entries in entries.chunk_by(|a, b| partition(a).by() == partition(b).by()) {
            let by = partition(&entries[0]).by();
            table.know(by);
            for entries in entries.chunks(2 * LARGE_MANIFEST as usize) {
                let path = format!("{location}/metadata/{}.avro", self.next);
                let bytes = encode_manifest(self.next, by, entries);
                self.next.number += 1;
                written.push(self.manifest_file(path.clone(), bytes.len(), by, entries));
                objects.push((path, bytes.into()));
            }
        }
        kept.extend(written);
        let live_files: i64 = kept.iter().map(ManifestFile::live_files).sum();
        let live_rows = kept
            .iter()
            .fold(0i64, |sum, file| sum.saturating_add(file.live_rows()));
        let list = format!("{location}/metadata/snap-{}.avro", self.next);
        objects.push((
            list.clone(),
            encode_list(self.next, self.snapshot, &kept).into(),
        ));
        let mut summary = metadata::summary(&[
            (
                "operation",
                if removed_files > 0 {
                    "overwrite"
                } else {
                    "append"
                }
                .to_owned(),
            ),
            ("added-data-files", added_files.to_string()),
            ("added-records", added_rows.to_string()),
            ("deleted-data-files", removed_files.to_string()),
            ("deleted-records", removed_rows.to_string()),
            ("total-data-files", live_files.to_string()),
            ("total-records", live_rows.to_string()),
        ]);
        summary.append(&mut self.summary);
        table.push(Snapshot {
            snapshot_id: self.snapshot,
            parent_snapshot_id: table.current_snapshot(),
            sequence_number: sequence,
            timestamp_ms: self.now_ms.max(table.last_updated_ms),
            manifest_list: list,
            summary,
            schema_id: 0,
        });
        objects.push((
            format!("{location}/metadata/{}.metadata.json", self.next),
            table.encode().into(),
        ));
        self.next.number += 1;
        Ok(Committed {
            table,
            objects,
            replaced,
            next: self.next,
        })
    }
}

//! Looks at what is in the bucket, as Kafka's readers and as table engines do.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::batch::RecordRef;
use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::ports::TablePointer;
use frazil_core::{Offset, TopicId, TopicPartition};
use frazil_table::iceberg::{Entry, Status};
use frazil_table::{Fetched, GroupIndex, GroupRef, Read};

use crate::bucket::Bucket;
use crate::freeze::snapshot::{Snapshot, entries, list, object_at};
use crate::freeze::{JobError, manifests};

/// A record: timestamp, key, value, headers.
pub(crate) type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);
/// Records by partition and offset.
pub(crate) type Rows = BTreeMap<(i32, Offset), Row>;

/// A record as it is compared.
pub(crate) fn row(record: &RecordRef<'_>) -> Row {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    (
        record.timestamp,
        owned(record.key),
        owned(record.value),
        record.headers.bytes().to_vec(),
    )
}

/// The rows of a row group.
pub(crate) async fn rows(
    bucket: &Bucket,
    topic: TopicId,
    group: &GroupRef,
) -> Result<Vec<((i32, Offset), Row)>, JobError> {
    if group.length == 0 {
        return Ok(Vec::new());
    }
    let path = bucket.table(topic, TableObject::Data(group.file));
    let bytes = bucket.get_range(&path, group.range()).await?;
    let index = GroupIndex::parse(group, &bytes[..group.index_length as usize])?;
    let mut fetched = Fetched::default();
    fetched.add(group.start, bytes);
    let mut rows = Vec::new();
    Read::all(group, &index).rows(&fetched, |record: &RecordRef<'_>| {
        rows.push(((group.partition, record.offset), row(record)));
        Ok::<(), JobError>(())
    })?;
    Ok(rows)
}

/// What Kafka's readers find below a root.
pub(crate) async fn log(
    bucket: &Bucket,
    partition: &TopicPartition,
    root: &NodeRef,
) -> Result<(Rows, Vec<GroupRef>), JobError> {
    let groups = manifests::groups(bucket, partition, root, root.base..root.end).await?;
    let mut at = root.base;
    let mut found = Rows::new();
    for group in &groups {
        assert_eq!(group.base, at, "the groups tile the root");
        at = group.end;
        for ((of, offset), row) in rows(bucket, partition.topic, group).await? {
            assert!(group.base <= offset && offset < group.end && of == partition.partition);
            found.insert((of, offset), row);
        }
    }
    assert_eq!(at, root.end);
    Ok((found, groups))
}

/// A snapshot as an engine finds it: its data files, and what it says of its offsets.
pub(crate) struct Seen {
    pub(crate) id: i64,
    pub(crate) files: Vec<Entry>,
    pub(crate) offsets: String,
}

/// All snapshots, oldest first.
pub(crate) async fn snapshots(
    bucket: &Bucket,
    topic: TopicId,
    pointer: TablePointer,
) -> Result<Vec<Seen>, JobError> {
    let table = Snapshot::load(bucket, topic, Some(pointer), String::new(), 0).await?;
    let mut seen = Vec::new();
    for snapshot in &table.metadata.snapshots {
        let mut files = Vec::new();
        for file in list(bucket, topic, &snapshot.manifest_list).await? {
            let entries = entries(bucket, topic, &file).await?.into_iter();
            files.extend(entries.filter(|entry| entry.status != Status::Deleted));
        }
        seen.push(Seen {
            id: snapshot.snapshot_id,
            files,
            offsets: snapshot.summary["frazil.offsets"].clone(),
        });
    }
    Ok(seen)
}

/// Everything that the log and the table name. Shares nothing with the search for orphans.
pub(crate) async fn named(
    bucket: &Bucket,
    topic: TopicId,
    roots: &[(TopicPartition, NodeRef)],
    pointer: Option<TablePointer>,
) -> Result<BTreeSet<TableObject>, JobError> {
    let mut named = BTreeSet::new();
    for (at, root) in roots {
        let nodes = manifests::nodes(bucket, at, root).await?.into_iter();
        named.extend(nodes.map(|id| TableObject::Manifest(at.partition, id)));
        let groups = manifests::groups(bucket, at, root, root.base..root.end).await?;
        let groups = groups.iter().filter(|group| group.length > 0);
        named.extend(groups.map(|group| TableObject::Data(group.file)));
    }
    let Some(pointer) = pointer else {
        return Ok(named);
    };
    let object = |location: &str| object_at(topic, location).expect("an object of the topic");
    named.insert(TableObject::Metadata(pointer.metadata));
    let table = Snapshot::load(bucket, topic, Some(pointer), String::new(), 0).await?;
    for snapshot in &table.metadata.snapshots {
        named.insert(object(&snapshot.manifest_list));
        for file in list(bucket, topic, &snapshot.manifest_list).await? {
            named.insert(object(&file.path));
            let entries = entries(bucket, topic, &file).await?.into_iter();
            let live = entries.filter(|entry| entry.status != Status::Deleted);
            named.extend(live.map(|entry| object(&entry.file.path)));
        }
    }
    Ok(named)
}

/// The names of the files of a snapshot; none occurs twice.
pub(crate) fn names(topic: TopicId, seen: &Seen) -> BTreeSet<ObjectId> {
    let mut names = BTreeSet::new();
    for entry in &seen.files {
        let object = object_at(topic, &entry.file.path).expect("an object of the topic");
        assert!(matches!(object, TableObject::Data(_)), "{object:?}");
        assert!(
            names.insert(object.id()),
            "{object:?} is in a snapshot twice"
        );
    }
    names
}

//! Partitions' manifests: read, edited, written.

use std::ops::Range;

use bytes::Bytes;
use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::{Offset, TopicPartition};
use frazil_table::GroupRef;
use frazil_table::manifest::{Edited, Editor, Node};

use super::JobError;
use crate::bucket::Bucket;

/// Reads a manifest.
pub(super) async fn load(
    bucket: &Bucket,
    partition: &TopicPartition,
    reference: &NodeRef,
) -> Result<Node, JobError> {
    let object = TableObject::Manifest(partition.partition, reference.id);
    let path = bucket.table(partition.topic, object);
    let bytes = bucket.get(&path).await?;
    Ok(Node::parse(partition, reference, &bytes)?)
}

/// Adds `groups`, which begin at `base`, to the manifest with this root. If that ends before `base`,
/// everything in it is below the log start: then a new one is begun.
pub(super) async fn append(
    bucket: &Bucket,
    partition: TopicPartition,
    cold: Option<&NodeRef>,
    base: Offset,
    groups: Vec<GroupRef>,
    next: ObjectId,
) -> Result<Edited, JobError> {
    let mut passed = Vec::new();
    let root = match cold {
        Some(cold) if cold.end == base => Some(load(bucket, &partition, cold).await?),
        Some(cold) => {
            passed = nodes(bucket, &partition, cold).await?;
            None
        }
        None => None,
    };
    let mut editor = Editor::new(partition, root, base, next);
    editor.append(groups)?;
    let mut edited = editor.finish();
    edited.dropped.extend(passed);
    Ok(edited)
}

/// The names of a node and of all below it. Only inner nodes are read.
pub(super) async fn nodes(
    bucket: &Bucket,
    partition: &TopicPartition,
    root: &NodeRef,
) -> Result<Vec<ObjectId>, JobError> {
    let mut names = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(next) = left.pop() {
        names.push(next.id);
        if next.level > 0 {
            let node = load(bucket, partition, &next).await?;
            left.extend(node.children().iter().cloned());
        }
    }
    Ok(names)
}

/// What is left to be read of a manifest.
enum Left {
    Node(NodeRef),
    Groups(Vec<GroupRef>),
}

/// The row groups of a partition that hold offsets of `range`, in order, and perhaps some before
/// and after them.
pub(super) async fn groups(
    bucket: &Bucket,
    partition: &TopicPartition,
    root: &NodeRef,
    range: Range<Offset>,
) -> Result<Vec<GroupRef>, JobError> {
    let mut groups = Vec::new();
    let mut left = vec![Left::Node(root.clone())];
    while let Some(next) = left.pop() {
        match next {
            Left::Groups(more) => groups.extend(more),
            Left::Node(next) if next.end <= range.start || range.end <= next.base => {}
            Left::Node(next) => {
                let node = load(bucket, partition, &next).await?;
                // What is below a node comes before what stands in it.
                left.push(Left::Groups(node.groups().to_vec()));
                left.extend(node.children().iter().rev().cloned().map(Left::Node));
            }
        }
    }
    Ok(groups)
}

/// Writes the objects of an edit, the root last.
pub(super) async fn write(
    bucket: &Bucket,
    partition: &TopicPartition,
    objects: Vec<(ObjectId, Bytes)>,
) -> Result<(), JobError> {
    for (id, bytes) in objects {
        let object = TableObject::Manifest(partition.partition, id);
        let path = bucket.table(partition.topic, object);
        bucket.put(&path, bytes.into()).await?;
    }
    Ok(())
}

//! What the roots of a topic lead to: everything that must stay.
//!
//! ```text
//! roots of the partitions' manifests ─► nodes ─► data files
//! pointer ─► metadata ─► a list per snapshot ─► manifests ─► data files
//! ```
//!
//! Everything on the way is read and checked against what its reference says of it; anything that is
//! not as it should be is an error. What a search has read, the next one does not read again, so a
//! search over a store in which nothing has changed fetches nothing.
//!
//! # Why what is remembered may be believed
//! Objects that go are those that nothing names, so the only mistake that could cost something is a
//! name that is missing here.
//!
//! - A name has one content for ever: a claim is had once, its numbers are given out once, and a put
//!   that is repeated says the same. So what an object was found to name, it names as long as it is
//!   there, and what is remembered of it is what a fresh look at sound bytes would tell.
//! - Only what was read whole and found sound is remembered, together with the reference that it was
//!   checked against. Another reference to that name is looked at afresh.
//! - Which objects count is not remembered: each search begins with the roots of that moment, and
//!   walks from there. An object that nothing leads to any more lends its names to nobody.
//! - It is remembered under what the list of the store said of the object before it was read: length,
//!   time and tag. One that was written over since, or about which the list is silent, is read again.
//!   So damage is still noticed, except for bits that turn under the store's own feet; those change
//!   nothing of what is right to delete.
//! - That a named object is there is asked anew each time, by the list.
//!
//! # Memory
//! What the last search has come across, up to [`REMEMBERED`]; what does not fit is read each time.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::sync::Arc;

use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::ports::TablePointer;
use frazil_core::sabotage::{self, Bug};
use frazil_core::{TopicId, TopicPartition};
use frazil_table::iceberg::{Status, decode_list};

use super::snapshot::{check_entries, metadata, object_at};
use super::{Ctx, JobError, manifests};
use crate::bucket::{Bucket, Stamp};

/// Bytes of references and names that are remembered at most, of all topics together.
const REMEMBERED: usize = 32 << 20;

/// What names an object, and what it says of it. Data files are only named.
#[derive(Clone, Debug, PartialEq)]
enum Reference {
    Node(i32, NodeRef),
    Metadata(TablePointer),
    List(ObjectId),
    Files {
        id: ObjectId,
        length: i64,
        files: [i32; 3],
    },
}

impl Reference {
    fn object(&self) -> TableObject {
        match self {
            Self::Node(partition, node) => TableObject::Manifest(*partition, node.id),
            Self::Metadata(pointer) => TableObject::Metadata(pointer.metadata),
            Self::List(id) => TableObject::List(*id),
            Self::Files { id, .. } => TableObject::Files(*id),
        }
    }
}

/// What an object names.
#[derive(Debug, Default)]
struct Names {
    inner: Vec<Reference>,
    data: Vec<ObjectId>,
}

/// An object that has been read.
#[derive(Clone, Debug)]
struct Known {
    reference: Reference,
    stamp: Stamp,
    names: Arc<Names>,
}

impl Known {
    /// Bytes that it takes, about.
    fn bytes(&self) -> usize {
        let inner = self.names.inner.len() * size_of::<Reference>();
        let data = self.names.data.len() * size_of::<ObjectId>();
        size_of::<(TableObject, Self)>() + size_of::<Names>() + inner + data
    }
}

/// What searches remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    topics: BTreeMap<TopicId, BTreeMap<TableObject, Known>>,
    bytes: usize,
}

impl Memory {
    /// Everything that the log and the table of a topic name. `listed` is what the store has,
    /// asked before this.
    pub(super) async fn reach(
        &mut self,
        ctx: &Ctx,
        topic: TopicId,
        listed: &BTreeMap<TableObject, Stamp>,
    ) -> Result<BTreeSet<TableObject>, JobError> {
        let pointer = ctx.tables.table(topic).and_then(|table| table.pointer);
        let mut left: Vec<Reference> = pointer.into_iter().map(Reference::Metadata).collect();
        let logs = ctx.ledger.partitions().into_iter();
        for log in logs.filter(|log| log.partition.topic == topic) {
            let root = ctx.ledger.cold(&log.partition);
            left.extend(root.map(|root| Reference::Node(log.partition.partition, root)));
        }
        let before = self.forget(topic);
        let mut named = BTreeSet::new();
        while let Some(next) = left.pop() {
            let object = next.object();
            if !named.insert(object) && matches!(next, Reference::Files { .. }) {
                // Of several snapshots.
                continue;
            }
            let stamp = listed.get(&object);
            let known = before.get(&object);
            let known =
                known.filter(|known| known.reference == next && stamp == Some(&known.stamp));
            let names = match known {
                Some(known) => Arc::clone(&known.names),
                None => Arc::new(read(&ctx.bucket, topic, &next).await?),
            };
            named.extend(names.data.iter().map(|id| TableObject::Data(*id)));
            left.extend(names.inner.iter().cloned());
            if let Some(stamp) = stamp.cloned() {
                let reference = next;
                self.remember(
                    topic,
                    Known {
                        reference,
                        stamp,
                        names,
                    },
                );
            }
        }
        Ok(named)
    }

    /// Forgets all other topics.
    pub(super) fn keep(&mut self, topics: &BTreeSet<TopicId>) {
        let gone = self.topics.keys().filter(|topic| !topics.contains(topic));
        let gone: Vec<TopicId> = gone.copied().collect();
        for topic in gone {
            self.forget(topic);
        }
    }

    fn forget(&mut self, topic: TopicId) -> BTreeMap<TableObject, Known> {
        let known = self.topics.remove(&topic).unwrap_or_default();
        self.bytes -= known.values().map(Known::bytes).sum::<usize>();
        known
    }

    fn remember(&mut self, topic: TopicId, known: Known) {
        let bytes = known.bytes();
        if self.bytes + bytes > REMEMBERED {
            return;
        }
        let topic = self.topics.entry(topic).or_default();
        let before = topic.insert(known.reference.object(), known);
        self.bytes += bytes;
        self.bytes -= before.map_or(0, |before| before.bytes());
    }
}

/// Reads an object, and checks it.
async fn read(bucket: &Bucket, topic: TopicId, reference: &Reference) -> Result<Names, JobError> {
    let object = reference.object();
    let path = bucket.table(topic, object);
    let damaged = || JobError::Object {
        key: object.key(topic),
        what: "its content",
    };
    let at = |location: &str| {
        object_at(topic, location).ok_or_else(|| JobError::Object {
            key: location.to_owned(),
            what: "its location",
        })
    };
    let mut names = Names::default();
    match reference {
        Reference::Node(partition, node) => {
            let partition = TopicPartition::new(topic, *partition);
            let node = manifests::load(bucket, &partition, node).await?;
            let children = node.children().iter().cloned();
            names.inner = children
                .map(|child| Reference::Node(partition.partition, child))
                .collect();
            let groups = node.groups().iter().filter(|group| group.length > 0);
            names.data = groups.map(|group| group.file).collect();
            // A file has several row groups of a partition.
            names.data.dedup();
        }
        Reference::Metadata(pointer) => {
            let table = metadata(bucket, topic, pointer).await?;
            let forgotten = usize::from(sabotage::on(Bug::OldSnapshotIsForgotten));
            for snapshot in table.snapshots.iter().skip(forgotten) {
                let TableObject::List(id) = at(&snapshot.manifest_list)? else {
                    return Err(damaged());
                };
                names.inner.push(Reference::List(id));
            }
        }
        Reference::List(_) => {
            let bytes = bucket.get(&path).await?;
            for file in decode_list(&bytes).ok_or_else(damaged)? {
                let TableObject::Files(id) = at(&file.path)? else {
                    return Err(damaged());
                };
                names.inner.push(Reference::Files {
                    id,
                    length: file.length,
                    files: file.files,
                });
            }
        }
        Reference::Files { length, files, .. } => {
            let bytes = bucket.get(&path).await?;
            let entries = check_entries(&bytes, *length, *files).ok_or_else(damaged)?;
            for entry in entries
                .iter()
                .filter(|entry| entry.status != Status::Deleted)
            {
                let TableObject::Data(id) = at(&entry.file.path)? else {
                    return Err(damaged());
                };
                names.data.push(id);
            }
        }
    }
    Ok(names)
}

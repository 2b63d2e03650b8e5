//! What a table needs beside conversions: manifests without what is below the log start, a table
//! without what retention took, no snapshots beyond their time.
//!
//! ```text
//! trim      manifests forget what is below the log start                     one replacement
//! table     files that the log no longer has leave the table (or as its own retention says)  ┐ one
//! snapshots replaced long ago leave the metadata; what only they named is retired            ┘ more
//! ```
//!
//! A data file is retired when neither the log's manifests nor a kept snapshot names it. Files that
//! become needless otherwise, such as those that left the table long before the log, are found by the
//! search for orphans, as is everything if this is stopped.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::ports::{ColdMove, Replacement, TableMove, TablePointer};
use frazil_core::sabotage::{self, Bug};
use frazil_core::topic_config::{TableConfig, TableRetention};
use frazil_core::{Offset, Topic, TopicPartition};
use frazil_table::iceberg::{Entry, ManifestFile, SNAPSHOTS, Status};
use frazil_table::manifest::{Editor, Node};

use super::job::Job;
use super::snapshot::{self, Snapshot, object_at};
use super::{Ctx, JobError, manifests};

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Manifests that forgot something.
    pub(super) trimmed: usize,
    /// Files that left the table.
    pub(super) removed: usize,
    /// Snapshots that are gone.
    pub(super) expired: usize,
}

/// The roots of a topic's partitions, and where their logs begin.
type Roots = BTreeMap<i32, (Option<NodeRef>, Offset)>;

/// Looks after a topic's table.
pub(super) async fn run(ctx: &Ctx, topic: &Topic, table: TableConfig) -> Result<Kept, JobError> {
    let logs = ctx.ledger.partitions().into_iter();
    let logs = logs.filter(|log| log.partition.topic == topic.id);
    let roots = logs.map(|log| {
        let root = ctx.ledger.cold(&log.partition);
        (log.partition.partition, (root, log.bounds.log_start))
    });
    let mut keeper = Keeper {
        ctx,
        topic,
        roots: roots.collect(),
        job: None,
        kept: Kept::default(),
    };
    keeper.trim().await?;
    keeper.table(table).await?;
    if let Some(job) = keeper.job {
        job.claim.give_up().await?;
    }
    Ok(keeper.kept)
}

struct Keeper<'a> {
    ctx: &'a Ctx,
    topic: &'a Topic,
    roots: Roots,
    /// Once there is something to do.
    job: Option<Job<'a>>,
    kept: Kept,
}

impl<'a> Keeper<'a> {
    /// The job, under a claim.
    async fn claimed(&mut self) -> Result<&mut Job<'a>, JobError> {
        if self.job.is_none() {
            let claim = self.ctx.claim(self.topic.id).await?;
            self.job = Some(Job::new(self.ctx, self.topic.id, claim));
        }
        Ok(self.job.as_mut().expect("made above"))
    }

    /// Lets the manifests forget what is below the log start.
    async fn trim(&mut self) -> Result<(), JobError> {
        let mut moves = Vec::new();
        let mut retired = Vec::new();
        let roots: Vec<_> = self.roots.clone().into_iter().collect();
        for (partition, (root, log_start)) in roots {
            let Some(root) = root.filter(|root| root.base < log_start) else {
                continue;
            };
            let id = TopicPartition::new(self.topic.id, partition);
            let bucket = &self.ctx.bucket;
            let (new, dropped) = if root.end <= log_start {
                (None, manifests::nodes(bucket, &id, &root).await?)
            } else {
                let node = manifests::load(bucket, &id, &root).await?;
                if !holds_less(&node, log_start) {
                    continue;
                }
                let next = self.claimed().await?.next;
                let mut editor = Editor::new(id, Some(node), root.base, next);
                while let Err(need) = editor.truncate(log_start) {
                    for node in need.0 {
                        editor.load(manifests::load(bucket, &id, &node).await?);
                    }
                }
                let edited = editor.finish();
                self.claimed().await?.next = edited.next;
                // Only inner nodes are taken apart; what is below a dropped leaf is no object.
                manifests::write(bucket, &id, edited.objects).await?;
                (edited.root, edited.dropped)
            };
            retired.extend(
                dropped
                    .into_iter()
                    .map(|id| TableObject::Manifest(partition, id)),
            );
            moves.push(ColdMove {
                partition,
                expected: Some(root.id),
                base: root.end,
                end: root.end,
                root: new.clone(),
            });
            self.roots.insert(partition, (new, log_start));
        }
        if moves.is_empty() {
            return Ok(());
        }
        self.kept.trimmed = moves.len();
        let lease_ms = self.ctx.config.lease_ms();
        let replacement = Replacement {
            moves,
            retired,
            ..self.claimed().await?.claim.nothing(lease_ms)
        };
        Ok(self.ctx.tables.replace(replacement).await??)
    }

    /// Lets the table forget files and snapshots.
    async fn table(&mut self, table: TableConfig) -> Result<(), JobError> {
        let (ctx, topic) = (self.ctx, self.topic.id);
        let Some(pointer) = ctx.tables.table(topic).and_then(|table| table.pointer) else {
            return Ok(());
        };
        let now_ms = ctx.ledger.now_ms();
        let mut snapshot = ctx.load(topic, Some(pointer)).await?;
        let live = snapshot.live(&ctx.bucket, topic).await?;
        let remove = self.leaving(&live, table.retention, now_ms).await?;
        let before_ms = now_ms.saturating_sub(table.snapshot_retention_ms);
        let gone = snapshot.metadata.expire(before_ms, SNAPSHOTS);
        if remove.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut retired = self.only_in(&gone, &snapshot).await?;
        (self.kept.removed, self.kept.expired) = (remove.len(), gone.len());
        let job = self.claimed().await?;
        let moved = if remove.is_empty() {
            job.rewrite(snapshot, pointer, now_ms).await?
        } else {
            let mut change = job.change(
                &snapshot,
                table.partition_by,
                table.partition_by,
                &BTreeMap::new(),
            );
            change.remove = remove;
            change.operation = Some("delete");
            job.commit(snapshot, change).await?.table
        };
        retired.insert(TableObject::Metadata(pointer.metadata));
        let replacement = Replacement {
            table: Some(moved),
            retired: retired.into_iter().collect(),
            ..job.claim.nothing(0)
        };
        ctx.tables.replace(replacement).await??;
        self.job = None;
        Ok(())
    }

    /// The files that leave the table.
    async fn leaving(
        &self,
        live: &[Entry],
        retention: TableRetention,
        now_ms: i64,
    ) -> Result<BTreeSet<String>, JobError> {
        let mut leaving = BTreeSet::new();
        for entry in live {
            let goes = match retention {
                TableRetention::Forever => false,
                TableRetention::Ms(keep) => {
                    let before = now_ms.saturating_sub(keep).saturating_mul(1000);
                    bounds(entry, 3).is_some_and(|(_, largest)| largest < before)
                }
                TableRetention::AsLog => self.may_have_passed(entry) && !self.in_log(entry).await?,
            };
            if goes {
                leaving.insert(entry.file.path.clone());
            }
        }
        Ok(leaving)
    }

    /// Whether the log may no longer have a file of the newest snapshot: its largest offset is that
    /// of one of its partitions, so while all of those begin before it, that one still has it.
    fn may_have_passed(&self, entry: &Entry) -> bool {
        let (Some(partitions), Some(offsets)) = (bounds(entry, 1), bounds(entry, 2)) else {
            return false;
        };
        self.roots.iter().any(|(partition, (root, log_start))| {
            let base = root.as_ref().map_or(*log_start, |root| root.base);
            (partitions.0..=partitions.1).contains(&i64::from(*partition)) && base.0 > offsets.1
        })
    }

    /// Whether the log's manifests name a file.
    async fn in_log(&self, entry: &Entry) -> Result<bool, JobError> {
        let (Some(partitions), Some(offsets), Some(TableObject::Data(file))) = (
            bounds(entry, 1),
            bounds(entry, 2),
            object_at(self.topic.id, &entry.file.path),
        ) else {
            // What is not understood is needed.
            return Ok(true);
        };
        let roots = self.roots.iter();
        let roots = roots.filter(|(partition, _)| {
            (partitions.0..=partitions.1).contains(&i64::from(**partition))
        });
        let range = Offset(offsets.0)..Offset(offsets.1.saturating_add(1));
        for (partition, (root, _)) in roots {
            let Some(root) = root else { continue };
            let id = TopicPartition::new(self.topic.id, *partition);
            let groups = manifests::groups(&self.ctx.bucket, &id, root, range.clone()).await?;
            if groups
                .iter()
                .any(|group| group.file == file && group.length > 0)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What only snapshots that are gone have named.
    async fn only_in(
        &self,
        gone: &[frazil_table::iceberg::Snapshot],
        kept: &Snapshot,
    ) -> Result<BTreeSet<TableObject>, JobError> {
        let (bucket, topic) = (&self.ctx.bucket, self.topic.id);
        let mut retired = BTreeSet::new();
        let mut needed: BTreeMap<String, ManifestFile> = BTreeMap::new();
        for snapshot in &kept.metadata.snapshots {
            let manifests = snapshot::list(bucket, topic, &snapshot.manifest_list).await?;
            needed.extend(manifests.into_iter().map(|file| (file.path.clone(), file)));
        }
        let mut seen = BTreeSet::new();
        let mut files: BTreeMap<ObjectId, Entry> = BTreeMap::new();
        for snapshot in gone {
            let manifests = snapshot::list(bucket, topic, &snapshot.manifest_list).await?;
            retired.extend(object_at(topic, &snapshot.manifest_list));
            for file in manifests {
                if needed.contains_key(&file.path) || !seen.insert(file.path.clone()) {
                    continue;
                }
                retired.extend(object_at(topic, &file.path));
                for entry in snapshot::entries(bucket, topic, &file).await? {
                    if entry.status != Status::Deleted
                        && let Some(TableObject::Data(id)) = object_at(topic, &entry.file.path)
                    {
                        files.insert(id, entry);
                    }
                }
            }
        }
        if !files.is_empty() {
            for file in needed.values() {
                for entry in snapshot::entries(bucket, topic, file).await? {
                    if entry.status != Status::Deleted
                        && let Some(object) = object_at(topic, &entry.file.path)
                    {
                        files.remove(&object.id());
                    }
                }
            }
        }
        for (id, entry) in files {
            if !self.in_log(&entry).await? || sabotage::on(Bug::ExpiredFilesLeaveTheLog) {
                retired.insert(TableObject::Data(id));
            }
        }
        Ok(retired)
    }
}

impl Job<'_> {
    /// Writes metadata that has the same newest snapshot.
    async fn rewrite(
        &mut self,
        snapshot: Snapshot,
        pointer: TablePointer,
        now_ms: i64,
    ) -> Result<TableMove, JobError> {
        let mut metadata = snapshot.metadata;
        metadata.last_updated_ms = now_ms.max(metadata.last_updated_ms);
        let bytes = metadata.encode();
        let new = TablePointer {
            metadata: self.next,
            length: bytes.len() as u32,
            crc: crc32c::crc32c(&bytes),
        };
        let path = self
            .ctx
            .bucket
            .table(self.topic, TableObject::Metadata(self.next));
        self.next.number += 1;
        self.ctx.bucket.put(&path, bytes.into()).await?;
        Ok(TableMove {
            expected: Some(pointer.metadata),
            new,
        })
    }
}

/// Whether forgetting what is below the log start changes a root.
fn holds_less(node: &Node, log_start: Offset) -> bool {
    match (node.children().first(), node.groups().first()) {
        (Some(child), _) if child.level == 0 => child.end <= log_start,
        (Some(child), _) => child.base < log_start,
        (None, Some(group)) => group.end <= log_start,
        (None, None) => false,
    }
}

/// The bounds of a column of integers.
fn bounds(entry: &Entry, field: i32) -> Option<(i64, i64)> {
    let mut all = entry.file.bounds.iter();
    let (_, least, largest) = all.find(|(of, _, _)| *of == field)?;
    let integer = |bytes: &[u8]| match bytes.len() {
        4 => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        _ => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
    };
    Some((integer(least)?, integer(largest)?))
}

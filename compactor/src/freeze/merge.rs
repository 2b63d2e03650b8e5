//! Small files become large ones.
//!
//! Conversions write a file per topic every freshness period, however little there is. Files of one
//! partition of the table and about one size are merged when there are 8 of them, into one
//! that is at least 8 times as large; so every row is written once per tier, four times from
//! files of some kilobytes to the largest.
//!
//! ```text
//! tier   0: up to 512 KiB   1: up to 4 MiB   2: up to 32 MiB   3: half of the largest
//! ```
//!
//! A merge puts new row groups in place of the old ones in the partitions' manifests, and the new file
//! in place of the old ones in the table, by one command. Offsets and rows stay the same. The old files
//! stay as long as a snapshot names them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::ports::{ColdMove, Replacement};
use frazil_core::sabotage::{self, Bug};
use frazil_core::topic_config::TableConfig;
use frazil_core::{Offset, Topic, TopicPartition};
use frazil_table::iceberg::{Entry, Partition};
use frazil_table::manifest::{Editor, ReplaceError};
use frazil_table::{Fetched, GroupIndex, GroupRef, Read, WriterConfig};

use super::cutter::{Cutter, by_partition};
use super::job::Job;
use super::snapshot::object_at;
use super::{Ctx, JobError, manifests};
use crate::blocking::in_background;

/// Files of a tier that are merged at least.
const FANOUT: usize = 8;
/// Files that one merge takes at most.
const FILES: usize = 64;
/// The end of the lowest tier, in bytes.
const LOWEST: u64 = 512 << 10;
/// Files up to this are read whole.
const WHOLE: u64 = 4 << 20;
/// Bytes of row groups between two looks at what else there is to do.
const CHUNK: usize = 16 << 20;

/// A data file that could be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: ObjectId,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) partition: Partition,
    /// First and last partition of Kafka's.
    pub(super) partitions: (i32, i32),
    /// Least and largest offset, of any of them.
    pub(super) offsets: (i64, i64),
}

impl Candidate {
    /// What an entry of the table says, if it is one of ours.
    fn new(topic: frazil_core::TopicId, entry: &Entry) -> Option<Self> {
        let TableObject::Data(id) = object_at(topic, &entry.file.path)? else {
            return None;
        };
        let bounds = |wanted: i32| {
            let mut bounds = entry.file.bounds.iter();
            bounds.find(|(field, _, _)| *field == wanted)
        };
        let int = |bytes: &[u8]| Some(i32::from_le_bytes(bytes.try_into().ok()?));
        let long = |bytes: &[u8]| Some(i64::from_le_bytes(bytes.try_into().ok()?));
        let (partitions, offsets) = (bounds(1)?, bounds(2)?);
        Some(Self {
            id,
            path: entry.file.path.clone(),
            bytes: u64::try_from(entry.file.bytes).ok()?,
            rows: u64::try_from(entry.file.records).ok()?,
            partition: entry.file.partition,
            partitions: (int(&partitions.1)?, int(&partitions.2)?),
            offsets: (long(&offsets.1)?, long(&offsets.2)?),
        })
    }

    fn tier(&self) -> u32 {
        (self.bytes / LOWEST)
            .checked_ilog(FANOUT as u64)
            .map_or(0, |tier| tier + 1)
    }
}

/// Which files to merge into files of about `target` bytes, if any: the oldest of the partition and
/// tier that has most.
pub(super) fn plan(files: Vec<Candidate>, target: u64) -> Vec<Candidate> {
    let mut tiers: BTreeMap<(u8, Option<i32>, u32), Vec<Candidate>> = BTreeMap::new();
    for file in files {
        if file.bytes <= target / 2 {
            let key = (
                file.partition.by() as u8,
                file.partition.value(),
                file.tier(),
            );
            tiers.entry(key).or_default().push(file);
        }
    }
    let Some(mut most) = tiers.into_values().max_by_key(Vec::len) else {
        return Vec::new();
    };
    most.sort_by_key(|file| file.id);
    let mut bytes = 0;
    let fit = most.iter().take_while(|file| {
        bytes += file.bytes;
        bytes <= target
    });
    let fit = fit.count().min(FILES);
    let enough = most.len() >= FANOUT && fit >= 2;
    most.truncate(if enough { fit } else { 0 });
    most
}

/// Row groups that follow each other in one partition.
#[derive(Debug)]
struct Run {
    partition: i32,
    groups: Vec<GroupRef>,
}

/// Merges files of a topic, if there are enough. Answers how many.
pub(super) async fn run(ctx: &Ctx, topic: &Topic, table: TableConfig) -> Result<usize, JobError> {
    let Some(pointer) = ctx.tables.table(topic.id).and_then(|table| table.pointer) else {
        return Ok(0);
    };
    let snapshot = ctx.load(topic.id, Some(pointer)).await?;
    let live = snapshot.live(&ctx.bucket, topic.id).await?;
    let candidates = live
        .iter()
        .filter_map(|entry| Candidate::new(topic.id, entry));
    let candidates: Vec<Candidate> = candidates.collect();
    ctx.metrics.table_files.set(candidates.len() as i64);
    let mut chosen = plan(candidates, ctx.config.merged_bytes());
    if chosen.is_empty() {
        return Ok(0);
    }
    let claim = ctx.claim(topic.id).await?;
    let (roots, mut runs) = find(ctx, topic, &chosen).await?;
    // One whose rows are not all in the log any more stays as it is: the table keeps them.
    let mut rows: BTreeMap<ObjectId, u64> = BTreeMap::new();
    for group in runs.iter().flat_map(|run| &run.groups) {
        *rows.entry(group.file).or_default() += u64::from(group.records);
    }
    let whole = |file: &Candidate| rows.get(&file.id) == Some(&file.rows);
    if !chosen.iter().all(whole) {
        chosen.retain(whole);
        if chosen.len() < 2 {
            claim.give_up().await?;
            return Ok(0);
        }
        runs = find(ctx, topic, &chosen).await?.1;
    }
    let mut job = Job::new(ctx, topic.id, claim);
    let by = chosen[0].partition.by();
    job.merge(&chosen, &runs, by).await?;
    let (moves, mut retired) = job.replace(roots, &runs).await?;
    let mut change = job.change(&snapshot, by, table.partition_by, &moves);
    let stay = usize::from(sabotage::on(Bug::MergedFilesStay));
    let leave = chosen.iter().skip(stay);
    change.remove = leave.map(|file| file.path.clone()).collect();
    change.operation = Some("replace");
    let changed = job.commit(snapshot, change).await?;
    retired.extend(changed.retired);
    let replacement = Replacement {
        moves: moves.into_values().collect(),
        table: Some(changed.table),
        retired,
        ..job.claim.nothing(0)
    };
    ctx.tables.replace(replacement).await??;
    let bytes = job.data.iter().map(|(_, bytes)| bytes).sum();
    ctx.metrics.merged_bytes.inc_by(bytes);
    ctx.metrics.merges.inc();
    // What became no fewer is no reason to look again at once.
    let fewer = job.data.len() < chosen.len();
    Ok(if fewer { chosen.len() } else { 0 })
}

/// The row groups that lie in these files, and the roots of the partitions that have such.
async fn find(
    ctx: &Ctx,
    topic: &Topic,
    files: &[Candidate],
) -> Result<(BTreeMap<i32, NodeRef>, Vec<Run>), JobError> {
    let wanted: BTreeSet<ObjectId> = files.iter().map(|file| file.id).collect();
    let mut roots = BTreeMap::new();
    let mut runs = Vec::new();
    for partition in 0..topic.partitions {
        let within =
            |file: &Candidate| (file.partitions.0..=file.partitions.1).contains(&partition);
        let within: Vec<&Candidate> = files.iter().filter(|file| within(file)).collect();
        let least = within.iter().map(|file| file.offsets.0).min();
        let largest = within.iter().map(|file| file.offsets.1).max();
        let (Some(least), Some(largest)) = (least, largest) else {
            continue;
        };
        let id = TopicPartition::new(topic.id, partition);
        let Some(root) = ctx.ledger.cold(&id) else {
            continue;
        };
        let range = Offset(least)..Offset(largest.saturating_add(1));
        let groups = manifests::groups(&ctx.bucket, &id, &root, range).await?;
        let mut open: Option<Run> = None;
        for group in groups {
            if !wanted.contains(&group.file) {
                runs.extend(open.take());
                continue;
            }
            let run = open.get_or_insert_with(|| Run {
                partition,
                groups: Vec::new(),
            });
            run.groups.push(group);
        }
        runs.extend(open);
        roots.insert(partition, root);
    }
    Ok((roots, runs))
}

impl Job<'_> {
    /// Writes the rows of `runs` into new files.
    async fn merge(
        &mut self,
        files: &[Candidate],
        runs: &[Run],
        by: frazil_core::topic_config::PartitionBy,
    ) -> Result<(), JobError> {
        let target = self.ctx.config.merged_bytes();
        let mut cutter = Cutter::new(self.next, by, WriterConfig::default(), target);
        let mut small: BTreeMap<ObjectId, Bytes> = BTreeMap::new();
        let sizes: BTreeMap<ObjectId, u64> =
            files.iter().map(|file| (file.id, file.bytes)).collect();
        let mut loaded: VecDeque<(GroupRef, Bytes)> = VecDeque::new();
        let mut bytes = 0;
        let groups: Vec<&GroupRef> = runs.iter().flat_map(|run| &run.groups).collect();
        for (at, group) in groups.iter().copied().enumerate() {
            let path = self
                .ctx
                .bucket
                .table(self.topic, TableObject::Data(group.file));
            let range = group.range();
            let part = if group.length == 0 {
                Bytes::new()
            } else if sizes.get(&group.file).is_some_and(|size| *size <= WHOLE) {
                let whole = match small.get(&group.file) {
                    Some(whole) => whole.clone(),
                    None => {
                        let whole = self.ctx.bucket.get(&path).await?;
                        small.insert(group.file, whole.clone());
                        whole
                    }
                };
                if (whole.len() as u64) < range.end {
                    return Err(JobError::Object {
                        key: path.to_string(),
                        what: "its length",
                    });
                }
                whole.slice(range.start as usize..range.end as usize)
            } else {
                self.ctx.bucket.get_range(&path, range).await?
            };
            bytes += part.len();
            loaded.push_back((group.clone(), part));
            let last = at + 1 == groups.len();
            if bytes < CHUNK && !last {
                continue;
            }
            bytes = 0;
            let groups = std::mem::take(&mut loaded);
            cutter = in_background(move || copy(cutter, groups, last)).await??;
            for file in self.take(&mut cutter) {
                self.put(Some(file)).await?;
            }
        }
        Ok(())
    }

    /// Writes the manifests that name the new row groups instead of `runs`.
    async fn replace(
        &mut self,
        roots: BTreeMap<i32, NodeRef>,
        runs: &[Run],
    ) -> Result<(BTreeMap<i32, ColdMove>, Vec<TableObject>), JobError> {
        let mut new = by_partition(&self.files);
        let mut moves = BTreeMap::new();
        let mut retired = Vec::new();
        for (partition, root) in roots {
            let runs: Vec<&Run> = runs
                .iter()
                .filter(|run| run.partition == partition)
                .collect();
            if runs.is_empty() {
                continue;
            }
            let groups = new.remove(&partition).unwrap_or_default();
            let id = TopicPartition::new(self.topic, partition);
            let node = manifests::load(&self.ctx.bucket, &id, &root).await?;
            let mut editor = Editor::new(id, Some(node), root.base, self.next);
            for run in runs {
                let (Some(first), Some(last)) = (run.groups.first(), run.groups.last()) else {
                    continue;
                };
                let range = first.base..last.end;
                let inside = groups
                    .iter()
                    .filter(|group| range.start <= group.base && group.end <= range.end);
                let inside: Vec<GroupRef> = inside.cloned().collect();
                while let Err(error) = editor.replace(range.clone(), inside.clone()) {
                    let need = match error {
                        ReplaceError::Need(need) => need,
                        ReplaceError::Misfit(misfit) => return Err(misfit.into()),
                    };
                    for node in need.0 {
                        editor.load(manifests::load(&self.ctx.bucket, &id, &node).await?);
                    }
                }
            }
            let edited = editor.finish();
            self.next = edited.next;
            manifests::write(&self.ctx.bucket, &id, edited.objects).await?;
            let dropped = edited.dropped.into_iter();
            retired.extend(dropped.map(|id| TableObject::Manifest(partition, id)));
            let change = ColdMove {
                partition,
                expected: Some(root.id),
                base: root.end,
                end: root.end,
                root: edited.root,
            };
            moves.insert(partition, change);
        }
        Ok((moves, retired))
    }
}

/// Puts the rows of row groups into new files.
fn copy(
    mut cutter: Cutter,
    groups: VecDeque<(GroupRef, Bytes)>,
    last: bool,
) -> Result<Cutter, JobError> {
    for (group, bytes) in groups {
        cutter.begin(group.partition, group.base)?;
        cutter.produced = group.codec;
        if group.length > 0 {
            let index = bytes.get(..group.index_length as usize).unwrap_or(&[]);
            let index = GroupIndex::parse(&group, index)?;
            let mut fetched = Fetched::default();
            fetched.add(group.start, bytes);
            let mut next = Offset::ZERO;
            Read::all(&group, &index).rows(&fetched, |record| {
                // The checksums are right; a writer's bug must not become a panic here.
                if record.offset < next.max(group.base) || record.offset >= group.end {
                    return Err(JobError::Object {
                        key: group.file.to_string(),
                        what: "the order of its offsets",
                    });
                }
                next = record.offset + 1;
                cutter.row(group.partition, record)
            })?;
        }
        cutter.reach(group.end)?;
    }
    if last {
        cutter.close()?;
    }
    Ok(cutter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use frazil_core::topic_config::PartitionBy;

    const MIB: u64 = 1 << 20;

    fn file(number: u64, bytes: u64, day: i64) -> Candidate {
        Candidate {
            id: ObjectId::new(number, 0),
            path: String::new(),
            bytes,
            rows: 1,
            partition: Partition::of(PartitionBy::Day, day * 86_400_000),
            partitions: (0, 0),
            offsets: (0, 0),
        }
    }

    fn chosen(files: Vec<Candidate>) -> Vec<u64> {
        let plan = plan(files, 128 * MIB);
        plan.iter().map(|file| file.id.claim).collect()
    }

    #[test]
    fn files_of_one_day_and_size_are_merged_oldest_first() {
        let small = |count: u64, day| (0..count).map(move |n| file(2000 - n, 1000 + n, day));
        assert_eq!(chosen(small(7, 1).collect()), [] as [u64; 0]);
        assert_eq!(chosen(small(8, 1).collect()).len(), 8);
        assert!(chosen(small(8, 1).collect()).is_sorted());
        // Neither other days nor other sizes are counted.
        let mixed = small(7, 1)
            .chain(small(7, 2))
            .chain((0..7).map(|n| file(n, 5 * MIB, 1)));
        assert_eq!(chosen(mixed.collect()), [] as [u64; 0]);
        let mixed = small(7, 1).chain((0..9).map(|n| file(n, 5 * MIB, 1)));
        assert_eq!(chosen(mixed.collect()), (0..9).collect::<Vec<_>>());
        assert_eq!(chosen(small(1000, 1).collect()).len(), FILES);
    }

    #[test]
    fn merges_make_no_file_larger_than_the_largest() {
        let large = (0..20).map(|n| file(n, 40 * MIB, 1));
        assert_eq!(chosen(large.collect()), [0, 1, 2]);
        let done = (0..20).map(|n| file(n, 65 * MIB, 1));
        assert_eq!(chosen(done.collect()), [] as [u64; 0]);
    }

    #[test]
    fn a_row_is_rewritten_a_few_times_at_most() {
        let mut files: Vec<Candidate> = Vec::new();
        let (mut written, mut merged) = (0, 0);
        for number in 0..20_000 {
            files.push(file(number, 40_000, 1));
            written += 40_000;
            loop {
                let plan = plan(files.clone(), 128 * MIB);
                if plan.is_empty() {
                    break;
                }
                files.retain(|file| !plan.contains(file));
                let bytes = plan.iter().map(|file| file.bytes).sum();
                merged += bytes;
                files.push(file(plan[0].id.claim, bytes, 1));
            }
        }
        assert!(files.len() < 40, "{}", files.len());
        assert!(merged < 5 * written, "{merged} of {written}");
    }
}

//! A conversion, from the claim to the replacement.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use frazil_core::cold::{ObjectId, TableObject};
use frazil_core::ports::{ColdMove, Replacement, TablePointer};
use frazil_core::topic_config::{PartitionBy, TableConfig};
use frazil_core::{Offset, Topic, TopicId, TopicPartition};
use frazil_table::iceberg::DataFile;
use frazil_table::{GroupRef, WriterConfig};
use futures_util::future::try_join;
use object_store::PutPayload;

use super::claim::Claim;
use super::cutter::{Cutter, File, Piece, by_partition};
use super::plan::{Input, eligible, rounds, steps};
use super::snapshot::{Change, Changed, Snapshot};
use super::{Ctx, JobError, input, manifests};
use crate::blocking::in_background;

/// Bytes converted between two looks at what else there is to do.
const CHUNK: usize = 16 << 20;
/// Extents that one job looks at, over all partitions.
const EXTENTS: usize = 200_000;

/// What a job has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Bytes of segments that it converted.
    pub(super) bytes: u64,
    /// Whether there is more.
    pub(super) more: bool,
}

/// What can be converted of a topic now.
pub(super) fn inputs(ctx: &Ctx, topic: TopicId) -> Vec<Input> {
    let all = ctx.ledger.partitions();
    let logs: Vec<_> = all
        .into_iter()
        .filter(|log| log.partition.topic == topic)
        .collect();
    let limit = (EXTENTS / logs.len().max(1)).clamp(64, 65_536);
    let found = logs.into_iter().filter_map(|log| {
        let cold = ctx.ledger.cold(&log.partition);
        let end = cold.as_ref().map_or(log.bounds.log_start, |cold| cold.end);
        if end >= log.bounds.last_stable {
            return None;
        }
        let extents = ctx.ledger.oldest_extents(&log.partition, limit);
        eligible(log.partition.partition, cold, log.bounds, &extents)
    });
    found.collect()
}

/// Converts what waits of a topic, up to the size of a job.
pub(super) async fn run(ctx: &Ctx, topic: &Topic, table: TableConfig) -> Result<Done, JobError> {
    let inputs = inputs(ctx, topic.id);
    let (steps, more) = steps(&inputs, ctx.config.job_bytes);
    if steps.is_empty() {
        return Ok(Done::default());
    }
    let claim = ctx.claim(topic.id).await?;
    let mut moves: BTreeMap<i32, ColdMove> = BTreeMap::new();
    let mut bytes = 0;
    for (partition, extent) in steps.iter().flat_map(|step| &step.extents) {
        bytes += u64::from(extent.location.length());
        let cold = inputs.iter().find(|input| input.partition == *partition);
        let expected = cold
            .and_then(|input| input.cold.as_ref())
            .map(|cold| cold.id);
        let change = moves.entry(*partition).or_insert(ColdMove {
            partition: *partition,
            expected,
            base: extent.base,
            end: extent.base,
            root: None,
        });
        change.end = extent.end;
    }
    let mut job = Job::new(ctx, topic.id, claim);
    job.convert(rounds(steps, ctx.config.round_bytes()), table)
        .await?;
    let mut retired = job.append(&inputs, &mut moves).await?;
    let table = match job.data.is_empty() {
        true => None,
        false => {
            let snapshot = job.load().await?;
            let change = job.change(&snapshot, table.partition_by, table.partition_by, &moves);
            let changed = job.commit(snapshot, change).await?;
            retired.extend(changed.retired);
            Some(changed.table)
        }
    };
    let replacement = Replacement {
        moves: moves.into_values().collect(),
        table,
        retired,
        ..job
            .claim
            .nothing(if more { ctx.config.lease_ms() } else { 0 })
    };
    ctx.tables.replace(replacement).await??;
    ctx.metrics.converted_bytes.inc_by(bytes);
    ctx.metrics.converted_rows.inc_by(job.rows);
    Ok(Done { bytes, more })
}

/// What a job has written so far.
pub(super) struct Job<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) topic: TopicId,
    pub(super) claim: Claim,
    /// The row groups of each file.
    pub(super) files: Vec<(ObjectId, Vec<GroupRef>)>,
    /// Files with rows, and their bytes.
    pub(super) data: Vec<(ObjectId, u64)>,
    /// Rows of those.
    rows: u64,
    /// The next name.
    pub(super) next: ObjectId,
}

impl<'a> Job<'a> {
    pub(super) fn new(ctx: &'a Ctx, topic: TopicId, claim: Claim) -> Self {
        let next = ObjectId::new(claim.number, 0);
        Self {
            ctx,
            topic,
            claim,
            files: Vec::new(),
            data: Vec::new(),
            rows: 0,
            next,
        }
    }

    /// Reads and converts the rounds one after the other, and puts the data files.
    async fn convert(
        &mut self,
        rounds: Vec<Vec<super::plan::Step>>,
        table: TableConfig,
    ) -> Result<(), JobError> {
        let file_bytes = self.ctx.config.file_bytes();
        let config = WriterConfig::default();
        let cutter = Cutter::new(self.next, table.partition_by, config, file_bytes);
        let mut work = Work {
            cutter,
            pieces: VecDeque::new(),
        };
        let mut rounds = rounds.into_iter();
        let mut finished: VecDeque<File> = VecDeque::new();
        loop {
            let last = match work.pieces.is_empty() {
                false => false,
                true => match rounds.next() {
                    Some(round) => {
                        work.pieces = input::read(&self.ctx.bucket, &round).await?.into();
                        false
                    }
                    None => true,
                },
            };
            let converted = async { in_background(move || work.step(last)).await? };
            // One file is put while the next one is being made.
            let ((), converted) = try_join(self.put(finished.pop_front()), converted).await?;
            work = converted;
            while let Some(file) = finished.pop_front() {
                self.put(Some(file)).await?;
            }
            for file in self.take(&mut work.cutter) {
                self.rows += file.rows();
                finished.push_back(file);
            }
            if last {
                for file in finished {
                    self.put(Some(file)).await?;
                }
                return Ok(());
            }
        }
    }

    pub(super) async fn put(&self, file: Option<File>) -> Result<(), JobError> {
        let Some(file) = file else { return Ok(()) };
        self.claim.check()?;
        let path = self
            .ctx
            .bucket
            .table(self.topic, TableObject::Data(file.id));
        let payload: PutPayload = file.parts.into_iter().collect();
        self.ctx.bucket.put(&path, payload).await?;
        self.ctx.metrics.written_bytes.inc_by(file.bytes);
        Ok(())
    }

    /// Writes the manifests that name the new row groups, and completes the moves. Answers the
    /// manifests that are no longer needed.
    async fn append(
        &mut self,
        inputs: &[Input],
        moves: &mut BTreeMap<i32, ColdMove>,
    ) -> Result<Vec<TableObject>, JobError> {
        let mut groups = by_partition(&self.files);
        let mut retired = Vec::new();
        for input in inputs {
            let Some(change) = moves.get_mut(&input.partition) else {
                continue;
            };
            let partition = TopicPartition::new(self.topic, input.partition);
            let groups = groups.remove(&input.partition).unwrap_or_default();
            let (bucket, cold) = (&self.ctx.bucket, input.cold.as_ref());
            let edit = manifests::append(bucket, partition, cold, change.base, groups, self.next);
            let edited = edit.await?;
            self.next = edited.next;
            manifests::write(bucket, &partition, edited.objects).await?;
            let dropped = edited.dropped.into_iter();
            retired.extend(dropped.map(|id| TableObject::Manifest(input.partition, id)));
            change.root = edited.root;
        }
        Ok(retired)
    }

    /// Takes what the cutter has finished; those with rows are to be put.
    pub(super) fn take(&mut self, cutter: &mut Cutter) -> Vec<File> {
        self.next = cutter.next();
        let mut with_rows = Vec::new();
        for file in cutter.take_files() {
            self.files.push((file.id, file.groups.clone()));
            if file.rows() > 0 {
                self.data.push((file.id, file.bytes));
                with_rows.push(file);
            }
        }
        with_rows
    }

    /// Reads the table as the state has it now.
    pub(super) async fn load(&self) -> Result<Snapshot, JobError> {
        let pointer = self
            .ctx
            .tables
            .table(self.topic)
            .unwrap_or_default()
            .pointer;
        self.ctx.load(self.topic, pointer).await
    }

    /// The change that adds the job's files, which are partitioned by `by`, to a table that is
    /// partitioned by `default`, when the log has made `moves`.
    pub(super) fn change(
        &self,
        snapshot: &Snapshot,
        by: PartitionBy,
        default: PartitionBy,
        moves: &BTreeMap<i32, ColdMove>,
    ) -> Change {
        let groups: BTreeMap<ObjectId, &Vec<GroupRef>> = self
            .files
            .iter()
            .map(|(id, groups)| (*id, groups))
            .collect();
        let add = self.data.iter().filter_map(|(id, bytes)| {
            let path = snapshot.path(self.topic, TableObject::Data(*id));
            Some(DataFile::new(path, *bytes, by, groups.get(id)?))
        });
        Change {
            add: add.collect(),
            remove: BTreeSet::new(),
            by: default,
            offsets: offsets(self.ctx, self.topic, moves),
            operation: None,
            now_ms: self.ctx.ledger.now_ms(),
            next: self.next,
        }
    }

    pub(super) async fn commit(
        &self,
        snapshot: Snapshot,
        change: Change,
    ) -> Result<Changed, JobError> {
        snapshot.commit(&self.ctx.bucket, self.topic, change).await
    }
}

impl Ctx {
    /// Reads the table that `pointer` names, or begins one.
    pub(super) async fn load(
        &self,
        topic: TopicId,
        pointer: Option<TablePointer>,
    ) -> Result<Snapshot, JobError> {
        let location = format!("{}/tables/{topic}", self.config.location);
        Snapshot::load(&self.bucket, topic, pointer, location, self.ledger.now_ms()).await
    }
}

/// The cold offsets of each partition after `moves`.
fn offsets(
    ctx: &Ctx,
    topic: TopicId,
    moves: &BTreeMap<i32, ColdMove>,
) -> BTreeMap<i32, (Offset, Offset)> {
    let logs = ctx.ledger.partitions().into_iter();
    let logs = logs.filter(|log| log.partition.topic == topic);
    let ranges = logs.filter_map(|log| {
        let partition = log.partition.partition;
        let root = match moves.get(&partition) {
            Some(change) => change.root.clone(),
            None => ctx.ledger.cold(&log.partition),
        };
        root.map(|root| (partition, (root.base, root.end)))
    });
    ranges.collect()
}

/// What is converted off the runtime's threads.
struct Work {
    cutter: Cutter,
    pieces: VecDeque<Piece>,
}

impl Work {
    /// Converts some of the pieces; at the end closes the file.
    fn step(mut self, last: bool) -> Result<Self, JobError> {
        let mut bytes = 0;
        while let Some(piece) = self.pieces.pop_front() {
            self.cutter.push(&piece)?;
            bytes += piece.bytes.len();
            if self.cutter.has_files() || bytes >= CHUNK {
                break;
            }
        }
        if last {
            self.cutter.close()?;
        }
        Ok(self)
    }
}

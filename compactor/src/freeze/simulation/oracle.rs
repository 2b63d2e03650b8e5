//! What must hold of state and store together, looked at after every command and every deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_core::batch::BatchHeader;
use frazil_core::cold::TableObject;
use frazil_core::env::testing::SeededIds;
use frazil_core::ports::{BatchOutcome, ClaimStatus, SegmentStatus};
use frazil_core::{Location, Offset, SegmentId, TopicId, TopicPartition};
use frazil_metadata::command::{Command, Outcome};
use frazil_metadata::simulated::Applied;
use frazil_metadata::state::State;
use frazil_objects::Retries;
use frazil_table::writer;
use futures_util::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::time::Instant;

use super::objects::get;
use crate::bucket::Bucket;
use crate::freeze::JobError;
use crate::freeze::tests::look::{self, Rows};

pub(super) const GRACE: Duration = Duration::from_secs(60);
/// How far apart the leaders' clocks are, which tell the state the time.
const SKEW: Duration = Duration::from_secs(5);

/// What was seen so far.
pub(super) struct Oracle {
    objects: Arc<InMemory>,
    bucket: Bucket,
    /// The topic of which nothing is ever removed.
    kept: TopicId,
    /// What was committed.
    rows: BTreeMap<TopicId, Rows>,
    named: BTreeSet<Path>,
    /// When what was named ceased to be.
    since: BTreeMap<Path, Instant>,
    pub(super) replacements: u64,
    pub(super) deletions: u64,
}

fn now<T>(future: impl Future<Output = Result<T, JobError>>) -> T {
    let done = future
        .now_or_never()
        .expect("what is named is in the store");
    done.expect("what is named is sound")
}

impl Oracle {
    pub(super) fn new(objects: Arc<InMemory>, kept: TopicId) -> Self {
        let retries = Retries::new(Arc::new(SeededIds::new(0)), Default::default());
        Self {
            bucket: Bucket::new(objects.clone(), retries, Path::from("cluster")),
            objects,
            kept,
            rows: BTreeMap::new(),
            named: BTreeSet::new(),
            since: BTreeMap::new(),
            replacements: 0,
            deletions: 0,
        }
    }

    /// After every command.
    pub(super) fn applied(&mut self, (state, envelope, outcome): Applied<'_>) {
        match (&envelope.command, outcome) {
            (Command::Commit(commit), Outcome::Committed(outcome)) => {
                for (append, outcome) in commit.appends.iter().zip(&outcome.appends) {
                    self.appended(append.partition, append.location, &outcome.batches);
                }
            }
            // A lease is renewed, or given up.
            (Command::Replace(nothing), Outcome::Replaced(Ok(())))
                if nothing.moves.is_empty() && nothing.table.is_none() => {}
            (Command::Replace(replacement), Outcome::Replaced(Ok(()))) => {
                self.replacements += 1;
                assert!(self.replacements < 1000, "jobs go on and on");
                state.check().expect("a possible state");
                self.look(state);
                self.judge(state, replacement.topic);
            }
            (Command::Replace(_), Outcome::Invalid(why)) => {
                panic!("a job that makes no sense: {why}")
            }
            (Command::DeleteTopic { .. }, _) => self.look(state),
            _ => {}
        }
    }

    fn appended(&mut self, at: TopicPartition, location: Location, batches: &[BatchOutcome]) {
        let Location::Segment { id, start, length } = location else {
            panic!("{location:?}");
        };
        let object = get(&self.objects, &self.bucket.segment(id)).expect("it was put first");
        let mut rest: Bytes = object.slice(start as usize..(start + length) as usize);
        let rows = self.rows.entry(at.topic).or_default();
        for outcome in batches {
            let header = BatchHeader::parse(&rest).expect("a batch");
            let batch = rest.split_to(header.length as usize);
            // Others are of a topic that is gone.
            let BatchOutcome::Appended(base) = *outcome else {
                continue;
            };
            writer::records(base, &batch, |record| {
                rows.insert((at.partition, record.offset), look::row(record));
                Ok::<(), frazil_table::Error>(())
            })
            .expect("a sound batch");
        }
    }

    /// Notes what is named, all of which must be there, and since when the rest is not.
    fn look(&mut self, state: &State) {
        let mut named = BTreeSet::new();
        for topic in state.topics() {
            let partitions = 0..topic.partitions;
            let partitions = partitions.map(|index| TopicPartition::new(topic.id, index));
            let roots = partitions.filter_map(|at| Some((at, state.cold(&at)?)));
            let roots: Vec<_> = roots.collect();
            let pointer = state.table(topic.id).and_then(|table| table.pointer);
            let objects = now(look::named(&self.bucket, topic.id, &roots, pointer));
            named.extend(
                objects
                    .into_iter()
                    .map(|object| self.bucket.table(topic.id, object)),
            );
        }
        for path in &named {
            assert!(
                get(&self.objects, path).is_some(),
                "{path} is named, and not there"
            );
            assert!(!self.since.contains_key(path), "{path} is named again");
        }
        for path in self.named.difference(&named) {
            self.since.insert(path.clone(), Instant::now());
        }
        self.named = named;
    }

    /// I37 and I38: both kinds of readers find what was committed.
    fn judge(&self, state: &State, topic: TopicId) {
        let empty = Rows::new();
        let committed = self.rows.get(&topic).unwrap_or(&empty);
        let partitions = state.topics().into_iter().find(|found| found.id == topic);
        let partitions = partitions.map_or(0, |topic| topic.partitions);
        let mut in_log = BTreeSet::new();
        for partition in 0..partitions {
            let partition = TopicPartition::new(topic, partition);
            let Some(root) = state.cold(&partition) else {
                continue;
            };
            let (found, groups) = now(look::log(&self.bucket, &partition, &root));
            let range = (partition.partition, root.base)..(partition.partition, root.end);
            let expected: Rows = committed
                .range(range)
                .map(|(at, row)| (*at, row.clone()))
                .collect();
            assert!(
                found == expected,
                "{partition}: cold offsets differ from what was committed"
            );
            let groups = groups.iter().filter(|group| group.records > 0);
            in_log.extend(groups.map(|group| group.file));
        }
        let Some(pointer) = state.table(topic).and_then(|table| table.pointer) else {
            assert!(in_log.is_empty());
            return;
        };
        let snapshots = now(look::snapshots(&self.bucket, topic, pointer));
        let newest = look::names(topic, snapshots.last().expect("one"));
        assert!(
            newest.is_superset(&in_log),
            "rows of the log are not in the table"
        );
        if topic != self.kept {
            return;
        }
        assert_eq!(newest, in_log);
        // The newest, and the one that has been kept longest.
        for seen in [snapshots.first(), snapshots.last()].into_iter().flatten() {
            let names = look::names(topic, seen);
            assert_eq!(names.len(), seen.files.len());
            let rows: i64 = seen.files.iter().map(|entry| entry.file.records).sum();
            let mut expected = 0;
            for range in seen.offsets.split(',').filter(|range| !range.is_empty()) {
                let (partition, range) = range.split_once(':').expect("a partition");
                let (base, end) = range.split_once('-').expect("a range");
                assert_eq!(base, "0", "nothing was removed");
                let partition: i32 = partition.parse().expect("a number");
                let end = Offset(end.parse().expect("a number"));
                expected += committed
                    .range((partition, Offset(0))..(partition, end))
                    .count();
            }
            assert_eq!(rows, expected as i64, "snapshot {}", seen.id);
        }
    }

    /// An object is about to be deleted.
    pub(super) fn deleted(&mut self, state: &State, path: &Path) {
        self.deletions += 1;
        let key = path.as_ref().strip_prefix("cluster/").expect("ours");
        if let Some(id) = SegmentId::from_object_key(path.as_ref()) {
            let status = state.segment(id);
            assert!(
                matches!(status, SegmentStatus::Retired | SegmentStatus::Orphan),
                "{id} is deleted, and is {status:?}"
            );
            return;
        }
        let (topic, object) = TableObject::parse(key).expect("an object of a table");
        assert!(!self.named.contains(path), "{path} is deleted, and named");
        match self.since.get(path) {
            Some(since) => {
                let waited = since.elapsed();
                assert!(waited + SKEW >= GRACE, "{path} is deleted after {waited:?}");
            }
            None => assert_ne!(
                state.claim_status(topic, object.id().claim),
                ClaimStatus::Current,
                "{path} is deleted, and can still be named"
            ),
        }
    }

    /// When everything has come to rest: nothing is left that is not needed.
    pub(super) fn at_rest(&self, state: &State, objects: &[Path]) {
        for path in objects {
            match SegmentId::from_object_key(path.as_ref()) {
                Some(id) => assert_eq!(state.segment(id), SegmentStatus::Live, "{id}"),
                None => assert!(self.named.contains(path), "{path} is left over"),
            }
        }
        assert!(self.named.iter().all(|path| objects.contains(path)));
    }
}

//! A metadata quorum in one lock: assigns offsets, and refuses loudly what no quorum would accept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frazil_core::cold::NodeRef;
use frazil_core::ports::{
    AppendOutcome, BatchInfo, BatchOutcome, BatchRefusal, Bounds, Commit, CommitOutcome, Gateway,
    Gateways, Located, LogIndex, Place, Sequencer, Watch,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Extent, Location, Offset, PortError, PortResult, ProducerId, SegmentId,
    TopicPartition,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use crate::flush::upload::object_path;

/// What happens to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Nothing.
    None,
    /// It is refused before it was sent.
    Unavailable,
    /// It is lost, and nobody can tell.
    Lost,
    /// It is not taken, now or ever.
    Impossible,
    /// It is applied, and the answer is lost.
    Unanswered,
    /// Nobody can tell; it is applied when the next one arrives.
    Late,
}

pub(crate) struct FakeQuorum {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    state: Mutex<State>,
    mishaps: Mutex<VecDeque<Mishap>>,
    late: Mutex<Vec<Commit>>,
    gateways: Mutex<Vec<Gateway>>,
    /// What is known of logs until the next barrier.
    image: Mutex<Option<BTreeMap<TopicPartition, Log>>>,
    pub(crate) latency: Mutex<Duration>,
}

/// What a quorum would agree on.
#[derive(Default)]
pub(crate) struct State {
    last_epoch: BrokerEpoch,
    /// The newest registration of each gateway.
    epochs: BTreeMap<BrokerId, BrokerEpoch>,
    sealed_below: BTreeMap<BrokerEpoch, u64>,
    logs: BTreeMap<TopicPartition, Log>,
    segments: BTreeSet<SegmentId>,
    commits: Vec<Commit>,
}

#[derive(Clone, Default)]
struct Log {
    cold: Option<NodeRef>,
    extents: Vec<Extent>,
    end: Offset,
    producers: BTreeMap<ProducerId, (i32, i32, Offset)>,
}

impl Log {
    fn append(&mut self, batch: &BatchInfo, location: Location, in_run: bool) -> BatchOutcome {
        if let Some(producer) = batch.producer {
            match self.producers.get(&producer.id) {
                Some((last, _, offset)) if *last == producer.base_sequence => {
                    return BatchOutcome::Duplicate(*offset);
                }
                Some((_, next, _)) if *next != producer.base_sequence => {
                    return BatchOutcome::Refused(BatchRefusal::OutOfOrderSequence);
                }
                _ => {}
            }
            let next = producer.base_sequence + batch.records as i32;
            let known = (producer.base_sequence, next, self.end);
            self.producers.insert(producer.id, known);
        }
        let base = self.end;
        self.end = base + batch.records;
        if in_run && let Some(last) = self.extents.last_mut() {
            last.end = self.end;
            last.location = extended(last.location, batch.length);
        } else {
            self.extents.push(Extent {
                base,
                end: self.end,
                max_timestamp: batch.max_timestamp,
                location,
            });
        }
        BatchOutcome::Appended(base)
    }
}

fn part(location: Location, skip: u32, length: u32) -> Location {
    match location {
        Location::Segment { id, start, .. } => Location::Segment {
            id,
            start: start + skip,
            length,
        },
        Location::Wal {
            broker,
            epoch,
            start,
            ..
        } => Location::Wal {
            broker,
            epoch,
            start: start + u64::from(skip),
            length,
        },
        Location::Lost => Location::Lost,
    }
}

fn extended(location: Location, by: u32) -> Location {
    part(location, 0, location.length() + by)
}

impl State {
    /// No registration yet.
    pub(crate) fn new(partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self {
            logs: partitions
                .into_iter()
                .map(|p| (p, Log::default()))
                .collect(),
            ..Self::default()
        }
    }

    /// Registers the gateway anew, fencing its earlier registration.
    pub(crate) fn register(&mut self, broker: BrokerId) -> BrokerEpoch {
        self.last_epoch = BrokerEpoch(self.last_epoch.0 + 1);
        self.epochs.insert(broker, self.last_epoch);
        self.last_epoch
    }

    pub(crate) fn wal_extents(&self, broker: BrokerId) -> Vec<(TopicPartition, Extent)> {
        let all = self
            .logs
            .iter()
            .flat_map(|(p, log)| log.extents.iter().map(|extent| (*p, *extent)));
        all.filter(|(_, extent)| {
            matches!(extent.location, Location::Wal { broker: holder, .. } if holder == broker)
        })
        .collect()
    }

    /// Gives up extents of a write-ahead log, as an operator would.
    pub(crate) fn give_up(&mut self, partition: TopicPartition, base: Offset) {
        let log = self.logs.get_mut(&partition).expect("a known log");
        let lost = log.extents.iter_mut().find(|extent| extent.base == base);
        lost.expect("an extent").location = Location::Lost;
    }

    pub(crate) fn apply(&mut self, commit: &Commit) -> PortResult<CommitOutcome> {
        if self.epochs.get(&commit.broker) != Some(&commit.epoch) {
            return Err(PortError::Fenced(format!("epoch {}", commit.epoch)));
        }
        let declared: BTreeSet<SegmentId> = commit.segments.iter().map(|info| info.id).collect();
        assert_eq!(declared.len(), commit.segments.len(), "a segment twice");
        for id in &declared {
            let sealed_below = self.sealed_below.get(&id.epoch).copied();
            assert!(Some(id.number) >= sealed_below, "{id} was sealed");
            assert!(!self.segments.contains(id), "{id} was committed before");
        }
        let mut used = BTreeSet::new();
        let locations = commit.appends.iter().map(|append| append.location);
        for location in locations.chain(commit.moves.iter().map(|moved| moved.to)) {
            if let Location::Segment { id, .. } = location {
                used.insert(id);
            }
        }
        assert_eq!(used, declared, "segments are declared if they are used");
        for moved in &commit.moves {
            self.apply_move(commit.broker, moved);
        }
        let appends = commit.appends.iter().map(|append| {
            let total: u32 = append.batches.iter().map(|batch| batch.length).sum();
            assert_eq!(total, append.location.length());
            let Some(log) = self.logs.get_mut(&append.partition) else {
                return AppendOutcome {
                    log_start: Offset(-1),
                    batches: vec![
                        BatchOutcome::Refused(BatchRefusal::UnknownPartition);
                        append.batches.len()
                    ],
                };
            };
            let (mut skip, mut in_run) = (0, false);
            let batches = append.batches.iter().map(|batch| {
                let location = part(append.location, skip, batch.length);
                skip += batch.length;
                let outcome = log.append(batch, location, in_run);
                in_run = matches!(outcome, BatchOutcome::Appended(_));
                outcome
            });
            AppendOutcome {
                batches: batches.collect(),
                log_start: Offset::ZERO,
            }
        });
        let appends = appends.collect();
        self.segments.extend(declared);
        let sealed_below = self.sealed_below.entry(commit.epoch).or_default();
        *sealed_below = commit.sealed_below.max(*sealed_below);
        self.commits.push(commit.clone());
        Ok(CommitOutcome { appends })
    }

    fn apply_move(&mut self, broker: BrokerId, moved: &frazil_core::ports::Move) {
        let log = self.logs.get_mut(&moved.partition).expect("a known log");
        let range = moved.base..moved.end;
        let inside = log.extents.iter_mut().filter(|e| range.contains(&e.base));
        let (mut next, mut skip) = (moved.base, 0);
        for extent in inside {
            assert_eq!(extent.base, next, "a move of whole extents: {moved:?}");
            assert!(
                matches!(extent.location, Location::Wal { broker: holder, .. } if holder == broker),
                "{extent:?} is not in the log"
            );
            let length = extent.location.length();
            extent.location = part(moved.to, skip, length);
            (next, skip) = (extent.end, skip + length);
        }
        assert_eq!(next, moved.end, "a move of whole extents: {moved:?}");
        assert_eq!(skip, moved.to.length(), "{moved:?}");
    }
}

impl FakeQuorum {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Self {
        Self {
            store,
            prefix,
            state: Mutex::new(State::new(partitions)),
            mishaps: Mutex::default(),
            late: Mutex::default(),
            gateways: Mutex::default(),
            image: Mutex::default(),
            latency: Mutex::new(Duration::from_millis(1)),
        }
    }

    pub(crate) fn register(&self, broker: BrokerId) -> BrokerEpoch {
        self.state.lock().register(broker)
    }

    /// Has a gateway be found by the others, in place of what it was before.
    pub(crate) fn announce(&self, gateway: Gateway) {
        let mut gateways = self.gateways.lock();
        gateways.retain(|known| known.id != gateway.id);
        gateways.push(gateway);
        gateways.sort_by_key(|gateway| gateway.id);
    }

    pub(crate) fn give_up(&self, partition: TopicPartition, base: Offset) {
        self.state.lock().give_up(partition, base);
    }

    pub(crate) fn cold(&self, partition: TopicPartition) -> Option<NodeRef> {
        self.state.lock().logs[&partition].cold.clone()
    }

    /// Puts `root` in place of the one before and of the extents that it ends behind.
    pub(crate) fn replace(&self, partition: TopicPartition, root: NodeRef) {
        let mut state = self.state.lock();
        let log = state.logs.get_mut(&partition).expect("a known log");
        log.extents.retain(|extent| extent.end > root.end);
        let first = log.extents.first().map_or(log.end, |extent| extent.base);
        assert_eq!(first, root.end, "whole extents become cold");
        log.cold = Some(root);
    }

    /// Shows logs as they are now until somebody asks for the newest state.
    pub(crate) fn grow_old(&self) {
        *self.image.lock() = Some(self.state.lock().logs.clone());
    }

    pub(crate) fn happen(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.mishaps.lock().extend(mishaps);
    }

    pub(crate) fn commits(&self) -> Vec<Commit> {
        self.state.lock().commits.clone()
    }

    pub(crate) fn end(&self, partition: TopicPartition) -> Offset {
        self.state.lock().logs[&partition].end
    }

    pub(crate) fn extents(&self, partition: TopicPartition) -> Vec<Extent> {
        self.state.lock().logs[&partition].extents.clone()
    }

    pub(crate) fn is_sealed(&self, number: u64) -> bool {
        let state = self.state.lock();
        state
            .sealed_below
            .get(&state.last_epoch)
            .is_some_and(|below| number < *below)
    }
}

#[async_trait]
impl Sequencer for FakeQuorum {
    async fn commit(&self, commit: Commit) -> PortResult<CommitOutcome> {
        let latency = *self.latency.lock();
        tokio::time::sleep(latency).await;
        let mishap = self.mishaps.lock().pop_front().unwrap_or(Mishap::None);
        let unknown = || Err(PortError::Indeterminate("the answer is lost".into()));
        match mishap {
            Mishap::Unavailable => return Err(PortError::Unavailable("no leader".into())),
            Mishap::Lost => return unknown(),
            Mishap::Impossible => return Err(PortError::Impossible("not like this".into())),
            Mishap::None | Mishap::Unanswered | Mishap::Late => {}
        }
        for info in &commit.segments {
            // What is committed is in the store, whole.
            let path = object_path(&self.prefix, info.id);
            let there = self.store.head(&path).await;
            assert_eq!(there.expect("a committed segment exists").size, info.bytes);
        }
        if mishap == Mishap::Late {
            self.late.lock().push(commit);
            return unknown();
        }
        for late in self.late.lock().drain(..) {
            // Fenced or not, nobody hears of it.
            drop(self.state.lock().apply(&late));
        }
        let outcome = self.state.lock().apply(&commit)?;
        if mishap == Mishap::Unanswered {
            return unknown();
        }
        tokio::time::sleep(latency).await;
        Ok(outcome)
    }
}

impl Gateways for FakeQuorum {
    fn gateways(&self) -> Vec<Gateway> {
        self.gateways.lock().clone()
    }
}

struct NoWatch;

#[async_trait]
impl Watch for NoWatch {
    async fn changed(&mut self) {}
}

#[async_trait]
impl LogIndex for FakeQuorum {
    fn bounds(&self, partition: &TopicPartition) -> Option<Bounds> {
        let state = self.state.lock();
        let log = state.logs.get(partition)?;
        Some(Bounds {
            log_start: Offset::ZERO,
            last_stable: log.end,
            high_watermark: log.end,
        })
    }

    fn locate(&self, partition: &TopicPartition, from: Offset, max_bytes: u64) -> Located {
        let (state, image) = (self.state.lock(), self.image.lock());
        let logs = image.as_ref().unwrap_or(&state.logs);
        let Some(log) = logs.get(partition) else {
            return Located::default();
        };
        let mut bytes = 0;
        let extents = log.extents.iter().skip_while(|extent| extent.end <= from);
        let extents = extents.take_while(|extent| {
            let more = bytes < max_bytes;
            bytes += u64::from(extent.location.length());
            more
        });
        Located {
            cold: log.cold.clone().filter(|root| from < root.end),
            extents: extents.copied().collect(),
        }
    }

    fn locate_time(&self, partition: &TopicPartition, from: Offset, _: i64) -> Option<Place> {
        let Located { cold, mut extents } = self.locate(partition, from, 1);
        cold.map(Place::Cold)
            .or_else(|| extents.pop().map(Place::Extent))
    }

    fn locate_max_timestamp(&self, partition: &TopicPartition) -> Option<Place> {
        self.locate_time(partition, Offset::ZERO, 0)
    }

    fn size_bytes(&self, partition: &TopicPartition) -> u64 {
        let extents = self.extents(*partition);
        extents.iter().map(|e| u64::from(e.location.length())).sum()
    }

    fn wal_extents(&self, broker: BrokerId) -> Vec<(TopicPartition, Extent)> {
        self.state.lock().wal_extents(broker)
    }

    fn watch(&self, _: &[TopicPartition]) -> Box<dyn Watch> {
        Box::new(NoWatch)
    }

    async fn barrier(&self) -> PortResult<()> {
        tokio::task::yield_now().await;
        *self.image.lock() = None;
        Ok(())
    }
}

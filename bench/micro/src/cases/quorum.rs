//! The metadata: what a command costs the state, a voter's entries an observer, a reader the image.
//!
//! Whatever is committed is retired again by retention and forgotten by the collector, so that the
//! state is as large after a run as before.

use std::collections::BTreeMap;
use std::hint::black_box;

use frazil_core::ports::{
    Append, BatchInfo, BatchOutcome, Commit, NewTopic, ProducerBatch, SegmentInfo,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, ProducerEpoch, ProducerId, SegmentId, TopicId,
    TopicName, TopicPartition,
};
use frazil_metadata::command::{Command, Envelope, LEVEL, Outcome};
use frazil_metadata::state::State;
use frazil_metadata::{Image, Metrics};
use uuid::Uuid;

use super::{NOW_MS, partition, topic};
use crate::{Case, Work};

/// Records of a batch.
const RECORDS: u32 = 16;
/// Bytes of a batch.
const BATCH: u32 = 16 << 10;
/// Commits that one run applies.
const COMMITS: usize = 16;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, prepare| Case {
        name,
        bytes: None,
        prepare,
    };
    vec![
        case("state/commit to 12 partitions", || applied(12)),
        case("state/commit to 1 000 partitions", || applied(1000)),
        case("state/snapshot of 10 000 partitions", snapshot),
        case("state/restore of 10 000 partitions", restored),
        case("image/follow", followed),
        case("fetch/locate in 100 partitions", || located(100, 200)),
        case("fetch/locate among 20 000 extents", || located(1, 20_000)),
    ]
}

/// A gateway that commits to one topic, and what it needs to know for that.
pub(crate) struct Gateway {
    id: BrokerId,
    epoch: BrokerEpoch,
    collector: u64,
    index: u64,
    segment: u64,
    partitions: i32,
    sequence: i32,
    /// Segments that stay.
    kept: u64,
}

impl Gateway {
    fn envelope(command: Command) -> Envelope {
        Envelope {
            client: Uuid::nil(),
            request: 0,
            done_below: 0,
            time_ms: NOW_MS,
            command,
        }
    }

    fn send(state: &mut State, index: &mut u64, command: Command) -> Outcome {
        *index += 1;
        state.apply(*index, &Self::envelope(command)).0
    }

    /// A new cluster with `topics` topics of `partitions` partitions.
    pub(crate) fn begin(topics: u32, partitions: i32, kept: u64) -> (State, Self) {
        let mut state = State::new();
        let mut index = 0;
        let mut send = |command| Self::send(&mut state, &mut index, command);
        send(Command::InitCluster {
            cluster_id: "micro".to_owned(),
            level: Some(LEVEL),
        });
        for number in 0..topics {
            send(Command::CreateTopic(NewTopic {
                id: topic(number),
                name: TopicName::new(&format!("orders-{number}")).expect("a name"),
                partitions,
                replication_factor: 1,
                config: BTreeMap::new(),
            }));
        }
        let registered = send(Command::RegisterBroker {
            id: None,
            incarnation: Uuid::from_u128(1),
            host: "gateway.example".to_owned(),
            port: 9092,
            rack: None,
            peer: "10.0.0.1:7000".to_owned(),
            lease_ms: 10_000,
            knows: Some(LEVEL),
        });
        let Outcome::Registered { id, epoch } = registered else {
            panic!("{registered:?}");
        };
        let claimed = send(Command::ClaimCollector);
        let Outcome::CollectorClaimed(collector) = claimed else {
            panic!("{claimed:?}");
        };
        let gateway = Self {
            id,
            epoch,
            collector,
            index,
            segment: 0,
            partitions,
            sequence: 0,
            kept,
        };
        (state, gateway)
    }

    /// Only the first `partitions` partitions get batches from now on.
    pub(crate) fn commit_to(&mut self, partitions: i32) {
        self.partitions = partitions;
    }

    /// The topic that is committed to.
    pub(crate) fn topic() -> TopicId {
        topic(0)
    }

    /// The next flush: two batches for each partition.
    pub(crate) fn commit(&mut self) -> Command {
        self.segment += 1;
        let segment = SegmentId::new(self.epoch, self.segment);
        let batch = |n: i32| BatchInfo {
            length: BATCH,
            records: RECORDS,
            max_timestamp: NOW_MS,
            producer: Some(ProducerBatch {
                id: ProducerId(7),
                epoch: ProducerEpoch(0),
                base_sequence: self.sequence + n * RECORDS as i32,
            }),
        };
        let appends = (0..self.partitions).map(|index| Append {
            partition: partition(0, index),
            location: Location::Segment {
                id: segment,
                start: 16 + index as u32 * 2 * BATCH,
                length: 2 * BATCH,
            },
            batches: vec![batch(0), batch(1)],
        });
        let commit = Commit {
            broker: self.id,
            epoch: self.epoch,
            sealed_below: self.segment + 1,
            segments: vec![SegmentInfo {
                id: segment,
                bytes: 32 + self.partitions as u64 * 2 * u64::from(BATCH),
            }],
            appends: appends.collect(),
            moves: vec![],
        };
        self.sequence = (self.sequence + 2 * RECORDS as i32) & i32::MAX;
        Command::Commit(commit)
    }

    /// What retention and the collector do about the oldest segments, after `commits` commits.
    fn retire(&self, commits: u64) -> Vec<Command> {
        let Some(last) = self.segment.checked_sub(self.kept).filter(|last| *last > 0) else {
            return Vec::new();
        };
        let to = Offset(last as i64 * 2 * i64::from(RECORDS));
        let first = last.saturating_sub(commits - 1).max(1);
        let ids = (first..=last).map(|number| SegmentId::new(self.epoch, number));
        vec![
            Command::RaiseLogStarts {
                to: (0..self.partitions)
                    .map(|index| (partition(0, index), to))
                    .collect(),
            },
            Command::ForgetSegments {
                collector: self.collector,
                ids: ids.collect(),
            },
        ]
    }

    /// Commits, and what keeps the state at its size.
    fn round(&mut self, commits: usize) -> Vec<Command> {
        let mut commands: Vec<Command> = (0..commits).map(|_| self.commit()).collect();
        commands.extend(self.retire(commits as u64));
        commands
    }

    pub(crate) fn apply(&mut self, state: &mut State, command: Command) {
        let outcome = Self::send(state, &mut self.index, command);
        if let Outcome::Committed(outcome) = &outcome {
            let first = outcome.appends[0].batches[0];
            assert!(matches!(first, BatchOutcome::Appended(_)), "{first:?}");
        }
        black_box(outcome);
    }
}

/// Commits of two batches for each partition, made and applied.
fn applied(partitions: i32) -> Work {
    let (mut state, mut gateway) = Gateway::begin(1, partitions, 32);
    let mut run = move || {
        for command in gateway.round(COMMITS) {
            gateway.apply(&mut state, command);
        }
    };
    // Until there is as much as is kept.
    (0..3).for_each(|_| run());
    Box::new(run)
}

/// A state with 1 000 topics of ten partitions, and some extents.
fn large() -> State {
    let (mut state, mut gateway) = Gateway::begin(1000, 10, 1000);
    for _ in 0..100 {
        let command = gateway.commit();
        gateway.apply(&mut state, command);
    }
    state
}

fn snapshot() -> Work {
    let state = large();
    Box::new(move || drop(black_box(state.snapshot())))
}

fn restored() -> Work {
    let bytes = large().snapshot();
    Box::new(move || drop(black_box(State::restore(&bytes).expect("a snapshot"))))
}

/// Entries on their way from a voter to an observer: encoded, decoded, applied; whoever watches one of
/// their partitions is woken.
fn followed() -> Work {
    let (state, mut gateway) = Gateway::begin(1, 12, 32);
    let image = Image::new(LEVEL, Metrics::default());
    image.install(state, gateway.index);
    let partitions: Vec<TopicPartition> = (0..12).map(|index| partition(0, index)).collect();
    let watches: Vec<_> = (0..100).map(|_| image.watch(&partitions)).collect();
    let mut run = move || {
        let commands = gateway.round(COMMITS);
        let entries: Vec<(u64, Vec<u8>)> = commands
            .into_iter()
            .map(|command| {
                gateway.index += 1;
                (gateway.index, Gateway::envelope(command).encode())
            })
            .collect();
        // In batches of four, as they arrive under load.
        for some in entries.chunks(4) {
            let decoded: Vec<_> = some
                .iter()
                .map(|(index, bytes)| {
                    let envelope = Envelope::decode(bytes).expect("an envelope");
                    (*index, Some(envelope))
                })
                .collect();
            black_box(image.apply(&decoded));
        }
        black_box(&watches);
    };
    (0..3).for_each(|_| run());
    Box::new(run)
}

/// What a fetch of each partition asks the image: topic, bounds, and where 1 MiB is.
fn located(partitions: i32, segments: u64) -> Work {
    let (mut state, mut gateway) = Gateway::begin(1, partitions, segments);
    for _ in 0..segments {
        let command = gateway.commit();
        gateway.apply(&mut state, command);
    }
    let middle = Offset(segments as i64 * i64::from(RECORDS));
    Box::new(move || {
        for index in 0..partitions {
            let partition = partition(0, index);
            black_box(state.topic_by_id(partition.topic));
            black_box(state.bounds(&partition));
            black_box(state.locate(&partition, middle, 1 << 20));
        }
    })
}

//! Tests of the state as a whole: stories by topic, a model of commits, random commands.

mod brokers;
mod catalog;
mod collection;
mod commit;
mod groups;
mod model;
mod moves;
mod random;
mod restore;
mod sessions;
mod tables;

use std::collections::BTreeMap;

use frazil_core::ports::{
    Append, AppendOutcome, BatchInfo, BatchOutcome, Commit, NewTopic, Place, ProducerBatch,
    SegmentInfo,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, ProducerEpoch, ProducerId, SegmentId, TopicId,
    TopicName, TopicPartition,
};
use uuid::Uuid;

use super::State;
use crate::command::{Command, Envelope, Outcome};
use crate::state::Changes;

/// A state, and what is needed to go on applying commands.
#[derive(Clone, Debug)]
struct World {
    state: State,
    index: u64,
    now_ms: i64,
}

impl World {
    fn new() -> Self {
        Self {
            state: State::new(),
            index: 0,
            now_ms: 1_000,
        }
    }

    /// A world with one gateway and the topics 1 and 2 of two partitions each.
    fn with_gateway() -> (Self, Gateway) {
        let mut world = Self::new();
        world.apply(Command::CreateTopic(new_topic(1, "one", 2)));
        world.apply(Command::CreateTopic(new_topic(2, "two", 2)));
        let gateway = world.register(None, 1);
        (world, gateway)
    }

    /// Applies an envelope at the next index, and checks the state.
    fn send(&mut self, envelope: &Envelope) -> (Outcome, Changes) {
        self.index += 1;
        let applied = self.state.apply(self.index, envelope);
        self.state.check().expect("consistent");
        applied
    }

    /// Applies a command outside any session.
    fn apply_with_changes(&mut self, command: Command) -> (Outcome, Changes) {
        self.send(&Envelope {
            client: Uuid::nil(),
            request: 0,
            done_below: 0,
            time_ms: self.now_ms,
            command,
        })
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.apply_with_changes(command).0
    }

    fn register(&mut self, id: Option<BrokerId>, incarnation: u128) -> Gateway {
        match self.apply(register(id, incarnation)) {
            Outcome::Registered { id, epoch } => Gateway { id, epoch },
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, commit: Commit) -> Vec<AppendOutcome> {
        match self.apply(Command::Commit(commit)) {
            Outcome::Committed(outcome) => outcome.appends,
            other => panic!("{other:?}"),
        }
    }

    /// Commits one run of batches, and answers their outcomes.
    fn append(
        &mut self,
        gateway: Gateway,
        partition: TopicPartition,
        location: Location,
        batches: &[BatchInfo],
    ) -> Vec<BatchOutcome> {
        let commit = gateway.commit(vec![Append {
            partition,
            location,
            batches: batches.to_vec(),
        }]);
        self.commit(commit).remove(0).batches
    }

    /// The extents of a partition as `base..end@location`, for comparison.
    fn extents(&self, partition: TopicPartition) -> Vec<String> {
        self.state
            .oldest_extents(&partition, usize::MAX)
            .iter()
            .map(|extent| {
                let place = match extent.location {
                    Location::Segment { id, start, length } => {
                        format!("segment {}: {start}+{length}", id.number)
                    }
                    Location::Wal { start, length, .. } => format!("wal: {start}+{length}"),
                    Location::Lost => "lost".to_owned(),
                };
                format!("{}..{} {place}", extent.base, extent.end)
            })
            .collect()
    }

    fn bounds(&self, partition: TopicPartition) -> (i64, i64) {
        let bounds = self.state.bounds(&partition).expect("a partition");
        assert_eq!(bounds.last_stable, bounds.high_watermark);
        (bounds.log_start.0, bounds.high_watermark.0)
    }

    fn delete_records(&mut self, partition: TopicPartition, to: i64) -> Outcome {
        self.apply(Command::DeleteRecords {
            partition,
            to: Some(Offset(to)),
        })
    }
}

/// A gateway's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gateway {
    id: BrokerId,
    epoch: BrokerEpoch,
}

impl Gateway {
    fn segment(self, number: u64) -> SegmentId {
        SegmentId::new(self.epoch, number)
    }

    /// Bytes of one of its segments.
    fn in_segment(self, number: u64, start: u32, length: u32) -> Location {
        Location::Segment {
            id: self.segment(number),
            start,
            length,
        }
    }

    /// Bytes of its write-ahead log.
    fn in_wal(self, start: u64, length: u32) -> Location {
        Location::Wal {
            broker: self.id,
            epoch: self.epoch,
            start,
            length,
        }
    }

    /// A commit that declares every segment it appends to.
    fn commit(self, appends: Vec<Append>) -> Commit {
        let mut segments: Vec<_> = appends
            .iter()
            .filter_map(|append| match append.location {
                Location::Segment { id, .. } => Some(SegmentInfo { id, bytes: 1_000 }),
                Location::Wal { .. } | Location::Lost => None,
            })
            .collect();
        segments.dedup();
        Commit {
            broker: self.id,
            epoch: self.epoch,
            sealed_below: 0,
            segments,
            appends,
            moves: vec![],
        }
    }
}

fn topic_id(n: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(n))
}

fn partition(topic: u128, index: i32) -> TopicPartition {
    TopicPartition::new(topic_id(topic), index)
}

fn new_topic(n: u128, name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        id: topic_id(n),
        name: TopicName::new(name).expect("a name"),
        partitions,
        replication_factor: 1,
        config: BTreeMap::new(),
    }
}

fn register(id: Option<BrokerId>, incarnation: u128) -> Command {
    Command::RegisterBroker {
        id,
        incarnation: Uuid::from_u128(incarnation),
        host: "gateway.example".to_owned(),
        port: 9092,
        rack: Some("zone-a".to_owned()),
        peer: "10.0.0.1:7000".to_owned(),
        knows: None,
        lease_ms: 10_000,
    }
}

/// A batch of 10 bytes per record without a producer.
fn plain(records: u32) -> BatchInfo {
    BatchInfo {
        length: 10 * records,
        records,
        max_timestamp: 0,
        producer: None,
    }
}

/// A batch of producer 7.
fn sequenced(epoch: i16, base_sequence: i32, records: u32) -> BatchInfo {
    BatchInfo {
        producer: Some(ProducerBatch {
            id: ProducerId(7),
            epoch: ProducerEpoch(epoch),
            base_sequence,
        }),
        ..plain(records)
    }
}

/// Where an extent that was found begins.
fn base(place: Option<Place>) -> Option<i64> {
    match place? {
        Place::Extent(extent) => Some(extent.base.0),
        Place::Cold(root) => panic!("{root:?}"),
    }
}

fn appended(offset: i64) -> BatchOutcome {
    BatchOutcome::Appended(Offset(offset))
}

fn duplicate(offset: i64) -> BatchOutcome {
    BatchOutcome::Duplicate(Offset(offset))
}

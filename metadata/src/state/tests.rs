//! Tests of the state as a whole.

use std::collections::BTreeMap;

use frazil_core::ports::*;
use frazil_core::*;
use uuid::Uuid;

use super::*;

/// A state with one topic of three partitions and one gateway, and what is needed to go on.
#[derive(Clone)]
pub(super) struct World {
    pub(super) state: State,
    pub(super) index: u64,
    pub(super) now_ms: i64,
}

pub(super) fn topic_id(n: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(n))
}

pub(super) fn new_topic(n: u128, name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        id: topic_id(n),
        name: TopicName::new(name).expect("a name"),
        partitions,
        replication_factor: 1,
        config: BTreeMap::new(),
    }
}

pub(super) fn register(id: Option<BrokerId>, incarnation: u128) -> Command {
    Command::RegisterBroker {
        id,
        incarnation: Uuid::from_u128(incarnation),
        host: "gateway.example".to_owned(),
        port: 9092,
        rack: Some("zone-a".to_owned()),
        peer: "10.0.0.1:7000".to_owned(),
        lease_ms: 10_000,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(),
            index: 0,
            now_ms: 1_000,
        }
    }

    /// Applies a command outside any session, at the next index, and checks the state.
    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        self.apply_with_changes(command).0
    }

    pub(super) fn apply_with_changes(&mut self, command: Command) -> (Outcome, Changes) {
        self.index += 1;
        let applied = self.state.apply(
            self.index,
            &Envelope {
                client: Uuid::nil(),
                request: 0,
                done_below: 0,
                time_ms: self.now_ms,
                command,
            },
        );
        self.state.check().expect("consistent");
        applied
    }

    pub(super) fn register(
        &mut self,
        id: Option<BrokerId>,
        incarnation: u128,
    ) -> (BrokerId, BrokerEpoch) {
        match self.apply(register(id, incarnation)) {
            Outcome::Registered { id, epoch } => (id, epoch),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn commit(&mut self, commit: Commit) -> Vec<AppendOutcome> {
        match self.apply(Command::Commit(commit)) {
            Outcome::Committed(outcome) => outcome.appends,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flush_gets_offsets_and_survives_a_snapshot() {
    let mut world = World::new();
    let (broker, epoch) = world.register(None, 1);
    world.apply(Command::CreateTopic(new_topic(1, "a", 1)));
    let partition = TopicPartition::new(topic_id(1), 0);
    let id = SegmentId::new(epoch, 0);
    let batch = BatchInfo {
        length: 100,
        records: 5,
        max_timestamp: 7,
        producer: None,
    };
    let outcome = world.commit(Commit {
        broker,
        epoch,
        sealed_below: 1,
        segments: vec![SegmentInfo { id, bytes: 300 }],
        appends: vec![Append {
            partition,
            location: Location::Segment {
                id,
                start: 8,
                length: 200,
            },
            batches: vec![batch, batch],
        }],
        moves: vec![],
    });
    assert_eq!(
        outcome[0].batches,
        [
            BatchOutcome::Appended(Offset(0)),
            BatchOutcome::Appended(Offset(5))
        ]
    );
    let restored = State::restore(&world.state.snapshot()).expect("restores");
    assert_eq!(restored, world.state);
    assert_eq!(restored.locate(&partition, Offset(7), 1).len(), 1);
}

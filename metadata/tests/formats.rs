//! Golden bytes of commands, outcomes and a snapshot: what was once written is read for ever.
//!
//! Each file of commands or outcomes is a run of `length u32 LE | bytes`. A change that is meant
//! gets a new version and a new file; see `frazil_core::env::testing::check_golden`.

use std::collections::{BTreeMap, BTreeSet};

use frazil_core::cold::{NodeRef, ObjectId, TableObject};
use frazil_core::env::testing::{check_golden, golden};
use frazil_core::group::{CommittedOffset, Coordinator, Group, Member};
use frazil_core::ports::{
    Append, AppendOutcome, BatchInfo, BatchOutcome, BatchRefusal, CatalogRefusal, ColdMove, Commit,
    CommitOutcome, ConfigTarget, GroupClaim, GroupRefusal, Move, NewTopic, ProducerBatch,
    Replacement, SegmentInfo, TableMove, TablePointer, TableRefusal,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, ProducerEpoch, ProducerId, SegmentId, Topic, TopicId,
    TopicName, TopicPartition,
};
use frazil_metadata::command::{Command, Envelope, GatewayRefusal, Outcome};
use frazil_metadata::state::State;
use uuid::Uuid;

const BROKER: BrokerId = BrokerId(1);
/// The index of the story's first registration.
const EPOCH: BrokerEpoch = BrokerEpoch(2);

fn topic_id(n: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(n))
}

fn partition(topic: u128, index: i32) -> TopicPartition {
    TopicPartition::new(topic_id(topic), index)
}

fn segment(number: u64) -> SegmentId {
    SegmentId::new(EPOCH, number)
}

fn in_segment(number: u64, start: u32, length: u32) -> Location {
    Location::Segment {
        id: segment(number),
        start,
        length,
    }
}

fn in_wal(start: u64, length: u32) -> Location {
    Location::Wal {
        broker: BROKER,
        epoch: EPOCH,
        start,
        length,
    }
}

fn settings() -> BTreeMap<String, String> {
    BTreeMap::from([("retention.ms".to_owned(), "60000".to_owned())])
}

fn new_topic(n: u128, name: &str) -> Command {
    Command::CreateTopic(NewTopic {
        id: topic_id(n),
        name: TopicName::new(name).expect("a name"),
        partitions: 2,
        replication_factor: 3,
        config: settings(),
    })
}

fn register(id: Option<BrokerId>, incarnation: u128) -> Command {
    Command::RegisterBroker {
        id,
        incarnation: Uuid::from_u128(incarnation),
        host: "kafka.example".to_owned(),
        port: 9092,
        rack: Some("zone-a".to_owned()),
        peer: "10.0.0.1:7000".to_owned(),
        lease_ms: 10_000,
        knows: None,
    }
}

fn batch(records: u32, base_sequence: Option<i32>) -> BatchInfo {
    BatchInfo {
        length: 100 * records,
        records,
        max_timestamp: 1_700_000_000_000 + i64::from(records),
        producer: base_sequence.map(|base_sequence| ProducerBatch {
            id: ProducerId(0),
            epoch: ProducerEpoch(0),
            base_sequence,
        }),
    }
}

fn append(partition: TopicPartition, location: Location, batches: Vec<BatchInfo>) -> Append {
    Append {
        partition,
        location,
        batches,
    }
}

fn commit(number: u64, appends: Vec<Append>, moves: Vec<Move>) -> Command {
    Command::Commit(Commit {
        broker: BROKER,
        epoch: EPOCH,
        sealed_below: number,
        segments: vec![SegmentInfo {
            id: segment(number),
            bytes: 70_000,
        }],
        appends,
        moves,
    })
}

fn group() -> Group {
    let member = Member {
        instance_id: Some("static".to_owned()),
        client_id: "client".to_owned(),
        client_host: "/10.0.0.9".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocols: vec![("range".to_owned(), vec![0, 1, 2].into())],
        assignment: vec![3, 4, 5].into(),
    };
    Group {
        protocol_type: "consumer".to_owned(),
        generation: 3,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        members: BTreeMap::from([("m-1".to_owned(), member)]),
    }
}

/// The claim that the story's command of that index leads to.
fn claim(group: &str, index: u64) -> GroupClaim {
    GroupClaim {
        group: group.to_owned(),
        coordinator: Coordinator {
            broker: BROKER,
            broker_epoch: EPOCH,
            epoch: index,
        },
    }
}

fn claim_group(group: &str) -> Command {
    Command::ClaimGroup {
        group: group.to_owned(),
        broker: BROKER,
        epoch: EPOCH,
    }
}

fn committed(partition: TopicPartition, offset: i64) -> (TopicPartition, CommittedOffset) {
    let offset = CommittedOffset {
        offset: Offset(offset),
        leader_epoch: 0,
        metadata: "note".to_owned(),
        committed_ms: -1,
    };
    (partition, offset)
}

/// A story in which every command occurs and succeeds. The first has index 1.
fn story() -> Vec<Command> {
    vec![
        Command::InitCluster {
            cluster_id: "q1Sh-9_ISia_zwGINzRvyQ".to_owned(),
            level: None,
        },
        register(None, 0xA1),
        register(Some(BrokerId(7)), 0xB2),
        Command::Heartbeat {
            broker: BROKER,
            epoch: EPOCH,
            lease_ms: 20_000,
        },
        new_topic(0x11, "orders.v1"),
        new_topic(0x22, "doomed"),
        Command::CreatePartitions {
            id: topic_id(0x11),
            partitions: 3,
        },
        Command::AlterConfig {
            target: ConfigTarget::Topic(topic_id(0x11)),
            changes: vec![
                ("cleanup.policy".to_owned(), Some("delete".to_owned())),
                ("retention.ms".to_owned(), None),
            ],
        },
        Command::AlterConfig {
            target: ConfigTarget::Broker(None),
            changes: vec![("log.retention.ms".to_owned(), Some("1".to_owned()))],
        },
        Command::AllocateProducerIds { count: 10 },
        commit(
            0,
            vec![
                append(
                    partition(0x11, 0),
                    in_segment(0, 64, 600),
                    vec![
                        batch(1, Some(0)),
                        batch(1, Some(0)),
                        batch(2, Some(1)),
                        batch(2, None),
                    ],
                ),
                append(
                    partition(0x11, 1),
                    in_wal(1 << 33, 500),
                    vec![batch(2, None), batch(3, None)],
                ),
                append(
                    partition(0x22, 0),
                    in_wal((1 << 33) + 500, 100),
                    vec![batch(1, None)],
                ),
                append(
                    partition(0x11, 2),
                    in_wal((1 << 33) + 600, 100),
                    vec![batch(1, None)],
                ),
            ],
            vec![],
        ),
        commit(
            1,
            vec![],
            vec![Move {
                partition: partition(0x11, 1),
                base: Offset(0),
                end: Offset(5),
                to: in_segment(1, 64, 500),
            }],
        ),
        claim_group("g"),
        Command::SaveGroup {
            claim: claim("g", 13),
            group: group(),
        },
        Command::CommitOffsets {
            claim: claim("g", 13),
            member: Some((3, "m-1".to_owned())),
            offsets: vec![
                committed(partition(0x11, 0), 2),
                committed(partition(0x11, 1), 5),
                committed(partition(0x22, 0), 1),
            ],
        },
        Command::DeleteOffsets {
            claim: claim("g", 13),
            partitions: vec![partition(0x11, 1)],
        },
        claim_group("gone"),
        Command::CommitOffsets {
            claim: claim("gone", 17),
            member: None,
            offsets: vec![committed(partition(0x11, 0), 0)],
        },
        Command::DeleteGroup {
            claim: claim("gone", 17),
        },
        Command::DeleteTopic { id: topic_id(0x22) },
        Command::DeleteRecords {
            partition: partition(0x11, 1),
            to: None,
        },
        Command::RaiseLogStarts {
            to: vec![(partition(0x11, 0), Offset(1))],
        },
        Command::ClaimCollector,
        Command::ForgetSegments {
            collector: 23,
            ids: vec![segment(1)],
        },
        Command::Expire {
            producers_before_ms: 5,
            offsets_before_ms: 6,
        },
        Command::Drain {
            broker: BROKER,
            epoch: EPOCH,
        },
        Command::Leave {
            broker: BrokerId(7),
            epoch: BrokerEpoch(3),
        },
        Command::SealEpoch {
            epoch: BrokerEpoch(3),
        },
        commit(
            2,
            vec![append(
                partition(0x11, 2),
                in_segment(2, 64, 100),
                vec![batch(1, Some(i32::MAX))],
            )],
            vec![],
        ),
        commit(3, vec![], vec![]),
    ]
}

fn envelopes() -> Vec<Envelope> {
    let envelope = |(request, command)| Envelope {
        client: Uuid::from_u128(0xC11E),
        request,
        done_below: request / 2,
        time_ms: 1_700_000_000_000 + request as i64,
        command,
    };
    (1..).zip(story()).map(envelope).collect()
}

/// The state after the story, and its outcomes.
fn told() -> (State, Vec<Outcome>) {
    let mut state = State::new();
    let outcomes = (1..)
        .zip(&envelopes())
        .map(|(index, envelope)| state.apply(index, envelope).0)
        .collect();
    state.check().expect("consistent");
    (state, outcomes)
}

/// Every outcome, with every refusal.
fn outcomes() -> Vec<Outcome> {
    let topic = Topic {
        id: topic_id(0x11),
        name: TopicName::new("orders.v1").expect("a name"),
        partitions: 2,
        replication_factor: 3,
        config: settings(),
        created_ms: 1_700_000_000_000,
    };
    let batches = vec![
        BatchOutcome::Appended(Offset(8)),
        BatchOutcome::Duplicate(Offset(1 << 40)),
        BatchOutcome::Refused(BatchRefusal::UnknownPartition),
        BatchOutcome::Refused(BatchRefusal::OutOfOrderSequence),
        BatchOutcome::Refused(BatchRefusal::InvalidProducerEpoch),
        BatchOutcome::Refused(BatchRefusal::SealedSegment),
    ];
    let log_start = Offset(7);
    let mut all = vec![
        Outcome::Done,
        Outcome::Stale,
        Outcome::Fenced,
        Outcome::Invalid("a move that cuts an extent".to_owned()),
        Outcome::Cluster {
            cluster_id: "q1Sh-9_ISia_zwGINzRvyQ".to_owned(),
        },
        Outcome::Registered {
            id: BROKER,
            epoch: EPOCH,
        },
        Outcome::Committed(CommitOutcome {
            appends: vec![AppendOutcome { log_start, batches }],
        }),
        Outcome::TopicCreated(Ok(topic)),
        Outcome::TopicCreated(Err(CatalogRefusal::NameCollision("orders_v1".to_owned()))),
        Outcome::Catalog(Ok(())),
        Outcome::RecordsDeleted(Ok(Offset(3))),
        Outcome::RecordsDeleted(Err(CatalogRefusal::OffsetOutOfRange)),
        Outcome::ProducerIds {
            first: ProducerId(4_000),
        },
        Outcome::GroupClaimed {
            coordinator: claim("g", 13).coordinator,
            group: group(),
        },
        Outcome::Group(Ok(())),
        Outcome::CollectorClaimed(23),
        Outcome::Forgotten(true),
        Outcome::Forgotten(false),
    ];
    let catalog = [
        CatalogRefusal::UnknownTopic,
        CatalogRefusal::TopicExists,
        CatalogRefusal::PartitionCount(3),
    ];
    let group = [
        GroupRefusal::NotCoordinator,
        GroupRefusal::StaleGeneration,
        GroupRefusal::UnknownMember,
        GroupRefusal::NotEmpty,
        GroupRefusal::UnknownGroup,
    ];
    all.extend(catalog.map(|refusal| Outcome::Catalog(Err(refusal))));
    all.extend(group.map(|refusal| Outcome::Group(Err(refusal))));
    all
}

/// The documented numbers. A total match, so that a new command cannot be left out of the story.
fn number(command: &Command) -> u32 {
    match command {
        Command::InitCluster { .. } => 0,
        Command::NoteVoters { .. } => 1,
        Command::RaiseLevel { .. } => 2,
        Command::Lapse { .. } => 3,
        Command::RegisterBroker { .. } => 10,
        Command::Heartbeat { .. } => 11,
        Command::Drain { .. } => 12,
        Command::Leave { .. } => 13,
        Command::SealEpoch { .. } => 14,
        Command::ReserveBrokerIds { .. } => 15,
        Command::ForgetGateway { .. } => 16,
        Command::GiveUpWal { .. } => 17,
        Command::Commit(_) => 20,
        Command::CreateTopic(_) => 30,
        Command::DeleteTopic { .. } => 31,
        Command::CreatePartitions { .. } => 32,
        Command::AlterConfig { .. } => 33,
        Command::DeleteRecords { .. } => 34,
        Command::AllocateProducerIds { .. } => 40,
        Command::ClaimGroup { .. } => 50,
        Command::SaveGroup { .. } => 51,
        Command::CommitOffsets { .. } => 52,
        Command::DeleteOffsets { .. } => 53,
        Command::DeleteGroup { .. } => 54,
        Command::RaiseLogStarts { .. } => 60,
        Command::ClaimCollector => 61,
        Command::ForgetSegments { .. } => 62,
        Command::Expire { .. } => 63,
        Command::ClaimTable { .. } => 80,
        Command::Replace(_) => 81,
        Command::ForgetTableObjects { .. } => 82,
        Command::ForgetTables { .. } => 83,
    }
}

/// The numbers in the first story. A later command has a story and files of its own.
const NUMBERS: [u32; 22] = [
    0, 10, 11, 12, 13, 14, 20, 30, 31, 32, 33, 34, 40, 50, 51, 52, 53, 54, 60, 61, 62, 63,
];

fn outcome_number(outcome: &Outcome) -> u32 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Stale => 1,
        Outcome::Fenced => 2,
        Outcome::Invalid(_) => 3,
        Outcome::Cluster { .. } => 4,
        Outcome::Registered { .. } => 5,
        Outcome::Committed(_) => 6,
        Outcome::TopicCreated(_) => 7,
        Outcome::Catalog(_) => 8,
        Outcome::RecordsDeleted(_) => 9,
        Outcome::ProducerIds { .. } => 10,
        Outcome::GroupClaimed { .. } => 11,
        Outcome::Group(_) => 12,
        Outcome::CollectorClaimed(_) => 13,
        Outcome::Forgotten(_) => 14,
        Outcome::Gateway(_) => 15,
        Outcome::TableClaimed(_) => 16,
        Outcome::Replaced(_) => 17,
    }
}

/// `length u32 LE | bytes`, repeated.
fn framed(items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    items
        .flat_map(|item| {
            let length = u32::try_from(item.len()).expect("a short item");
            length.to_le_bytes().into_iter().chain(item)
        })
        .collect()
}

fn unframed(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut items = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (item, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        items.push(item);
        bytes = rest;
    }
    assert_eq!(bytes, [0; 0]);
    items
}

#[test]
fn commands_keep_their_bytes() {
    let expected = envelopes();
    let numbers: BTreeSet<_> = story().iter().map(number).collect();
    assert_eq!(numbers, BTreeSet::from(NUMBERS));
    check_golden(
        "metadata-commands-v1.bin",
        &framed(expected.iter().map(Envelope::encode)),
    );
    let bytes = golden("metadata-commands-v1.bin");
    let items = unframed(&bytes);
    assert_eq!(items.len(), expected.len());
    for (envelope, item) in expected.iter().zip(items) {
        assert_eq!(&Envelope::decode(item).expect("decodes"), envelope);
        // The number in the bytes is the documented one.
        let mut decoder = minicbor::Decoder::new(&item[1..]);
        assert_eq!(decoder.array().expect("an envelope"), Some(5));
        for _ in 0..4 {
            decoder.skip().expect("a field");
        }
        decoder.array().expect("a command");
        let written = decoder.u32().expect("its number");
        assert_eq!(written, number(&envelope.command));
    }
}

/// What the first story, whose bytes stay as they are, does not know yet.
fn later() -> Vec<Envelope> {
    let command = Command::NoteVoters { ids: vec![1, 300] };
    vec![Envelope {
        client: Uuid::nil(),
        request: 0,
        done_below: 0,
        time_ms: 1_700_000_000_000,
        command,
    }]
}

#[test]
fn later_commands_keep_their_bytes() {
    let numbers: Vec<u32> = later().iter().map(|e| number(&e.command)).collect();
    assert_eq!(numbers, [1]);
    let bytes = framed(later().iter().map(Envelope::encode));
    check_golden("metadata-commands-v1-voters.bin", &bytes);
    let decoded: Vec<Envelope> = unframed(&golden("metadata-commands-v1-voters.bin"))
        .into_iter()
        .map(|item| Envelope::decode(item).expect("decodes"))
        .collect();
    assert_eq!(decoded, later());

    let mut state = State::new();
    for (envelope, index) in later().iter().zip(1..) {
        state.apply(index, envelope);
    }
    assert_eq!(state.voters(), BTreeSet::from([1, 300]));
    check_golden("metadata-snapshot-v1-voters.bin", &state.snapshot());
    let restored = State::restore(&golden("metadata-snapshot-v1-voters.bin"));
    assert_eq!(restored.expect("restores"), state);
}

/// What came with level 2.
fn of_level_2() -> Vec<Envelope> {
    let commands = vec![
        Command::InitCluster {
            cluster_id: "q1Sh-9_ISia_zwGINzRvyQ".to_owned(),
            level: Some(1),
        },
        Command::RegisterBroker {
            id: None,
            incarnation: Uuid::from_u128(0xA1),
            host: "kafka.example".to_owned(),
            port: 9092,
            rack: None,
            peer: "10.0.0.1:7000".to_owned(),
            lease_ms: 10_000,
            knows: Some(2),
        },
        Command::RaiseLevel { level: 2 },
        Command::Lapse {
            broker: BROKER,
            epoch: EPOCH,
        },
    ];
    let envelope = |command| Envelope {
        client: Uuid::nil(),
        request: 0,
        done_below: 0,
        time_ms: 1_700_000_000_000,
        command,
    };
    commands.into_iter().map(envelope).collect()
}

#[test]
fn commands_of_level_2_keep_their_bytes() {
    let numbers: Vec<u32> = of_level_2().iter().map(|e| number(&e.command)).collect();
    assert_eq!(numbers, [0, 10, 2, 3]);
    let versions: Vec<u8> = of_level_2().iter().map(|e| e.encode()[0]).collect();
    assert_eq!(versions, [1, 1, 2, 2]);
    let bytes = framed(of_level_2().iter().map(Envelope::encode));
    check_golden("metadata-commands-v2.bin", &bytes);
    let decoded: Vec<Envelope> = unframed(&golden("metadata-commands-v2.bin"))
        .into_iter()
        .map(|item| Envelope::decode(item).expect("decodes"))
        .collect();
    assert_eq!(decoded, of_level_2());

    let mut state = State::new();
    for (envelope, index) in of_level_2().iter().zip(1..) {
        let (outcome, _) = state.apply(index, envelope);
        let refused = matches!(outcome, Outcome::Fenced | Outcome::Invalid(_));
        assert!(!refused, "{envelope:?}: {outcome:?}");
    }
    check_golden("metadata-snapshot-v2.bin", &state.snapshot());
    let restored = State::restore(&golden("metadata-snapshot-v2.bin"));
    assert_eq!(restored.expect("restores"), state);
}

#[test]
fn outcomes_keep_their_bytes() {
    let expected = outcomes();
    let numbers: BTreeSet<_> = expected.iter().map(outcome_number).collect();
    assert_eq!(numbers, (0..15).collect());
    check_golden(
        "metadata-outcomes-v1.bin",
        &framed(expected.iter().map(Outcome::encode)),
    );
    let bytes = golden("metadata-outcomes-v1.bin");
    let read: Vec<_> = unframed(&bytes)
        .into_iter()
        .map(|item| Outcome::decode(item).expect("decodes"))
        .collect();
    assert_eq!(read, expected);
}

#[test]
fn snapshots_keep_their_bytes() {
    let (state, _) = told();
    check_golden("metadata-snapshot-v1.bin", &state.snapshot());
    let restored = State::restore(&golden("metadata-snapshot-v1.bin")).expect("restores");
    assert_eq!(restored, state);
}

#[test]
fn nothing_in_the_story_is_refused() {
    let (state, outcomes) = told();
    for (command, outcome) in story().iter().zip(&outcomes) {
        let succeeded = match outcome {
            Outcome::Stale | Outcome::Fenced | Outcome::Invalid(_) => false,
            Outcome::TopicCreated(result) => result.is_ok(),
            Outcome::Catalog(result) => result.is_ok(),
            Outcome::RecordsDeleted(result) => result.is_ok(),
            Outcome::Group(result) => result.is_ok(),
            Outcome::Forgotten(done) => *done,
            Outcome::Gateway(result) => result.is_ok(),
            _ => true,
        };
        assert!(succeeded, "{command:?}: {outcome:?}");
    }
    let counts = state.counts();
    assert_eq!((counts.topics, counts.partitions), (1, 3));
    assert_eq!((counts.extents, counts.producers), (3, 2));
    assert_eq!((counts.segments, counts.retired_segments), (2, 1));
    assert_eq!((counts.groups, counts.sessions), (1, 1));
}

#[test]
fn reserving_ids_keeps_its_bytes() {
    let command = Command::ReserveBrokerIds { below: 1001 };
    assert_eq!(number(&command), 15);
    let expected = Envelope {
        client: Uuid::from_u128(0xC11E),
        request: 1,
        done_below: 1,
        time_ms: 1_700_000_000_000,
        command,
    };
    check_golden("metadata-commands-v1-reserve.bin", &expected.encode());
    let decoded = Envelope::decode(&golden("metadata-commands-v1-reserve.bin"));
    assert_eq!(decoded.expect("decodes"), expected);
}

/// A gateway loses some of its write-ahead log, and then all of it.
fn losses() -> Vec<Envelope> {
    let in_wal = |start: u64| Location::Wal {
        broker: BrokerId(7),
        epoch: BrokerEpoch(3),
        start,
        length: 100,
    };
    let topic = partition(0x11, 0);
    let append = |start| append(topic, in_wal(start), vec![batch(1, None)]);
    let commands = vec![
        Command::InitCluster {
            cluster_id: "q1Sh-9_ISia_zwGINzRvyQ".to_owned(),
            level: Some(2),
        },
        new_topic(0x11, "orders.v1"),
        register(Some(BrokerId(7)), 0xB2),
        Command::Commit(Commit {
            broker: BrokerId(7),
            epoch: BrokerEpoch(3),
            sealed_below: 0,
            segments: vec![],
            appends: vec![append(0), append(200), append(400)],
            moves: vec![],
        }),
        Command::GiveUpWal {
            broker: BrokerId(7),
            epoch: BrokerEpoch(3),
            lost: vec![(topic, Offset(1), Offset(2))],
        },
        Command::ForgetGateway {
            broker: BrokerId(7),
            epoch: BrokerEpoch(3),
            accept_loss: false,
        },
    ];
    let envelope = |(request, command)| Envelope {
        client: Uuid::from_u128(0xC11E),
        request,
        done_below: request,
        time_ms: 1_700_000_000_000 + 5_000 * request as i64,
        command,
    };
    (1..).zip(commands).map(envelope).collect()
}

#[test]
fn losses_keep_their_bytes() {
    check_golden(
        "metadata-commands-v2-lost.bin",
        &framed(losses().iter().map(Envelope::encode)),
    );
    let bytes = golden("metadata-commands-v2-lost.bin");
    let read: Vec<_> = unframed(&bytes)
        .into_iter()
        .map(|item| Envelope::decode(item).expect("decodes"))
        .collect();
    assert_eq!(read, losses());
    let numbers: Vec<u32> = read.iter().map(|e| number(&e.command)).collect();
    assert_eq!(numbers[4..], [17, 16]);

    let mut state = State::new();
    for (envelope, index) in losses().iter().zip(1..) {
        state.apply(index, envelope);
    }
    let places: Vec<Location> = state
        .oldest_extents(&partition(0x11, 0), 9)
        .iter()
        .map(|extent| extent.location)
        .collect();
    assert_eq!((places.len(), places[1]), (3, Location::Lost));
    check_golden("metadata-snapshot-v2-lost.bin", &state.snapshot());
    let restored = State::restore(&golden("metadata-snapshot-v2-lost.bin"));
    assert_eq!(restored.expect("restores"), state);

    let outcomes = [
        Outcome::Gateway(Ok(())),
        Outcome::Gateway(Err(GatewayRefusal::Unknown)),
        Outcome::Gateway(Err(GatewayRefusal::Superseded)),
        Outcome::Gateway(Err(GatewayRefusal::Live)),
    ];
    assert_eq!(outcome_number(&outcomes[0]), 15);
    check_golden(
        "metadata-outcomes-v1-lost.bin",
        &framed(outcomes.iter().map(Outcome::encode)),
    );
    for (outcome, item) in outcomes
        .iter()
        .zip(unframed(&golden("metadata-outcomes-v1-lost.bin")))
    {
        assert_eq!(&Outcome::decode(item).expect("decodes"), outcome);
    }
}

/// What came with level 3: a table is claimed, grows, sheds objects, and dies with its topic.
fn of_level_3() -> Vec<Envelope> {
    let root = |claim, number, end| NodeRef {
        base: Offset(0),
        end: Offset(end),
        id: ObjectId::new(claim, number),
        level: 1,
        length: 4_096,
        crc: 0xDEAD_BEEF,
        records: 2,
        bytes: 1 << 33,
        max_timestamp: 1_700_000_000_002,
    };
    let topic = topic_id(0x11);
    let moved = |expected: Option<ObjectId>, base, end, root| ColdMove {
        partition: 0,
        expected,
        base: Offset(base),
        end: Offset(end),
        root: Some(root),
    };
    let pointer = |number| TablePointer {
        metadata: ObjectId::new(5, number),
        length: 2_048,
        crc: 17,
    };
    let claim = |topic| Command::ClaimTable {
        topic,
        holder: Uuid::from_u128(0xC0),
        lease_ms: 60_000,
    };
    let runs = [(0, 64), (2, 64)].map(|(number, start)| {
        let batches = vec![batch(2, None)];
        append(partition(0x11, 0), in_segment(number, start, 200), batches)
    });
    let commands = vec![
        Command::InitCluster {
            cluster_id: "q1Sh-9_ISia_zwGINzRvyQ".to_owned(),
            level: Some(3),
        },
        register(None, 0xA1),
        new_topic(0x11, "orders.v1"),
        new_topic(0x22, "doomed"),
        claim(topic),
        commit(0, runs.to_vec(), vec![]),
        Command::Replace(Replacement {
            topic,
            claim: 5,
            lease_ms: 60_000,
            moves: vec![moved(None, 0, 2, root(5, 1, 2))],
            table: Some(TableMove {
                expected: None,
                new: pointer(2),
            }),
            retired: vec![],
        }),
        Command::Replace(Replacement {
            topic,
            claim: 5,
            lease_ms: 0,
            moves: vec![moved(Some(ObjectId::new(5, 1)), 2, 4, root(5, 300, 4))],
            table: Some(TableMove {
                expected: Some(ObjectId::new(5, 2)),
                new: pointer(301),
            }),
            retired: vec![
                TableObject::Data(ObjectId::new(5, 0)),
                TableObject::Manifest(0, ObjectId::new(5, 1)),
                TableObject::Metadata(ObjectId::new(5, 2)),
                TableObject::List(ObjectId::new(5, 3)),
                TableObject::Files(ObjectId::new(5, 4)),
            ],
        }),
        claim(topic_id(0x22)),
        Command::DeleteTopic { id: topic_id(0x22) },
        Command::ClaimCollector,
        Command::ForgetTableObjects {
            collector: 11,
            topic,
            objects: vec![TableObject::Data(ObjectId::new(5, 0))],
        },
        claim(topic),
        Command::ForgetTables {
            collector: 11,
            topics: vec![topic_id(0x33)],
        },
    ];
    let envelope = |(request, command)| Envelope {
        client: Uuid::from_u128(0xC11E),
        request,
        done_below: request,
        time_ms: 1_700_000_000_000 + request as i64,
        command,
    };
    (1..).zip(commands).map(envelope).collect()
}

#[test]
fn commands_of_level_3_keep_their_bytes() {
    let versions: Vec<(u32, u8)> = of_level_3()
        .iter()
        .map(|e| (number(&e.command), e.encode()[0]))
        .filter(|(number, _)| *number >= 80)
        .collect();
    assert_eq!(
        versions,
        [
            (80, 3),
            (81, 3),
            (81, 3),
            (80, 3),
            (82, 3),
            (80, 3),
            (83, 3)
        ]
    );
    let bytes = framed(of_level_3().iter().map(Envelope::encode));
    check_golden("metadata-commands-v3.bin", &bytes);
    let read: Vec<_> = unframed(&golden("metadata-commands-v3.bin"))
        .into_iter()
        .map(|item| Envelope::decode(item).expect("decodes"))
        .collect();
    assert_eq!(read, of_level_3());

    let mut state = State::new();
    for (envelope, index) in of_level_3().iter().zip(1..) {
        let (outcome, _) = state.apply(index, envelope);
        let refused = matches!(
            outcome,
            Outcome::Fenced
                | Outcome::Invalid(_)
                | Outcome::TableClaimed(Err(_))
                | Outcome::Replaced(Err(_))
                | Outcome::Forgotten(false)
        );
        assert!(!refused, "{envelope:?}: {outcome:?}");
    }
    let counts = state.counts();
    assert_eq!((counts.cold_partitions, counts.extents), (1, 0));
    assert_eq!((counts.retired_objects, counts.dead_tables), (4, 1));
    check_golden("metadata-snapshot-v3.bin", &state.snapshot());
    let restored = State::restore(&golden("metadata-snapshot-v3.bin"));
    assert_eq!(restored.expect("restores"), state);

    let mut outcomes = vec![Outcome::TableClaimed(Ok(5)), Outcome::Replaced(Ok(()))];
    let refusals = [
        TableRefusal::UnknownTopic,
        TableRefusal::Held,
        TableRefusal::Superseded,
        TableRefusal::Changed,
    ];
    outcomes.extend(refusals.map(|refusal| Outcome::TableClaimed(Err(refusal))));
    outcomes.extend(refusals.map(|refusal| Outcome::Replaced(Err(refusal))));
    let numbers: BTreeSet<_> = outcomes.iter().map(outcome_number).collect();
    assert_eq!(numbers, BTreeSet::from([16, 17]));
    check_golden(
        "metadata-outcomes-v1-tables.bin",
        &framed(outcomes.iter().map(Outcome::encode)),
    );
    let read: Vec<_> = unframed(&golden("metadata-outcomes-v1-tables.bin"))
        .into_iter()
        .map(|item| Outcome::decode(item).expect("decodes"))
        .collect();
    assert_eq!(read, outcomes);
}

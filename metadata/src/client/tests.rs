//! What a client's sessions promise to those who do not know what became of a command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::testing::{ManualClock, SeededIds};
use frazil_core::ports::{
    Append, BatchInfo, COMMIT_BATCHES_MAX, Catalog, Commit, ConfigTarget, Move, ProducerBatch,
    SegmentInfo, Sequencer,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, PortError, ProducerEpoch, ProducerId, SegmentId,
    TopicId, TopicPartition,
};
use uuid::Uuid;

use crate::command::{Command, Envelope, Outcome};
use crate::testing::RealDisk;
use crate::wire::{COMMAND_MAX, Reply};
use crate::{ClientConfig, Config, Metrics, Registration, Voter};

fn registration() -> Registration {
    Registration {
        id: None,
        incarnation: Uuid::from_u128(7),
        host: "localhost".to_owned(),
        port: 9092,
        rack: None,
        peer: "localhost:9093".to_owned(),
        lease: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn a_later_commit_settles_a_lost_one_whatever_else_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let voters = BTreeMap::from([(1, "nowhere:0".to_owned())]);
    let voter = Voter::start(
        Config::new(1, voters, dir.path()),
        None,
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(1)),
        Metrics::default(),
    )
    .await
    .unwrap();
    let client = voter.client(ClientConfig::default());
    let (broker, epoch) = client.register(registration()).await.unwrap();
    let commit = |sealed_below| Commit {
        broker,
        epoch,
        sealed_below,
        segments: Vec::new(),
        appends: Vec::new(),
        moves: Vec::new(),
    };

    let heartbeat = Command::Heartbeat {
        broker,
        epoch,
        lease_ms: 1,
    };
    let inner = &client.inner;
    let (_under_way, _) = inner.session(&heartbeat).begin(heartbeat);
    let command = Command::Commit(commit(1));
    let (ticket, lost) = inner.session(&command).begin(command);
    // Whoever waited for it has given up, while it is still on its way.
    drop(ticket);
    client.commit(commit(2)).await.unwrap();

    let node = inner.link.local.as_ref().unwrap();
    let Reply::Proposed { outcome, .. } = node.propose(lost).await else {
        panic!("a lone voter takes it");
    };
    assert_eq!(outcome.outcome().unwrap(), Outcome::Stale);
    voter.shutdown().await;
}

#[test]
fn the_largest_commit_fits_into_a_command() {
    let id = SegmentId::new(BrokerEpoch(u64::MAX), u64::MAX);
    let batch = |n: usize| BatchInfo {
        length: u32::MAX,
        records: u32::MAX,
        max_timestamp: i64::MIN + n as i64,
        producer: Some(ProducerBatch {
            id: ProducerId(i64::MAX),
            epoch: ProducerEpoch(i16::MAX),
            base_sequence: i32::MAX,
        }),
    };
    let partition = |n: usize| {
        TopicPartition::new(
            TopicId::new(Uuid::from_u128(u128::MAX)),
            i32::MAX - n as i32,
        )
    };
    let wal = |n: usize| Location::Wal {
        broker: BrokerId(i32::MAX),
        epoch: BrokerEpoch(u64::MAX),
        start: u64::MAX - n as u64,
        length: u32::MAX,
    };
    let appends = (0..COMMIT_BATCHES_MAX).map(|n| Append {
        partition: partition(n),
        location: wal(n),
        batches: vec![batch(n)],
    });
    let moves = (0..COMMIT_BATCHES_MAX).map(|n| Move {
        partition: partition(n),
        base: Offset(i64::MAX - 1),
        end: Offset(i64::MAX),
        to: Location::Segment {
            id,
            start: u32::MAX,
            length: u32::MAX,
        },
    });
    let segments = || {
        vec![SegmentInfo {
            id,
            bytes: u64::MAX,
        }]
    };
    let largest = |appends, moves| {
        let commit = Commit {
            broker: BrokerId(i32::MAX),
            epoch: BrokerEpoch(u64::MAX),
            sealed_below: u64::MAX,
            segments: segments(),
            appends,
            moves,
        };
        Envelope::by_leader(Command::Commit(commit)).encode().len()
    };
    for bytes in [
        largest(appends.collect(), Vec::new()),
        largest(Vec::new(), moves.collect()),
    ] {
        assert!(bytes < COMMAND_MAX / 4, "{bytes}");
        assert!(
            bytes > COMMAND_MAX / 10,
            "the test means something: {bytes}"
        );
    }
}

#[tokio::test]
async fn what_the_quorum_never_takes_is_answered_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let voters = BTreeMap::from([(1, "nowhere:0".to_owned())]);
    let voter = Voter::start(
        Config::new(1, voters, dir.path()),
        None,
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(1)),
        Metrics::default(),
    )
    .await
    .unwrap();
    let client = voter.client(ClientConfig::default());
    let (broker, epoch) = client.register(registration()).await.unwrap();
    let commit = |length| Commit {
        broker,
        epoch,
        sealed_below: 0,
        segments: Vec::new(),
        appends: vec![Append {
            partition: TopicPartition::new(TopicId::new(Uuid::from_u128(1)), 0),
            location: Location::Segment {
                id: SegmentId::new(epoch, 0),
                start: 0,
                length,
            },
            batches: vec![BatchInfo {
                length: 10,
                records: 1,
                max_timestamp: 0,
                producer: None,
            }],
        }],
        moves: Vec::new(),
    };
    let begun = tokio::time::Instant::now();
    let invalid = client.commit(commit(9)).await;
    assert!(
        matches!(invalid, Err(PortError::Impossible(_))),
        "{invalid:?}"
    );
    let changes = vec![("key".to_owned(), Some("x".repeat(COMMAND_MAX)))];
    let large = client
        .alter_config(ConfigTarget::Broker(None), changes)
        .await;
    assert!(matches!(large, Err(PortError::Impossible(_))), "{large:?}");
    // Long before it would be given up.
    assert!(begun.elapsed() < ClientConfig::default().deadline / 2);
    // Nothing is in the way of what comes next.
    client.commit(commit(10)).await.unwrap();
    voter.shutdown().await;
}

#[tokio::test]
async fn a_voter_stops_at_a_command_of_a_later_version() {
    let dir = tempfile::tempdir().unwrap();
    let voters = BTreeMap::from([(1, "nowhere:0".to_owned())]);
    let voter = Voter::start(
        Config::new(1, voters, dir.path()),
        None,
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(1)),
        Metrics::default(),
    )
    .await
    .unwrap();
    let client = voter.client(ClientConfig::default());
    let node = client.inner.link.local.as_ref().unwrap();
    // The last that a leader does by itself.
    let mut applying = voter.image().subscribe();
    let noted = |_: &u64| voter.image().read(|state| !state.voters().is_empty());
    applying.wait_for(noted).await.unwrap();
    drop(applying);
    let applied = voter.image().applied();
    // As a leader of a later version would.
    let later = vec![crate::command::LEVEL + 1, 0];
    assert!(node.raft.client_write(later.into()).await.is_err());
    let failed = tokio::time::timeout(Duration::from_secs(20), voter.failed());
    let reason = failed.await.unwrap();
    let later = format!("feature level {}", crate::command::LEVEL + 1);
    assert!(reason.contains(&later), "{reason}");
    assert_eq!(voter.image().applied(), applied, "nothing is skipped");
    voter.end().await;
}

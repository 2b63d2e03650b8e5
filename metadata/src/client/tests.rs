//! What a client's sessions promise to those who do not know what became of a command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::testing::{ManualClock, SeededIds};
use frazil_core::ports::{Commit, Sequencer};
use uuid::Uuid;

use crate::command::{Command, Outcome};
use crate::testing::RealDisk;
use crate::wire::Reply;
use crate::{ClientConfig, Config, Metrics, Registration, Voter};

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
    let registration = Registration {
        id: None,
        incarnation: Uuid::from_u128(7),
        host: "localhost".to_owned(),
        port: 9092,
        rack: None,
        peer: "localhost:9093".to_owned(),
        lease: Duration::from_secs(10),
    };
    let (broker, epoch) = client.register(registration).await.unwrap();
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
    assert!(reason.contains("feature level 3"), "{reason}");
    assert_eq!(voter.image().applied(), applied, "nothing is skipped");
    voter.end().await;
}

//! Snapshots that are made beside the state.

use super::*;
use crate::raft::replay::replay;
use crate::raft::snapshot::SnapshotStore;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_made_from_the_log_is_the_state() {
    let dir = TempDir::new().unwrap();
    let config = || Config {
        kept_entries: 3,
        ..alone(&dir)
    };
    let mut voter = start(config(), None, 1).await.unwrap();
    let store = SnapshotStore::new(Arc::new(RealDisk), dir.path().to_owned());
    let (id, epoch) = {
        let client = voter.client(ClientConfig::default());
        create(&client, 1).await;
        client.register(broker(1)).await.unwrap()
    };
    let partition = TopicPartition::new(topic(1).id, 0);
    for round in 0..4_u64 {
        let client = voter.client(ClientConfig::default());
        for number in 0..30 {
            let commit = flush(id, epoch, 30 * round + number, partition);
            client.commit(commit).await.unwrap();
        }
        drop(client);
        voter.node.raft.trigger().snapshot().await.unwrap();
        let applied = voter.image().applied();
        let covers = || {
            let newest = store.newest().unwrap();
            newest.filter(|(meta, _)| meta.last_log_id.is_some_and(|last| last.index == applied))
        };
        until("a snapshot", async || covers().is_some()).await;
        let (meta, bytes) = covers().unwrap();
        assert!(bytes == voter.image().copy().0.snapshot(), "round {round}");
        assert_eq!(meta.last_membership.voter_ids().collect::<Vec<_>>(), [1]);
        if round == 1 {
            // From the snapshot that a restart begins with, too.
            voter.shutdown().await;
            voter = start(config(), None, 2).await.unwrap();
        }
    }
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_have_gives_no_snapshot() {
    let dir = TempDir::new().unwrap();
    let config = Config {
        kept_entries: 0,
        ..alone(&dir)
    };
    let voter = start(config, None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    for number in 0..10 {
        create(&client, number).await;
    }
    // Raft tells what is applied a moment after it is.
    let last = async || {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let mut metrics = voter.node.raft.metrics();
        loop {
            let last = metrics.borrow_watched().last_applied;
            if let Some(last) = last.filter(|last| last.index == voter.image().applied()) {
                return last;
            }
            metrics.changed().await.unwrap();
        }
    };
    let elsewhere = TempDir::new().unwrap();
    let none = Arc::new(SnapshotStore::new(
        Arc::new(RealDisk),
        elsewhere.path().to_owned(),
    ));
    let upto = last().await;
    let whole = replay(&none, &voter.node.log, upto, crate::command::LEVEL)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(whole.last, Some(upto));
    assert!(whole.state == voter.image().copy().0);

    voter.node.raft.trigger().snapshot().await.unwrap();
    until("the log is purged", async || {
        let first = voter.node.log.read(0, 2, 1000).await.unwrap();
        first.is_empty()
    })
    .await;
    create(&client, 10).await;
    let upto = last().await;
    assert!(
        replay(&none, &voter.node.log, upto, crate::command::LEVEL)
            .await
            .unwrap()
            .is_none()
    );
    // The snapshot has the rest.
    let there = &voter.node.snapshots;
    let whole = replay(there, &voter.node.log, upto, crate::command::LEVEL)
        .await
        .unwrap()
        .unwrap();
    assert!(whole.state == voter.image().copy().0);
    voter.shutdown().await;
}

/// Not a test of time: prints how long a large state takes to copy, to write and to restore, and
/// how long commands wait meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn measure_snapshots_of_a_large_state() {
    use crate::command::{Command, Envelope};
    use crate::state::State;

    let mut state = State::new();
    let mut index = 0;
    let mut apply = |command| {
        index += 1;
        state.apply(index, &Envelope::by_leader(command)).0
    };
    let topics = 100;
    for number in 0..topics {
        let new = NewTopic {
            partitions: 1000,
            ..topic(number)
        };
        apply(Command::CreateTopic(new));
    }
    let register = Command::RegisterBroker {
        id: None,
        incarnation: Uuid::from_u128(1),
        host: "localhost".to_owned(),
        port: 9092,
        rack: None,
        peer: "localhost:9093".to_owned(),
        lease_ms: 10_000,
        knows: None,
    };
    let registered = apply(register);
    let crate::command::Outcome::Registered { id, epoch } = registered else {
        panic!("{registered:?}");
    };
    // Ten extents in each of 100 000 partitions, a thousand in a segment.
    for number in 0..1000_u64 {
        let topic = topic(u128::from(number) % topics).id;
        let mut commit = flush(id, epoch, number, TopicPartition::new(topic, 0));
        let append = commit.appends[0].clone();
        commit.appends = (0..1000)
            .map(|partition| Append {
                partition: TopicPartition::new(topic, partition),
                location: Location::Segment {
                    id: SegmentId::new(epoch, number),
                    start: 100 * partition as u32,
                    length: 100,
                },
                ..append.clone()
            })
            .collect();
        apply(Command::Commit(commit));
    }
    let counts = state.counts();
    println!("{counts:?}, {} MiB resident", resident_mib());
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let begun = Instant::now();
        work();
        println!("{what}: {:?}", begun.elapsed());
    };
    timed("copy, under the lock before", &mut || {
        drop(std::hint::black_box(state.clone()))
    });
    let mut bytes = Vec::new();
    timed("encode", &mut || bytes = state.snapshot());
    println!("{} bytes", bytes.len());
    timed("restore", &mut || {
        std::hint::black_box(State::restore(&bytes).unwrap());
    });
    drop(bytes);

    // Commands while a snapshot is made.
    let dir = TempDir::new().unwrap();
    let voter = start(
        Config {
            snapshot_entries: 1_000_000,
            log_file_bytes: 16 << 20,
            ..alone(&dir)
        },
        None,
        1,
    )
    .await
    .unwrap();
    let store = SnapshotStore::new(Arc::new(RealDisk), dir.path().to_owned());
    let client = voter.client(ClientConfig::default());
    for number in 0..topics {
        let new = NewTopic {
            partitions: 1000,
            ..topic(number)
        };
        client.create_topic(new).await.unwrap().unwrap();
    }
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    for number in 0..1000_u64 {
        let topic = topic(u128::from(number) % topics).id;
        let mut commit = flush(id, epoch, number, TopicPartition::new(topic, 0));
        let append = commit.appends[0].clone();
        commit.appends = (0..1000)
            .map(|partition| Append {
                partition: TopicPartition::new(topic, partition),
                location: Location::Segment {
                    id: SegmentId::new(epoch, number),
                    start: 100 * partition as u32,
                    length: 100,
                },
                ..append.clone()
            })
            .collect();
        client.commit(commit).await.unwrap();
    }
    let mut number = 1000;
    for snapshot in 0..3 {
        let applied = voter.image().applied();
        if snapshot > 0 {
            voter.node.raft.trigger().snapshot().await.unwrap();
        }
        let (begun, mut slowest, mut peak) = (Instant::now(), Duration::ZERO, 0);
        let mut commits = 0;
        loop {
            let before = Instant::now();
            let partition = TopicPartition::new(topic(number as u128 % topics).id, 0);
            client
                .commit(flush(id, epoch, number, partition))
                .await
                .unwrap();
            slowest = slowest.max(before.elapsed());
            number += 1;
            commits += 1;
            peak = peak.max(resident_mib());
            let done = match snapshot {
                0 => commits == 1000,
                _ => store.newest_index().is_some_and(|index| index >= applied),
            };
            if done {
                break;
            }
        }
        println!(
            "snapshot {snapshot} (0: none): {commits} commits in {:?}, the slowest {slowest:?}, {peak} MiB resident",
            begun.elapsed()
        );
    }
    drop(client);
    voter.shutdown().await;
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}

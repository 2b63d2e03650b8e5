//! A quorum that is lost, and what its archive gives back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::testing::{ManualClock, SeededIds};
use frazil_core::ports::{Catalog, NewTopic};
use frazil_core::{TopicId, TopicName};
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use crate::archive::tests::MemArchive;
use crate::archive::{ArchiveConfig, Listing};
use crate::testing::RealDisk;
use crate::{
    Archive, Client, ClientConfig, Config, Error, GAP, Metrics, Recovery, Registration, Voter,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(dir: &TempDir) -> Config {
    Config {
        log_file_bytes: 64 << 10,
        snapshot_entries: 20,
        // More than are written between two puts, so that the archive has every entry.
        kept_entries: 30,
        ..Config::new(1, BTreeMap::from([(1, "nowhere:0".to_owned())]), dir.path())
    }
}

async fn start(dir: &TempDir, archive: &Arc<MemArchive>, seed: u64) -> (Voter, Client) {
    let mut voter = Voter::start(
        config(dir),
        None,
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(seed)),
        Metrics::default(),
    )
    .await
    .unwrap();
    let settings = ArchiveConfig {
        every: Duration::from_millis(10),
        grace: Duration::ZERO,
        ..ArchiveConfig::default()
    };
    let archive: Arc<dyn Archive> = archive.clone();
    voter.archive(archive, settings);
    let client = voter.client(ClientConfig::default());
    (voter, client)
}

async fn create(client: &Client, numbers: std::ops::Range<u128>) {
    for number in numbers {
        let topic = NewTopic {
            id: TopicId::new(Uuid::from_u128(number + 1)),
            name: TopicName::new(&format!("topic-{number}")).unwrap(),
            partitions: 1,
            replication_factor: 1,
            config: BTreeMap::new(),
        };
        client.create_topic(topic).await.unwrap().unwrap();
    }
}

async fn register(client: &Client, incarnation: u128) -> u64 {
    let registration = Registration {
        id: None,
        incarnation: Uuid::from_u128(incarnation),
        host: "localhost".to_owned(),
        port: 9092,
        rack: None,
        peer: "localhost:9093".to_owned(),
        lease: Duration::from_secs(10),
    };
    client.register(registration).await.unwrap().1.0
}

/// Waits until the archive reaches as far as the image.
async fn archived(archive: &MemArchive, voter: &Voter) {
    let started = Instant::now();
    loop {
        let listing = Listing::of(archive).await.unwrap();
        let newest = listing.snapshots.last().map_or(0, |key| key.index);
        if listing.reach(newest) >= voter.image().applied() {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{listing:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn recover(archive: &MemArchive, dir: &TempDir, used: u64) -> Result<u64, Error> {
    let recovery = Recovery::read(archive).await?;
    let ids = Arc::new(SeededIds::new(99));
    recovery
        .write(&config(dir), used, Arc::new(RealDisk), ids)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_quorum_comes_back_as_it_was_and_uses_no_index_twice() {
    let archive = Arc::new(MemArchive::default());
    let lost = TempDir::new().unwrap();
    let (voter, client) = start(&lost, &archive, 1).await;
    let cluster = client.cluster_id();
    for round in 0..5 {
        create(&client, round * 20..(round + 1) * 20).await;
        archived(&archive, &voter).await;
    }
    let epoch = register(&client, 1).await;
    drop(client);
    let image = Arc::clone(voter.image());
    // What is new is put when it stops.
    voter.shutdown().await;
    let listing = Listing::of(&*archive).await.unwrap();
    assert!((1..=3).contains(&listing.snapshots.len()), "{listing:?}");

    let recovery = Recovery::read(&*archive).await.unwrap();
    assert_eq!(recovery.index(), image.applied());
    assert_eq!(*recovery.state(), image.copy().0);
    assert_eq!((recovery.damaged.len(), recovery.beyond), (0, None));

    let dir = TempDir::new().unwrap();
    let base = recover(&archive, &dir, 1_000_000).await.unwrap();
    assert_eq!(base, 1_000_000 + GAP);
    let again = recover(&archive, &dir, 0).await;
    assert!(matches!(again, Err(Error::Directory(_))), "not empty");

    // It serves, nothing is handed out twice, it restarts, and is archived in turn.
    for (seed, topics) in [(2, 101), (3, 102)] {
        let (voter, client) = start(&dir, &archive, seed).await;
        assert_eq!(client.cluster_id(), cluster);
        assert_eq!(client.topics().len(), topics - 1);
        create(&client, topics as u128..topics as u128 + 1).await;
        let newer = register(&client, seed.into()).await;
        assert!(newer > base && newer > epoch);
        drop(client);
        archived(&archive, &voter).await;
        voter.shutdown().await;
    }
    let recovery = Recovery::read(&*archive).await.unwrap();
    assert!(recovery.index() > base);
    assert_eq!(recovery.state().counts().topics, 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_and_gaps_in_the_archive_are_found_and_told() {
    let archive = Arc::new(MemArchive::default());
    let lost = TempDir::new().unwrap();
    let (voter, client) = start(&lost, &archive, 1).await;
    for round in 0..4 {
        create(&client, round * 15..(round + 1) * 15).await;
        archived(&archive, &voter).await;
    }
    drop(client);
    let image = Arc::clone(voter.image());
    voter.shutdown().await;
    let whole = Listing::of(&*archive).await.unwrap();
    assert!(whole.snapshots.len() >= 2, "{whole:?}");

    // The snapshot before the newest and the entries behind it do as well.
    let newest = whole.snapshots.last().unwrap().key();
    let rotten = archive.get(&newest).await.unwrap().slice(1..);
    archive.objects.lock().insert(newest.clone(), rotten);
    let recovery = Recovery::read(&*archive).await.unwrap();
    assert_eq!(recovery.damaged.len(), 1, "{:?}", recovery.damaged);
    assert!(recovery.damaged[0].starts_with(&newest));
    assert_eq!(recovery.index(), image.applied());
    assert_eq!(*recovery.state(), image.copy().0);

    // Without some of them, what is behind the gap is of no use.
    let (before, begin) = (whole.snapshots.len() - 2, recovery.snapshot.unwrap());
    assert_eq!(whole.snapshots[before].index, begin);
    let first = whole.parts.iter().find(|part| part.last > begin).unwrap();
    archive.delete(&first.key()).await.unwrap();
    let recovery = Recovery::read(&*archive).await.unwrap();
    assert_eq!(recovery.index(), first.first.max(begin + 1) - 1);
    assert_eq!(recovery.beyond, Some(image.applied()));

    let empty = Recovery::read(&MemArchive::default()).await;
    assert!(matches!(empty, Err(Error::Archive(_))));
}

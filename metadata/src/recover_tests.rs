//! A quorum that is lost, and what its archive gives back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use frazil_core::env::testing::{ManualClock, SeededIds};
use frazil_core::ports::{Catalog, NewTopic};
use frazil_core::{TopicId, TopicName};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

use crate::archive::tests::MemArchive;
use crate::archive::{ArchiveConfig, Listing};
use crate::testing::RealDisk;
use crate::{
    Archive, Client, ClientConfig, Config, Error, GAP, Metrics, Observer, Recovery, Registration,
    Voter, check_history,
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
    let mut recovery = Recovery::read(archive).await?;
    let ids = Arc::new(SeededIds::new(99));
    recovery
        .write(archive, &config(dir), used, Arc::new(RealDisk), ids)
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

/// Starts the voter of `dir` as `id`, with a listener at `address`.
async fn start_at(dir: &TempDir, id: u64, address: &str) -> Voter {
    let listener = TcpListener::bind(address).await.unwrap();
    let voters = BTreeMap::from([(id, address.to_owned())]);
    Voter::start(
        Config::new(id, voters, dir.path()),
        Some(listener.into()),
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(id)),
        Metrics::default(),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_the_old_quorum_that_come_back_end_and_write_nothing() {
    let often = || ArchiveConfig {
        every: Duration::from_millis(10),
        ..ArchiveConfig::default()
    };
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let archive = Arc::new(MemArchive::default());
    let old = TempDir::new().unwrap();
    let mut voter = start_at(&old, 1, &address).await;
    voter.archive(Arc::clone(&archive) as Arc<dyn Archive>, often());
    let client = voter.client(ClientConfig::default());
    create(&client, 0..10).await;
    archived(&archive, &voter).await;
    check_history(&*archive, voter.image()).await.unwrap();
    let voters = BTreeMap::from([(1, address.clone())]);
    let ids = Arc::new(SeededIds::new(50));
    let follower = Observer::start(voters, ids, Metrics::default()).unwrap();
    let following = follower.client(ClientConfig::default());
    following.ready(PATIENCE).await.unwrap();
    drop(client);
    voter.shutdown().await;

    let dir = TempDir::new().unwrap();
    let mut recovery = Recovery::read(&*archive).await.unwrap();
    let ids = Arc::new(SeededIds::new(99));
    let new = Config::new(5, BTreeMap::from([(5, address.clone())]), dir.path());
    recovery
        .write(&*archive, &new, 0, Arc::new(RealDisk), ids)
        .await
        .unwrap();
    assert_eq!(recovery.state().history().unwrap().count, 1);

    // The old voter comes back, and looks into the archive.
    let objects = archive.objects.lock().len();
    let mut voter = start_at(&old, 1, &address).await;
    let refused = check_history(&*archive, voter.image()).await.unwrap_err();
    assert!(refused.to_string().contains("frazil recover"), "{refused}");
    voter.archive(Arc::clone(&archive) as Arc<dyn Archive>, often());
    let reason = tokio::time::timeout(PATIENCE, voter.failed())
        .await
        .unwrap();
    assert!(reason.contains("frazil recover"), "{reason}");
    assert_eq!(archive.objects.lock().len(), objects);
    voter.shutdown().await;

    // Who follows the old one meets the new one where that was.
    let voter = start_at(&dir, 5, &address).await;
    let reason = tokio::time::timeout(PATIENCE, follower.failed())
        .await
        .unwrap();
    assert!(reason.contains("frazil recover"), "{reason}");
    follower.shutdown().await;
    // Started again, it follows the new one.
    let voters = BTreeMap::from([(5, address.clone())]);
    let ids = Arc::new(SeededIds::new(51));
    let follower = Observer::start(voters, ids, Metrics::default()).unwrap();
    let following = follower.client(ClientConfig::default());
    following.ready(PATIENCE).await.unwrap();
    check_history(&*archive, follower.image()).await.unwrap();
    assert_eq!(following.topics().len(), 10);
    follower.shutdown().await;
    voter.shutdown().await;
}

/// An archive of which every few requests fail: before anything happened, or after it had.
#[derive(Default)]
struct Flaky {
    inner: MemArchive,
    requests: AtomicU64,
}

impl Flaky {
    fn count(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

#[async_trait]
impl Archive for Flaky {
    async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
        let count = self.count();
        if count.is_multiple_of(3) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.inner.put(key, bytes).await?;
        match count % 5 {
            // It is there, and nobody knows.
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        match self.count() % 4 {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            _ => self.inner.list(prefix).await,
        }
    }
    async fn get(&self, key: &str) -> io::Result<Bytes> {
        self.inner.get(key).await
    }
    async fn delete(&self, key: &str) -> io::Result<()> {
        match self.count() % 2 {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            _ => self.inner.delete(key).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_fails_again_and_again_is_whole_in_the_end() {
    let archive = Arc::new(Flaky::default());
    let dir = TempDir::new().unwrap();
    for seed in 1..4 {
        let mut voter = Voter::start(
            config(&dir),
            None,
            Arc::new(RealDisk),
            Arc::new(ManualClock::new(1_000_000)),
            Arc::new(SeededIds::new(seed)),
            Metrics::default(),
        )
        .await
        .unwrap();
        let settings = ArchiveConfig {
            every: Duration::from_millis(5),
            grace: Duration::from_millis(20),
            ..ArchiveConfig::default()
        };
        voter.archive(Arc::clone(&archive) as Arc<dyn Archive>, settings);
        let client = voter.client(ClientConfig::default());
        let first = u128::from(seed) * 100;
        for round in 0..4 {
            create(&client, first + round * 15..first + (round + 1) * 15).await;
            archived(&archive.inner, &voter).await;
        }
        drop(client);
        let image = Arc::clone(voter.image());
        voter.end().await;
        let recovery = Recovery::read(&archive.inner).await.unwrap();
        assert_eq!(recovery.index(), image.applied());
        assert!(*recovery.state() == image.copy().0);
        assert_eq!((recovery.damaged.len(), recovery.beyond), (0, None));
    }
}

/// An archive that takes its time: a command comes while it puts what was before, for a while.
struct Busy {
    inner: MemArchive,
    client: std::sync::OnceLock<Client>,
    puts: AtomicU64,
    /// Commands that still come.
    left: AtomicU64,
}

#[async_trait]
impl Archive for Busy {
    async fn put(&self, key: &str, bytes: Bytes) -> io::Result<()> {
        self.inner.put(key, bytes).await?;
        let put = self.puts.fetch_add(1, Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed);
        if let Some(client) = self.client.get()
            && left > 0
        {
            self.left.store(left - 1, Ordering::Relaxed);
            let number = 1000 + u128::from(put);
            create(client, number..number + 1).await;
        }
        Ok(())
    }
    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.inner.list(prefix).await
    }
    async fn get(&self, key: &str) -> io::Result<Bytes> {
        self.inner.get(key).await
    }
    async fn delete(&self, key: &str) -> io::Result<()> {
        self.inner.delete(key).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_go_on_do_not_become_an_object_each() {
    let archive = Arc::new(Busy {
        inner: MemArchive::default(),
        client: std::sync::OnceLock::new(),
        puts: AtomicU64::new(0),
        left: AtomicU64::new(40),
    });
    let dir = TempDir::new().unwrap();
    let config = Config {
        snapshot_entries: 1000,
        kept_entries: 1000,
        ..config(&dir)
    };
    let mut voter = Voter::start(
        config,
        None,
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(1)),
        Metrics::default(),
    )
    .await
    .unwrap();
    let client = voter.client(ClientConfig::default());
    client.ready(PATIENCE).await.unwrap();
    create(&client, 0..10).await;
    assert!(archive.client.set(client.clone()).is_ok());
    // One round at the beginning and one at the end.
    let settings = ArchiveConfig {
        every: Duration::from_secs(3600),
        ..ArchiveConfig::default()
    };
    voter.archive(Arc::clone(&archive) as Arc<dyn Archive>, settings);
    let started = Instant::now();
    while client.topics().len() < 11 {
        assert!(started.elapsed() < PATIENCE, "nothing was put");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(client);
    voter.end().await;
    assert!(archive.puts.load(Ordering::Relaxed) <= 3);
    let reach = Listing::of(&archive.inner).await.unwrap().reach(0);
    let recovery = Recovery::read(&archive.inner).await.unwrap();
    assert_eq!(recovery.index(), reach);
    assert!(
        recovery.state().topics().len() >= 11,
        "both rounds are there"
    );
}

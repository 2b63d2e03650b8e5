//! Voters, observers and clients together, over loopback TCP and the real disk.

mod clock;
mod damage;
mod partitions;
mod removed;
mod snapshots;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use frazil_core::env::testing::{ManualClock, SeededIds};
use frazil_core::ports::{
    Append, BatchInfo, BatchOutcome, Catalog, CatalogRefusal, Commit, LogIndex, NewTopic,
    SegmentInfo, Sequencer,
};
use frazil_core::{
    BrokerEpoch, BrokerId, Location, Offset, PortError, SegmentId, TopicId, TopicName,
    TopicPartition,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::testing::RealDisk;
use crate::{Admin, Client, ClientConfig, Config, Error, Metrics, Observer, Registration, Voter};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(voter: u64, voters: &BTreeMap<u64, String>, dir: &Path) -> Config {
    Config {
        log_file_bytes: 64 << 10,
        election_timeout: Duration::from_millis(400),
        heartbeat: Duration::from_millis(100),
        ..Config::new(voter, voters.clone(), dir)
    }
}

async fn start(config: Config, listener: Option<TcpListener>, seed: u64) -> Result<Voter, Error> {
    let clock = Arc::new(ManualClock::new(1_000_000));
    start_with(config, listener, seed, clock).await
}

async fn start_with(
    config: Config,
    listener: Option<TcpListener>,
    seed: u64,
    clock: Arc<ManualClock>,
) -> Result<Voter, Error> {
    Voter::start(
        config,
        listener.map(Into::into),
        Arc::new(RealDisk),
        clock,
        Arc::new(SeededIds::new(seed)),
        Metrics::default(),
    )
    .await
}

fn alone(dir: &TempDir) -> Config {
    let voters = BTreeMap::from([(1, "nowhere:0".to_owned())]);
    config(1, &voters, dir.path())
}

fn topic(number: u128) -> NewTopic {
    NewTopic {
        id: TopicId::new(Uuid::from_u128(number)),
        name: TopicName::new(&format!("topic-{number}")).unwrap(),
        partitions: 3,
        replication_factor: 1,
        config: BTreeMap::new(),
    }
}

async fn create(client: &Client, number: u128) {
    let created = client.create_topic(topic(number)).await.unwrap().unwrap();
    assert_eq!(created.id, topic(number).id);
    // What was written is read, on this very node.
    assert!(client.topic_by_id(created.id).is_some());
}

fn broker(incarnation: u128) -> Registration {
    Registration {
        id: None,
        incarnation: Uuid::from_u128(incarnation),
        host: "localhost".to_owned(),
        port: 9092,
        rack: None,
        peer: "localhost:9093".to_owned(),
        lease: Duration::from_secs(10),
    }
}

fn flush(broker: BrokerId, epoch: BrokerEpoch, number: u64, partition: TopicPartition) -> Commit {
    let id = SegmentId::new(epoch, number);
    Commit {
        broker,
        epoch,
        sealed_below: 0,
        segments: vec![SegmentInfo { id, bytes: 1000 }],
        appends: vec![Append {
            partition,
            location: Location::Segment {
                id,
                start: 0,
                length: 100,
            },
            batches: vec![BatchInfo {
                length: 100,
                records: 10,
                max_timestamp: 5,
                producer: None,
            }],
        }],
        moves: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_voter_leads_at_once_and_keeps_everything_over_a_restart() {
    let dir = TempDir::new().unwrap();
    let voter = start(alone(&dir), None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    client.ready(PATIENCE).await.unwrap();
    let cluster = client.cluster_id();
    assert!(!cluster.is_empty());
    for number in 0..20 {
        create(&client, number).await;
    }
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    let partition = TopicPartition::new(topic(3).id, 1);
    let outcome = client.commit(flush(id, epoch, 0, partition)).await.unwrap();
    assert_eq!(
        outcome.appends[0].batches,
        [BatchOutcome::Appended(Offset(0))]
    );
    let refused = client.create_topic(NewTopic {
        id: TopicId::new(Uuid::from_u128(999)),
        ..topic(3)
    });
    assert_eq!(refused.await.unwrap(), Err(CatalogRefusal::TopicExists));
    drop(client);
    voter.shutdown().await;

    let started = Instant::now();
    let voter = start(alone(&dir), None, 2).await.unwrap();
    let client = voter.client(ClientConfig::default());
    client.barrier().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(client.cluster_id(), cluster);
    assert_eq!(client.topics().len(), 20);
    assert_eq!(
        client.bounds(&partition).unwrap().high_watermark,
        Offset(10)
    );
    let status = client.status().await.unwrap();
    assert_eq!((status.leader, status.voters), (Some(1), vec![1]));
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_voter_comes_back_from_snapshot_and_log() {
    let dir = TempDir::new().unwrap();
    let config = || Config {
        snapshot_entries: 20,
        kept_entries: 5,
        ..alone(&dir)
    };
    let voter = start(config(), None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    for number in 0..100 {
        create(&client, number).await;
    }
    drop(client);
    let snapshots = || {
        let names = frazil_core::env::Disk::list(&RealDisk, dir.path()).unwrap();
        names.iter().filter(|name| name.ends_with(".snap")).count()
    };
    // They are written in the background.
    let started = Instant::now();
    while snapshots() == 0 {
        assert!(started.elapsed() < Duration::from_secs(30), "no snapshot");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    voter.shutdown().await;
    // Two are kept; the stop may come between a third one's writing and the removal of the first.
    assert!((1..=3).contains(&snapshots()));

    let voter = start(config(), None, 2).await.unwrap();
    let client = voter.client(ClientConfig::default());
    assert_eq!(client.topics().len(), 100);
    create(&client, 100).await;
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_voter_or_without_its_log_is_refused() {
    let dir = TempDir::new().unwrap();
    start(alone(&dir), None, 1).await.unwrap().shutdown().await;

    let voters = BTreeMap::from([(2, "nowhere:0".to_owned())]);
    let other = start(config(2, &voters, dir.path()), None, 2).await;
    assert!(matches!(other, Err(Error::Directory(_))));

    for name in frazil_core::env::Disk::list(&RealDisk, dir.path()).unwrap() {
        if name.ends_with(".log") {
            frazil_core::env::Disk::remove(&RealDisk, &dir.path().join(name)).unwrap();
        }
    }
    let lost = start(alone(&dir), None, 3).await;
    assert!(matches!(lost, Err(Error::Directory(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_rung_by_its_partitions_only() {
    let dir = TempDir::new().unwrap();
    let voter = start(alone(&dir), None, 1).await.unwrap();
    let client = voter.client(ClientConfig::default());
    create(&client, 1).await;
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    let partition = |index| TopicPartition::new(topic(1).id, index);
    let mut watched = client.watch(&[partition(0), partition(1)]);
    let mut other = client.watch(&[partition(2)]);
    client
        .commit(flush(id, epoch, 0, partition(1)))
        .await
        .unwrap();
    // The change lies before the wait, and is not missed.
    tokio::time::timeout(PATIENCE, watched.changed())
        .await
        .unwrap();
    let untouched = tokio::time::timeout(Duration::from_millis(50), other.changed()).await;
    assert!(untouched.is_err());
    voter.shutdown().await;
}

/// A TCP link, either direction of which can be made to swallow everything.
struct Link {
    address: String,
    there: tokio::sync::watch::Sender<bool>,
    back: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Link {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (there, there_gate) = tokio::sync::watch::channel(true);
        let (back, back_gate) = tokio::sync::watch::channel(true);
        let task = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                links.spawn(hand_on(near_in, far_out, there_gate.clone()));
                links.spawn(hand_on(far_in, near_out, back_gate.clone()));
            }
        });
        Self {
            address,
            there,
            back,
            task,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hand_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut gate: tokio::sync::watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
        && gate.wait_for(|open| *open).await.is_ok()
        && to.write_all(&buffer[..count]).await.is_ok()
    {}
}

/// Three voters on loopback.
struct Cluster {
    addresses: BTreeMap<u64, String>,
    /// What each voter believes the addresses to be, if not those.
    routes: BTreeMap<u64, BTreeMap<u64, String>>,
    links: BTreeMap<(u64, u64), Link>,
    dirs: BTreeMap<u64, TempDir>,
    voters: BTreeMap<u64, Voter>,
    starts: u64,
    entries: u64,
    /// The feature levels that older programs know.
    knows: BTreeMap<u64, u8>,
    /// Those of the voters that have one of their own.
    clocks: BTreeMap<u64, Arc<ManualClock>>,
}

impl Cluster {
    async fn new(snapshot_entries: u64) -> Self {
        Self::started(snapshot_entries, BTreeMap::new()).await
    }

    async fn started(snapshot_entries: u64, knows: BTreeMap<u64, u8>) -> Self {
        let mut listeners = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for id in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.insert(id, listener.local_addr().unwrap().to_string());
            listeners.insert(id, listener);
        }
        let mut cluster = Self {
            addresses,
            routes: BTreeMap::new(),
            links: BTreeMap::new(),
            dirs: (1..=3).map(|id| (id, TempDir::new().unwrap())).collect(),
            voters: BTreeMap::new(),
            starts: 0,
            entries: snapshot_entries,
            knows,
            clocks: BTreeMap::new(),
        };
        for (id, listener) in listeners {
            cluster.start_on(id, listener).await;
        }
        cluster
    }

    /// Like [`Self::new`], with a link between any two voters.
    async fn linked() -> Self {
        let mut cluster = Self::new(1000).await;
        for id in 1..=3 {
            cluster.client(id).ready(PATIENCE).await.unwrap();
        }
        for id in 1..=3 {
            cluster.stop(id).await;
        }
        for from in 1..=3 {
            let mut route = cluster.addresses.clone();
            for to in (1..=3).filter(|to| *to != from) {
                let link = Link::to(cluster.addresses[&to].clone()).await;
                route.insert(to, link.address.clone());
                cluster.links.insert((from, to), link);
            }
            cluster.routes.insert(from, route);
        }
        for id in 1..=3 {
            cluster.restart(id).await;
        }
        cluster
    }

    /// Lets a voter's bytes out and the others' in, or not.
    fn connect(&self, id: u64, outgoing: bool, incoming: bool) {
        for ((from, to), link) in &self.links {
            if *from == id {
                link.there.send_replace(outgoing);
                link.back.send_replace(incoming);
            }
            if *to == id {
                link.there.send_replace(incoming);
                link.back.send_replace(outgoing);
            }
        }
    }

    async fn start_on(&mut self, id: u64, listener: TcpListener) {
        self.starts += 1;
        let config = Config {
            snapshot_entries: self.entries,
            kept_entries: self.entries / 4,
            knows: self
                .knows
                .get(&id)
                .copied()
                .unwrap_or(crate::command::LEVEL),
            ..config(
                id,
                self.routes.get(&id).unwrap_or(&self.addresses),
                self.dirs[&id].path(),
            )
        };
        let shared = || Arc::new(ManualClock::new(1_000_000));
        let clock = self.clocks.get(&id).cloned().unwrap_or_else(shared);
        let voter = start_with(config, Some(listener), self.starts, clock);
        let voter = voter.await.unwrap();
        self.voters.insert(id, voter);
    }

    async fn restart(&mut self, id: u64) {
        let listener = TcpListener::bind(&self.addresses[&id]).await.unwrap();
        self.start_on(id, listener).await;
    }

    async fn stop(&mut self, id: u64) {
        self.voters.remove(&id).unwrap().shutdown().await;
    }

    fn client(&self, id: u64) -> Client {
        self.voters[&id].client(ClientConfig::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_voters_survive_their_leader_and_a_restart_of_all() {
    let mut cluster = Cluster::new(1000).await;
    let clients: Vec<_> = (1..=3).map(|id| cluster.client(id)).collect();
    for client in &clients {
        client.ready(PATIENCE).await.unwrap();
    }
    let observer = Observer::start(
        cluster.addresses.clone(),
        Arc::new(SeededIds::new(77)),
        Metrics::default(),
    )
    .unwrap();
    let observing = observer.client(ClientConfig::default());
    observing.ready(PATIENCE).await.unwrap();

    // Written through any node, seen at once through any other.
    for number in 0..12_usize {
        create(&clients[number % 3], number as u128).await;
        observing.barrier().await.unwrap();
        assert!(observing.topic(&format!("topic-{number}")).is_some());
        let another = &clients[(number + 1) % 3];
        another.barrier().await.unwrap();
        assert_eq!(another.topics().len(), number + 1);
    }
    create(&observing, 12).await;

    let leader = observing.status().await.unwrap().leader.unwrap();
    drop(clients);
    cluster.stop(leader).await;
    for number in 13..20 {
        create(&observing, number).await;
    }
    let survivor = *cluster.voters.keys().next().unwrap();
    let client = cluster.client(survivor);
    client.barrier().await.unwrap();
    assert_eq!(client.topics().len(), 20);
    let name = client.cluster_id();
    drop(client);

    for id in cluster.voters.keys().copied().collect::<Vec<_>>() {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    for id in 1..=3 {
        let client = cluster.client(id);
        client.ready(PATIENCE).await.unwrap();
        assert_eq!(client.topics().len(), 20);
        assert_eq!(client.cluster_id(), name);
    }
    // The observer has found its way back.
    observing.barrier().await.unwrap();
    create(&observing, 20).await;
    observer.shutdown().await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_and_an_observer_that_are_far_behind_get_snapshots() {
    let mut cluster = Cluster::new(40).await;
    let leader = {
        let client = cluster.client(1);
        client.ready(PATIENCE).await.unwrap();
        client.status().await.unwrap().leader.unwrap()
    };
    let client = cluster.client(leader);
    let late = if leader == 3 { 2 } else { 3 };
    cluster.stop(late).await;
    for number in 0..200 {
        create(&client, number).await;
    }
    cluster.restart(late).await;
    let returned = cluster.client(late);
    returned.barrier().await.unwrap();
    assert_eq!(returned.topics().len(), 200);

    let observer = Observer::start(
        cluster.addresses.clone(),
        Arc::new(SeededIds::new(5)),
        Metrics::default(),
    )
    .unwrap();
    let observing = observer.client(ClientConfig::default());
    observing.barrier().await.unwrap();
    assert_eq!(observing.topics().len(), 200);
    observer.shutdown().await;
    drop((client, returned));
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_a_command_ends_at_its_deadline() {
    let mut cluster = Cluster::new(1000).await;
    let client = cluster.voters[&1].client(ClientConfig {
        deadline: Duration::from_secs(2),
        attempt: Duration::from_millis(500),
        ..ClientConfig::default()
    });
    client.ready(PATIENCE).await.unwrap();
    cluster.stop(2).await;
    cluster.stop(3).await;
    let result = client.create_topic(topic(1)).await;
    assert!(
        matches!(
            result,
            Err(PortError::Indeterminate(_) | PortError::Unavailable(_))
        ),
        "{result:?}"
    );
    assert!(matches!(
        client.barrier().await,
        Err(PortError::Unavailable(_))
    ));
    cluster.restart(2).await;
    client.ready(PATIENCE).await.unwrap();
    create(&client, 2).await;
    drop(client);
    cluster.stop(1).await;
    cluster.stop(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_lets_nobody_read_the_past() {
    let mut cluster = Cluster::linked().await;
    let patient = ClientConfig {
        attempt: Duration::from_millis(500),
        ..ClientConfig::default()
    };
    let clients: BTreeMap<u64, Client> = (1..=3)
        .map(|id| (id, cluster.voters[&id].client(patient.clone())))
        .collect();
    for client in clients.values() {
        client.ready(PATIENCE).await.unwrap();
    }
    let mut number = 0;
    // Cut off altogether; heard but deaf; hearing but mute.
    for (outgoing, incoming) in [(false, false), (true, false), (false, true)] {
        let leader = loop {
            let status = clients[&1].status().await.unwrap();
            if let Some(leader) = status.leader {
                break leader;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let other = leader % 3 + 1;
        create(&clients[&other], number).await;
        cluster.connect(leader, outgoing, incoming);

        // The others go on.
        create(&clients[&other], number + 1).await;
        // Whoever passes a barrier at the old leader sees that.
        let barrier = tokio::time::timeout(Duration::from_secs(1), clients[&leader].barrier());
        if let Ok(Ok(())) = barrier.await {
            let name = format!("topic-{}", number + 1);
            assert!(clients[&leader].topic(&name).is_some());
        }
        // What is begun there ends, once, when it is connected again.
        let client = clients[&leader].clone();
        let begun = tokio::spawn(async move { client.create_topic(topic(number + 2)).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.connect(leader, true, true);
        begun.await.unwrap().unwrap().unwrap();
        number += 3;
        for client in clients.values() {
            client.barrier().await.unwrap();
            assert_eq!(client.topics().len(), number as usize);
        }
    }
    drop(clients);
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

/// Commands are retried while leaders vanish; each is applied once.
#[tokio::test(flavor = "multi_thread")]
async fn commits_are_applied_once_while_leaders_come_and_go() {
    let mut cluster = Cluster::new(200).await;
    let observer = Observer::start(
        cluster.addresses.clone(),
        Arc::new(SeededIds::new(99)),
        Metrics::default(),
    )
    .unwrap();
    let client = observer.client(ClientConfig {
        attempt: Duration::from_millis(500),
        ..ClientConfig::default()
    });
    client.ready(PATIENCE).await.unwrap();
    create(&client, 1).await;
    let (id, epoch) = client.register(broker(1)).await.unwrap();

    let stop = tokio_util::sync::CancellationToken::new();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..3_u64 {
        let (client, stop) = (client.clone(), stop.clone());
        writers.spawn(async move {
            let partition = TopicPartition::new(topic(1).id, writer as i32);
            let mut count = 0;
            while !stop.is_cancelled() {
                let number = writer + 3 * count as u64;
                let outcome = client.commit(flush(id, epoch, number, partition)).await;
                // In order, without a gap, and never twice: or the offset would be another.
                assert_eq!(
                    outcome.unwrap().appends[0].batches,
                    [BatchOutcome::Appended(Offset(10 * count))]
                );
                count += 1;
                let bounds = client.bounds(&partition).unwrap();
                assert_eq!(bounds.high_watermark, Offset(10 * count));
            }
            count
        });
    }
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = client.status().await.unwrap();
        let Some(leader) = status.leader.filter(|id| cluster.voters.contains_key(id)) else {
            continue;
        };
        cluster.voters.remove(&leader).unwrap().end().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.restart(leader).await;
    }
    stop.cancel();
    let mut total = 0;
    while let Some(count) = writers.join_next().await {
        total += count.unwrap();
    }
    assert!(total > 0);
    observer.shutdown().await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_returns_without_its_disk_is_refused_if_the_leader_remembers() {
    let mut cluster = Cluster::new(1000).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    create(&client, 1).await;
    let leader = client.status().await.unwrap().leader.unwrap();
    drop(client);
    let lost = if leader == 3 { 2 } else { 3 };
    let client = cluster.client(leader);
    // Until the leader has heard from it.
    let heard = async {
        while !client
            .status()
            .await
            .unwrap()
            .acknowledged
            .contains_key(&lost)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    cluster.stop(lost).await;
    cluster.dirs.insert(lost, TempDir::new().unwrap());
    let listener = TcpListener::bind(&cluster.addresses[&lost]).await.unwrap();
    let config = config(lost, &cluster.addresses, cluster.dirs[&lost].path());
    let returned = start(config, Some(listener), 50).await;
    assert!(matches!(returned, Err(Error::Directory(_))));
    drop(client);
    for id in (1..=3).filter(|id| *id != lost) {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lost_its_disk_is_refused_by_whoever_is_left_of_those_that_remember() {
    let mut cluster = Cluster::new(1000).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    let admin = Admin::new(&cluster.addresses[&1]);
    until("all ids are noted", async || {
        admin.members().await.unwrap().seen == BTreeSet::from([1, 2, 3])
    })
    .await;
    drop(client);
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    // Whoever leads now has never heard from it.
    cluster.restart(1).await;
    cluster.restart(3).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    drop(client);
    cluster.dirs.insert(2, TempDir::new().unwrap());
    let listener = TcpListener::bind(&cluster.addresses[&2]).await.unwrap();
    let config = config(2, &cluster.addresses, cluster.dirs[&2].path());
    let refused = start(config, Some(listener), 70).await;
    assert!(matches!(refused, Err(Error::Directory(_))));
    cluster.stop(1).await;
    cluster.stop(3).await;
}

/// Waits until `condition` holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A node that is to become a voter of `cluster`.
async fn newcomer(cluster: &mut Cluster, id: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    cluster.addresses.insert(id, address.clone());
    cluster.dirs.insert(id, TempDir::new().unwrap());
    cluster.start_on(id, listener).await;
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn every_voter_is_replaced_while_an_observer_with_the_old_addresses_goes_on() {
    let mut cluster = Cluster::new(1000).await;
    let observer = Observer::start(
        cluster.addresses.clone(),
        Arc::new(SeededIds::new(60)),
        Metrics::default(),
    )
    .unwrap();
    let client = observer.client(ClientConfig::default());
    client.ready(PATIENCE).await.unwrap();
    create(&client, 0).await;

    let ask = Admin::new(&cluster.addresses[&1]);
    let wrong = ask.add_voter(4, "127.0.0.1:1".to_owned()).await;
    assert!(matches!(wrong, Err(Error::Refused(_))), "{wrong:?}");
    for id in 4..=6 {
        let address = newcomer(&mut cluster, id).await;
        let any = Admin::new(&cluster.addresses[&(id - 3)]);
        let members = any.add_voter(id, address.clone()).await.unwrap();
        assert_eq!(members.voters.get(&id), Some(&address));
        // Asking again changes nothing.
        any.add_voter(id, address).await.unwrap();
        create(&client, u128::from(id)).await;
    }
    // An operator is not as fast as this test: everybody has heard of the new ones.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ask = Admin::new(&cluster.addresses[&6]);
    for id in 1..=3 {
        let members = ask.remove_voter(id).await.unwrap();
        assert!(!members.voters.contains_key(&id), "{members:?}");
        cluster.stop(id).await;
        create(&client, u128::from(id)).await;
        client.barrier().await.unwrap();
    }
    let members = ask.members().await.unwrap();
    assert_eq!(
        members.voters.keys().copied().collect::<Vec<_>>(),
        [4, 5, 6]
    );
    assert_eq!(client.topics().len(), 7);

    // An id is never used again, and the last voters stay.
    let again = ask.add_voter(1, cluster.addresses[&1].clone()).await;
    assert!(matches!(again, Err(Error::Refused(_))), "{again:?}");
    assert!(matches!(ask.remove_voter(77).await, Err(Error::Refused(_))));
    drop(client);
    observer.shutdown().await;
    for id in 4..=6 {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_voter_is_joined_by_two_and_survives_its_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let mut cluster = Cluster {
        addresses: BTreeMap::from([(1, own.clone())]),
        routes: BTreeMap::new(),
        links: BTreeMap::new(),
        dirs: BTreeMap::from([(1, TempDir::new().unwrap())]),
        voters: BTreeMap::new(),
        starts: 0,
        entries: 1000,
        knows: BTreeMap::new(),
        clocks: BTreeMap::new(),
    };
    cluster.start_on(1, listener).await;
    let alone = cluster.addresses.clone();
    let client = cluster.client(1);
    create(&client, 1).await;
    assert!(matches!(
        Admin::new(&own).remove_voter(1).await,
        Err(Error::Refused(_))
    ));
    for id in [2, 3] {
        let address = newcomer(&mut cluster, id).await;
        Admin::new(&own).add_voter(id, address).await.unwrap();
        create(&client, u128::from(id)).await;
    }
    drop(client);
    // It alone decides nothing any more, whatever its configuration says.
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    cluster.routes.insert(1, alone);
    cluster.restart(1).await;
    let hasty = cluster.voters[&1].client(ClientConfig {
        deadline: Duration::from_secs(2),
        ..ClientConfig::default()
    });
    assert!(hasty.barrier().await.is_err());
    drop(hasty);
    cluster.restart(2).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    create(&client, 4).await;
    assert_eq!(client.topics().len(), 4);
    drop(client);
    cluster.stop(1).await;
    cluster.stop(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_reach_the_leader_goes_through_a_follower() {
    let mut cluster = Cluster::new(1000).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    create(&client, 0).await;
    let leader = client.status().await.unwrap().leader.unwrap();
    drop(client);

    // Links of this client only; that to the leader then swallows everything.
    let mut links = BTreeMap::new();
    let mut route = BTreeMap::new();
    for id in 1..=3 {
        let link = Link::to(cluster.addresses[&id].clone()).await;
        route.insert(id, link.address.clone());
        links.insert(id, link);
    }
    let ids = Arc::new(SeededIds::new(61));
    let observer = Observer::start(route, ids, Metrics::default()).unwrap();
    let client = observer.client(ClientConfig {
        attempt: Duration::from_millis(500),
        ..ClientConfig::default()
    });
    client.ready(PATIENCE).await.unwrap();
    create(&client, 1).await;
    links[&leader].there.send_replace(false);
    links[&leader].back.send_replace(false);
    for number in 2..12 {
        create(&client, number).await;
        client.barrier().await.unwrap();
    }
    let status = cluster.client(leader).status().await.unwrap();
    assert_eq!(status.leader, Some(leader), "the quorum was not disturbed");
    drop(client);
    observer.shutdown().await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

/// Not a test of time: prints how many commands a second a lone voter commits.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn measure_commits_of_a_lone_voter() {
    let dir = TempDir::new().unwrap();
    let config = Config {
        log_file_bytes: 16 << 20,
        ..alone(&dir)
    };
    let started = Instant::now();
    let metrics = Metrics::default();
    let voter = Voter::start(
        config,
        None,
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(1_000_000)),
        Arc::new(SeededIds::new(1)),
        metrics.clone(),
    )
    .await
    .unwrap();
    println!(
        "started in {:?} with {} syncs",
        started.elapsed(),
        metrics.syncs.get()
    );
    let client = voter.client(ClientConfig::default());
    create(&client, 1).await;
    let (id, epoch) = client.register(broker(1)).await.unwrap();
    let partition = TopicPartition::new(topic(1).id, 0);
    let mut number = 0;
    for in_flight in [1_u64, 16, 128] {
        let before = Instant::now();
        let syncs = metrics.syncs.get();
        let mut tasks = tokio::task::JoinSet::new();
        let each = 6400 / in_flight.max(4);
        for task in 0..in_flight {
            let client = client.clone();
            let from = number + task * each;
            tasks.spawn(async move {
                for n in from..from + each {
                    client.commit(flush(id, epoch, n, partition)).await.unwrap();
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        number += in_flight * each;
        let count = in_flight * each;
        let took = before.elapsed();
        println!(
            "{in_flight:4} in flight: {:.0} commits/s, {:?} each, {:.2} per sync",
            count as f64 / took.as_secs_f64(),
            took / count as u32 * in_flight as u32,
            count as f64 / (metrics.syncs.get() - syncs) as f64,
        );
    }
    let before = Instant::now();
    for _ in 0..10_000 {
        client.barrier().await.unwrap();
    }
    println!("barrier: {:?}", before.elapsed() / 10_000);
    let before = cpu_ticks();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("idle: {} % of a core", (cpu_ticks() - before) / 5.0);
    voter.shutdown().await;
}

/// Hundredths of a second of processor time that this process has taken.
fn cpu_ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    fields[13].parse::<f64>().unwrap() + fields[14].parse::<f64>().unwrap()
}

/// Raft writes its metrics with each entry; whoever borrows them twice at once waits for ever when
/// it does so in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_how_a_voter_is_never_stands_in_rafts_way() {
    let cluster = Cluster::new(1000).await;
    let client = cluster.client(1);
    client.ready(PATIENCE).await.unwrap();
    let stop = CancellationToken::new();
    let askers: Vec<_> = (1..=3)
        .map(|id| {
            let (client, stop) = (cluster.client(id), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    client.status().await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let writing = async {
        for number in 0..300 {
            create(&client, number).await;
        }
    };
    tokio::time::timeout(PATIENCE, writing).await.unwrap();
    stop.cancel();
    for asker in askers {
        tokio::time::timeout(PATIENCE, asker)
            .await
            .unwrap()
            .unwrap();
    }
}

//! Several nodes of one cluster, each a process of its own.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use frazil_core::batch::BatchHeader;
use rdkafka::Offset;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tempfile::TempDir;

use crate::produce::{next, reader};
use crate::raw::{Connection, batch, fetch, fetched, outcome, produce};
use crate::server::{PATIENCE, Server, free_address};

/// One voter that also collects, and a bucket.
pub(crate) struct Cluster {
    pub(crate) bucket: TempDir,
    pub(crate) peers: SocketAddr,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            bucket: tempfile::tempdir().unwrap(),
            peers: free_address(),
        }
    }

    fn node(&self, id: u32, settings: &[&str]) -> Server {
        let id = format!("node.id={id}");
        let store = format!("store.url=file:{}", self.bucket.path().display());
        let voters = format!("controller.quorum.voters=1@{}", self.peers);
        let mut all = vec![id.as_str(), &store, &voters];
        all.extend(settings);
        Server::with(&all)
    }

    pub(crate) fn voter(&self, settings: &[&str]) -> Server {
        let peers = format!("peer.listen={}", self.peers);
        let mut all = vec!["roles=metadata,compactor", peers.as_str()];
        all.extend(settings);
        self.node(1, &all)
    }

    /// A gateway without an id of its own.
    pub(crate) fn nameless(&self) -> Server {
        self.nameless_with(&[])
    }

    /// The same, with further settings.
    fn nameless_with(&self, further: &[&str]) -> Server {
        let store = format!("store.url=file:{}", self.bucket.path().display());
        let voters = format!("controller.quorum.voters=1@{}", self.peers);
        let peers = format!("peer.listen={}", free_address());
        let mut all = vec!["roles=gateway", &store, &voters, &peers];
        all.extend(further);
        Server::with(&all)
    }

    pub(crate) fn gateway(&self, id: u32) -> Server {
        let peers = format!("peer.listen={}", free_address());
        self.node(id, &["roles=gateway", &peers])
    }
}

pub(crate) async fn send(server: &Server, topic: &str, value: &str) -> i64 {
    let producer: FutureProducer = server.client().create().unwrap();
    let record = FutureRecord::<str, str>::to(topic).payload(value);
    producer.send(record, PATIENCE).await.unwrap().offset
}

fn wait_for_log(server: &Server, text: &str) {
    let start = Instant::now();
    while !server.log().contains(text) {
        assert!(start.elapsed() < PATIENCE, "no {text:?}:\n{}", server.log());
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_given_up_ends_when_it_wakes_and_is_itself_when_started_again() {
    let cluster = Cluster::new();
    let voter = cluster.voter(&[
        "gateway.seal.after.ms=500",
        "log.retention.check.interval.ms=500",
    ]);
    let mut gateway = cluster.gateway(11);
    gateway.create_topic("kept", 1, &[]).await;
    assert_eq!(send(&gateway, "kept", "before").await, 0);

    // Nobody hears of it until its epoch is sealed.
    gateway.signal("STOP");
    wait_for_log(&voter, "is declared dead");
    gateway.signal("CONT");
    assert_eq!(gateway.wait(), Some(1), "{}", gateway.log());
    assert!(gateway.log().contains("started again, it registers anew"));

    gateway.revive();
    assert_eq!(send(&gateway, "kept", "after").await, 1);
    let consumer = reader(&gateway, "kept", 0, Offset::Beginning);
    for expected in ["before", "after"] {
        assert_eq!(next(&consumer).payload(), Some(expected.as_bytes()));
    }
}

fn voters(peer: SocketAddr, command: &[&str]) -> Result<serde_json::Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["cluster", "voter"])
        .args(command)
        .args(["--json", "--peer", &peer.to_string()])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn ids(voters: &serde_json::Value) -> Vec<u64> {
    let rows = voters.as_array().unwrap().iter();
    rows.map(|row| row["id"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_until_it_is_added_and_the_first_voter_can_go() {
    let cluster = Cluster::new();
    let mut first = cluster.voter(&[]);
    let gateway = cluster.gateway(11);
    gateway.create_topic("kept", 1, &[]).await;
    assert_eq!(send(&gateway, "kept", "one").await, 0);

    let peer = free_address();
    let added = format!("2@{peer}");
    let refused = voters(cluster.peers, &["add", &added]).unwrap_err();
    assert!(refused.contains("does not run"), "{refused}");
    let known = format!("controller.quorum.voters=1@{},{added}", cluster.peers);
    let listen = format!("peer.listen={peer}");
    let store = format!("store.url=file:{}", cluster.bucket.path().display());
    // Ready only when it is a voter.
    let starting = std::thread::spawn(move || {
        Server::with(&["roles=metadata", "node.id=2", &listen, &known, &store])
    });
    let start = Instant::now();
    let now = loop {
        match voters(cluster.peers, &["add", &added]) {
            Ok(now) => break now,
            Err(why) => assert!(start.elapsed() < PATIENCE, "{why}"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    };
    assert_eq!(ids(&now), [1, 2]);
    let second = starting.join().unwrap();
    assert_eq!(send(&gateway, "kept", "two").await, 1);

    // The first one leads, and hands over before it goes.
    assert_eq!(ids(&voters(peer, &["remove", "1"]).unwrap()), [2]);
    assert_eq!(first.terminate(), Some(0), "{}", first.log());
    assert_eq!(send(&gateway, "kept", "three").await, 2);
    let left = voters(peer, &["list"]).unwrap();
    assert_eq!(
        (ids(&left), left[0]["role"].as_str()),
        (vec![2], Some("leader"))
    );
    let last = voters(peer, &["remove", "2"]).unwrap_err();
    assert!(last.contains("the last one"), "{last}");
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_another_superseded_ends_when_it_wakes() {
    let cluster = Cluster::new();
    let _voter = cluster.voter(&[]);
    let mut first = cluster.gateway(11);
    first.create_topic("kept", 1, &[]).await;
    assert_eq!(send(&first, "kept", "first").await, 0);
    first.signal("STOP");
    let second = cluster.gateway(11);
    assert_eq!(send(&second, "kept", "second").await, 1);
    first.signal("CONT");
    assert_eq!(first.wait(), Some(1), "{}", first.log());
    assert!(first.log().contains("another process has registered"));
    assert_eq!(send(&second, "kept", "third").await, 2);
    let consumer = reader(&second, "kept", 0, Offset::Beginning);
    for expected in ["first", "second", "third"] {
        assert_eq!(next(&consumer).payload(), Some(expected.as_bytes()));
    }
}

/// The brokers that a client is told of, by the port they listen on.
fn brokers(server: &Server) -> Vec<(i32, u16)> {
    let client: rdkafka::consumer::BaseConsumer = server.client().create().unwrap();
    let metadata = rdkafka::consumer::Consumer::fetch_metadata(&client, None, PATIENCE).unwrap();
    let brokers = metadata.brokers().iter();
    let mut found: Vec<_> = brokers.map(|b| (b.id(), b.port() as u16)).collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_without_an_id_get_one_each_and_keep_it_as_long_as_their_disk() {
    let cluster = Cluster::new();
    let _voter = cluster.voter(&[]);
    let mut first = cluster.nameless();
    let mut second = cluster.nameless();
    let both = [(1001, first.kafka.port()), (1002, second.kafka.port())];
    assert_eq!(brokers(&first), both);

    first.kill();
    first.revive();
    assert_eq!(brokers(&second), both);

    // Without its disk it is another one.
    assert_eq!(second.terminate(), Some(0), "{}", second.log());
    std::fs::remove_dir_all(second.data()).unwrap();
    second.revive();
    let now = [(1001, first.kafka.port()), (1003, second.kafka.port())];
    assert_eq!(brokers(&first), now);
    // Both serve: neither has superseded the other.
    first.create_topic("kept", 1, &[]).await;
    assert_eq!(send(&first, "kept", "one").await, 0);
    assert_eq!(send(&second, "kept", "two").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_in_the_log_of_one_gateway_are_read_through_another() {
    let cluster = Cluster::new();
    // One of them is a voter too: one port serves the quorum and the other gateway.
    let peers = format!("peer.listen={}", cluster.peers);
    let both = cluster.node(1, &[&peers]);
    let gateway = cluster.gateway(11);
    both.create_topic("local", 1, &[("frazil.durability", "local")])
        .await;
    let mut read = 0;
    for (holder, other) in [(&both, &gateway), (&gateway, &both)] {
        let (mut to, mut from) = (Connection::to(holder), Connection::to(other));
        let peer_reads = || other.metric("frazil_cache_peer_wal_reads_total");
        // What is uploaded before it is read is read from the store.
        for _ in 0..20 {
            let sent = produce("local", 0, batch(&["a"], None), -1);
            let offset = outcome(&to.ask(&sent, 9)).1;
            let start = Instant::now();
            while read <= offset {
                assert!(start.elapsed() < PATIENCE, "{}", other.log());
                let answer = from.ask(&fetch("local", 0, read, 1 << 20), 12);
                let (error, bytes) = fetched(&answer);
                assert_eq!(error, 0);
                if let Ok(header) = BatchHeader::parse(&bytes) {
                    assert_eq!(header.base_offset, read);
                    read += 1;
                }
            }
            if peer_reads() > 0 {
                break;
            }
        }
        assert!(peer_reads() > 0, "{}", other.log());
    }
}

/// The leaders of a topic's partitions, as this client is told now.
fn leaders(client: &rdkafka::consumer::BaseConsumer, topic: &str) -> Vec<i32> {
    use rdkafka::consumer::Consumer;
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| partition.leader()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_its_zone_is_led_to_a_gateway_in_it() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let cluster = Cluster::new();
    let _voter = cluster.voter(&[]);
    let here = cluster.nameless_with(&["broker.rack=here"]);
    let there = cluster.nameless_with(&["broker.rack=there"]);
    there.create_topic("spread", 16, &[]).await;
    let client = |client_id: &str, rack: &str| -> BaseConsumer {
        let mut config = here.client();
        config
            .set("group.id", "unused")
            .set("client.id", client_id)
            .set("client.rack", rack)
            .set("topic.metadata.refresh.interval.ms", "-1");
        config.create().unwrap()
    };
    let mut both = leaders(&client("app", ""), "spread");
    both.sort_unstable();
    both.dedup();
    assert_eq!(both, [1001, 1002]);
    for (client_id, id) in [("app,zone=here", 1001), ("app,zone=there", 1002)] {
        assert_eq!(leaders(&client(client_id, ""), "spread"), [id; 16]);
    }
    // Where no gateway is, all are as good.
    let nowhere = leaders(&client("app,zone=nowhere", ""), "spread");
    assert!(nowhere.contains(&1001) && nowhere.contains(&1002));

    // A consumer says it when it fetches.
    assert_eq!(send(&here, "spread", "one").await, 0);
    let consumer = client("consumer", "there");
    let mut all = rdkafka::TopicPartitionList::new();
    for partition in 0..16 {
        all.add_partition_offset("spread", partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&all).unwrap();
    assert_eq!(next(&consumer).payload(), Some(&b"one"[..]));
    let start = Instant::now();
    while leaders(&consumer, "spread") != [1002; 16] {
        assert!(start.elapsed() < PATIENCE, "its zone is not known");
    }
}

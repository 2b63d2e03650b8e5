//! A gateway is lost with the disk that had acknowledged records, and the loss is accepted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::nodes::{Cluster, send};
use crate::produce::next;
use crate::server::{PATIENCE, Server};

/// A bucket that takes no segments while this lives: there is a file where their directory was.
struct Closed {
    segments: PathBuf,
    away: PathBuf,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what happens to the disk under the process that is tested"
)]
impl Closed {
    fn new(bucket: &Path) -> Self {
        let cluster = std::fs::read_dir(bucket)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.join("segments").is_dir())
            .expect("a cluster has written");
        let (segments, away) = (cluster.join("segments"), cluster.join("away"));
        std::fs::rename(&segments, &away).unwrap();
        std::fs::File::options()
            .create_new(true)
            .write(true)
            .open(&segments)
            .unwrap();
        Self { segments, away }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what happens to the disk under the process that is tested"
)]
impl Drop for Closed {
    fn drop(&mut self) {
        std::fs::remove_file(&self.segments).unwrap();
        std::fs::rename(&self.away, &self.segments).unwrap();
    }
}

fn gateways(cluster: &Cluster, command: &[&str]) -> Result<serde_json::Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["cluster", "gateway"])
        .args(command)
        .args(["--json", "--peer", &cluster.peers.to_string()])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn described(cluster: &Cluster, id: i64) -> serde_json::Value {
    let all = gateways(cluster, &["list"]).unwrap();
    let rows = all.as_array().unwrap();
    rows.iter().find(|row| row["id"] == id).unwrap().clone()
}

/// A consumer from the beginning of partition 0, which is told where it ends.
fn reader(server: &Server, topic: &str) -> BaseConsumer {
    let mut config = server.client();
    config
        .set("group.id", "unused")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&assignment).unwrap();
    consumer
}

/// Polls until the consumer is told that it has reached the end.
fn until_end(consumer: &BaseConsumer) -> Vec<(i64, String)> {
    let start = Instant::now();
    let mut seen = Vec::new();
    loop {
        assert!(start.elapsed() < PATIENCE, "no end after {seen:?}");
        match consumer.poll(PATIENCE) {
            Some(Ok(record)) => {
                let value = String::from_utf8(record.payload().unwrap().to_vec()).unwrap();
                seen.push((record.offset(), value));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return seen,
            other => panic!("{other:?}"),
        }
    }
}

fn record(offset: i64, value: &str) -> (i64, String) {
    (offset, value.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_gateway_held_is_skipped_only_when_that_is_accepted() {
    let cluster = Cluster::new();
    let _voter = cluster.voter(&[]);
    // One after the other, so that it is known who takes what.
    let mut other = cluster.gateway(7);
    let local = [("frazil.durability", "local")];
    other.create_topic("middle", 1, &local).await;
    other.create_topic("end", 1, &local).await;
    for topic in ["middle", "end"] {
        assert_eq!(send(&other, topic, "first").await, 0);
    }
    assert_eq!(other.terminate(), Some(0), "{}", other.log());
    let mut doomed = cluster.nameless();
    let closed = Closed::new(cluster.bucket.path());
    for (topic, value, offset) in [
        ("middle", "lost 1", 1),
        ("middle", "lost 2", 2),
        ("end", "lost 3", 1),
    ] {
        assert_eq!(send(&doomed, topic, value).await, offset);
    }
    let row = described(&cluster, 1001);
    assert_eq!((&row["state"], &row["zone"]), (&"live".into(), &().into()));
    assert_eq!(row["wal"]["partitions"], 2, "{row}");
    assert_eq!(row["wal"]["offsets"], 3, "{row}");
    let refused = gateways(&cluster, &["forget", "1001", "--accept-loss"]).unwrap_err();
    assert!(refused.contains("it is live"), "{refused}");

    doomed.kill();
    drop(closed);
    std::fs::remove_dir_all(doomed.data()).unwrap();
    other.revive();
    let start = Instant::now();
    while described(&cluster, 1001)["state"] != "lapsed" {
        assert!(start.elapsed() < PATIENCE, "its lease does not end");
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
    assert_eq!(send(&other, "middle", "last").await, 3);
    let waiting = reader(&other, "middle");
    assert_eq!(next(&waiting).payload(), Some(&b"first"[..]));

    let refused = gateways(&cluster, &["forget", "1001"]).unwrap_err();
    assert!(refused.contains("middle-0 offsets 1 to 2"), "{refused}");
    let forgotten = gateways(&cluster, &["forget", "1001", "--accept-loss"]).unwrap();
    let lost = forgotten["lost"].as_array().unwrap();
    let lost: Vec<_> = lost
        .iter()
        .map(|range| {
            (
                range["topic"].as_str().unwrap(),
                range["from"].as_i64().unwrap(),
                range["to"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(
        lost.contains(&("middle", 1, 3)) && lost.contains(&("end", 1, 2)),
        "{lost:?}"
    );
    // Who waited goes on, and so does whoever comes.
    assert_eq!(until_end(&waiting), [record(3, "last")]);
    assert_eq!(
        until_end(&reader(&other, "middle")),
        [record(0, "first"), record(3, "last")]
    );
    // Behind the last record that there is.
    let end = reader(&other, "end");
    assert_eq!(until_end(&end), [record(0, "first")]);
    assert_eq!(end.fetch_watermarks("end", 0, PATIENCE).unwrap(), (0, 2));
    assert_eq!(send(&other, "end", "next").await, 2);
    assert_eq!(until_end(&end), [record(2, "next")]);

    let row = described(&cluster, 1001);
    assert_eq!(row["state"], "sealed");
    assert_eq!(row["wal"]["offsets"], 0, "{row}");
    // With an empty disk it is another gateway.
    doomed.revive();
    assert_eq!(described(&cluster, 1002)["state"], "live");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_its_log_starts_only_if_the_loss_is_accepted() {
    let mut server = Server::start();
    server
        .create_topic("t", 1, &[("frazil.durability", "local")])
        .await;
    let closed = Closed::new(&server.data().join("store"));
    assert_eq!(send(&server, "t", "lost").await, 0);
    server.kill();
    drop(closed);
    std::fs::remove_dir_all(server.data().join("gateway/wal")).unwrap();

    server.begin_again(&[]);
    assert_eq!(server.wait(), Some(1));
    assert!(server.log().contains("offsets 0 to 1"), "{}", server.log());
    assert!(
        server.log().contains("wal.accept.loss=true"),
        "{}",
        server.log()
    );

    server.begin_again(&["wal.accept.loss=true"]);
    server.wait_until_ready();
    assert_eq!(send(&server, "t", "kept").await, 1);
    assert_eq!(until_end(&reader(&server, "t")), [record(1, "kept")]);
    // What was accepted once need not be accepted again.
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    server.revive();
    assert_eq!(until_end(&reader(&server, "t")), [record(1, "kept")]);
}

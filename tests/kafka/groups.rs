//! Consumer groups: joining, committing, resuming, moving on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::server::{PATIENCE, Server};

fn member(server: &Server, group: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = server
        .client()
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

async fn produce(server: &Server, topic: &str, values: std::ops::Range<usize>) {
    let producer: FutureProducer = server.client().create().unwrap();
    for n in values {
        let text = n.to_string();
        let record = FutureRecord::to(topic).key(&text).payload(&text);
        producer.send(record, PATIENCE).await.unwrap();
    }
}

/// Polls all members until `count` different values have been seen; answers all values seen.
fn gather(members: &[&BaseConsumer], count: usize) -> Vec<usize> {
    let start = Instant::now();
    let mut seen = Vec::new();
    while seen.iter().collect::<BTreeSet<_>>().len() < count {
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {count} values",
            seen.len()
        );
        for member in members {
            if let Some(record) = member.poll(Duration::from_millis(20)) {
                let record = record.unwrap();
                let text = std::str::from_utf8(record.payload().unwrap()).unwrap();
                seen.push(text.parse().unwrap());
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_resumes_where_it_committed_also_after_kill_9() {
    let mut server = Server::start();
    server.create_topic("work", 3, &[]).await;
    produce(&server, "work", 0..30).await;
    let first = member(&server, "workers", "work");
    let mut seen = gather(&[&first], 30);
    first.commit_consumer_state(CommitMode::Sync).unwrap();
    drop(first);
    produce(&server, "work", 30..40).await;
    server.kill();
    server.revive();
    let second = member(&server, "workers", "work");
    seen.extend(gather(&[&second], 10));
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>(), "each value once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions() {
    let server = Server::start();
    server.create_topic("shared", 6, &[]).await;
    let members: Vec<_> = (0..3)
        .map(|_| member(&server, "sharers", "shared"))
        .collect();
    let members: Vec<&BaseConsumer> = members.iter().collect();
    let start = Instant::now();
    let counts = || -> Vec<usize> {
        members
            .iter()
            .map(|member| member.assignment().unwrap().count())
            .collect()
    };
    while counts() != [2, 2, 2] {
        assert!(start.elapsed() < PATIENCE, "{:?}", counts());
        for member in &members {
            member.poll(Duration::from_millis(20));
        }
    }
    produce(&server, "shared", 0..60).await;
    let mut seen = gather(&members, 60);
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>(), "each value once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_listed_described_and_deleted() {
    let server = Server::start();
    server.create_topic("listed", 1, &[]).await;
    produce(&server, "listed", 0..1).await;
    let consumer = member(&server, "listed-group", "listed");
    gather(&[&consumer], 1);
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    let groups = consumer
        .fetch_group_list(Some("listed-group"), PATIENCE)
        .unwrap();
    let group = &groups.groups()[0];
    assert_eq!(
        (group.name(), group.state(), group.protocol_type()),
        ("listed-group", "Stable", "consumer")
    );
    assert_eq!(group.members().len(), 1);
    let admin = server.admin();
    let refused = admin
        .delete_groups(&["listed-group"], &AdminOptions::new())
        .await
        .unwrap();
    let (_, code) = refused[0].as_ref().unwrap_err();
    assert_eq!(*code, rdkafka::types::RDKafkaErrorCode::NonEmptyGroup);
    consumer.unsubscribe();
    drop(consumer);
    let start = Instant::now();
    loop {
        let results = admin
            .delete_groups(&["listed-group"], &AdminOptions::new())
            .await
            .unwrap();
        if results[0].is_ok() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{results:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

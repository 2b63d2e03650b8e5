//! Topics and their settings.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use crate::produce::{next, reader};
use crate::server::{PATIENCE, Server};

fn partitions(server: &Server, topic: &str) -> usize {
    let consumer: BaseConsumer = server.client().create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_grown_and_refused() {
    let server = Server::start();
    let admin = server.admin();
    let options = AdminOptions::new();
    server.create_topic("grows", 2, &[]).await;
    assert_eq!(partitions(&server, "grows"), 2);
    for (topic, expected) in [
        (
            NewTopic::new("grows", 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::TopicAlreadyExists,
        ),
        (
            NewTopic::new("a b", 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::InvalidTopic,
        ),
        (
            NewTopic::new("..", 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::InvalidTopic,
        ),
        (
            NewTopic::new("odd", 1, TopicReplication::Fixed(1)).set("no.such.key", "1"),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (
            NewTopic::new("odd", 1, TopicReplication::Fixed(1)).set("retention.ms", "soon"),
            RDKafkaErrorCode::InvalidConfig,
        ),
    ] {
        let result = admin.create_topics([&topic], &options).await.unwrap();
        assert_eq!(result[0].as_ref().unwrap_err().1, expected, "{topic:?}");
    }
    let grown = admin
        .create_partitions(&[NewPartitions::new("grows", 5)], &options)
        .await
        .unwrap();
    assert!(grown[0].is_ok(), "{grown:?}");
    assert_eq!(partitions(&server, "grows"), 5);
    let shrunk = admin
        .create_partitions(&[NewPartitions::new("grows", 3)], &options)
        .await
        .unwrap();
    assert_eq!(
        shrunk[0].as_ref().unwrap_err().1,
        RDKafkaErrorCode::InvalidPartitions
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_has_nothing_of_the_old_one() {
    let server = Server::start();
    let admin = server.admin();
    server.create_topic("again", 1, &[]).await;
    let producer: FutureProducer = server.client().create().unwrap();
    producer
        .send(
            FutureRecord::<str, str>::to("again").payload("old"),
            PATIENCE,
        )
        .await
        .unwrap();
    admin
        .delete_topics(&["again"], &AdminOptions::new())
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    server.create_topic("again", 1, &[]).await;
    let producer: FutureProducer = server.client().create().unwrap();
    let record = FutureRecord::<str, str>::to("again").payload("new");
    assert_eq!(producer.send(record, PATIENCE).await.unwrap().offset, 0);
    let consumer = reader(&server, "again", 0, Offset::Beginning);
    assert_eq!(
        rdkafka::Message::payload(&next(&consumer)),
        Some(&b"new"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_described_with_their_source() {
    let mut server = Server::start();
    server
        .create_topic("set", 1, &[("retention.ms", "1234567")])
        .await;
    for _ in 0..2 {
        let admin = server.admin();
        let resource = ResourceSpecifier::Topic("set");
        let described = admin
            .describe_configs([&resource], &AdminOptions::new())
            .await
            .unwrap();
        let config = described[0].as_ref().unwrap();
        let retention = config.get("retention.ms").unwrap();
        assert_eq!(retention.value.as_deref(), Some("1234567"));
        assert_eq!(retention.source, ConfigSource::DynamicTopic);
        let policy = config.get("cleanup.policy").unwrap();
        assert_eq!(policy.value.as_deref(), Some("delete"));
        assert_eq!(policy.source, ConfigSource::Default);
        assert!(config.get("frazil.durability").is_some());
        assert!(config.entries.len() > 20, "{}", config.entries.len());
        server.kill();
        server.revive();
    }
    let admin = server.admin();
    let change = AlterConfig::new(ResourceSpecifier::Topic("set")).set("max.message.bytes", "5000");
    admin
        .alter_configs([&change], &AdminOptions::new())
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let resource = ResourceSpecifier::Topic("set");
    let described = admin
        .describe_configs([&resource], &AdminOptions::new())
        .await
        .unwrap();
    let config = described[0].as_ref().unwrap();
    assert_eq!(
        config.get("max.message.bytes").unwrap().value.as_deref(),
        Some("5000")
    );
    let source = &config.get("retention.ms").unwrap().source;
    assert_eq!(
        *source,
        ConfigSource::Default,
        "a full alteration resets what it does not name"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producing_to_an_unknown_topic_creates_it() {
    let server = Server::with(&["num.partitions=3"]);
    let producer: FutureProducer = server.client().create().unwrap();
    producer
        .send(FutureRecord::<str, str>::to("fresh").payload("x"), PATIENCE)
        .await
        .unwrap();
    assert_eq!(partitions(&server, "fresh"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_by_size_moves_the_log_start() {
    let server = Server::with(&[
        "log.retention.check.interval.ms=100",
        "collector.grace.ms=0",
    ]);
    server
        .create_topic("short", 1, &[("retention.bytes", "20000")])
        .await;
    let producer: FutureProducer = server.client().create().unwrap();
    let value = "x".repeat(5000);
    for _ in 0..20 {
        producer
            .send(
                FutureRecord::<str, str>::to("short").payload(&value),
                PATIENCE,
            )
            .await
            .unwrap();
    }
    let consumer = reader(&server, "short", 0, Offset::End);
    let start = Instant::now();
    loop {
        let (low, high) = consumer.fetch_watermarks("short", 0, PATIENCE).unwrap();
        assert_eq!(high, 20);
        if low > 0 {
            assert!(low <= 16, "{low}: at least 20 000 bytes stay");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "retention does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The objects below the log start disappear.
    let segments = || {
        fn count(dir: &std::path::Path) -> usize {
            std::fs::read_dir(dir).map_or(0, |entries| {
                entries
                    .map(|entry| entry.unwrap().path())
                    .map(|path| if path.is_dir() { count(&path) } else { 1 })
                    .sum()
            })
        }
        count(&server.data().join("store"))
    };
    while segments() > 6 {
        assert!(start.elapsed() < PATIENCE, "{} objects stay", segments());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

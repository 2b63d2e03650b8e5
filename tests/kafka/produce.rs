//! Records go in and come out the same.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use crate::server::{PATIENCE, Server};

/// A consumer that reads one partition from an offset, without a group.
pub(crate) fn reader(server: &Server, topic: &str, partition: i32, from: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = server
        .client()
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, from).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

/// The next record.
pub(crate) fn next(consumer: &BaseConsumer) -> BorrowedMessage<'_> {
    consumer
        .poll(PATIENCE)
        .expect("a record in time")
        .expect("no error")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_and_level_returns_what_was_sent() {
    let server = Server::start();
    for level in ["object", "local"] {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let topic = format!("codec-{level}-{codec}");
            server
                .create_topic(&topic, 1, &[("frazil.durability", level)])
                .await;
            let producer: FutureProducer = server
                .client()
                .set("compression.type", codec)
                .create()
                .unwrap();
            let value = |n: i64| format!("value {n} ").repeat(50);
            for n in 0..20i64 {
                let (key, value) = (format!("key {n}"), value(n));
                let headers = OwnedHeaders::new()
                    .insert(Header {
                        key: "n",
                        value: Some(&n.to_string()),
                    })
                    .insert(Header {
                        key: "n",
                        value: None::<&[u8]>,
                    });
                let record = FutureRecord::to(&topic)
                    .key(&key)
                    .payload(&value)
                    .timestamp(1_700_000_000_000 + n)
                    .headers(headers);
                let delivery = producer.send(record, PATIENCE).await.unwrap();
                assert_eq!((delivery.partition, delivery.offset), (0, n), "{topic}");
            }
            let consumer = reader(&server, &topic, 0, Offset::Beginning);
            for n in 0..20i64 {
                let record = next(&consumer);
                assert_eq!(record.offset(), n);
                assert_eq!(record.key(), Some(format!("key {n}").as_bytes()));
                assert_eq!(record.payload(), Some(value(n).as_bytes()));
                assert_eq!(
                    record.timestamp(),
                    Timestamp::CreateTime(1_700_000_000_000 + n)
                );
                let headers = record.headers().unwrap();
                assert_eq!(headers.count(), 2);
                assert_eq!(headers.get(0).value, Some(n.to_string().as_bytes()));
                assert_eq!((headers.get(1).key, headers.get(1).value), ("n", None));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_and_empty_keys_and_values_stay_apart() {
    let server = Server::start();
    server.create_topic("nulls", 1, &[]).await;
    let producer: FutureProducer = server.client().create().unwrap();
    let cases: [(Option<&str>, Option<&str>); 4] = [
        (None, None),
        (Some(""), None),
        (None, Some("")),
        (Some(""), Some("")),
    ];
    for (key, payload) in cases {
        let record = FutureRecord {
            key,
            payload,
            ..FutureRecord::<str, str>::to("nulls")
        };
        producer.send(record, PATIENCE).await.unwrap();
    }
    let consumer = reader(&server, "nulls", 0, Offset::Beginning);
    for (key, payload) in cases {
        let record = next(&consumer);
        assert_eq!(record.key(), key.map(str::as_bytes));
        assert_eq!(record.payload(), payload.map(str::as_bytes));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_append_time_is_the_brokers() {
    let server = Server::start();
    server
        .create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let producer: FutureProducer = server.client().create().unwrap();
    let record = FutureRecord::<str, str>::to("stamped")
        .payload("x")
        .timestamp(1);
    producer.send(record, PATIENCE).await.unwrap();
    let consumer = reader(&server, "stamped", 0, Offset::Beginning);
    match next(&consumer).timestamp() {
        Timestamp::LogAppendTime(at) => assert!(at > 1_700_000_000_000, "{at}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_zero_and_one_deliver() {
    let server = Server::start();
    server.create_topic("acks", 1, &[]).await;
    for acks in ["0", "1", "all"] {
        let producer: FutureProducer = server.client().set("acks", acks).create().unwrap();
        for n in 0..10 {
            let value = format!("{acks} {n}");
            let record = FutureRecord::<str, str>::to("acks").payload(&value);
            producer.send(record, PATIENCE).await.unwrap();
        }
        // acks=0 has no answer to wait for: reading is the answer.
        let consumer = reader(&server, "acks", 0, Offset::Beginning);
        while next(&consumer).payload() != Some(format!("{acks} 9").as_bytes()) {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_found_by_time_and_by_name() {
    let server = Server::start();
    server.create_topic("times", 1, &[]).await;
    // One batch of ten records, so that the answer lies within a batch.
    let producer: FutureProducer = server.client().set("linger.ms", "200").create().unwrap();
    let sent: Vec<_> = (0..10i64)
        .map(|n| {
            let record = FutureRecord::<str, str>::to("times").payload("x");
            producer
                .send_result(record.timestamp(1_000_000 + n * 100))
                .unwrap()
        })
        .collect();
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
    let consumer = reader(&server, "times", 0, Offset::Beginning);
    for (time, expected) in [
        (0, Offset::Offset(0)),
        (1_000_000, Offset::Offset(0)),
        (1_000_250, Offset::Offset(3)),
        (1_000_900, Offset::Offset(9)),
        (1_000_901, Offset::End),
    ] {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("times", 0, Offset::Offset(time))
            .unwrap();
        let found = consumer.offsets_for_times(list, PATIENCE).unwrap();
        assert_eq!(found.elements()[0].offset(), expected, "at {time}");
    }
    assert_eq!(
        consumer.fetch_watermarks("times", 0, PATIENCE).unwrap(),
        (0, 10)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_waits_for_what_comes() {
    let server = Server::start();
    server.create_topic("tail", 1, &[]).await;
    let consumer = reader(&server, "tail", 0, Offset::Beginning);
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
    let producer: FutureProducer = server.client().create().unwrap();
    for n in 0..5 {
        let value = n.to_string();
        let record = FutureRecord::<str, str>::to("tail").payload(&value);
        producer.send(record, PATIENCE).await.unwrap();
        assert_eq!(next(&consumer).payload(), Some(value.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_the_limit_is_refused_and_the_next_one_is_not() {
    let server = Server::start();
    server
        .create_topic("small", 1, &[("max.message.bytes", "1000")])
        .await;
    let producer: FutureProducer = server.client().create().unwrap();
    let large = "x".repeat(2000);
    let record = FutureRecord::<str, str>::to("small").payload(&large);
    let (error, _) = producer.send(record, PATIENCE).await.unwrap_err();
    let code = error.rdkafka_error_code();
    assert_eq!(
        code,
        Some(rdkafka::types::RDKafkaErrorCode::MessageSizeTooLarge)
    );
    let record = FutureRecord::<str, str>::to("small").payload("fits");
    assert_eq!(producer.send(record, PATIENCE).await.unwrap().offset, 0);
}

//! kill -9: what was acknowledged is there, and once.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::produce::{next, reader};
use crate::server::{PATIENCE, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_kill_9_at_each_level() {
    let mut server = Server::start();
    let mut sent: BTreeMap<&str, i64> = BTreeMap::new();
    for level in ["object", "local"] {
        server
            .create_topic(level, 1, &[("frazil.durability", level)])
            .await;
    }
    for round in 0..3 {
        for level in ["object", "local"] {
            let producer: FutureProducer = server.client().create().unwrap();
            for n in 0..50 {
                let value = format!("{round} {n}");
                let record = FutureRecord::<str, str>::to(level).payload(&value);
                let delivery = producer.send(record, PATIENCE).await.unwrap();
                let count = sent.entry(level).or_default();
                assert_eq!(delivery.offset, *count);
                *count += 1;
            }
        }
        server.kill();
        server.revive();
        for (level, count) in &sent {
            let consumer = reader(&server, level, 0, Offset::Beginning);
            for n in 0..*count {
                let record = next(&consumer);
                assert_eq!(record.offset(), n);
                assert_eq!(
                    record.payload(),
                    Some(format!("{} {}", n / 50, n % 50).as_bytes()),
                    "{level} after round {round}"
                );
            }
            let (low, high) = consumer.fetch_watermarks(level, 0, PATIENCE).unwrap();
            assert_eq!((low, high), (0, *count));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_producer_neither_loses_nor_repeats_across_kill_9() {
    for level in ["object", "local"] {
        let mut server = Server::start();
        server
            .create_topic("once", 3, &[("frazil.durability", level)])
            .await;
        let producer: FutureProducer = server
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("batch.num.messages", "20")
            .set("message.timeout.ms", "120000")
            .create()
            .unwrap();
        const TOTAL: usize = 6000;
        let mut deliveries = Vec::new();
        for n in 0..TOTAL {
            let text = n.to_string();
            let record = FutureRecord::to("once").key(&text).payload(&text);
            deliveries.push(producer.send_result(record).unwrap());
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if n == TOTAL / 3 || n == TOTAL * 2 / 3 {
                server.kill();
                server.revive();
            }
        }
        for delivery in deliveries {
            delivery.await.unwrap().unwrap();
        }
        let mut seen = vec![0; TOTAL];
        for partition in 0..3 {
            let consumer = reader(&server, "once", partition, Offset::Beginning);
            let (_, high) = consumer
                .fetch_watermarks("once", partition, PATIENCE)
                .unwrap();
            let mut last = None;
            for _ in 0..high {
                let record = next(&consumer);
                let n: usize = std::str::from_utf8(record.payload().unwrap())
                    .unwrap()
                    .parse()
                    .unwrap();
                seen[n] += 1;
                assert!(
                    last < Some(n),
                    "{n} after {last:?} in partition {partition}"
                );
                last = Some(n);
            }
        }
        let wrong: Vec<_> = seen
            .iter()
            .enumerate()
            .filter(|(_, times)| **times != 1)
            .collect();
        assert!(wrong.is_empty(), "{level}: {wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_exits_0_and_keeps_everything() {
    let mut server = Server::start();
    server.create_topic("kept", 1, &[]).await;
    let producer: FutureProducer = server.client().create().unwrap();
    for n in 0..10 {
        let value = n.to_string();
        let record = FutureRecord::<str, str>::to("kept").payload(&value);
        producer.send(record, PATIENCE).await.unwrap();
    }
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    server.revive();
    let consumer = reader(&server, "kept", 0, Offset::Beginning);
    for n in 0..10 {
        assert_eq!(next(&consumer).payload(), Some(n.to_string().as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_records_need_nothing_of_the_gateways_disk() {
    let mut server = Server::start();
    server.create_topic("kept", 1, &[]).await;
    let producer: FutureProducer = server.client().create().unwrap();
    for n in 0..20 {
        let value = n.to_string();
        let record = FutureRecord::<str, str>::to("kept").payload(&value);
        producer.send(record, PATIENCE).await.unwrap();
    }
    server.kill();
    std::fs::remove_dir_all(server.data().join("gateway")).unwrap();
    server.revive();
    let consumer = reader(&server, "kept", 0, Offset::Beginning);
    for n in 0..20 {
        let record = next(&consumer);
        assert_eq!(record.offset(), n);
        assert_eq!(record.payload(), Some(n.to_string().as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_1_survives_kill_9() {
    let mut server = Server::start();
    server.create_topic("one", 1, &[]).await;
    let producer: FutureProducer = server.client().set("acks", "1").create().unwrap();
    for n in 0..20 {
        let value = n.to_string();
        let record = FutureRecord::<str, str>::to("one").payload(&value);
        assert_eq!(producer.send(record, PATIENCE).await.unwrap().offset, n);
    }
    server.kill();
    server.revive();
    let consumer = reader(&server, "one", 0, Offset::Beginning);
    for n in 0..20 {
        let record = next(&consumer);
        assert_eq!(record.offset(), n);
        assert_eq!(record.payload(), Some(n.to_string().as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_does_not_outlive_a_store_in_memory() {
    let mut server = Server::with(&["store.url=memory:"]);
    server.create_topic("brief", 1, &[]).await;
    let producer: FutureProducer = server.client().create().unwrap();
    let record = FutureRecord::<str, str>::to("brief").payload("x");
    producer.send(record, PATIENCE).await.unwrap();
    drop(producer);
    server.kill();
    server.revive();
    server.create_topic("brief", 1, &[]).await;
    let consumer = reader(&server, "brief", 0, Offset::Beginning);
    let bounds = consumer.fetch_watermarks("brief", 0, PATIENCE).unwrap();
    assert_eq!(bounds, (0, 0), "no offsets without records");
}

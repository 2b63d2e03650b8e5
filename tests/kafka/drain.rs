//! A gateway leaves while clients are at work, and no application hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message;
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::nodes::Cluster;
use crate::server::{PATIENCE, Server};

const PARTITIONS: i32 = 8;

/// Counts the assignments that a consumer gets.
#[derive(Default)]
struct Assignments(AtomicU32);

impl ClientContext for Assignments {}

impl ConsumerContext for Assignments {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a member of a group has seen.
struct Seen {
    values: BTreeMap<i32, Vec<u64>>,
    errors: Vec<String>,
    assignments: u32,
}

/// Consumes a topic as the only member of a group, until it has `wanted` records per partition once
/// that is known.
fn consume(
    consumer: &BaseConsumer<Assignments>,
    progress: &AtomicU32,
    wanted: &tokio::sync::watch::Receiver<Option<u64>>,
) -> Seen {
    let mut seen = Seen {
        values: BTreeMap::new(),
        errors: Vec::new(),
        assignments: 0,
    };
    let mut idle = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(record)) => {
                let value = std::str::from_utf8(record.payload().unwrap()).unwrap();
                let values = seen.values.entry(record.partition()).or_default();
                values.push(value.parse().unwrap());
                progress.fetch_add(1, Ordering::Relaxed);
                idle = Instant::now();
            }
            Some(Err(error)) => seen.errors.push(error.to_string()),
        }
        if let Some(wanted) = *wanted.borrow() {
            let done = |values: &Vec<u64>| values.len() as u64 >= wanted;
            if seen.values.len() == PARTITIONS as usize && seen.values.values().all(done) {
                seen.assignments = consumer.context().0.load(Ordering::Relaxed);
                return seen;
            }
        }
        assert!(
            idle.elapsed() < PATIENCE,
            "nothing comes: {:?}",
            seen.errors
        );
    }
}

fn bootstrap(servers: [&Server; 2]) -> String {
    format!("{},{}", servers[0].kafka, servers[1].kafka)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_leaves_under_load_and_no_client_is_told() {
    let cluster = Cluster::new();
    let _voter = cluster.voter(&[]);
    let mut leaving = cluster.nameless();
    let staying = cluster.nameless();
    let servers = bootstrap([&leaving, &staying]);
    // The idempotent producer, and one that is not.
    let topics = [("once", "true"), ("plain", "false")];
    for (topic, _) in topics {
        staying.create_topic(topic, PARTITIONS, &[]).await;
    }

    let (announce, wanted) = tokio::sync::watch::channel(None);
    let progress = Arc::new(AtomicU32::new(0));
    let mut consumers = Vec::new();
    for (topic, _) in topics {
        // Coordinated by either gateway, whichever the names fall to.
        for group in ["a", "b", "c"] {
            let mut config = staying.client();
            config
                .set("bootstrap.servers", &servers)
                .set("group.id", format!("{topic}-{group}"))
                .set("auto.offset.reset", "earliest");
            let consumer: BaseConsumer<Assignments> =
                config.create_with_context(Assignments::default()).unwrap();
            consumer.subscribe(&[topic]).unwrap();
            let (wanted, progress) = (wanted.clone(), Arc::clone(&progress));
            let what = format!("{topic}-{group}");
            let consuming =
                tokio::task::spawn_blocking(move || consume(&consumer, &progress, &wanted));
            consumers.push((what, consuming));
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let producing = topics.map(|(topic, idempotent)| {
        let producer: FutureProducer = staying
            .client()
            .set("bootstrap.servers", &servers)
            .set("enable.idempotence", idempotent)
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut deliveries = Vec::new();
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for partition in 0..PARTITIONS {
                    let value = count.to_string();
                    let record = FutureRecord::<str, str>::to(topic)
                        .partition(partition)
                        .payload(&value);
                    deliveries.push(producer.send_result(record).map_err(|(e, _)| e).unwrap());
                }
                count += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut failed = Vec::new();
            for delivery in deliveries {
                let delivered: OwnedDeliveryResult = delivery.await.unwrap();
                failed.extend(delivered.err().map(|(error, _)| error.to_string()));
            }
            (count, failed)
        })
    });

    let flows = async |beyond: u32| {
        let start = Instant::now();
        while progress.load(Ordering::Relaxed) < beyond {
            assert!(start.elapsed() < PATIENCE, "no load");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    flows(3_000).await;
    let (leaving, code) = tokio::task::spawn_blocking(move || {
        let code = leaving.terminate();
        (leaving, code)
    })
    .await
    .unwrap();
    assert_eq!(code, Some(0), "{}", leaving.log());
    let gone = progress.load(Ordering::Relaxed);
    flows(gone + 3_000).await;
    stop.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    for task in producing {
        let (count, failed) = task.await.unwrap();
        assert_eq!(failed, [""; 0], "after {count} rounds");
        counts.push(count);
    }
    // Everyone waits for what both topics have.
    let least = *counts.iter().min().unwrap();
    announce.send(Some(least)).unwrap();
    for (what, consuming) in consumers {
        let seen = consuming.await.unwrap();
        assert_eq!(seen.errors, [""; 0], "{what}");
        assert_eq!(seen.assignments, 1, "{what}: no rebalance");
        for (partition, mut values) in seen.values {
            values.truncate(least as usize);
            let expected: Vec<u64> = (0..least).collect();
            assert_eq!(values, expected, "{what}, partition {partition}");
        }
    }
    assert!(
        !leaving.log().contains("are disconnected"),
        "{}",
        leaving.log()
    );
}

#[test]
fn a_node_that_is_asked_by_http_or_by_a_file_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let notice = dir.path().join("notice");
    let setting = format!("drain.notice.file={}", notice.display());
    let mut server = Server::with(&[&setting]);
    assert_eq!(server.post("/drain").unwrap().0, 202);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    server.revive();
    let written = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&notice);
    written.unwrap();
    assert_eq!(server.wait(), Some(0), "{}", server.log());
}

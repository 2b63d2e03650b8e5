use std::sync::atomic::Ordering;
use std::time::Duration;

use frazil_core::ports::Bounds;
use frazil_core::{Offset, TopicId, TopicPartition};
use frazil_metadata::command::Command;
use kafka_protocol::messages::FetchResponse;
use tokio::time::timeout;
use uuid::Uuid;

use crate::node::{Client, Node};
use crate::requests::{Topic, batch, fetch, fetched, offsets, produce};

/// Error code and batches of partition 0.
async fn fetch_one(client: &mut Client, topic: Topic, from: i64) -> (i16, Vec<(i64, i32)>) {
    let response = client.call(&fetch(topic, 12, &[(0, from)]), 12).await;
    let partition = &fetched(&response)[0];
    (partition.error_code, offsets(partition))
}

#[tokio::test]
async fn offsets_outside_the_log_are_out_of_range() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    for _ in 0..3 {
        client.produce(topic, 9, batch(&["a", "b"])).await;
    }
    node.quorum.apply(Command::DeleteRecords {
        partition: TopicPartition::new(topic.1, 0),
        to: Some(Offset(3)),
    });
    for (from, expected) in [
        (-1, (1, vec![])),
        (0, (1, vec![])),
        (2, (1, vec![])),
        (3, (0, vec![(2, 2), (4, 2)])),
        (5, (0, vec![(4, 2)])),
        (6, (0, vec![])),
        (7, (1, vec![])),
    ] {
        assert_eq!(
            fetch_one(&mut client, topic, from).await,
            expected,
            "{from}"
        );
    }
}

#[tokio::test]
async fn a_read_that_retention_overtakes_is_out_of_range_and_skips_nothing() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    for _ in 0..3 {
        client.produce(topic, 9, batch(&["a", "b"])).await;
    }
    *node.quorum.before_locate.lock() = Some(Command::DeleteRecords {
        partition: TopicPartition::new(topic.1, 0),
        to: Some(Offset(4)),
    });
    assert_eq!(fetch_one(&mut client, topic, 0).await, (1, vec![]));
    assert_eq!(fetch_one(&mut client, topic, 4).await, (0, vec![(4, 2)]));
}

/// Records that have become cold are cut into batches anew, so one batch may hold records on both
/// sides of what was the end when the fetch began.
#[tokio::test]
async fn a_batch_that_passes_the_end_is_told_with_the_newer_end() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    client.produce(topic, 9, batch(&["a", "b", "c"])).await;
    *node.quorum.old_bounds.lock() = Some(Bounds {
        log_start: Offset(0),
        last_stable: Offset(1),
        high_watermark: Offset(1),
    });
    let response = client.call(&fetch(topic, 12, &[(0, 0)]), 12).await;
    let partition = &fetched(&response)[0];
    assert_eq!(offsets(partition), [(0, 3)]);
    let ends = (partition.high_watermark, partition.last_stable_offset);
    assert_eq!(ends, (3, 3), "no record lies at or beyond the end");
}

#[tokio::test]
async fn an_old_image_never_calls_an_offset_out_of_range() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    node.quorum.freeze();
    // Committed, and acknowledged, as through another gateway: this image does not show it.
    assert_eq!(client.produce(topic, 9, batch(&["a", "b"])).await, (0, 0));
    assert_eq!(fetch_one(&mut client, topic, 0).await, (0, vec![]));
    assert_eq!(fetch_one(&mut client, topic, 1).await, (0, vec![(0, 2)]));

    node.quorum.freeze();
    client.produce(topic, 9, batch(&["c"])).await;
    node.quorum.unavailable.store(true, Ordering::SeqCst);
    assert_eq!(fetch_one(&mut client, topic, 3).await, (78, vec![]));
    node.quorum.unavailable.store(false, Ordering::SeqCst);
    assert_eq!(fetch_one(&mut client, topic, 3).await, (0, vec![]));
    let barriers = node.quorum.barriers.load(Ordering::SeqCst);
    assert_eq!(fetch_one(&mut client, topic, 2).await, (0, vec![(2, 1)]));
    let after = node.quorum.barriers.load(Ordering::SeqCst);
    assert_eq!(barriers, after, "a fetch within the log asks nobody");
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_an_append() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let (mut consumer, mut producer) = (node.client().await, node.client().await);
    let waiting = fetch(topic, 12, &[(0, 0)]).with_max_wait_ms(60_000);
    consumer.send(&waiting, 12).await;
    producer.produce(topic, 9, batch(&["a"])).await;
    let answered = timeout(
        Duration::from_secs(20),
        consumer.receive::<FetchResponse>(12),
    )
    .await;
    let (_, response) = answered.expect("an append wakes the fetch");
    assert_eq!(offsets(&fetched(&response)[0]), [(0, 1)]);
}

#[tokio::test]
async fn a_fetch_waits_for_its_minimum_and_not_longer_than_it_may() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let (mut consumer, mut producer) = (node.client().await, node.client().await);
    let size = batch(&["a"]).len() as i32;
    let three = fetch(topic, 12, &[(0, 0)])
        .with_max_wait_ms(60_000)
        .with_min_bytes(2 * size + 1);
    consumer.send(&three, 12).await;
    for _ in 0..3 {
        producer.produce(topic, 9, batch(&["a"])).await;
    }
    let (_, response) = consumer.receive::<FetchResponse>(12).await;
    assert_eq!(offsets(&fetched(&response)[0]), [(0, 1), (1, 1), (2, 1)]);

    let never = fetch(topic, 12, &[(0, 0)])
        .with_max_wait_ms(50)
        .with_min_bytes(1 << 20);
    let response = consumer.call(&never, 12).await;
    assert_eq!(offsets(&fetched(&response)[0]).len(), 3);
}

#[tokio::test]
async fn limits_are_soft_for_the_first_batch_only() {
    let node = Node::start().await;
    let topic = node.topic("t", 3, &[]);
    let mut client = node.client().await;
    let big = "x".repeat(5000);
    for partition in [1, 2] {
        for _ in 0..2 {
            let request = produce(topic, 9, -1, &[(partition, batch(&[&big]))]);
            client.call(&request, 9).await;
        }
    }
    let partitions = [(0, 0), (1, 0), (2, 0)];
    let batches_of = |response: &FetchResponse| -> Vec<usize> {
        fetched(response).iter().map(|p| offsets(p).len()).collect()
    };
    let tiny = fetch(topic, 12, &partitions).with_max_bytes(10);
    assert_eq!(batches_of(&client.call(&tiny, 12).await), [0, 1, 0]);
    let some = fetch(topic, 12, &partitions).with_max_bytes(11_000);
    assert_eq!(batches_of(&client.call(&some, 12).await), [0, 2, 0]);
    let more = fetch(topic, 12, &partitions).with_max_bytes(16_000);
    assert_eq!(batches_of(&client.call(&more, 12).await), [0, 2, 1]);
    let all = fetch(topic, 12, &partitions);
    assert_eq!(batches_of(&client.call(&all, 12).await), [0, 2, 2]);
    let mut each_one = fetch(topic, 12, &partitions);
    for partition in &mut each_one.topics[0].partitions {
        partition.partition_max_bytes = 5500;
    }
    assert_eq!(batches_of(&client.call(&each_one, 12).await), [0, 1, 1]);
}

#[tokio::test]
async fn every_partition_is_answered_also_those_that_do_not_exist() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let missing = Topic("missing", TopicId::new(Uuid::from_u128(9)));
    let mut client = node.client().await;
    client.produce(topic, 9, batch(&["a"])).await;
    for (version, unknown) in [(12, 3), (13, 100)] {
        let mut request = fetch(topic, version, &[(5, 0), (0, 0), (0, 0)]).with_max_wait_ms(60_000);
        request
            .topics
            .extend(fetch(missing, version, &[(0, 0), (1, 0)]).topics);
        let response = client.call(&request, version).await;
        let codes: Vec<Vec<i16>> = response
            .responses
            .iter()
            .map(|topic| topic.partitions.iter().map(|p| p.error_code).collect())
            .collect();
        assert_eq!(codes, [vec![3, 0, 0], vec![unknown, unknown]]);
        assert_eq!(offsets(&response.responses[0].partitions[1]), [(0, 1)]);
    }
    let empty = client
        .call(&fetch(topic, 12, &[]).with_max_wait_ms(60_000), 12)
        .await;
    assert!(fetched(&empty).is_empty());
}

#[tokio::test]
async fn sessions_and_epochs_that_are_not_ours_are_refused() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let session = fetch(topic, 12, &[(0, 0)])
        .with_session_id(7)
        .with_session_epoch(1);
    let response = client.call(&session, 12).await;
    assert_eq!((response.error_code, response.responses.len()), (70, 0));
    for (epoch, code) in [(-1, 0), (0, 0), (1, 75)] {
        let mut request = fetch(topic, 12, &[(0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.call(&request, 12).await;
        assert_eq!(fetched(&response)[0].error_code, code, "epoch {epoch}");
    }
}

#[tokio::test]
async fn only_who_reads_committed_gets_a_list_of_aborted_transactions() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    client.produce(topic, 9, batch(&["a"])).await;
    for (isolation, listed) in [(0, None), (1, Some(0))] {
        let request = fetch(topic, 12, &[(0, 0)]).with_isolation_level(isolation);
        let response = client.call(&request, 12).await;
        let aborted = &fetched(&response)[0].aborted_transactions;
        assert_eq!(aborted.as_ref().map(Vec::len), listed);
        assert_eq!(offsets(&fetched(&response)[0]), [(0, 1)]);
    }
}

use std::sync::atomic::Ordering;

use frazil_core::batch::BatchBuilder;
use frazil_core::{Offset, TopicPartition};
use frazil_metadata::command::Command;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{ListOffsetsRequest, OffsetForLeaderEpochRequest};

use crate::node::{Client, NOW_MS, Node};
use crate::requests::{Topic, batch, name};

fn request(topic: Topic, partitions: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = partitions.iter().map(|&(index, timestamp)| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_timestamp(timestamp)
    });
    ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(name(topic.0))
            .with_partitions(partitions.collect()),
    ])
}

/// Error code, offset and timestamp.
async fn list(client: &mut Client, topic: Topic, timestamp: i64) -> (i16, i64, i64) {
    let response = client.call(&request(topic, &[(0, timestamp)]), 10).await;
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset, found.timestamp)
}

#[tokio::test]
async fn special_timestamps_and_times_are_answered_to_the_record() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    for timestamp in [-1, -2, -4] {
        assert_eq!(list(&mut client, topic, timestamp).await, (0, 0, -1));
    }
    for timestamp in [-3, -5, 0, NOW_MS] {
        assert_eq!(list(&mut client, topic, timestamp).await, (0, -1, -1));
    }
    for times in [[10, 30], [20, 60], [50, 40]] {
        let set = times.iter().fold(BatchBuilder::new(), |builder, &time| {
            builder.record(NOW_MS + time, None, Some(b"v"))
        });
        client.produce(topic, 9, set.build()).await;
    }
    for (timestamp, expected) in [
        (-1, (0, 6, -1)),
        (-2, (0, 0, -1)),
        (-3, (0, 3, NOW_MS + 60)),
        (-4, (0, 0, -1)),
        (-5, (0, -1, -1)),
        (-7, (35, -1, -1)),
        (0, (0, 0, NOW_MS + 10)),
        (NOW_MS + 11, (0, 1, NOW_MS + 30)),
        (NOW_MS + 31, (0, 3, NOW_MS + 60)),
        (NOW_MS + 60, (0, 3, NOW_MS + 60)),
        (NOW_MS + 61, (0, -1, -1)),
    ] {
        assert_eq!(
            list(&mut client, topic, timestamp).await,
            expected,
            "{timestamp}"
        );
    }
    node.quorum.apply(Command::DeleteRecords {
        partition: TopicPartition::new(topic.1, 0),
        to: Some(Offset(4)),
    });
    for (timestamp, expected) in [
        (-2, (0, 4, -1)),
        (0, (0, 4, NOW_MS + 50)),
        (NOW_MS + 51, (0, -1, -1)),
    ] {
        assert_eq!(
            list(&mut client, topic, timestamp).await,
            expected,
            "{timestamp}"
        );
    }
}

#[tokio::test]
async fn the_end_includes_what_was_acknowledged_anywhere() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    for version in 1..=10 {
        node.quorum.freeze();
        client.produce(topic, 9, batch(&["a"])).await;
        let response = client.call(&request(topic, &[(0, -1)]), version).await;
        let found = &response.topics[0].partitions[0];
        assert_eq!((found.error_code, found.offset), (0, i64::from(version)));
        if version >= 4 {
            assert_eq!(found.leader_epoch, 0);
        }
    }
    node.quorum.unavailable.store(true, Ordering::SeqCst);
    assert_eq!(list(&mut client, topic, -1).await, (5, -1, -1));
}

#[tokio::test]
async fn partitions_that_do_not_exist_or_repeat_are_refused() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    let asked = request(topic, &[(0, -1), (0, -2), (1, -1), (-1, -1)]);
    let response = client.call(&asked, 7).await;
    let partitions = &response.topics[0].partitions;
    let codes: Vec<i16> = partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, 42, 3, 3]);
}

#[tokio::test]
async fn the_one_epoch_ends_at_the_high_watermark() {
    let node = Node::start().await;
    let topic = node.topic("t", 1, &[]);
    let mut client = node.client().await;
    node.quorum.freeze();
    client.produce(topic, 9, batch(&["a", "b"])).await;
    for version in 2..=4 {
        for (partition, current, epoch, expected) in [
            (0, -1, 0, (0, 0, 2)),
            (0, 0, 0, (0, 0, 2)),
            (0, -1, 3, (0, -1, -1)),
            (0, 5, 0, (75, -1, -1)),
            (9, -1, 0, (3, -1, -1)),
        ] {
            let asked = OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(name(topic.0))
                    .with_partitions(vec![asked]),
            ]);
            let response = client.call(&request, version).await;
            let end = &response.topics[0].partitions[0];
            assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected);
        }
    }
}

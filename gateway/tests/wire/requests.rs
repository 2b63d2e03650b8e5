//! Requests of clients, worded once for all versions.

use bytes::Bytes;
use frazil_core::TopicId;
use frazil_core::batch::{BatchBuilder, batches};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::node::{Client, NOW_MS, Node};

/// A topic under its name and id, whichever a version wants.
#[derive(Clone, Copy)]
pub(crate) struct Topic(pub(crate) &'static str, pub(crate) TopicId);

impl Node {
    /// Creates a topic.
    pub(crate) fn topic(
        &self,
        name: &'static str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> Topic {
        Topic(name, self.create_topic(name, partitions, config))
    }
}

pub(crate) fn name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

/// A batch of these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder = builder.record(NOW_MS, None, Some(value.as_bytes()));
    }
    builder.build()
}

/// Produces record sets, each to one partition.
pub(crate) fn produce(
    topic: Topic,
    version: i16,
    acks: i16,
    sets: &[(i32, Bytes)],
) -> ProduceRequest {
    let data = if version >= 13 {
        TopicProduceData::default().with_topic_id(topic.1.uuid())
    } else {
        TopicProduceData::default().with_name(name(topic.0))
    };
    let partitions = sets.iter().map(|(index, records)| {
        PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(records.clone()))
    });
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data.with_partition_data(partitions.collect())])
}

/// The outcomes of a request with one topic.
pub(crate) fn outcomes(response: &ProduceResponse) -> &[PartitionProduceResponse] {
    assert_eq!(response.responses.len(), 1);
    &response.responses[0].partition_responses
}

impl Client {
    /// Produces one record set to partition 0; answers error code and base offset.
    pub(crate) async fn produce(&mut self, topic: Topic, version: i16, set: Bytes) -> (i16, i64) {
        let request = produce(topic, version, -1, &[(0, set)]);
        let response = self.call(&request, version).await;
        let outcome = &outcomes(&response)[0];
        (outcome.error_code, outcome.base_offset)
    }
}

/// Fetches partitions from offsets, without waiting.
pub(crate) fn fetch(topic: Topic, version: i16, from: &[(i32, i64)]) -> FetchRequest {
    let data = if version >= 13 {
        FetchTopic::default().with_topic_id(topic.1.uuid())
    } else {
        FetchTopic::default().with_topic(name(topic.0))
    };
    let partitions = from.iter().map(|&(index, offset)| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20)
    });
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![data.with_partitions(partitions.collect())])
}

/// The partitions of a response with one topic.
pub(crate) fn fetched(response: &FetchResponse) -> &[PartitionData] {
    assert_eq!(response.error_code, 0);
    assert_eq!(response.session_id, 0);
    assert_eq!(response.responses.len(), 1);
    &response.responses[0].partitions
}

/// Base offsets and record counts of the batches in a fetched partition, whose CRCs are right.
pub(crate) fn offsets(partition: &PartitionData) -> Vec<(i64, i32)> {
    batches(partition.records.as_ref().expect("records"))
        .map(|batch| {
            let (header, bytes) = batch.expect("whole batches");
            header.check_crc(&bytes).expect("a right CRC");
            (header.base_offset, header.record_count)
        })
        .collect()
}

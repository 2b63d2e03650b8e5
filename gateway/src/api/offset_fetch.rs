//! OffsetFetch (key 9): the offsets from which a group goes on. Sources: KIP-447 (stable offsets,
//! version 7), KIP-709 (several groups, version 8).
//!
//! What is not committed, of whatever group, is offset -1 without an error: clients take
//! anything else for a failure. There are no transactions under way that could make an offset
//! unstable, so `require_stable` changes nothing.

use std::collections::BTreeMap;

use frazil_core::TopicPartition;
use frazil_core::group::CommittedOffset;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error;
use crate::group::GroupError;

/// The first version that asks for several groups.
const BATCHED: i16 = 8;

/// The first version with an error outside of partitions.
const GROUP_ERROR: i16 = 2;

/// Answers committed offsets.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= BATCHED {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(fetch(ctx, group, version).await);
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(request.group_id)
        .with_topics(topics);
    let answer = fetch(ctx, group, version).await;
    let code = if version >= GROUP_ERROR {
        answer.error_code
    } else {
        error::NONE
    };
    OffsetFetchResponse::default()
        .with_error_code(code)
        .with_topics(answer.topics.into_iter().map(unbatched).collect())
}

async fn fetch(
    ctx: &Ctx,
    request: OffsetFetchRequestGroup,
    version: i16,
) -> OffsetFetchResponseGroup {
    // The barrier in here also makes the catalog current.
    let offsets = match ctx.groups.offsets(&request.group_id).await {
        Ok(offsets) => offsets,
        Err(error) => return failed(ctx, request, &error, version),
    };
    let topics = match request.topics {
        Some(topics) => topics
            .into_iter()
            .map(|topic| asked_for(ctx, topic, &offsets))
            .collect(),
        None => all(ctx, offsets),
    };
    group_response(request.group_id).with_topics(topics)
}

fn asked_for(
    ctx: &Ctx,
    asked: OffsetFetchRequestTopics,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
) -> OffsetFetchResponseTopics {
    let topic = ctx.catalog.topic(&asked.name);
    let partitions = asked.partition_indexes.iter().map(|&index| {
        let committed = topic
            .as_ref()
            .and_then(|topic| offsets.get(&TopicPartition::new(topic.id, index)));
        partition_response(index, committed.cloned(), error::NONE)
    });
    let partitions = partitions.collect();
    topic_response(asked.name, partitions)
}

fn all(
    ctx: &Ctx,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (partition, committed) in offsets {
        let response = partition_response(partition.partition, Some(committed), error::NONE);
        topics.entry(partition.topic).or_default().push(response);
    }
    // A topic that was deleted meanwhile has no name, and soon no offsets.
    let named = topics.into_iter().filter_map(|(id, partitions)| {
        let topic = ctx.catalog.topic_by_id(id)?;
        let name = TopicName(StrBytes::from_string(topic.name.to_string()));
        Some(topic_response(name, partitions))
    });
    named.collect()
}

fn failed(
    ctx: &Ctx,
    request: OffsetFetchRequestGroup,
    error: &GroupError,
    version: i16,
) -> OffsetFetchResponseGroup {
    let code = group_error(ctx, ApiKey::OffsetFetch, error);
    let response = group_response(request.group_id).with_error_code(code);
    if version >= GROUP_ERROR {
        return response;
    }
    // Version 1 can say it only of each partition.
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| {
        let indexes = topic.partition_indexes.iter();
        let partitions = indexes
            .map(|&index| partition_response(index, None, code))
            .collect();
        topic_response(topic.name, partitions)
    });
    response.with_topics(topics.collect())
}

fn group_response(id: GroupId) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup::default()
        .with_group_id(id)
        .with_error_code(error::NONE)
}

fn topic_response(
    name: TopicName,
    partitions: Vec<OffsetFetchResponsePartitions>,
) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(partitions)
}

fn partition_response(
    index: i32,
    committed: Option<CommittedOffset>,
    code: i16,
) -> OffsetFetchResponsePartitions {
    let response = OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_error_code(code);
    match committed {
        Some(committed) => response
            .with_committed_offset(committed.offset.0)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(committed.metadata))),
        None => response
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default())),
    }
}

/// The layout before [`BATCHED`].
fn unbatched(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(partition.error_code)
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic.name)
        .with_partitions(partitions.collect())
}

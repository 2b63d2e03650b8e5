//! OffsetDelete (key 47): forgets committed offsets, except of topics that members of the group
//! are subscribed to. Source: KIP-496.

use std::collections::HashSet;

use frazil_core::TopicPartition;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{ApiKey, OffsetDeleteRequest, OffsetDeleteResponse};

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code};
use crate::lookup;

/// Forgets committed offsets.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: OffsetDeleteRequest,
    _version: i16,
) -> OffsetDeleteResponse {
    let failed = |code: Code| {
        ctx.metrics.error(ApiKey::OffsetDelete, code);
        OffsetDeleteResponse::default().with_error_code(code.code())
    };
    let refs = request.topics.iter().map(|topic| topic.name.as_str());
    if let Err(error) = lookup::catch_up(ctx, refs).await {
        return failed(error::coordinator(&error));
    }
    let mut existing = Vec::new();
    let mut deleted = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = ctx.catalog.topic(&topic.name);
        let indexes: Vec<_> = topic.partitions.iter().map(|p| p.partition_index).collect();
        let mut partitions = Vec::new();
        let mut codes = Vec::with_capacity(indexes.len());
        for &index in &indexes {
            match &found {
                Some(topic) if (0..topic.partitions).contains(&index) => {
                    partitions.push(TopicPartition::new(topic.id, index));
                    codes.push(error::NONE);
                }
                Some(_) | None => codes.push(Code::UnknownTopicOrPartition.code()),
            }
        }
        existing.push((topic.name.to_string(), partitions));
        deleted.push((topic.name, indexes, codes));
    }
    let subscribed: HashSet<String> =
        match ctx.groups.delete_offsets(&request.group_id, existing).await {
            Ok(subscribed) => subscribed.into_iter().collect(),
            Err(error) => return failed(error::group(&error)),
        };
    let topics = deleted.into_iter().map(|(name, indexes, codes)| {
        let refused = subscribed.contains(name.as_str());
        let partitions = indexes.into_iter().zip(codes).map(|(index, code)| {
            let code = match code {
                error::NONE if refused => Code::GroupSubscribedToTopic.code(),
                code => code,
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    });
    OffsetDeleteResponse::default()
        .with_error_code(error::NONE)
        .with_topics(topics.collect())
}

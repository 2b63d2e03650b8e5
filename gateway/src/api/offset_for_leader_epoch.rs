//! OffsetForLeaderEpoch (key 23): where a leader epoch ends in the log.
//!
//! There is one epoch, 0, for ever: it ends at the high watermark. A consumer takes an end below
//! its position for a truncated log and resets, so the image is brought up to date first.
//! Sources: KIP-101, KIP-279, KIP-320.

use std::sync::Arc;

use frazil_core::{LEADER_EPOCH, Topic, TopicPartition};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::check_leader_epoch;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code};

/// Answers the end of the epochs asked for.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: OffsetForLeaderEpochRequest,
    _version: i16,
) -> OffsetForLeaderEpochResponse {
    let fresh = ctx.log.barrier().await;
    let topics = request.topics.into_iter().map(|asked| {
        let topic = ctx.catalog.topic(&asked.topic);
        let partitions = asked.partitions.iter().map(|partition| {
            let end = match &fresh {
                Ok(()) => end_of(ctx, topic.as_ref(), partition),
                Err(error) => Err(error::data_path(error)),
            };
            let response = EpochEndOffset::default().with_partition(partition.partition);
            match end {
                Ok((epoch, offset)) => response.with_leader_epoch(epoch).with_end_offset(offset),
                Err(code) => {
                    ctx.metrics.error(ApiKey::OffsetForLeaderEpoch, code);
                    response
                        .with_error_code(code.code())
                        .with_leader_epoch(-1)
                        .with_end_offset(-1)
                }
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(asked.topic)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// The epoch and its end; -1 and -1 if there never was such an epoch.
fn end_of(
    ctx: &Ctx,
    topic: Option<&Arc<Topic>>,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), Code> {
    let topic = topic.ok_or(Code::UnknownTopicOrPartition)?;
    let partition = TopicPartition::new(topic.id, asked.partition);
    let bounds = ctx
        .log
        .bounds(&partition)
        .ok_or(Code::UnknownTopicOrPartition)?;
    check_leader_epoch(asked.current_leader_epoch)?;
    if asked.leader_epoch == LEADER_EPOCH {
        Ok((LEADER_EPOCH, bounds.high_watermark.0))
    } else {
        Ok((-1, -1))
    }
}

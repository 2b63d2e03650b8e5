//! OffsetCommit (key 8): stores the offsets from which a group goes on. Sources: KIP-345,
//! KIP-848 (GROUP_ID_NOT_FOUND from version 9).
//!
//! Membership is checked twice: by the coordinator, and by the state machine when the commit is
//! applied, so a commit that was delayed cannot pass for one of a later generation. Without a
//! member id and generation the commit is a simple consumer's, and accepted while the group has
//! no members.

use frazil_core::group::CommittedOffset;
use frazil_core::{Offset, TopicPartition};
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{ApiKey, OffsetCommitRequest, OffsetCommitResponse};

use super::group_error;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code};
use crate::group::{Commit, GroupError};
use crate::lookup;

/// The first version whose clients know of groups of other kinds, and of groups that are gone.
const GROUP_AWARE: i16 = 9;

/// The longest note that a client may store with an offset, in bytes
/// (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4096;

/// Commits offsets.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let refs = request.topics.iter().map(|topic| topic.name.as_str());
    if let Err(error) = lookup::catch_up(ctx, refs).await {
        let code = error::coordinator(&error);
        return respond(request.topics, |_, _| code.code());
    }
    let now_ms = ctx.clock.now_ms();
    let mut offsets = Vec::new();
    let mut refused: Vec<Vec<i16>> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let found = ctx.catalog.topic(&topic.name);
        let mut codes = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let note = partition.committed_metadata.as_deref().unwrap_or_default();
            let refusal = match &found {
                None => Some(Code::UnknownTopicOrPartition),
                Some(topic) if !(0..topic.partitions).contains(&index) => {
                    Some(Code::UnknownTopicOrPartition)
                }
                Some(_) if note.len() > METADATA_BYTES_MAX => Some(Code::OffsetMetadataTooLarge),
                Some(topic) => {
                    let committed = CommittedOffset {
                        offset: Offset(partition.committed_offset),
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: note.to_owned(),
                        committed_ms: now_ms,
                    };
                    offsets.push((TopicPartition::new(topic.id, index), committed));
                    None
                }
            };
            codes.push(refusal.map_or(error::NONE, |code| code.code()));
        }
        refused.push(codes);
    }
    let nothing_left = offsets.is_empty() && refused.iter().any(|codes| !codes.is_empty());
    let outcome = if nothing_left {
        Ok(())
    } else {
        let commit = Commit {
            member_id: request.member_id.to_string(),
            instance_id: request.group_instance_id.map(|id| id.to_string()),
            generation: request.generation_id_or_member_epoch,
            offsets,
        };
        ctx.groups.commit(&request.group_id, commit).await
    };
    let outcome = outcome.err().map_or(error::NONE, |error| match error {
        GroupError::UnknownGroup if version < GROUP_AWARE => Code::IllegalGeneration.code(),
        error => group_error(ctx, ApiKey::OffsetCommit, &error),
    });
    respond(request.topics, |topic, partition| {
        match refused[topic][partition] {
            error::NONE => outcome,
            refusal => refusal,
        }
    })
}

/// One entry per partition of the request, with the code for (topic, partition) by position.
fn respond(
    topics: Vec<OffsetCommitRequestTopic>,
    code: impl Fn(usize, usize) -> i16,
) -> OffsetCommitResponse {
    let topics = topics.into_iter().enumerate().map(|(t, topic)| {
        let partitions = topic.partitions.iter().enumerate().map(|(p, partition)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(t, p))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

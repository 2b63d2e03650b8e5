//! DeleteRecords (key 21): raises log start offsets. An offset of -1 means the high watermark; one
//! at or below the log start changes nothing. Source: KIP-107.

use frazil_core::ports::CatalogRefusal;
use frazil_core::{Offset, TopicPartition};
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse};

use crate::configs::Brokers;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code};
use crate::lookup;

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Deletes records before offsets.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DeleteRecordsRequest,
    _version: i16,
) -> DeleteRecordsResponse {
    let names = request.topics.iter().map(|topic| topic.name.as_str());
    let known = lookup::catch_up(ctx, names).await;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let deleted = match &known {
                Ok(()) => delete(ctx, &topic.name, &partition).await,
                Err(error) => Err(error::admin(error)),
            };
            let result = DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index);
            partitions.push(match deleted {
                Ok(log_start) => result
                    .with_low_watermark(log_start.0)
                    .with_error_code(error::NONE),
                Err(code) => {
                    ctx.metrics.error(ApiKey::DeleteRecords, code);
                    result.with_low_watermark(-1).with_error_code(code.code())
                }
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Answers the log start afterwards.
async fn delete(ctx: &Ctx, name: &str, asked: &DeleteRecordsPartition) -> Result<Offset, Code> {
    let unknown = error::catalog(&CatalogRefusal::UnknownTopic);
    let topic = ctx.catalog.topic(name).ok_or(unknown)?;
    if !(0..topic.partitions).contains(&asked.partition_index) {
        return Err(unknown);
    }
    // Of a topic that only keeps the last of each key, nothing may go by age or offset.
    if !Brokers::of(ctx).resolve(&topic.config).delete {
        return Err(Code::PolicyViolation);
    }
    let to = match asked.offset {
        HIGH_WATERMARK => None,
        offset if offset < 0 => return Err(Code::OffsetOutOfRange),
        offset => Some(Offset(offset)),
    };
    let partition = TopicPartition::new(topic.id, asked.partition_index);
    match ctx.catalog.delete_records(partition, to).await {
        Ok(Ok(log_start)) => Ok(log_start),
        Ok(Err(refusal)) => Err(error::catalog(&refusal)),
        Err(error) => Err(error::admin(&error)),
    }
}

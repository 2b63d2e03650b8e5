//! DescribeLogDirs (key 35): how many bytes each partition occupies.
//!
//! There are no log directories; one is made up, as user interfaces take the size of topics from
//! here. A gateway reports the partitions it "leads", so that sums over all brokers are right.
//! Source: KIP-113, KIP-827.

use frazil_core::{Topic, TopicPartition};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::NONE;
use crate::placement;

/// The name of the directory that is not there.
const LOG_DIR: &str = "/object-store";
/// A size that is not known.
const UNKNOWN_BYTES: i64 = -1;

/// Answers the sizes of all partitions, or of those asked for.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DescribeLogDirsRequest,
    _version: i16,
) -> DescribeLogDirsResponse {
    let topics = match request.topics {
        None => ctx
            .catalog
            .topics()
            .iter()
            .map(|topic| topic_sizes(ctx, topic, 0..topic.partitions))
            .collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| {
                let topic = ctx.catalog.topic(&asked.topic)?;
                let exists = |index: &i32| (0..topic.partitions).contains(index);
                let indexes = asked.partitions.iter().copied().filter(exists);
                Some(topic_sizes(ctx, &topic, indexes))
            })
            .collect(),
    };
    DescribeLogDirsResponse::default()
        .with_error_code(NONE)
        .with_results(vec![
            DescribeLogDirsResult::default()
                .with_error_code(NONE)
                .with_log_dir(StrBytes::from_static_str(LOG_DIR))
                .with_topics(topics)
                .with_total_bytes(UNKNOWN_BYTES)
                .with_usable_bytes(UNKNOWN_BYTES),
        ])
}

fn topic_sizes(
    ctx: &Ctx,
    topic: &Topic,
    indexes: impl Iterator<Item = i32>,
) -> DescribeLogDirsTopic {
    let brokers = ctx.catalog.brokers();
    let partitions = indexes
        .map(|index| TopicPartition::new(topic.id, index))
        .filter(|partition| {
            placement::leader(&brokers, partition).is_some_and(|leader| leader.id == ctx.broker)
        })
        .map(|partition| {
            DescribeLogDirsPartition::default()
                .with_partition_index(partition.partition)
                .with_partition_size(ctx.log.size_bytes(&partition) as i64)
        })
        .collect();
    DescribeLogDirsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.name.to_string())))
        .with_partitions(partitions)
}

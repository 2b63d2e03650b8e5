//! ElectLeaders (key 43): never needed, since leaders are computed from who is alive. Source:
//! KIP-460.

use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use kafka_protocol::protocol::StrBytes;

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code};
use crate::lookup;

/// Answers `ELECTION_NOT_NEEDED` for each partition that is named. Of all partitions, only those
/// with an election would be reported.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: ElectLeadersRequest,
    _version: i16,
) -> ElectLeadersResponse {
    let topics = request.topic_partitions.unwrap_or_default();
    let known = lookup::catch_up(ctx, topics.iter().map(|topic| topic.topic.as_str())).await;
    let known = known.map_err(|error| error::admin(&error));
    let results = topics.into_iter().map(|topic| {
        let count = ctx
            .catalog
            .topic(&topic.topic)
            .map_or(0, |topic| topic.partitions);
        let partitions = topic.partitions.into_iter().map(|index| {
            let (code, why) = match known {
                Err(code) => (code, "the metadata quorum is unavailable"),
                Ok(()) if (0..count).contains(&index) => {
                    (Code::ElectionNotNeeded, "the leader is whom it should be")
                }
                Ok(()) => (Code::UnknownTopicOrPartition, "there is no such partition"),
            };
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_static_str(why)))
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default()
            .with_topic(topic.topic)
            .with_partition_result(partitions)
    });
    ElectLeadersResponse::default()
        .with_error_code(error::NONE)
        .with_replica_election_results(results.collect())
}

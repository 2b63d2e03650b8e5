//! CreatePartitions (key 37): raises the number of partitions of topics. One result per topic.
//! Source: KIP-195.

use std::collections::HashMap;

use frazil_core::ports::{CatalogRefusal, TOPIC_PARTITIONS_MAX};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, Explained};

/// Adds partitions.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: CreatePartitionsRequest,
    _version: i16,
) -> CreatePartitionsResponse {
    let fresh = ctx.log.barrier().await;
    let mut named: HashMap<StrBytes, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.0.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(named.len());
    for topic in request.topics {
        // One entry for each name, also for one that stands there twice.
        let Some(count) = named.remove(&topic.name.0) else {
            continue;
        };
        let added = match &fresh {
            Err(error) => Err(Explained::from(error)),
            Ok(()) if count > 1 => Err(Explained::new(
                Code::InvalidRequest,
                "the request names the topic more than once",
            )),
            Ok(()) => add(ctx, &topic, request.validate_only).await,
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match added {
            Ok(()) => result.with_error_code(error::NONE).with_error_message(None),
            Err(error) => {
                ctx.metrics.error(ApiKey::CreatePartitions, error.code);
                result
                    .with_error_code(error.code.code())
                    .with_error_message(Some(StrBytes::from_string(error.message)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn add(
    ctx: &Ctx,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Explained> {
    let topic = ctx
        .catalog
        .topic(&asked.name)
        .ok_or(CatalogRefusal::UnknownTopic)?;
    if asked.count <= topic.partitions || asked.count > TOPIC_PARTITIONS_MAX {
        return Err(CatalogRefusal::PartitionCount(topic.partitions).into());
    }
    if let Some(assignments) = &asked.assignments {
        let new = (asked.count - topic.partitions) as usize;
        if assignments.len() != new || assignments.iter().any(|a| a.broker_ids.is_empty()) {
            let why = format!("an assignment must name brokers for {new} new partitions");
            return Err(Explained::new(Code::InvalidReplicaAssignment, why));
        }
    }
    if !validate_only {
        ctx.catalog
            .create_partitions(topic.id, asked.count)
            .await??;
        tracing::info!(topic = %topic.name, partitions = asked.count, "partitions added");
    }
    Ok(())
}

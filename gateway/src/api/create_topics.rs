//! CreateTopics (key 19): checks and creates topics. Any gateway answers. Sources: KIP-4, KIP-464
//! (-1: the broker's default), KIP-525 (settings in the response, version 5), KIP-516.
//!
//! Replicas are the object store's business: any replication factor is accepted and reported, and
//! a manual assignment only tells how many partitions and replicas there shall be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use frazil_core::ports::{NewTopic, TOPIC_PARTITIONS_MAX};
use frazil_core::{Topic, TopicId, TopicName, topic_config};
use futures_util::StreamExt;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;

use super::COMMANDS_AT_ONCE;
use crate::configs::{self, Brokers};
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, Explained};

/// Creates topics.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: CreateTopicsRequest,
    _version: i16,
) -> CreateTopicsResponse {
    // What is only checked is checked against the image, so that has to be current.
    let fresh = if request.validate_only {
        ctx.log.barrier().await
    } else {
        Ok(())
    };
    let mut named: HashMap<StrBytes, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.0.clone()).or_default() += 1;
    }
    let mut asked = Vec::new();
    for topic in request.topics {
        // One entry for each name, also for one that stands there twice.
        if let Some(count) = named.remove(&topic.name.0) {
            asked.push((topic, count > 1));
        }
    }
    let results = asked.into_iter().map(|(topic, repeated)| {
        let fresh = fresh.clone();
        async move {
            let name = topic.name.clone();
            let created = match fresh {
                Err(error) => Err(Explained::from(&error)),
                Ok(()) if repeated => Err(Explained::new(
                    Code::InvalidRequest,
                    "the request names the topic more than once",
                )),
                Ok(()) => create(ctx, topic, request.validate_only).await,
            };
            let result = CreatableTopicResult::default().with_name(name);
            match created {
                Ok(topic) => created_response(ctx, result, &topic, request.validate_only),
                Err(error) => {
                    ctx.metrics.error(ApiKey::CreateTopics, error.code);
                    result
                        .with_error_code(error.code.code())
                        .with_error_message(Some(StrBytes::from_string(error.message)))
                        .with_num_partitions(-1)
                        .with_replication_factor(-1)
                        .with_configs(Some(Vec::new()))
                }
            }
        }
    });
    let results = futures_util::stream::iter(results).buffered(COMMANDS_AT_ONCE);
    CreateTopicsResponse::default().with_topics(results.collect().await)
}

async fn create(
    ctx: &Ctx,
    asked: CreatableTopic,
    validate_only: bool,
) -> Result<Arc<Topic>, Explained> {
    let topic = check(ctx, &asked)?;
    if validate_only {
        ctx.catalog.check_new_topic(&topic)?;
        return Ok(Arc::new(Topic {
            id: topic.id,
            name: topic.name,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            config: topic.config,
            created_ms: 0,
        }));
    }
    let created = ctx.catalog.create_topic(topic).await??;
    tracing::info!(topic = %created.name, partitions = created.partitions, "topic created");
    Ok(created)
}

/// Everything that can be said without the image.
fn check(ctx: &Ctx, asked: &CreatableTopic) -> Result<NewTopic, Explained> {
    let name = TopicName::new(&asked.name)
        .map_err(|error| Explained::new(error::topic_name(&error), error.to_string()))?;
    let (partitions, replication_factor) = if asked.assignments.is_empty() {
        counts(ctx, asked)?
    } else {
        assigned(asked)?
    };
    let mut config = BTreeMap::new();
    for setting in &asked.configs {
        let value = setting.value.as_ref().ok_or_else(|| {
            let why = format!("{} has no value", setting.name.as_str());
            Explained::new(Code::InvalidConfig, why)
        })?;
        config.insert(setting.name.to_string(), value.to_string());
    }
    topic_config::validate_all(&config)?;
    Ok(NewTopic {
        id: TopicId::new(ctx.ids.uuid()),
        name,
        partitions,
        replication_factor,
        config,
    })
}

fn counts(ctx: &Ctx, asked: &CreatableTopic) -> Result<(i32, i16), Explained> {
    let partitions = match asked.num_partitions {
        -1 => ctx.config.num_partitions,
        count => count,
    };
    if !(1..=TOPIC_PARTITIONS_MAX).contains(&partitions) {
        let why = format!("a topic has from 1 to {TOPIC_PARTITIONS_MAX} partitions");
        return Err(Explained::new(Code::InvalidPartitions, why));
    }
    let replication_factor = match asked.replication_factor {
        -1 => ctx.config.default_replication_factor,
        factor => factor,
    };
    if replication_factor < 1 {
        let why = "the replication factor must be at least 1, or -1 for the default";
        return Err(Explained::new(Code::InvalidReplicationFactor, why));
    }
    Ok((partitions, replication_factor))
}

fn assigned(asked: &CreatableTopic) -> Result<(i32, i16), Explained> {
    if asked.num_partitions != -1 || asked.replication_factor != -1 {
        let why = "with an assignment, partitions and replication factor must be -1";
        return Err(Explained::new(Code::InvalidRequest, why));
    }
    let invalid = |why: &str| Err(Explained::new(Code::InvalidReplicaAssignment, why));
    let count = asked.assignments.len();
    let indexes: BTreeSet<i32> = asked
        .assignments
        .iter()
        .map(|assignment| assignment.partition_index)
        .collect();
    if indexes.len() < count || !indexes.iter().copied().eq(0..count as i32) {
        return invalid("partitions must be numbered from 0 without gaps");
    }
    if count > TOPIC_PARTITIONS_MAX as usize {
        let why = format!("a topic has at most {TOPIC_PARTITIONS_MAX} partitions");
        return Err(Explained::new(Code::InvalidPartitions, why));
    }
    let replicas = |assignment: &CreatableReplicaAssignment| assignment.broker_ids.len();
    let factor = replicas(&asked.assignments[0]);
    if asked.assignments.iter().any(|assignment| {
        let ids: BTreeSet<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        ids.len() < replicas(assignment) || ids.first().is_some_and(|id| *id < 0)
    }) {
        return invalid("a partition's brokers must be distinct ids");
    }
    if factor == 0 || asked.assignments.iter().any(|a| replicas(a) != factor) {
        return invalid("partitions must have equally many replicas, and at least one");
    }
    let Ok(factor) = i16::try_from(factor) else {
        return invalid("there are too many replicas");
    };
    Ok((count as i32, factor))
}

fn created_response(
    ctx: &Ctx,
    result: CreatableTopicResult,
    topic: &Topic,
    validate_only: bool,
) -> CreatableTopicResult {
    let entries = configs::of_topic(&topic.config, &Brokers::of(ctx));
    let configs = entries.into_iter().map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(entry.name))
            .with_value(entry.value.map(StrBytes::from_string))
            .with_read_only(entry.read_only)
            .with_config_source(entry.source)
            .with_is_sensitive(false)
    });
    // What was only checked has no id.
    let id = if validate_only {
        uuid::Uuid::nil()
    } else {
        topic.id.uuid()
    };
    result
        .with_topic_id(id)
        .with_error_code(error::NONE)
        .with_error_message(None)
        .with_topic_config_error_code(error::NONE)
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor)
        .with_configs(Some(configs.collect()))
}

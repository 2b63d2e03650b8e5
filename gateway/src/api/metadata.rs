//! Metadata (key 3): brokers, topics, and who "leads" each partition.
//!
//! Any gateway serves any partition, so the leader is whom [`placement`] says, among the gateways of
//! the client's zone if both are known ([`zones`](crate::zones)). Replicas are for
//! show: as many distinct live brokers as the topic's replication factor, or all.
//!
//! A topic that is named and not in the image may have been created a moment ago through another
//! gateway: before it is called unknown (or created), the image is brought up to date.
//! Sources: KIP-4, KIP-204 (auto-creation is the client's choice), KIP-516 (topic ids).

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_core::ports::{Broker, CatalogRefusal, NewTopic};
use frazil_core::{LEADER_EPOCH, Topic, TopicId, TopicName, TopicPartition};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{self as kafka, ApiKey, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::{info, warn};

use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, NONE};
use crate::placement;

/// "Not asked for", in fields of authorised operations.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Answers brokers and topics, creating named topics if both sides want that.
pub(crate) async fn handle(
    ctx: &Ctx,
    conn: &ConnInfo,
    header: &Header,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    // Version 0 has no null, and asks for all topics with an empty list.
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let found = if all {
        ctx.catalog.topics().into_iter().map(Found::Topic).collect()
    } else {
        let create = request.allow_auto_topic_creation && ctx.config.auto_create_topics;
        find(ctx, request.topics.unwrap_or_default(), create).await
    };
    // After the topics: whoever created one was alive.
    let brokers = ctx.catalog.brokers();
    let client_id = header.client_id.as_deref().unwrap_or_default();
    let zone = ctx.zones.of(conn.peer.ip(), client_id);
    let near = placement::near(&brokers, zone.as_deref());
    let topics = found
        .into_iter()
        .map(|found| match found {
            Found::Topic(topic) => topic_response(&topic, (&brokers, &near), version),
            Found::Not { name, id, code } => {
                ctx.metrics.error(ApiKey::Metadata, code);
                let response = MetadataResponseTopic::default()
                    .with_error_code(code.code())
                    .with_name(name.map(kafka::TopicName))
                    .with_topic_authorized_operations(OPERATIONS_UNKNOWN);
                match id {
                    Some(id) if version >= 10 => response.with_topic_id(id),
                    _ => response,
                }
            }
        })
        .collect();
    MetadataResponse::default()
        .with_cluster_id(Some(StrBytes::from_string(ctx.catalog.cluster_id())))
        .with_controller_id(kafka::BrokerId(
            placement::controller(&brokers).map_or(-1, |broker| broker.id.0),
        ))
        .with_brokers(brokers.into_iter().map(broker_response).collect())
        .with_topics(topics)
        .with_cluster_authorized_operations(OPERATIONS_UNKNOWN)
}

enum Found {
    Topic(Arc<Topic>),
    Not {
        name: Option<StrBytes>,
        id: Option<uuid::Uuid>,
        code: Code,
    },
}

async fn find(ctx: &Ctx, wanted: Vec<MetadataRequestTopic>, create: bool) -> Vec<Found> {
    let unknown = wanted.iter().any(|topic| lookup(ctx, topic).is_none());
    // A failed barrier leaves it open whether the topic exists; the client shall ask again.
    let fresh = !unknown || ctx.log.barrier().await.is_ok();
    let mut found = Vec::with_capacity(wanted.len());
    for topic in wanted {
        found.push(match lookup(ctx, &topic) {
            Some(topic) => Found::Topic(topic),
            None => missing(ctx, topic, create, fresh).await,
        });
    }
    found
}

fn lookup(ctx: &Ctx, wanted: &MetadataRequestTopic) -> Option<Arc<Topic>> {
    match &wanted.name {
        Some(name) => ctx.catalog.topic(name),
        None => ctx.catalog.topic_by_id(TopicId::new(wanted.topic_id)),
    }
}

async fn missing(ctx: &Ctx, wanted: MetadataRequestTopic, create: bool, fresh: bool) -> Found {
    let not = |name, id, code| Found::Not { name, id, code };
    let Some(name) = wanted.name.map(|name| name.0) else {
        let code = if fresh {
            Code::UnknownTopicId
        } else {
            Code::LeaderNotAvailable
        };
        return not(None, Some(wanted.topic_id), code);
    };
    let valid = match TopicName::new(&name) {
        Ok(valid) => valid,
        Err(error) => return not(Some(name), None, error::topic_name(&error)),
    };
    if !fresh {
        return not(Some(name), None, Code::LeaderNotAvailable);
    }
    if !create {
        return not(Some(name), None, Code::UnknownTopicOrPartition);
    }
    match auto_create(ctx, valid).await {
        Ok(topic) => Found::Topic(topic),
        Err(code) => not(Some(name), None, code),
    }
}

async fn auto_create(ctx: &Ctx, name: TopicName) -> Result<Arc<Topic>, Code> {
    let topic = NewTopic {
        id: TopicId::new(ctx.ids.uuid()),
        name: name.clone(),
        partitions: ctx.config.num_partitions,
        replication_factor: ctx.config.default_replication_factor,
        config: BTreeMap::new(),
    };
    match ctx.catalog.create_topic(topic).await {
        Ok(Ok(topic)) => {
            ctx.metrics.topics_auto_created.inc();
            info!(topic = %name, "topic created on first use");
            Ok(topic)
        }
        // Somebody was faster.
        Ok(Err(CatalogRefusal::TopicExists)) => ctx
            .catalog
            .topic(name.as_str())
            .ok_or(Code::LeaderNotAvailable),
        Ok(Err(refusal)) => Err(error::catalog(&refusal)),
        Err(error) => {
            warn!(topic = %name, %error, "topic not created on first use");
            Err(Code::LeaderNotAvailable)
        }
    }
}

/// All brokers, and those that may lead for the client.
type Brokers<'a> = (&'a [Broker], &'a [Broker]);

fn topic_response(topic: &Topic, brokers: Brokers<'_>, version: i16) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions)
        .map(|index| partition_response(topic, index, brokers))
        .collect();
    let response = MetadataResponseTopic::default()
        .with_error_code(NONE)
        .with_name(Some(kafka::TopicName(StrBytes::from_string(
            topic.name.to_string(),
        ))))
        .with_partitions(partitions)
        .with_topic_authorized_operations(OPERATIONS_UNKNOWN);
    if version >= 10 {
        response.with_topic_id(topic.id.uuid())
    } else {
        response
    }
}

fn partition_response(
    topic: &Topic,
    index: i32,
    (brokers, near): Brokers<'_>,
) -> MetadataResponsePartition {
    let partition = TopicPartition::new(topic.id, index);
    let replicas: Vec<_> = placement::replicas(brokers, near, &partition, topic.replication_factor)
        .into_iter()
        .map(kafka::BrokerId)
        .collect();
    let response = MetadataResponsePartition::default()
        .with_partition_index(index)
        .with_leader_epoch(LEADER_EPOCH)
        .with_replica_nodes(replicas.clone());
    match replicas.first() {
        Some(&leader) => response.with_leader_id(leader).with_isr_nodes(replicas),
        None => response
            .with_error_code(Code::LeaderNotAvailable.code())
            .with_leader_id(kafka::BrokerId(-1)),
    }
}

fn broker_response(broker: Broker) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(kafka::BrokerId(broker.id.0))
        .with_host(StrBytes::from_string(broker.host))
        .with_port(i32::from(broker.port))
        .with_rack(broker.rack.map(StrBytes::from_string))
}

//! DeleteTopics (key 20): deletes topics with everything in them, by name or (version 6) by id.
//! Sources: KIP-4, KIP-516.

use std::collections::HashSet;

use frazil_core::TopicId;
use frazil_core::ports::CatalogRefusal;
use futures_util::StreamExt;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::COMMANDS_AT_ONCE;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, Explained};

/// The first version that can name topics by their ids.
const TOPIC_IDS: i16 = 6;

/// Deletes topics.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let mut topics = if version >= TOPIC_IDS {
        request.topics
    } else {
        let names = request.topic_names.into_iter();
        names
            .map(|name| DeleteTopicState::default().with_name(Some(name)))
            .collect()
    };
    let fresh = ctx.log.barrier().await;
    // By what they are, so that one named both ways counts as named twice.
    let mut seen = HashSet::new();
    let mut repeated = HashSet::new();
    for topic in &topics {
        if let Some(id) = find(ctx, topic)
            && !seen.insert(id)
        {
            repeated.insert(id);
        }
    }
    let repeated = &repeated;
    // One entry for each, also for one that stands there twice.
    let mut answered = HashSet::new();
    topics.retain(|topic| answered.insert((topic.name.clone(), topic.topic_id)));
    let results = topics.into_iter().map(|topic| {
        let fresh = fresh.clone();
        async move {
            let deleted = match fresh {
                Err(error) => Err(Explained::from(&error)),
                Ok(()) => delete(ctx, &topic, repeated).await,
            };
            respond(ctx, topic, deleted)
        }
    });
    let results = futures_util::stream::iter(results).buffered(COMMANDS_AT_ONCE);
    DeleteTopicsResponse::default().with_responses(results.collect().await)
}

fn find(ctx: &Ctx, topic: &DeleteTopicState) -> Option<TopicId> {
    match &topic.name {
        Some(name) => ctx.catalog.topic(name).map(|topic| topic.id),
        None => ctx
            .catalog
            .topic_by_id(TopicId::new(topic.topic_id))
            .map(|topic| topic.id),
    }
}

/// Deletes one topic; answers its name and id.
async fn delete(
    ctx: &Ctx,
    asked: &DeleteTopicState,
    repeated: &HashSet<TopicId>,
) -> Result<(TopicName, Uuid), Explained> {
    if asked.name.is_some() != asked.topic_id.is_nil() {
        let why = "a topic is named either by its name or by its id";
        return Err(Explained::new(Code::InvalidRequest, why));
    }
    let unknown = || match asked.name {
        Some(_) => Explained::from(CatalogRefusal::UnknownTopic),
        None => Explained::new(Code::UnknownTopicId, "no topic has this id"),
    };
    let id = find(ctx, asked).ok_or_else(unknown)?;
    if repeated.contains(&id) {
        let why = "the request names the topic more than once";
        return Err(Explained::new(Code::InvalidRequest, why));
    }
    let topic = ctx.catalog.topic_by_id(id).ok_or_else(unknown)?;
    match ctx.catalog.delete_topic(id).await? {
        // Somebody was faster.
        Err(CatalogRefusal::UnknownTopic) => return Err(unknown()),
        result => result?,
    }
    tracing::info!(topic = %topic.name, %id, "topic deleted");
    let name = TopicName(StrBytes::from_string(topic.name.to_string()));
    Ok((name, id.uuid()))
}

fn respond(
    ctx: &Ctx,
    asked: DeleteTopicState,
    deleted: Result<(TopicName, Uuid), Explained>,
) -> DeletableTopicResult {
    let result = DeletableTopicResult::default();
    match deleted {
        Ok((name, id)) => result
            .with_name(Some(name))
            .with_topic_id(id)
            .with_error_code(error::NONE),
        Err(error) => {
            ctx.metrics.error(ApiKey::DeleteTopics, error.code);
            result
                .with_name(asked.name)
                .with_topic_id(asked.topic_id)
                .with_error_code(error.code.code())
                .with_error_message(Some(StrBytes::from_string(error.message)))
        }
    }
}

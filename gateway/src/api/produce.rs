//! Produce (key 0): record batches in.
//!
//! ```text
//! parse ─► topic ─► validate ─► reserve memory ─► append ─┐ staged, in the request's order
//!                                                         │
//! answer ◄── per partition: offset, or error, or timeout ◄┘ awaited later
//! ```
//!
//! Staging happens on the connection, one request after the other, so the batches of one
//! connection reach the log in order. Awaiting does not, so they overlap.
//!
//! - Partitions are independent: one bad batch does not keep the others out.
//! - `acks=all` waits for what the topic promises (`frazil.durability`), `acks=1` for the local
//!   log. `acks=0` waits for nothing and is told nothing: an error closes the connection.
//! - A batch that was staged and not settled within the request's timeout is answered as
//!   REQUEST_TIMED_OUT. It may still be appended; an idempotent producer's retry then gets the
//!   same offset.
//!
//! Sources: KIP-98, KIP-467 (record errors), KIP-516 (topic ids), KIP-679.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_cache::{AppendBatch, BATCH_OVERHEAD, Durability, Pending, Reservation};
use frazil_core::batch::{BatchError, Codec, Limits, TimestampType, Validated, validate};
use frazil_core::{Topic, TopicId, TopicPartition, topic_config};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, timeout_at};

use crate::connection::Outcome;
use crate::context::{Ctx, Header};
use crate::dispatch::{Unanswerable, encode};
use crate::error::{self, Code, NONE};
use crate::wire::guard::Refused;
use crate::wire::produce::{ProducePartition, ProduceRequest, ProduceTopic, TopicRef, parse};
use crate::wire::response::Response;

/// The first version whose clients can read zstd (KIP-110).
const ZSTD_MIN: i16 = 7;
/// The longest that a client may let a request wait.
const TIMEOUT_MAX_MS: i32 = 300_000;
/// Batches from this size on are checked outside the runtime's threads if they are compressed,
/// 1 in 32 as large otherwise: a check shall not hold up other connections for a millisecond.
const COMPRESSED_OFFLOAD_BYTES: usize = 16 << 10;
const PLAIN_OFFLOAD_BYTES: usize = 512 << 10;

/// Hands the batches of a request to the cache; the outcome is still to come.
///
/// # Cancel safety
/// Dropping it leaves some batches staged, which then may be appended.
pub(crate) async fn stage(ctx: &Arc<Ctx>, header: &Header, body: &Bytes) -> Outcome {
    let request = match parse(body, header.version) {
        Ok(request) => request,
        Err(why) => return Outcome::Ready(Err(Refused { field: "", why }.into())),
    };
    let wanted = Duration::from_millis(request.timeout_ms.clamp(0, TIMEOUT_MAX_MS) as u64);
    let deadline = Instant::now() + wanted;
    let acks = request.acks;
    let staged = stage_topics(ctx, header, request, deadline).await;
    if acks == 0 {
        // Dropping what is pending does not take it back.
        return match staged.iter().find_map(StagedTopic::first_error) {
            None => Outcome::Later(Box::pin(std::future::ready(Ok(None)))),
            Some(code) => Outcome::Ready(Err(Unanswerable::Unacknowledged(code))),
        };
    }
    let ctx = Arc::clone(ctx);
    let header = header.clone();
    Outcome::Later(Box::pin(async move {
        let response = settle(&ctx, staged, deadline).await;
        encode(&header, &response).map(|bytes| Some(Response::from(bytes)))
    }))
}

struct StagedTopic {
    topic: TopicRef,
    partitions: Vec<StagedPartition>,
}

struct StagedPartition {
    index: i32,
    outcome: Result<Staged, Refusal>,
}

struct Staged {
    pending: Pending,
    /// The append time that the broker has set, or -1.
    append_time: i64,
}

/// Why a partition's batch was not staged.
struct Refusal {
    code: Code,
    message: Option<String>,
    record: Option<u32>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self {
            code,
            message: None,
            record: None,
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        Self {
            code: error::batch(&error),
            message: Some(error.to_string()),
            record: error.record_index(),
        }
    }
}

impl StagedTopic {
    fn first_error(&self) -> Option<Code> {
        let mut outcomes = self.partitions.iter().map(|p| &p.outcome);
        outcomes.find_map(|outcome| outcome.as_ref().err().map(|refusal| refusal.code))
    }
}

async fn stage_topics(
    ctx: &Ctx,
    header: &Header,
    request: ProduceRequest,
    deadline: Instant,
) -> Vec<StagedTopic> {
    let mut room = match admit(ctx, &request, deadline).await {
        Ok(room) => room,
        Err(code) => {
            return request
                .topics
                .into_iter()
                .map(|t| refuse(t, code))
                .collect();
        }
    };
    let fresh = freshen(ctx, &request.topics).await;
    let mut staged = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = match find(ctx, &asked.topic, fresh) {
            Ok(topic) => topic,
            Err(code) => {
                staged.push(refuse(asked, code));
                continue;
            }
        };
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for ProducePartition { index, records } in asked.partitions {
            let incoming = Incoming {
                topic: &topic,
                index,
                records: records.unwrap_or_default(),
                acks: request.acks,
                version: header.version,
            };
            let outcome = stage_batch(ctx, incoming, &mut room).await;
            partitions.push(StagedPartition { index, outcome });
        }
        staged.push(StagedTopic {
            topic: asked.topic,
            partitions,
        });
    }
    staged
}

/// Whether the request as a whole can be served; if so, waits for room for all its batches. Once
/// for the whole request: requests that each held a part of their room while waiting for the rest
/// could wait for each other.
async fn admit(
    ctx: &Ctx,
    request: &ProduceRequest,
    deadline: Instant,
) -> Result<Reservation, Code> {
    if !matches!(request.acks, -1..=1) {
        return Err(Code::InvalidRequiredAcks);
    }
    if request.transactional_id.is_some() {
        // See `api::find_coordinator` for why this code.
        return Err(Code::TransactionalIdAuthorizationFailed);
    }
    // Who wants no answer would not learn of it.
    if request.acks != 0 && ctx.sends_away() {
        return Err(Code::NotLeaderOrFollower);
    }
    match timeout_at(deadline, ctx.cache.reserve(footprint(request))).await {
        Ok(Ok(room)) => Ok(room),
        // The data plane has ended: the client shall look for another gateway.
        Ok(Err(_)) => Err(Code::NotLeaderOrFollower),
        // Nothing was staged, and the client may well try again.
        Err(_) => Err(Code::RequestTimedOut),
    }
}

/// The memory that the batches of a request take until they are settled, in bytes.
fn footprint(request: &ProduceRequest) -> usize {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let records = partitions.filter_map(|partition| partition.records.as_ref());
    records.map(|records| records.len() + BATCH_OVERHEAD).sum()
}

/// One answer for all partitions of a topic.
fn refuse(asked: ProduceTopic, code: Code) -> StagedTopic {
    let partitions = asked
        .partitions
        .into_iter()
        .map(|partition| StagedPartition {
            index: partition.index,
            outcome: Err(code.into()),
        });
    StagedTopic {
        topic: asked.topic,
        partitions: partitions.collect(),
    }
}

/// Brings the image up to date if it lacks one of the topics or partitions; they may have just been
/// created. Answers whether what it lacks now does not exist.
async fn freshen(ctx: &Ctx, topics: &[ProduceTopic]) -> bool {
    let is_known = |asked: &ProduceTopic| {
        let mut indexes = asked.partitions.iter().map(|partition| partition.index);
        lookup(ctx, &asked.topic).is_some_and(|topic| indexes.all(|index| index < topic.partitions))
    };
    topics.iter().all(is_known) || ctx.log.barrier().await.is_ok()
}

fn lookup(ctx: &Ctx, topic: &TopicRef) -> Option<Arc<Topic>> {
    match topic {
        TopicRef::Name(name) => ctx.catalog.topic(name),
        TopicRef::Id(id) => ctx.catalog.topic_by_id(TopicId::new(*id)),
    }
}

fn find(ctx: &Ctx, topic: &TopicRef, fresh: bool) -> Result<Arc<Topic>, Code> {
    lookup(ctx, topic).ok_or(match topic {
        _ if !fresh => Code::LeaderNotAvailable,
        TopicRef::Name(_) => Code::UnknownTopicOrPartition,
        TopicRef::Id(_) => Code::UnknownTopicId,
    })
}

struct Incoming<'a> {
    topic: &'a Arc<Topic>,
    index: i32,
    records: Bytes,
    acks: i16,
    version: i16,
}

async fn stage_batch(
    ctx: &Ctx,
    incoming: Incoming<'_>,
    room: &mut Reservation,
) -> Result<Staged, Refusal> {
    let topic = incoming.topic;
    if !(0..topic.partitions).contains(&incoming.index) {
        return Err(Code::UnknownTopicOrPartition.into());
    }
    let config = ctx
        .topic_configs
        .of(topic, ctx.catalog.as_ref(), ctx.broker);
    let limits = config.limits(ctx.clock.now_ms());
    let received = incoming.records.len();
    let Validated {
        batch,
        header,
        info,
    } = check(incoming.records, limits).await?;
    if incoming.version < ZSTD_MIN && header.codec() == Ok(Codec::Zstd) {
        return Err(Code::UnsupportedCompressionType.into());
    }
    ctx.metrics.produced_bytes.inc_by(batch.len() as u64);
    let durability = match incoming.acks {
        -1 => match config.durability {
            topic_config::Durability::Object => Durability::Object,
            topic_config::Durability::Local => Durability::Local,
        },
        1 => Durability::Local,
        _ => Durability::Object,
    };
    let mut room = room.split(received + BATCH_OVERHEAD);
    // With `compression.type`, a batch may be much larger now than it came.
    if batch.len() > received && !ctx.cache.grow(&mut room, batch.len() - received) {
        // It may be tried again when others have been settled.
        return Err(Code::NotEnoughReplicas.into());
    }
    let append = AppendBatch {
        partition: TopicPartition::new(topic.id, incoming.index),
        info,
        bytes: batch,
        durability,
    };
    Ok(Staged {
        pending: ctx.cache.append(append, room),
        append_time: match header.timestamp_type() {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => header.max_timestamp,
        },
    })
}

/// Validates a batch, on another thread if that may take long.
async fn check(records: Bytes, limits: Limits) -> Result<Validated, Refusal> {
    let compressed = records
        .get(22)
        .is_some_and(|attributes| attributes & 7 != 0);
    let inline_max = if compressed {
        COMPRESSED_OFFLOAD_BYTES
    } else {
        PLAIN_OFFLOAD_BYTES
    };
    if records.len() <= inline_max {
        return Ok(validate(&records, &limits)?);
    }
    match crate::blocking::spawn_blocking(move || validate(&records, &limits)).await {
        Ok(validated) => Ok(validated?),
        // Only a runtime that is shutting down drops blocking tasks; a panic is passed on.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Code::NotLeaderOrFollower.into()),
        },
    }
}

/// Awaits what was staged and words the response.
async fn settle(ctx: &Ctx, staged: Vec<StagedTopic>, deadline: Instant) -> ProduceResponse {
    let mut responses = Vec::with_capacity(staged.len());
    for StagedTopic { topic, partitions } in staged {
        let mut partition_responses = Vec::with_capacity(partitions.len());
        for StagedPartition { index, outcome } in partitions {
            let outcome = match outcome {
                Ok(staged) => await_append(staged, deadline).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = &outcome {
                ctx.metrics.error(ApiKey::Produce, refusal.code);
            }
            partition_responses.push(partition_response(index, outcome));
        }
        let response =
            TopicProduceResponse::default().with_partition_responses(partition_responses);
        responses.push(match topic {
            TopicRef::Name(name) => response.with_name(TopicName(name)),
            TopicRef::Id(id) => response.with_topic_id(id),
        });
    }
    ProduceResponse::default().with_responses(responses)
}

struct Offsets {
    base: i64,
    log_start: i64,
    append_time: i64,
}

async fn await_append(staged: Staged, deadline: Instant) -> Result<Offsets, Refusal> {
    match timeout_at(deadline, staged.pending).await {
        Ok(Ok(appended)) => Ok(Offsets {
            base: appended.base_offset.0,
            log_start: appended.log_start.0,
            append_time: staged.append_time,
        }),
        Ok(Err(error)) => Err(Refusal {
            code: error::append(&error),
            message: Some(error.to_string()),
            record: None,
        }),
        Err(_) => Err(Code::RequestTimedOut.into()),
    }
}

fn partition_response(index: i32, outcome: Result<Offsets, Refusal>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(offsets) => response
            .with_error_code(NONE)
            .with_base_offset(offsets.base)
            .with_log_append_time_ms(offsets.append_time)
            .with_log_start_offset(offsets.log_start),
        Err(refusal) => {
            let message = refusal.message.map(StrBytes::from_string);
            let records = refusal.record.map(|index| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(index as i32)
                    .with_batch_index_error_message(message.clone())
            });
            response
                .with_error_code(refusal.code.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
                .with_record_errors(records.into_iter().collect())
                .with_error_message(message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_batches_take_more_memory_than_their_bytes() {
        let partition = |index| ProducePartition {
            index,
            records: (index > 0).then(|| Bytes::from_static(&[0; 70])),
        };
        let topic = |name| ProduceTopic {
            topic: TopicRef::Name(StrBytes::from_static_str(name)),
            partitions: (0..101).map(partition).collect(),
        };
        let request = ProduceRequest {
            transactional_id: None,
            acks: 1,
            timeout_ms: 0,
            topics: vec![topic("a"), topic("b")],
        };
        assert_eq!(footprint(&request), 200 * (70 + BATCH_OVERHEAD));
    }
}

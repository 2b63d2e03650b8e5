//! Fetch (key 1): record batches out.
//!
//! Sessions (KIP-227) are not kept: the session id in every response is 0, at which clients go on
//! sending full requests, and every partition of a request is answered.
//!
//! # What is old and what is wrong
//! The image may be behind what the client has seen through another gateway. An offset beyond the
//! local high watermark is therefore checked again behind a barrier before it is called out of
//! range: the answer makes consumers jump to where they were told to begin. An offset below the
//! local log start is truly gone, since log starts only rise.
//!
//! # Waiting
//! A request that finds fewer than `min_bytes` waits for the image to change, not longer than
//! `max_wait`. What was read stays read, as extents are immutable; the next round goes on behind
//! it. An error of any partition is answered at once.
//!
//! # Zones
//! The client's rack is remembered for its next Metadata. No preferred read replica is answered: the
//! Java consumer follows it only to a broker that Metadata lists among the partition's replicas, and
//! asks again otherwise, without getting any records meanwhile.
//!
//! Sources: KIP-74 (limits), KIP-320 (epochs), KIP-392, KIP-516 (topic ids).

mod plan;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frazil_cache::{Compression, ReadError, ReadRequest};
use frazil_core::batch::{Codec, HEADER_LENGTH};
use frazil_core::cold::NodeRef;
use frazil_core::ports::Bounds;
use frazil_core::{Extent, Location, Offset, TopicId, TopicPartition};
use futures_util::StreamExt;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use self::plan::Available;
use super::check_leader_epoch;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code};
use crate::wire::fetch::{FetchResponse, FetchedPartition, FetchedTopic, encode};
use crate::wire::response::Response;

/// Isolation level of consumers that read committed records only.
const READ_COMMITTED: i8 = 1;
/// The longest that a client may let a request wait.
const WAIT_MAX_MS: i32 = 300_000;
/// The first version whose clients know zstd (KIP-110).
const ZSTD_MIN: i16 = 10;
/// Partitions of one request that are read at once.
const READS_AT_ONCE: usize = 16;

/// Answers record batches, waiting for them as the client wishes.
///
/// # Cancel safety
/// Nothing is lost by dropping it.
pub(crate) async fn handle(
    ctx: &Ctx,
    conn: &ConnInfo,
    header: &Header,
    request: FetchRequest,
    version: i16,
) -> Response {
    let read_committed = request.isolation_level == READ_COMMITTED;
    let client_id = header.client_id.as_deref().unwrap_or_default();
    ctx.zones
        .learn(conn.peer.ip(), client_id, request.rack_id.as_str());
    if request.session_id != 0 {
        // We never gave out an id. The client starts over with a full request.
        let response = FetchResponse {
            error_code: Code::FetchSessionIdNotFound.code(),
            read_committed,
            ..FetchResponse::default()
        };
        return encode(response, version, header.correlation_id);
    }
    let wait = Duration::from_millis(request.max_wait_ms.clamp(0, WAIT_MAX_MS) as u64);
    let mut fetch = Fetch {
        ctx,
        version,
        read_committed,
        wanted: wanted(ctx, &request, version).await,
        bytes_max: (request.max_bytes.max(0) as usize).min(ctx.config.fetch_bytes_max),
        bytes: 0,
        barrier: None,
        permit: None,
    };
    if ctx.sends_away() {
        for wanted in &mut fetch.wanted {
            wanted.error.get_or_insert(Code::NotLeaderOrFollower);
        }
    }
    let min_bytes = request.min_bytes.max(0) as usize;
    fetch.run(min_bytes, Instant::now() + wait, conn).await;

    ctx.metrics.fetched_bytes.inc_by(fetch.bytes as u64);
    let permit = fetch.permit;
    let mut answers = fetch.wanted.into_iter().map(|wanted| wanted.answer(ctx));
    let topics = request
        .topics
        .into_iter()
        .map(|topic| FetchedTopic {
            name: topic.topic.0,
            id: topic.topic_id,
            partitions: answers.by_ref().take(topic.partitions.len()).collect(),
        })
        .collect();
    let response = FetchResponse {
        error_code: error::NONE,
        topics,
        read_committed,
    };
    encode(response, version, header.correlation_id).holding(permit)
}

/// The request's partitions, in its order.
async fn wanted(ctx: &Ctx, request: &FetchRequest, version: i16) -> Vec<Wanted> {
    let by_id = version >= 13;
    let find = |topic: &FetchTopic| {
        if by_id {
            let found = ctx.catalog.topic_by_id(TopicId::new(topic.topic_id));
            found.ok_or(Code::UnknownTopicId)
        } else {
            let found = ctx.catalog.topic(&topic.topic);
            found.ok_or(Code::UnknownTopicOrPartition)
        }
    };
    let is_known = |topic: &FetchTopic| {
        let mut indexes = topic.partitions.iter().map(|asked| asked.partition);
        find(topic).is_ok_and(|found| indexes.all(|index| index < found.partitions))
    };
    if !request.topics.iter().all(is_known) {
        // It may have been created, or have grown, a moment ago. If the barrier fails the client is told that the
        // topic is unknown, at which it refreshes its metadata and comes again.
        let _ = ctx.log.barrier().await;
    }
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let found = find(topic);
        wanted.extend(topic.partitions.iter().map(|asked| {
            let partition = match &found {
                Err(code) => Err(*code),
                Ok(topic) if !(0..topic.partitions).contains(&asked.partition) => {
                    Err(Code::UnknownTopicOrPartition)
                }
                Ok(topic) => Ok(TopicPartition::new(topic.id, asked.partition)),
            };
            Wanted::new(asked, partition)
        }));
    }
    wanted
}

/// One partition of the request, and what has been found for it so far.
struct Wanted {
    index: i32,
    partition: Option<TopicPartition>,
    /// Where to read on.
    next: Offset,
    bytes_max: usize,
    error: Option<Code>,
    bounds: Option<Bounds>,
    records: Vec<Bytes>,
    bytes: usize,
}

impl Wanted {
    fn new(asked: &FetchPartition, partition: Result<TopicPartition, Code>) -> Self {
        let checked = partition.and_then(|partition| {
            check_leader_epoch(asked.current_leader_epoch)?;
            Ok(partition)
        });
        Self {
            index: asked.partition,
            partition: checked.ok(),
            next: Offset(asked.fetch_offset),
            bytes_max: asked.partition_max_bytes.max(0) as usize,
            error: checked.err(),
            bounds: None,
            records: Vec::new(),
            bytes: 0,
        }
    }

    fn answer(self, ctx: &Ctx) -> FetchedPartition {
        if let Some(code) = self.error {
            ctx.metrics.error(ApiKey::Fetch, code);
        }
        let code = self.error.map_or(error::NONE, |code| code.code());
        match self.bounds {
            None => FetchedPartition::error(self.index, code),
            Some(bounds) => FetchedPartition {
                index: self.index,
                error_code: code,
                high_watermark: bounds.high_watermark.0,
                last_stable: bounds.last_stable.0,
                log_start: bounds.log_start.0,
                records: self.records,
            },
        }
    }
}

struct Fetch<'a> {
    ctx: &'a Ctx,
    version: i16,
    read_committed: bool,
    wanted: Vec<Wanted>,
    bytes_max: usize,
    bytes: usize,
    /// Whether the image has been brought up to date for this request, once it was tried.
    barrier: Option<bool>,
    /// Memory accounted to what has been read.
    permit: Option<OwnedSemaphorePermit>,
}

impl Fetch<'_> {
    /// Reads until there is enough, or the time is over.
    async fn run(&mut self, min_bytes: usize, deadline: Instant, conn: &ConnInfo) {
        let watched: Vec<TopicPartition> = self.wanted.iter().filter_map(|w| w.partition).collect();
        // Before the first look, so that no change falls between.
        let mut watch = self.ctx.log.watch(&watched);
        loop {
            let limited = self.round(deadline).await;
            let failed = self.wanted.iter().any(|wanted| wanted.error.is_some());
            let enough = self.bytes >= min_bytes || (limited && self.bytes > 0);
            if failed || enough || watched.is_empty() || Instant::now() >= deadline {
                return;
            }
            // Who waits shall come again, and be sent away.
            let leaving = async {
                self.ctx.drain.begun().await;
                if !self.ctx.sends_away() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = conn.drain.cancelled() => return,
                () = leaving => return,
                changed = timeout_at(deadline, watch.changed()) => {
                    // The time is over: a last look would find what the watch did not tell.
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Looks once at every partition and reads what is there. Answers whether there was more
    /// than the limits allow.
    async fn round(&mut self, deadline: Instant) -> bool {
        let mut available = Vec::new();
        for at in 0..self.wanted.len() {
            if let Some(upper) = self.readable(at).await {
                let wanted = &self.wanted[at];
                let partition = wanted.partition.expect("a readable partition is known");
                let bytes_max = wanted.bytes_max.saturating_sub(wanted.bytes);
                // At least one byte is asked for, so that the first batch of all is found even if
                // the limits are 0.
                let located = self
                    .ctx
                    .log
                    .locate(&partition, wanted.next, bytes_max.max(1) as u64);
                let extents = located.extents.iter().map(served_bytes);
                let cold = located.cold.as_ref();
                let cold_bytes = cold.map_or(0, |root| cold_bytes(root, wanted.next));
                let bytes = extents.fold(cold_bytes, usize::saturating_add);
                available.push((
                    Available { bytes, bytes_max },
                    Read {
                        at,
                        partition,
                        from: wanted.next,
                        up_to: upper,
                        compression: self.compression(partition.topic),
                    },
                ));
            }
        }
        if available.is_empty() {
            return false;
        }
        let budget = self.bytes_max.saturating_sub(self.bytes);
        let sizes: Vec<Available> = available.iter().map(|(available, _)| *available).collect();
        let allotments = plan::allot(&sizes, budget, self.bytes == 0);
        let planned: usize = allotments.iter().map(|a| a.bytes_max).sum();
        if !self.account(planned, deadline).await {
            return true;
        }
        let mut limited = false;
        let reads = available.into_iter().zip(allotments);
        let reads = reads.filter(|(_, allotment)| allotment.bytes_max > 0 || allotment.min_one);
        let cache = &self.ctx.cache;
        let reads = futures_util::stream::iter(reads.map(|((_, read), allotment)| async move {
            let request = ReadRequest {
                partition: read.partition,
                from: read.from,
                up_to: read.up_to,
                max_bytes: allotment.bytes_max,
                min_one: allotment.min_one,
                compression: read.compression,
            };
            (read, cache.read(request).await)
        }))
        .buffered(READS_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
        for (read, outcome) in reads {
            let wanted = &mut self.wanted[read.at];
            match outcome {
                // What has been deleted meanwhile may be missing in front of what was found. What
                // an earlier round found is whole, and is answered.
                Ok(_) if is_overtaken(self.ctx, &read) => {
                    if wanted.bytes == 0 {
                        wanted.error = Some(Code::OffsetOutOfRange);
                    }
                }
                Ok(found) => {
                    limited |= found.next < read.up_to;
                    if found.next > read.up_to {
                        // Records that have become cold are cut into batches anew, and one of them
                        // may reach past what was the end. Nothing is cold that is not stable.
                        let newer = self.ctx.log.bounds(&read.partition);
                        wanted.bounds = newer.or(wanted.bounds);
                    }
                    wanted.next = found.next;
                    wanted.bytes += found.bytes;
                    wanted.records.extend(found.pieces);
                    self.bytes += found.bytes;
                }
                Err(error) => wanted.error = read_error(self.ctx, &read, &error),
            }
        }
        self.give_back();
        limited
    }

    /// How batches are compressed that are made of cold records.
    fn compression(&self, topic: TopicId) -> Compression {
        let zstd = self.version >= ZSTD_MIN;
        let Some(topic) = self.ctx.catalog.topic_by_id(topic) else {
            return Compression::AsProduced { zstd };
        };
        let config = self
            .ctx
            .topic_configs
            .of(&topic, self.ctx.catalog.as_ref(), self.ctx.broker);
        match config.compression {
            None => Compression::AsProduced { zstd },
            Some(Codec::Zstd) if !zstd => Compression::As(Codec::Lz4),
            Some(codec) => Compression::As(codec),
        }
    }

    /// The end of what can be read of a partition, if there is anything.
    async fn readable(&mut self, at: usize) -> Option<Offset> {
        let wanted = &self.wanted[at];
        if wanted.error.is_some() {
            return None;
        }
        let partition = wanted.partition?;
        let next = wanted.next;
        let mut bounds = self.ctx.log.bounds(&partition);
        if bounds.is_none_or(|bounds| next > bounds.high_watermark) && next >= Offset(0) {
            let fresh = self.freshen().await;
            bounds = self.ctx.log.bounds(&partition);
            let beyond = bounds.is_none_or(|bounds| next > bounds.high_watermark);
            if beyond && !fresh {
                self.wanted[at].error = Some(Code::OffsetNotAvailable);
                return None;
            }
        }
        let wanted = &mut self.wanted[at];
        let Some(bounds) = bounds else {
            wanted.error = Some(Code::UnknownTopicOrPartition);
            return None;
        };
        if next > bounds.high_watermark || (next < bounds.log_start && wanted.bytes == 0) {
            wanted.bounds = Some(bounds);
            wanted.error = Some(Code::OffsetOutOfRange);
            return None;
        }
        wanted.bounds = Some(bounds);
        let upper = if self.read_committed {
            bounds.last_stable
        } else {
            bounds.high_watermark
        };
        (next < upper && next >= bounds.log_start).then_some(upper)
    }

    /// Brings the image up to date, once per request. Answers whether it is.
    async fn freshen(&mut self) -> bool {
        if self.barrier.is_none() {
            self.barrier = Some(self.ctx.log.barrier().await.is_ok());
        }
        self.barrier == Some(true)
    }

    /// Accounts memory for `bytes` more. Waits for it only while nothing is held, so that
    /// requests do not wait for each other in a circle. `false`: there is none.
    async fn account(&mut self, bytes: usize, deadline: Instant) -> bool {
        let memory = Arc::clone(&self.ctx.fetch_memory);
        let bytes = bytes.min(self.ctx.config.fetches_in_flight_bytes_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = match &self.permit {
            Some(_) => memory.try_acquire_many_owned(bytes).ok(),
            None => timeout_at(deadline, memory.acquire_many_owned(bytes))
                .await
                .ok()
                .and_then(Result::ok),
        };
        let Some(more) = more else {
            return false;
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        true
    }

    /// Gives back the memory that was accounted for what was then not found.
    fn give_back(&mut self) {
        if let Some(permit) = &mut self.permit {
            let unused = permit.num_permits().saturating_sub(self.bytes);
            drop(permit.split(unused));
        }
    }
}

/// The bytes of an extent in a response, at most; for one that is lost, those of the batch without
/// records in its place.
fn served_bytes(extent: &Extent) -> usize {
    match extent.location {
        Location::Lost => HEADER_LENGTH,
        location => location.length() as usize,
    }
}

/// The bytes of the cold offsets from `from` on in a response, or somewhat more.
fn cold_bytes(root: &NodeRef, from: Offset) -> usize {
    let whole = u128::try_from(root.end - root.base).unwrap_or(0).max(1);
    let rest = u128::try_from(root.end - from).unwrap_or(0).min(whole);
    // As batches they have up to some four times as many bytes, compressed or not.
    let bytes = 4 * u128::from(root.bytes) * rest / whole;
    HEADER_LENGTH.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX))
}

struct Read {
    at: usize,
    partition: TopicPartition,
    from: Offset,
    up_to: Offset,
    compression: Compression,
}

/// Whether retention or DeleteRecords have raised the log start above what was asked for since the
/// bounds were looked at.
fn is_overtaken(ctx: &Ctx, read: &Read) -> bool {
    let bounds = ctx.log.bounds(&read.partition);
    bounds.is_some_and(|bounds| read.from < bounds.log_start)
}

/// What a failed read is answered with; `None`: nothing yet, it shall be tried again when the
/// image changes.
fn read_error(ctx: &Ctx, read: &Read, error: &ReadError) -> Option<Code> {
    if let ReadError::ElsewhereInWal { .. } = error {
        return None;
    }
    if is_overtaken(ctx, read) {
        return Some(Code::OffsetOutOfRange);
    }
    warn!(partition = %read.partition, offset = %read.from, %error, "records cannot be read");
    Some(error::read(error))
}

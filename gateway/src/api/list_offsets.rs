//! ListOffsets (key 2): where a partition's log begins and ends, and which record a time is at.
//!
//! A client that was told of an append must find it in the end of the log, through whichever
//! gateway it asks: the image is brought up to date once per request.
//!
//! | timestamp | answer |
//! |---|---|
//! | -1 | the high watermark, or for read_committed the last stable offset |
//! | -2, -4 | the log start |
//! | -3 | the first record with the largest timestamp |
//! | -5 | -1: there is no second tier |
//! | ≥ 0 | the first record with that timestamp or a later one; -1 if there is none |
//!
//! Cold offsets are no second tier of Kafka's kind: every gateway reads them as it reads the others.
//!
//! Sources: KIP-79, KIP-320, KIP-405, KIP-734, KIP-1005.

use std::collections::HashSet;

use bytes::Bytes;
use frazil_core::batch::codec::decompress;
use frazil_core::batch::{BatchHeader, HEADER_LENGTH, RECORDS_MAX, RecordSlices};
use frazil_core::cold::NodeRef;
use frazil_core::ports::{Bounds, Place};
use frazil_core::{Extent, LEADER_EPOCH, Offset, TopicPartition};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse};
use tracing::warn;

use super::check_leader_epoch;
use crate::context::{ConnInfo, Ctx, Header};
use crate::error::{self, Code, NONE};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

const READ_COMMITTED: i8 = 1;
/// Places that are looked into for one timestamp. The first one has the record unless its
/// batches lie about their largest timestamp or it ends below the log start.
const PLACES_MAX: usize = 8;

/// An offset with its record's timestamp; both -1 where there is no such record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    offset: i64,
    timestamp: i64,
}

const NOTHING: Found = Found {
    offset: -1,
    timestamp: -1,
};

/// Answers one offset per partition.
pub(crate) async fn handle(
    ctx: &Ctx,
    _conn: &ConnInfo,
    _header: &Header,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let fresh = ctx.log.barrier().await;
    let read_committed = request.isolation_level == READ_COMMITTED;
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked_topic in request.topics {
        let topic = ctx.catalog.topic(&asked_topic.name);
        let mut partitions = Vec::with_capacity(asked_topic.partitions.len());
        for asked in asked_topic.partitions {
            let partition = topic
                .as_ref()
                .map(|topic| TopicPartition::new(topic.id, asked.partition_index));
            let found = match (&fresh, partition) {
                (Err(error), _) => Err(error::data_path(error)),
                (Ok(()), None) => Err(Code::UnknownTopicOrPartition),
                (Ok(()), Some(partition)) if !seen.insert(partition) => Err(Code::InvalidRequest),
                (Ok(()), Some(partition)) => {
                    find(ctx, partition, &asked, read_committed, version).await
                }
            };
            partitions.push(partition_response(
                ctx,
                asked.partition_index,
                found,
                version,
            ));
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(asked_topic.name)
                .with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn partition_response(
    ctx: &Ctx,
    index: i32,
    found: Result<Found, Code>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(found) => {
            let response = response
                .with_error_code(NONE)
                .with_timestamp(found.timestamp)
                .with_offset(found.offset);
            if version >= 4 && found != NOTHING {
                response.with_leader_epoch(LEADER_EPOCH)
            } else {
                response
            }
        }
        Err(code) => {
            ctx.metrics.error(ApiKey::ListOffsets, code);
            response
                .with_error_code(code.code())
                .with_timestamp(-1)
                .with_offset(-1)
        }
    }
}

async fn find(
    ctx: &Ctx,
    partition: TopicPartition,
    asked: &ListOffsetsPartition,
    read_committed: bool,
    version: i16,
) -> Result<Found, Code> {
    let bounds = ctx
        .log
        .bounds(&partition)
        .ok_or(Code::UnknownTopicOrPartition)?;
    if version >= 4 {
        check_leader_epoch(asked.current_leader_epoch)?;
    }
    let end = if read_committed {
        bounds.last_stable
    } else {
        bounds.high_watermark
    };
    let at = |offset: Offset| Found {
        offset: offset.0,
        timestamp: -1,
    };
    match asked.timestamp {
        LATEST => Ok(at(end)),
        EARLIEST | EARLIEST_LOCAL => Ok(at(bounds.log_start)),
        LATEST_TIERED => Ok(NOTHING),
        MAX_TIMESTAMP => {
            let found = find_max(ctx, partition, &bounds).await?;
            Ok(within(found, end))
        }
        timestamp if timestamp >= 0 => {
            let found = find_time(ctx, partition, &bounds, timestamp).await?;
            Ok(within(found, end))
        }
        _ => Err(Code::UnsupportedVersion),
    }
}

/// What was found, unless the consumer cannot see it.
fn within(found: Option<Found>, end: Offset) -> Found {
    found
        .filter(|found| found.offset < end.0)
        .unwrap_or(NOTHING)
}

/// The first of the records with the largest timestamp.
async fn find_max(
    ctx: &Ctx,
    partition: TopicPartition,
    bounds: &Bounds,
) -> Result<Option<Found>, Code> {
    let from = bounds.log_start;
    let root = match ctx.log.locate_max_timestamp(&partition) {
        None => return Ok(None),
        Some(Place::Extent(extent)) => {
            return search(ctx, partition, extent, from, extent.max_timestamp).await;
        }
        Some(Place::Cold(root)) => root,
    };
    let cold = search_cold(ctx, partition, &root, from, None).await?;
    if cold.is_some_and(|found| found.timestamp == root.max_timestamp) {
        return Ok(cold);
    }
    // The record that the root speaks of has been deleted: an extent may have the largest now.
    let extents = ctx.log.locate(&partition, root.end, u64::MAX).extents;
    let largest = extents.into_iter().reduce(|largest, extent| {
        match extent.max_timestamp > largest.max_timestamp {
            true => extent,
            false => largest,
        }
    });
    let known = cold.map_or(i64::MIN, |found| found.timestamp);
    match largest.filter(|extent| extent.max_timestamp > known) {
        Some(extent) => search(ctx, partition, extent, from, extent.max_timestamp).await,
        None => Ok(cold),
    }
}

/// The first record from the log start on that has `timestamp` or a later one.
async fn find_time(
    ctx: &Ctx,
    partition: TopicPartition,
    bounds: &Bounds,
    timestamp: i64,
) -> Result<Option<Found>, Code> {
    let mut from = bounds.log_start;
    for _ in 0..PLACES_MAX {
        let (found, end) = match ctx.log.locate_time(&partition, from, timestamp) {
            None => return Ok(None),
            Some(Place::Cold(root)) => {
                let found = search_cold(ctx, partition, &root, from, Some(timestamp));
                (found.await?, root.end)
            }
            Some(Place::Extent(extent)) => {
                let found = search(ctx, partition, extent, bounds.log_start, timestamp);
                (found.await?, extent.end)
            }
        };
        if found.is_some() {
            return Ok(found);
        }
        from = end;
    }
    Ok(None)
}

/// The first record among the cold offsets, from `from` on, that has `timestamp` or a later one;
/// without it, the first of those with the largest.
async fn search_cold(
    ctx: &Ctx,
    partition: TopicPartition,
    root: &NodeRef,
    from: Offset,
    timestamp: Option<i64>,
) -> Result<Option<Found>, Code> {
    let found = ctx.cache.find_time(partition, root, from, timestamp).await;
    let found = found.map_err(|error| {
        warn!(%partition, %error, "records cannot be read");
        error::read(&error)
    })?;
    Ok(found.map(|(offset, timestamp)| Found {
        offset: offset.0,
        timestamp,
    }))
}

/// The first record of an extent, from `from` on, that has `timestamp` or a later one.
async fn search(
    ctx: &Ctx,
    partition: TopicPartition,
    extent: Extent,
    from: Offset,
    timestamp: i64,
) -> Result<Option<Found>, Code> {
    let batches = ctx
        .cache
        .read_extent(partition, &extent)
        .await
        .map_err(|error| {
            warn!(%partition, offset = %extent.base, %error, "records cannot be read");
            error::read(&error)
        })?;
    // One batch is decompressed at most, usually; that may take milliseconds.
    let searched =
        crate::blocking::spawn_blocking(move || search_batches(&batches, from, timestamp)).await;
    match searched {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(reason)) => {
            warn!(%partition, offset = %extent.base, reason, "records cannot be decoded");
            Err(Code::KafkaStorageError)
        }
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Code::LeaderNotAvailable),
        },
    }
}

fn search_batches(
    batches: &[(Offset, Bytes)],
    from: Offset,
    timestamp: i64,
) -> Result<Option<Found>, String> {
    for (base, batch) in batches {
        let header = BatchHeader::parse(batch).map_err(|error| error.to_string())?;
        let end = base.0 + i64::from(header.offsets());
        if header.max_timestamp < timestamp || end <= from.0 {
            continue;
        }
        let section = batch.slice(HEADER_LENGTH..header.length as usize);
        let codec = header.codec().map_err(|error| error.to_string())?;
        let records =
            decompress(codec, &section, RECORDS_MAX).map_err(|error| error.to_string())?;
        // Slices: a record may have millions of headers, and nobody asks for them here.
        for record in RecordSlices::new(&header, *base, &records) {
            let record = record.map_err(|error| error.to_string())?;
            if record.timestamp >= timestamp && record.offset >= from {
                return Ok(Some(Found {
                    offset: record.offset.0,
                    timestamp: record.timestamp,
                }));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use frazil_core::batch::{BatchBuilder, Codec, TimestampType};

    use super::*;

    fn batch(codec: Codec, times: &[i64]) -> Bytes {
        let mut builder = BatchBuilder::new().codec(codec);
        for &time in times {
            builder = builder.record(time, None, Some(b"v"));
        }
        builder.build()
    }

    fn check(batches: &[(Offset, Bytes)], from: i64, timestamp: i64, expected: Option<(i64, i64)>) {
        let found = search_batches(batches, Offset(from), timestamp).unwrap();
        assert_eq!(found.map(|found| (found.offset, found.timestamp)), expected);
    }

    #[test]
    fn the_first_record_at_or_after_a_time_is_found_to_the_record() {
        for codec in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            let batches = [
                (Offset(10), batch(codec, &[100, 300, 200])),
                (Offset(13), batch(codec, &[150, 250, 400])),
            ];
            check(&batches, 0, 0, Some((10, 100)));
            check(&batches, 0, 101, Some((11, 300)));
            check(&batches, 0, 300, Some((11, 300)));
            check(&batches, 0, 301, Some((15, 400)));
            check(&batches, 0, 401, None);
            check(&batches, 12, 200, Some((12, 200)));
            check(&batches, 12, 201, Some((14, 250)));
            check(&batches, 16, 0, None);
        }
    }

    #[test]
    fn with_append_time_all_records_have_the_batch_s() {
        let builder = BatchBuilder::new()
            .timestamp_type(TimestampType::LogAppendTime)
            .record(500, None, None)
            .record(900, None, None);
        let batches = [(Offset(7), builder.build())];
        check(&batches, 0, 600, Some((7, 900)));
        check(&batches, 8, 600, Some((8, 900)));
        check(&batches, 0, 901, None);
    }

    #[test]
    fn bytes_that_are_no_batch_are_an_error() {
        let batches = [(Offset(0), Bytes::from_static(b"nonsense"))];
        assert!(search_batches(&batches, Offset(0), 0).is_err());
    }
}

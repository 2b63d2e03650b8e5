//! What becomes of batches on their way to disk and store: 8 MiB of them, which is a full segment.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use frazil_core::batch::{Codec, Limits, validate};
use frazil_core::frame::{FrameMeta, encode_frame};
use frazil_core::ports::BatchInfo;
use frazil_core::segment::{self, SegmentBuilder};
use frazil_core::{BrokerEpoch, SegmentId, TopicPartition};
use uuid::Uuid;

use super::{NOW_MS, Numbers, batch, partition};
use crate::{Case, Work};

const SEGMENT: usize = 8 << 20;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, prepare| Case {
        name,
        bytes: Some(SEGMENT as u64),
        prepare,
    };
    vec![
        case("wal/frames of 12 partitions", || frames(12, 16 << 10)),
        case("wal/frames of 1 000 partitions", || frames(1000, 2 << 10)),
        case("segment/build of 12 partitions", || built(12, 16 << 10)),
        case("segment/build of 1 000 partitions", || built(1000, 2 << 10)),
        case("segment/open", opened),
    ]
}

/// Batches of `bytes` bytes that fill a segment, spread over partitions.
fn batches(partitions: usize, bytes: usize) -> Vec<(TopicPartition, Bytes, BatchInfo)> {
    let limits = Limits {
        now_ms: NOW_MS,
        ..Limits::default()
    };
    // One is as good as another: the bytes are copied and summed up, whatever they are.
    let batch = batch(&mut Numbers::new(), Codec::None, 1000, bytes - 1000);
    let sound = validate(&batch, &limits).expect("a sound batch");
    (0..SEGMENT / batch.len())
        .map(|n| {
            let partition = partition(0, (n % partitions) as i32);
            (partition, batch.clone(), sound.info)
        })
        .collect()
}

/// What is written for them to the write-ahead log: a frame for each partition.
fn frames(partitions: usize, bytes: usize) -> Work {
    let batches = batches(partitions, bytes);
    let salt = [7; 16];
    let mut of: Vec<Vec<Bytes>> = vec![Vec::new(); partitions];
    for (partition, batch, _) in &batches {
        of[partition.partition as usize].push(batch.clone());
    }
    Box::new(move || {
        let mut out = BytesMut::with_capacity(SEGMENT + (64 << 10));
        for (sequence, batches) in (0..).zip(&of) {
            let meta = FrameMeta {
                kind: 1,
                sequence,
                synced_below: 0,
            };
            let header = [0; 20];
            let mut parts: Vec<&[u8]> = vec![&header];
            parts.extend(batches.iter().map(|batch| &batch[..]));
            encode_frame(&mut out, &salt, meta, &parts);
        }
        black_box(out);
    })
}

fn build(batches: &[(TopicPartition, Bytes, BatchInfo)]) -> Bytes {
    let mut segment = SegmentBuilder::new();
    for (partition, batch, info) in batches {
        segment
            .push(*partition, batch.clone(), *info)
            .expect("room for it");
    }
    let id = SegmentId::new(BrokerEpoch(1), 1);
    segment.finish(id, Uuid::from_u128(9), "micro").bytes
}

fn built(partitions: usize, bytes: usize) -> Work {
    let batches = batches(partitions, bytes);
    Box::new(move || drop(black_box(build(&batches))))
}

/// A whole segment read and checked.
fn opened() -> Work {
    let object = build(&batches(12, 16 << 10));
    Box::new(move || drop(black_box(segment::open(&object).expect("a segment"))))
}

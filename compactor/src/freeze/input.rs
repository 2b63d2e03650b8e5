//! Reads the extents of a round: each segment once, and of it what belongs to the topic.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use frazil_core::{Location, Offset};
use frazil_table::read::coalesce;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::JobError;
use super::cutter::Piece;
use super::plan::Step;
use crate::bucket::Bucket;

/// What is read along with the topic's bytes instead of asking twice.
const GAP: u64 = 64 << 10;
/// Requests at once.
const PARALLEL: usize = 8;

/// The extents of `round` with their bytes, by partition and offset.
pub(super) async fn read(bucket: &Bucket, round: &[Step]) -> Result<Vec<Piece>, JobError> {
    // Of partitions and offsets, so that what comes back in any order is put into its place.
    let mut pieces: BTreeMap<(i32, Offset), Piece> = BTreeMap::new();
    for step in round {
        for (partition, extent) in &step.extents {
            let piece = Piece {
                partition: *partition,
                base: extent.base,
                end: extent.end,
                segment: step.segment,
                bytes: Bytes::new(),
            };
            pieces.insert((*partition, extent.base), piece);
        }
    }
    let mut requests = Vec::new();
    for step in round {
        let Some(id) = step.segment else { continue };
        let mut places: Vec<(Range<u64>, (i32, Offset))> = step
            .extents
            .iter()
            .filter_map(|(partition, extent)| match extent.location {
                Location::Segment { start, length, .. } => {
                    let start = u64::from(start);
                    let range = start..start + u64::from(length);
                    Some((range, (*partition, extent.base)))
                }
                _ => None,
            })
            .collect();
        places.sort_by_key(|(range, _)| range.start);
        let ranges: Vec<_> = places.iter().map(|(range, _)| range.clone()).collect();
        for whole in coalesce(&ranges, GAP) {
            let inside = places
                .iter()
                .filter(|(range, _)| whole.start <= range.start && range.end <= whole.end);
            requests.push((id, whole.clone(), inside.cloned().collect::<Vec<_>>()));
        }
    }
    let mut answers = stream::iter(requests)
        .map(|(id, whole, inside)| async move {
            let path = bucket.segment(id);
            let bytes = bucket.get_range(&path, whole.clone()).await?;
            if bytes.len() as u64 != whole.end - whole.start {
                return Err(JobError::Object {
                    key: path.to_string(),
                    what: "its length",
                });
            }
            Ok((whole.start, bytes, inside))
        })
        .buffer_unordered(PARALLEL);
    while let Some((start, bytes, inside)) = answers.try_next().await? {
        for (range, key) in inside {
            let slice = (range.start - start) as usize..(range.end - start) as usize;
            if let Some(piece) = pieces.get_mut(&key) {
                piece.bytes = bytes.slice(slice);
            }
        }
    }
    Ok(pieces.into_values().collect())
}

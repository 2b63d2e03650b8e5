//! Deletes the objects of retired segments.
//!
//! Order: the state retires a segment when its last reference goes; the grace period passes; the
//! object is deleted; the state forgets the segment. A crash between the last two repeats the
//! deletion of an object that is not there, which is a success.

use std::time::Duration;

use frazil_core::SegmentId;
use frazil_core::ports::Ledger;
use frazil_core::sabotage::{self, Bug};
use frazil_objects::{Failure, Retries};
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use crate::{Error, Metrics};

/// How many segments one command forgets.
const PAGE: usize = 1000;
/// How many deletions run at once.
const PARALLEL: usize = 16;
/// How long the deletion of an object is tried in a round.
const PATIENCE: Duration = Duration::from_secs(5);

/// The object of a segment of the cluster at `prefix`.
pub(crate) fn object(prefix: &Path, id: SegmentId) -> Path {
    Path::from(format!("{prefix}/{}", id.object_key()))
}

/// Deletes objects; one that is not there counts as deleted, unless it is the bucket that is not
/// there. Each is tried a few times. Answers the names of those that are gone, and the first error.
pub(crate) async fn delete<N>(
    store: &dyn ObjectStore,
    retries: &Retries,
    objects: Vec<(N, Path)>,
) -> (Vec<N>, Option<object_store::Error>) {
    let results: Vec<_> = stream::iter(objects)
        .map(|(name, path)| async move {
            let deadline = Instant::now() + PATIENCE;
            let mut attempts = retries.begin();
            loop {
                let error = match store.delete(&path).await {
                    Ok(()) => break,
                    Err(error) if Failure::of(&error) == Failure::NotFound => break,
                    Err(error) => error,
                };
                if !attempts.again_before(&error, deadline).await {
                    return Err(error);
                }
            }
            attempts.done();
            Ok(name)
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let mut gone = Vec::new();
    let mut first_error = None;
    for result in results {
        match result {
            Ok(id) => gone.push(id),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    (gone, first_error)
}

/// The objects of segments.
pub(crate) fn objects(prefix: &Path, ids: Vec<SegmentId>) -> Vec<(SegmentId, Path)> {
    let paths = ids.into_iter().map(|id| (id, object(prefix, id)));
    paths.collect()
}

/// One round. Answers how many segments are gone, or `None` if another process has become the
/// collector since `collector` was claimed.
pub async fn round(
    ledger: &dyn Ledger,
    store: &dyn ObjectStore,
    retries: &Retries,
    prefix: &Path,
    grace: Duration,
    collector: u64,
    metrics: &Metrics,
) -> Result<Option<u64>, Error> {
    let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let mut total = 0;
    loop {
        let retired = ledger.retired_segments(PAGE);
        metrics.waiting.set(retired.len() as i64);
        let mut before_ms = ledger.now_ms().saturating_sub(grace_ms);
        if sabotage::on(Bug::GraceIsIgnored) {
            before_ms = ledger.now_ms();
        }
        let due: Vec<SegmentId> = retired
            .iter()
            .take_while(|(_, retired_ms)| *retired_ms <= before_ms)
            .map(|(id, _)| *id)
            .collect();
        if due.is_empty() {
            return Ok(Some(total));
        }
        let (gone, error) = delete(store, retries, objects(prefix, due)).await;
        let count = gone.len() as u64;
        if count > 0 {
            if !ledger.forget_segments(collector, gone).await? {
                return Ok(None);
            }
            metrics.reclaimed.inc_by(count);
            total += count;
        }
        if let Some(error) = error {
            return Err(error.into());
        }
    }
}
